"""What operators have decided for the whole set: nothing is removed while it is paused."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.core.controls import Controls, Decision, EventControl, Pause
from controller.core.drain_requests import DrainRequest
from controller.core.planning import acknowledgement, operator_controls
from controller.core.planning.actions import Phase
from tests.support.planner_scenario import (
    PlannerScenario,
    acknowledged,
    at,
    event,
    phase,
    reasons,
    restoral,
    started,
    writes,
)

PAUSE = Pause(by="ann", reason="migration", at=at(-60), until=at(3600))
PAUSED = Controls(pause=PAUSE)


def request(vm: str = "web-1") -> DrainRequest:
    return DrainRequest(
        request_id="R-1", vm=vm, reason="", by="ben", at=at(0), until=at(0) + timedelta(hours=1)
    )


def message(scene: PlannerScenario, **over: Any) -> str:
    (hold,) = scene.plan(controls=PAUSED, **over).holds
    assert (hold.subject, hold.reason) == ("web-1", "paused")
    return hold.message


def test_a_paused_set_records_and_removes_nothing(scene: PlannerScenario) -> None:
    """The VM is neither closed nor removed; the hold has consequence and remedy."""
    scene.events = [event("web-1", not_before=600)]
    planned = scene.adopt(controls=PAUSED)
    assert (scene.ledger.entries, planned.actions) == ((), ())
    assert phase(planned) is Phase.HELD
    assert message(scene) == (
        "web-1 is not drained: removals are paused by ann until 2026-01-05 13:00 UTC (migration); "
        "its Reboot is not acknowledged, and hits it in rotation from 2026-01-05 12:10:00 UTC on. "
        "To drain it now: lb-drain resume"
    )
    soon = Controls(pause=replace(PAUSE, until=at(9)))
    assert scene.plan(controls=soon).wake_at == at(9)


def test_the_drain_starts_when_the_pause_ends(scene: PlannerScenario) -> None:
    """By itself, at the end of the pause, and not before."""
    scene.events = [event("web-1", not_before=7200)]
    scene.policy = replace(scene.policy, lead_time_s=7200)
    scene.now = 3599
    assert reasons(scene.adopt(controls=PAUSED)) == {"web-1": "paused"}
    scene.now = 3600
    assert scene.adopt(controls=PAUSED).holds == ()
    assert scene.entry().vm == "web-1"


@pytest.mark.parametrize("events", [[started("web-1")], [event("web-1", not_before=None)]])
def test_an_event_that_begins_at_any_moment_hits(scene: PlannerScenario, events: list[Any]) -> None:
    """Without a NotBefore the consequence is now."""
    scene.events = events
    assert "; its Reboot hits it in rotation. To drain" in message(scene)


def test_the_hold_names_the_event_that_comes_first(scene: PlannerScenario) -> None:
    """Of several events the earliest one has the consequence."""
    scene.events = [
        event("web-1", event_id="E-1", not_before=700),
        event("web-1", event_id="E-2", not_before=500, event_type="Freeze", duration_s=9),
    ]
    assert "its Freeze is not acknowledged" in message(scene)


def test_a_manual_drain_waits_too(scene: PlannerScenario) -> None:
    """A request is no exception: the operator who paused may not know of it."""
    scene.events = []
    assert message(scene, requests=(request(),)).endswith(
        "; its manual drain waits. To drain it now: lb-drain resume"
    )


def test_a_recorded_vm_is_not_removed(scene: PlannerScenario) -> None:
    """A pause that comes between record and removal stops the removal."""
    scene.events = [event("web-1", not_before=600)]
    scene.adopt()
    assert writes(scene.plan()) != []
    planned = scene.plan(controls=PAUSED)
    assert writes(planned) == []
    assert "web-1 is not removed: removals are paused" in message(scene)
    scene.policy = replace(scene.policy, close=True)
    assert "web-1 is closed and is not removed: removals are paused" in message(scene)


def test_a_vm_that_is_out_stays_out_and_is_restored(scene: PlannerScenario) -> None:
    """A pause undoes nothing and delays no restore."""
    scene.events = [event("web-1", not_before=600)]
    scene.take_out()
    planned = scene.plan(controls=PAUSED)
    assert (phase(planned), planned.holds) == (Phase.OUT, ())
    scene.events = []
    scene.adopt(controls=PAUSED)
    assert writes(scene.plan(controls=PAUSED)) == [restoral()]


def test_a_vm_that_was_put_back_stays_in(scene: PlannerScenario) -> None:
    """An operator who pauses the set can put a VM back, and it is not removed again."""
    scene.events = [event("web-1", not_before=600)]
    scene.take_out()
    scene.inside["web-1"] = list(scene.inside["web-2"])
    assert reasons(scene.plan(controls=PAUSED)) == {"web-1": "paused"}
    assert writes(scene.plan(controls=PAUSED)) == []


def test_a_vm_that_only_closes_finishes_its_drain(scene: PlannerScenario) -> None:
    """With the mechanism probe a recorded VM has left already; one that is not recorded stays."""
    scene.policy = replace(scene.policy, close=True, close_only=True)
    scene.events = [event("web-1", not_before=600)]
    assert reasons(scene.plan(controls=PAUSED)) == {"web-1": "paused"}
    scene.adopt()
    assert phase(scene.plan(controls=PAUSED)) is Phase.DRAINING


def test_without_a_reason_to_drain_a_pause_holds_nothing(scene: PlannerScenario) -> None:
    """An idle set has no hold, and the ledger does not change (law H1)."""
    scene.events = []
    planned = scene.plan(controls=PAUSED)
    assert (planned.holds, planned.ledger) == ((), None)


def test_controls_that_cannot_be_read_are_reported(scene: PlannerScenario) -> None:
    """The hold is about the whole set, and keeps nothing waiting."""
    scene.events = [event("web-1", not_before=600)]
    planned = scene.plan(controls_problem="it is garbage")
    (hold,) = planned.holds
    assert (hold.subject, hold.reason) == ("controls", "controls_unread")
    assert hold.message == "the controls of the set cannot be read: it is garbage"
    assert planned.ledger is not None
    assert planned.ledger.entry("web-1") is not None


# --- decisions about an event ---


def decided(decision: str, event_id: str = "E-1", *, forced: bool = False) -> Controls:
    control = EventControl(
        event_id=event_id,
        decision=decision,
        forced=forced,
        by="ann",
        reason="",
        at=at(-60),
        until=at(3600),
    )
    return Controls(events=(control,))


NOW = decided(Decision.ACKNOWLEDGE, "e-1")
NEVER = decided(Decision.HOLD)


def test_an_event_that_is_held_is_never_acknowledged(scene: PlannerScenario) -> None:
    """Its VMs are drained as ever, and the hold has consequence and remedy."""
    scene.take_out()
    scene.now += 40
    assert acknowledged(scene.plan()) == ["E-1"]
    planned = scene.plan(controls=NEVER)
    assert acknowledged(planned) == []
    assert not operator_controls.may_acknowledge("E-1", scene.evidence(controls=NEVER))
    (hold,) = planned.holds
    assert (hold.subject, hold.reason) == ("E-1", "acknowledgement_held")
    assert hold.message == (
        "event E-1 is not acknowledged, decided by ann until 2026-01-05 13:00 UTC; it starts at "
        "2026-01-05 12:10:00 UTC or later. To withdraw it: lb-drain hold E-1 --withdraw"
    )
    soon = replace(NEVER.events[0], until=at(scene.now + 1))
    assert scene.plan(controls=Controls(events=(soon,))).wake_at == at(scene.now + 1)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_hold_takes_no_acknowledgement_back(scene: PlannerScenario, *, recorded: bool) -> None:
    """The hold states when the event was acknowledged, also before the ledger records that."""
    scene.take_out()
    sent: dict[str, Any] = {"acknowledged": {"e-1": at(7)}, "controls": NEVER}
    if recorded:
        scene.adopt(acknowledged={"e-1": at(7)})
        del sent["acknowledged"]
    (hold,) = [each for each in scene.plan(**sent).holds if each.subject == "E-1"]
    assert hold.message == (
        "event E-1 was acknowledged at 12:00:07 UTC: Azure can start it at any moment, and the "
        "hold, decided by ann until 2026-01-05 13:00 UTC, cannot take that back. "
        "To withdraw it: lb-drain hold E-1 --withdraw"
    )


def test_a_hold_is_reported_while_it_matters(scene: PlannerScenario) -> None:
    """Once the event has started there is nothing to acknowledge."""
    scene.events = [started("web-1")]
    assert "E-1" not in reasons(scene.plan(controls=NEVER))
    scene.events = [event("web-1", not_before=None)]
    (hold,) = [each for each in scene.plan(controls=NEVER).holds if each.subject == "E-1"]
    assert "; it can start at any moment. " in hold.message


def test_a_decision_is_about_one_event(scene: PlannerScenario) -> None:
    """Another event is acknowledged as policy says, and so is one of an unknown decision."""
    scene.take_out()
    scene.now += 40
    for controls in (decided(Decision.HOLD, "E-2"), decided("later")):
        assert acknowledged(scene.plan(controls=controls)) == ["E-1"]


def test_an_event_is_acknowledged_although_policy_waits(scene: PlannerScenario) -> None:
    """Neither the switches of policy nor the connection drain keep it waiting."""
    scene.take_out()
    scene.policy = replace(scene.policy, acknowledge=False)
    assert acknowledged(scene.plan()) == []
    assert acknowledged(scene.plan(controls=NOW)) == ["E-1"]
    assert operator_controls.may_acknowledge("E-1", scene.evidence(controls=NOW))
    assert scene.plan(controls=NOW).holds == ()


def test_an_event_of_far_ahead_is_acknowledged(scene: PlannerScenario) -> None:
    """The lead time has not come, and its VM is out for a manual drain."""
    scene.events = [event("web-1", not_before=90_000)]
    asked = (request(),)
    scene.adopt(requests=asked)
    scene.inside["web-1"] = []
    scene.now += 5
    scene.adopt(requests=asked)
    assert acknowledged(scene.plan(requests=asked)) == []
    scene.adopt(requests=asked, controls=NOW)
    assert scene.entry().is_for("E-1"), "it stays out until the event is gone"
    assert acknowledged(scene.plan(requests=asked, controls=NOW)) == ["E-1"]


def test_a_type_that_policy_does_not_acknowledge(scene: PlannerScenario) -> None:
    """The decision is stronger than the switch of the type."""
    scene.events = [event("web-1", not_before=600, event_type="Terminate")]
    scene.take_out()
    scene.now += 40
    assert acknowledged(scene.plan()) == []
    assert acknowledged(scene.plan(controls=NOW)) == ["E-1"]


def test_a_name_outside_the_set_does_not_block_a_decision(scene: PlannerScenario) -> None:
    """The operator has seen the names of the event."""
    scene.events = [event("web-1", "db-9", not_before=600)]
    scene.take_out()
    scene.now += 40
    over = {"inventory_at": at(scene.now)}
    assert acknowledged(scene.plan(**over)) == []
    assert acknowledged(scene.plan(**over, controls=NOW)) == ["E-1"]


def test_an_ignored_event_is_acknowledged(scene: PlannerScenario) -> None:
    """Policy says that its VMs need nothing, so law S1 holds."""
    scene.events = [event("web-1", not_before=600, event_type="Freeze", duration_s=1)]
    assert acknowledged(scene.plan()) == []
    planned = scene.plan(controls=NOW)
    assert (acknowledged(planned), planned.holds) == (["E-1"], ())


def test_no_decision_acknowledges_a_vm_in_rotation(scene: PlannerScenario) -> None:
    """Law S1: the hold names the VMs, and the acknowledgement follows when they are out."""
    scene.events = [event("web-1", "web-2", not_before=90_000)]
    planned = scene.plan(controls=NOW)
    assert acknowledged(planned) == []
    assert not operator_controls.may_acknowledge("E-1", scene.evidence(controls=NOW))
    (hold,) = planned.holds
    assert (hold.subject, hold.reason) == ("E-1", "not_out")
    assert hold.message == (
        "event e-1 is acknowledged as soon as its VMs are out, decided by ann until 2026-01-05 "
        "13:00 UTC; now it waits until web-1, web-2 is out of rotation (law S1). To take it out: "
        "lb-drain drain web-1"
    )
    scene.events = [event("web-1", "web-2", not_before=600)]
    assert scene.plan(controls=NOW).holds[0].message.endswith("is out of rotation (law S1)")


def test_a_forced_decision_suspends_the_law(scene: PlannerScenario) -> None:
    """S1 suspended: the event is acknowledged with its VM in rotation."""
    forced = decided(Decision.ACKNOWLEDGE, forced=True)
    assert acknowledged(scene.plan(controls=forced)) == ["E-1"]
    assert operator_controls.may_acknowledge("E-1", scene.evidence(controls=forced))


@pytest.mark.parametrize(
    "wrong",
    [
        started("web-1"),
        event("web-1", not_before=0),
        event("web-1", acknowledgeable=False),
        replace(event("web-1"), resources=()),
    ],
)
def test_what_cannot_be_acknowledged_is_not_forced(scene: PlannerScenario, wrong: Any) -> None:
    """An event that has started, is over its NotBefore, or cannot be sent back to Azure."""
    scene.events = [wrong]
    for controls in (decided(Decision.ACKNOWLEDGE, forced=True), NOW):
        planned = scene.plan(controls=controls)
        assert acknowledged(planned) == []
        assert "E-1" not in reasons(planned)


def test_an_old_document_acknowledges_nothing(scene: PlannerScenario) -> None:
    """What is not known to be announced still is not sent."""
    forced = decided(Decision.ACKNOWLEDGE, forced=True)
    old = {"document_at": at(-31)}
    assert acknowledged(scene.plan(controls=forced, **old)) == []
    assert not acknowledgement.can_be_sent(scene.events[0], scene.evidence(**old))
    assert acknowledgement.can_be_sent(scene.events[0], scene.evidence(document_at=at(-30)))
