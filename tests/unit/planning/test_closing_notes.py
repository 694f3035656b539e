"""The lines of the history about the VM's own side, and the connections that a drain cuts."""

from dataclasses import replace
from typing import Any

import pytest

from controller.core.drain_history import Step
from controller.core.vm_report import HookOutcome, VmState
from tests.support.planner_scenario import PlannerScenario, at, event, started
from tests.unit.planning.test_closing import closing, quiet, report

__all__ = ["closing"]

CUT = "connections cut"
ABOUT = (Step.CLOSED, Step.OPENED)


def noted(scene: PlannerScenario, *steps: Step) -> list[tuple[str, str, str]]:
    """Return the lines of the history with these steps, of the VM's own side if none is given."""
    wanted = steps or ABOUT
    return [(x.vm, x.step, x.detail) for x in scene.ledger.transitions if x.step in wanted]


def restored(scene: PlannerScenario) -> None:
    """Let web-1 be back in its pools."""
    scene.now, scene.events = 400, []
    entry = replace(scene.entry(), out_at=None, restoring_at=at(360), restored_at=at(380))
    scene.ledger = scene.ledger.with_entry(entry)


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({}, "1 connection left"),
        ({"connections": 12}, "12 connections left"),
        ({"connections": 0, "quiet_since": at(2)}, "quiet"),
        ({"counted": False}, "connections not counted"),
    ],
)
def test_a_vm_that_closes_is_noted_once(
    closing: PlannerScenario, fields: dict[str, Any], left: str
) -> None:
    """Whatever it reports later, one ledger write tells every standby that it is closed."""
    closing.now = 3
    closing.through(**report(closing, **fields))
    assert noted(closing) == [("web-1", "closed", left)]
    closing.now = 4
    assert closing.plan(**report(closing, connections=40)).ledger is None


def test_a_vm_that_opens_again_is_noted_once(closing: PlannerScenario) -> None:
    """The line comes before the one that ends the episode."""
    closing.through(**report(closing))
    restored(closing)
    closing.through(**report(closing, state=VmState.OPENING))
    assert len(noted(closing)) == 1
    closing.through(**report(closing, state=VmState.OPEN))
    steps = [line.step for line in closing.ledger.transitions[-3:]]
    assert steps == ["closed", "opened", "in service"]


@pytest.mark.parametrize("state", [VmState.OPEN, VmState.OPENING])
def test_a_vm_that_did_not_close_is_not_noted(closing: PlannerScenario, state: VmState) -> None:
    """A VM whose flag could not be written reports that it is open: it did not open."""
    closing.adopt(**report(closing, state=state))
    assert noted(closing) == []


@pytest.mark.parametrize("fields", [{"drain": at(-900)}, {"at": at(-60)}])
def test_a_report_of_another_time_notes_nothing(
    closing: PlannerScenario, fields: dict[str, Any]
) -> None:
    """A report of an earlier drain, or one that is old, is about another closing."""
    closing.adopt(**report(closing, **fields))
    assert noted(closing) == []


def test_lines_that_the_history_has_dropped_are_not_noted_again(closing: PlannerScenario) -> None:
    """H1: a bounded history must not make every pass write the ledger."""
    closing.ledger = replace(closing.ledger, transitions=())
    assert closing.plan(**report(closing)).ledger is None


def test_a_vm_that_is_put_back_closes_again(closing: PlannerScenario) -> None:
    """A new record is another drain, with a report and a line of its own."""
    closing.through(**report(closing))
    closing.now = 60
    again = replace(closing.entry(), recorded_at=at(60))
    closing.ledger = closing.ledger.with_entry(again).noting(
        at=at(60), vm="WEB-1", step=Step.PUT_BACK
    )
    closing.through(**report(closing))
    assert len(noted(closing)) == 2


def test_the_phase_shows_what_the_agent_reports(closing: PlannerScenario) -> None:
    """Closed since, connections left, refused probes, hook, problem, and the latest removal."""
    closing.now = 5
    fields = {
        "refused_probes": 1,
        "hook": HookOutcome.FAILED,
        "problem": "hook closing: exit code 3",
    }
    why = closing.plan(**report(closing, **fields)).phases[0].why
    assert why == (
        f"closed since {at(1):%H:%M:%S} UTC, 1 connection left, 1 probes refused, hook failed, "
        f"hook closing: exit code 3; it is removed at {at(31):%H:%M:%S} UTC at the latest"
    )


# --- connections cut ---


@pytest.mark.parametrize(("connections", "detail"), [(0, ""), (1, f"{CUT}: 1"), (7, f"{CUT}: 7")])
def test_a_removal_states_the_connections_that_were_left(
    closing: PlannerScenario, connections: int, detail: str
) -> None:
    """The line that the VM is out has the number of the last report."""
    closing.now = 40
    last = report(closing, connections=connections)
    closing.inside["web-1"] = []
    closing.through(**last)
    assert noted(closing, Step.OUT) == [("web-1", "out", detail)]


def test_a_quiet_vm_cuts_nothing(closing: PlannerScenario) -> None:
    """What is quiet has nothing left, and what was not counted is not stated."""
    closing.now, closing.inside["web-1"] = 40, []
    closing.through(**quiet(closing))
    assert noted(closing, Step.OUT) == [("web-1", "out", "")]


def test_a_removal_after_the_start_cut_nothing_more(closing: PlannerScenario) -> None:
    """The start of the event cut the connections, and its line states them."""
    closing.now, closing.inside["web-1"] = 40, []
    closing.events = [started()]
    closing.through(**report(closing))
    assert noted(closing, Step.OUT) == [("web-1", "out", "")]


def test_the_event_of_two_vms_notes_both(scene: PlannerScenario) -> None:
    """Each VM that reports has its own line."""
    scene.policy = replace(scene.policy, close=True)
    scene.events = [event("web-1", "web-2")]
    scene.adopt()
    both = report(scene)["reports"]
    seen = both["web-1"]
    other = replace(seen, report=replace(seen.report, vm="web-2", connections=3))
    scene.through(reports={**both, "web-2": other})
    assert noted(scene) == [
        ("web-1", "closed", "1 connection left"),
        ("web-2", "closed", "3 connections left"),
    ]
