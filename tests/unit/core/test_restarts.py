"""What a VM reported before a restart is no evidence after it."""

from datetime import datetime
from typing import Any

import pytest

from controller.core.drain_history import Step
from controller.core.event_record import EventVerdict, Verdict, WatchedEvent, WatchedVm
from controller.core.events import EventDocument
from controller.core.ledger import Ledger
from controller.core.restarts import interrupted, outlasts, restarts_by_vm
from tests.support.planner_scenario import at, started

NOW = at(100)


def watched(**changes: Any) -> Ledger:
    """Return a ledger with a Reboot of web-1 that started after 20 s."""
    fields: dict[str, Any] = {
        "event_id": "E-1",
        "event_type": "Reboot",
        "first_seen_at": at(0),
        "started_at": at(20),
        "vms": (WatchedVm(vm="WEB-1"),),
    }
    return Ledger(events=(WatchedEvent(**{**fields, **changes}),))


def judged(**changes: Any) -> Ledger:
    """Return a ledger with the verdict on that Reboot."""
    fields: dict[str, Any] = {
        "at": at(50),
        "vm": "web-1",
        "event_id": "E-1",
        "event_type": "Reboot",
        "verdict": Verdict.DRAINED,
        "started_at": at(20),
    }
    return Ledger(verdicts=(EventVerdict(**{**fields, **changes}),))


def holds(ledger: Ledger, reported_at: datetime) -> bool:
    """Return whether a report of web-1 still holds."""
    return outlasts(restarts_by_vm(ledger, None, NOW).get("web-1", ()), reported_at)


@pytest.mark.parametrize(
    ("ledger", "since"),
    [
        (watched(gone_at=at(50)), 50),
        (watched(started_at=None, not_before=at(20), gone_at=at(50)), 50),
        (judged(), 50),
        (judged(started_at=None, not_before=at(30)), 50),
        (judged(verdict=Verdict.IGNORED), 50),
    ],
    ids=["gone", "gone, start not seen", "judged", "judged, start not seen", "ignored"],
)
def test_a_report_holds_if_it_was_made_after_the_last_restart(ledger: Ledger, since: int) -> None:
    """S1: neither what the earlier boot reported, nor what was reported while it restarted."""
    assert not holds(ledger, at(since - 1))
    assert holds(ledger, at(since + 1))


def test_a_report_from_before_the_end_of_an_event_does_not_hold() -> None:
    """S1: a verdict is given soon after the start, and the VM can restart after that."""
    ended = judged().noting(at=at(80), vm="web-1", step=Step.COMPLETED, detail="Reboot E-1")
    assert not holds(ended, at(60))
    assert holds(ended, at(81))
    other = judged().noting(at=at(80), vm="web-1", step=Step.COMPLETED, detail="Reboot E-2")
    assert holds(other, at(60))


def test_a_verdict_of_a_clock_that_was_ahead_keeps_no_report_from_holding() -> None:
    """L2: the VM would not count as closed until the time that the clock has shown."""
    ahead = judged(at=at(90_050), started_at=at(90_020)).noting(
        at=at(90_050), vm="web-1", step=Step.COMPLETED, detail="Reboot E-1"
    )
    assert not holds(ahead, NOW)
    corrected = ahead.clamped(at(90)).noting(at=at(91), vm="web-1", step=Step.RESTORING)
    assert not holds(corrected, at(89))
    assert holds(corrected, at(92))


def test_no_report_holds_while_a_vm_restarts() -> None:
    """Its event has started, by the ledger or by the document alone."""
    assert not holds(watched(), NOW)
    document = EventDocument(incarnation=1, events=(started("web-1", event_type="Redeploy"),))
    assert not outlasts(restarts_by_vm(Ledger(), document, NOW)["web-1"], NOW)


@pytest.mark.parametrize(
    "ledger",
    [
        watched(event_type="Freeze"),
        watched(event_id="test-0123"),
        watched(started_at=None, not_before=at(300)),
        watched(started_at=None, not_before=at(60), gone_at=at(50)),
        judged(event_type="freeze"),
        judged(verdict=Verdict.CANCELLED, started_at=None, not_before=at(30)),
    ],
    ids=["freeze", "rehearsal", "not begun", "gone before", "freeze, judged", "cancelled"],
)
def test_what_restarts_no_vm_leaves_its_reports_valid(ledger: Ledger) -> None:
    """A Freeze keeps the memory; the others never restarted the VM."""
    assert holds(ledger, at(10))


@pytest.mark.parametrize(
    ("since", "until", "besides", "expected"),
    [
        (10, 90, "", True),
        (10, None, "", True),
        (10, 20, "", False),
        (60, 90, "", False),
        (10, 90, "e-1", False),
    ],
    ids=["between", "to now", "began later", "over before", "the event itself"],
)
def test_a_restart_interrupts_what_was_proven_before_it(
    since: int, until: int | None, besides: str, *, expected: bool
) -> None:
    """A verdict counts a VM as closed from the last restart by another event on."""
    restarts = restarts_by_vm(watched(gone_at=at(50)), None, NOW)["web-1"]
    end = None if until is None else at(until)
    assert interrupted(restarts, at(since), end, besides=besides) is expected


@pytest.mark.parametrize(
    ("event_type", "opens"), [("Terminate", False), ("Preempt", True), ("Reboot", True)]
)
def test_a_deleted_vm_does_not_open(event_type: str, *, opens: bool) -> None:
    """V1: it stays closed; what it reported is no evidence about a VM that gets its name."""
    for ledger in (watched(event_type=event_type, gone_at=at(50)), judged(event_type=event_type)):
        assert interrupted(restarts_by_vm(ledger, None, NOW)["web-1"], at(10)) is opens
        assert not holds(ledger, at(10))
