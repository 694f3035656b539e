"""What changed between two ledgers, for logs, metrics and traces.

Pure: standard library only, no I/O, no clock.
"""

from dataclasses import replace
from datetime import UTC, datetime

from controller.core.drain_history import Transition
from controller.core.drain_requests import DRAIN_REQUEST
from controller.core.event_record import EventVerdict, WatchedEvent, event_label
from controller.core.ledger import Entry, EventReference, Ledger
from controller.core.rehearsals import is_test

_NO_TIME = datetime.min.replace(tzinfo=UTC)


def new_transitions(before: Ledger, after: Ledger) -> tuple[Transition, ...]:
    """Return the transitions that the newer ledger added.

    The history grows only at the end, and loses only its first lines.
    """
    added: list[Transition] = []
    for line in reversed(after.transitions):
        if (line,) == before.transitions[-1:]:
            break
        added.append(line)
    return tuple(reversed(added))


def new_verdicts(before: Ledger, after: Ledger) -> tuple[EventVerdict, ...]:
    """Return the verdicts that the newer ledger added.

    An end that becomes known adds none, nor does an instant that is clamped. The last ones of
    before can be missing: verdicts are withdrawn.
    """
    latest: dict[EventVerdict, datetime] = {}
    for each in before.verdicts:
        latest[_timeless(each)] = max(each.at, latest.get(_timeless(each), each.at))

    def is_known(each: EventVerdict) -> bool:
        at = latest.get(_timeless(each))
        return at is not None and each.at <= at

    return tuple(replace(each, end="") for each in after.verdicts if not is_known(each))


def _timeless(verdict: EventVerdict) -> EventVerdict:
    """Return a verdict without what can change later: its end, and instants of a wrong clock."""
    return replace(verdict, at=_NO_TIME, started_at=None, out_at=None, end="")


def event_of(line: Transition, before: Ledger, after: Ledger) -> WatchedEvent | EventVerdict | None:
    """Return what either ledger knows of the event that a line of the history is about."""
    known: tuple[WatchedEvent | EventVerdict, ...] = (
        *after.events,
        *before.events,
        *after.verdicts,
    )
    return next((each for each in known if line.detail.startswith(event_label(each))), None)


def cause_of(entry: Entry | None) -> EventReference | None:
    """Return the most urgent event for which a VM is drained, or else the drain request.

    A rehearsal is the cause only of a drain that has no other one.
    """
    if entry is None or not entry.events:
        return None
    real = [each for each in entry.events if not is_test(each.event_id)] or entry.events
    announced = [each for each in real if each.event_type != DRAIN_REQUEST]
    return min(announced or real, key=lambda each: each.not_before or entry.recorded_at)
