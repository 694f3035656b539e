"""`lb-drain hold`: whether a hold lasts until its event begins."""

from datetime import UTC, datetime, timedelta

import pytest

from controller.core.event_record import WatchedEvent
from controller.operator.controls import acknowledged_after

UNTIL = datetime(2030, 1, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("after_s", "text"),
    [
        (-60, ""),
        (0, ""),
        (None, ""),
        (
            3600,
            "Its NotBefore is later, 2030-01-08 01:00 UTC: after the hold the leader "
            "acknowledges it as policy requires.",
        ),
    ],
)
def test_an_event_that_begins_after_its_hold(after_s: float | None, text: str) -> None:
    """A hold lasts 7 days at most, and an event of degraded hardware can be announced longer."""
    event = WatchedEvent(
        event_id="E-1",
        event_type="Redeploy",
        first_seen_at=UNTIL - timedelta(days=7),
        not_before=None if after_s is None else UNTIL + timedelta(seconds=after_s),
    )
    assert acknowledged_after(event, UNTIL) == text
