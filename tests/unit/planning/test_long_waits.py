"""Waits that Azure asks for: what an operator learns, and when."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from controller.core.action_keys import ActionKey
from controller.core.events import EventStatus
from controller.core.observation import Deferral
from controller.core.planning.actions import HoldReason, Plan, ReadNic
from controller.core.planning.nic_pool import NicPool
from tests.support.planner_scenario import PlannerScenario, at, event, membership, nic_id

WRITE = NicPool().key(membership("web-1"), restore=False)
READ = ReadNic(nic_id("web-1")).key


def waiting(key: ActionKey, until: float, *, asked: bool = True) -> dict[str, Any]:
    deferral = Deferral(
        until=at(until), reason="Throttled", asked=asked, what="remove web-1-nic: 429"
    )
    return {"deferred": MappingProxyType({key: deferral})}


def messages(plan: Plan) -> list[str]:
    return [hold.message for hold in plan.holds if hold.reason == HoldReason.WRITE_FAILED.value]


@pytest.fixture
def scene() -> PlannerScenario:
    found = PlannerScenario(events=[event("web-1", not_before=300)])
    found.adopt()
    return found


def test_a_wait_beyond_not_before_is_a_hold(scene: PlannerScenario) -> None:
    """K1: the operator learns in time that Azure asks to wait longer than the event allows."""
    assert messages(scene.plan(**waiting(WRITE, 1200))) == [
        "Azure asks to wait until 12:20:00 UTC; NotBefore is 12:05:00 UTC: remove web-1-nic: 429"
    ]


def test_a_short_wait_is_no_hold(scene: PlannerScenario) -> None:
    """A wait that ends in time, or that Azure did not ask for, needs no attention."""
    assert messages(scene.plan(**waiting(WRITE, 60))) == []
    assert messages(scene.plan(**waiting(WRITE, 1200, asked=False))) == []


def test_a_wait_is_reported_before_a_deadline_that_is_near(scene: PlannerScenario) -> None:
    """Even a short wait is reported when NotBefore comes first."""
    scene.events = [event("web-1", not_before=20)]
    assert len(messages(scene.plan(**waiting(WRITE, 30)))) == 1


def test_a_long_wait_without_a_deadline_is_a_hold(scene: PlannerScenario) -> None:
    """A started event has no NotBefore left; a wait of minutes is reported all the same."""
    scene.events = [replace(scene.events[0], status=EventStatus.STARTED, not_before=None)]
    (message,) = messages(scene.plan(**waiting(WRITE, 1200)))
    assert message == "Azure asks to wait until 12:20:00 UTC: remove web-1-nic: 429"


def test_a_wait_that_nothing_needs_is_no_hold(scene: PlannerScenario) -> None:
    """What no step of the plan needs may wait without a word."""
    scene.events = []
    scene.ledger = replace(scene.ledger, entries=())
    assert messages(scene.plan(**waiting(READ, 1200))) == []


def test_a_read_that_is_needed_is_reported() -> None:
    """K1: a removal that waits for a read is reported like one that waits for a write."""
    nics = {"web-1": {"observed_at": at(-60)}}
    scene = PlannerScenario(events=[event("web-1", not_before=300)], nics=nics)
    (message,) = messages(scene.plan(**waiting(READ, 1200)))
    assert "NotBefore is 12:05:00 UTC" in message


def test_a_set_that_cannot_be_read_is_a_hold(scene: PlannerScenario) -> None:
    """K8: the operator learns that added VMs are not known, while the known ones are drained."""
    plan = scene.plan(set_problem="availability set read: 403")
    (hold,) = [each for each in plan.holds if each.reason == HoldReason.INVENTORY_UNREAD.value]
    assert "added to the availability set are not known" in hold.message
    assert "403" in hold.message
    assert plan.actions
