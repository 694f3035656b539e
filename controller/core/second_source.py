"""What Azure Resource Graph reports about scheduled events: their end, and whether agents see them.

The metadata service shows the end of an event and its cancellation alike: the event is absent.
Resource Graph keeps a row with `Completed` or `Canceled` (Microsoft docs, Scheduled Events in Azure
Resource Graph, preview, 05/01/2026). How late a row follows is not documented.

The metadata service decides which events there are. What stands here reaches people only: the
verdict, the history, a hold that asks them to look. The planner does not get it, so no row can make
a VM leave or return, nor an acknowledgement leave earlier (laws S1, S6).

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from types import MappingProxyType

from controller.core.azure_names import fold
from controller.core.drain_history import Step
from controller.core.event_progress import SeenEvent
from controller.core.event_record import EventVerdict, event_label
from controller.core.events import EventDocument
from controller.core.ledger import MAX_TRANSITIONS, Hold, Ledger
from controller.core.planning.actions import HoldReason, Plan
from controller.core.rehearsals import is_test

UNSEEN_AFTER_S = 300.0
"""How long Resource Graph announces an event that no agent has read until that is an alarm."""
UNPUBLISHED_AFTER_S = 900.0
"""How long agents read an event that Resource Graph lacks until that is worth a line."""
STALE_AFTER_S = 3600.0
"""A row that is still `Scheduled` so long after its NotBefore is not kept up: it proves nothing."""
ENDED_AWAITED_S = 900.0
"""How long after an event has left the document its end is asked for as often as before."""
MAX_ROWS = 500
"""Of the events in a reply, no more are kept."""
MAX_HELD = 10
"""Of the events that no agent reads, no more are reported."""
MAX_NAMED = 5
"""Of the VMs of such an event, no more are named."""
MAX_ASKED = 50
"""About how many events that are over one query asks."""
REASON = HoldReason.EVENT_UNSEEN.value


class GraphStatus(StrEnum):
    """The status of an event in Resource Graph."""

    SCHEDULED = "Scheduled"
    STARTED = "Started"
    COMPLETED = "Completed"
    CANCELED = "Canceled"
    UNKNOWN = "Unknown"
    """A status that Azure does not document, or rows that contradict each other."""


ENDS = frozenset({GraphStatus.COMPLETED, GraphStatus.CANCELED})


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphEvent:
    """One row of `maintenanceresources`, or several that are about the same event."""

    event_id: str
    status: GraphStatus
    event_type: str = ""
    vms: tuple[str, ...] = ()
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphReply:
    """What one query returned, all pages of it."""

    rows: tuple[GraphEvent, ...] = ()
    set_aside: tuple[str, ...] = ()
    """Why rows cannot be used."""


def by_id(rows: Iterable[GraphEvent]) -> dict[str, GraphEvent]:
    """Return the events by folded id. Azure may write one row for each VM of an event.

    Rows that state different statuses prove no status.
    """
    found: dict[str, GraphEvent] = {}
    for row in rows:
        key = fold(row.event_id)
        known = found.get(key)
        if known is None:
            if len(found) < MAX_ROWS:
                found[key] = row
            continue
        found[key] = replace(
            known,
            status=known.status if known.status is row.status else GraphStatus.UNKNOWN,
            vms=tuple(dict.fromkeys((*known.vms, *row.vms))),
            not_before=known.not_before or row.not_before,
        )
    return found


def _nothing() -> Mapping[str, GraphEvent]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondSource:
    """What the leader knows from Resource Graph."""

    at: datetime | None = None
    """When the last query was answered; None before the first one."""
    problem: str = ""
    """Why the last query failed; empty if it did not."""
    events: Mapping[str, GraphEvent] = field(default_factory=_nothing)
    """By folded id, of the last good reply."""
    announced_since: Mapping[str, datetime] = field(default_factory=dict[str, datetime])
    """Since when the replies announce an event, by folded id."""
    set_aside: tuple[str, ...] = ()

    def answered(self, reply: GraphReply, now: datetime) -> "SecondSource":
        """Return what is known after a good reply."""
        events = by_id(reply.rows)
        known = self.announced_since
        return SecondSource(
            at=now,
            events=MappingProxyType(events),
            announced_since={
                key: known.get(key, now)
                for key, event in events.items()
                if _is_announced(event, now, before=key in known)
            },
            set_aside=reply.set_aside,
        )

    def failed(self, problem: str) -> "SecondSource":
        """Return what is known after a failed query: what was known before, and why."""
        return replace(self, problem=problem)


def _is_announced(event: GraphEvent, now: datetime, *, before: bool) -> bool:
    """Return whether a row announces an event; one that is seen only as started may be old."""
    if event.status is GraphStatus.STARTED:
        return before
    at = event.not_before
    stale = at is not None and now - at > timedelta(seconds=STALE_AFTER_S)
    return event.status is GraphStatus.SCHEDULED and not stale


# --- the end of events ---


def ends(known: SecondSource, document: EventDocument | None) -> dict[str, GraphStatus]:
    """Return how events have ended, by folded id, of those that the metadata service lacks.

    An event in the document has not ended, whatever Resource Graph reports. Without a document no
    event has.
    """
    if document is None or document.set_aside:
        return {}
    present = {fold(each.event_id) for each in document.events}
    return {
        key: event.status
        for key, event in known.events.items()
        if event.status in ENDS and key not in present
    }


def _with_ends(ledger: Ledger, found: Mapping[str, GraphStatus], now: datetime) -> Ledger:
    """Return the ledger with the ends on the verdicts that lack them, noted once per event."""
    noted = {fold(each.event_id) for each in ledger.verdicts if each.end}
    lines: dict[str, EventVerdict] = {}
    verdicts: list[EventVerdict] = []
    for each in ledger.verdicts:
        key = fold(each.event_id)
        status = found.get(key)
        if status is None or each.end:
            verdicts.append(each)
            continue
        verdicts.append(replace(each, end=status.value))
        if key not in noted:
            lines.setdefault(key, each)
    if all(new is old for new, old in zip(verdicts, ledger.verdicts, strict=True)):
        return ledger
    changed = replace(ledger, verdicts=tuple(verdicts))
    for key, verdict in lines.items():
        vms = ", ".join(each.vm for each in ledger.verdicts if fold(each.event_id) == key)
        detail = f"{event_label(verdict)}: {found[key].value}"
        changed = changed.noting(at=now, vm=vms, step=Step.END_REPORTED, detail=detail)
    return replace(changed, transitions=changed.transitions[-MAX_TRANSITIONS:])


def asked_about(ledger: Ledger, document: EventDocument | None) -> tuple[str, ...]:
    """Return the ids of the events about whose end a query asks, newest first."""
    present = {fold(each.event_id): each.event_id for each in (document.events if document else ())}
    judged = (each.event_id for each in reversed(ledger.verdicts) if not each.end)
    found = (*present.values(), *(each.event_id for each in ledger.events), *judged)
    asked = {fold(each): each for each in found if not is_test(each)}
    return tuple(asked.values())[:MAX_ASKED]


def is_busy(ledger: Ledger, document: EventDocument | None, now: datetime) -> bool:
    """Return whether an event is announced, or has left so lately that its end may follow."""
    since = now - timedelta(seconds=ENDED_AWAITED_S)
    lately = any(
        each.at >= since and not each.end and not is_test(each.event_id) for each in ledger.verdicts
    )
    announced = [each.event_id for each in (document.events if document else ())]
    announced += [each.event_id for each in ledger.events]
    return lately or not all(map(is_test, announced))


# --- disagreement ---


def unseen(
    known: SecondSource,
    ledger: Ledger,
    document: EventDocument | None,
    seen: Iterable[SeenEvent],
    now: datetime,
) -> Iterator[GraphEvent]:
    """Yield the events that Resource Graph announces and that no agent has ever read.

    Agents have read what this one has seen and what the ledger knows of: such an event has ended
    meanwhile, and its row follows late. What the ledger holds already counts at once.
    """
    if document is not None and document.set_aside:
        return  # an event that cannot be read may be any event, and is reported as such
    read = {fold(each.event.event_id) for each in seen}
    read |= {fold(each.event_id) for each in ledger.events}
    read |= {fold(each.event_id) for each in ledger.verdicts}
    read |= {fold(each.event_id) for each in (document.events if document else ())}
    held = {fold(each.subject) for each in ledger.holds if each.reason == REASON}
    limit = now - timedelta(seconds=UNSEEN_AFTER_S)
    for key, since in sorted(known.announced_since.items()):
        if key not in read and (key in held or since <= limit):
            yield known.events[key]


def unpublished(
    known: SecondSource, document: EventDocument | None, seen: Iterable[SeenEvent], now: datetime
) -> tuple[str, ...]:
    """Return the ids of the events that agents have read for long and that Resource Graph lacks."""
    if known.at is None or known.problem or document is None:
        return ()
    limit = now - timedelta(seconds=UNPUBLISHED_AFTER_S)
    since = {fold(each.event.event_id): each.first_seen_at for each in seen}
    found: list[str] = []
    for event in document.events:
        first = since.get(fold(event.event_id))
        old = first is not None and first <= limit and first <= known.at
        if old and not is_test(event.event_id) and fold(event.event_id) not in known.events:
            found.append(event.event_id)
    return tuple(found)


def early_ends(known: SecondSource, document: EventDocument | None) -> tuple[str, ...]:
    """Return the ids of events that Resource Graph calls ended and that are in the document."""
    return tuple(
        event.event_id
        for event in (document.events if document else ())
        if fold(event.event_id) in known.events
        and known.events[fold(event.event_id)].status in ENDS
    )


def _holds(
    known: SecondSource, events: Iterable[GraphEvent], durable: Ledger, now: datetime
) -> tuple[Hold, ...]:
    """Return the holds about unseen events; a new leader keeps them until it has asked."""
    before = tuple(each for each in durable.holds if each.reason == REASON)
    if known.at is None:
        return before
    since = {fold(each.subject): each for each in before}
    return tuple(
        since.get(fold(event.event_id))
        or Hold(subject=event.event_id, reason=REASON, message=_unseen_text(event), since=now)
        for event in islice(events, MAX_HELD)
    )


def _unseen_text(event: GraphEvent) -> str:
    names = ", ".join(event.vms[:MAX_NAMED]) or "VMs of the set"
    begins = f", not before {event.not_before:%Y-%m-%d %H:%M:%S} UTC" if event.not_before else ""
    return (
        f"Resource Graph announces {event.event_type or 'an event'} of {names}{begins}, and no "
        "agent reads it from its metadata service: the set may be blind, and these VMs are not "
        "drained for it; compare the scheduled events that a VM of the set reads"
    )


# --- the pass ---


def with_second_source(
    planned: Plan,
    durable: Ledger,
    known: SecondSource | None,
    document: EventDocument | None,
    now: datetime,
    *,
    seen: Iterable[SeenEvent],
) -> Plan:
    """Return a plan that reports what Resource Graph adds. Its actions are the planner's own.

    Args:
        planned: what the planner decided, verdicts included.
        durable: the ledger it was planned from.
        known: what Resource Graph has answered; None if it is not asked.
        document: the newest event document.
        now: wall clock, corrected.
        seen: the events that this agent has read.
    """
    held = any(each.reason == REASON for each in (*planned.holds, *durable.holds))
    if known is None and not held:
        return planned
    ledger = durable if planned.ledger is None else planned.ledger
    wanted, found = ledger, tuple[Hold, ...]()
    if known is not None:
        events = unseen(known, durable, document, seen, now)
        found = _holds(known, events, durable, now)
        wanted = _with_ends(ledger, ends(known, document), now)
    holds = planned.holds
    if found or held:
        others = (hold for hold in planned.holds if hold.reason != REASON)
        holds = tuple(sorted((*others, *found), key=lambda hold: (hold.subject, hold.reason)))
        wanted = replace(wanted, holds=holds)
    if wanted == ledger and holds == planned.holds:
        return planned
    return replace(planned, ledger=None if wanted == durable else wanted, holds=holds)
