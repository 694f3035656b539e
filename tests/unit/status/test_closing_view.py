"""What is shown of a VM's own side of a drain: from its report, or from the ledger."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.core.drain_history import Step
from controller.core.ledger import Entry, Ledger
from controller.core.vm_report import HookOutcome, VmReport, VmState
from controller.status.closing_view import closing_view, texts

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
ENTRY = Entry(vm="web-2", vm_id="/vm/web-2", events=(), memberships=(), recorded_at=NOON)
LEDGER = Ledger().with_entry(ENTRY).noting(at=NOON, vm="web-2", step=Step.RECORDED)
REPORT = VmReport(
    vm="web-2",
    boot_id="b",
    state=VmState.CLOSED,
    since=NOON + timedelta(seconds=1),
    at=NOON + timedelta(seconds=9),
    drain=NOON,
    connections=4,
    counted=True,
    refused_probes=2,
    probe_port=9810,
    hook=HookOutcome.DONE,
)


def test_a_report_is_shown_in_full() -> None:
    """Closed since, quiet, connections left, refused probes, hook and problem."""
    assert closing_view(LEDGER, "WEB-2", REPORT) == {
        "state": "closed",
        "since": "2030-01-01T12:00:01.000+00:00",
        "reported_at": "2030-01-01T12:00:09.000+00:00",
        "quiet": False,
        "connections_left": 4,
        "refused_probes": 2,
        "hook": "done",
        "problem": "",
        "text": "closed since 12:00:01 UTC, 4 connections left, 2 probes refused, hook done",
    }


@pytest.mark.parametrize(
    ("changes", "field", "shown"),
    [
        ({"counted": False}, "connections_left", None),
        ({"probe_port": 0}, "refused_probes", None),
        ({"quiet_since": NOON, "connections": 0}, "quiet", True),
        ({"state": VmState.OPENING}, "text", "opening since 12:00:01 UTC, hook done"),
        ({"problem": "disk full"}, "problem", "disk full"),
    ],
)
def test_what_is_not_known_is_null(changes: dict[str, object], field: str, shown: object) -> None:
    """A number that was not counted is not 0."""
    view = closing_view(LEDGER, "web-2", replace(REPORT, **changes))  # type: ignore[arg-type]
    assert view is not None
    assert dict(view)[field] == shown


def test_without_a_report_the_ledger_shows_it() -> None:
    """A standby reads no reports of others."""
    assert closing_view(LEDGER, "web-2", None) is None
    at = NOON + timedelta(seconds=2)
    closed = LEDGER.noting(at=at, vm="web-2", step=Step.CLOSED, detail="4 connections left")
    view = closing_view(closed, "web-2", None)
    assert view is not None
    assert (view["state"], view["connections_left"]) == ("closed", None)
    assert view["text"] == "closed since 12:00:02 UTC, 4 connections left"
    opened = closed.noting(at=NOON + timedelta(minutes=5), vm="web-2", step=Step.OPENED)
    view = closing_view(opened, "web-2", None)
    assert view is not None
    assert view["text"] == "open since 12:05:00 UTC"


def test_a_report_about_another_drain_is_not_shown() -> None:
    """What is open without a drain is not shown either; what is closed without one is."""
    assert closing_view(LEDGER, "web-2", replace(REPORT, drain=NOON - timedelta(hours=1))) is None
    assert closing_view(Ledger(), "web-2", replace(REPORT, state=VmState.OPEN)) is None
    assert closing_view(Ledger(), "web-2", REPORT) is not None


def test_the_texts_of_all_recorded_vms() -> None:
    """`status` prints one line for each VM of which something is known."""
    ledger = LEDGER.with_entry(replace(ENTRY, vm="web-3"))
    assert texts(ledger, [REPORT]) == {
        "web-2": "closed since 12:00:01 UTC, 4 connections left, 2 probes refused, hook done"
    }
