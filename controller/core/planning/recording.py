"""What a drain writes ahead (law S5): what is about to leave rotation, from where, because of what.

Pure: standard library only, no I/O, no clock.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from controller.core.azure_names import short
from controller.core.drain_history import Step
from controller.core.ledger import Entry
from controller.core.planning.evidence import Evidence
from controller.core.planning.losses import created_again
from controller.core.planning.member_states import (
    is_down,
    is_neutral,
    refusal,
    state_lost_with_nic,
)
from controller.core.planning.pool_membership import shown_member
from controller.core.planning.steps import Record
from controller.core.planning.vm_case import VmCase
from controller.core.resources import (
    NOTHING_EXTRA,
    AddressMembership,
    AdminMembership,
    Membership,
    NicMembership,
    member_key,
)

NO_EFFECT = "a rule has no probe, or no rule could be read"


def record(case: VmCase, evidence: Evidence, movable: tuple[Membership, ...]) -> Record:
    """Return the record of a VM with what is about to leave rotation."""
    # After a finished maintenance only what is there counts: an operator may have changed the rest.
    old = case.entry if case.recorded else None
    unread = old if old is not None and old.unread_at else None
    old = None if unread else old  # what was recorded without a read counts as far as it is there
    kept = whole(old.memberships if old else ())
    added = tuple(_added(evidence, case.entry, kept, movable))
    again = {member_key(m) for m in added}
    # A Down that was sent may be in effect: it stays recorded until the state is back (law S3).
    replaced = {m.key for m in added} | evidence.observed.unsent
    staying = (m for m in kept if member_key(m) not in again or m.key not in replaced)
    entry = Entry(
        vm=case.vm.name,
        vm_id=case.vm.vm_id,
        events=case.references(old),
        memberships=(*staying, *added),
        recorded_at=unread.recorded_at if unread else evidence.now,
        closed_at=unread.closed_at if unread else None,
        restoring_at=case.entry.restoring_at if case.entry else None,
        lost=_still_lost(case, evidence, added),
        extra=case.entry.extra if case.entry else NOTHING_EXTRA,
    )
    # A VM that closes first needs no write slot yet.
    claims = () if evidence.policy.close else added
    detail = _detail(evidence, kept, added)
    return Record(entry=entry, step=record_step(old), detail=detail, claims=claims)


def as_set_since(membership: Membership, evidence: Evidence) -> Membership:
    """Return a recorded member with the adminState that people have given it since.

    Only a state that serves: Down is that of this drain, and none is no choice.
    """
    if not isinstance(membership, AdminMembership):
        return membership
    shown = shown_member(evidence.views.pool(membership.pool_id), membership)
    if shown is None or is_neutral(shown.admin_state) or is_down(shown.admin_state):
        return membership
    return replace(membership, admin_state=shown.admin_state)


def record_step(entry: Entry | None) -> Step:
    """Return the step of a VM that is about to be removed: after it was out, it was put back."""
    return Step.PUT_BACK if entry is not None and entry.out_at is not None else Step.RECORDED


def whole(memberships: Iterable[Membership]) -> tuple[Membership, ...]:
    """Return memberships of which all is about to leave, not only what they lack."""
    return tuple(replace(m, lacks="") if isinstance(m, NicMembership) else m for m in memberships)


def pool_names(memberships: Iterable[Membership]) -> str:
    """Return the short names of the pools, each once."""
    return ", ".join(sorted({short(membership.pool_id) for membership in memberships}))


def _added(
    evidence: Evidence,
    entry: Entry | None,
    kept: tuple[Membership, ...],
    movable: tuple[Membership, ...],
) -> Iterator[Membership]:
    """Yield what was not recorded yet, as the mechanism of the pool records it."""
    recorded = {membership.key for membership in kept}
    ours = {member_key(m): m.admin_state for m in kept if isinstance(m, AdminMembership)}
    lost = {
        m.key: m.admin_state
        for m in (entry.lost if entry else ())
        if isinstance(m, NicMembership) and m.lacks
    }
    for membership in movable:
        if membership.key in recorded:
            continue
        chosen = evidence.to_record(membership)
        if chosen is None:
            continue
        if member_key(chosen) in ours:  # the state that it shows is ours
            chosen = _with_admin_state(chosen, ours[member_key(chosen)])
        elif isinstance(chosen, NicMembership) and chosen.key in lost and not chosen.admin_state:
            chosen = replace(chosen, admin_state=lost[chosen.key])
        yield chosen


def _with_admin_state(membership: Membership, state: str) -> Membership:
    """Return a member that is removed after all, with the adminState that it had before Down."""
    if isinstance(membership, NicMembership):
        return replace(membership, admin_state=state_lost_with_nic(state))
    if isinstance(membership, AddressMembership):
        body: dict[str, Any] = json.loads(membership.body)
        details: dict[str, Any] = dict(body.get("properties") or {})
        details.pop("adminState", None)
        body["properties"] = {**details, **({"adminState": state} if state else {})}
        return replace(membership, body=json.dumps(body, separators=(",", ":")))
    return membership


def _detail(evidence: Evidence, kept: tuple[Membership, ...], added: tuple[Membership, ...]) -> str:
    """Return the pools, and why a VM is removed whose members were to be set Down."""
    ours = {member_key(m) for m in kept if isinstance(m, AdminMembership)}
    reasons = {
        found.reason if (found := refusal(evidence.observed, m.pool_id)) else NO_EFFECT
        for m in added
        if member_key(m) in ours
    }
    why = f" (removed, not set Down: {', '.join(sorted(reasons))})" if reasons else ""
    return f"{pool_names(added)}{why}"


def _still_lost(
    case: VmCase, evidence: Evidence, recorded: tuple[Membership, ...]
) -> tuple[Membership, ...]:
    """Return the lost memberships without those that an operator has restored meanwhile.

    A membership of a VM or NIC that was created again is another one, in spite of its name.
    """
    entry, keys = case.entry, {member_key(membership) for membership in recorded}
    if entry is None:
        return ()
    again = created_again(evidence, entry, entry.lost)
    return tuple(m for m in entry.lost if member_key(m) not in keys or m in again)
