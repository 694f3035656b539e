"""The adminState of members that left their pool with their NIC: put back after the NIC is back.

A NIC joins a pool without an adminState. What an operator had set there (Down keeps a member out of
service, Up overrides its probe) is in the record, and a write of the pool puts it back. Where Azure
or the role refuses that write, the membership is reported as lost: its place is there, and not as
it was. It is complete as soon as the pool shows the state, also if another client set it.

Pure: standard library only, no I/O, no clock.
"""

from dataclasses import replace

from controller.core.azure_names import load_balancer_of
from controller.core.ledger import Entry
from controller.core.planning.actions import ReadLoadBalancer
from controller.core.planning.admin_state import of_member
from controller.core.planning.evidence import Evidence
from controller.core.planning.losses import lose
from controller.core.planning.member_states import Lack, is_neutral, refusal
from controller.core.planning.pool_membership import shown_member
from controller.core.planning.steps import Change, Inquiry, Start, WakeAt
from controller.core.planning.views import has_settled
from controller.core.resources import AdminMembership, Membership, NicMembership, member_key


def is_complete(evidence: Evidence, entry: Entry) -> Inquiry:
    """Return whether the members that are back have their adminState, and put it back.

    Only after a restore of ours: an operator who put the VM back has decided about the rest.
    """
    sent_at = entry.restoring_at
    if sent_at is None or sent_at < entry.recorded_at:
        return True
    views, complete = evidence.views, True
    refused: set[NicMembership] = set()
    wanted: list[AdminMembership] = []
    for membership in entry.memberships:
        if not isinstance(membership, NicMembership) or not membership.admin_state:
            continue
        pool = views.pool(membership.pool_id)
        shown = shown_member(pool, membership)
        if pool is None or shown is None or not views.proves(pool.observed_at, since=sent_at):
            complete = False
            if views.age_s(pool.observed_at if pool else None) >= 1:
                yield Start(ReadLoadBalancer(load_balancer_of(membership.pool_id)))
            yield WakeAt(views.in_s(1))
        elif not is_neutral(shown.admin_state):
            continue  # it is back, or an operator has set another one
        elif refusal(evidence.observed, membership.pool_id) is not None:
            refused.add(membership)
        elif state := of_member(membership, membership.admin_state):
            wanted.append(state)
    if refused:
        lacking = tuple(
            replace(m, lacks=Lack.ADMIN_STATE.value)
            if isinstance(m, NicMembership) and m in refused
            else m
            for m in entry.memberships
        )
        yield from lose(replace(entry, memberships=lacking), {m.key for m in refused})
    elif wanted:
        yield Change(memberships=tuple(wanted), restore=True)
    return complete and not refused and not wanted


def settled(
    evidence: Evidence, entry: Entry, outside: tuple[Membership, ...]
) -> tuple[Membership, ...]:
    """Return the memberships that are back for good while others are refused, maybe for hours.

    They are not ours any more: if an operator removes one, it is not restored again (law S3). What
    comes back with an adminState is ours until both are back.
    """
    if not has_settled(entry, evidence.policy, evidence.now):
        return ()
    apart = {member_key(m) for m in outside}
    back = tuple(m for m in entry.memberships if member_key(m) not in apart and not _has_state(m))
    sure = not evidence.under_way(back) and all(
        proof.holds(evidence.views)
        for proof in evidence.proofs_back(replace(entry, memberships=back))
    )
    return back if sure else ()


def _has_state(membership: Membership) -> bool:
    return isinstance(membership, NicMembership) and bool(membership.admin_state)
