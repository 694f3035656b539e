"""Acknowledging: the platform need not wait for NotBefore. Law S1.

One acknowledgement releases the event for all its resources at once. So every resource must be
recorded as out in the durable ledger, must have had its time to empty, and must be seen out by
reads that are at most 10 s old when the acknowledgement leaves: another client may have put it
back. The same holds for each repetition.

Pure: standard library only, no I/O, no clock.
"""

from datetime import datetime, timedelta

from controller.core.events import EventStatus, ScheduledEvent
from controller.core.ledger import Entry
from controller.core.planning import closing
from controller.core.planning.absence import is_hidden
from controller.core.planning.actions import Acknowledge, HoldReason, ReadNic
from controller.core.planning.due import is_due_for_any
from controller.core.planning.evidence import Evidence
from controller.core.planning.mechanism import Proof
from controller.core.planning.steps import HoldBack, Inquiry, Start, Steps, WakeAt
from controller.core.planning.views import DOCUMENT_FRESH_S, PREDECESSOR_S
from controller.core.policy import Policy
from controller.core.resources import Vm

UNKNOWN_VM_S = 60.0
"""How old an inventory may be that does not know a VM which an event names."""
UPDATING_EVERY_S = 5.0
"""How often a NIC is read while another client changes it."""
ACKNOWLEDGE_BEFORE_S = 2.0
"""The connection drain ends at the latest this long before NotBefore."""
PLANNED_WITHIN_S = 3.0
"""How old they may be when the acknowledgement is planned: each one follows a read of its own."""
READ_AHEAD_S = 2.0
"""The views are read this long before the connection drain ends, so that no read delays the end."""


def steps(
    event: ScheduledEvent,
    evidence: Evidence,
    *,
    seen_within_s: float = PLANNED_WITHIN_S,
    policy: Policy | None = None,
) -> Steps:
    """Acknowledge an event whose resources are all ready, or report what they wait for.

    Args:
        event: an event of the document.
        evidence: what this pass can prove.
        seen_within_s: how old the views may be that show its VMs out.
        policy: what decides whether and when to acknowledge; None for the policy of the pass.
    """
    policy = policy or evidence.policy
    if (
        not can_be_sent(event, evidence)
        or not policy.acknowledge
        or not policy.for_type(event.event_type).acknowledge
    ):
        return
    if not policy.impacting(event):
        peer = evidence.views.membership.peer
        if policy.acknowledge_ignored and all(peer(name) is not None for name in event.resources):
            yield Start(Acknowledge(event.event_id))
        return
    if not is_due_for_any(event, evidence.views, policy):
        return
    # No short circuit: each resource may have a reason to report and an instant to wake at.
    ready = True
    for name in event.resources:
        ready = (yield from _ready(event, name, evidence, policy, seen_within_s)) and ready
    if ready:
        yield Start(Acknowledge(event.event_id))


def can_be_sent(event: ScheduledEvent, evidence: Evidence) -> bool:
    """Return whether Azure can still be allowed to start an event, whatever policy requires."""
    return (
        event.status is EventStatus.SCHEDULED
        and event.acknowledgeable
        and bool(event.resources)
        and (event.not_before is None or event.not_before > evidence.now)
        and evidence.views.age_s(evidence.observed.document_at) <= DOCUMENT_FRESH_S
    )


def _ready(
    event: ScheduledEvent, name: str, evidence: Evidence, policy: Policy, seen_within_s: float
) -> Inquiry:
    """Return whether one resource is durably out, has had its time to empty, and is seen out."""
    vm = evidence.views.vm(name)
    if vm is not None and vm.problem:
        return False  # which NICs it has is not known, and so not that it is out
    entry = evidence.views.entry(name)
    inside = evidence.inside(vm) if vm else ()
    if entry is None or entry.over:
        hidden = vm is not None and (yield from _is_uncertain(vm, evidence))
        if inside or hidden:
            return False
        return (yield from _may_ignore(event, name, evidence, policy))
    yield from closing.read_report(evidence, entry.vm) if evidence.policy.close else ()
    # The ledger has to name the event first: that keeps the VM out until the event is gone.
    named = entry.is_for(event.event_id)
    known = named and all(entry.holds(membership.key) for membership in inside)
    if vm is not None and known and entry.closed_at and closing.is_proven_closed(evidence, entry):
        return True
    # A pool may list an address of a NIC that this leader has not seen yet.
    hidden = vm is not None and (yield from evidence.read_unseen(vm))
    # A restore that is still on its way would put the VM back.
    if (
        hidden
        or not named
        or inside
        or vm is None
        or is_hidden(evidence.views, vm)
        or entry.restoring_at
        or evidence.under_way(entry.memberships)
    ):
        return False
    return (yield from _emptied(event, vm, entry, evidence, policy, seen_within_s=seen_within_s))


