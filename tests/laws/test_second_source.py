"""What the laws say about ends that Resource Graph states, and about its acknowledgements."""

import json
from typing import Any

import pytest

from tests.laws.ledger_document import only_states_ends

LINE = {"at": "t", "vm": "web-1", "what": "completed", "detail": "Reboot E-1"}
REPORTED = {"at": "t", "vm": "web-1", "what": "end reported", "detail": "Reboot E-1: Completed"}
VERDICT = {"event_id": "E-1", "vm": "web-1", "verdict": "drained"}
BEFORE: dict[str, Any] = {
    "epoch": 3,
    "entries": [],
    "transitions": [LINE],
    "verdicts": [VERDICT],
}
AFTER: dict[str, Any] = {
    "epoch": 3,
    "entries": [],
    "transitions": [LINE, REPORTED],
    "verdicts": [{**VERDICT, "end": "Completed"}],
}


def test_a_ledger_may_be_written_for_an_end_alone() -> None:
    """Also when the oldest line had to leave for the new one."""
    assert only_states_ends(BEFORE, json.dumps(AFTER))
    longer = {**BEFORE, "transitions": [{**LINE, "vm": "web-9"}, LINE]}
    assert only_states_ends(longer, json.dumps(AFTER))


@pytest.mark.parametrize(
    "after",
    [
        BEFORE,
        {**AFTER, "epoch": 4},
        {**AFTER, "entries": [{"vm": "web-1"}]},
        {**AFTER, "transitions": [LINE, {**LINE, "what": "recorded"}, REPORTED]},
        {**AFTER, "verdicts": [{**VERDICT, "verdict": "late", "end": "Completed"}]},
        {**AFTER, "verdicts": [*AFTER["verdicts"], {**VERDICT, "vm": "web-2"}]},
    ],
)
def test_any_other_change_is_a_write_of_an_idle_set(after: dict[str, Any]) -> None:
    """Law H1 finds it."""
    assert not only_states_ends(BEFORE, json.dumps(after))


def test_what_cannot_be_read_states_nothing() -> None:
    """Neither does the first ledger."""
    assert not only_states_ends(BEFORE, "{")
    assert not only_states_ends({}, json.dumps(AFTER))
