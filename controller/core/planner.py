"""The planner: from what is observed, what was recorded and what policy says, to what to do now.

Level triggered: a pass looks at what is, never at what happened, so that a new leader continues
from observation plus ledger after a crash at any line. A VM's phase is derived on every pass.

The ordering rule that keeps the laws while everything changes:

    Record before Remove; observed-out before Acknowledge; observed-in before Forget.

An action is planned only from the ledger that is already durable. A pass that wants another ledger
says so (`Plan.ledger`); what follows from that ledger is planned by the pass after it was written.
Likewise no write is planned from an old view: the pass plans the read, the next pass the write.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from controller.core.actions import (
    Acknowledge,
    Action,
    ChangeNic,
    ChangePool,
    Phase,
    Plan,
    ReadInventory,
    ReadLoadBalancer,
    ReadNic,
    ReadPower,
    Reason,
    VmPhase,
    Write,
    write_target,
)
from controller.core.inventory import Inventory
from controller.core.ledger import NOTHING_EXTRA, Entry, EventReference, Hold, Ledger
from controller.core.model import (
    AddressMembership,
    EventDocument,
    EventStatus,
    Floor,
    Key,
    Membership,
    NicMembership,
    Observation,
    Policy,
    PowerState,
    ScheduledEvent,
    Vm,
    fold,
    load_balancer_of,
    short,
)

FRESH_S = 10.0
"""A removal or restore is planned only from views younger than this."""
POOL_FRESH_S = 30.0
"""The same for a pool as a whole, of which the floor only needs to know who is in it."""
PREDECESSOR_S = 60.0
"""How long a write that a predecessor sent to a pool may take to show (seen: over a minute)."""
STRANGER_S = 60.0
"""How old an inventory may be that does not know a VM which an event names."""
POWER_AGAIN_S = 10.0
"""How often the power state of a VM that does not run is read again."""
ACKNOWLEDGE_BEFORE_S = 2.0
"""The connection drain ends at the latest this long before NotBefore."""


def plan(observed: Observation, ledger: Ledger, policy: Policy, now: datetime) -> Plan:
    """Return what the leader has to do at `now`.

    Args:
        observed: the world as this agent knows it.
        ledger: the durable ledger.
        policy: the operator's choices.
        now: wall clock, corrected; aware, UTC.
    """
    return _Pass(observed, ledger, policy, now).result()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One VM in this pass: what affects it and where it stands."""

    vm: Vm
    entry: Entry | None
    events: tuple[ScheduledEvent, ...]
    """Impacting events of the document that name this VM."""
    due: tuple[ScheduledEvent, ...]
    """Those of them whose drain time has come."""
    puzzling: bool
    """Some event that names this VM has a status nobody documents."""
    inside: tuple[Membership, ...]
    """Managed memberships in which the VM stands now, by the newest views."""

    def started(self) -> bool:
        return any(event.status is EventStatus.STARTED for event in self.events)

    def deadline(self) -> datetime | None:
        """Earliest NotBefore; None when an event has started or does not say."""
        instants = [event.not_before for event in self.due]
        known = [instant for instant in instants if instant is not None]
        return None if len(known) < len(instants) else min(known, default=None)


