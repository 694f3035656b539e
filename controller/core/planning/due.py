"""Whether an event wants a VM out now, and whether it keeps a VM out that is out (law S6).

An event because of which a VM was taken out counts until it is gone, however far ahead it is now:
it may have been acknowledged, and then starts at any moment. Its NotBefore can have been moved, or
the daily window can be over in which it was due.

Pure: standard library only, no I/O, no clock.
"""

from datetime import datetime

from controller.core.events import EventStatus, ScheduledEvent
from controller.core.ledger import Entry
from controller.core.planning.views import Views
from controller.core.policy import Policy


def is_due(event: ScheduledEvent, entry: Entry | None, policy: Policy, now: datetime) -> bool:
    """Return whether a VM with this entry has to be out now because of an event."""
    if policy.is_due(event, now):
        return True
    counts = event.status is not EventStatus.UNKNOWN and policy.impacting(event)
    return counts and entry is not None and not entry.over and entry.is_for(event.event_id)


def is_due_for_any(event: ScheduledEvent, views: Views) -> bool:
    """Return whether some VM of an event has to be out now because of it."""
    policy, now = views.policy, views.now
    entries = (views.entry(name) for name in event.resources)
    return policy.is_due(event, now) or any(is_due(event, each, policy, now) for each in entries)
