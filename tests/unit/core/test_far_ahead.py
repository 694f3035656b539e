"""Events that are announced days ahead: the window, when a drain begins, and what keeps out."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from controller.core.events import EventSource, EventStatus, ScheduledEvent
from controller.core.far_ahead import DailyWindow, FarAhead
from controller.core.policy import EventAction, Policy
from tests.support.policies import make_event_policy, make_policy

MIDNIGHT = datetime(2030, 1, 5, tzinfo=UTC)
NIGHT = DailyWindow(start_min=120, end_min=240)
OVER_MIDNIGHT = DailyWindow(start_min=1380, end_min=60)
NOT_BEFORE = MIDNIGHT + timedelta(days=7)


def at(hours: float) -> datetime:
    return MIDNIGHT + timedelta(hours=hours)


def event(**changes: Any) -> ScheduledEvent:
    values: dict[str, Any] = {
        "event_id": "E",
        "event_type": "Redeploy",
        "status": EventStatus.SCHEDULED,
        "resources": ("web-1",),
        "not_before": NOT_BEFORE,
        "source": EventSource.PLATFORM,
    }
    return ScheduledEvent(**{**values, **changes})


def policy(far_ahead: FarAhead = FarAhead.WAIT, window: DailyWindow | None = None) -> Policy:
    return make_policy(pools={}, far_ahead=far_ahead, far_ahead_window=window)


@pytest.mark.parametrize(
    ("window", "hours", "inside", "opens"),
    [
        (NIGHT, 1.999, False, 2),
        (NIGHT, 2, True, 26),
        (NIGHT, 3.999, True, 26),
        (NIGHT, 4, False, 26),
        (NIGHT, 23, False, 26),
        (OVER_MIDNIGHT, 22.999, False, 23),
        (OVER_MIDNIGHT, 23, True, 47),
        (OVER_MIDNIGHT, 24.5, True, 47),
        (OVER_MIDNIGHT, 25, False, 47),
    ],
)
def test_the_daily_window(window: DailyWindow, hours: float, inside: bool, opens: float) -> None:
    """It contains its start and not its end, every day, also over midnight, in UTC."""
    moment = at(hours)
    assert window.contains(moment) is inside
    assert window.next_opening(moment) == at(opens)
    elsewhere = moment.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert window.contains(elsewhere) is inside
    assert window.next_opening(elsewhere) == at(opens)


@pytest.mark.parametrize(
    ("chosen", "window", "hours", "begins"),
    [
        (FarAhead.WAIT, None, 0, NOT_BEFORE - timedelta(minutes=15)),
        (FarAhead.WAIT, NIGHT, 3, NOT_BEFORE - timedelta(minutes=15)),
        (FarAhead.DRAIN, None, 0, None),
        (FarAhead.WINDOW, NIGHT, 0, at(2)),
        (FarAhead.WINDOW, NIGHT, 3, None),
        (FarAhead.WINDOW, NIGHT, 4, at(26)),
        (FarAhead.WINDOW, NIGHT, 7 * 24 - 12, NOT_BEFORE - timedelta(minutes=15)),
    ],
)
def test_when_a_drain_begins(
    chosen: FarAhead, window: DailyWindow | None, hours: float, begins: datetime | None
) -> None:
    """At the lead time, at once, or in the next window if that is earlier; None means at once."""
    rules, now = policy(chosen, window), at(hours)
    assert rules.drain_at(event(), now) == begins
    assert rules.is_due(event(), now) is (begins is None)


@pytest.mark.parametrize("chosen", FarAhead)
def test_events_without_a_lead_time_never_wait(chosen: FarAhead) -> None:
    """User events and those that have started are due at once, whatever the choice."""
    rules = policy(chosen, NIGHT if chosen is FarAhead.WINDOW else None)
    for changes in ({"source": EventSource.USER}, {"status": EventStatus.STARTED}):
        assert rules.drain_at(event(**changes), at(0)) is None


@pytest.mark.parametrize(
    ("ahead_s", "changes", "keeps"),
    [
        (900 + 3600, {}, True),
        (900 + 3601, {}, False),
        (10, {}, True),
        (-10, {}, True),
        (900 + 3601, {"status": EventStatus.UNKNOWN}, True),
        (900 + 3601, {"source": EventSource.USER}, True),
        (10, {"event_type": "Freeze", "duration_s": 1}, False),
        (10, {"event_type": "Freeze", "duration_s": 1, "status": EventStatus.UNKNOWN}, False),
    ],
)
def test_what_keeps_a_vm_out(ahead_s: float, changes: dict[str, Any], keeps: bool) -> None:
    """S6: an event that policy acts on, unless its drain begins more than an hour later."""
    now = NOT_BEFORE - timedelta(seconds=ahead_s)
    assert policy().keeps_out(event(**changes), now) is keeps


def test_a_choice_to_drain_at_once_keeps_out() -> None:
    """With `drain` and inside the window the drain begins now, so nothing returns before it."""
    assert policy(FarAhead.DRAIN).keeps_out(event(), at(0))
    night = policy(FarAhead.WINDOW, NIGHT)
    assert [night.keeps_out(event(), at(hours)) for hours in (0.9, 1, 3, 4)] == [
        False,
        True,
        True,
        False,
    ]


def test_an_ignored_type_keeps_nothing_out() -> None:
    """What policy ignores is no reason to stay out."""
    ignore = make_event_policy(action=EventAction.IGNORE)
    rules = make_policy(pools={}, events={"Redeploy": ignore})
    assert not rules.keeps_out(event(status=EventStatus.STARTED), at(0))
