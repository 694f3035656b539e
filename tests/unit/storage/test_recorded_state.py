"""State that version 563b12a wrote is read, and written back so that 563b12a can read it.

`tests/fixtures/563b12a` holds blobs that the code of that commit wrote: an entry in every state,
every step of the history, every reason of a hold, delivered notices, and in `*_newer_minor` fields
of a newer minor version at every level.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.core.drain_history import EVENT_STEPS, Step
from controller.errors import ContractViolation
from controller.storage.drain_requests_json import decode_requests, encode_requests
from controller.storage.ledger_json import decode_ledger, encode_ledger
from controller.storage.notices_json import load_delivered

RECORDED = Path(__file__).parents[2] / "fixtures" / "563b12a"

LATER = {
    Step.PUT_BACK,
    Step.MEMBERSHIP_LOST,
    Step.PLACE_EXISTS_AGAIN,
    Step.RECOVERED,
    Step.CLOSED,
    Step.OPENED,
    Step.PARTLY_RESTORED,
}
"""Steps that 563b12a does not know."""

Rewrite = Callable[[bytes], bytes]


def rewrite_ledger(body: bytes) -> bytes:
    """Read a ledger and write it back."""
    return encode_ledger(decode_ledger(body))


def rewrite_requests(body: bytes) -> bytes:
    """Read drain requests and write them back."""
    return encode_requests(decode_requests(body))


FILES: dict[str, Rewrite] = {
    "ledger.json": rewrite_ledger,
    "ledger_new.json": rewrite_ledger,
    "ledger_newer_minor.json": rewrite_ledger,
    "requests.json": rewrite_requests,
    "requests_newer_minor.json": rewrite_requests,
    "requests_without_roll.json": rewrite_requests,
}


def without_version(body: bytes) -> bytes:
    """Return a blob without the line that states its version."""
    return re.sub(rb'\n "version": "[0-9.]+",?', b"", body)


def test_every_recorded_file_is_tested() -> None:
    """A blob that is added to the folder is also read here."""
    assert {path.name for path in RECORDED.glob("*.json")} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_recorded_blob_is_written_back_unchanged(name: str) -> None:
    """Today's code reads the blob and writes the same bytes, newer fields included, but for the
    minor version."""
    body = (RECORDED / name).read_bytes()
    assert without_version(FILES[name](body)) == without_version(body)


def test_every_step_was_recorded() -> None:
    """The recorded history has each step of that version, and one that a newer version knows."""
    ledger = decode_ledger((RECORDED / "ledger.json").read_bytes())
    assert {line.step for line in ledger.transitions} == set(Step) - LATER - set(EVENT_STEPS)
    newer = decode_ledger((RECORDED / "ledger_newer_minor.json").read_bytes())
    assert {line.step for line in newer.transitions} - set(Step) == {"paused by a newer version"}


def test_the_meaning_of_the_recorded_ledger() -> None:
    """Entries, holds and delivered notices have the values that were written."""
    ledger = decode_ledger((RECORDED / "ledger.json").read_bytes())
    states = {
        entry.vm: (
            len(entry.memberships),
            [event.event_type for event in entry.events],
            entry.out_at is not None,
            entry.restoring_at is not None,
            entry.restored_at is not None,
            entry.gone,
        )
        for entry in ledger.entries
    }
    assert states == {
        "web-1": (2, ["Reboot"], False, False, False, False),
        "web-2": (2, ["Redeploy", "Freeze"], True, False, False, False),
        "web-3": (1, ["Request"], True, False, False, False),
        "web-4": (1, ["Preempt"], False, True, False, False),
        "web-5": (1, ["Terminate"], False, False, True, False),
        "web-6": (1, ["Reboot"], True, False, False, True),
        "web-7": (1, [], True, False, False, False),
    }
    assert set(ledger.acknowledged_at()) == {"e-2", "e-5"}
    assert [hold.reason for hold in ledger.holds][:2] == ["floor", "unmanaged_resource"]
    delivered = load_delivered(ledger)
    assert delivered is not None
    assert delivered.ids == ("0123456789abcdef", "fedcba9876543210")
    assert [(each.event_id, each.begun) for each in delivered.events] == [
        ("E-1", False),
        ("E-4", True),
    ]


def test_the_meaning_of_the_recorded_requests() -> None:
    """Drain requests and the rolling run have the values that were written."""
    requests = decode_requests((RECORDED / "requests.json").read_bytes())
    assert [(each.vm, each.reason, each.ended_by) for each in requests.requests] == [
        ("web-0", "a new disk", ""),
        ("web-1", "", ""),
        ("web-2", "roll: größer", "bob@example.com"),
    ]
    assert requests.roll is not None
    assert requests.roll.remaining == ("web-2", "web-3")


@pytest.mark.parametrize("name", ["ledger.json", "requests.json"])
def test_a_newer_major_version_is_refused(name: str) -> None:
    """Whatever the rest of the document is, the message asks for an upgrade."""
    document: dict[str, Any] = json.loads((RECORDED / name).read_bytes())
    for changed in (document | {"version": "2.0"}, {"version": "2.0", "other": []}):
        with pytest.raises(ContractViolation, match="upgrade this agent"):
            FILES[name](json.dumps(changed).encode())
