"""The output of `lb-drain status` on a terminal of 80 columns."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from controller.cli.tables import print_status, print_watch
from controller.core.drain_history import Step
from controller.core.drain_requests import DRAIN_REQUEST, DrainRequest, DrainRequests, RollingRun
from controller.core.event_record import EventVerdict, Verdict, WatchedEvent, WatchedVm
from controller.core.ledger import Entry, EventReference, Hold, Ledger
from controller.core.resources import NicMembership
from controller.core.vm_report import VmReport, VmState
from controller.status.ledger_view import LeaseStatus

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
POOLS = {"/lb/backendaddresspools/app": "web-lb/app"}
ENTRY = Entry(
    vm="web-2",
    vm_id="/vm/web-2",
    events=(EventReference(event_id="E-1", event_type="Reboot"),),
    memberships=(
        NicMembership(
            pool_id="/lb/backendAddressPools/app", nic_id="/nic/2", ip_configuration="ipconfig1"
        ),
    ),
    recorded_at=NOON,
)


def lease_status(*entries: Entry) -> LeaseStatus:
    ledger = Ledger(epoch=3, leader="web-1", leader_since=NOON - timedelta(seconds=9))
    for entry in entries:
        ledger = ledger.with_entry(entry)
    ledger = ledger.noting(at=NOON + timedelta(seconds=5), vm="web-2", step=Step.OUT)
    return LeaseStatus(lease_state="leased", ledger=ledger, at=NOON)


def status(*entries: Entry, dry_run: bool = False) -> str:
    console = Console(width=80, markup=False)
    with console.capture() as captured:
        print_status(console, lease_status(*entries), pool_names=POOLS, dry_run=dry_run)
    return captured.get()


def verdict(kind: Verdict, *, out_s: float | None, why: str = "") -> EventVerdict:
    return EventVerdict(
        at=NOON + timedelta(minutes=20),
        vm="web-2",
        event_id="E-1",
        event_type="Reboot",
        verdict=kind,
        not_before=NOON + timedelta(minutes=15),
        out_at=None if out_s is None else NOON + timedelta(seconds=out_s),
        why=why,
    )


def row(text: str, vm: str) -> list[str]:
    """Return the cells of the row of a VM."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"│ {vm}")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_an_entry_has_its_phase_and_keeps_when_it_was_out() -> None:
    """While a VM is being restored, the status still shows when it was out."""
    out = replace(ENTRY, out_at=NOON + timedelta(seconds=5))
    assert row(status(out), "web-2") == [
        "web-2", "out", "web-lb/app", "12:00:00", "12:00:05", "", "Reboot"
    ]  # fmt: skip
    back = replace(ENTRY, restoring_at=NOON + timedelta(minutes=2))
    assert row(status(back), "web-2") == [
        "web-2", "restoring", "web-lb/app", "12:00:00", "12:00:05", "", "Reboot"
    ]  # fmt: skip


def test_a_manual_drain_is_a_reason() -> None:
    """A manual drain is listed beside the event types."""
    request = EventReference(event_id="R-1", event_type=DRAIN_REQUEST)
    entry = replace(ENTRY, events=(*ENTRY.events, request), out_at=NOON)
    assert row(status(entry), "web-2")[-1] == "Reboot, manual"


def test_a_dry_run_is_printed_first() -> None:
    """The output begins with the note that the agent on this VM writes nothing."""
    assert status(dry_run=True).startswith("dry run: the agent on this VM writes nothing")
    assert "dry run" not in status()


def watch(latest: LeaseStatus | None, problem: str = "") -> list[str]:
    console = Console(width=80, markup=False)
    with console.capture() as captured:
        now = NOON + timedelta(seconds=41)
        print_watch(console, latest, pool_names=POOLS, now=now, problem=problem, dry_run=False)
    return captured.get().splitlines()


def test_a_repeated_status_begins_with_the_time() -> None:
    """The time shows that the output is new."""
    lines = watch(lease_status())
    assert lines[0] == "12:00:41 UTC"
    assert lines[1].startswith("leader: web-1")


def test_a_failed_read_is_printed_above_the_latest_status() -> None:
    """The problem is above the latest status, with the time of that status."""
    lines = watch(lease_status(), "blob read: 503")
    assert lines[:2] == [
        "12:00:41 UTC",
        "read failed: blob read: 503; the following is the state at 12:00:00",
    ]
    assert lines[2].startswith("leader: web-1")
    assert watch(None, "blob read: 503") == ["12:00:41 UTC", "read failed: blob read: 503"]


