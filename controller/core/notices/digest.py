"""The digest: what was handled in the last day or week, so that silence means something.

A digest is due once in each period, at an hour of the day in UTC. It is a notice like any other:
its id names the end of the period, so a new leader neither repeats it nor loses it, and a leader
that is elected later sends it late.

Polls are counted for each UTC day. The counts are in the ledger, and written about once an hour: a
leader that dies takes at most that much along.

Pure: standard library only, no I/O, no clock.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType

from controller.core.event_record import EventVerdict, Verdict, verdict_text
from controller.core.ledger import Ledger
from controller.core.notices.notice import Notice, NoticeKind, notice_id, utc_text
from controller.core.rehearsals import is_test

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
DAYS_KEPT = 9
"""For how many days polls are counted: a week, the day of the digest, and one more."""
MAX_LISTED = 10
"""How many late or hit VMs a digest lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When digests are due."""

    hour: int
    """Hour of the day, in UTC."""
    weekday: int | None = None
    """0 is Monday; None for every day."""

    @property
    def days(self) -> int:
        """The length of a period in days."""
        return 1 if self.weekday is None else 7

    @property
    def name(self) -> str:
        """What distinguishes this schedule from others."""
        day = "daily" if self.weekday is None else WEEKDAYS[self.weekday]
        return f"{day} {self.hour:02}"

    def last_due(self, now: datetime) -> datetime:
        """Return when a digest was last due."""
        today = now.astimezone(UTC).replace(hour=self.hour, minute=0, second=0, microsecond=0)
        back = 0 if self.weekday is None else (today.weekday() - self.weekday) % 7
        due = today - timedelta(days=back)
        return due if due <= now else due - timedelta(days=self.days)


@dataclass(frozen=True, slots=True, kw_only=True)
class DayOfPolls:
    """The polls of scheduled events by the leaders of one UTC day."""

    day: date
    succeeded: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PollCounts:
    """The polls of the last days."""

    days: Mapping[date, DayOfPolls] = field(default_factory=lambda: MappingProxyType({}))

    def adding(self, now: datetime, *, succeeded: bool) -> "PollCounts":
        """Return the counts after one more poll."""
        today = now.astimezone(UTC).date()
        known = self.days.get(today, DayOfPolls(day=today))
        counted = replace(
            known,
            succeeded=known.succeeded + succeeded,
            failed=known.failed + (not succeeded),
        )
        days = sorted({**self.days, today: counted}.items())[-DAYS_KEPT:]
        return replace(self, days=MappingProxyType(dict(days)))

    def total(self, first: date, last: date) -> DayOfPolls:
        """Return the polls from one day to another, both included."""
        found = [each for each in self.days.values() if first <= each.day <= last]
        return DayOfPolls(
            day=last,
            succeeded=sum(each.succeeded for each in found),
            failed=sum(each.failed for each in found),
        )


def digests(
    schedules: Iterable[Schedule], ledger: Ledger, polls: PollCounts, now: datetime
) -> tuple[Notice, ...]:
    """Return the digest that was last due by each schedule, sent or not."""
    return tuple(_digest(each, ledger, polls, now) for each in dict.fromkeys(schedules))


def _digest(schedule: Schedule, ledger: Ledger, polls: PollCounts, now: datetime) -> Notice:
    due = schedule.last_due(now)
    since = due - timedelta(days=schedule.days)
    real = (each for each in ledger.verdicts if not is_test(each.event_id))
    handled = [each for each in real if since <= each.at < due]
    first, last = since.date(), due.date() - timedelta(days=1)
    counted = polls.total(first, last)
    days = f"on {last}" if first == last else f"from {first} to {last}"
    polled = f"{counted.succeeded} succeeded, {counted.failed} failed"
    if not (counted.succeeded or counted.failed):
        polled = "not counted yet"
    lines = (
        f"{utc_text(since)} to {utc_text(due)}: {_events_text(handled)}",
        *_missed_text(handled),
        f"polls of scheduled events {days}: {polled}",
    )
    return Notice(
        kind=NoticeKind.DIGEST,
        id=notice_id(NoticeKind.DIGEST, schedule.name, due.isoformat()),
        at=now,
        text="\n".join(lines),
        schedule=schedule.name,
    )


def _events_text(handled: Iterable[EventVerdict]) -> str:
    counts = Counter(each.verdict for each in handled)
    if not counts:
        return "no scheduled event"
    order = [*(each for each in Verdict if each in counts), *(counts.keys() - set(Verdict))]
    return f"events for each VM: {', '.join(f'{counts[each]} {_words(each)}' for each in order)}"


def _missed_text(handled: Iterable[EventVerdict]) -> tuple[str, ...]:
    missed = [each for each in handled if each.verdict in {Verdict.LATE, Verdict.HIT_IN_ROTATION}]
    listed = tuple(
        f"{utc_text(each.at)} {each.vm}: {each.event_type}: {verdict_text(each)}"
        for each in missed[-MAX_LISTED:]
    )
    more = len(missed) - len(listed)
    return (*listed, f"and {more} more") if more else listed


def _words(verdict: str) -> str:
    return verdict.replace("_", " ")
