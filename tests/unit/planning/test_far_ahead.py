"""VMs with an event that is announced days ahead: they return between, and leave when it is due."""

from dataclasses import replace
from datetime import timedelta

import pytest

from controller.core.controls import Controls, Decision, EventControl
from controller.core.far_ahead import DailyWindow, FarAhead
from controller.core.planning.actions import Phase
from controller.core.planning.due import is_due, is_due_for_any
from controller.core.planning.views import keeps_out
from controller.core.policy import Floor
from tests.support.planner_scenario import (
    APP,
    PlannerScenario,
    acknowledged,
    at,
    event,
    phase,
    reasons,
    removal,
    restoral,
    started,
    writes,
)
from tests.support.policies import make_event_policy, make_policy

WEEK_S = 7 * 86400.0
FAR = event(event_id="FAR", not_before=WEEK_S)
NOON = DailyWindow(start_min=12 * 60, end_min=12 * 60 + 5)
"""Scenes begin at noon: the window is open for their first five minutes."""


def scene_with(far_ahead: FarAhead = FarAhead.WAIT, *events: object) -> PlannerScenario:
    scene = PlannerScenario(events=[*events])  # type: ignore[list-item]
    scene.policy = make_policy(
        pools={APP: Floor(number=1)},
        far_ahead=far_ahead,
        far_ahead_window=NOON if far_ahead is FarAhead.WINDOW else None,
    )
    return scene


def test_it_returns_between_two_maintenances() -> None:
    """S6: when the first event is over, a VM whose next event is days ahead is restored."""
    scene = scene_with(FarAhead.WAIT, event(), FAR)
    scene.take_out()
    assert [each.event_id for each in scene.entry().events] == ["E-1"]
    scene.now, scene.events = 300, [FAR]
    assert writes(scene.through()) == [restoral("web-1")]


def test_it_does_not_return_for_less_than_an_hour() -> None:
    """A VM whose next drain begins within the hour is held, and so is one that has started."""
    scene = scene_with(FarAhead.WAIT, event(), event(event_id="E-2", not_before=4700))
    scene.take_out()
    scene.now, scene.events = 300, scene.events[1:]
    assert reasons(scene.through()) == {"web-1": "event_pending"}
    scene.events = [event(event_id="E-2", not_before=4801)]
    assert writes(scene.through()) == [restoral("web-1")]


def test_one_poll_without_the_first_event_is_not_enough() -> None:
    """S6: two clean polls without the first event; the event far ahead changes nothing about it."""
    scene = scene_with(FarAhead.WAIT, event(), FAR)
    scene.take_out()
    scene.now, scene.events, scene.clean = 300, [FAR], False
    planned = scene.through()
    assert (writes(planned), phase(planned)) == ([], Phase.RESTORE_DUE)


def test_it_leaves_again_when_the_next_event_is_due() -> None:
    """S7: at its lead time the event far ahead is one like any other."""
    scene = scene_with(FarAhead.WAIT, FAR)
    scene.now = WEEK_S - 901
    assert writes(scene.through()) == []
    scene.now = WEEK_S - 900
    assert writes(scene.through()) == [removal("web-1")]


def test_at_once_and_acknowledged() -> None:
    """With `drain` the VM leaves now, and the event is acknowledged as soon as it is out."""
    scene = scene_with(FarAhead.DRAIN, FAR)
    scene.take_out()
    scene.now = 40
    assert acknowledged(scene.through()) == ["FAR"]


def test_in_the_window_and_acknowledged() -> None:
    """With `window` the same happens while the window is open."""
    scene = scene_with(FarAhead.WINDOW, FAR)
    scene.take_out()
    scene.now = 40
    assert acknowledged(scene.through()) == ["FAR"]


def test_outside_of_the_window_it_waits() -> None:
    """After the window nothing happens until it opens again, or the lead time is reached."""
    scene = scene_with(FarAhead.WINDOW, FAR)
    scene.now = 300
    planned = scene.through()
    assert (writes(planned), phase(planned)) == ([], Phase.IN_SERVICE)
    assert planned.wake_at is not None
    assert planned.wake_at <= at(86400)
    scene.now = 86400
    assert writes(scene.through()) == [removal("web-1")]


