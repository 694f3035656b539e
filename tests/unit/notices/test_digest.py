"""The digest: when it is due, and what it says."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from controller.core.event_record import EventVerdict, Verdict
from controller.core.ledger import Ledger
from controller.core.notices.digest import (
    DAYS_KEPT,
    MAX_LISTED,
    DayOfPolls,
    PollCounts,
    Schedule,
    digests,
)
from controller.storage.ledger_json import decode_ledger, encode_ledger
from controller.storage.notices_json import load_polls, polls_field

MONDAY = datetime(2026, 11, 30, 8, tzinfo=UTC)
DAILY, WEEKLY = Schedule(hour=8), Schedule(hour=8, weekday=0)


@pytest.mark.parametrize(
    ("now", "daily", "weekly"),
    [
        (MONDAY, MONDAY, MONDAY),
        (MONDAY - timedelta(seconds=1), MONDAY - timedelta(days=1), MONDAY - timedelta(days=7)),
        (MONDAY + timedelta(hours=5), MONDAY, MONDAY),
        (MONDAY + timedelta(days=6, hours=23), MONDAY + timedelta(days=6), MONDAY),
        (MONDAY + timedelta(days=7), MONDAY + timedelta(days=7), MONDAY + timedelta(days=7)),
    ],
)
def test_when_a_digest_was_last_due(now: datetime, daily: datetime, weekly: datetime) -> None:
    """At the hour of every day, or of one day of the week, in UTC."""
    assert DAILY.last_due(now) == daily
    assert WEEKLY.last_due(now) == weekly
    assert DAILY.name != WEEKLY.name


def verdict(kind: str, *, before: timedelta, vm: str = "web-2") -> EventVerdict:
    return EventVerdict(
        at=MONDAY - before,
        vm=vm,
        event_id="E-1",
        event_type="Reboot",
        verdict=kind,
        why="the floor" if kind == Verdict.HIT_IN_ROTATION else "",
    )


def polls(**days: int) -> PollCounts:
    counted = PollCounts()
    for day, number in days.items():
        at = datetime.fromisoformat(day.removeprefix("d").replace("_", "-")).replace(tzinfo=UTC)
        for _ in range(number):
            counted = counted.adding(at, succeeded=True)
        counted = counted.adding(at, succeeded=False)
    return counted


def test_what_a_digest_says() -> None:
    """Every verdict of the period is counted, the misses are listed, the polls summed up."""
    ledger = Ledger(
        verdicts=(
            verdict(Verdict.LATE, before=timedelta(days=8)),
            verdict(Verdict.DRAINED, before=timedelta(days=7)),
            verdict(Verdict.DRAINED, before=timedelta(days=2)),
            verdict(Verdict.HIT_IN_ROTATION, before=timedelta(hours=1)),
            replace(verdict(Verdict.LATE, before=timedelta(hours=1)), event_id="test-1"),
            verdict("from_the_future", before=timedelta(hours=1)),
            verdict(Verdict.LATE, before=timedelta()),
        )
    )
    counted = polls(d2026_11_22=1, d2026_11_23=2, d2026_11_29=3, d2026_11_30=4)
    [found] = digests([WEEKLY, WEEKLY], ledger, counted, MONDAY)
    assert (found.kind.value, found.schedule) == ("digest", WEEKLY.name)
    assert found.text.splitlines() == [
        "2026-11-23 08:00:00 UTC to 2026-11-30 08:00:00 UTC: "
        "events for each VM: 2 drained, 1 hit in rotation, 1 from the future",
        "2026-11-30 07:00:00 UTC web-2: Reboot: hit in rotation: the floor",
        "polls of scheduled events from 2026-11-23 to 2026-11-29: 5 succeeded, 2 failed",
    ]


def test_a_quiet_day() -> None:
    """Without events the digest says so, and how many polls prove it."""
    [found] = digests([DAILY], Ledger(), polls(d2026_11_29=3), MONDAY)
    assert found.text.splitlines() == [
        "2026-11-29 08:00:00 UTC to 2026-11-30 08:00:00 UTC: no scheduled event",
        "polls of scheduled events on 2026-11-29: 3 succeeded, 1 failed",
    ]
    [new] = digests([DAILY], Ledger(), PollCounts(), MONDAY)
    assert new.text.endswith("polls of scheduled events on 2026-11-29: not counted yet")


def test_many_misses_are_not_all_listed() -> None:
    """A message has its limits: the newest are listed, the others counted."""
    missed = tuple(
        verdict(Verdict.LATE, before=timedelta(hours=1), vm=f"web-{n}") for n in range(13)
    )
    [found] = digests([DAILY], Ledger(verdicts=missed), PollCounts(), MONDAY)
    lines = found.text.splitlines()
    assert len(lines) == MAX_LISTED + 3
    assert "web-12" in lines[MAX_LISTED]
    assert lines[MAX_LISTED + 1] == "and 3 more"


def test_the_id_is_that_of_the_period() -> None:
    """Every leader derives the same id, all through the period, and another one in the next."""
    at = (MONDAY, MONDAY + timedelta(days=6), MONDAY + timedelta(days=7))
    first, again, later = (digests([WEEKLY], Ledger(), PollCounts(), now)[0].id for now in at)
    assert first == again != later
    assert digests([DAILY], Ledger(), PollCounts(), MONDAY)[0].id != first


def test_polls_are_kept_in_the_ledger() -> None:
    """The next leader continues the counts, of a bounded number of days."""
    counted = PollCounts()
    for day in range(20):
        counted = counted.adding(MONDAY + timedelta(days=day), succeeded=day % 2 == 0)
    assert len(counted.days) == DAYS_KEPT
    ledger = decode_ledger(encode_ledger(Ledger(extra=polls_field(counted))))
    assert load_polls(ledger) == counted
    last = date(2026, 12, 19)
    assert load_polls(ledger).days[last] == DayOfPolls(day=last, failed=1)


@pytest.mark.parametrize(
    "stored", ["no", [1], {"2026-11-29": 1}, {"x": [1, 2]}, {"2026-11-29": [-1, 2]}, None]
)
def test_counts_that_cannot_be_read_begin_again(stored: object) -> None:
    """Whatever the blob holds there, a digest is only a digest."""
    body = json.loads(encode_ledger(Ledger())) | {"polls": stored}
    assert load_polls(decode_ledger(json.dumps(body).encode())) == PollCounts()
