"""Whether an event wants a VM out now, and whether it keeps a VM out that is out (law S6).

An event because of which a VM was taken out counts until it is gone, however far ahead it is now:
it may have been acknowledged, and then starts at any moment. Its NotBefore can have been moved, or
the daily window can be over in which it was due.

Pure: standard library only, no I/O, no clock.
"""

from datetime import datetime

from controller.core.controls import Controls, Decision
from controller.core.events import EventStatus, ScheduledEvent
from controller.core.ledger import Entry
from controller.core.planning.views import Views
from controller.core.policy import Policy


def is_due(
    event: ScheduledEvent,
    entry: Entry | None,
    policy: Policy,
    now: datetime,
    *,
    released: bool = False,
) -> bool:
    """Return whether a VM with this entry has to be out now because of an event.

    A VM that is out stays out for an event that is released: Azure may start it, whatever its
    NotBefore.
    """
    if policy.is_due(event, now):
        return True
    counts = event.status is not EventStatus.UNKNOWN and policy.impacting(event)
    if not counts or entry is None or entry.over:
        return False
    return released or entry.is_for(event.event_id)


def due_of(
    events: tuple[ScheduledEvent, ...], entry: Entry | None, views: Views, controls: Controls
) -> tuple[ScheduledEvent, ...]:
    """Return the events that want a VM with this entry out now, in their order."""
    return tuple(
        each
        for each in events
        if is_due(
            each,
            entry,
            views.policy,
            views.now,
            released=is_released(each, views, controls),
        )
    )


def is_released(event: ScheduledEvent, views: Views, controls: Controls) -> bool:
    """Return whether an event was acknowledged, or an operator wants that."""
    control = controls.of_event(event.event_id)
    wanted = control is not None and control.decision == Decision.ACKNOWLEDGE
    sent = views.observed.acknowledged
    return wanted or views.durable.acknowledgement_of(event, sent) is not None


def is_due_for_any(event: ScheduledEvent, views: Views, policy: Policy) -> bool:
    """Return whether some VM of an event has to be out now because of it."""
    entries = (views.entry(name) for name in event.resources)
    return any(is_due(event, each, policy, views.now) for each in (None, *entries))
