"""What `lb-drain status` prints of an overview, on a terminal of 80 columns and in a pipe."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console

from controller.cli.overview_tables import ALARM, countdown, phase_text, print_vms
from controller.cli.set_reads import Reading
from controller.cli.status import print_reading
from controller.core.agent_presence import AgentPresence, SeenAgent
from controller.core.controls import Controls, Pause
from controller.core.drain_history import Step
from controller.core.drain_requests import DrainRequest, RollingRun
from controller.core.event_progress import SeenEvent
from controller.core.event_record import EventVerdict, Verdict
from controller.core.events import EventStatus, ScheduledEvent
from controller.core.ledger import Hold, Ledger
from controller.core.planning.actions import Phase
from controller.core.vm_report import VmReport, VmState
from controller.status.overview import overview
from controller.status.snapshot import AgentHealth, AgentSnapshot
from tests.unit.status.test_overview import EVENT, LEDGER, NOW, entry, facts, leader

PIPE = 2000


def agent(vm: str, *, age_s: float = 5, **changes: Any) -> SeenAgent:
    given: dict[str, Any] = {
        "vm": vm,
        "release": "1.2.3",
        "configuration": "abc",
        "started_at": NOW,
        "at": NOW - timedelta(seconds=age_s),
    }
    return SeenAgent(vm=vm, presence=AgentPresence(**{**given, **changes}))


AGENTS = (agent("web-1"), agent("web-2"), agent("web-3", age_s=720))


def lines(snapshot: AgentSnapshot, *, width: int = PIPE, **reading: Any) -> list[str]:
    console = Console(width=width, markup=False)
    with console.capture() as captured:
        print_reading(console, Reading(overview=overview(snapshot), **reading))
    return [line.rstrip() for line in captured.get().split("\n")]


def row(shown: list[str], vm: str) -> list[str]:
    """Return the cells of the first line of a VM's row."""
    (found,) = [line for line in shown if line.startswith(f" {vm}  ")]
    return [cell.strip() for cell in found.split("   ") if cell.strip()]


def test_every_vm_has_its_agent_pools_phase_and_event() -> None:
    """One table answers the first questions of the person on call."""
    shown = lines(leader(agents=AGENTS))
    assert shown[0] == "availability set web, read at 12:00:00 UTC"
    assert shown[1] == "leader: web-1, for 1 min 30 s   lease: leased   epoch: 7"
    assert row(shown, "web-1")[:3] == ["web-1", "leader", "1.2.3, 5 s ago"]
    assert row(shown, "web-2")[1:] == [
        "standby", "1.2.3, 5 s ago", "lb/app out", "out", "Reboot in 20:00", "-"
    ]  # fmt: skip
    assert row(shown, "web-3")[1:3] == ["not running", "1.2.3, 12 min ago"]
    assert "web-3: the agent does not run, seen 12 min 0 s ago" in shown


def test_the_controls_of_the_set_come_first() -> None:
    """Each with author and end, and why they cannot be read."""
    pause = Pause(by="ann", reason="", at=NOW, until=NOW + timedelta(hours=1))
    before = leader(agents=AGENTS, controls_problem="it is garbage")
    paused = replace(before, health=replace(before.health, controls=Controls(pause=pause)))
    assert lines(paused)[2:4] == [
        f"control: {pause}",
        "the controls of the set cannot be read: it is garbage",
    ]


def test_agents_that_differ_are_named() -> None:
    """A set that is half upgraded, or whose configurations differ, shows it."""
    mixed = (agent("web-1"), agent("web-2", release="1.3", configuration="def"))
    shown = lines(leader(agents=mixed))
    assert "the agents have different configurations: abc on web-1; def on web-2" in shown
    assert "the agents have different versions: 1.2.3 on web-1; 1.3 on web-2" in shown
    assert not [line for line in lines(leader(agents=AGENTS)) if "different" in line]


def test_an_agent_that_is_not_ready_is_named() -> None:
    """It runs, and does not do its work."""
    shown = lines(leader(agents=(agent("web-2", problem="the event document is unread"),)))
    assert "web-2: the agent is not ready: the event document is unread" in shown


def test_agents_that_cannot_be_read_are_named_once() -> None:
    """Storage that does not answer is one reason, not one line for each VM."""
    away = tuple(SeenAgent(vm=f"web-{n}", problem="blob read: 503") for n in (2, 3))
    shown = lines(leader(agents=away))
    assert "web-2, web-3: unknown whether the agent runs: blob read: 503" in shown
    assert row(shown, "web-2")[1] == "unknown"


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_cut_on_a_terminal(width: int) -> None:
    """Cells wrap; no line is longer than the terminal, and no name is shortened."""
    shown = lines(leader(agents=AGENTS), width=width)
    assert max(map(len, shown)) <= width
    assert "…" not in "".join(shown)


