"""The one place where the steps of all VMs and events become a plan.

`PlanBuilder` merges what removal, restoration and acknowledgement yield, in the order in which they
yield it:

- the next ledger, from the records, the history and the holds;
- the actions: at most one per target, none that is deferred or whose target is busy, and no more
  new writes than there are write slots;
- one write per resource: writes that several VMs share wait until every VM was considered.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import assert_never

from controller.core.action_keys import CHANGES, ActionKey
from controller.core.azure_names import fold, short
from controller.core.blob_limits import MAX_HOLDS
from controller.core.drain_history import Step
from controller.core.drain_requests import DrainRequest
from controller.core.ledger import Entry, Hold, Ledger
from controller.core.planning import portions
from controller.core.planning.actions import (
    Action,
    ChangeMembership,
    HoldReason,
    Plan,
    ReadInventory,
    VmPhase,
    key_alone,
)
from controller.core.planning.evidence import Evidence
from controller.core.planning.long_waits import next_deadline, why_waiting
from controller.core.planning.mechanism import Mechanisms
from controller.core.planning.steps import (
    Change,
    Forget,
    HoldBack,
    Note,
    PlanStep,
    Record,
    Report,
    Reserve,
    Start,
    WakeAt,
)
from controller.core.planning.views import FRESH_S, Views
from controller.core.resources import Membership


class PlanBuilder:
    """The plan of one pass while it is made. Never shared, never kept."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._durable, self._observed = evidence.durable, evidence.observed
        self._mechanisms = evidence.mechanisms
        self._changed: dict[str, Entry | None] = {}
        """Entries of the next ledger that differ from the durable one; None is forgotten."""
        self._history: list[tuple[str, Step, str]] = []
        self._actions: list[Action] = []
        self._waiting: dict[ActionKey, Action] = {}
        """As `Plan.waiting`."""
        self._wakes: list[datetime] = []
        self._phases: dict[str, VmPhase] = {}
        self._holds: list[Hold] = []
        self._slots = self._observed.write_slots
        self._claimed: set[ActionKey] = set()
        """Targets that this pass writes."""
        self._reserved: set[ActionKey] = set()
        """Targets on which no restore starts."""
        self._wanted: set[ActionKey] = set()
        """Keys of writes that this pass would plan, were they not blocked or out of slots."""
        self._shared: dict[tuple[str, str, bool], list[Membership]] = {}
        """Memberships by the resource whose write several VMs share, and by direction."""

    def add(self, steps: Iterable[PlanStep]) -> None:
        """Merge steps, in their order."""
        for step in steps:
            match step:
                case Start(action):
                    self._actions.append(action)
                case Record():
                    self._record(step)
                case Forget():
                    self._changed[fold(step.vm)] = None
                    self._history.append((step.vm, step.step, step.detail))
                case Note():
                    self._history.append((step.vm, step.step, step.detail))
                case Change():
                    self._change(step.memberships, restore=step.restore)
                case Reserve(memberships):
                    self._reserve(memberships)
                case HoldBack():
                    self._hold(step.subject, step.reason, step.message)
                case WakeAt(at):
                    self._wakes.append(at)
                case Report():
                    phase = VmPhase(vm=step.vm, phase=step.phase, why=step.why)
                    self._phases[fold(step.vm)] = phase
                case _:
                    assert_never(step)

    def add_shared_writes(self) -> None:
        """Plan the writes that several VMs share.

        A load balancer takes one write at a time: what failed least comes first, then the removals,
        in the order in which they were found to be urgent (laws L2, S7).
        """
        changes = [
            change
            for (_, _, restore), items in self._shared.items()
            for change in self._writes(items, restore=restore)
        ]
        failures = self._evidence.views.failures
        for change in sorted(changes, key=lambda each: (failures(each.key), each.restore)):
            self._start(change)

    def result(self) -> Plan:
        """Return the plan as it stands."""
        actions = tuple(self._startable())
        self._hold_what_failed()
        ledger = self._next_ledger()
        holds = self._lasting_holds({action.key for action in actions} | self._observed.in_flight)
        if holds != self._durable.holds:
            ledger = replace(ledger, holds=holds)
        now = self._evidence.now
        return Plan(
            ledger=ledger if ledger != self._durable else None,
            actions=actions,
            phases=tuple(self._phases[name] for name in sorted(self._phases)),
            holds=holds,
            wake_at=min((at for at in self._wakes if at > now), default=None),
            waiting=tuple(self._waiting.values()),
        )

    # --- the ledger ---

    def _record(self, step: Record) -> None:
        if step.claims and not self._claim(step.claims):
            return
        self._changed[fold(step.entry.vm)] = step.entry
        if step.step is not None:
            self._history.append((step.entry.vm, step.step, step.detail))

    def _next_ledger(self) -> Ledger:
        ledger = self._durable
        for vm, entry in self._changed.items():
            ledger = ledger.without_entry(vm) if entry is None else ledger.with_entry(entry)
        ledger = self._identified(ledger).in_set(self._observed.set_id)
        for vm, step, detail in (*self._new_requests(ledger), *self._history):
            ledger = ledger.noting(at=self._evidence.now, vm=vm, step=step, detail=detail)
        return ledger

    def _identified(self, ledger: Ledger) -> Ledger:
        """Complete the entries with the identities of their VMs and NICs, as soon as those are
        known: an older version records none, and an inventory from before the record may show the
        identity of a VM that was created again since."""
        views, entries = self._evidence.views, list(ledger.entries)
        for order, entry in enumerate(entries):
            vm = views.membership.peer(entry.vm)
            if vm is not None and not entry.over and fold(vm.vm_id) == fold(entry.vm_id):
                vm = vm if _vms_are_listed_since(views, entry.recorded_at) else replace(vm, guid="")
                known = tuple(
                    self._mechanisms.of(m).identified(views, vm, m) for m in entry.memberships
                )
                entries[order] = replace(entry, memberships=known)
        return replace(ledger, entries=tuple(entries))

    def _new_requests(self, ledger: Ledger) -> Iterator[tuple[str, Step, str]]:
        """Yield a line for every drain request, once: when it enters an entry."""
        requests = self._observed.requests or ()
        for entry in ledger.entries if requests else ():
            before = self._evidence.views.entry(entry.vm)
            known = {each.event_id for each in before.events} if before else set[str]()
            asked = {each.event_id for each in entry.events} - known
            for request in requests if asked else ():
                if request.request_id in asked:
                    yield entry.vm, Step.REQUESTED, _request_detail(request)

    # --- actions ---

    def _claim(self, memberships: Iterable[Membership]) -> bool:
        """Reserve write slots; targets that this pass writes anyway cost nothing."""
        targets = {self._mechanisms.of(membership).target(membership) for membership in memberships}
        fresh = targets - self._claimed
        if fresh and self._slots <= 0:
            return False
        self._slots -= len(fresh)
        self._claimed |= fresh
        return True

    def _reserve(self, memberships: Iterable[Membership]) -> None:
        """Keep slots and targets from restores, which could hold them until after NotBefore."""
        for membership in memberships:
            target = self._mechanisms.of(membership).target(membership)
            if target not in self._observed.in_flight and self._claim((membership,)):
                self._reserved.add(target)

    def _change(self, memberships: Iterable[Membership], *, restore: bool) -> None:
        """Plan one write per mechanism and resource: two mechanisms can write the same pool.

        Writes that several VMs share are planned by `add_shared_writes`.
        """
        by_resource: dict[tuple[str, str], list[Membership]] = {}
        for membership in memberships:
            mechanism = self._mechanisms.of(membership)
            resource = fold(mechanism.resource_id(membership))
            if mechanism.shared:
                shared = self._shared.setdefault((mechanism.name, resource, restore), [])
                shared.append(membership)
            else:
                by_resource.setdefault((mechanism.name, resource), []).append(membership)
        for items in by_resource.values():
            for write in self._writes(items, restore=restore):
                self._start(write)

    def _writes(self, items: list[Membership], *, restore: bool) -> Iterator[ChangeMembership]:
        """Yield the writes of one resource."""
        method, refusals = self._mechanisms.of(items[0]), self._evidence.views.refusals
        return portions.writes(method, items, restore=restore, refusals=refusals)

    def _start(self, write: ChangeMembership) -> None:
        self._wanted.add(write.key)
        waits = write.restore and write.target in self._reserved
        if not waits and not self._blocked(write) and self._claim(write.memberships):
            self._actions.append(write)

    def _blocked(self, action: Action) -> bool:
        deferred = self._evidence.views.deferred(action.key)
        own = deferred and self._observed.deferred[action.key].is_own
        if own and not isinstance(action, ChangeMembership):
            self._waiting[action.key] = action
        return deferred or action.target in self._observed.in_flight

    def _startable(self) -> Iterator[Action]:
        """Yield the actions whose target is free, once each, in the order they were planned."""
        taken: set[ActionKey] = set()
        for action in self._actions:
            if action.target not in taken and not self._blocked(action):
                taken.add(action.target)
                yield action

    # --- holds ---

    def _hold(
        self, subject: str, reason: HoldReason, message: str, vms: tuple[str, ...] = ()
    ) -> None:
        now, vms = self._evidence.now, vms or self._resources_of(subject)
        self._holds.append(
            Hold(subject=subject, reason=reason.value, message=message, since=now, vms=vms)
        )

    def _resources_of(self, event_id: str) -> tuple[str, ...]:
        """Return the VMs of an event, if the document has one with this id."""
        document = self._observed.document
        events = document.events if document else ()
        found = (each.resources for each in events if fold(each.event_id) == fold(event_id))
        return next(found, ())

    def _hold_what_failed(self) -> None:
        for key, message in self._observed.unread.items():
            # The inventory has its own schedule: until it reads this again, this stays unread.
            self._hold(*_hold_name(key), message)
        now, deferred = self._evidence.now, sorted(self._observed.deferred.items())
        of_entries = _keys_of_entries(self._durable, self._mechanisms) if deferred else {}
        ours = self._wanted | of_entries.keys()
        needed = self._wanted | {action.key for action in self._actions}
        deadline = next_deadline(self._evidence) if deferred else None
        for key, deferral in deferred:
            if deferral.until <= now:
                continue
            if key.kind in CHANGES and key not in ours:
                continue  # no VM needs that write any more
            self._wakes.append(deferral.until)
            # A read fails only if a step has needed it, and the step may not repeat it now.
            read = key.kind == "read" and (deadline is not None or bool(self._durable.entries))
            waits = why_waiting(deferral, deadline, now) if read or key in needed else ""
            message = waits or deferral.message
            if message and key == ReadInventory().key:
                self._holds.append(inventory_hold(message, now))
            elif message:
                subject, reason = _hold_name(key)
                self._hold(subject, reason, message, tuple(of_entries.get(key, ())))

    def _lasting_holds(self, trying: set[ActionKey]) -> tuple[Hold, ...]:
        """Keep the instant of a hold that lasts, so that the ledger changes only with the holds.

        What failed is held until it succeeds, also while it is tried again.
        """
        known = {(hold.subject, hold.reason): hold for hold in self._durable.holds}
        holds: dict[tuple[str, str], Hold] = {}
        for hold in self._holds:
            holds[hold.subject, hold.reason] = known.get((hold.subject, hold.reason), hold)
        for key in trying | self._wanted if known else ():
            subject, reason = _hold_name(key)
            if (subject, reason.value) in known:
                holds[subject, reason.value] = known[subject, reason.value]
        return tuple(holds[name] for name in sorted(holds)[:MAX_HOLDS])


