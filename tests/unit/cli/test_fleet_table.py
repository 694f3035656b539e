"""The output of `lb-drain fleet`: what a person and a script read."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from controller.cli.fleet_table import LINES_BESIDE_ROWS, print_fleet, screen_rows
from controller.core.event_record import Verdict, WatchedVm
from controller.core.fleet import SetSummary, in_order_of_attention, summarise, unreadable
from controller.fleet.fleet_json import fleet_json
from controller.fleet.reader import ContainerResult, Fleet
from tests.support.simulated_fleet import (
    STATES,
    SimulatedSet,
    base,
    draining,
    entry,
    event,
    idle,
    verdict,
)

NOW = datetime(2030, 1, 2, 12, tzinfo=UTC)
URL = "https://account.blob.core.windows.net/lb-drain"


def row(found: SimulatedSet, written_at: datetime | None = NOW) -> SetSummary:
    return summarise(
        found.ledger,
        lease_state="leased" if found.led else "available",
        container_url=URL,
        blob=found.blob,
        written_at=written_at,
        now=NOW,
    )


def fleet(*rows: SetSummary, **container: object) -> Fleet:
    result = ContainerResult(url=URL, **container)  # type: ignore[arg-type]
    return Fleet(at=NOW, sets=in_order_of_attention(rows), containers=(result,), took_s=0.1)


def printed(found: Fleet, *, width: int = 400, rows: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_fleet(console, found, rows=rows)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def every_state() -> Fleet:
    return fleet(*(row(make(f"web-{n}", "rg", NOW)) for n, make in enumerate(STATES)))


@pytest.mark.parametrize("width", [400, 80])
def test_every_set_and_its_reason_are_shown(width: int) -> None:
    """No name and no reason is cut, on a wide screen and on a narrow one."""
    found = every_state()
    text = printed(found, width=width)
    words = "".join(text.split())
    for each in found.sets:
        assert "".join(str(each.name).split()) in words
        for problem in each.problems[:1]:
            assert "".join(problem.text.split()) in words
    assert "9 sets: 2 critical, 4 warning, 2 notice; read at 12:00:00 UTC" in text
    assert max(map(len, text.splitlines())) <= width


def test_a_row_has_what_is_known_of_a_set() -> None:
    """Leader, VMs out, next event with its time, and how old the last write is."""
    line = printed(fleet(row(draining("web", "rg", NOW), NOW - timedelta(minutes=3))))
    cells = line.splitlines()[1].split("  ")
    assert [each.strip() for each in cells if each.strip()] == [
        "web (rg)",
        "web-vm1",
        "web-vm2",
        "Reboot web-vm2 in 9 min",
        "3 min ago",
        "out of rotation or on the way: web-vm2 (+1)",
    ]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, "Reboot a in 20 min"),
        ({"not_before": NOW + timedelta(seconds=119)}, "Reboot a in 119 s"),
        ({"not_before": NOW + timedelta(hours=2)}, "Reboot a in 2 h"),
        ({"not_before": NOW + timedelta(days=2)}, "Reboot a in 2 d"),
        ({"not_before": NOW}, "Reboot a due"),
        ({"not_before": None}, "Reboot a at any time"),
        ({"started_at": NOW}, "Reboot a started"),
        ({"vms": tuple(WatchedVm(vm=each) for each in "abc")}, "Reboot 3 VMs in 20 min"),
    ],
)
def test_an_event_is_shown_with_its_time(change: dict[str, object], text: str) -> None:
    """A duration has one unit; an event that is due or has started is marked as such."""
    watched = replace(event("a", NOW, minutes=20), **change)  # type: ignore[arg-type]
    ledger = replace(base("web", "rg", NOW), events=(watched,))
    assert f"{text} " in printed(fleet(row(SimulatedSet(name="w", group="g", ledger=ledger))))


def test_many_vms_are_counted_and_an_odd_time_is_zero() -> None:
    """Three VMs are a number; a write of the future was just now; an unknown time is empty."""
    ledger = base("web", "rg", NOW)
    for vm in "abc":
        ledger = ledger.with_entry(entry(vm, "rg", NOW))
    ledger = replace(ledger, verdicts=(verdict("a", NOW, Verdict.DRAINED, hours=3),))
    found = SimulatedSet(name="web", group="rg", ledger=ledger)
    text = printed(fleet(row(found, NOW + timedelta(hours=1))))
    assert " 3 VMs " in text
    assert " 0 s ago" in text
    assert "drained a 3 h ago" in text
    assert " ago" not in printed(fleet(row(replace(found, ledger=base("w", "g", NOW)), None)))


def test_agents_are_counted() -> None:
    """Those that run, of those that are known; without any presence nothing is shown."""
    seen = replace(row(idle("web", "rg", NOW)), agents_seen=("a", "b"), agents_silent=("c",))
    assert " 2 of 3 " in printed(fleet(seen))
    assert " of " not in printed(fleet(row(idle("web", "rg", NOW))))


def test_the_rest_is_counted_when_the_screen_is_full() -> None:
    """The most urgent sets stay on the screen."""
    text = printed(every_state(), rows=2)
    assert "not shown: 7 less urgent" in text
    assert "no leader" in text
    assert "web-0 (rg)" not in text


def test_as_many_rows_as_fit_a_screen() -> None:
    """A pipe has no end; a narrow screen needs two lines for a set."""
    pipe = Console(file=io.StringIO(), width=200)
    assert screen_rows(pipe) is None
    wide = Console(file=io.StringIO(), force_terminal=True, width=200, height=30)
    assert screen_rows(wide) == 30 - LINES_BESIDE_ROWS
    narrow = Console(file=io.StringIO(), force_terminal=True, width=80, height=30)
    assert screen_rows(narrow) == (30 - LINES_BESIDE_ROWS) // 2
    tiny = Console(file=io.StringIO(), force_terminal=True, width=80, height=3)
    assert screen_rows(tiny) == 1


def test_containers_with_problems_come_first() -> None:
    """A container that cannot be listed, and one with too many blobs, are reported.

    Nothing is said about sets that nobody has read.
    """
    text = printed(fleet(problem="container listing: 403"))
    assert text.startswith(
        f"{URL} cannot be listed: container listing: 403\n0 sets: 1 container not"
    )
    many = printed(fleet(row(idle("web", "rg", NOW)), not_shown=7))
    assert many.startswith(f"{URL}: 7 more blobs are not shown\n")
    assert "1 set: no set needs attention" in many


def test_text_of_a_container_does_not_reach_the_terminal() -> None:
    """Escape sequences and markup in a name or a reason are shown as text."""
    bad = unreadable("\x1b[2J[red]x", container_url=URL, blob="\x1b]0;t\x07", written_at=None)
    text = printed(fleet(bad, problem="\x1b[2J"))
    assert "\x1b" not in text
    assert "[red]x" in text


def test_json_has_the_documented_keys() -> None:
    """Every state can be written as JSON, with the same keys for every set."""
    found = fleet_json(every_state())
    assert json.loads(json.dumps(found)) == found
    assert found["version"] == 1
    sets = found["sets"]
    assert isinstance(sets, list)
    assert len({frozenset(each) for each in sets}) == 1
    first = sets[0]
    assert (first["attention"], first["readable"]) == ("critical", True)
    assert {each["reason"] for each in sets[0]["problems"]} <= {"at_risk", "held", "announced"}
    lost = fleet_json(fleet(unreadable("why", container_url=URL, blob="b", written_at=None)))
    assert lost["sets"][0]["silence_s"] is None  # type: ignore[index]
    assert set(lost["sets"][0]) == set(first)  # type: ignore[index]
