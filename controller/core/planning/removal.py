"""Taking VMs out of rotation: read, record, write, prove.

Record before Remove: a removal is planned only from an entry that is already durable (law S5), and
never when it would take a pool below its floor (law S2), unless an operator forces the drain. The
law is then suspended for that VM alone: for every other VM it counts as out.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from controller.core.azure_names import fold, load_balancer_of
from controller.core.cut_connections import cut_now
from controller.core.drain_history import Step, cut_text, removed_text
from controller.core.drain_requests import DrainRequest
from controller.core.ledger import Entry
from controller.core.planning import closing, hung_operations
from controller.core.planning.absence import is_hidden
from controller.core.planning.actions import HoldReason, Phase, ReadLoadBalancer
from controller.core.planning.closing_notes import RECORDS
from controller.core.planning.evidence import Evidence
from controller.core.planning.floors import Floors
from controller.core.planning.losses import created_again, lose, park
from controller.core.planning.recording import (
    as_set_since,
    pool_names,
    record,
    record_step,
    whole,
)
from controller.core.planning.steps import (
    Change,
    Forget,
    HoldBack,
    Inquiry,
    Record,
    Report,
    Reserve,
    Start,
    Steps,
    WakeAt,
    hold_vm,
)
from controller.core.planning.views import FRESH_S
from controller.core.planning.vm_case import VmCase, unreadable_vm
from controller.core.rehearsals import only_tests
from controller.core.resources import Membership, MembershipKey


def by_urgency(evidence: Evidence, cases: Iterable[VmCase]) -> list[VmCase]:
    """Return the VMs in the order in which they are drained, most urgent first.

    Recorded VMs come first: their removal may already be under way. For the same reason the floor
    never counts on them (`Evidence.unhealthy_in`). Manual drains wait for what Azure announced.

    Of equally urgent ones those whose writes failed least come first: a write that hangs must not
    keep the others from the only slot (law L2).
    """
    return sorted(
        cases,
        key=lambda case: (
            not case.recorded,
            not case.due,
            case.deadline or evidence.now,
            evidence.attempts(case.inside, restore=False),
            fold(case.vm.name),
        ),
    )


def steps(case: VmCase, evidence: Evidence, floors: Floors) -> Steps:
    """Yield the next steps that take one VM out, or keep it out; report that a drain is forced."""
    for step in _steps(case, evidence, floors):
        if case.forced is not None and isinstance(step, Report) and not step.why:
            yield replace(step, why=f"drain forced {case.forced.who_and_why}")
        else:
            yield step


def _steps(case: VmCase, evidence: Evidence, floors: Floors) -> Steps:
    movable = tuple(m for m in case.inside if not evidence.unreadable(m))
    # What cannot be read can still be closed: that needs nothing from Resource Manager.
    leaving = movable or (case.inside if evidence.policy.close else ())
    entry = case.entry
    taken = entry.memberships if entry is not None and case.recorded else ()
    if entry is not None and (again := created_again(evidence, entry, taken)):
        # What is in rotation now is another VM or NIC, and gets a record of its own.
        yield Report(vm=case.vm.name, phase=Phase.DRAIN_DUE)
        yield from lose(entry, {membership.key for membership in again})
    elif not case.inside:
        yield from _stay_out(case, evidence)
    elif entry is not None and case.recorded and evidence.policy.close_only:
        yield from _keep_closed(case, evidence, entry)
    elif not leaving:
        yield Report(vm=case.vm.name, phase=Phase.DRAIN_DUE, why="its pools or NICs cannot be read")
        yield from evidence.refresh_pools()
    elif unread := floors.unread(leaving):
        why = f"waiting until it is known {unread}"
        yield Report(vm=case.vm.name, phase=Phase.DRAIN_DUE, why=why)
    elif (shortage := floors.shortage(case, leaving)) and case.forced is None:
        yield from hold_vm(case.vm.name, HoldReason.FLOOR, shortage)
        yield from floors.read_members()
    elif floors.leave(case, leaving):
        take_out = _take_out(case, evidence, leaving, movable)
        yield from _below_floor(take_out, case.forced) if shortage and case.forced else take_out
    else:
        why = "waiting until the other availability sets in its pools know that it leaves"
        yield Report(vm=case.vm.name, phase=Phase.DRAIN_DUE, why=why)


def _take_out(
    case: VmCase,
    evidence: Evidence,
    leaving: tuple[Membership, ...],
    movable: tuple[Membership, ...],
) -> Steps:
    if not (yield from _is_closing(case, evidence, leaving)):
        yield from _remove(case, evidence, movable) if movable else _close(case, evidence)


def _below_floor(take_out: Steps, forced: DrainRequest) -> Steps:
    """State in the history and in the report that law S2 is suspended, by whom and why."""
    below = f"below min_in_service, forced {forced.who_and_why}"
    for step in take_out:
        if isinstance(step, Record) and step.step in RECORDS:
            yield replace(step, detail=f"{step.detail}; {below}")
        elif isinstance(step, Report):
            yield replace(step, why=step.why or below)
        else:
            yield step


# --- record, then close ---


def _keep_closed(case: VmCase, evidence: Evidence, entry: Entry) -> Steps:
    """Closing alone takes the VM out, and it stays in its pools: law S1 by proof."""
    yield Report(vm=case.vm.name, phase=Phase.DRAINING)
    if operators := evidence.never_ours(entry):
        yield from drop(case, entry, operators, "removed by an operator")
        return
    if not all(entry.holds(membership.key) for membership in case.inside):
        if (yield from _views_are_fresh(case, evidence)):
            yield record(case, evidence, case.inside)
        return
    yield from closing.read_report(evidence, entry.vm, out=entry.out_at is not None)
    closed = replace(entry, closed_at=closing.closed_at(evidence, entry))
    if closed.closed_at is not None:
        yield from _note_out(case, entry, closed, evidence, detail="closed, and in its pools")
        return
    updated = replace(closed, events=case.references(entry), out_at=None)
    if updated != entry:
        yield Record(entry=updated)
    yield from closing.report_not_closed(case, evidence, entry)


# --- record, then remove ---


def _remove(case: VmCase, evidence: Evidence, movable: tuple[Membership, ...]) -> Steps:
    """Yield the next step of taking a VM out: read, record, or write."""
    yield Report(vm=case.vm.name, phase=Phase.DRAIN_DUE)
    if not (yield from _views_are_fresh(case, evidence)):
        yield Reserve(movable)
        return
    entry = case.entry
    if (
        entry is None
        or entry.over
        or entry.unread_at
        or not all(entry.holds(m.key) for m in movable)
    ):
        yield record(case, evidence, movable)
        return
    yield Report(vm=case.vm.name, phase=Phase.DRAINING)
    if operators := evidence.never_ours(entry):
        # Drop it at once, a successor could not know; the next pass takes out the rest.
        yield from drop(case, entry, operators, "removed by an operator")
        return
    updated = _updated(case, evidence, entry)
    if entry.removed:
        # A VM that is in a pool again has to empty once more, and what is sent now may be late.
        again = whole(updated.memberships)
        updated = replace(
            updated, memberships=again, recorded_at=evidence.now, out_at=None, closed_at=None
        )
        yield Record(entry=updated, step=record_step(entry), detail=pool_names(movable))
        return
    if updated != entry:
        yield Record(entry=updated)
    # Where Down has no effect any more, the member leaves by its place alone.
    leaving = tuple(m for m in movable if evidence.to_record(m) is not None)
    yield Change(memberships=leaving or movable, restore=False)


def _views_are_fresh(case: VmCase, evidence: Evidence) -> Inquiry:
    """Plan the reads without which no removal may be decided; failed ones are waited for once."""
    yield from evidence.refresh_pools()
    fresh = not any(_has_old_pool(evidence, membership) for membership in case.inside)
    if case.recorded and not (case.entry and case.entry.unread_at):
        return fresh  # the write itself reads the NIC again if its view is old
    for read in evidence.reads_to_record(case.vm):
        yield Start(read)
        fresh = fresh and evidence.views.deferred(read.key)
    return fresh


def _has_old_pool(evidence: Evidence, membership: Membership) -> bool:
    views, pool_id = evidence.views, membership.pool_id
    if not views.is_old(views.pool(pool_id)) or views.missing(pool_id):
        return False
    return not views.deferred(ReadLoadBalancer(load_balancer_of(pool_id)).key)


def _close(case: VmCase, evidence: Evidence) -> Steps:
    """Record a VM whose pools or NICs cannot be read, so that it closes; nothing is removed."""
    phase = Phase.DRAINING if case.recorded else Phase.DRAIN_DUE
    yield Report(vm=case.vm.name, phase=phase, why="its pools or NICs cannot be read")
    yield from evidence.refresh_pools()
    if not case.recorded:
        recorded = record(case, evidence, case.inside)
        yield replace(recorded, entry=replace(recorded.entry, unread_at=evidence.now))


def _is_closing(case: VmCase, evidence: Evidence, leaving: tuple[Membership, ...]) -> Inquiry:
    """Return whether a recorded VM waits to be quiet: Resource Manager is not needed until then."""
    entry = case.entry
    if (
        not evidence.policy.close
        or entry is None
        or entry.over
        or entry.removed
        or evidence.never_ours(entry)
        or not all(entry.holds(membership.key) for membership in leaving)
    ):
        return False
    updated = _updated(case, evidence, entry)
    if updated != entry:
        yield Record(entry=updated)
    return (yield from closing.must_wait(case, evidence, entry, leaving))


def _updated(case: VmCase, evidence: Evidence, entry: Entry) -> Entry:
    """Return an entry as it is known now: its events, its members, since when the VM is closed."""
    return replace(
        entry,
        events=case.references(entry),
        memberships=tuple(as_set_since(m, evidence) for m in entry.memberships),
        closed_at=closing.closed_at(evidence, entry),
    )


# --- forgetting what is not ours ---


def forget(case: VmCase, entry: Entry, detail: str = "") -> Steps:
    """Drop the entry: nothing of this VM is ours to restore any more, except what is lost."""
    step = Step.FORGOTTEN if detail else Step.IN_SERVICE
    if entry.lost:
        yield Record(entry=park(entry), step=step, detail=detail)
    else:
        yield Forget(vm=entry.vm, step=step, detail=detail)
    yield Report(vm=case.vm.name, phase=Phase.IN_SERVICE if case.inside else Phase.UNMANAGED)


def drop(case: VmCase, entry: Entry, lost: frozenset[MembershipKey], why: str) -> Steps:
    """Drop memberships that are not ours to restore (law S3)."""
    kept = tuple(m for m in entry.memberships if m.key not in lost)
    detail = f"{why}: {pool_names(tuple(m for m in entry.memberships if m.key in lost))}"
    if kept:
        yield Record(
            entry=replace(entry, memberships=kept), step=Step.MEMBERSHIP_DROPPED, detail=detail
        )
    else:
        yield from forget(case, entry, detail)


# --- out ---


def _stay_out(case: VmCase, evidence: Evidence) -> Steps:
    """A VM that is due and in no managed pool; should it be put back, an inventory shows that."""
    entry, vm = case.entry, case.vm
    if entry is None or entry.parked:
        yield from _stay_unrecorded(case, evidence)
    elif entry.restored_at is not None and evidence.landed_late(entry):
        again = replace(entry, events=case.references(entry), restored_at=None)
        yield Record(entry=again, step=Step.OUT_AGAIN)
        yield Report(vm=vm.name, phase=Phase.DRAINING)
    elif entry.restored_at is not None:
        yield from forget(case, entry, "taken out by an operator")
    elif operators := evidence.never_ours(entry):
        # The next pass continues from what is left.
        yield from drop(case, entry, operators, "removed by an operator")
    elif entry.out_at is None and (doubtful := evidence.doubtful(entry.memberships)):
        # Never out on the word of a write that failed or does not end (law S1): it is sent again.
        yield Report(vm=vm.name, phase=Phase.DRAINING)
        yield Change(memberships=doubtful, restore=False)
        yield from hung_operations.watch(evidence, vm.name, evidence.proofs_out(vm, entry))
    elif is_hidden(evidence.views, vm):
        yield Report(vm=vm.name, phase=Phase.DRAINING, why="Azure does not find its NICs or pools")
    elif (yield from _observed_out(case, evidence, entry)):
        yield from _note_out(case, entry, entry, evidence)
    else:
        yield Report(vm=vm.name, phase=Phase.DRAINING)


def _stay_unrecorded(case: VmCase, evidence: Evidence) -> Steps:
    vm = case.vm
    if (yield from evidence.read_unseen(vm)):
        yield Report(vm=vm.name, phase=Phase.DRAIN_DUE, why="its pools or NICs were not read yet")
    elif vm.problem:
        yield Report(vm=vm.name, phase=Phase.HELD, why=unreadable_vm(vm))
    else:
        yield Report(vm=vm.name, phase=Phase.UNMANAGED)
        if case.is_requested:
            message = f"{vm.name} is in no managed pool: the drain request changes nothing"
            yield HoldBack(subject=vm.name, reason=HoldReason.UNMANAGED_RESOURCE, message=message)


def _observed_out(case: VmCase, evidence: Evidence, entry: Entry) -> Inquiry:
    """Law S1: is every view that proves absence newer than the record? If not, plan reads."""
    proven = not evidence.under_way(entry.memberships)
    for proof in evidence.proofs_out(case.vm, entry):
        if not proof.holds(evidence.views):
            every_s = 1 if proof.since <= evidence.now else FRESH_S
            yield from hung_operations.report(evidence, case.vm.name, proof)
            yield from evidence.read_again(proof, every_s=every_s)
            yield WakeAt(proof.since)
            proven = False
    return proven


def _note_out(
    case: VmCase, durable: Entry, entry: Entry, evidence: Evidence, *, detail: str = ""
) -> Steps:
    noted = replace(entry, events=case.references(entry))
    if noted != durable:
        yield Record(entry=noted)
    if noted.out_at is None:
        noted = replace(noted, out_at=evidence.now, restoring_at=None)
        cut = cut_text(0 if case.started else cut_now(evidence.observed, entry))
        removed_at = _removed_at(evidence, entry) if only_tests(noted.events) else None
        removed = removed_text(evidence.now - removed_at) if removed_at else ""
        detail = detail or ", ".join(filter(None, (removed, cut)))
        yield Record(entry=noted, step=Step.OUT, detail=detail)
    for event in noted.events:
        at = evidence.durable.acknowledgement_of(event, evidence.observed.acknowledged)
        if at is not None and event.acknowledged_at is None:
            events = (
                replace(each, acknowledged_at=at) if each is event else each
                for each in noted.events
            )
            noted = replace(noted, events=tuple(events))
            yield Record(entry=noted, step=Step.ACKNOWLEDGED, detail=event.event_id)
    yield Report(vm=case.vm.name, phase=_phase_out(case, noted))


def _removed_at(evidence: Evidence, entry: Entry) -> datetime | None:
    """Return when the last removal of a VM was seen to end; None if this leader sent none."""
    ends = (
        evidence.observed.ended_at.get(fold(evidence.resource_of(m))) for m in entry.memberships
    )
    return max((at for at in ends if at and at >= entry.recorded_at), default=None)


def _phase_out(case: VmCase, entry: Entry) -> Phase:
    present = {fold(event.event_id) for event in case.events}
    if case.started:
        return Phase.IN_MAINTENANCE
    if any(e.acknowledged_at and fold(e.event_id) in present for e in entry.events):
        return Phase.ACKNOWLEDGED
    return Phase.OUT
