"""When a test drain took its steps, and the margin that it would have had."""

from datetime import UTC, datetime, timedelta

import pytest

from controller.core.drain_history import Episode, Step, Transition, removed_text
from controller.core.drain_requests import DrainRequest
from controller.core.event_record import WatchedEvent, WatchedVm
from controller.core.ledger import Entry, Ledger
from controller.core.vm_report import VmReport, VmState
from controller.errors import NotDone
from controller.operator.drain_rehearsal import DrainTimes, drain_times, refuse_busy

NOW = datetime(2030, 1, 1, tzinfo=UTC)
REQUEST = DrainRequest(
    request_id="test-1", vm="web-2", reason="", by="me", at=NOW, until=NOW + timedelta(minutes=15)
)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def times(
    quiet_s: float | None = None,
    lead_time_s: float = 900,
    out_detail: str = "",
    **steps: float,
) -> DrainTimes:
    lines = sorted((at(s), Step[name]) for name, s in steps.items())
    report = None
    if quiet_s is not None:
        report = VmReport(
            vm="web-2",
            boot_id="b",
            state=VmState.CLOSED,
            since=at(4),
            at=at(19),
            quiet_since=at(quiet_s),
            counted=True,
        )
    details = {Step.OUT: out_detail}
    episode = Episode(
        tuple(
            Transition(at=when, vm="web-2", step=step, detail=details.get(step, ""))
            for when, step in lines
        )
    )
    return drain_times(
        episode,
        REQUEST,
        report=report,
        withdrawn_at=at(50),
        connection_drain_s=30,
        lead_time_s=lead_time_s,
    )


def test_every_step_with_its_duration() -> None:
    """Each step took the time since the step before, the first one since the request."""
    found = times(
        quiet_s=9, RECORDED=2, CLOSED=5, OUT=20, RESTORING=53, RESTORED=60, OPENED=61, IN_SERVICE=70
    )
    assert [(each.name, each.took_s) for each in found.steps] == [
        ("recorded", 2),
        ("closed", 2),
        ("quiet", 5),
        ("out", 11),
        ("withdrawn", 30),
        ("restored", 10),
        ("opened", 1),
        ("ready", 9),
    ]
    assert found.margin == timedelta(seconds=880)


def test_a_vm_without_connections_is_quiet_when_it_closes() -> None:
    """That it had no connection before it closed is not a step before the first one."""
    found = times(quiet_s=-100, RECORDED=2, CLOSED=5, OUT=20, IN_SERVICE=70)
    named = [(each.name, each.at) for each in found.steps]
    assert named[1:3] == [("closed", at(4)), ("quiet", at(4))]


@pytest.mark.parametrize("more", ["", ", connections cut: 3"])
def test_the_removal_has_a_step_of_its_own(more: str) -> None:
    """What Azure takes for the removal and what the proof takes are two steps, not one."""
    detail = removed_text(timedelta(seconds=1.86)) + more
    found = times(out_detail=detail, RECORDED=2, OUT=20, IN_SERVICE=70)
    assert [(each.name, each.took_s) for each in found.steps[:3]] == [
        ("recorded", 2),
        ("removed", 16.2),
        ("out", 1.8),
    ]


def test_without_closing_its_connections_get_their_time() -> None:
    """A VM that nobody saw quiet is ready for its event only after the connection drain."""
    found = times(RECORDED=2, OUT=20, RESTORED=60, IN_SERVICE=70)
    assert [each.name for each in found.steps] == [
        "recorded",
        "out",
        "withdrawn",
        "restored",
        "ready",
    ]
    assert found.margin == timedelta(seconds=850)


def test_a_short_lead_time_shortens_the_margin() -> None:
    """A drain begins a lead time before NotBefore, not when the event is announced."""
    found = times(lead_time_s=40, RECORDED=2, OUT=20, IN_SERVICE=70)
    assert found.margin == timedelta(seconds=-10)
    report = "\n".join(found.lines("web-2"))
    assert "web-2 would have been ready for its event 10 s after NotBefore." in report
    assert "too late" in report


def test_the_report() -> None:
    """One line per step, and a sentence with the margin; clocks that differ cost no time."""
    lines = list(times(quiet_s=9, RECORDED=-1, OUT=20, IN_SERVICE=70).lines("web-2"))
    assert lines[1] == "recorded   23:59:59     0.0 s  the leader wrote it down"
    assert lines[-1] == (
        "With 15 min 0 s of notice, web-2 would have been ready for its event "
        "14 min 40 s before NotBefore."
    )


def test_a_busy_vm_is_refused() -> None:
    """A VM that is out, or that an event names, is not tested; the event of another VM is fine."""
    entry = Entry(vm="WEB-2", vm_id="/web-2", events=(), memberships=(), recorded_at=NOW)
    watched = WatchedEvent(
        event_id="E-1",
        event_type="Reboot",
        first_seen_at=NOW,
        watched_at=NOW,
        not_before=NOW,
        vms=(WatchedVm(vm="web-2"),),
    )
    with pytest.raises(NotDone, match="drained or restored already"):
        refuse_busy(Ledger(entries=(entry,)), "web-2")
    with pytest.raises(NotDone, match="Reboot E-1 is announced for web-2"):
        refuse_busy(Ledger(events=(watched,)), "web-2")
    refuse_busy(Ledger(events=(watched,)), "web-1")
