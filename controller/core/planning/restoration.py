"""Restoring VMs: two clean polls, the VM running, exactly what was recorded; settle, forget.

Observed-in before Forget: an entry is dropped only after its memberships were seen back, and after
no write of a predecessor can take them away again.

Pure: standard library only, no I/O, no clock.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from controller.core.azure_names import fold
from controller.core.drain_history import Step
from controller.core.events import CLEAN_DOCUMENTS
from controller.core.ledger import Entry
from controller.core.planning import closing, hung_operations, put_back
from controller.core.planning.actions import HoldReason, Phase, ReadInventory, ReadPower
from controller.core.planning.evidence import Evidence
from controller.core.planning.losses import created_again, found, lose, lost, regain
from controller.core.planning.pool_membership import shown_member
from controller.core.planning.recording import pool_names
from controller.core.planning.removal import drop, forget
from controller.core.planning.requests_in_force import why_over
from controller.core.planning.steps import (
    Inquiry,
    Record,
    Report,
    Start,
    Steps,
    WakeAt,
    hold_vm,
)
from controller.core.planning.views import DOCUMENT_FRESH_S, FRESH_S
from controller.core.planning.vm_case import VmCase, is_manual, unreadable_vm
from controller.core.presence import ONE_REPLY
from controller.core.resources import Membership, PowerState, member_key
from controller.core.vm_report import VmReport

POWER_AGAIN_S = 10.0
"""How often the power state of a VM that does not run is read again."""
REQUESTS_LATE_S = 30.0
"""A leader that could not read the drain requests for this long reports a hold."""


def by_failures(evidence: Evidence, cases: Iterable[VmCase]) -> list[VmCase]:
    """Return the VMs in the order in which they are restored: fewest failed writes first (L2)."""
    return sorted(
        cases,
        key=lambda case: (
            evidence.attempts(case.entry.memberships, restore=True) if case.entry else 0
        ),
    )


def steps(case: VmCase, evidence: Evidence) -> Steps:
    """Yield what to do about a VM for which nothing is due: it is in service, or comes back."""
    entry, vm = case.entry, case.vm
    if case.has_unknown_status:
        message = (
            f"nothing is changed for {vm.name}: "
            "an event for it has a status that Azure does not document"
        )
        yield from hold_vm(vm.name, HoldReason.UNKNOWN_EVENT_STATUS, message)
    elif case.threatened:
        message = f"nothing is changed for {vm.name}: an event for it cannot be read"
        yield from hold_vm(vm.name, HoldReason.UNREADABLE_EVENT, message)
    elif entry is None and vm.problem and not case.inside:
        yield Report(vm=vm.name, phase=Phase.HELD, why=unreadable_vm(vm))
    elif entry is None:
        yield Report(vm=vm.name, phase=Phase.IN_SERVICE if case.inside else Phase.UNMANAGED)
    elif entry.parked and (back := found(evidence, entry)) and not case.pending:
        yield from _come_back(case, evidence, entry, back)
    elif entry.parked:
        yield from _stay_parked(case, entry)
    elif entry.restored_at is not None:
        yield from _settle(case, evidence, entry)
    elif operators := evidence.never_ours(entry):
        yield from drop(case, entry, operators, "removed by an operator")
    elif again := created_again(evidence, entry, entry.memberships):
        # That a namesake is in the pool does not show that this VM is back.
        yield Report(vm=vm.name, phase=Phase.RESTORE_DUE)
        yield from lose(entry, {membership.key for membership in again})
    else:
        # Back on the word of a write that failed or does not end is not back: it is sent again.
        written = entry.removed and not evidence.policy.close_only
        again = hung_operations.to_write_again(evidence, entry)
        doubtful = evidence.doubtful(entry.memberships) if written else again
        is_member = evidence.views.membership.is_member
        outside = tuple(m for m in entry.memberships if m in doubtful or not is_member(m))
        if outside or evidence.policy.close_only:
            yield from _come_back(case, evidence, entry, outside)
        else:
            yield from _finish(case, evidence, entry)


def _come_back(
    case: VmCase, evidence: Evidence, entry: Entry, outside: tuple[Membership, ...]
) -> Steps:
    """A VM of which some memberships are still out, or that closed in its pools (then none is)."""
    vm, name = case.vm, case.vm.name
    if case.pending:
        message = (
            f"{name} stays out: another event for it is announced; "
            "it is restored when no event for it is left, or the next one is far ahead"
        )
        yield from hold_vm(name, HoldReason.EVENT_PENDING, message)
    elif evidence.observed.document and evidence.observed.document.set_aside:
        # It may be the event because of which this VM is out (law S6).
        message = (
            f"{name} stays out: an event cannot be read and may be for it; "
            "it is restored when every event can be read"
        )
        yield from hold_vm(name, HoldReason.UNREADABLE_EVENT, message)
    elif evidence.observed.requests is None and is_manual(entry):
        yield from _await_requests(case, evidence)
    elif not _two_clean_polls(evidence, name):
        yield Report(vm=name, phase=Phase.RESTORE_DUE, why="waiting for two clean polls")
        yield WakeAt(evidence.views.in_s(1))
    elif _is_gone(case, evidence):
        yield from _keep_visible(case, entry)
    elif not _is_ours(case, evidence, entry) and vm.power in {PowerState.UNKNOWN, PowerState.GONE}:
        yield from _await_power(case, evidence)  # it may be deleted
    elif not _is_ours(case, evidence, entry):
        message = (
            f"the ledger records {name} as drained, and it is not in this {evidence.set_kind}: "
            f"nothing is restored; to give it up: lb-drain forget {name}"
        )
        yield from hold_vm(name, HoldReason.NOT_IN_SET, message)
    elif away := lost(evidence, entry, outside):
        yield Report(vm=name, phase=Phase.RESTORE_DUE)
        yield from lose(entry, away)
    else:
        yield Report(vm=name, phase=Phase.RESTORE_DUE)
        if entry.gone:
            yield Record(entry=replace(entry, gone=False), step=Step.EXISTS_AGAIN)
        elif _runs(case, evidence):
            yield Report(vm=name, phase=Phase.RESTORING)
            yield from _restore(case, evidence, entry, outside)
        else:
            yield from _await_power(case, evidence)


def _restore(
    case: VmCase, evidence: Evidence, entry: Entry, outside: tuple[Membership, ...]
) -> Steps:
    """Write ahead that a restore may land from now on (law S1), then send it.

    A pool that seems to be deleted must not keep the VM out of the others (law L2), nor must a
    place of which it is not known whether it belongs to the VM. A VM that only closed is in all its
    pools: it opens.
    """
    if not outside:
        yield _restored(evidence, entry, detail=_why_over(evidence, entry))
        return
    if done := put_back.settled(evidence, entry, outside):
        left = tuple(m for m in entry.memberships if m not in done)
        detail = pool_names(done)
        yield Record(
            entry=replace(entry, memberships=left), step=Step.PARTLY_RESTORED, detail=detail
        )
        return
    unknown: set[Membership] = set()
    for membership in outside:
        if (yield from evidence.owner_unknown(case.vm, membership)):
            unknown.add(membership)
    outside = tuple(m for m in outside if m not in unknown)
    if not outside:
        why = "waiting until its NICs can be read"
        yield Report(vm=case.vm.name, phase=Phase.RESTORE_DUE, why=why)
    elif back := found(evidence, entry):
        yield from regain(evidence, entry, back)
    elif entry.out_at is None and entry.removed:
        presence = evidence.observed.presence_of
        outside = _places_first(evidence, outside)
        there = tuple(m for m in outside if not ONE_REPLY.holds(presence(m.pool_id)))
        yield from hung_operations.restore(evidence, entry, there or outside)
    elif entry.removed or (yield from _is_over(evidence, entry)):
        sent = replace(entry, restoring_at=evidence.now, out_at=None)
        yield Record(entry=sent, step=Step.RESTORING, detail=_why_over(evidence, entry))


def _is_over(evidence: Evidence, entry: Entry) -> Inquiry:
    """Return whether no removal can take effect late. Where one hangs, the restore ends it."""
    again = hung_operations.to_write_again(evidence, entry)
    if again:
        yield from hung_operations.watch(evidence, entry.vm, evidence.proofs_back(entry))
    rest = tuple(m for m in entry.memberships if m not in again)
    return (yield from _is_back_for_good(evidence, replace(entry, memberships=rest)))


def _places_first(evidence: Evidence, outside: tuple[Membership, ...]) -> tuple[Membership, ...]:
    """Return memberships without the adminState of members that are not in their pool yet.

    A member that is recorded with both, and that its pool lists, has its place already.
    """
    recorded = Counter(map(member_key, outside))

    def is_next(membership: Membership) -> bool:
        listed = shown_member(evidence.views.pool(membership.pool_id), membership) is not None
        is_state = membership.key != member_key(membership)
        return recorded[member_key(membership)] == 1 or is_state is listed

    return tuple(filter(is_next, outside))


# --- may it come back? ---


def _await_requests(case: VmCase, evidence: Evidence) -> Steps:
    """While the drain requests cannot be read, a VM that was drained on request stays out (S6)."""
    name = case.vm.name
    if evidence.views.age_s(evidence.durable.leader_since) > REQUESTS_LATE_S:
        message = (
            f"{name} stays out: the drain requests cannot be read, and one may still be in force; "
            "it is restored when they can be read"
        )
        yield from hold_vm(name, HoldReason.REQUESTS_UNREAD, message)
    else:
        why = "waiting for the drain requests"
        yield Report(vm=name, phase=Phase.RESTORE_DUE, why=why)
        yield WakeAt(evidence.views.in_s(1))


def _two_clean_polls(evidence: Evidence, vm: str) -> bool:
    """Law S6: one good document without the event may be a glitch, two in a row are not."""
    if len(evidence.observed.clean_documents) < CLEAN_DOCUMENTS:
        return False
    if evidence.views.age_s(evidence.observed.document_at) > DOCUMENT_FRESH_S:
        return False
    return not evidence.views.announced(vm)


def _runs(case: VmCase, evidence: Evidence) -> bool:
    """Law S6: the VM runs. Necessary, never sufficient; the probes decide the rest."""
    vm = case.vm
    return vm.power is PowerState.RUNNING and evidence.views.age_s(vm.power_observed_at) <= FRESH_S


def _await_power(case: VmCase, evidence: Evidence) -> Steps:
    """Wait until the VM is seen running.

    A VM that was seen stopped is held until then, also while it is read again, so that the hold
    does not come and go with every read (law H1).
    """
    vm, views = case.vm, evidence.views
    age_s = views.age_s(vm.power_observed_at)
    again_s = views.again_s(vm.name, HoldReason.VM_NOT_RUNNING, first_s=POWER_AGAIN_S)
    held = views.held_since(vm.name, HoldReason.VM_NOT_RUNNING) is not None
    if held or age_s <= FRESH_S:
        message = (
            f"{vm.name} stays out: Azure reports that it is {vm.power.value}; "
            "it is restored as soon as it runs"
        )
        yield from hold_vm(vm.name, HoldReason.VM_NOT_RUNNING, message)
    if vm.power is PowerState.GONE and age_s < views.age_s(evidence.observed.inventory_at):
        yield Start(ReadInventory())  # does the set still list it?
    if age_s >= again_s or vm.power is PowerState.RUNNING:
        yield Start(ReadPower(vm.vm_id))
    else:
        yield WakeAt(views.in_s(again_s - age_s))


def _is_gone(case: VmCase, evidence: Evidence) -> bool:
    """Return whether a VM does not exist, by two sources or by minutes of absence."""
    vm, inventory_at = case.vm, evidence.observed.inventory_at
    unlisted = evidence.views.membership.peer(vm.name) is None
    return evidence.views.missing(vm.vm_id) or (
        vm.power is PowerState.GONE
        and unlisted
        and inventory_at is not None
        and vm.power_observed_at is not None
        and inventory_at >= vm.power_observed_at
    )


def _is_ours(case: VmCase, evidence: Evidence, entry: Entry) -> bool:
    """Return whether the entry is about a VM of this set: the ledger alone does not prove it.

    When the set does not exist any more, and none that Azure has made of it was read, no VM is a
    peer: the recorded `vmId` then shows that it is the VM that was taken out.
    """
    peer = evidence.views.membership.peer(entry.vm)
    if peer is not None:
        return fold(peer.vm_id) == fold(entry.vm_id)
    guids = {fold(str(getattr(m, "vm_guid", ""))) for m in (*entry.memberships, *entry.lost)}
    converted = evidence.observed.set_missing(evidence.set_id)
    return converted and (not case.vm.guid or guids == {fold(case.vm.guid)})


def _keep_visible(case: VmCase, entry: Entry) -> Steps:
    """A VM that was deleted while it was out: its entry stays for the operator to see."""
    vm = case.vm
    if not entry.gone:
        yield Record(entry=replace(entry, gone=True), step=Step.GONE)
    message = (
        f"{vm.name} was deleted while it was out: it is restored if it exists again; "
        f"to give it up: lb-drain forget {vm.name}"
    )
    yield from hold_vm(vm.name, HoldReason.VM_GONE, message)


# --- is it back? ---


def _finish(case: VmCase, evidence: Evidence, entry: Entry) -> Steps:
    """Everything recorded is in rotation again, whether we or an operator put it back."""
    name = case.vm.name
    yield Report(
        vm=name, phase=Phase.RESTORING, why="waiting until no removal can take effect any more"
    )
    if not (yield from _is_back_for_good(evidence, entry)):
        return
    if (yield from put_back.is_complete(evidence, entry)):
        yield _restored(evidence, entry)
        yield Report(vm=name, phase=Phase.RESTORING, why="waiting for the probes")


def _restored(evidence: Evidence, entry: Entry, *, detail: str = "") -> Record:
    """Record that everything is in its pools: the agent of the VM opens it."""
    restored = replace(entry, restored_at=evidence.now, gone=False)
    return Record(entry=restored, step=Step.RESTORED, detail=detail)


def _is_back_for_good(evidence: Evidence, entry: Entry) -> Inquiry:
    """Return whether no removal can still take any of the memberships away.

    That is so when the removal has taken effect: all was observed out, or this NIC or pool is. What
    is inside without that may be taken away by a removal that was sent late (law S5), until the end
    of a write of ours or enough time proves that it is over.
    """
    sure = not evidence.under_way(entry.memberships)
    if entry.unread_at:
        return sure  # no removal was sent
    for proof in evidence.proofs_back(entry):
        if not proof.holds(evidence.views):
            sure = False
            yield WakeAt(proof.since)
            yield from hung_operations.report(evidence, entry.vm, proof)
            if evidence.now >= proof.since:
                yield from evidence.read_again(proof)
    return sure


def _stay_parked(case: VmCase, entry: Entry) -> Steps:
    """A VM that is restored as far as possible; `losses` reports and checks the rest."""
    if entry.lost:
        phase = Phase.IN_SERVICE if case.inside else Phase.HELD
        yield Report(vm=case.vm.name, phase=phase, why="a pool membership is lost")
    else:
        yield from forget(case, entry)


def _settle(case: VmCase, evidence: Evidence, entry: Entry) -> Steps:
    """Restored: until the probes have found the VM the floor does not count on it."""
    name = case.vm.name
    if evidence.landed_late(entry):
        again = replace(entry, restored_at=None)
        yield Record(entry=again, step=Step.OUT_AGAIN, detail="a removal took effect late")
        yield Report(vm=name, phase=Phase.RESTORE_DUE)
        return
    if evidence.policy.close:
        yield from closing.read_report(evidence, entry.vm)
    restored_at = entry.restored_at or evidence.now
    settled_at = restored_at + timedelta(seconds=evidence.policy.restore_settle_s)
    if settled_at > evidence.now:
        yield WakeAt(settled_at)
        yield Report(vm=name, phase=Phase.RESTORING, why="waiting for the probes")
    elif (report_by := closing.reports_by(evidence, entry, restored_at)) > evidence.now:
        yield WakeAt(report_by)
        yield Report(vm=name, phase=Phase.RESTORING, why="waiting for the report of its agent")
    elif report := closing.not_open_yet(evidence, entry):
        yield from _await_open(case, evidence, report, restored_at)
    else:
        in_rotation = all(evidence.views.membership.is_member(m) for m in entry.memberships)
        yield from forget(case, entry, "" if in_rotation else "taken out by an operator")


def _await_open(case: VmCase, evidence: Evidence, report: VmReport, restored_at: datetime) -> Steps:
    """In its pools again, and closed until its application is ready."""
    name, why = case.vm.name, report.problem or "its application is not ready yet"
    late_at = restored_at + timedelta(seconds=evidence.policy.restore_ready_timeout_s)
    if evidence.now < late_at:
        yield WakeAt(late_at)
        yield Report(vm=name, phase=Phase.RESTORING, why=f"closed: {why}")
    else:
        message = (
            f"{name} is in its pools and stays closed: {why}; it opens when it is ready, or set "
            'restore_when_not_ready = "open" in [policy]'
        )
        yield from hold_vm(name, HoldReason.VM_NOT_READY, message)


def _why_over(evidence: Evidence, entry: Entry) -> str:
    return why_over(entry, evidence.observed.requests or ())