@pytest.mark.parametrize("phase", Phase)
def test_a_phase_stays_whole_on_a_narrow_terminal(phase: Phase) -> None:
    """The other columns wrap at words; a phase has the name by which the documents find it."""
    shown = overview(leader(agents=AGENTS))
    shown["vms"] = [{**vm, "phase": phase.value} for vm in shown["vms"]]
    console = Console(width=80, markup=False)
    with console.capture() as captured:
        print_vms(console, shown)
    printed = captured.get()
    assert printed.count(f" {phase_text(phase.value)} ") >= len(shown["vms"])
    assert max(map(len, printed.splitlines())) <= 80


def test_holds_have_their_result_and_remedy() -> None:
    """The rule alone does not help at 2 a.m."""
    floor = Hold(subject="web-2", reason="floor", message="web-2 stays", since=NOW)
    ledger = replace(LEDGER, holds=(floor,))
    shown = lines(leader(ledger=ledger, plan=None))
    place = shown.index("  web-2 stays (floor, since 12:00:00 UTC)")
    assert shown[place + 1].startswith("    result: the Reboot can begin at 12:20:00 UTC")
    assert shown[place + 2].startswith("    remedy: add members to the pool")


def test_the_view_of_an_agent_is_stated_as_such() -> None:
    """Above everything else, as is a dry run."""
    shown = lines(leader(), problem="the set cannot be read: 503", dry_run=True)
    assert shown[0].startswith("dry run: the agent on this VM writes nothing")
    assert shown[1] == "the set cannot be read: 503"


def test_history_and_verdicts_are_one_story() -> None:
    """Ordered by time; the last ten lines, and where the others are."""
    verdict = EventVerdict(
        at=NOW + timedelta(seconds=30), vm="web-2", event_id="E-1", event_type="Reboot",
        verdict=Verdict.HIT_IN_ROTATION, why="the floor",
    )  # fmt: skip
    ledger = Ledger(verdicts=(verdict,))
    for minute in range(12):
        ledger = ledger.noting(at=NOW + timedelta(minutes=minute), vm="web-1", step=Step.OUT)
    shown = lines(leader(ledger=ledger))
    place = shown.index("history (UTC, the last 10 lines; lb-drain history shows all):")
    assert len([line for line in shown[place + 1 :] if line]) == 10
    ledger = replace(ledger, transitions=ledger.transitions[:2])
    shown = lines(leader(ledger=ledger))
    place = shown.index("history (UTC):")
    assert shown[place + 1 : place + 4] == [
        "  2030-01-01 12:00:00  web-1: out of rotation",
        "  2030-01-01 12:00:30  web-2: verdict on the Reboot: hit in rotation: the floor",
        "  2030-01-01 12:01:00  web-1: out of rotation",
    ]


def test_events_show_what_happens_if_nothing_changes() -> None:
    """Each VM of each event has a sentence."""
    shown = lines(leader())
    place = shown.index("scheduled events:")
    assert shown[place + 1].startswith("  Reboot of web-2 in 20:00, NotBefore 2030-01-01 12:20:00")
    assert shown[place + 2] == "    web-2 is out of rotation: the Reboot finds no client on it"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"status": EventStatus.STARTED, "not_before": None}, "Reboot started"),
        ({"not_before": None}, "Reboot at any moment"),
        ({"event_type": "Freeze", "duration_s": 2}, "Freeze ignored"),
        ({"not_before": NOW}, "Reboot due now"),
    ],
)
def test_an_event_in_the_table(changes: dict[str, Any], text: str) -> None:
    """With its state, or the time that is left."""
    event = replace(EVENT, **changes)
    shown = lines(leader(seen_events=(SeenEvent(event=event, first_seen_at=NOW),)))
    assert row(shown, "web-2")[-2] == text


def test_the_event_that_counts_comes_first() -> None:
    """Before one that is ignored; the number of others is shown."""
    short = ScheduledEvent(
        event_id="E-0", event_type="Freeze", status=EventStatus.SCHEDULED,
        resources=("web-2",), not_before=NOW, duration_s=2,
    )  # fmt: skip
    seen = tuple(SeenEvent(event=each, first_seen_at=NOW) for each in (short, EVENT))
    assert row(lines(leader(seen_events=seen)), "web-2")[-2] == "Reboot in 20:00 (+1)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "due now"),
        (0, "due now"),
        (9, "in 0:09"),
        (724, "in 12:04"),
        (3600, "in 1:00:00"),
        (86_399, "in 23:59:59"),
        (86_400, "in 1 d 0 h"),
        (273_600, "in 3 d 4 h"),
    ],
)
def test_a_countdown_reads_like_a_clock(seconds: float, text: str) -> None:
    """For days, hours are enough."""
    assert countdown(seconds) == text


@pytest.mark.parametrize(
    ("age_s", "text"),
    [(-3, "0 s"), (59, "59 s"), (60, "1 min"), (3600, "1 h"), (90_000, "1 d")],
)
def test_the_age_of_an_agent_is_short(age_s: float, text: str) -> None:
    """It fits into its column on a narrow terminal."""
    shown = lines(leader(agents=(agent("web-2", age_s=age_s),)))
    assert row(shown, "web-2")[2] == f"1.2.3, {text} ago"


