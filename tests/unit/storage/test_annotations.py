"""Fields that other parts keep in the ledger."""

from dataclasses import replace

from controller.core.ledger import Ledger
from controller.storage.annotations import LedgerAnnotations

LEDGER = Ledger(epoch=2, extra={"newer": 1})


def test_what_is_queued_is_merged() -> None:
    """Fields that were there stay; of a field queued twice the newer value counts."""
    annotations = LedgerAnnotations()
    annotations.queue(2, {"reported": ["a"]})
    annotations.queue(2, {"reported": ["a", "b"], "other": 1})
    merged = annotations.merged_into(LEDGER)
    assert merged == replace(LEDGER, extra={"newer": 1, "reported": ["a", "b"], "other": 1})


def test_a_ledger_that_has_it_is_not_written_for_it() -> None:
    """The same object comes back, so that no write follows."""
    annotations = LedgerAnnotations()
    assert annotations.merged_into(LEDGER) is LEDGER
    annotations.queue(2, {"newer": 1})
    assert annotations.merged_into(LEDGER) is LEDGER


def test_fields_of_another_epoch_are_not_merged() -> None:
    """What was queued under an earlier leader says nothing about the present ledger."""
    annotations = LedgerAnnotations()
    annotations.queue(1, {"reported": ["a"]})
    assert annotations.merged_into(LEDGER) is LEDGER
    annotations.queue(2, {"reported": ["b"]})
    assert annotations.merged_into(LEDGER).extra["reported"] == ["b"]
