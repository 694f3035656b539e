"""Watching the pools of VMs that are out: another client may put one back."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.core.drain_requests import DrainRequest
from controller.core.planning.actions import Read, ReadInventory, ReadLoadBalancer
from controller.core.policy import Floor
from tests.support.planner_scenario import (
    APP,
    FAR,
    LB,
    LB2,
    PlannerScenario,
    at,
    event,
    started,
    writes,
)
from tests.support.policies import make_policy


@pytest.fixture
def out() -> PlannerScenario:
    """A VM that is out, and whose event is not acknowledged."""
    scene = PlannerScenario(events=[event()])
    scene.policy = replace(scene.policy, acknowledge=False)
    scene.take_out()
    return scene


def read_after(scene: PlannerScenario, age_s: float, **over: Any) -> list[Read]:
    """Return what is read when every pool was last read so many seconds ago."""
    seen = {"observed_at": at(scene.now - age_s)}
    scene.pools = dict.fromkeys(scene.policy.pools, seen)
    actions = scene.plan(**over).actions
    return [each for each in actions if isinstance(each, ReadLoadBalancer)]


@pytest.mark.parametrize(
    ("now", "every_s"), [(100, 15), (539, 15), (540, 10), (599, 10), (700, 10)]
)
def test_pools_are_read_while_an_event_is_pending(
    out: PlannerScenario, now: float, every_s: float
) -> None:
    """S1: every 15 s, and every 10 s from a minute before NotBefore on."""
    out.now = now
    assert read_after(out, every_s) == [ReadLoadBalancer(LB)]
    assert read_after(out, every_s - 1) == []
    assert out.plan(inventory_at=at(now)).wake_at == at(now + 1)


def test_pools_are_read_while_an_event_has_started(out: PlannerScenario) -> None:
    """S7: a VM that is put back during its maintenance is noticed within half a minute."""
    out.now, out.events = 700, [started()]
    assert read_after(out, 30) == [ReadLoadBalancer(LB)]
    assert read_after(out, 29) == []


def test_an_event_without_not_before_is_pending(out: PlannerScenario) -> None:
    """An event whose NotBefore cannot be read may start at any moment."""
    out.events = [event(not_before=None)]
    assert read_after(out, 15) == [ReadLoadBalancer(LB)]
    assert read_after(out, 14) == []


def test_an_event_that_is_announced_for_later_counts(out: PlannerScenario) -> None:
    """A VM that stays out for an event of which nothing is due yet is watched as well."""
    out.now, out.events = 100, [event(event_id="E-2", not_before=5000)]
    assert read_after(out, 15) == [ReadLoadBalancer(LB)]


def test_a_manual_drain_is_watched_less_often(scene: PlannerScenario) -> None:
    """An operator who works on a VM does not want it in rotation either."""
    request = DrainRequest(
        request_id="R", vm="web-1", reason="", by="ann", at=at(0), until=at(0) + timedelta(hours=1)
    )
    asked = {"requests": (request,)}
    scene.events = []
    scene.adopt(**asked)
    scene.inside["web-1"], scene.now = [], 5
    scene.adopt(**asked)
    scene.now = 200
    assert read_after(scene, 60, **asked) == [ReadLoadBalancer(LB)]
    assert read_after(scene, 59, **asked) == []
    scene.inside["web-1"], scene.pools = [APP], {}
    planned = scene.through(**asked)
    assert [write.restore for write in writes(planned)] == [False]


def test_each_load_balancer_is_read_once_however_many_vms_are_out() -> None:
    """H1: the number of reads does not grow with the number of VMs that are out."""
    policy = make_policy(pools={APP: Floor(number=0), FAR: Floor(number=0)}, acknowledge=False)
    scene = PlannerScenario(policy=policy)
    scene.inside = {f"web-{n}": [APP, FAR] for n in range(1, 30)}
    scene.events = [event(*scene.inside)]
    scene.adopt()
    scene.inside = {vm: [] for vm in scene.inside}
    scene.now = 5
    scene.adopt()
    scene.now = 100
    assert read_after(scene, 15) == [ReadLoadBalancer(LB), ReadLoadBalancer(LB2)]


def test_nothing_is_read_of_an_idle_set(scene: PlannerScenario) -> None:
    """H1: while every VM is in service only the inventory shows the pools."""
    scene.events = []
    scene.now = 100
    assert read_after(scene, 299) == []
    far = event(not_before=100_000)
    scene.events = [far]
    assert read_after(scene, 299) == []
    assert scene.plan(inventory_at=at(-200)).actions == (ReadInventory(),)


def test_a_vm_that_comes_back_is_not_watched(out: PlannerScenario) -> None:
    """H1: once nothing wants the VM out, what is read is up to the restore."""
    out.now, out.events = 100, []
    out.through()
    assert out.entry().restoring_at == at(100)
    assert read_after(out, 9) == []
