"""Instances of a scale set that do not share one event document."""

from dataclasses import replace

import pytest

from tests.simulation.campaign import judge
from tests.simulation.faults.test_absence import OUT_FOR_AN_EVENT, back_at, ended
from tests.simulation.runner import EPOCH, Simulation

NOTICE_S = 200.0


@pytest.mark.parametrize("leader_dies", [False, True], ids=["leader stays", "leader changes"])
def test_an_event_that_the_leader_does_not_see_is_not_lost(*, leader_dies: bool) -> None:
    """S7, S6: the agent that sees it forwards it, and its VM is out for as long as it lasts.

    No agent acknowledges it.
    """
    [announced] = OUT_FOR_AN_EVENT.acts
    late = replace(announced, arguments={**announced.arguments, "notice_s": NOTICE_S})
    scenario = replace(OUT_FOR_AN_EVENT, acts=(late,), calm_at_s=360.0, flexible=True)
    simulation = Simulation(replace(scenario, placement_groups=scenario.vms))
    told: list[tuple[bool, str]] = []

    def ask() -> None:
        answers = [host.live_status for host in simulation.hosts.values()]
        told.extend(each.ready() for each in answers if each is not None)

    def kill() -> None:
        if leader_dies:
            next(host for host in simulation.hosts.values() if host.leading).crash(60.0)

    simulation.loop.call_at(150.0, ask)
    simulation.loop.call_at(160.0, kill)
    played = simulation.run()
    assert ended(played.history) == []
    assert {ready for ready, _ in told} == {True}
    began = announced.at_s + NOTICE_S
    [out] = [each.at - EPOCH for each in played.history if each.kind == "member_out"]
    [back] = back_at(played.history)
    [gone] = [each.at - EPOCH for each in played.history if each.kind == "event_gone"]
    assert out < began < gone < back
    assert not simulation.world.events.events[0].acknowledged_by
    assert simulation.stage.ledger()["entries"] == []
    assert {each.law for each in judge(played)} <= {"L2 progress"}


def test_an_event_of_a_vm_whose_agent_has_failed_is_forwarded_by_another_agent() -> None:
    """S7: web-4 has the document of web-2, which the leader web-1 does not have."""
    [announced] = OUT_FOR_AN_EVENT.acts
    late = replace(announced, arguments={**announced.arguments, "notice_s": NOTICE_S})
    scenario = replace(OUT_FOR_AN_EVENT, vms=4, acts=(late,), calm_at_s=360.0, flexible=True)
    simulation = Simulation(replace(scenario, placement_groups=2))
    simulation.loop.call_at(10.0, simulation.hosts["web-2"].crash, 400.0)
    history = simulation.run().history
    [out] = [each.at - EPOCH for each in history if each.kind == "member_out"]
    [gone] = [each.at - EPOCH for each in history if each.kind == "event_gone"]
    [back] = back_at(history)
    assert out < announced.at_s + NOTICE_S
    assert gone < back


def test_a_new_leader_with_another_document_restores_nothing_before_the_event() -> None:
    """S6: the first leader sees the event itself, and the next one knows it from its VM's agent."""
    [announced] = OUT_FOR_AN_EVENT.acts
    arguments = {**announced.arguments, "vms": ("web-3",), "notice_s": NOTICE_S}
    event = replace(announced, arguments=arguments)
    scenario = replace(OUT_FOR_AN_EVENT, vms=4, acts=(event,), calm_at_s=360.0, flexible=True)
    policy = {**scenario.policy, "acknowledge": False}
    simulation = Simulation(replace(scenario, policy=policy, placement_groups=2))
    for vm in ("web-1", "web-3"):  # their document shows the event
        simulation.loop.call_at(60.0, simulation.hosts[vm].crash, 300.0)
    history = simulation.run().history
    leaders = [str(each.detail["by"]) for each in history if each.kind == "lease_acquire"]
    [out] = [each.at - EPOCH for each in history if each.kind == "member_out"]
    [gone] = [each.at - EPOCH for each in history if each.kind == "event_gone"]
    [back] = back_at(history)
    assert leaders[0] == "web-1"
    assert leaders[1] in {"web-2", "web-4"}
    assert out < 60.0 < gone < back
