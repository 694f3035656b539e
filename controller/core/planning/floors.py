"""The floors of the pools: how many healthy members each has left, as VMs leave (law S2).

A VM leaves a pool only while `min_in_service` members stay that are in rotation and healthy. What
does not count as healthy: VMs that do not run, are recorded as out, settle after a restore or are
under maintenance, members whose last write failed, members whose `adminState` is Down, to which
Azure sends no new connections, and members that the load balancer reports as down (`health_watch`).
A percentage counts the pool as it is when nothing is out. So what
is out or Down for a while counts in full there, and the number of members that must stay does not
sink with it.

What Azure announces goes first. A manual drain leaves room for every VM of an announced event whose
drain begins before the request ends.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from controller.core.azure_names import fold, short
from controller.core.events import EventStatus, ScheduledEvent
from controller.core.planning.evidence import Evidence
from controller.core.planning.shared_floor import SharedFloor
from controller.core.planning.steps import Steps, WakeAt
from controller.core.planning.views import FRESH_S
from controller.core.planning.vm_case import VmCase
from controller.core.resources import Membership

FORWARDED_S = 5.0
"""A new leader of a scale set waits this long for the events that other agents forward, in seconds.
A VM whose event they alone show does not count as healthy. They are usually read within two."""


class Floors:
    """Law S2: how many healthy members every pool has left, while VMs leave one after the other.

    Made for one pass; `leave` counts a VM as out for every VM that comes after it.
    """

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        membership = evidence.views.membership
        recorded: dict[str, set[str]] = {}
        for entry in evidence.durable.entries:
            for place in () if entry.gone else entry.memberships:
                recorded.setdefault(fold(place.pool_id), set()).add(fold(entry.vm))
        self._serving: dict[str, set[str]] = {}
        self._needed: dict[str, int] = {}
        self._shared: dict[str, SharedFloor] = {}
        for pool_id, floor in evidence.policy.pools.items():
            full = membership.members(pool_id) | recorded.get(fold(pool_id), set())
            serving = membership.healthy_members(pool_id, evidence.unhealthy_in(pool_id))
            if not floor.ignores_other_sets:
                shared = self._shared[pool_id] = SharedFloor(pool_id, evidence)
                full, serving = full | shared.full, serving - shared.uncounted
            self._serving[pool_id] = serving
            self._needed[pool_id] = floor.members(full=len(full))
        self._members_read = self._due = False

    def unread(self, movable: tuple[Membership, ...]) -> str:
        """Return what has to be read before these pools can be counted; empty if nothing."""
        if not self._evidence.observed.is_complete and self._evidence.now < self._forwarded_until():
            return "which events other agents forward"
        touched = {fold(membership.pool_id) for membership in movable}
        others = (shared for pool_id, shared in self._shared.items() if fold(pool_id) in touched)
        if any(shared.unread for shared in others):
            return "what the other availability sets take out of its pools"
        return ""

    def _forwarded_until(self) -> datetime:
        """Return until when a drain waits for what other agents forward."""
        began = self._evidence.observed.tenure_at or self._evidence.now
        return began + timedelta(seconds=FORWARDED_S)

    def shortage(self, case: VmCase, movable: tuple[Membership, ...]) -> str:
        """Return why a VM has to stay: a pool would fall below its floor; empty if it may leave."""
        name = fold(case.vm.name)
        for pool_id, serving in self._touched(movable):
            staying = serving - {name}
            if len(staying) < self._needed[pool_id]:
                shared = self._shared.get(pool_id)
                plural = "" if len(staying) == 1 else "s"
                return (
                    f"{case.vm.name} stays in pool {short(pool_id)}: {len(staying)} healthy "
                    f"member{plural} would remain, and min_in_service requires "
                    f"{self._needed[pool_id]}; its drain starts as soon as enough members are "
                    f"healthy{shared.why_uncounted() if shared else ''}"
                )
        return "" if case.due or case.recorded else self._taken_room(case, movable)

    def _taken_room(self, case: VmCase, movable: tuple[Membership, ...]) -> str:
        """Return why a manual drain has to wait: it would take the room that events need."""
        if case.requested_until is None:
            return ""
        events = self._announced(case.requested_until)
        leaving = {fold(name) for event in events for name in event.resources}
        for pool_id, serving in self._touched(movable):
            staying = serving - {fold(case.vm.name)}
            if leaving & staying and len(staying - leaving) < self._needed[pool_id]:
                first = next(e for e in events if staying & {fold(vm) for vm in e.resources})
                return (
                    f"{case.vm.name} stays in pool {short(pool_id)}: {_event_text(first)} needs "
                    f"the room, since min_in_service requires {self._needed[pool_id]}; its drain "
                    "starts when that event is over"
                )
        return ""

    def _announced(self, until: datetime) -> list[ScheduledEvent]:
        """Return the impacting events whose drain begins before this, the earliest first."""
        document, policy = self._evidence.observed.document, self._evidence.policy
        found: list[ScheduledEvent] = []
        for event in document.events if document else ():
            pending = event.status is not EventStatus.STARTED and policy.impacting(event)
            drain_at = policy.drain_at(event, self._evidence.now)
            if pending and (drain_at is None or drain_at < until):
                found.append(event)
        return sorted(found, key=lambda event: event.not_before or self._evidence.now)

    def _touched(self, movable: Iterable[Membership]) -> Iterator[tuple[str, set[str]]]:
        touched = {fold(membership.pool_id) for membership in movable}
        for pool_id, serving in self._serving.items():
            if fold(pool_id) in touched:
                yield pool_id, serving

    def leave(self, case: VmCase, movable: tuple[Membership, ...]) -> bool:
        """Count a VM as out from now on; return whether it may leave now.

        It waits until the other sets in its pools can know that it leaves.
        """
        for serving in self._serving.values():
            serving.discard(fold(case.vm.name))
        for shared in self._shared.values():
            shared.claim(movable)
        self._due = True
        return not any(shared.must_wait(movable) for shared in self._shared.values())

    def read_steps(self) -> Steps:
        """Yield what is read from, and stated to, other agents and the other sets in the pools."""
        if not self._evidence.observed.is_complete:
            yield WakeAt(self._forwarded_until())
        for shared in self._shared.values():
            yield from shared.steps(due=self._due or self._members_read)

    def read_members(self) -> Steps:
        """Read what may show more members; once a pass is enough."""
        if not self._members_read:
            self._members_read = True
            for vm in self._evidence.observed.vms:
                yield from self._evidence.read_unseen(vm)
            yield from self._evidence.refresh_pools()
            yield WakeAt(self._evidence.views.in_s(FRESH_S))


def _event_text(event: ScheduledEvent) -> str:
    """Return an announced event with its VMs and its time."""
    when = "at any time"
    if event.not_before is not None:
        when = f"not before {event.not_before:%Y-%m-%d %H:%M} UTC"
    return f"event {event.event_id} ({event.event_type} of {', '.join(event.resources)}, {when})"
