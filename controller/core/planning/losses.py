"""Memberships that cannot be restored now: kept, reported, checked now and then, never forgotten.

Absence is no proof of deletion: Azure answers 404 for what exists, for minutes and a region at a
time (`ResourceGroupNotFound`). So a membership whose place is absent only moves to `Entry.lost`:

- the other memberships of the VM are restored as usual, and a hold reports the lost ones;
- it is restored when its place exists again (law S3);
- only an operator drops it, with `lb-drain forget`. A request is about the entry that the operator
  saw: an entry that was recorded later is not affected. It drops only what this leader finds absent
  itself: an identity that can write the container can forge the request and the entry.

The same holds for an entry whose VM was deleted (`Entry.gone`).

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Container, Iterable, Iterator
from dataclasses import replace

from controller.core.azure_names import fold, short
from controller.core.drain_history import Step
from controller.core.drain_requests import ForgetRequest
from controller.core.ledger import Entry
from controller.core.planning.actions import HoldReason, Read, ReadNic, ReadPower
from controller.core.planning.evidence import Evidence
from controller.core.planning.mechanism import CREATED_AGAIN
from controller.core.planning.steps import Forget, HoldBack, Record, Start, Steps, WakeAt
from controller.core.resources import Membership, MembershipKey, NicMembership

CHECK_S = 600.0
"""Seconds between two checks, which are one read each, however much is absent: they and the
inventories of an idle set stay below 60 reads an hour (law H1). An inventory shows the pools, and
the NICs of the VMs of the set, anyway."""


def lost(
    evidence: Evidence, entry: Entry, outside: Iterable[Membership]
) -> frozenset[MembershipKey]:
    """Return which of the memberships that are out cannot come back now."""
    return frozenset(m.key for m in outside if evidence.obstacle(entry, m))


def found(evidence: Evidence, entry: Entry) -> tuple[Membership, ...]:
    """Return the lost memberships whose place exists again, by a view of it."""
    views = evidence.views
    return tuple(
        m
        for m in entry.lost
        if views.seen(m.pool_id)
        and views.seen(evidence.resource_of(m))
        and not evidence.obstacle(entry, m)
    )


def created_again(
    evidence: Evidence, entry: Entry, memberships: Iterable[Membership]
) -> tuple[Membership, ...]:
    """Return the memberships whose VM or NIC was created again under its old name."""
    return tuple(m for m in memberships if evidence.obstacle(entry, m) in CREATED_AGAIN)


def lose(entry: Entry, keys: Container[MembershipKey]) -> Steps:
    """Move memberships whose place is absent to the lost ones of their entry."""
    away = tuple(m for m in entry.memberships if m.key in keys)
    kept = tuple(m for m in entry.memberships if m.key not in keys)
    moved = replace(entry, memberships=kept, lost=(*entry.lost, *away))
    yield Record(entry=moved if kept else park(moved), step=Step.MEMBERSHIP_LOST, detail=_of(away))


def regain(evidence: Evidence, entry: Entry, back: tuple[Membership, ...]) -> Steps:
    """Move memberships whose place exists again back: they may be restored from now on."""
    restoring = replace(
        entry,
        memberships=(*entry.memberships, *back),
        lost=tuple(m for m in entry.lost if m not in back),
        out_at=None,
        restoring_at=evidence.now,
        restored_at=None,
    )
    yield Record(entry=restoring, step=Step.PLACE_EXISTS_AGAIN, detail=_of(back))


def park(entry: Entry) -> Entry:
    """Return the entry of a VM of which only lost memberships are left."""
    return replace(
        entry,
        memberships=(),
        events=(),
        out_at=None,
        restoring_at=None,
        restored_at=None,
        gone=False,
    )


def report(evidence: Evidence) -> Steps:
    """Hold every VM with lost memberships; the reason is in the ledger for every agent to show."""
    for entry in evidence.durable.entries:
        if entry.lost:
            message = (
                f"{entry.vm} cannot be restored to {_reasons(evidence, entry)}: "
                "it is restored when that changes; to give it up: "
                f"lb-drain forget {entry.vm}"
            )
            yield HoldBack(subject=entry.vm, reason=HoldReason.LOST, message=message)


def check(evidence: Evidence) -> Steps:
    """Read one of the absent NICs and VMs now and then; the inventory reads the pools anyway."""
    reads = {read.target: read for read in _reads(evidence)}
    if not reads:
        return
    views, read_at = evidence.views, evidence.observed.read_at
    ages = {target: views.age_s(read_at.get(target)) for target in reads}
    newest_s = min(*ages.values(), _reported_for_s(evidence))
    if newest_s >= CHECK_S:
        yield Start(reads[max(sorted(ages), key=lambda target: ages[target])])
    else:
        yield WakeAt(views.in_s(CHECK_S - newest_s))


def given_up(evidence: Evidence) -> dict[str, ForgetRequest]:
    """Return the requests of operators to drop what is absent, by folded name of the VM."""
    requests: dict[str, ForgetRequest] = {}
    for request in evidence.observed.forgets:
        entry = evidence.views.entry(request.vm)
        if entry is None or not request.is_about(entry):
            continue
        if _has_no_vm(evidence, entry) or set(entry.lost) - set(found(evidence, entry)):
            requests[fold(entry.vm)] = request
    return requests


def forget_on_request(evidence: Evidence, request: ForgetRequest) -> Steps:
    """Drop what an operator has given up; what can be restored stays."""
    entry = evidence.views.entry(request.vm)
    if entry is None:
        return
    why, back = f"given up by {request.by}", found(evidence, entry)
    if _has_no_vm(evidence, entry) or (entry.parked and not back):
        yield Forget(vm=entry.vm, step=Step.FORGOTTEN, detail=why)
    else:
        dropped = tuple(m for m in entry.lost if m not in back)
        left = replace(entry, lost=back)
        yield Record(entry=left, step=Step.MEMBERSHIP_DROPPED, detail=f"{_of(dropped)}, {why}")


def _has_no_vm(evidence: Evidence, entry: Entry) -> bool:
    """Return whether the VM of an entry is recorded as deleted or foreign, and not in the set."""
    peer = evidence.views.membership.peer(entry.vm)
    if peer is not None and fold(peer.vm_id) == fold(entry.vm_id):
        return entry.gone and evidence.views.missing(entry.vm_id)
    return entry.gone or evidence.views.held_since(entry.vm, HoldReason.NOT_IN_SET) is not None


def _reads(evidence: Evidence) -> Iterator[Read]:
    for entry in evidence.durable.entries:
        if entry.gone:
            yield ReadPower(entry.vm_id)
        for membership in entry.lost:
            seen = evidence.views.seen(evidence.resource_of(membership))
            if isinstance(membership, NicMembership) and not seen:
                yield ReadNic(membership.nic_id)


def _reported_for_s(evidence: Evidence) -> float:
    """Return for how long the newest loss has been reported: it was checked just before that."""
    reasons = (HoldReason.LOST, HoldReason.VM_GONE)
    held = (
        evidence.views.held_since(entry.vm, reason)
        for entry in evidence.durable.entries
        for reason in reasons
    )
    return min((evidence.views.age_s(since) for since in held if since is not None), default=0.0)


def _reasons(evidence: Evidence, entry: Entry) -> str:
    """Return the pools of the lost memberships with the reasons, each once."""
    found = {
        f"{short(m.pool_id)} ({evidence.obstacle(entry, m) or 'Azure does not find it'})": None
        for m in sorted(entry.lost, key=lambda each: each.key)
    }
    return ", ".join(found)


def _of(memberships: Iterable[Membership]) -> str:
    return ", ".join(sorted({short(membership.pool_id) for membership in memberships}))
