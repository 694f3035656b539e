"""The scheduled events as the ledger records them, for a reader that has no metadata service.

The leader writes every event of the document into the ledger in its first pass. What it does not
record is unknown here: the source, and how long the interruption lasts.

Pure: no I/O, no clock.
"""

from controller.core.event_progress import SeenEvent
from controller.core.event_record import WatchedEvent
from controller.core.events import EventDocument, EventStatus, ScheduledEvent
from controller.core.ledger import Ledger
from controller.core.rehearsals import is_test


def recorded_document(ledger: Ledger) -> EventDocument:
    """Return the events that require a drain, as a document to plan from."""
    present = [each for each in ledger.events if each.gone_at is None and not each.ignored]
    return EventDocument(incarnation=None, events=tuple(map(_event, present)))


def recorded_events(ledger: Ledger) -> tuple[SeenEvent, ...]:
    """Return every event that the ledger watches, and when the agents saw it."""
    return tuple(
        SeenEvent(
            event=_event(each),
            first_seen_at=each.first_seen_at,
            last_seen_at=each.gone_at or each.first_seen_at,
            started_at=each.started_at,
            gone=each.gone_at is not None,
            gone_at=each.gone_at,
        )
        for each in ledger.events
    )


def _event(watched: WatchedEvent) -> ScheduledEvent:
    started = watched.started_at is not None
    return ScheduledEvent(
        event_id=watched.event_id,
        event_type=watched.event_type,
        status=EventStatus.STARTED if started else EventStatus.SCHEDULED,
        resources=tuple(each.vm for each in watched.vms),
        not_before=watched.not_before,
        acknowledgeable=not watched.not_acknowledgeable and not is_test(watched.event_id),
    )
