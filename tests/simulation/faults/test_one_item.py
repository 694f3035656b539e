"""One failing request, or one odd item of a reply, and everything else goes on."""

from typing import Any

import pytest

from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Request
from controller.simulator.world.history import Change
from tests.simulation.faults.refusals import Matches, at, first, gets, refusing, reply
from tests.simulation.runner import Simulation
from tests.simulation.scenario import Act, Scenario

ANNOUNCED_S, NOTICE_S = 40.0, 320.0
VM_LIST, NIC_LIST = "/virtualMachines", "/networkInterfaces"
THROTTLED = '{"error": {"code": "OperationNotAllowed", "message": "x", "details": []}}'
REFUSED = '{"error": {"code": "InvalidParameter", "message": "no such expand"}}'
LOOP = (
    '{"value": [], "nextLink": "https://127.0.0.1:8002/subscriptions/'
    "11111111-2222-4333-8444-555555555555/resourceGroups/web-rg/providers/Microsoft.Compute"
    '/virtualMachines?api-version=2025-04-01&$skiptoken=1"}'
)


def scenario(**fields: Any) -> Scenario:
    """Return a set of three VMs, one of which is announced at 40 s for 320 s later."""
    event = {
        "event_type": "Reboot",
        "vms": ("web-2",),
        "notice_s": NOTICE_S,
        "duration_s": -1,
        "impact_s": 10.0,
        "started_s": 20.0,
    }
    base: dict[str, Any] = {
        "seed": 7,
        "vms": 3,
        "policy": {"connection_drain_s": 2, "restore_settle_s": 3},
        "acts": (Act(ANNOUNCED_S, "event", event),),
        "calm_at_s": 45.0,
        "patience_s": 400.0,
        "converge_within_s": 300.0,
        "idle_s": 1.0,
    }
    return Scenario(**{**base, **fields})


def play(matches: Matches, answer: Fault, **fields: Any) -> tuple[Change, ...]:
    """Return the history of such a set while Azure answers these requests so."""
    sim = Simulation(scenario(**fields))
    with refusing(sim, matches, answer):
        return sim.run().history


def assert_drained(history: tuple[Change, ...]) -> None:
    """Check that the VM was out in time, that the event was acknowledged, and that it is back."""
    assert first(history, "member_out", "web-2") < ANNOUNCED_S + 60
    assert first(history, "event_acknowledged") < ANNOUNCED_S + 90
    assert at(history, "member_in", "web-2")
    assert at(history, "converged")


@pytest.mark.parametrize(
    "answer",
    [
        reply(400, REFUSED),
        reply(403, '{"error": {"code": "AuthorizationFailed", "message": "no"}}'),
        reply(404, '{"error": {"code": "ResourceGroupNotFound", "message": "gone"}}'),
        reply(429, THROTTLED, wait_s=1200),
        reply(502, "<html>bad gateway</html>"),
        reply(200, "not json"),
        reply(200, '{"value": 7}'),
        reply(200, '{"value": [null, 7, {"id": 5}, {"id": null}], "nextLink": 9}'),
        reply(200, LOOP),
        reply(200, '{"value": []}'),
        Fault(effect=Effect.HANG),
    ],
    ids=["400", "403", "404", "429", "502", "garbage", "number", "odd", "loop", "empty", "hang"],
)
@pytest.mark.parametrize("which", [VM_LIST, NIC_LIST])
def test_a_list_that_fails_costs_nothing(which: str, answer: Fault) -> None:
    """L2: whatever a list answers, its VMs and NICs are read one by one, and the drain goes on."""
    assert_drained(play(gets(which), answer))


def test_a_list_without_power_states() -> None:
    """K4: a refused $expand is left out from then on; it is asked for once per leader."""

    def expanded(request: Request) -> bool:
        return gets(VM_LIST)(request) and bool(request.parameter("$expand"))

    history = play(expanded, reply(400, REFUSED))
    assert_drained(history)
    leaders = [
        each.detail["vm"]
        for each in history
        if each.kind == "request" and each.detail["status"] == 400
    ]
    assert leaders
    assert len(leaders) == len(set(leaders))


@pytest.mark.parametrize("name", ["web-1", "web-2", "web-3"])
def test_one_vm_that_is_throttled_does_not_end_the_inventory(name: str) -> None:
    """L2: a 429 for one VM defers that VM alone, also when no list helps."""

    def matches(request: Request) -> bool:
        return gets(VM_LIST, f"/virtualMachines/{name}")(request)

    history = play(matches, reply(429, THROTTLED, wait_s=1200))
    assert first(history, "member_out", "web-2") < ANNOUNCED_S + 60


def test_compute_throttles_every_read_of_a_vm() -> None:
    """K1: a VM that Compute does not describe is found by its NIC, and out in time."""

    def matches(request: Request) -> bool:
        return gets(VM_LIST)(request) or bool(request.parameter("$expand"))

    history = play(matches, reply(429, THROTTLED, wait_s=1200))
    assert first(history, "member_out", "web-2") < ANNOUNCED_S + 60
