"""The adminState that a NIC loses as it leaves its pool: recorded, put back, or reported."""

from dataclasses import replace
from typing import Any

import pytest

from controller.core.azure_names import load_balancer_of
from controller.core.drain_requests import ForgetRequest
from controller.core.planning.actions import HoldReason, Phase, ReadLoadBalancer
from controller.core.planning.member_states import Refusal
from tests.support.admin_states import StateScenario, state_of
from tests.support.planner_scenario import (
    APP,
    at,
    event,
    membership,
    phase,
    reasons,
    removal,
    writes,
)

REFUSALS = [
    Refusal(reason="the pool refuses adminState"),
    Refusal(reason="the role may not write the pool", denied=True),
]


@pytest.fixture
def scene() -> StateScenario:
    """The ordinary mechanism; an operator has set web-1 Down."""
    return StateScenario(events=[event()], in_use=False, states={(APP, "web-1"): "Down"})


def leave(scene: StateScenario) -> None:
    """Record, remove and note out; the NIC loses the state."""
    assert writes(scene.settle(0))[0].resource_id == removal().resource_id
    scene.inside["web-1"] = []
    scene.states.clear()
    assert phase(scene.settle(5)) is Phase.OUT


def come_back(scene: StateScenario) -> Any:
    """End the event and restore the NIC; return the plan that follows."""
    scene.events = []
    assert [str(each) for each in writes(scene.settle(300))] == ["restore web-1-nic (app)"]
    scene.inside["web-1"] = [APP]
    return scene.settle(310)


@pytest.mark.parametrize("before", ["Down", "UP", "Sideways"])
def test_the_state_comes_back_with_the_nic(scene: StateScenario, before: str) -> None:
    """S3: exactly the same pool includes the adminState that the member had."""
    scene.states[APP, "web-1"] = before
    leave(scene)
    assert scene.entry().memberships == (replace(membership("web-1"), admin_state=before),)
    planned = come_back(scene)
    assert [str(each) for each in writes(planned)] == ["restore adminState of web-1-nic (app)"]
    assert writes(planned)[0].memberships == (state_of("web-1", state=before),)
    assert scene.entry().restored_at is None, "not before it is as it was"
    scene.states[APP, "web-1"] = before
    scene.settle(320)
    scene.settle(340)
    assert scene.ledger.entries == ()


@pytest.mark.parametrize("before", ["", "None", "none"])
def test_without_a_state_nothing_is_put_back(scene: StateScenario, before: str) -> None:
    """A member that follows its probe needs one write to come back."""
    scene.states[APP, "web-1"] = before
    leave(scene)
    assert scene.entry().memberships == (membership("web-1"),)
    assert writes(come_back(scene)) == []
    scene.settle(340)
    assert scene.ledger.entries == ()


def test_it_is_put_back_by_a_view_from_after_the_restore(scene: StateScenario) -> None:
    """S3: a pool that was read before the NIC came back says nothing about its state now."""
    leave(scene)
    scene.events = []
    scene.settle(300)
    scene.inside["web-1"], scene.states = [APP], {(APP, "web-1"): "Down"}
    old = replace(scene.observe().pools[0], observed_at=at(299))
    scene.states = {}
    planned = scene.settle(310, pools=(old,))
    assert writes(planned) == []
    assert ReadLoadBalancer(load_balancer_of(APP)) in planned.actions


@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_cannot_be_put_back_is_reported(scene: StateScenario, refusal: Refusal) -> None:
    """The VM serves again, and a hold says which state is lost and why, until it is dropped."""
    leave(scene)
    scene.refused[APP] = refusal
    planned = come_back(scene)
    assert writes(planned) == []
    assert reasons(planned) == {"web-1": HoldReason.LOST.value}
    text = planned.holds[0].message
    assert f"it is in the pool without its adminState Down: {refusal.reason}" in text
    assert phase(scene.settle(400)) is Phase.IN_SERVICE
    assert scene.entry().parked
    recorded_at = scene.entry().recorded_at
    request = ForgetRequest(vm="web-1", recorded_at=recorded_at, by="alice", at=at(500))
    scene.settle(500, forgets=(request,))
    assert scene.ledger.entries == ()


@pytest.mark.parametrize("state", ["Down", "Up"])
def test_an_operator_who_sets_it_ends_the_report(scene: StateScenario, state: str) -> None:
    """S3: what the pool shows is what an operator decided, be it the old state or another one."""
    leave(scene)
    scene.refused[APP] = REFUSALS[0]
    come_back(scene)
    scene.states[APP, "web-1"] = state
    for now in (400, 470, 500):
        assert writes(scene.settle(now)) == []
    assert scene.ledger.entries == ()


def test_the_next_leader_tries_again(scene: StateScenario) -> None:
    """What a pool refused is remembered for a tenure: a role or a platform can change."""
    leave(scene)
    scene.refused[APP] = REFUSALS[1]
    come_back(scene)
    scene.refused = {}
    planned = scene.settle(400)
    assert [str(each) for each in writes(planned)] == ["restore adminState of web-1-nic (app)"]


def test_a_nic_that_an_operator_removes_is_not_added_again(scene: StateScenario) -> None:
    """S3: of a membership that lacks only its state, the NIC is not ours any more."""
    leave(scene)
    scene.refused[APP] = REFUSALS[0]
    come_back(scene)
    scene.inside["web-1"] = []
    for refused in (dict(scene.refused), {}):
        scene.refused = refused
        planned = scene.settle(400)
        assert writes(planned) == []
        assert reasons(planned) == {"web-1": HoldReason.LOST.value}


def test_the_next_drain_keeps_what_is_still_lacking(scene: StateScenario) -> None:
    """S3: a state that could not be put back is recorded with the next removal, and tried again."""
    leave(scene)
    scene.refused[APP] = REFUSALS[0]
    come_back(scene)
    scene.events = [event(event_id="E-2", not_before=900)]
    assert writes(scene.settle(400))[0].memberships[0].key == membership("web-1").key
    assert scene.entry().memberships == (replace(membership("web-1"), admin_state="Down"),)
    assert scene.entry().lost == ()


def test_a_drain_in_the_middle_of_it_removes_and_restores_the_nic(scene: StateScenario) -> None:
    """S3, S7: an event while a lost state is tried again finds a whole membership to remove."""
    leave(scene)
    scene.refused[APP] = REFUSALS[0]
    come_back(scene)
    scene.refused = {}
    scene.settle(400)
    assert [m.key for m in scene.entry().memberships] == [membership("web-1").key]
    scene.events = [event(event_id="E-2", not_before=900)]
    scene.settle(405)
    scene.inside["web-1"] = []
    scene.settle(410)
    scene.events = []
    assert [str(each) for each in writes(scene.settle(700))] == ["restore web-1-nic (app)"]


def test_who_puts_the_vm_back_decides_about_its_state(scene: StateScenario) -> None:
    """S3: an operator who puts the VM back after the event puts it back as it shall be."""
    leave(scene)
    scene.inside["web-1"], scene.events = [APP], []
    assert writes(scene.settle(300)) == []
    scene.settle(340)
    assert scene.ledger.entries == ()


def test_a_drain_that_was_cancelled_changes_no_state(scene: StateScenario) -> None:
    """A VM that was recorded and not removed still has its state."""
    scene.settle(0)
    scene.events = []
    assert writes(scene.settle(100)) == []
    scene.settle(200)
    assert scene.ledger.entries == ()
