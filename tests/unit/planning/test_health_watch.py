"""Reading the health of rules, and what it changes for the floor."""

from datetime import timedelta
from typing import Any

import pytest

from controller.core.azure_names import fold
from controller.core.drain_requests import DrainRequest
from controller.core.planning.actions import HoldReason, ReadRuleHealth
from controller.core.policy import Floor
from controller.core.resources import MembershipKey, PoolHealth
from tests.support.planner_scenario import (
    APP,
    FAR,
    LB,
    LB2,
    PlannerScenario,
    address,
    at,
    deferred,
    event,
    floor,
    membership,
    writes,
)
from tests.support.policies import make_policy


def health(
    scene: PlannerScenario, *down: MembershipKey, age_s: float = 0, pools: tuple[str, ...] = (APP,)
) -> dict[str, Any]:
    """Return the observation of a report about pools."""
    seen = at(scene.now - age_s)
    found = (PoolHealth(pool_id=each, down=frozenset(down), observed_at=seen) for each in pools)
    return {"health": {fold(each.pool_id): each for each in found}}


def reads(scene: PlannerScenario, **over: Any) -> list[ReadRuleHealth]:
    """Return the reads of the health of rules that a pass plans."""
    return [each for each in scene.plan(**over).actions if isinstance(each, ReadRuleHealth)]


def held(scene: PlannerScenario, **over: Any) -> bool:
    """Return whether the floor holds a VM."""
    return any(each.reason == HoldReason.FLOOR.value for each in scene.plan(**over).holds)


@pytest.mark.parametrize(("age_s", "counts"), [(0, False), (60, False), (60.1, True)])
def test_a_member_that_fails_its_probe_does_not_count(
    scene: PlannerScenario, age_s: float, counts: bool
) -> None:
    """S2: a member that is reported as down serves nothing, for a minute after the report."""
    floor(scene, 2)
    down = membership("web-3").key
    assert held(scene, **health(scene, down, age_s=age_s)) is not counts


def test_without_a_report_a_member_in_the_pool_counts(scene: PlannerScenario) -> None:
    """Where the role does not allow the read, the floor counts as before."""
    floor(scene, 2)
    assert not held(scene, health={})


def test_a_vm_that_is_down_may_leave(scene: PlannerScenario) -> None:
    """S2: a VM that fails its own probe takes nothing away when it leaves."""
    floor(scene, 2)
    planned = scene.through(**health(scene, membership("web-1").key))
    assert [write.restore for write in writes(planned)] == [False]


def test_an_address_that_is_down_does_not_count(scene: PlannerScenario) -> None:
    """S2: the same holds for addresses."""
    scene.policy = make_policy(pools={APP: Floor(number=2, ignores_other_sets=True)})
    scene.inside = {"web-1": [], "web-2": []}
    scene.ips = {"web-1": "10.0.0.1", "web-2": "10.0.0.2"}
    scene.addresses = {APP: [address(f"a{n}", f"10.0.0.{n}") for n in (1, 2, 9)]}
    assert not held(scene)
    for ip in ("10.0.0.2", "10.0.0.9"):
        assert held(scene, **health(scene, (fold(APP), "address", ip)))


def test_only_the_pool_of_the_report_is_affected(scene: PlannerScenario) -> None:
    """What fails its probe in one pool may serve in another."""
    scene.policy = make_policy(pools={APP: Floor(number=2), FAR: Floor(number=0)})
    scene.inside = {name: [APP, FAR] for name in scene.inside}
    assert not held(scene, **health(scene, membership("web-3", FAR).key, pools=(APP, FAR)))


@pytest.mark.parametrize(("age_s", "due"), [(39, False), (40, True), (500, True)])
def test_health_is_read_while_a_vm_has_to_leave(
    scene: PlannerScenario, age_s: float, due: bool
) -> None:
    """While something is due, the report is renewed before it is a minute old."""
    assert reads(scene, **health(scene, age_s=age_s)) == ([ReadRuleHealth(LB)] if due else [])
    assert reads(scene, health={}) == [ReadRuleHealth(LB)]


def test_no_step_waits_for_health(scene: PlannerScenario) -> None:
    """S7: the report is off the critical path."""
    planned = scene.through(health={})
    assert [write.restore for write in writes(planned)] == [False]


def test_health_is_read_once_for_each_load_balancer(scene: PlannerScenario) -> None:
    """H1: one read covers all pools of a load balancer, and the oldest report counts."""
    scene.policy = make_policy(pools={APP: Floor(number=0), FAR: Floor(number=0)})
    both = health(scene, pools=(APP, FAR))
    assert reads(scene, **both) == []
    assert reads(scene, **health(scene, pools=(APP,))) == [ReadRuleHealth(LB2)]
    assert reads(scene, health={}) == [ReadRuleHealth(LB), ReadRuleHealth(LB2)]


def test_nothing_is_read_of_an_idle_set(scene: PlannerScenario) -> None:
    """H1: without anything due, and while a VM is out on request alone, nothing is read."""
    scene.events = []
    assert reads(scene, health={}) == []
    scene.events = [event(not_before=100_000)]
    assert reads(scene, health={}) == []
    request = DrainRequest(
        request_id="R", vm="web-1", reason="", by="ann", at=at(0), until=at(0) + timedelta(hours=1)
    )
    assert reads(scene, health={}, requests=(request,)) == [ReadRuleHealth(LB)]
    scene.inside["web-1"] = []
    assert reads(scene, health={}, requests=(request,)) == []


def test_a_refused_read_waits(scene: PlannerScenario) -> None:
    """What was refused is not tried again before its time, and holds nothing."""
    refused = deferred(ReadRuleHealth(LB).key, until=3600)
    planned = scene.plan(health={}, **refused)
    assert not any(isinstance(each, ReadRuleHealth) for each in planned.actions)
    assert planned.holds == ()


def test_a_report_from_the_future_is_none(scene: PlannerScenario) -> None:
    """A report whose time lies ahead of the clock proves nothing."""
    floor(scene, 2)
    ahead = health(scene, membership("web-3").key, age_s=-10)
    assert not held(scene, **ahead)
    assert reads(scene, **ahead) == [ReadRuleHealth(LB)]
