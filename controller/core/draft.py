"""A plan in the making: what one pass has seen and decided so far. Never shared, never kept.

The parts of the planner (removal, restoration, acknowledgement) add to one `Draft`; what they have
in common lives here: ages of views, reads, write slots, phases, holds and wake-ups.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from controller.core.actions import (
    WRITES,
    Action,
    ChangeNic,
    ChangePool,
    Phase,
    Plan,
    ReadLoadBalancer,
    ReadNic,
    Reason,
    VmPhase,
    Write,
    pool_key,
    write_target,
)
from controller.core.inventory import Inventory
from controller.core.ledger import Entry, EventReference, Hold, Ledger
from controller.core.model import (
    REQUEST,
    AddressMembership,
    EventStatus,
    Key,
    Membership,
    NicMembership,
    Observation,
    Policy,
    PowerState,
    Request,
    ScheduledEvent,
    Vm,
    fold,
    fold_address,
    load_balancer_of,
    short,
)

FRESH_S = 10.0
"""A VM is recorded, taken out and put back only on views younger than this (laws S2, S3)."""
DOCUMENT_FRESH_S = 30.0
"""An event document older than this is no reason to restore or to acknowledge anything."""
PREDECESSOR_S = 60.0
"""How long a write whose end nobody saw may take to show (seen: over a minute)."""

LOOK_AGAIN_S = 300.0
"""How often, at the least, the reason of a hold is looked at again."""
STRANGER_S = 60.0
"""How old an inventory may be that does not know a VM which an event names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One VM in this pass: what affects it and where it stands."""

    vm: Vm
    entry: Entry | None
    events: tuple[ScheduledEvent, ...]
    """Impacting events of the document that name this VM."""
    due: tuple[ScheduledEvent, ...]
    """Those of them whose drain time has come."""
    inside: tuple[Membership, ...]
    """Managed memberships in which the VM stands now, by the newest views."""
    request: Request | None = None
    """Because of which somebody wants it out by hand."""

    @property
    def leaves(self) -> bool:
        """Something wants the VM out now."""
        return bool(self.due) or self.request is not None

    @property
    def puzzling(self) -> bool:
        """Some event that names this VM has a status nobody documents."""
        return any(event.status is EventStatus.UNKNOWN for event in self.events)

    @property
    def started(self) -> bool:
        """Some event has begun."""
        return any(event.status is EventStatus.STARTED for event in self.events)

    @property
    def recorded(self) -> bool:
        """The ledger says that the VM is out because of us, or about to be."""
        return self.entry is not None and self.entry.restored_at is None

    @property
    def deadline(self) -> datetime | None:
        """Earliest NotBefore; None when an event has started or does not say."""
        instants = [event.not_before for event in self.due]
        known = [instant for instant in instants if instant is not None]
        return None if len(known) < len(instants) else min(known, default=None)


class Draft:
    """What one pass has seen and decided so far."""

    def __init__(
        self, observed: Observation, durable: Ledger, policy: Policy, now: datetime
    ) -> None:
        self.observed, self.durable, self.policy, self.now = observed, durable, policy, now
        self.subjects = _subjects(observed, durable)
        recorded = [m.pool_id for entry in durable.entries for m in entry.memberships]
        addresses = {
            fold_address(membership.ip_address): fold(entry.vm)
            for entry in durable.entries
            for membership in address_memberships(entry.memberships)
        }
        pool_ids = (*policy.pools, *recorded)
        self.inventory = Inventory(observed, pool_ids, self.subjects, addresses)
        self.strangers = tuple(
            request
            for request in observed.requests or ()
            if request.stands(now) and self.inventory.peer(request.vm) is None
        )
        """Requests for VMs that are not in the set."""
        self.ledger = durable
        self.actions: list[Action] = []
        self.wakes: list[datetime] = []
        self._managed = {fold(pool_id) for pool_id in policy.pools}
        self._phases: dict[str, VmPhase] = {}
        self._holds: list[Hold] = []
        self._slots = observed.write_slots
        self._claimed: set[str] = set()
        self._wanted: set[str] = set()
        """Keys of writes that this pass would plan, were they not blocked or out of slots."""
        self._pool_changes: dict[tuple[str, bool], list[AddressMembership]] = {}

    def result(self) -> Plan:
        """Return the plan as it stands."""
        actions = tuple(self._startable())
        self._note_requests()
        self._hold_what_failed()
        self._note_holds({action.key for action in actions} | self.observed.in_flight)
        return Plan(
            ledger=self.ledger if self.ledger != self.durable else None,
            actions=actions,
            phases=tuple(self._phases[name] for name in sorted(self._phases)),
            holds=self.ledger.holds,
            wake_at=min((at for at in self.wakes if at > self.now), default=None),
        )

    # --- saying ---

    def say(self, case: Case, phase: Phase, why: str = "") -> None:
        """Report where a VM stands; the last word counts."""
        self._phases[fold(case.vm.name)] = VmPhase(vm=case.vm.name, phase=phase, why=why)

    def hold(self, subject: str, reason: Reason, message: str) -> None:
        """Report something deliberately not done."""
        self._holds.append(
            Hold(subject=subject, reason=reason.value, message=message, since=self.now)
        )

    def held_since(self, subject: str, reason: Reason) -> datetime | None:
        """Return since when the durable ledger says that this is held; None if it does not."""
        for hold in self.durable.holds:
            if (hold.subject, hold.reason) == (subject, reason.value):
                return hold.since
        return None

    def again_s(self, subject: str, reason: Reason, *, first_s: float) -> float:
        """Return how often to look again at what is held: the less often, the longer it lasts."""
        since = self.held_since(subject, reason) or self.now
        waited_s = (self.now - since).total_seconds()
        return min(LOOK_AGAIN_S, max(first_s, waited_s / 4))

    def hold_back(self, case: Case, reason: Reason, message: str) -> None:
        """Report a VM for which nothing is done, and why."""
        self.hold(case.vm.name, reason, message)
        self.say(case, Phase.HELD, message)

    def note(self, entry: Entry, what: str, detail: str = "") -> None:
        """Put an entry into the next ledger, with a line of history."""
        self.ledger = self.ledger.with_entry(entry).noting(
            at=self.now, vm=entry.vm, what=what, detail=detail
        )

    def forget(self, case: Case, entry: Entry, detail: str = "") -> None:
        """Drop the entry: nothing of this VM is ours to restore any more."""
        self.ledger = self.ledger.without_entry(entry.vm).noting(
            at=self.now, vm=entry.vm, what="forgotten" if detail else "in service", detail=detail
        )
        self.say(case, Phase.IN_SERVICE if case.inside else Phase.UNMANAGED)

    def drop(self, case: Case, entry: Entry, lost: frozenset[Key], why: str) -> bool:
        """Drop memberships that are not ours to restore, or cannot be; law S3."""
        kept = tuple(m for m in entry.memberships if m.key not in lost)
        if kept == entry.memberships:
            return False
        pools = sorted({short(m.pool_id) for m in entry.memberships if m.key in lost})
        detail = f"{why}: {', '.join(pools)}"
        if kept:
            self.note(replace(entry, memberships=kept), "membership dropped", detail)
        else:
            self.forget(case, entry, detail)
        return True

    def wake_in(self, seconds: float) -> None:
        """Look again after so many seconds at the latest."""
        self.wakes.append(self.now + timedelta(seconds=seconds))

    def why_over(self, entry: Entry) -> str:
        """Say how the requests ended because of which a VM was out; empty if none was made."""
        asked = {fold(each.event_id) for each in entry.events}
        said = [
            f"withdrawn by {request.ended_by}" if request.ended_at else "the request is over"
            for request in self.observed.requests or ()
            if fold(request.request_id) in asked
        ]
        return ", ".join(dict.fromkeys(said))

    def _note_requests(self) -> None:
        """Keep who asked for what in the history, once: when the request enters an entry."""
        for entry in self.ledger.entries:
            before = self.durable.entry(entry.vm)
            known = {each.event_id for each in before.events} if before else set[str]()
            asked = {each.event_id for each in entry.events} - known
            for request in self.observed.requests or ():
                if request.request_id in asked:
                    reason = f": {request.reason}" if request.reason else ""
                    detail = f"by {request.by}{reason}"
                    self.ledger = self.ledger.noting(
                        at=self.now, vm=entry.vm, what="requested", detail=detail
                    )

    # --- seeing ---

    def case(self, vm: Vm, events: Iterable[ScheduledEvent]) -> Case:
        """Return what this pass knows of one VM."""
        impacting = tuple(e for e in events if e.affects(vm.name) and self.policy.impacting(e))
        due: list[ScheduledEvent] = []
        for event in impacting:
            at = self.policy.drain_at(event)
            if event.status is EventStatus.UNKNOWN:
                continue
            if at is None or at <= self.now:
                due.append(event)
            else:
                self.wakes.append(at)
        return Case(
            vm=vm,
            entry=self.durable.entry(vm.name),
            events=impacting,
            due=tuple(due),
            inside=self.inside(vm),
            request=self._request(vm),
        )

    def _request(self, vm: Vm) -> Request | None:
        """Return the request for a VM that stands, and look again when it ends by itself."""
        for request in self.observed.requests or ():
            if request.wants(vm.name, self.now):
                self.wakes.append(request.until)
                return request
        return None

    def inside(self, vm: Vm) -> tuple[Membership, ...]:
        """Return where a VM stands in managed pools now."""
        everywhere = self.inventory.memberships(vm)
        return tuple(m for m in everywhere if fold(m.pool_id) in self._managed)

    def age_s(self, at: datetime | None) -> float:
        """Seconds since `at`; a view from the future is as good as none."""
        if at is None or at > self.now + timedelta(seconds=1):
            return float("inf")
        return (self.now - at).total_seconds()

    def proves(self, seen_at: datetime, *, since: datetime) -> bool:
        """Tell whether a view is no older than `since`, and not from the future."""
        return seen_at >= since and self.age_s(seen_at) < float("inf")

    def last_sent(self, resource_id: str, *, since: datetime) -> datetime:
        """Return until when a write decided at `since` may have left, here or at a predecessor."""
        leader_since = self.durable.leader_since or since
        return max(since, leader_since, self.observed.sent_at.get(fold(resource_id), since))

    def settled_at(self, resource_id: str, *, since: datetime) -> datetime:
        """Return from when on a view proves that a write decided at `since` does not land later.

        The view that ended a write of ours proves it at once, any other only after a while: Azure
        takes one write after the other, and a pool shows a write before it has taken effect.
        """
        sent_at = self.last_sent(resource_id, since=since)
        ended_at = self.observed.ended_at.get(fold(resource_id))
        if ended_at is not None and ended_at >= sent_at:
            return ended_at
        return sent_at + timedelta(seconds=PREDECESSOR_S)

    def never_ours(self, entry: Entry) -> frozenset[Key]:
        """Return what stands no more although no write of ours took it out: an operator did (S3).

        Of what a predecessor recorded nobody can tell; it may have been removed by the predecessor.
        """
        gone = {m.key for m in entry.memberships if not self.inventory.stands(m)}
        return self.observed.unsent & gone

    def landed_late(self, entry: Entry) -> bool:
        """Tell whether a removal of ours undid what was seen restored; if not, an operator did.

        Law S5 against law S3: ours it can be only if the removal was never seen to take effect, and
        no longer than a write may take to show.
        """
        if entry.removed:
            return False
        return any(
            self.age_s(self.last_sent(resource_of(m), since=entry.recorded_at)) <= PREDECESSOR_S
            for m in entry.memberships
            if not self.inventory.stands(m)
        )

    def doubtful(self, memberships: Iterable[Membership]) -> tuple[Membership, ...]:
        """Return those whose NIC or pool is Failed: its body may show a write that never happened.

        Nothing but another write of the same ends the doubt.
        """
        failed = {fold(nic.nic_id) for nic in self.observed.nics if nic.failed}
        failed |= {fold(pool.pool_id) for pool in self.observed.pools if pool.failed}
        return tuple(m for m in memberships if fold(resource_of(m)) in failed)

    def missing(self, resource_id: str) -> bool:
        """Tell whether a NIC, pool or VM is confirmed not to exist."""
        return fold(resource_id) in self.observed.missing

    def deferred(self, key: str) -> bool:
        """Tell whether what has this key failed and has to be left alone for now."""
        deferral = self.observed.deferred.get(key)
        return deferral is not None and deferral.until > self.now

    def attempts(self, memberships: Iterable[Membership], *, restore: bool) -> int:
        """Return how often writes of these memberships have failed in a row.

        Of equally urgent writes the one that failed least is tried first (law L2).
        """
        return max((self._attempts(key_of(m, restore=restore)) for m in memberships), default=0)

    def _attempts(self, key: str) -> int:
        deferral = self.observed.deferred.get(key)
        return deferral.attempts if deferral else self.observed.attempts.get(key, 0)

    def unreadable(self, membership: Membership) -> bool:
        """Tell whether the view behind a membership is old and reading it again just failed.

        Such a membership waits; it must not keep the VM's other memberships waiting (law L2).
        """
        pool = self.inventory.pool(membership.pool_id)
        pool_read = ReadLoadBalancer(load_balancer_of(membership.pool_id)).target
        if self.age_s(pool.observed_at if pool else None) > FRESH_S:
            return self.deferred(pool_read)
        if isinstance(membership, AddressMembership):
            return False
        nic = self.inventory.nic(membership.nic_id)
        old = nic is None or nic.body is None or self.age_s(nic.observed_at) > FRESH_S
        return old and self.deferred(ReadNic(membership.nic_id).target)

    def unseen(self, vm: Vm) -> bool:
        """Tell whether a VM may stand where nobody has looked yet, and plan the look.

        An inventory can have holes. Whose NIC, or a pool, was never seen is not known to be out.
        """
        nics = [
            nic_id
            for nic_id in vm.nic_ids
            if self.inventory.nic(nic_id) is None and not self.missing(nic_id)
        ]
        pools = [
            pool_id
            for pool_id in self.policy.pools
            if self.inventory.pool(pool_id) is None and not self.missing(pool_id)
        ]
        self.actions += [ReadNic(nic_id) for nic_id in nics]
        for pool_id in pools:
            self.read_pool(pool_id)
        return bool(nics or pools)

    def refresh_pools(self) -> bool:
        """Plan a read of every pool whose view is old; tell whether none is, or can be read."""
        fresh = True
        for pool_id in self.policy.pools:
            pool = self.inventory.pool(pool_id)
            old = pool is None or self.age_s(pool.observed_at) > FRESH_S
            if old and not self.missing(pool_id):
                self.read_pool(pool_id)
                fresh = False
        return fresh

    def read_pool(self, pool_id: str) -> None:
        """Plan a read of the load balancer with this pool."""
        self.actions.append(ReadLoadBalancer(load_balancer_of(pool_id)))

    def read_nic_again(self, nic_id: str, *, every_s: float = 1) -> None:
        """Plan a read of a NIC whose view proves nothing yet, now and then."""
        nic = self.inventory.nic(nic_id)
        if self.age_s(nic.observed_at if nic else None) >= every_s:
            self.actions.append(ReadNic(nic_id))
        self.wake_in(every_s)

    def read_pool_again(self, pool_id: str, *, every_s: float = 1) -> None:
        """Plan a read of a pool whose view proves nothing yet, now and then."""
        pool = self.inventory.pool(pool_id)
        if self.age_s(pool.observed_at if pool else None) >= every_s:
            self.read_pool(pool_id)
        self.wake_in(every_s)

    def under_way(self, memberships: Iterable[Membership]) -> bool:
        """Tell whether a write of ours that may change one of these has not ended yet."""
        return any(target_of(membership) in self.observed.in_flight for membership in memberships)

    def unhealthy(self) -> frozenset[str]:
        """Folded names of VMs that may stand in rotation but must not be counted on."""
        names: set[str] = set()
        settling = timedelta(seconds=self.policy.restore_settle_s)
        for vm in self.observed.vms:
            if vm.power in {PowerState.NOT_RUNNING, PowerState.GONE}:
                names.add(fold(vm.name))
        for entry in self.durable.entries:
            if not (entry.restored_at and entry.restored_at + settling <= self.now):
                names.add(fold(entry.vm))
        document = self.observed.document
        for event in document.events if document else ():
            if event.status is EventStatus.STARTED and self.policy.impacting(event):
                names.update(fold(name) for name in event.resources)
        return frozenset(names)

    # --- writing ---

    def claim(self, memberships: Iterable[Membership]) -> bool:
        """Reserve write slots; targets that this pass writes anyway cost nothing."""
        fresh = {target_of(membership) for membership in memberships} - self._claimed
        if fresh and self._slots <= 0:
            return False
        self._slots -= len(fresh)
        self._claimed |= fresh
        return True

    def change(self, memberships: Iterable[Membership], *, restore: bool) -> None:
        """Plan one write per NIC; addresses of several VMs share one write per pool."""
        by_nic: dict[str, list[NicMembership]] = {}
        for membership in memberships:
            match membership:
                case NicMembership():
                    by_nic.setdefault(fold(membership.nic_id), []).append(membership)
                case AddressMembership():
                    key = (fold(membership.pool_id), restore)
                    self._pool_changes.setdefault(key, []).append(membership)
        for items in by_nic.values():
            self._start(
                ChangeNic(nic_id=items[0].nic_id, memberships=tuple(items), restore=restore)
            )

    def change_pools(self) -> None:
        """Plan the shared writes that `change` has gathered.

        A load balancer takes one write at a time: what failed least comes first, then the removals,
        in the order in which they were found to be urgent (laws L2, S7).
        """
        changes = [
            ChangePool(pool_id=items[0].pool_id, memberships=tuple(items), restore=restore)
            for (_, restore), items in self._pool_changes.items()
        ]
        for change in sorted(changes, key=lambda each: (self._attempts(each.key), each.restore)):
            self._start(change)

    def _start(self, write: Write) -> None:
        self._wanted.add(write.key)
        if not self._blocked(write) and self.claim(write.memberships):
            self.actions.append(write)

    def _blocked(self, action: Action) -> bool:
        return action.target in self.observed.in_flight or self.deferred(action.key)

    def _startable(self) -> Iterator[Action]:
        """The actions whose target is free, once each, in the order they were planned."""
        taken: set[str] = set()
        for action in self.actions:
            if action.target not in taken and not self._blocked(action):
                taken.add(action.target)
                yield action

    # --- holding ---

    def _hold_what_failed(self) -> None:
        ours = self._wanted | {
            key_of(membership, restore=restore)
            for entry in self.durable.entries
            for membership in entry.memberships
            for restore in (False, True)
        }
        for key, deferral in sorted(self.observed.deferred.items()):
            if deferral.until <= self.now:
                continue
            if key.startswith(WRITES) and key not in ours:
                continue  # nobody wants that write any more
            self.wakes.append(deferral.until)
            if deferral.message:
                subject, reason = _failed(key)
                self.hold(subject, reason, deferral.message)

    def _note_holds(self, trying: set[str]) -> None:
        """Keep the instant of a hold that lasts, so that the ledger changes only with the holds.

        What failed is held until it succeeds, also while it is tried again.
        """
        known = {(hold.subject, hold.reason): hold for hold in self.durable.holds}
        holds: dict[tuple[str, str], Hold] = {}
        for hold in self._holds:
            holds[hold.subject, hold.reason] = known.get((hold.subject, hold.reason), hold)
        for key in trying | self._wanted:
            subject, reason = _failed(key)
            if (subject, reason.value) in known:
                holds[subject, reason.value] = known[subject, reason.value]
        ordered = tuple(holds[name] for name in sorted(holds))
        if ordered != self.durable.holds:
            self.ledger = replace(self.ledger, holds=ordered)


def target_of(membership: Membership) -> str:
    """Return the target of a write that changes this membership."""
    match membership:
        case NicMembership():
            return write_target(membership.nic_id)
        case AddressMembership():
            return write_target(load_balancer_of(membership.pool_id))


def key_of(membership: Membership, *, restore: bool) -> str:
    """Return what back-off of a write that changes this membership is kept by."""
    match membership:
        case NicMembership():
            return write_target(membership.nic_id)
        case AddressMembership():
            return pool_key(membership.pool_id, restore=restore)


def resource_of(membership: Membership) -> str:
    """Return the id of the NIC or pool that a write changes for this membership."""
    match membership:
        case NicMembership():
            return membership.nic_id
        case AddressMembership():
            return membership.pool_id


def nic_memberships(memberships: Iterable[Membership]) -> list[NicMembership]:
    """Return those of the memberships that are changed on a NIC."""
    return [m for m in memberships if isinstance(m, NicMembership)]


def address_memberships(memberships: Iterable[Membership]) -> list[AddressMembership]:
    """Return those of the memberships that are changed on a pool."""
    return [m for m in memberships if isinstance(m, AddressMembership)]


def with_references(entry: Entry | None, case: Case) -> tuple[EventReference, ...]:
    """Return an entry's references with everything among them that wants the VM out, once."""
    known = {fold(each.event_id): each for each in entry.events} if entry else {}
    found = [
        EventReference(
            event_id=event.event_id, event_type=event.event_type, not_before=event.not_before
        )
        for event in case.events
    ]
    if case.request is not None:
        found.append(EventReference(event_id=case.request.request_id, event_type=REQUEST))
    for reference in found:
        known.setdefault(fold(reference.event_id), reference)
    return tuple(known.values())


