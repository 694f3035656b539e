"""What `lb-drain status` prints, as on a terminal of 80 columns."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from rich.console import Console

from controller.core.ledger import Entry, EventReference, Ledger
from controller.core.model import REQUEST, NicMembership, Request
from controller.core.requests import Requests, Roll
from controller.look import LeaseLook
from controller.report import print_status, print_watch

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
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


def look(*entries: Entry) -> LeaseLook:
    ledger = Ledger(epoch=3, leader="web-1", leader_since=NOON - timedelta(seconds=9))
    for entry in entries:
        ledger = ledger.with_entry(entry)
    ledger = ledger.noting(at=NOON + timedelta(seconds=5), vm="web-2", what="out")
    return LeaseLook(lease_state="leased", ledger=ledger, at=NOON)


def status(*entries: Entry, dry_run: bool = False) -> str:
    console = Console(width=80, markup=False)
    with console.capture() as captured:
        print_status(console, look(*entries), dry_run=dry_run)
    return captured.get()


def row(text: str, vm: str) -> list[str]:
    """Return the cells of the row of a VM."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"│ {vm}")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_an_entry_has_its_phase_and_keeps_when_it_was_out() -> None:
    """While a VM comes back the status still tells since when it was out."""
    out = replace(ENTRY, out_at=NOON + timedelta(seconds=5))
    assert row(status(out), "web-2") == [
        "web-2", "out", "app", "12:00:00", "12:00:05", "", "Reboot"
    ]  # fmt: skip
    back = replace(ENTRY, restoring_at=NOON + timedelta(minutes=2))
    assert row(status(back), "web-2") == [
        "web-2", "restoring", "app", "12:00:00", "12:00:05", "", "Reboot"
    ]  # fmt: skip


def test_who_is_out_by_hand() -> None:
    """A request is a reason among others, and called what it is."""
    request = EventReference(event_id="R-1", event_type=REQUEST)
    entry = replace(ENTRY, events=(*ENTRY.events, request), out_at=NOON)
    assert row(status(entry), "web-2")[-1] == "Reboot, by hand"


def test_a_dry_run_is_said_first() -> None:
    """Who reads that nobody leads is told that this agent writes nothing."""
    assert status(dry_run=True).startswith("dry run: the agent of this VM writes nothing")
    assert "dry run" not in status()


def watch(look: LeaseLook | None, problem: str = "") -> list[str]:
    console = Console(width=80, markup=False)
    with console.capture() as captured:
        now = NOON + timedelta(seconds=41)
        print_watch(console, look, now=now, problem=problem, dry_run=False)
    return captured.get().splitlines()


def test_a_tick_tells_the_time() -> None:
    """Whoever watches sees that what is shown is new."""
    lines = watch(look())
    assert lines[0] == "12:00:41 UTC"
    assert lines[1].startswith("leader: web-1")


def test_a_tick_that_failed_is_seen() -> None:
    """What went wrong stands above the newest look, which says how old it is."""
    lines = watch(look(), "blob read: 503")
    assert lines[:2] == ["12:00:41 UTC", "not read: blob read: 503; what follows is as of 12:00:00"]
    assert lines[2].startswith("leader: web-1")
    assert watch(None, "blob read: 503") == ["12:00:41 UTC", "not read: blob read: 503"]


def test_what_was_asked_for_by_hand_is_told_with_its_end() -> None:
    """Who wants a VM out, until when and why; a roll with what is left; nothing of what is over."""
    request = Request(
        request_id="R",
        vm="web-2",
        reason="patching",
        by="ann on web-1",
        at=NOON,
        until=NOON + timedelta(minutes=30),
    )
    over = replace(request, request_id="S", vm="web-3", until=NOON)
    roll = Roll(
        roll_id="L",
        what="reboot",
        vms=("web-2", "web-3"),
        done=("web-2",),
        by="ben",
        at=NOON,
        runner="x",
        failed="web-3: the command ended with exit code 1",
    )
    requests = Requests(requests=(request, over), roll=roll)
    console = Console(width=120, markup=False)
    with console.capture() as captured:
        print_status(console, replace(look(), requests=requests), dry_run=False)
    lines = captured.get().splitlines()
    (asked,) = [line for line in lines if line.startswith("asked for by hand")]
    assert asked.endswith("web-2 until 2030-01-01 12:30 UTC, by ann on web-1 (patching)")
    assert (
        "roll by ben (reboot): stopped, web-3: the command ended with exit code 1; left: web-3"
        in lines
    )
    ended = replace(roll, ended_at=NOON)
    with console.capture() as captured:
        print_status(console, replace(look(), requests=Requests(roll=ended)), dry_run=False)
    assert "roll" not in captured.get()
    assert [each["vm"] for each in replace(look(), requests=requests).as_json()["requests"]] == [  # type: ignore[index, attr-defined]
        "web-2"
    ]
