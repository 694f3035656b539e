"""What the demo draws: the set, its events, the requests, and what came of it."""

import io
import re
import time
from dataclasses import replace

import pytest
from rich.console import Console

from controller.simulator.app.demo import EventResult, Flows, Progress, Result
from controller.simulator.app.demo_screen import NEXT_STEPS, TITLE, Screen, summarise
from controller.simulator.traffic.load import Counts, Kind, KindCounts
from controller.simulator.world.builder import build_world
from controller.simulator.world.world import World

DRAINED = EventResult(
    event_type="Reboot",
    vm="web-1",
    was_leader=True,
    notice_s=600,
    lead_time_s=587.6,
    out_of_rotation_s=42,
    acknowledged=True,
)
MISSED = EventResult(
    event_type="Freeze",
    vm="web-2",
    was_leader=False,
    notice_s=0,
    lead_time_s=None,
    out_of_rotation_s=0,
    acknowledged=False,
)


def counted(sent: int, lost: int, streams_lost: int = 0) -> Counts:
    """Counts of short clients and of 20 messages on streams."""
    return Counts(
        by_kind={
            Kind.SHORT: KindCounts(sent - 20, sent - 20 - lost, lost),
            Kind.STREAM: KindCounts(20, 20 - streams_lost, streams_lost),
        }
    )


RESULT = Result(
    clients="mixed",
    flows="drop",
    requests=counted(1000, 0),
    requests_without=counted(1001, 70, 7),
    events=(DRAINED, MISSED),
    memberships_restored=True,
    leader_changes=1,
    duration_s=61.23,
)


@pytest.fixture
def world() -> World:
    return build_world(now=time.time(), vms=3)


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=160, color_system=None), out


def progress(world: World, headline: str = "Reboot of web-1") -> Progress:
    return Progress(
        world=world,
        leader="web-2",
        headline=headline,
        done=1,
        groups=3,
        counts=counted(500, 0),
        counts_without=counted(501, 66),
    )


def summary(result: Result, *, with_controller: bool = True) -> str:
    drawn, out = console(terminal=False)
    summarise(drawn, result, with_controller=with_controller)
    return out.getvalue()


def test_a_terminal_shows_the_set_its_events_and_the_requests(world: World) -> None:
    """The screen shows members, leader, events and lost requests with and without agents."""
    world.remove_membership(world.pool_ids()[0], world.nic("web-1-nic")["id"])
    world.events.schedule("Reboot", "web-1", notice_s=300)
    world.events.schedule("Freeze", "web-3", started_first=True)
    world.advance(time.time() + 1)
    drawn, out = console(terminal=True)
    with Screen(drawn) as screen:
        screen.show(progress(world))
    shown = out.getvalue()
    assert "Reboot of web-1" in shown
    rows = [line for line in shown.splitlines() if "standby" in line or "leader" in line]
    assert ["out" in row for row in rows] == [True, False, False]
    assert ["leader" in row for row in rows] == [False, True, False]
    assert "frozen" in rows[2]
    assert re.search(r"Reboot +web-1 +Scheduled +\d+ s", shown)
    assert re.search(r"Freeze +web-3 +Started +\n", shown)
    assert "66" in next(line for line in shown.splitlines() if "without it" in line)
    assert "1/3" in shown


def test_a_pipe_gets_a_line_per_headline(world: World) -> None:
    """Without a terminal there is one line for each headline, below a title."""
    drawn, out = console(terminal=False)
    with Screen(drawn) as screen:
        for headline in ("starting", "starting", "done"):
            screen.show(progress(world, headline))
    lines = out.getvalue().splitlines()
    assert lines[-2:] == ["starting (sent 500, lost 0)", "done (sent 500, lost 0)"]
    assert sum("sent 500" in line for line in lines) == 2
    assert lines[0] == TITLE


def test_the_summary_compares_with_the_twin() -> None:
    """The summary compares both sets, and shows restored memberships and each event."""
    shown = summary(RESULT)
    for text in (
        "with the controller:    0 of 1000 requests lost",
        "without the controller: 77 of 1001 requests lost",
        "saved:                  77 requests",
        "yes, all",
        "leader changes:         1",
        "587.6 s",
        "42.0 s",
    ):
        assert text in shown
    assert "lost: with" not in shown
    assert " ".join(shown.split()).endswith(NEXT_STEPS)
    assert "NO" in summary(replace(RESULT, memberships_restored=False))
    assert "scale set" not in shown


@pytest.mark.parametrize(
    ("converted", "said"), [(True, "the agents continued in it"), (False, "did NOT continue")]
)
def test_the_summary_of_a_conversion(converted: bool, said: str) -> None:
    """A set that was converted is a success only if the agents continued in it."""
    result = replace(RESULT, converted=converted)
    shown = summary(result)
    assert "converted to scale set:" in shown
    assert said in shown
    assert result.good is converted
    assert result.as_json()["converted"] is converted


@pytest.mark.parametrize("flows", ["keep", "drop", "reset"])
def test_the_summary_explains_losses(flows: Flows) -> None:
    """Requests that were lost although the VM was removed in time are explained."""
    assert f"lost: with --flows {flows}" in summary(
        replace(RESULT, requests=counted(1000, 3), flows=flows)
    )


def test_the_summary_shows_the_losses_of_each_kind() -> None:
    """A table has the lost requests of each kind of client, with the controller and without it."""
    shown = summary(RESULT)
    assert "--clients mixed" in shown
    rows = [line for line in shown.splitlines() if " of " in line and "│" in line]
    assert [re.findall(r"\d+ of \d+", row) for row in rows] == [
        ["0 of 980", "70 of 981"],
        ["0 of 20", "7 of 20"],
    ]


def test_the_summary_without_a_controller_has_a_hint() -> None:
    """Without agents there is one figure and the command to compare."""
    shown = summary(replace(RESULT, requests=counted(1000, 77)), with_controller=False)
    assert "without the controller: 77 of 1000 requests lost" in shown
    assert "77 of 980" in shown
    assert "saved" not in shown


def test_the_result_as_json() -> None:
    """`--json` has the values of the tables; success means no loss and all memberships restored."""
    shown = RESULT.as_json()
    assert (shown["clients"], shown["flows"]) == ("mixed", "drop")
    assert shown["requests"] == {
        "sent": 1000,
        "lost": 0,
        "by_kind": {"short": {"sent": 980, "lost": 0}, "stream": {"sent": 20, "lost": 0}},
    }
    without = shown["requests_without_controller"]
    assert (without["sent"], without["lost"]) == (1001, 77)
    assert without["by_kind"]["stream"] == {"sent": 20, "lost": 7}
    assert [each["vm"] for each in shown["events"]] == ["web-1", "web-2"]
    assert (shown["leader_changes"], shown["duration_s"]) == (1, 61.2)
    assert RESULT.good
    assert not replace(RESULT, requests=counted(1000, 1)).good
    assert not replace(RESULT, memberships_restored=False).good
