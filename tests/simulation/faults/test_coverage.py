"""Instances of a scale set that do not share one event document."""

from dataclasses import replace

from tests.simulation.faults.test_absence import OUT_FOR_AN_EVENT, ended
from tests.simulation.runner import Simulation

NOTICE_S = 300.0


def test_an_event_that_the_leader_does_not_see_is_reported_by_the_agent_that_does() -> None:
    """The readiness of that agent, and so its presence, states the event and what to do."""
    [announced] = OUT_FOR_AN_EVENT.acts
    late = replace(announced, arguments={**announced.arguments, "notice_s": NOTICE_S})
    scenario = replace(OUT_FOR_AN_EVENT, acts=(late,), calm_at_s=250.0, flexible=True)
    simulation = Simulation(scenario)
    simulation.world.shared_document = False
    told: dict[str, tuple[bool, str]] = {}

    def ask() -> None:
        for vm, host in simulation.hosts.items():
            assert host.live_status is not None
            told[vm] = host.live_status.ready()

    simulation.loop.call_at(200.0, ask)
    history = simulation.run().history
    assert ended(history) == []
    assert told["web-2"][0] is False
    assert "shows the Reboot" in told["web-2"][1]
    assert "lb-drain drain web-2" in told["web-2"][1]
    assert told["web-1"][0] is told["web-3"][0] is True
