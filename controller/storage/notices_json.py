"""Which notices were delivered, and how many polls succeeded, as the ledger's blob stores that.

Both are one more field of the ledger. Agents that do not know it carry it along in `Ledger.extra`.
"""

from dataclasses import replace
from datetime import date
from types import MappingProxyType

from pydantic import TypeAdapter, ValidationError

from controller.core.ledger import Ledger
from controller.core.notices.digest import DAYS_KEPT, DayOfPolls, PollCounts
from controller.core.notices.notice import DeliveredNotices, KnownEvent
from controller.storage.stored_json import Count, Flag, Instant, Stored, Text, written

FIELD = "told"
"""The stored name of the delivered notices, as earlier versions wrote it: it never changes."""
POLLS_FIELD = "polls"
_DAYS = TypeAdapter(dict[date, tuple[Count, Count]])


class StoredKnownEvent(Stored):
    """An event that is, or was, announced."""

    value_type = KnownEvent

    event_id: Text
    event_type: Text
    vms: tuple[Text, ...]
    not_before: Instant | None
    begun: Flag


class StoredNotices(Stored):
    """Ids of notices and the events that are followed."""

    value_type = DeliveredNotices

    ids: tuple[Text, ...]
    events: tuple[StoredKnownEvent, ...]


def load_polls(ledger: Ledger) -> PollCounts:
    """Return the polls that the leaders counted; none if the ledger has no valid record of that."""
    try:
        stored = _DAYS.validate_python(ledger.extra.get(POLLS_FIELD, {}))
    except ValidationError:
        return PollCounts()
    days = {
        day: DayOfPolls(day=day, succeeded=succeeded, failed=failed)
        for day, (succeeded, failed) in sorted(stored.items())[-DAYS_KEPT:]
    }
    return PollCounts(days=MappingProxyType(days))


def polls_field(polls: PollCounts) -> dict[str, dict[str, list[int]]]:
    """Return the field of the ledger that keeps these counts: both numbers by day."""
    days = polls.days.values()
    return {POLLS_FIELD: {f"{each.day}": [each.succeeded, each.failed] for each in days}}


def load_delivered(ledger: Ledger) -> DeliveredNotices | None:
    """Return which notices were delivered; None if the ledger has no valid record of that.

    Without a record no notice about the past is sent: a set that starts to notify must not begin
    with old notices.
    """
    try:
        delivered: DeliveredNotices = StoredNotices.value_in(ledger.extra.get(FIELD))
    except ValidationError:
        return None
    return delivered


def with_delivered(ledger: Ledger, delivered: DeliveredNotices) -> Ledger:
    """Return the ledger with the delivered notices; the same ledger if nothing changes."""
    value = written(delivered)
    if ledger.extra.get(FIELD) == value:
        return ledger
    return replace(ledger, extra={**ledger.extra, FIELD: value})