def test_what_began_in_the_window_is_completed() -> None:
    """S6: the event may have been acknowledged, so its VM stays out when the window is over."""
    scene = scene_with(FarAhead.WINDOW, FAR)
    scene.take_out()
    scene.now = 600
    planned = scene.through()
    assert acknowledged(planned) == ["FAR"]
    assert writes(planned) == []
    scene.now, scene.events, scene.clean = 700, [], False
    assert phase(scene.through()) is Phase.RESTORE_DUE
    scene.clean = True
    assert writes(scene.through()) == [restoral("web-1")]


def test_an_event_that_is_postponed_keeps_its_vm_out() -> None:
    """It may have been acknowledged before its NotBefore was moved by a week."""
    scene = scene_with(FarAhead.WAIT, event())
    scene.take_out()
    scene.now, scene.events = 300, [event(not_before=WEEK_S)]
    planned = scene.through()
    assert writes(planned) == []
    assert phase(planned) is Phase.OUT


def test_which_event_counts() -> None:
    """An event counts for the VM that is recorded because of it, until the VM is restored."""
    scene = scene_with(FarAhead.DRAIN, event(event_id="far", not_before=WEEK_S))
    scene.take_out()
    entry, policy = scene.entry(), make_policy(pools={})
    for decide in (is_due, keeps_out):
        assert decide(FAR, entry, policy, at(0))
        assert not decide(FAR, None, policy, at(0))
        assert not decide(replace(FAR, event_id="other"), entry, policy, at(0))
        ignored = replace(policy, events={"Reboot": make_event_policy(min_duration_s=9)})
        assert not decide(replace(FAR, duration_s=5), entry, ignored, at(0))
    back = replace(entry, restored_at=at(10))
    assert not is_due(FAR, back, policy, at(0))
    assert keeps_out(FAR, back, policy, at(0))
    assert is_due(started(event_id="new"), None, policy, at(0))


@pytest.mark.parametrize(("vms", "due"), [(("web-1", "web-2"), True), (("web-2",), False)])
def test_an_event_is_due_for_all_when_one_is_out_for_it(vms: tuple[str, ...], due: bool) -> None:
    """It is acknowledged for all its VMs at once."""
    scene = scene_with(FarAhead.DRAIN, FAR)
    scene.take_out()
    scene.policy = replace(scene.policy, far_ahead=FarAhead.WAIT)
    views = scene.evidence().views
    assert is_due_for_any(replace(FAR, resources=vms), views, scene.policy) is due
    near = replace(FAR, resources=vms, not_before=at(scene.now) + timedelta(seconds=900))
    assert is_due_for_any(near, views, scene.policy)


def test_an_event_that_is_released_keeps_a_vm_out_that_is_out() -> None:
    """An operator who lets it start means that its VM, drained for another reason, stays out."""
    control = EventControl(
        by="ann",
        at=at(0),
        until=at(WEEK_S),
        reason="",
        event_id="far",
        decision=Decision.ACKNOWLEDGE,
    )
    scene = scene_with(FarAhead.WAIT, event())
    scene.take_out()
    scene.now, scene.events = 300, [event(event_id="far", not_before=WEEK_S)]
    controls = Controls(events=(control,))
    first = scene.adopt(controls=controls)
    assert acknowledged(first) == []
    assert scene.entry().is_for("far")
    assert acknowledged(scene.adopt(controls=controls)) == ["far"]
    assert writes(scene.through()) == []


def test_what_this_leader_has_acknowledged_counts() -> None:
    """Also when no control remembers it."""
    scene = scene_with(FarAhead.WAIT, event())
    scene.take_out()
    scene.now, scene.events = 300, [FAR]
    scene.adopt(acknowledged={"far": at(299)})
    assert scene.entry().is_for("FAR")
