"""Delivered notices as the ledger's blob stores them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from controller.core.ledger import Ledger
from controller.core.notices.notice import DeliveredNotices, KnownEvent
from controller.storage.ledger_json import decode_ledger, encode_ledger
from controller.storage.notices_json import FIELD, load_delivered, with_delivered

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """Return an instant of the test."""
    return T0 + timedelta(seconds=seconds)


def elsewhere(instant: datetime) -> datetime:
    """Return the same instant in another time zone."""
    return instant.astimezone(timezone(timedelta(hours=2)))


def test_round_trip_in_the_ledger() -> None:
    """Ids and events are read as they were written, and writing them again changes nothing."""
    delivered = DeliveredNotices(
        ids=("a", "b"),
        events=(
            KnownEvent(event_id="E", event_type="Reboot", vms=("w",), not_before=at(1), begun=True),
            KnownEvent(event_id="F", event_type="Freeze", vms=(), not_before=None, begun=False),
        ),
    )
    ledger = decode_ledger(encode_ledger(with_delivered(Ledger(), delivered)))
    assert load_delivered(ledger) == delivered
    assert with_delivered(ledger, delivered) is ledger


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"ids": []},
        {"ids": [1], "events": []},
        {"ids": "abc", "events": []},
        {"ids": [], "events": [{}]},
        {
            "ids": [],
            "events": [
                {
                    "event_id": "E",
                    "event_type": "",
                    "vms": [],
                    "not_before": "2026-01-01T00:00:00",
                    "begun": False,
                }
            ],
        },
    ],
)
def test_a_record_that_is_not_valid(value: object) -> None:
    """A record of another form counts as missing, and is never an error."""
    assert load_delivered(Ledger(extra={FIELD: value})) is None
    assert load_delivered(Ledger()) is None


def test_the_stored_form() -> None:
    """The field is `told`, its instants are in UTC, and other fields stay unchanged."""
    known = KnownEvent(
        event_id="E", event_type="Reboot", vms=("w",), not_before=elsewhere(at(1)), begun=False
    )
    ledger = with_delivered(
        Ledger(extra={"newer": 1}), DeliveredNotices(ids=("a",), events=(known,))
    )
    assert ledger.extra == {
        "newer": 1,
        "told": {
            "ids": ["a"],
            "events": [
                {
                    "event_id": "E",
                    "event_type": "Reboot",
                    "vms": ["w"],
                    "not_before": "2026-01-05T12:00:01+00:00",
                    "begun": False,
                }
            ],
        },
    }


def test_instants_are_read_in_any_time_zone() -> None:
    """An instant in another time zone becomes the same instant in UTC."""
    fields = {"event_id": "E", "event_type": "", "vms": [], "begun": False}
    delivered = load_delivered(
        Ledger(
            extra={
                "told": {
                    "ids": [],
                    "events": [{**fields, "not_before": "2026-01-05T13:00:01+01:00"}],
                }
            }
        )
    )
    assert delivered is not None
    instant = delivered.events[0].not_before
    assert instant is not None
    assert instant.isoformat() == "2026-01-05T12:00:01+00:00"