def test_manual_drains_and_rolling_runs_are_listed() -> None:
    """A request with user, end and reason; a rolling run with its remaining VMs; no ended ones."""
    request = DrainRequest(
        request_id="R",
        vm="web-2",
        reason="patching",
        by="ann on web-1",
        at=NOON,
        until=NOON + timedelta(minutes=30),
    )
    over = replace(request, request_id="S", vm="web-3", until=NOON)
    roll = RollingRun(
        run_id="L",
        what="reboot",
        vms=("web-2", "web-3"),
        done=("web-2",),
        by="ben",
        at=NOON,
        process_id="x",
        failed="web-3: the command ended with exit code 1",
    )
    requests = DrainRequests(requests=(request, over), roll=roll)
    console = Console(width=120, markup=False)
    with console.capture() as captured:
        print_status(
            console, replace(lease_status(), requests=requests), pool_names=POOLS, dry_run=False
        )
    lines = captured.get().splitlines()
    (drain,) = [line for line in lines if line.startswith("manual drain requested")]
    assert drain.endswith("web-2 until 2030-01-01 12:30 UTC, by ann on web-1 (patching)")
    assert (
        "rolling run by ben (reboot): stopped, web-3: the command ended with exit code 1; "
        "remaining: web-3" in lines
    )
    ended = replace(roll, ended_at=NOON)
    with console.capture() as captured:
        print_status(
            console,
            replace(lease_status(), requests=DrainRequests(roll=ended)),
            pool_names=POOLS,
            dry_run=False,
        )
    assert "rolling run" not in captured.get()
    listed = replace(lease_status(), requests=requests).as_json()["requests"]
    assert isinstance(listed, list)
    assert [each["vm"] for each in listed] == ["web-2"]


def test_events_and_verdicts() -> None:
    """Announced events, and what became of the last ones: success as plainly as failure."""
    announced = WatchedEvent(
        event_id="E-2",
        event_type="Freeze",
        first_seen_at=NOON,
        not_before=NOON + timedelta(minutes=15),
        vms=(WatchedVm(vm="web-1"), WatchedVm(vm="web-3")),
    )
    begun = replace(announced, event_type="Redeploy", started_at=NOON, ignored="why")
    ledger = Ledger(
        events=(announced, begun),
        verdicts=(
            verdict(Verdict.DRAINED, out_s=57),
            verdict(Verdict.HIT_IN_ROTATION, out_s=None, why="the floor"),
        ),
    )
    console = Console(width=80, markup=False)
    with console.capture() as captured:
        lease = LeaseStatus(lease_state="leased", ledger=ledger, at=NOON)
        print_status(console, lease, pool_names=POOLS, dry_run=False)
    text = " ".join(captured.get().split())
    assert (
        "announced (UTC): Freeze of web-1, web-3, not before 2030-01-01 12:15:00 "
        "announced (UTC): Redeploy of web-1, web-3, started 12:00:00, ignored: why "
        "events and their verdicts (UTC): "
        "2030-01-01 12:20:00 web-2: Reboot: drained 14 min 3 s before NotBefore "
        "2030-01-01 12:20:00 web-2: Reboot: hit in rotation: the floor"
    ) in text


@pytest.mark.parametrize("text", ["\x1b[2J\x1b]0;owned\x07", "a\nleader: web-9", "\u202eweb-9"])
def test_what_a_blob_contains_is_printed_as_data(text: str) -> None:
    """An identity that can write the container sends no escape sequence and no line of its own."""
    request = DrainRequest(
        request_id="R",
        vm=f"web-2{text}",
        reason=text,
        by=text,
        at=NOON,
        until=NOON + timedelta(minutes=30),
    )
    roll = RollingRun(
        run_id="L",
        what=text,
        vms=("web-2",),
        done=(),
        by=text,
        at=NOON,
        process_id="x",
        failed=text,
    )
    ledger = Ledger(
        leader="web-1",
        holds=(Hold(subject=f"web-2{text}", reason="floor", message=text, since=NOON),),
        verdicts=(verdict(Verdict.HIT_IN_ROTATION, out_s=None, why=text),),
    ).noting(at=NOON, vm=f"web-2{text}", step=Step.REQUESTED, detail=text)
    shown = replace(
        lease_status(), ledger=ledger, requests=DrainRequests(requests=(request,), roll=roll)
    )
    console = Console(width=400, markup=False)
    with console.capture() as captured:
        print_status(console, shown, pool_names=POOLS, dry_run=False)
    lines = captured.get().split("\n")
    assert not any(ord(each) < ord(" ") or each == "\u202e" for line in lines for each in line)
    assert [line for line in lines if line.startswith("leader:")] == lines[:1]


def test_a_closed_vm_is_shown_with_its_report() -> None:
    """The line below the table has what its agent reports; `--json` has the fields."""
    report = VmReport(
        vm="web-2", boot_id="b", state=VmState.CLOSED, since=NOON, at=NOON, drain=NOON,
        counted=True, connections=2, problem="hook closing: [red]",
    )  # fmt: skip
    shown = replace(lease_status(ENTRY), reports=(report,))
    console = Console(width=120, markup=False)
    with console.capture() as captured:
        print_status(console, shown, pool_names=POOLS, dry_run=False)
    line = "web-2: closed since 12:00:00, 2 connections left, hook closing: [red]"
    assert line in captured.get().splitlines()
    closing = shown.as_json()["closing"]
    assert isinstance(closing, dict)
    assert closing["web-2"]["connections_left"] == 2
    assert replace(shown, ledger=Ledger()).as_json()["closing"] != {}
