"""What the parts of the planner yield for one VM or event, step by step."""

from dataclasses import replace

from controller.core.drain_history import Step
from controller.core.planning import acknowledgement, removal, restoration
from controller.core.planning.actions import Acknowledge, HoldReason, Phase, ReadNic
from controller.core.planning.floors import Floors
from controller.core.planning.steps import (
    Change,
    Forget,
    HoldBack,
    PlanStep,
    Record,
    Report,
    Start,
    WakeAt,
)
from tests.support.planner_scenario import (
    PlannerScenario,
    at,
    event,
    floor,
    membership,
    nic_id,
)


def steps_of(scene: PlannerScenario, name: str = "web-1") -> list[PlanStep]:
    """Return what is yielded for one VM."""
    evidence = scene.evidence()
    vm = evidence.views.vm(name)
    assert vm is not None
    case = evidence.case(vm)
    if case.must_leave:
        return list(removal.steps(case, evidence, Floors(evidence)))
    return list(restoration.steps(case, evidence))


def test_a_due_vm_is_recorded_before_anything_is_written() -> None:
    """S5: the first step that changes anything is the record, which claims a write slot."""
    scene = PlannerScenario(events=[event()])
    first, record = steps_of(scene)
    assert first == Report(vm="web-1", phase=Phase.DRAIN_DUE)
    assert isinstance(record, Record)
    assert (record.step, record.detail) == (Step.RECORDED, "app")
    assert record.claims == record.entry.memberships == (membership("web-1"),)


def test_a_recorded_vm_is_written() -> None:
    """The removal of exactly what was recorded."""
    scene = PlannerScenario(events=[event()])
    scene.adopt()
    assert steps_of(scene) == [
        Report(vm="web-1", phase=Phase.DRAIN_DUE),
        Report(vm="web-1", phase=Phase.DRAINING),
        Change(memberships=(membership("web-1"),), restore=False),
    ]


def test_a_vm_that_seems_to_be_out_is_read_until_that_is_proven() -> None:
    """S1: a view from before the record proves nothing; the read is paced."""
    scene = PlannerScenario(events=[event()], now=10)
    scene.adopt()
    scene.inside["web-1"] = []
    scene.nics = {"web-1": {"observed_at": at(9)}}
    assert steps_of(scene) == [
        Start(ReadNic(nic_id("web-1"))),
        WakeAt(at(11)),
        WakeAt(at(10)),
        Report(vm="web-1", phase=Phase.DRAINING),
    ]


def test_a_vm_that_is_out_is_noted() -> None:
    """The entry gets the instant, and the history a line."""
    scene = PlannerScenario(events=[event()])
    scene.adopt()
    entry = scene.entry()
    scene.inside["web-1"], scene.now = [], 5
    assert steps_of(scene) == [
        Record(entry=replace(entry, out_at=at(5)), step=Step.OUT),
        Report(vm="web-1", phase=Phase.OUT),
    ]


def test_a_vm_that_the_floor_keeps_in_says_so() -> None:
    """S2: a hold, and no record."""
    scene = PlannerScenario(events=[event()])
    floor(scene, 3)
    held, report, wake = steps_of(scene)
    assert isinstance(held, HoldBack)
    assert isinstance(report, Report)
    assert (held.reason, report.phase) == (HoldReason.FLOOR, Phase.HELD)
    assert held.message == report.why
    assert wake == WakeAt(at(10))


def test_a_vm_comes_back_in_four_passes() -> None:
    """S6, S3, S5: write ahead, restore what was recorded, see it back, forget it."""
    scene = PlannerScenario(events=[event()])
    scene.take_out()
    scene.now, scene.events = 300, []
    due, restoring, record = steps_of(scene)
    assert (due, restoring) == (
        Report(vm="web-1", phase=Phase.RESTORE_DUE),
        Report(vm="web-1", phase=Phase.RESTORING),
    )
    assert isinstance(record, Record)
    assert record.step == Step.RESTORING
    scene.adopt()
    assert steps_of(scene)[-1] == Change(memberships=(membership("web-1"),), restore=True)
    scene.inside["web-1"], scene.now = [membership("web-1").pool_id], 305
    assert [each.step for each in steps_of(scene) if isinstance(each, Record)] == [Step.RESTORED]
    scene.adopt()
    scene.now = 400
    assert steps_of(scene) == [
        Forget(vm="web-1", step=Step.IN_SERVICE),
        Report(vm="web-1", phase=Phase.IN_SERVICE),
    ]


def test_an_event_is_acknowledged_when_its_vm_is_empty() -> None:
    """S1: until then the steps only say when to wake."""
    scene = PlannerScenario(events=[event()])
    scene.take_out()
    assert list(acknowledgement.steps(scene.events[0], scene.evidence())) == [WakeAt(at(33))]
    scene.now = 35
    assert list(acknowledgement.steps(scene.events[0], scene.evidence())) == [
        WakeAt(at(35)),
        Start(Acknowledge("E-1")),
    ]
