"""The planner: from what is observed, what was recorded and what policy says, to what to do now.

Level triggered: a pass looks at what is, never at what happened, so that a new leader continues
from observation plus ledger after a crash at any line. A VM's phase is derived on every pass.

The ordering rule that keeps the laws while everything changes:

    Record before Remove; observed-out before Acknowledge; observed-in before Forget.

An action is planned only from the ledger that is already durable. A pass that wants another ledger
says so (`Plan.ledger`); what follows from that ledger is planned by the pass after it was written.
Likewise nothing is recorded from an old view: the pass plans the read, the next pass the rest.

Pure: standard library only, no I/O, no clock.
"""

from datetime import datetime

from controller.core import acknowledgement, removal, restoration
from controller.core.actions import Plan, ReadInventory, Reason
from controller.core.draft import FRESH_S, STRANGER_S, Draft
from controller.core.ledger import Ledger
from controller.core.model import EventDocument, Observation, Policy

__all__ = ["FRESH_S", "plan"]


def plan(observed: Observation, ledger: Ledger, policy: Policy, now: datetime) -> Plan:
    """Return what the leader has to do at `now`.

    Args:
        observed: the world as this agent knows it.
        ledger: the durable ledger.
        policy: the operator's choices.
        now: wall clock, corrected; aware, UTC.
    """
    document = observed.document
    if observed.inventory_at is None or document is None:
        # Nothing can be said of a world that was not looked at yet.
        read = ReadInventory()
        deferral = observed.deferred.get(read.target)
        again_at = deferral.until if deferral is not None and deferral.until > now else None
        reads = (read,) if observed.inventory_at is None and again_at is None else ()
        return Plan(ledger=None, actions=reads, phases=(), holds=(), wake_at=again_at)
    draft = Draft(observed, ledger, policy, now)
    cases = [draft.case(vm, document.events) for vm in draft.subjects]
    _look_around(draft, document)
    _refuse_strangers(draft)
    removal.take_out(draft, [case for case in cases if case.leaves])
    restoration.put_back(draft, [case for case in cases if not case.leaves])
    draft.change_pools()
    for event in document.events:
        acknowledgement.consider(draft, event)
    return draft.result()


def _refuse_strangers(draft: Draft) -> None:
    """Say that a request names a VM which is not in the set."""
    for request in draft.strangers:
        message = f"a request names {request.vm}, which is not in this availability set"
        draft.hold(request.vm, Reason.UNMANAGED_RESOURCE, message)


def _look_around(draft: Draft, document: EventDocument) -> None:
    """Plan an inventory when the last one is old, or knows nothing of a VM in an event."""
    period_s = draft.observed.inventory_period_s
    for event in document.events:
        if any(draft.inventory.peer(name) is None for name in event.resources):
            reason = Reason.UNMANAGED_RESOURCE
            again_s = draft.again_s(event.event_id, reason, first_s=STRANGER_S)
            period_s = min(period_s, again_s)
    for request in draft.strangers:
        again_s = draft.again_s(request.vm, Reason.UNMANAGED_RESOURCE, first_s=STRANGER_S)
        period_s = min(period_s, again_s)
    age_s = draft.age_s(draft.observed.inventory_at)
    if age_s >= period_s:
        draft.actions.append(ReadInventory())
    else:
        draft.wake_in(period_s - age_s)
