"""The laws of the VM's own side: why a VM closes (S8), and for how long it stays closed (S9)."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from controller.simulator.world.history import Change
from tests.laws.closed_vms import names, parsed_entries, restores_since
from tests.laws.replay import Event, Replay

if TYPE_CHECKING:
    from controller.simulator.world.bodies import Json

NEAR_S = 60.0
"""How long before its own event a VM may close without a record."""
CLOCK_S = 45.0
"""How far the clock of an agent is off at most, and how old its event document can be."""
ANNOUNCED_S = 75.0
"""For how long an agent that cannot read events takes the last document for the truth."""
SILENT_S = 5.0
"""Storage that has answered an agent so recently answers it."""
ON_ITS_WAY_S = 0.2
"""The longest way of a request to storage and back, when nothing disturbs it."""
REFUSED_AFTER_S = 60.0
"""A restore that lasts this many seconds longer than the time to settle is refused by a pool."""
OPENS_WITHIN_S = 60.0
"""For the hooks, and for the application to become ready, beyond what is configured."""


def s8_close(replay: Replay, change: Change) -> Iterator[str]:
    """A VM closes because a durable entry names it, or alone just before its own event.

    Alone means: storage does not answer, and every pool keeps its floor of VMs that neither are
    out nor have closed alone.
    """
    vm = change.subject.casefold()
    if change.kind != "application_closed" or not _is_peer(replay, vm):
        return
    if replay.closed.named(vm):
        return
    event = _announced(replay, vm, change.at)
    if event is None:
        yield f"{change.subject} closed without an entry, and no event names it"
        return
    starts_at = event.started_at or event.not_before
    if starts_at > change.at + NEAR_S + CLOCK_S:
        yield f"{change.subject} closed alone {starts_at - change.at:.0f} s before its event"
    silent_s = change.at - replay.closed.read_at.get(vm, -math.inf)
    # A second agent on the VM has read it, and not the one that has closed.
    if silent_s < SILENT_S and change.subject not in replay.doubled:
        yield f"{change.subject} closed alone, {silent_s:.1f} s after storage had answered"
    yield from _below_floor(replay, vm)


def _below_floor(replay: Replay, vm: str) -> Iterator[str]:
    view: Json = next(iter(replay.closed.views.get(vm, [])[-1:]), {})
    out = {entry["vm"].casefold() for entry in parsed_entries(view)}
    groups = replay.conditions.placement_groups
    # A VM whose document shows other events cannot know without storage which VMs have closed.
    seen = {name for name in replay.closed.closed if groups.get(name) == groups.get(vm)}
    alone = {name for name in seen if replay.closed.closed[name].alone}
    peers = {name.casefold() for name in replay.conditions.peers}
    left = peers - out - alone - {vm}
    for pool in replay.pools:
        floor = replay.conditions.floors.get(pool, 0)
        needed = (
            floor
            if isinstance(floor, int)
            else math.ceil(int(floor.removesuffix("%")) * len(peers) / 100)
        )
        if len(left) < needed:
            name = pool.rsplit("/", 1)[-1]
            yield f"{vm} closed alone and leaves {sorted(left)} in {name}, the floor is {needed}"


def s9_open(replay: Replay, change: Change) -> Iterator[str]:
    """A closed VM opens after `open_after_s` without news, unless its own event is announced.

    It does not open before while an entry names it, unless a pool has refused it for long, and in
    the end every VM is open.
    """
    closed, at = replay.closed, change.at
    opened = change.subject.casefold()
    # A reboot has opened it already.
    if change.kind == "application_opened" and opened in closed.closed and _is_peer(replay, opened):
        yield from _opened_early(replay, opened, at)
    if change.kind == "converged":
        conditions = replay.conditions
        able = conditions.peers - conditions.unable - replay.gone - replay.down.keys()
        for vm in sorted(closed.closed):
            there = vm not in replay.gone and vm not in replay.down
            named = not able and closed.named(vm)  # nothing of such a set is over
            waits = named or _waits_for_news(replay, vm, at) or _is_opening(replay, vm, at)
            if _is_peer(replay, vm) and there and not waits:
                yield f"{vm} is closed in the end"
    for vm, state in closed.closed.items():
        awake_since = closed.awake_since.get(vm)
        if awake_since is None or not _is_peer(replay, vm) or vm in replay.down:
            continue
        since = max(closed.news_at(vm), awake_since, state.since, _announced_until(replay, vm, at))
        if at - since > _opens_within_s(replay) and not state.overdue:
            state.overdue = True
            yield f"{vm} stays closed {at - since:.0f} s after the last news"


def _waits_for_news(replay: Replay, vm: str, at: float) -> bool:
    """Return whether an agent has read nothing since it started: it is cut off from Azure.

    It cannot know that the drain of its VM is over, and opens the VM after `open_after_s`.
    """
    closed = replay.closed
    awake_since = closed.awake_since.get(vm)
    if awake_since is None or closed.views.get(vm):
        return False
    since = max(closed.news_at(vm), closed.closed[vm].since)
    return at - since <= _opens_within_s(replay)


def _is_opening(replay: Replay, vm: str, at: float) -> bool:
    """Return whether the agent of a VM may still wait for its application.

    The set does not wait for a VM whose agent cannot report that it is closed.
    """
    since = replay.closed.unnamed_since.get(vm, -math.inf)
    return at - since <= _ready_s(replay) + OPENS_WITHIN_S


def _opens_within_s(replay: Replay) -> float:
    """Return how long a VM stays closed at most without news, in seconds."""
    return replay.conditions.open_after_s + _ready_s(replay) + OPENS_WITHIN_S


def _opened_early(replay: Replay, vm: str, at: float) -> Iterator[str]:
    closed = replay.closed
    awake = closed.awake_since.get(vm)
    views = closed.views.get(vm, [])
    if at - closed.read_at.get(vm, -math.inf) < ON_ITS_WAY_S:
        views = views[:-1]  # the last reply may not have arrived
    if awake is None or not views:
        return  # a reboot, or its service has ended
    silent_s = at - max(closed.news_at(vm) - replay.conditions.lease_s, closed.read_at.get(vm, 0.0))
    settle_s = float(str(replay.conditions.policy.get("restore_settle_s", 15)))
    restoring_since = at - REFUSED_AFTER_S - settle_s + CLOCK_S
    named = all(
        names(ledger, vm) and not restores_since(ledger, vm, restoring_since)
        for ledger in (views[-1], replay.last_ledger)
    )
    if named and silent_s < replay.conditions.open_after_s - SILENT_S:
        yield f"{vm} opened while an entry names it, {silent_s:.0f} s after the last news"


def _announced(replay: Replay, vm: str, at: float) -> Event | None:
    """Return the next event for a VM that its agent can still take for announced."""
    found = [
        event
        for event in replay.events
        if vm in event.resources and replay.impacting(event)
        if event.over_at is None or at < event.over_at + ANNOUNCED_S
    ]
    return min(found, key=lambda event: event.started_at or event.not_before, default=None)


def _announced_until(replay: Replay, vm: str, at: float) -> float:
    """Return until when an event for a VM was announced, as its agent can know it."""
    return max(
        (
            at if event.over_at is None else event.over_at + ANNOUNCED_S
            for event in replay.events
            if vm in event.resources and replay.impacting(event)
        ),
        default=-math.inf,
    )


def _ready_s(replay: Replay) -> float:
    return float(str(replay.conditions.policy.get("restore_ready_timeout_s", 300)))


def _is_peer(replay: Replay, vm: str) -> bool:
    return vm in {name.casefold() for name in replay.conditions.peers}
