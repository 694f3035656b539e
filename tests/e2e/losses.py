"""Which lost requests nobody could have saved: judged by what truly happened, not by any agent.

A request is lost to the platform, and to nothing else, when the VM it was given to went down
without notice while the request was under way: its event appeared already Started, or no event
named it at all. Whatever was announced ahead explains nothing: there was time to take the VM out.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from controller.simulator.clients import Lost
from controller.simulator.history import Change

SOCKETS_FOLLOW_S = 1.0
"""The sockets of a VM follow it a moment later, on a busy machine a long one."""


@dataclass(slots=True, kw_only=True)
class Outage:
    """One time for which a VM was down, reboot or freeze."""

    vm: str
    since: float
    until: float = math.inf
    why: str
    """Why nobody could know it ahead; "" when it was announced."""


def outages(history: Iterable[Change]) -> list[Outage]:
    """Return every outage of a history, in order."""
    found: list[Outage] = []
    down: dict[str, Outage] = {}
    started_first: dict[str, bool] = {}
    running: dict[str, frozenset[str]] = {}
    for change in history:
        kind, subject, detail = change.kind, change.subject, change.detail
        if kind == "event_published":
            started_first[subject] = bool(detail["started_first"])
        elif kind == "event_started":
            running[subject] = frozenset(str(detail["resources"]).split(","))
        elif kind == "event_gone":
            running.pop(subject, None)
        elif kind == "vm_down" and subject not in down:
            events = [event for event, vms in running.items() if subject in vms]
            down[subject] = Outage(
                vm=subject,
                since=change.at,
                why=_without_notice({event: started_first[event] for event in events}),
            )
            found.append(down[subject])
        elif kind == "vm_up" and subject in down:
            down.pop(subject).until = change.at
    return found


def _without_notice(events: dict[str, bool]) -> str:
    if not events:
        return "the VM failed, and no event said that it would"
    if all(events.values()):
        return f"event {', '.join(events)} appeared already Started"
    return ""


def explanations(
    history: Iterable[Change], losses: Sequence[Lost], *, timeout_s: float
) -> list[tuple[Lost, str]]:
    """Return every lost request with the reason why it could not be saved, "" when it could."""
    unannounced = [outage for outage in outages(history) if outage.why]
    return [(lost, _why(unannounced, lost, timeout_s)) for lost in losses]


def _why(unannounced: Iterable[Outage], lost: Lost, timeout_s: float) -> str:
    for outage in unannounced:
        under_way_then = (
            lost.at <= outage.until + SOCKETS_FOLLOW_S and lost.at + timeout_s >= outage.since
        )
        if outage.vm == lost.backend and under_way_then:
            return outage.why
    return ""