def inventory_hold(message: str, since: datetime) -> Hold:
    """Return the hold of a set whose VMs cannot be read, for the reason in `message`."""
    why = message.removeprefix(f"{ReadInventory()}: ")
    return Hold(
        subject="inventory",
        reason=HoldReason.INVENTORY_UNREAD.value,
        message=f"the VMs of the set cannot be read: {why}",
        since=since,
    )


def _keys_of_entries(ledger: Ledger, mechanisms: Mechanisms) -> dict[ActionKey, dict[str, None]]:
    """Return the keys of all writes for entries, and the VMs that each is for, in order."""
    found: dict[ActionKey, dict[str, None]] = {}
    for entry in ledger.entries:
        for membership in entry.memberships:
            method = mechanisms.of(membership)
            for restore in (False, True):
                found.setdefault(method.key(membership, restore=restore), {})[entry.vm] = None
                alone = key_alone(method, membership, restore=restore)
                found.setdefault(alone, {})[entry.vm] = None
    return found


def _hold_name(key: ActionKey) -> tuple[str, HoldReason]:
    """Return how a hold names what failed."""
    if key == ReadInventory().key:
        return "inventory", HoldReason.INVENTORY_UNREAD
    if key.kind == "share":
        return short(key.resource), HoldReason.SHARED_POOL
    acknowledges = key.kind == "acknowledge"
    reason = HoldReason.NOT_ACKNOWLEDGED if acknowledges else HoldReason.WRITE_FAILED
    return short(key.resource.partition("?")[0]), reason  # the rest is the kind of request


def _request_detail(request: DrainRequest) -> str:
    """Return what history records of a drain request."""
    test, forced = "TEST, " if request.is_test else "", "forced, " if request.forced else ""
    return f"{test}{forced}{request.who_and_why}"


def _vms_are_listed_since(views: Views, at: datetime) -> bool:
    """Return whether the inventory shows the VMs as they were at an instant, or later."""
    listed_at = views.observed.inventory_at
    return listed_at is not None and views.proves(listed_at, since=at - timedelta(seconds=FRESH_S))
