"""Watched events and verdicts as the ledger's blob stores them; see `stored_json` for the rules."""

from controller.core.event_record import EventVerdict, WatchedEvent, WatchedVm
from controller.storage.stored_json import Instant, LongText, Stored, Text


class StoredWatchedVm(Stored):
    """One VM of a watched event."""

    value_type = WatchedVm

    vm: LongText
    place: LongText = ""
    out_at: Instant | None = None
    why: LongText = ""


class StoredWatchedEvent(Stored):
    """One event that is announced, or that lacks a verdict."""

    value_type = WatchedEvent

    event_id: Text
    event_type: LongText
    first_seen_at: Instant
    watched_at: Instant | None = None
    not_before: Instant | None = None
    started_at: Instant | None = None
    gone_at: Instant | None = None
    ignored: LongText = ""
    not_acknowledgeable: LongText = ""
    vms: tuple[StoredWatchedVm, ...] = ()


class StoredVerdict(Stored):
    """What became of one event for one VM."""

    value_type = EventVerdict

    at: Instant
    vm: LongText
    event_id: Text
    event_type: LongText
    verdict: LongText
    not_before: Instant | None = None
    started_at: Instant | None = None
    out_at: Instant | None = None
    why: LongText = ""
    end: LongText = ""
