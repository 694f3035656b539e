"""What is absent while a VM is out: nothing is forgotten, and it is restored when it is there."""

from collections.abc import Callable, Mapping

import pytest

from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Request, Service
from controller.simulator.world.history import Change
from tests.simulation.runner import EPOCH, Simulation
from tests.simulation.scenario import Act, Scenario

POLICY: Mapping[str, object] = {"connection_drain_s": 2, "restore_settle_s": 3}
NOT_FOUND = Fault(
    effect=Effect.REPLY,
    status=404,
    body='{"error":{"code":"ResourceGroupNotFound","message":"The resource group is not found."}}',
    service=Service.ARM,
)
MINUTES, HOURS = 150.0, 7200.0


def strike(simulation: Simulation, matches: Callable[[Request, float], bool]) -> None:
    """Let ARM requests that match, with the seconds since the start, find nothing."""
    take = simulation.server.faults.take

    def struck(request: Request, vm: str | None, now: float) -> Fault | None:
        if NOT_FOUND.matches(request, vm, now) and matches(request, now - EPOCH):
            return NOT_FOUND
        return take(request, vm, now)

    simulation.server.faults.take = struck  # type: ignore[method-assign]


def steps(simulation: Simulation) -> list[str]:
    return [line["what"] for line in simulation.stage.ledger()["transitions"]]


def moves(history: tuple[Change, ...]) -> list[str]:
    return [each.kind for each in history if each.kind in {"member_out", "member_in"}]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("lasts_s", [MINUTES, pytest.param(HOURS, marks=pytest.mark.slow)])
def test_not_found_for_minutes_and_hours_loses_nothing(lasts_s: float) -> None:
    """L1, S3: Network answers 404 for everything when a VM is to come back; later it comes back."""
    scenario = Scenario(
        seed=13,
        vms=2,
        policy=POLICY,
        watch={"leader_poll_s": 4},
        acts=(
            Act(
                20.0,
                "event",
                {
                    "event_type": "Reboot",
                    "vms": ("web-2",),
                    "notice_s": 120.0,
                    "impact_s": 5.0,
                    "started_s": 15.0,
                },
            ),
        ),
        calm_at_s=60.0 + lasts_s,
        converge_within_s=1500.0,
        idle_s=1.0,
        look_s=6.0,
    )
    simulation = Simulation(scenario)
    strike(
        simulation,
        lambda request, at: (
            56 < at < 58 + lasts_s and "/providers/microsoft.network/" in request.path.casefold()
        ),
    )
    history = simulation.run().history
    assert moves(history) == ["member_out", "member_in"]
    assert "in service" in steps(simulation)
    if lasts_s == HOURS:
        assert {"membership lost", "place exists again"} <= set(steps(simulation))
    assert "converged" in [each.kind for each in history]
    assert simulation.stage.ledger()["entries"] == []


@pytest.mark.timeout(300)
def test_entries_of_deleted_vms_cost_little() -> None:
    """H1: five VMs that were deleted while they were out are kept, for a few reads an hour."""
    victims = [f"web-{n}" for n in range(3, 8)]
    acts = [
        Act(20.0 + n, "ask", {"vm": vm, "for_s": 60.0, "request_id": f"R-{vm}"})
        for n, vm in enumerate(victims)
    ]
    acts += [Act(60.0, "delete_vm", {"vm": vm}) for vm in victims]
    scenario = Scenario(
        seed=9,
        vms=8,
        policy=POLICY,
        acts=tuple(acts),
        calm_at_s=65.0,
        patience_s=10.0,
        converge_within_s=300.0,
        idle_s=3600.0,
        look_s=6.0,
    )
    simulation = Simulation(scenario)
    history = simulation.run().history
    since = next(each.at for each in history if each.kind == "converged")
    reads = [
        each
        for each in history
        if each.kind == "request" and each.detail["service"] == "arm" and each.at > since
    ]
    assert len(reads) <= 60
    entries = simulation.stage.ledger()["entries"]
    assert [(each["vm"], each["gone"]) for each in entries] == [(vm, True) for vm in victims]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("acknowledge_unmanaged", [False, True])
def test_a_vm_that_is_listed_and_not_found_is_not_without_nics(
    acknowledge_unmanaged: bool,
) -> None:
    """S1, S7: a stale list and a 404 for one VM, ten seconds before its event."""
    scenario = Scenario(
        seed=2,
        policy={**POLICY, "acknowledge_unmanaged": acknowledge_unmanaged},
        acts=(
            Act(
                20.0,
                "event",
                {"event_type": "Reboot", "vms": ("web-2",), "notice_s": 300.0, "started_s": 30.0},
            ),
        ),
        calm_at_s=25.0,
        patience_s=400.0,
        idle_s=1.0,
    )
    simulation = Simulation(scenario)
    strike(
        simulation,
        lambda request, at: at < 10 and request.path.casefold().endswith("machines/web-2"),
    )
    at = {each.kind: each.at - EPOCH for each in reversed(simulation.run().history)}
    assert 20 < at["member_out"] < at["event_acknowledged"] < at["event_started"]
