"""Putting VMs back: two clean polls, the VM running, exactly what was recorded; settle, forget.

Observed-in before Forget: an entry is dropped only after its memberships were seen back, and after
no write of a predecessor can take them away again.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from controller.core.actions import Phase, ReadPower, Reason
from controller.core.draft import (
    DOCUMENT_FRESH_S,
    FRESH_S,
    Case,
    Draft,
    address_memberships,
    by_hand,
    nic_memberships,
)
from controller.core.ledger import Entry
from controller.core.model import Key, Membership, NicMembership, PowerState, fold, fold_address

POWER_AGAIN_S = 10.0
"""How often the power state of a VM that does not run is read again."""
REQUESTS_LATE_S = 30.0
"""A leader that could not read the requests for so long says so."""
GONE_AGAIN_S = 600.0
"""The same for a VM that does not exist."""


def put_back(draft: Draft, cases: Iterable[Case]) -> None:
    """See to every VM for which nothing is due; whose writes failed least comes first (law L2)."""
    for case in sorted(cases, key=lambda case: _attempts(draft, case)):
        _keep_or_restore(draft, case)


def _attempts(draft: Draft, case: Case) -> int:
    return draft.attempts(case.entry.memberships, restore=True) if case.entry else 0


def _keep_or_restore(draft: Draft, case: Case) -> None:
    """A VM for which nothing is due: in service, or out and perhaps on its way back."""
    entry = case.entry
    if case.puzzling:
        message = f"an event for {case.vm.name} has a status that Azure does not document"
        draft.hold_back(case, Reason.UNKNOWN_EVENT_STATUS, message)
    elif entry is None:
        draft.say(case, Phase.IN_SERVICE if case.inside else Phase.UNMANAGED)
    elif entry.restored_at is not None:
        _settle(draft, case, entry)
    elif not draft.drop(case, entry, draft.never_ours(entry), "removed by an operator"):
        _put_back(draft, case, entry)


def _put_back(draft: Draft, case: Case, entry: Entry) -> None:
    # Back on the word of a write that failed is not back: it is sent again.
    doubtful = draft.doubtful(entry.memberships) if entry.removed else ()
    outside = tuple(m for m in entry.memberships if m in doubtful or not draft.inventory.stands(m))
    if not outside:
        _finish(draft, case, entry)
    elif case.events:
        message = f"{case.vm.name} stays out: another event for it is announced"
        draft.hold_back(case, Reason.EVENT_PENDING, message)
    elif draft.observed.requests is None and by_hand(entry):
        _await_requests(draft, case)
    elif not _two_clean_polls(draft, case.vm.name):
        draft.say(case, Phase.RESTORE_DUE, "waiting for two clean polls")
        draft.wake_in(1)
    elif _gone(draft, case):
        _keep_visible(draft, case, entry)
    elif not draft.drop(case, entry, _lost(draft, entry), "deleted"):
        draft.say(case, Phase.RESTORE_DUE)
        if entry.gone:
            draft.note(replace(entry, gone=False), "exists again")
        elif _runs(draft, case):
            draft.say(case, Phase.RESTORING)
            _restore(draft, entry, outside)


def _restore(draft: Draft, entry: Entry, outside: tuple[Membership, ...]) -> None:
    """Write ahead that a restore may land from now on (law S1), then send it.

    A pool that seems to be deleted must not keep the VM out of the others (law L2).
    """
    if entry.out_at is None and entry.removed:
        there = tuple(m for m in outside if fold(m.pool_id) not in draft.observed.absent)
        draft.change(there or outside, restore=True)
    elif entry.removed or _surely_standing(draft, entry):
        sent = replace(entry, restoring_at=draft.now, out_at=None)
        draft.note(sent, "restoring", draft.why_over(entry))


# --- may it come back? ---


def _await_requests(draft: Draft, case: Case) -> None:
    """Whether somebody still wants the VM out is not known: it stays out (law S6)."""
    message = f"{case.vm.name} stays out: the requests made by hand cannot be read"
    if draft.age_s(draft.durable.leader_since) > REQUESTS_LATE_S:
        draft.hold_back(case, Reason.REQUESTS_UNREAD, message)
    else:
        draft.say(case, Phase.RESTORE_DUE, "waiting for the requests made by hand")
        draft.wake_in(1)


def _two_clean_polls(draft: Draft, vm: str) -> bool:
    """Law S6: one good document without the event may be a glitch, two in a row are not."""
    documents = draft.observed.clean_documents
    if len(documents) < 2 or draft.age_s(draft.observed.document_at) > DOCUMENT_FRESH_S:
        return False
    return not any(
        event.affects(vm) and draft.policy.impacting(event)
        for document in documents
        for event in document.events
    )


def _runs(draft: Draft, case: Case) -> bool:
    """Law S6: the VM runs. Necessary, never sufficient; the probes decide the rest.

    A VM that was seen stopped is held until it is seen running, also while it is looked at again,
    so that the hold does not come and go with every read (law H1).
    """
    vm, running = case.vm, case.vm.power is PowerState.RUNNING
    age_s = draft.age_s(vm.power_observed_at)
    if running and age_s <= FRESH_S:
        return True
    again_s = draft.again_s(vm.name, Reason.VM_NOT_RUNNING, first_s=POWER_AGAIN_S)
    held = draft.held_since(vm.name, Reason.VM_NOT_RUNNING) is not None
    if held or age_s <= FRESH_S:
        message = f"{vm.name} stays out: Compute says it is {vm.power.value}"
        draft.hold_back(case, Reason.VM_NOT_RUNNING, message)
    if age_s >= again_s or running:
        draft.actions.append(ReadPower(vm.vm_id))
    else:
        draft.wake_in(again_s - age_s)
    return False


def _gone(draft: Draft, case: Case) -> bool:
    return draft.missing(case.vm.vm_id) or case.vm.power is PowerState.GONE


def _keep_visible(draft: Draft, case: Case, entry: Entry) -> None:
    """A VM that was deleted while it was out: its entry stays for the operator to see."""
    if not entry.gone:
        draft.note(replace(entry, gone=True), "gone")
    message = f"{case.vm.name} was deleted while it was out: its entry is kept"
    draft.hold_back(case, Reason.VM_GONE, message)
    draft.wake_in(GONE_AGAIN_S)
    if draft.age_s(case.vm.power_observed_at) > GONE_AGAIN_S:
        draft.actions.append(ReadPower(case.vm.vm_id))


def _lost(draft: Draft, entry: Entry) -> frozenset[Key]:
    """Keys of memberships that cannot come back: their pool, NIC or place does not exist."""
    return frozenset(m.key for m in entry.memberships if not _possible(draft, entry, m))


def _possible(draft: Draft, entry: Entry, membership: Membership) -> bool:
    if draft.missing(membership.pool_id):
        return False
    if isinstance(membership, NicMembership):
        nic = draft.inventory.nic(membership.nic_id)
        names = {fold(each.name) for each in nic.ip_configurations} if nic else set[str]()
        deleted = (
            nic is not None
            and draft.proves(nic.observed_at, since=entry.recorded_at)
            and fold(membership.ip_configuration) not in names
        )
        return not deleted and not draft.missing(membership.nic_id)
    pool = draft.inventory.pool(membership.pool_id)
    for member in pool.members if pool else ():
        other = member.address
        if other and fold(other.name) == fold(membership.name):
            # Somebody gave the entry's name to another address.
            return fold_address(other.ip_address) == fold_address(membership.ip_address)
    return True


# --- is it back? ---


def _finish(draft: Draft, case: Case, entry: Entry) -> None:
    """Everything recorded stands again, whoever put it back."""
    draft.say(case, Phase.RESTORING, "waiting to be sure that it stays")
    if _surely_standing(draft, entry):
        draft.note(replace(entry, restored_at=draft.now, gone=False), "restored")
        draft.say(case, Phase.RESTORING, "waiting for the probes")


def _surely_standing(draft: Draft, entry: Entry) -> bool:
    """Tell whether no removal can still take any of the memberships away.

    That is so when the removal has taken effect: all was observed out, or this NIC or pool is. What
    stands inside without that may be taken away by a removal that was sent late (law S5), until the
    end of a write of ours or enough time says otherwise.
    """
    sure = not draft.under_way(entry.memberships)
    outside = {m.key for m in entry.memberships if not draft.inventory.stands(m)}
    for nic_id in sorted({m.nic_id for m in nic_memberships(entry.memberships)}):
        here = {m.key for m in nic_memberships(entry.memberships) if m.nic_id == nic_id}
        nic, since = draft.inventory.nic(nic_id), _over_at(draft, entry, nic_id, here <= outside)
        if nic is None or nic.updating or not draft.proves(nic.observed_at, since=since):
            sure = False
            draft.wakes.append(since)
            if draft.now >= since:
                draft.read_nic_again(nic_id)
    for pool_id in sorted({m.pool_id for m in address_memberships(entry.memberships)}):
        here = {m.key for m in address_memberships(entry.memberships) if m.pool_id == pool_id}
        pool, since = (
            draft.inventory.pool(pool_id),
            _over_at(draft, entry, pool_id, here <= outside),
        )
        if entry.removed and entry.restoring_at is not None:
            # A pool of addresses shows a restore before it has taken effect.
            since = draft.settled_at(pool_id, since=entry.restoring_at)
        if pool is None or not draft.proves(pool.observed_at, since=since):
            sure = False
            draft.wakes.append(since)
            if draft.now >= since:
                draft.read_pool_again(pool_id)
    return sure


def _over_at(draft: Draft, entry: Entry, resource_id: str, out: bool) -> datetime:
    """Return from when on a view of this NIC or pool tells that its removal is over."""
    if entry.removed:
        return entry.out_at or entry.restoring_at or entry.recorded_at
    if out:
        return entry.recorded_at
    return draft.settled_at(resource_id, since=entry.recorded_at)


def _settle(draft: Draft, case: Case, entry: Entry) -> None:
    """Restored: until the probes have found the VM the floor does not count on it."""
    if draft.landed_late(entry):
        draft.note(replace(entry, restored_at=None), "out again", "a removal took effect late")
        draft.say(case, Phase.RESTORE_DUE)
        return
    restored_at = entry.restored_at or draft.now
    settled_at = restored_at + timedelta(seconds=draft.policy.restore_settle_s)
    if settled_at > draft.now:
        draft.wakes.append(settled_at)
        draft.say(case, Phase.RESTORING, "waiting for the probes")
    else:
        standing = all(draft.inventory.stands(m) for m in entry.memberships)
        draft.forget(case, entry, "" if standing else "taken out by an operator")