def _emptied(
    event: ScheduledEvent,
    vm: Vm,
    entry: Entry,
    evidence: Evidence,
    policy: Policy,
    *,
    seen_within_s: float,
) -> Inquiry:
    """Return whether a recorded VM is out, has had its time to empty, and is seen out."""
    if entry.out_at is None:
        return False
    left_s = _left_s(event, entry, entry.out_at, evidence, policy)
    if left_s > READ_AHEAD_S:
        yield WakeAt(evidence.views.in_s(left_s - READ_AHEAD_S))
        return False
    seen_out = yield from _seen_out(vm, entry, evidence, within_s=seen_within_s - max(0.0, left_s))
    yield WakeAt(evidence.views.in_s(left_s))
    return seen_out and left_s <= 0


def _left_s(
    event: ScheduledEvent, entry: Entry, out_at: datetime, evidence: Evidence, policy: Policy
) -> float:
    """Return in how many seconds the event can be acknowledged, or acknowledged again.

    Until then the connections of the VM end, or the last acknowledgement is not repeated.
    """
    wait_s = 0.0 if closing.is_quiet(evidence, entry) else policy.connection_drain_s
    drained_at = out_at + timedelta(seconds=wait_s)
    if event.not_before is not None:
        latest = event.not_before - timedelta(seconds=ACKNOWLEDGE_BEFORE_S)
        drained_at = min(drained_at, latest)
    deferral = evidence.observed.deferred.get(Acknowledge(event.event_id).key)
    due_at = drained_at if deferral is None else max(drained_at, deferral.until)
    return (due_at - evidence.now).total_seconds()


def _seen_out(vm: Vm, entry: Entry, evidence: Evidence, *, within_s: float) -> Inquiry:
    """Return whether recent views show that a VM is still out; if not, plan the reads."""
    recent = True
    for proof in evidence.rotation_views(vm, entry, within_s=within_s):
        if not proof.holds(evidence.views):
            recent = False
            if proof.updating_since is None:
                yield Start(proof.read)
            else:
                yield from evidence.read_again(proof)
    return recent


def _is_uncertain(vm: Vm, evidence: Evidence) -> Inquiry:
    """Return whether a VM without an entry may be in a managed pool that its views do not show.

    A removal shows before it has taken effect. That of an earlier leader need not be recorded any
    more: the ledger can have been deleted.
    """
    views = evidence.views
    uncertain = (yield from evidence.read_unseen(vm)) or is_hidden(views, vm)
    left_s = PREDECESSOR_S - views.age_s(views.leader_since)
    if left_s > 0:
        uncertain = True
        yield WakeAt(views.in_s(left_s))
    for nic in filter(None, map(views.nic, vm.nic_ids)):
        if nic.updating:
            uncertain = True
            proof = Proof(
                since=evidence.now,
                seen_at=nic.observed_at,
                read=ReadNic(nic.nic_id),
                updating_since=nic.updating_since or nic.observed_at,
            )
            yield from evidence.read_again(proof, every_s=UPDATING_EVERY_S)
    return uncertain


def _may_ignore(event: ScheduledEvent, name: str, evidence: Evidence, policy: Policy) -> Inquiry:
    """Return whether a resource in no managed pool is left aside: the operator decides that."""
    views, reason = evidence.views, HoldReason.UNMANAGED_RESOURCE
    age_s = views.age_s(evidence.observed.inventory_at)
    again_s = views.again_s(event.event_id, reason, first_s=UNKNOWN_VM_S)
    # Then the planner reads the inventory again; the pass after knows.
    unsure = views.membership.peer(name) is None and age_s >= again_s
    if policy.acknowledge_unmanaged:
        return not unsure and (yield from evidence.refresh_pools())
    if not unsure or views.held_since(event.event_id, reason) is not None:
        message = (
            f"event {event.event_id} names {name}, "
            "which is in no managed pool: the event is not acknowledged; "
            "add its pool, or set acknowledge_unmanaged = true in [policy]"
        )
        yield HoldBack(subject=event.event_id, reason=reason, message=message)
    return False
