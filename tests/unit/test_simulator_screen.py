"""What the demo draws: the set, its events, the requests, and what came of it."""

import io
import re
import time
from dataclasses import replace

import pytest
from rich.console import Console

from controller.simulator.clients import Counts
from controller.simulator.demo import EventResult, Progress, Result
from controller.simulator.screen import Screen, summarise
from controller.simulator.world import World, build_world

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
RESULT = Result(
    sent=1000,
    lost=0,
    sent_without=1001,
    lost_without=77,
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
        counts=Counts(sent=500, ok=499, lost=0),
        counts_without=Counts(sent=501, ok=400, lost=66),
    )


def summary(result: Result, *, with_controller: bool = True, flows: str = "keep") -> str:
    drawn, out = console(terminal=False)
    summarise(drawn, result, with_controller=with_controller, flows=flows)
    return out.getvalue()


def test_a_terminal_shows_the_set_its_events_and_the_requests(world: World) -> None:
    """Who is in which pool, who leads, what is announced, and what is lost on either side."""
    world.remove_membership(world.pool_ids()[0], world.nic("web-1-nic")["id"])
    world.schedule_event("Reboot", "web-1", notice_s=300)
    world.schedule_event("Freeze", "web-3", started_first=True)
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
    """Where there is no terminal nothing is redrawn: one line when the headline changes."""
    drawn, out = console(terminal=False)
    with Screen(drawn) as screen:
        for headline in ("starting", "starting", "done"):
            screen.show(progress(world, headline))
    assert out.getvalue() == "starting (sent 500, lost 0)\ndone (sent 500, lost 0)\n"


def test_the_summary_compares_with_the_twin() -> None:
    """What was lost, what would have been, whether all is as before, and every event's figures."""
    shown = summary(RESULT)
    for text in (
        "with the controller:    0 of 1000 requests lost",
        "without the controller: 77 of 1001 requests lost",
        "saved:                  77 requests",
        "yes, all of them",
        "leader changes:         1",
        "587.6 s",
        "42.0 s",
    ):
        assert text in shown
    assert "--flows" not in shown
    assert "NO" in summary(replace(RESULT, memberships_restored=False))


def test_the_summary_tells_what_no_controller_can_prevent() -> None:
    """Requests that the load balancer itself broke are explained, not hidden."""
    broken = replace(RESULT, lost=3)
    assert "no controller can prevent" in summary(broken, flows="reset")
    assert "no controller can prevent" not in summary(broken)


def test_the_summary_without_a_controller_says_how_to_compare() -> None:
    """Without agents there is one figure, and a hint."""
    shown = summary(replace(RESULT, lost=77), with_controller=False)
    assert "without the controller: 77 of 1000 requests lost" in shown
    assert "saved" not in shown


def test_the_result_as_json() -> None:
    """`--json` prints what the tables show, and success is nothing lost and all restored."""
    shown = RESULT.as_json()
    assert shown["requests"] == {"sent": 1000, "lost": 0}
    assert shown["requests_without_controller"] == {"sent": 1001, "lost": 77}
    assert [each["vm"] for each in shown["events"]] == ["web-1", "web-2"]
    assert (shown["leader_changes"], shown["duration_s"]) == (1, 61.2)
    assert RESULT.good
    assert not replace(RESULT, lost=1).good
    assert not replace(RESULT, memberships_restored=False).good
