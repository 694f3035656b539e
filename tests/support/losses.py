"""Which lost requests no agent could have saved: judged by what truly happened in the world.

A request is lost to the platform, and to nothing else, in two cases. Its VM went down without
notice: the event appeared already Started, or no event named the VM at all. Or its connection was
open when the VM left the pool in time: where flows are dropped or reset the removal ends it, where
they are kept the maintenance does. Only an application that closes before its VM is removed saves
such a request. Whatever else was announced ahead explains nothing: there was time to take the VM
out, and a connection that is opened later does not reach it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from controller.simulator.traffic.load import Lost
from controller.simulator.world.bodies import key
from controller.simulator.world.history import Change

SOCKETS_FOLLOW_S = 1.0
"""The sockets of a VM follow it a moment later, on a busy machine a long one."""
OPEN_AT_REMOVAL = "its connection was open when the VM left the pool, and nothing had closed it"

Flows = Literal["keep", "drop", "reset"]


@dataclass(slots=True, kw_only=True)
class Outage:
    """One time for which a VM was down, reboot or freeze."""

    vm: str
    since: float
    until: float = math.inf
    cuts: bool
    """Whether it ended the connections of the VM; a freeze does not."""
    why: str
    """Why nobody could know it ahead; "" when it was announced."""
    out_since: float | None = None
    """When the VM had left the pool; None if it was in the pool as the outage began."""


@dataclass(slots=True)
class _Past:
    """What a history says about the VMs behind one pool."""

    outages: list[Outage]
    removals: list[tuple[float, str]]
    """When which VM left the pool."""


def explanations(
    history: Iterable[Change], losses: Sequence[Lost], *, pool_id: str, flows: Flows
) -> list[tuple[Lost, str]]:
    """Return every lost request with the reason why no agent could save it, "" when one could.

    `flows` is what happens to the established flows of a member that leaves the pool.
    """
    past = _past(history, pool_id)
    return [(lost, _why(past, lost, flows)) for lost in losses]


def _past(history: Iterable[Change], pool_id: str) -> _Past:
    past = _Past([], [])
    down: dict[str, Outage] = {}
    out: dict[str, float] = {}
    started_first: dict[str, bool] = {}
    running: dict[str, frozenset[str]] = {}
    for change in history:
        kind, subject, detail = change.kind, change.subject, change.detail
        match kind:
            case "event_published":
                started_first[subject] = bool(detail["started_first"])
            case "event_started":
                running[subject] = frozenset(str(detail["resources"]).split(","))
            case "event_gone":
                running.pop(subject, None)
            case "member_out" if key(subject) == key(pool_id):
                out[str(detail["vm"])] = change.at
                past.removals.append((change.at, str(detail["vm"])))
            case "member_in" if key(subject) == key(pool_id):
                out.pop(str(detail["vm"]), None)
            case "vm_down" if subject not in down:
                events = [event for event, vms in running.items() if subject in vms]
                down[subject] = Outage(
                    vm=subject,
                    since=change.at,
                    cuts=detail["state"] != "frozen",
                    why=_without_notice({event: started_first[event] for event in events}),
                    out_since=out.get(subject),
                )
                past.outages.append(down[subject])
            case "vm_up" if subject in down:
                down.pop(subject).until = change.at
            case _:
                pass
    return past


def _without_notice(events: dict[str, bool]) -> str:
    if not events:
        return "the VM failed, and no event said that it would"
    if all(events.values()):
        return f"event {', '.join(events)} appeared already Started"
    return ""


def _why(past: _Past, lost: Lost, flows: Flows) -> str:
    """Return why the first thing that hit the connection of a request could not be avoided."""
    hits: list[tuple[float, str]] = []
    if flows != "keep":
        hits += [
            (at, OPEN_AT_REMOVAL)
            for at, vm in past.removals
            if vm == lost.backend and _open_at(lost, at)
        ]
    for outage in past.outages:
        if outage.vm != lost.backend or lost.until < outage.since:
            continue
        open_since = lost.connected_at if outage.cuts else lost.at
        if open_since <= outage.until + SOCKETS_FOLLOW_S:
            removed_first = outage.out_since is not None and _open_at(lost, outage.out_since)
            hits.append((outage.since, OPEN_AT_REMOVAL if removed_first else outage.why))
    return min(hits)[1] if hits else ""


def _open_at(lost: Lost, removal: float) -> bool:
    return lost.connected_at <= removal + SOCKETS_FOLLOW_S and lost.until >= removal