def by_hand(entry: Entry) -> bool:
    """Tell whether a VM is out, perhaps among other reasons, because somebody asked for it."""
    return any(reference.event_type == REQUEST for reference in entry.events)


def _failed(key: str) -> tuple[str, Reason]:
    """Return how a hold names what failed."""
    kind, _, subject = key.partition(":")
    return short(subject), (
        Reason.NOT_ACKNOWLEDGED if kind == "acknowledge" else Reason.WRITE_FAILED
    )


def _subjects(observed: Observation, ledger: Ledger) -> tuple[Vm, ...]:
    """Every peer, and every VM of the ledger that is no peer any more, by name."""
    vms = {fold(vm.name): vm for vm in (*observed.former, *observed.vms)}
    for entry in ledger.entries:
        absent = Vm(name=entry.vm, vm_id=entry.vm_id, nic_ids=())
        vm = vms.get(fold(entry.vm), absent)
        known = {fold(nic_id) for nic_id in vm.nic_ids}
        recorded = {fold(m.nic_id): m.nic_id for m in nic_memberships(entry.memberships)}
        added = (nic_id for key, nic_id in recorded.items() if key not in known)
        vms[fold(entry.vm)] = replace(vm, nic_ids=(*vm.nic_ids, *added))
    return tuple(vms[name] for name in sorted(vms))
