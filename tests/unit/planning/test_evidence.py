"""What one pass knows of one VM, in any spelling of its name."""

from datetime import timedelta

import pytest

from controller.core.drain_requests import DrainRequest
from controller.core.events import EventDocument, SetAside
from controller.core.planning.vm_case import VmCase
from tests.support.planner_scenario import PlannerScenario, at, event

REQUEST = DrainRequest(
    request_id="R-1",
    vm="web-1",
    reason="",
    by="ann",
    at=at(0),
    until=at(0) + timedelta(hours=1),
)


def case_of_first(scene: PlannerScenario, **over: object) -> VmCase:
    evidence = scene.evidence(**over)
    return evidence.case(evidence.observed.vms[0])


def test_a_drain_request_is_for_its_vm_in_any_spelling(scene: PlannerScenario) -> None:
    """S6: Azure's spelling of a VM and the operator's spelling are the same VM."""
    scene.vms = {"web-1": {"name": "Web-1"}}
    case = case_of_first(scene, requests=(REQUEST,))
    assert case.requests == (REQUEST,)
    assert REQUEST.until in case.wakes


def test_an_entry_that_is_set_aside_is_about_its_vm_in_any_spelling(
    scene: PlannerScenario,
) -> None:
    """S6: a VM named by an entry that cannot be read is not restored, in any spelling."""
    scene.vms = {"web-1": {"name": "Web-1"}}
    aside = SetAside(problem="EventType is 1, not text", vms=("wEb-1",))
    document = EventDocument(incarnation=3, set_aside=(aside,))
    assert case_of_first(scene, document=document).threatened


@pytest.mark.parametrize(("not_before", "wakes"), [(899, ()), (900, ()), (901, (at(1),))])
def test_an_event_that_is_due_wakes_no_pass(
    scene: PlannerScenario, not_before: float, wakes: tuple[object, ...]
) -> None:
    """An event wakes a later pass only while its drain begins later than now."""
    scene.events = [event(not_before=not_before)]
    case = case_of_first(scene)
    assert case.wakes == wakes
    assert bool(case.due) == (not wakes)


def test_a_vm_wakes_a_pass_for_its_event_and_for_its_request(scene: PlannerScenario) -> None:
    """The end of a drain request hides no event whose drain begins earlier."""
    scene.events = [event(not_before=1000)]
    assert case_of_first(scene, requests=(REQUEST,)).wakes == (at(100), REQUEST.until)