class _Pass:
    """The state of one call of `plan`: what has been decided so far, never shared, never kept."""

    def __init__(
        self, observed: Observation, ledger: Ledger, policy: Policy, now: datetime
    ) -> None:
        self.observed, self.durable, self.policy, self.now = observed, ledger, policy, now
        self.inventory = Inventory(observed, policy.pools)
        self.ledger = ledger
        self.actions: list[Action] = []
        self.phases: dict[str, VmPhase] = {}
        self.holds: list[Hold] = []
        self.wakes: list[datetime] = []
        self.slots = observed.write_slots
        self.claimed: set[str] = set()
        self.pool_changes: dict[tuple[str, bool], list[AddressMembership]] = {}

    def result(self) -> Plan:
        if self.observed.inventory_at is None or self.observed.document is None:
            # Nothing can be said of a world that was not looked at yet.
            reads = () if self.observed.inventory_at else (ReadInventory(),)
            return Plan(ledger=None, actions=reads, phases=(), holds=(), wake_at=None)
        document = self.observed.document
        cases = [self._case(vm, document) for vm in self._subjects()]
        self._look_around(document)
        self._take_out([case for case in cases if case.due])
        for case in cases:
            if not case.due:
                self._keep_or_restore(case)
        self._change_pools()
        for event in document.events:
            self._consider_acknowledging(event)
        self._hold_failed_targets()
        self._note_holds()
        return Plan(
            ledger=self.ledger if self.ledger != self.durable else None,
            actions=tuple(self._startable()),
            phases=tuple(self.phases[name] for name in sorted(self.phases)),
            holds=self.ledger.holds,
            wake_at=min((at for at in self.wakes if at > self.now), default=None),
        )

    # --- seeing ---

    def _subjects(self) -> list[Vm]:
        """Every peer, and every VM of the ledger that is no peer any more."""
        peers = {fold(vm.name): vm for vm in (*self.observed.former, *self.observed.vms)}
        for entry in self.durable.entries:
            nic_ids = {fold(m.nic_id): m.nic_id for m in _nic_memberships(entry.memberships)}
            absent = Vm(name=entry.vm, vm_id=entry.vm_id, nic_ids=tuple(nic_ids.values()))
            peers.setdefault(fold(entry.vm), absent)
        return [peers[name] for name in sorted(peers)]

    def _look_around(self, document: EventDocument) -> None:
        """Plan an inventory when the last one is old, or knows nothing of a VM in an event."""
        age_s = self._age_s(self.observed.inventory_at)
        named = [name for event in document.events for name in event.resources]
        strangers = any(self.inventory.peer(name) is None for name in named)
        period_s = self.observed.inventory_period_s
        if age_s >= period_s or (strangers and age_s > STRANGER_S):
            self.actions.append(ReadInventory())
        else:
            self._wake_in(period_s - age_s)

    def _case(self, vm: Vm, document: EventDocument) -> _Case:
        naming = [event for event in document.events if event.affects(vm.name)]
        events = tuple(event for event in naming if self.policy.impacting(event))
        due: list[ScheduledEvent] = []
        for event in events:
            at = self.policy.drain_at(event)
            if event.status is EventStatus.UNKNOWN:
                continue
            if at is None or at <= self.now:
                due.append(event)
            else:
                self.wakes.append(at)
        return _Case(
            vm=vm,
            entry=self.durable.entry(vm.name),
            events=events,
            due=tuple(due),
            puzzling=any(event.status is EventStatus.UNKNOWN for event in events),
            inside=self.inventory.memberships(vm),
        )

    def _age_s(self, at: datetime | None) -> float:
        """Seconds since `at`; a view from the future is as good as none."""
        if at is None or at > self.now + timedelta(seconds=1):
            return float("inf")
        return (self.now - at).total_seconds()

    def _blocked(self, target: str) -> bool:
        return target in self.observed.in_flight or self._deferred(target)

    def _deferred(self, target: str) -> bool:
        deferral = self.observed.deferred.get(target)
        return deferral is not None and deferral.until > self.now

    def _wake_in(self, seconds: float) -> None:
        self.wakes.append(self.now + timedelta(seconds=seconds))

    def _say(self, case: _Case, phase: Phase, why: str = "") -> None:
        self.phases[fold(case.vm.name)] = VmPhase(vm=case.vm.name, phase=phase, why=why)

    def _hold(self, subject: str, reason: Reason, message: str) -> None:
        self.holds.append(
            Hold(subject=subject, reason=reason.value, message=message, since=self.now)
        )

    # --- taking out ---

    def _take_out(self, cases: list[_Case]) -> None:
        """Drain every VM whose time has come, most urgent first, as far as the floors allow.

        Recorded VMs come first: their removal may already be under way, so they count as out for
        everyone behind them.
        """

        def urgency(case: _Case) -> tuple[bool, datetime, str]:
            recorded = case.entry is not None and case.entry.restored_at is None
            return (not recorded, case.deadline() or self.now, fold(case.vm.name))

        leaving: set[str] = set()
        for case in cases:
            if case.entry is not None and case.entry.restored_at is None:
                leaving.add(fold(case.vm.name))
        for case in sorted(cases, key=urgency):
            if not case.inside:
                self._stay_out(case)
            elif self._floor_allows(case, leaving):
                leaving.add(fold(case.vm.name))
                self._remove(case)

    def _floor_allows(self, case: _Case, leaving: set[str]) -> bool:
        """Law S2: at least `min_in_service` healthy members must remain in every pool."""
        for pool_id, floor in self.policy.pools.items():
            if all(fold(membership.pool_id) != fold(pool_id) for membership in case.inside):
                continue
            serving = self.inventory.serving(pool_id, self._unhealthy())
            staying = serving - leaving - {fold(case.vm.name)}
            needed = self._floor(pool_id, floor)
            if len(staying) < needed:
                name = short(pool_id)
                message = (
                    f"{case.vm.name} stays in pool {name}: {len(staying)} healthy members would "
                    f"remain, min_in_service asks for {needed}"
                )
                self._hold(case.vm.name, Reason.FLOOR, message)
                self._say(case, Phase.HELD, message)
                self._refresh_pools()
                self._wake_in(POOL_FRESH_S)
                return False
        return True

    def _floor(self, pool_id: str, floor: Floor) -> int:
        inside = self.inventory.serving(pool_id, frozenset())
        ours = {
            fold(entry.vm)
            for entry in self.durable.entries
            if not entry.gone
            and any(fold(membership.pool_id) == fold(pool_id) for membership in entry.memberships)
        }
        return floor.members(full=len(inside | ours))

    def _unhealthy(self) -> frozenset[str]:
        """Folded names of peers that are in rotation but must not be counted on."""
        names: set[str] = set()
        settling = timedelta(seconds=self.policy.restore_settle_s)
        for vm in self.observed.vms:
            entry = self.durable.entry(vm.name)
            if vm.power in {PowerState.NOT_RUNNING, PowerState.GONE}:
                names.add(fold(vm.name))
            if entry and not (entry.restored_at and entry.restored_at + settling <= self.now):
                names.add(fold(vm.name))
        document = self.observed.document
        for event in document.events if document else ():
            if event.status is EventStatus.STARTED and self.policy.impacting(event):
                names.update(fold(name) for name in event.resources)
        return frozenset(names)

    def _remove(self, case: _Case) -> None:
        """Plan the next step of taking a VM out: look, record, or write."""
        self._say(case, Phase.DRAIN_DUE)
        if not self._views_are_fresh(case):
            return
        entry = case.entry
        if entry is None or entry.restored_at or not all(entry.holds(m.key) for m in case.inside):
            if self._claim({_write_target(membership) for membership in case.inside}):
                self._record(case)
            return
        self._say(case, Phase.DRAINING)
        self._update(case, entry)
        self._change(case.inside, restore=False)

    def _views_are_fresh(self, case: _Case) -> bool:
        """Plan the reads without which no removal may be decided."""
        fresh = self._refresh_pools()
        if case.entry is not None and case.entry.restored_at is None:
            return fresh  # the write itself reads the NIC again if its view is old
        for nic_id in case.vm.nic_ids:
            nic = self.inventory.nic(nic_id)
            seen = nic is not None and nic.body is not None
            if fold(nic_id) in self.observed.missing:
                continue
            if nic is None or not seen or self._age_s(nic.observed_at) > FRESH_S:
                self.actions.append(ReadNic(nic_id))
                fresh = False
        return fresh

    def _claim(self, targets: set[str]) -> bool:
        """Reserve write slots; targets that this pass writes anyway cost nothing."""
        fresh = targets - self.claimed
        if fresh and self.slots <= 0:
            return False
        self.slots -= len(fresh)
        self.claimed |= fresh
        return True

    def _refresh_pools(self) -> bool:
        fresh = True
        for pool_id in self.policy.pools:
            if fold(pool_id) in self.observed.missing:
                continue
            pool = self.inventory.pool(pool_id)
            if pool is None or self._age_s(pool.observed_at) > POOL_FRESH_S:
                self._read_load_balancer(load_balancer_of(pool_id))
                fresh = False
        return fresh

    def _read_load_balancer(self, load_balancer_id: str) -> None:
        read = ReadLoadBalancer(load_balancer_id)
        if read not in self.actions:
            self.actions.append(read)

    def _record(self, case: _Case) -> None:
        """Write ahead (law S5): what is about to be removed, from where, because of what."""
        old = case.entry
        if old is not None and old.restored_at is not None:
            old = None  # that maintenance is over; what an operator changed since stands
        kept = old.memberships if old else ()
        added = tuple(m for m in case.inside if not (old and old.holds(m.key)))
        entry = Entry(
            vm=case.vm.name,
            vm_id=case.vm.vm_id,
            events=_references(old.events if old else (), case.events),
            memberships=(*kept, *added),
            recorded_at=self.now,
            extra=case.entry.extra if case.entry else NOTHING_EXTRA,
        )
        pools = sorted({short(membership.pool_id) for membership in added or kept})
        self.ledger = self.ledger.with_entry(entry).noting(
            at=self.now, vm=case.vm.name, what="recorded", detail=", ".join(pools)
        )

    def _update(self, case: _Case, entry: Entry) -> None:
        """Note new events; and when somebody put the VM back, that it has to empty once more."""
        events = _references(entry.events, case.events)
        updated = replace(entry, events=events, out_at=None)
        if updated != entry:
            self.ledger = self.ledger.with_entry(updated)

    def _stay_out(self, case: _Case) -> None:
        """A VM that is due and stands in no managed pool."""
        entry = case.entry
        if entry is None:
            self._say(case, Phase.UNMANAGED)
            return
        if entry.restored_at is not None:
            # Somebody else took it out after we had put it back: that is not ours to restore.
            self._forget(case, entry, "taken out by an operator")
            return
        if self._trim(case, entry, self.observed.never_ours) is not entry:
            return
        if self._observed_out(case, entry):
            self._note_out(case, entry)
        else:
            self._say(case, Phase.DRAINING)

    def _observed_out(self, case: _Case, entry: Entry) -> bool:
        """Tell whether every view that proves absence is newer than the record; else plan reads."""
        proven = True
        for nic_id in case.vm.nic_ids:
            if fold(nic_id) in self.observed.missing:
                continue
            nic = self.inventory.nic(nic_id)
            recorded = any(
                fold(m.nic_id) == fold(nic_id) for m in _nic_memberships(entry.memberships)
            )
            since = entry.recorded_at if recorded else entry.recorded_at - timedelta(minutes=1)
            if nic is None or nic.updating or nic.observed_at < since:
                self._read_nic_again(nic_id, nic.observed_at if nic else None)
                proven = False
        for membership in _address_memberships(entry.memberships):
            pool = self.inventory.pool(membership.pool_id)
            if pool is not None and pool.observed_at < entry.recorded_at:
                self._read_load_balancer(load_balancer_of(membership.pool_id))
                proven = False
        return proven

    def _read_nic_again(self, nic_id: str, seen_at: datetime | None) -> None:
        if self._age_s(seen_at) >= 1:
            self.actions.append(ReadNic(nic_id))
        self._wake_in(1)

    def _note_out(self, case: _Case, entry: Entry) -> None:
        entry = replace(entry, events=_references(entry.events, case.events))
        if entry.out_at is None:
            entry = replace(entry, out_at=self.now)
            self.ledger = self.ledger.noting(at=self.now, vm=case.vm.name, what="out")
        for event in entry.events:
            at = self.observed.acknowledged.get(fold(event.event_id))
            if at is not None and event.acknowledged_at is None:
                noted = replace(event, acknowledged_at=at)
                entry = replace(
                    entry, events=tuple(noted if e == event else e for e in entry.events)
                )
                self.ledger = self.ledger.noting(
                    at=self.now, vm=case.vm.name, what="acknowledged", detail=event.event_id
                )
        if entry != case.entry:
            self.ledger = self.ledger.with_entry(entry)
        if case.started():
            self._say(case, Phase.IN_MAINTENANCE)
        elif _acknowledged(entry, case.events):
            self._say(case, Phase.ACKNOWLEDGED)
        else:
            self._say(case, Phase.OUT)

    # --- acknowledging ---

    def _consider_acknowledging(self, event: ScheduledEvent) -> None:
        """Law S1. One acknowledgement releases the event for all its resources at once."""
        event_policy = self.policy.for_type(event.event_type)
        if (
            event.status is not EventStatus.SCHEDULED
            or not self.policy.acknowledge
            or not event_policy.acknowledge
            or (event.not_before is not None and event.not_before <= self.now)
        ):
            return
        if not self.policy.impacting(event):
            ours = all(self.inventory.peer(name) is not None for name in event.resources)
            if self.policy.acknowledge_ignored and ours:
                self._acknowledge(event)
            return
        due = self.policy.drain_at(event)
        if due is not None and due > self.now:
            return
        # No short circuit: each resource may have a reason to report and an instant to wake at.
        ready = [self._ready(event, name) for name in event.resources]
        if ready and all(ready):
            self._acknowledge(event)

    def _ready(self, event: ScheduledEvent, name: str) -> bool:
        vm = self.inventory.peer(name)
        entry = self.durable.entry(name)
        inside = self.inventory.memberships(vm) if vm else ()
        if entry is None or entry.restored_at is not None:
            return not inside and self._may_ignore(event, name, known=vm is not None)
        if inside or entry.out_at is None or self.ledger.entry(name) is None:
            return False
        drained_at = entry.out_at + timedelta(seconds=self.policy.connection_drain_s)
        if event.not_before is not None:
            latest = event.not_before - timedelta(seconds=ACKNOWLEDGE_BEFORE_S)
            drained_at = min(drained_at, latest)
        if drained_at > self.now:
            self.wakes.append(drained_at)
            return False
        return True

    def _may_ignore(self, event: ScheduledEvent, name: str, *, known: bool) -> bool:
        """A resource in no managed pool: nothing to drain for it, if the operator says so."""
        if not known and self._age_s(self.observed.inventory_at) > PREDECESSOR_S:
            self.actions.append(ReadInventory())
            return False
        if self.policy.acknowledge_unmanaged:
            return self._refresh_pools()
        self._hold(
            event.event_id,
            Reason.UNMANAGED_RESOURCE,
            f"event {event.event_id} names {name}, which is in no managed pool: not acknowledged; "
            "set acknowledge_unmanaged = true in [policy] if that is right",
        )
        return False

    def _acknowledge(self, event: ScheduledEvent) -> None:
        self.actions.append(Acknowledge(event.event_id))

    # --- restoring ---

    def _keep_or_restore(self, case: _Case) -> None:
        """A VM for which nothing is due: in service, or out and perhaps on its way back."""
        if case.puzzling:
            message = f"an event for {case.vm.name} has a status that Azure does not document"
            self._hold(case.vm.name, Reason.UNKNOWN_EVENT_STATUS, message)
            self._say(case, Phase.HELD, message)
            return
        entry = case.entry
        if entry is None:
            self._say(case, Phase.IN_SERVICE if case.inside else Phase.UNMANAGED)
            return
        if entry.restored_at is not None:
            self._settle(case, entry)
            return
        if case.events:
            message = f"{case.vm.name} stays out: another event for it is announced"
            self._hold(case.vm.name, Reason.EVENT_PENDING, message)
            self._say(case, Phase.HELD, message)
        elif self._two_clean_polls(case.vm.name):
            self._restore(case, entry)
        else:
            self._say(case, Phase.RESTORE_DUE, "waiting for two clean polls")

    def _two_clean_polls(self, vm: str) -> bool:
        """Law S6: one good document without the event may be a glitch, two in a row are not."""
        documents = self.observed.clean_documents
        return len(documents) >= 2 and not any(
            event.affects(vm) and self.policy.impacting(event)
            for document in documents
            for event in document.events
        )

    def _restore(self, case: _Case, entry: Entry) -> None:
        self._say(case, Phase.RESTORE_DUE)
        lost = self.observed.never_ours | self._missing(entry)
        if self._trim(case, entry, lost) is not entry:
            return
        inside = {membership.key for membership in case.inside}
        outside = tuple(m for m in entry.memberships if m.key not in inside)
        if not outside and self._surely_inside(entry):
            restored = replace(entry, restored_at=self.now)
            self.ledger = self.ledger.with_entry(restored).noting(
                at=self.now, vm=case.vm.name, what="restored"
            )
            self._say(case, Phase.RESTORING, "waiting for the probes")
        elif outside and self._runs(case):
            self._say(case, Phase.RESTORING)
            self._change(outside, restore=True)

    def _runs(self, case: _Case) -> bool:
        """Law S6: the VM runs. Necessary, never sufficient; the probes decide the rest."""
        vm = case.vm
        if fold(vm.vm_id) in self.observed.missing:
            if case.entry and not case.entry.gone:
                gone = replace(case.entry, gone=True)
                self.ledger = self.ledger.with_entry(gone).noting(
                    at=self.now, vm=vm.name, what="gone"
                )
            message = f"{vm.name} was deleted while it was out: its entry is kept"
            self._hold(vm.name, Reason.VM_GONE, message)
            self._say(case, Phase.HELD, message)
            self._wake_in(600)
            if self._age_s(vm.power_observed_at) > 600:
                self.actions.append(ReadPower(vm.vm_id))
            return False
        age_s = self._age_s(vm.power_observed_at)
        if age_s > FRESH_S or (vm.power is not PowerState.RUNNING and age_s >= POWER_AGAIN_S):
            self.actions.append(ReadPower(vm.vm_id))
            return False
        if vm.power is PowerState.RUNNING:
            return True
        message = f"{vm.name} stays out: Compute says it is {vm.power.value}"
        self._hold(vm.name, Reason.VM_NOT_RUNNING, message)
        self._say(case, Phase.HELD, message)
        self._wake_in(POWER_AGAIN_S)
        return False

    def _missing(self, entry: Entry) -> frozenset[Key]:
        """Keys of memberships whose pool or NIC was deleted; the others come back."""
        if fold(entry.vm_id) in self.observed.missing:
            return frozenset()

        def exists(membership: Membership) -> bool:
            ids = [membership.pool_id]
            if isinstance(membership, NicMembership):
                ids.append(membership.nic_id)
            return not any(fold(each) in self.observed.missing for each in ids)

        return frozenset(m.key for m in entry.memberships if not exists(m))

    def _trim(self, case: _Case, entry: Entry, lost: frozenset[Key]) -> Entry:
        """Drop memberships that are not ours to restore, or cannot be. Law S3."""
        kept = tuple(m for m in entry.memberships if m.key not in lost)
        if kept == entry.memberships:
            return entry
        pools = sorted(short(m.pool_id) for m in entry.memberships if m.key in lost)
        detail = f"deleted, or removed by an operator: {', '.join(pools)}"
        trimmed = replace(entry, memberships=kept)
        if kept:
            self.ledger = self.ledger.with_entry(trimmed).noting(
                at=self.now, vm=case.vm.name, what="membership dropped", detail=detail
            )
        else:
            self._forget(case, entry, detail)
        return trimmed

    def _surely_inside(self, entry: Entry) -> bool:
        """Tell whether no write of a predecessor can still take the memberships away again."""
        sure = True
        for nic_id in sorted({m.nic_id for m in _nic_memberships(entry.memberships)}):
            nic = self.inventory.nic(nic_id)
            if nic is None or nic.updating or nic.observed_at <= entry.recorded_at:
                self._read_nic_again(nic_id, nic.observed_at if nic else None)
                sure = False
        settled_at = entry.recorded_at + timedelta(seconds=PREDECESSOR_S)
        for pool_id in sorted({m.pool_id for m in _address_memberships(entry.memberships)}):
            pool = self.inventory.pool(pool_id)
            verified = fold(pool_id) in self.observed.verified
            if pool is None or verified:
                continue
            if self.now < settled_at:
                self.wakes.append(settled_at)
                sure = False
            elif pool.observed_at < settled_at:
                self._read_load_balancer(load_balancer_of(pool_id))
                sure = False
        return sure

    def _settle(self, case: _Case, entry: Entry) -> None:
        """Restored: until the probes have found the VM the floor does not count on it."""
        restored_at = entry.restored_at or self.now
        settled_at = restored_at + timedelta(seconds=self.policy.restore_settle_s)
        if settled_at > self.now:
            self.wakes.append(settled_at)
            self._say(case, Phase.RESTORING, "waiting for the probes")
            return
        self._forget(case, entry, "")

    def _forget(self, case: _Case, entry: Entry, detail: str) -> None:
        self.ledger = self.ledger.without_entry(entry.vm).noting(
            at=self.now, vm=entry.vm, what="forgotten" if detail else "in service", detail=detail
        )
        self._say(case, Phase.IN_SERVICE if case.inside else Phase.UNMANAGED)

    # --- writing ---

    def _change(self, memberships: tuple[Membership, ...], *, restore: bool) -> None:
        """Plan one write per NIC, and let addresses of several VMs share one write per pool."""
        by_nic: dict[str, list[NicMembership]] = {}
        for membership in memberships:
            match membership:
                case NicMembership():
                    by_nic.setdefault(fold(membership.nic_id), []).append(membership)
                case AddressMembership():
                    key = (membership.pool_id, restore)
                    self.pool_changes.setdefault(key, []).append(membership)
        for changes in by_nic.values():
            action = ChangeNic(
                nic_id=changes[0].nic_id, memberships=tuple(changes), restore=restore
            )
            self._start(action)

    def _change_pools(self) -> None:
        for (pool_id, restore), memberships in sorted(
            self.pool_changes.items(), key=lambda item: (item[0][1], fold(item[0][0]))
        ):
            changed = tuple(memberships)
            self._start(ChangePool(pool_id=pool_id, memberships=changed, restore=restore))

    def _start(self, write: Write) -> None:
        if not self._blocked(write.target) and self._claim({write.target}):
            self.actions.append(write)

    def _startable(self) -> Iterable[Action]:
        """The actions whose target is free, once each, in the order they were planned."""
        taken: set[str] = set()
        for action in self.actions:
            if action.target not in taken and not self._blocked(action.target):
                taken.add(action.target)
                yield action

    # --- holding ---

    def _hold_failed_targets(self) -> None:
        for target, deferral in sorted(self.observed.deferred.items()):
            if deferral.until <= self.now:
                continue
            self.wakes.append(deferral.until)
            if not deferral.message:
                continue
            kind, _, subject = target.partition(":")
            name = short(subject)
            reason = Reason.NOT_ACKNOWLEDGED if kind == "acknowledge" else Reason.WRITE_FAILED
            self._hold(name, reason, f"{kind} {name}: {deferral.message}")

    def _note_holds(self) -> None:
        """Keep `since` of a hold that lasts, so that the ledger changes only with the holds."""
        known = {(hold.subject, hold.reason): hold for hold in self.durable.holds}
        holds: dict[tuple[str, str], Hold] = {}
        for hold in self.holds:
            key = (hold.subject, hold.reason)
            holds[key] = known.get(key, hold)
        ordered = tuple(holds[key] for key in sorted(holds))
        if ordered != self.durable.holds:
            self.ledger = replace(self.ledger, holds=ordered)


def _nic_memberships(memberships: Iterable[Membership]) -> list[NicMembership]:
    return [m for m in memberships if isinstance(m, NicMembership)]


def _address_memberships(memberships: Iterable[Membership]) -> list[AddressMembership]:
    return [m for m in memberships if isinstance(m, AddressMembership)]


def _write_target(membership: Membership) -> str:
    match membership:
        case NicMembership():
            return write_target(membership.nic_id)
        case AddressMembership():
            return write_target(load_balancer_of(membership.pool_id))


def _acknowledged(entry: Entry, events: tuple[ScheduledEvent, ...]) -> bool:
    present = {fold(event.event_id) for event in events}
    return any(e.acknowledged_at and fold(e.event_id) in present for e in entry.events)


def _references(
    known: tuple[EventReference, ...], events: tuple[ScheduledEvent, ...]
) -> tuple[EventReference, ...]:
    """Return the references with every event of the document in them, once."""
    seen = {fold(reference.event_id) for reference in known}
    added = tuple(
        EventReference(
            event_id=event.event_id, event_type=event.event_type, not_before=event.not_before
        )
        for event in events
        if fold(event.event_id) not in seen
    )
    return (*known, *added)
