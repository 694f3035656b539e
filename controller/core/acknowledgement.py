"""Acknowledging: telling the platform that it need not wait for NotBefore. Law S1.

One acknowledgement releases the event for all its resources at once, so every one of them must have
been observed out, durably, and had its time to empty.

Pure: standard library only, no I/O, no clock.
"""

from datetime import timedelta

from controller.core.actions import Acknowledge, Reason
from controller.core.draft import DOCUMENT_FRESH_S, STRANGER_S, Draft
from controller.core.model import EventStatus, ScheduledEvent, fold

ACKNOWLEDGE_BEFORE_S = 2.0
"""The connection drain ends at the latest this long before NotBefore."""


def consider(draft: Draft, event: ScheduledEvent) -> None:
    """Acknowledge an event whose resources are all ready, or say what they wait for."""
    policy = draft.policy
    if (
        event.status is not EventStatus.SCHEDULED
        or not policy.acknowledge
        or not policy.for_type(event.event_type).acknowledge
        or not event.resources
        or (event.not_before is not None and event.not_before <= draft.now)
        or draft.age_s(draft.observed.document_at) > DOCUMENT_FRESH_S
    ):
        return
    if not policy.impacting(event):
        ours = all(draft.inventory.peer(name) is not None for name in event.resources)
        if policy.acknowledge_ignored and ours:
            draft.actions.append(Acknowledge(event.event_id))
        return
    due = policy.drain_at(event)
    if due is not None and due > draft.now:
        return
    # No short circuit: each resource may have a reason to report and an instant to wake at.
    ready = [_ready(draft, event, name) for name in event.resources]
    if all(ready):
        draft.actions.append(Acknowledge(event.event_id))


def _ready(draft: Draft, event: ScheduledEvent, name: str) -> bool:
    """Tell whether one resource is durably out and has had its time to empty."""
    vm = next((each for each in draft.subjects if fold(each.name) == fold(name)), None)
    entry = draft.durable.entry(name)
    inside = draft.inside(vm) if vm else ()
    if entry is None or entry.restored_at is not None:
        hidden = vm is not None and draft.unseen(vm)
        return not inside and not hidden and _may_ignore(draft, event, name)
    if inside or entry.out_at is None or entry.restoring_at or draft.under_way(entry.memberships):
        return False  # a restore that is still on its way would put the VM back
    drained_at = entry.out_at + timedelta(seconds=draft.policy.connection_drain_s)
    if event.not_before is not None:
        latest = event.not_before - timedelta(seconds=ACKNOWLEDGE_BEFORE_S)
        drained_at = min(drained_at, latest)
    draft.wakes.append(drained_at)
    return drained_at <= draft.now


def _may_ignore(draft: Draft, event: ScheduledEvent, name: str) -> bool:
    """A resource in no managed pool: nothing to drain for it, if the operator says so."""
    age_s = draft.age_s(draft.observed.inventory_at)
    again_s = draft.again_s(event.event_id, Reason.UNMANAGED_RESOURCE, first_s=STRANGER_S)
    # Then the planner reads the inventory again; the pass after knows.
    unsure = draft.inventory.peer(name) is None and age_s >= again_s
    if draft.policy.acknowledge_unmanaged:
        return not unsure and draft.refresh_pools()
    if unsure and draft.held_since(event.event_id, Reason.UNMANAGED_RESOURCE) is None:
        return False
    draft.hold(
        event.event_id,
        Reason.UNMANAGED_RESOURCE,
        f"event {event.event_id} names {name}, which is in no managed pool: not acknowledged; "
        "set acknowledge_unmanaged = true in [policy] if that is right",
    )
    return False
