"""What changed between two ledgers, and why a VM is drained."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.core.drain_history import Step
from controller.core.drain_requests import DRAIN_REQUEST
from controller.core.event_record import EventVerdict, Verdict
from controller.core.ledger import Entry, EventReference, Ledger
from controller.core.ledger_changes import cause_of, new_transitions, new_verdicts

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def noted(*steps: Step, ledger: Ledger | None = None) -> Ledger:
    ledger = ledger or Ledger()
    for step in steps:
        at = NOW + timedelta(seconds=len(ledger.transitions))
        ledger = ledger.noting(at=at, vm="web-1", step=step)
    return ledger


def entry(*events: EventReference) -> Entry:
    return Entry(vm="web-1", vm_id="/vm/web-1", events=events, memberships=(), recorded_at=NOW)


def event(
    name: str, event_type: str = "Reboot", not_before_s: float | None = None
) -> EventReference:
    at = None if not_before_s is None else NOW + timedelta(seconds=not_before_s)
    return EventReference(event_id=name, event_type=event_type, not_before=at)


def test_the_added_transitions_in_their_order() -> None:
    """Only what the newer ledger adds, oldest first; everything if the older one has none."""
    before = noted(Step.LEADS, Step.RECORDED)
    after = noted(Step.OUT, Step.ACKNOWLEDGED, ledger=before)
    assert [line.step for line in new_transitions(before, after)] == ["out", "acknowledged"]
    assert new_transitions(Ledger(), after) == after.transitions
    assert new_transitions(after, after) == ()
    assert new_transitions(before, noted(Step.LEADS, Step.RECORDED)) == ()


@pytest.mark.parametrize(
    ("events", "cause"),
    [
        ((), None),
        ((event("later", not_before_s=9), event("first", not_before_s=5)), "first"),
        ((event("announced", not_before_s=5), event("started")), "started"),
        ((event("asked", DRAIN_REQUEST), event("announced", not_before_s=5)), "announced"),
        ((event("asked", DRAIN_REQUEST),), "asked"),
        ((event("test-1", not_before_s=5), event("first", not_before_s=9)), "first"),
        ((event("test-1", not_before_s=5), event("asked", DRAIN_REQUEST)), "asked"),
        ((event("test-1", DRAIN_REQUEST), event("test-2", not_before_s=5)), "test-2"),
    ],
    ids=[
        "none",
        "two events",
        "no NotBefore",
        "request and event",
        "request",
        "test and event",
        "test and request",
        "tests",
    ],
)
def test_the_cause_of_a_drain(events: tuple[EventReference, ...], cause: str | None) -> None:
    """The event with the earliest NotBefore, without one the start; a request only if alone."""
    found = cause_of(entry(*events))
    assert (found.event_id if found else None) == cause


def test_a_verdict_whose_clock_is_corrected_is_not_new() -> None:
    """V1: the log and the metrics count it once; a later one that is alike is another one."""
    verdict = EventVerdict(
        at=NOW + timedelta(days=1),
        vm="web-1",
        event_id="E-1",
        event_type="Reboot",
        verdict=Verdict.DRAINED,
        started_at=NOW + timedelta(days=1),
    )
    before = Ledger(verdicts=(verdict,))
    after = before.clamped(NOW)
    assert after.verdicts[0].at == NOW
    assert new_verdicts(before, after) == ()
    again = replace(verdict, at=NOW + timedelta(minutes=5))
    assert new_verdicts(after, replace(after, verdicts=(*after.verdicts, again))) == (again,)


def test_no_entry_has_no_cause() -> None:
    """A VM that is not in the ledger is not drained."""
    assert cause_of(None) is None
