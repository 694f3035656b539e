"""How state is spelled in every view."""

from dataclasses import replace

import pytest

from controller.core.ledger import EventReference
from controller.status.state_json import reasons
from tests.unit.status.test_overview import entry


@pytest.mark.parametrize(
    ("event_id", "event_type", "text"),
    [
        ("E-1", "Reboot", "Reboot"),
        ("R-1", "Request", "a manual drain"),
        ("test-1", "Request", "TEST: a manual drain"),
        ("test-1", "Reboot", "TEST: Reboot"),
    ],
)
def test_the_reason_of_a_drain(event_id: str, event_type: str, text: str) -> None:
    """An event by its type, a request as a manual drain, and a rehearsal of either as one."""
    reference = EventReference(event_id=event_id, event_type=event_type)
    assert reasons(replace(entry(), events=(reference,))) == text