def test_manual_drains_and_rolling_runs_are_listed() -> None:
    """A request with user, end and reason; a rolling run with its remaining VMs; no ended ones."""
    request = DrainRequest(
        request_id="R", vm="web-2", reason="patching", by="ann on web-1",
        at=NOW, until=NOW + timedelta(minutes=30),
    )  # fmt: skip
    over = replace(request, request_id="S", vm="web-3", until=NOW)
    roll = RollingRun(
        run_id="L", what="reboot", vms=("web-2", "web-3"), done=("web-2",), by="ben", at=NOW,
        process_id="x", failed="web-3: exit code 1",
    )  # fmt: skip
    shown = lines(leader(drain_requests=(request, over), rolling_run=roll))
    (drain,) = [line for line in shown if line.startswith("manual drain requested")]
    assert drain.endswith("web-2 until 2030-01-01 12:30 UTC, by ann on web-1 (patching)")
    assert "rolling run by ben (reboot): stopped, web-3: exit code 1; remaining: web-3" in shown
    ended = lines(leader(rolling_run=replace(roll, ended_at=NOW)))
    assert not [line for line in ended if line.startswith("rolling run")]


def test_a_closed_vm_is_shown_with_its_report() -> None:
    """The line below the table has what its agent reports, the table the connections left."""
    report = VmReport(
        vm="web-2", boot_id="b", state=VmState.CLOSED, since=NOW, at=NOW,
        drain=entry().recorded_at, counted=True, connections=2, problem="hook closing: [red]",
    )  # fmt: skip
    shown = lines(leader(reports={"web-2": report}))
    line = "web-2: closed since 12:00:00 UTC, 2 connections left, hook closing: [red]"
    assert line.casefold() in [each.casefold() for each in shown]
    assert row(shown, "web-2")[-1] == "2"


@pytest.mark.parametrize("text", ["\x1b[2J\x1b]0;owned\x07", "a\nleader: web-9", "\u202eweb-9"])
def test_what_a_blob_contains_is_printed_as_data(text: str) -> None:
    """An identity that can write the container sends no escape sequence and no line of its own."""
    request = DrainRequest(
        request_id="R", vm=f"web-2{text}", reason=text, by=text,
        at=NOW, until=NOW + timedelta(minutes=30),
    )  # fmt: skip
    roll = RollingRun(
        run_id="L", what=text, vms=("web-2",), done=(), by=text, at=NOW, process_id="x",
        failed=text,
    )  # fmt: skip
    verdict = EventVerdict(
        at=NOW, vm=f"web-2{text}", event_id=text, event_type=text, verdict=text, why=text
    )
    ledger = replace(
        LEDGER,
        holds=(Hold(subject=f"web-2{text}", reason="floor", message=text, since=NOW),),
        verdicts=(verdict,),
    ).noting(at=NOW, vm=f"web-2{text}", step=Step.REQUESTED, detail=text)
    event = replace(EVENT, event_type=text, event_id=text, resources=(f"web-2{text}",))
    shown = lines(
        leader(
            plan=None,
            ledger=ledger,
            drain_requests=(request,),
            rolling_run=roll,
            seen_events=(SeenEvent(event=event, first_seen_at=NOW),),
            agents=(agent(f"web-2{text}", release=text, configuration=text, problem=text),),
            peers=(f"web-2{text}",),
        ),
        problem=text,
    )
    assert not any(ord(each) < ord(" ") or each == "\u202e" for line in shown for each in line)
    assert len([line for line in shown if line.startswith("leader:")]) == 1


def test_an_alarm_is_red() -> None:
    """On a terminal with colours; the words alone must do without."""
    assert ALARM == "bold red"


# --- what is unknown is not none -----------------------------------------------------------------


def test_an_agent_that_has_just_been_started_knows_nothing() -> None:
    """Nothing that was not read is shown as none."""
    shown = lines(facts(), problem="storage does not answer")
    assert "leader: unknown   lease: unknown   epoch: -" in shown
    assert "scheduled events: unknown, because the agent has not read them yet" in shown
    assert "holds: unknown, because the ledger was not read yet" in shown
    assert "history: unknown, because the ledger was not read yet" in shown
    assert not [line for line in shown if "none" in line]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"document_age_s": 60.0, "failed_polls": 3}, ""),
        ({"document_age_s": 7500.0}, "they were last read 2 h ago"),
        (
            {"document_age_s": None, "failed_polls": 2},
            "the metadata service cannot be read on web-1",
        ),
        ({"document_age_s": None}, "the agent has not read them yet"),
        ({"document_age_s": None, "health": AgentHealth(role="command")}, ""),
        (
            {
                "document_age_s": None,
                "health": AgentHealth(role="command"),
                "lease_state": "available",
            },
            "no agent leads, and a leader records them",
        ),
    ],
)
def test_events_that_may_be_missing(changes: dict[str, Any], why: str) -> None:
    """Those that are known are shown all the same, with why there may be more."""
    some, none = lines(leader(**changes)), lines(leader(**changes, seen_events=()))
    assert f"scheduled events{f' (maybe not all, because {why})' if why else ''}:" in some
    assert f"scheduled events: {f'unknown, because {why}' if why else 'none'}" in none
