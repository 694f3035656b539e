"""What the laws allow a leader that finds its idle set converted (H1)."""

import json
from typing import Any

from tests.laws.ledger_document import CONVERSION_FOUND
from tests.laws.liveness import h1_quiet
from tests.laws.test_laws import BLOB, STEPS, Story

LEDGER: dict[str, Any] = {"leader": "web-2", "entries": []}
FOUND = {"message": f"the availability set was converted: {CONVERSION_FOUND}"}


def idle(*, converted: bool) -> Story:
    """Return the story of a set that is idle, and that Azure has converted before."""
    story = Story()
    STEPS["lease"](story)
    written(story, 3, LEDGER)
    if converted:
        story.tell(5, "operator", "set", what="converted to a scale set")
    story.tell(10, "converged", "set")
    return story


def written(story: Story, at: float, ledger: dict[str, Any]) -> None:
    """Add a ledger write."""
    story.tell(at, "blob_written", BLOB, by="web-2", body=json.dumps(ledger))


def found(story: Story, at: float, **more: Any) -> list[str]:
    """Let the leader find the conversion, and return the broken laws."""
    story.tell(at, "log", "web-2", **FOUND)
    written(story, at + 1, {**LEDGER, "converted_to": "web-flex", **more})
    return story.broken({"H1 quiet": h1_quiet})


def test_a_leader_says_once_that_its_idle_set_was_converted() -> None:
    """The inventory that finds it can be due only then."""
    assert found(idle(converted=True), 12) == []


def test_nothing_else_is_allowed_for_a_conversion() -> None:
    """Not without one, not twice, and no other change of the ledger."""
    assert len(found(idle(converted=False), 12)) == 2
    assert len(found(idle(converted=True), 12, epoch=2)) == 1
    story = idle(converted=True)
    assert found(story, 12) == []
    assert len(found(story, 14)) == 2
