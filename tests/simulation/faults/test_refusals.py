"""Azure refuses a kind of request for long, or an api-version for good."""

import json
from typing import Any

import pytest

from tests.simulation.faults.refusals import (
    Matches,
    asked,
    at,
    first,
    gets,
    refusing,
    reply,
)
from tests.simulation.runner import EPOCH, Simulation
from tests.simulation.scenario import Act, Scenario

ANNOUNCED_S, NOTICE_S = 40.0, 320.0
THROTTLED = '{"error": {"code": "OperationNotAllowed", "message": "x", "details": []}}'
LONG = reply(429, THROTTLED, wait_s=1200)


def scenario(*vms: str, event_type: str = "Reboot", **fields: Any) -> Scenario:
    """Return a set of three VMs, with an event for each of these at 40 s, for 320 s later."""
    reboot = {
        "event_type": event_type,
        "notice_s": NOTICE_S,
        "duration_s": -1,
        "impact_s": 10.0,
        "started_s": 20.0,
    }
    base: dict[str, Any] = {
        "seed": 11,
        "vms": 3,
        "policy": {"connection_drain_s": 2, "restore_settle_s": 3},
        "acts": tuple(Act(ANNOUNCED_S, "event", {**reboot, "vms": (vm,)}) for vm in vms),
        "calm_at_s": 45.0,
        "patience_s": 400.0,
        "converge_within_s": 300.0,
        "idle_s": 1.0,
    }
    return Scenario(**{**base, **fields})


def holds_at(sim: Simulation, at_s: float) -> list[str]:
    """Return a list that gets the holds of the ledger at this instant of the simulation."""
    found: list[str] = []

    def look() -> None:
        for container in sim.world.blobs.containers.values():
            for name, blob in container.blobs.items():
                if name.endswith("web.json") and blob.body:
                    found.extend(each["message"] for each in json.loads(blob.body)["holds"])

    sim.loop.call_at(at_s, look)
    return found


def puts(*endings: str) -> Matches:
    """Return whether a request is a PUT of a path with such an ending."""
    return lambda request: request.method == "PUT" and request.path.endswith(endings)


def test_a_throttled_write_waits_alone() -> None:
    """K1: a NIC that may not be written for 20 minutes keeps no other VM in rotation."""
    sim = Simulation(scenario("web-2", "web-3"))
    with refusing(sim, puts("/web-2-nic"), LONG):
        holds = holds_at(sim, ANNOUNCED_S + 60)
        history = sim.run().history
    assert first(history, "member_out", "web-3") < ANNOUNCED_S + 60
    assert len(asked(history, "/web-2-nic", "PUT")) == 1
    (message,) = [each for each in holds if "Azure asks to wait until" in each]
    assert "NotBefore is" in message


@pytest.mark.parametrize("ending", ["/web-2", "/web-2-nic", "/loadBalancers/web-lb"])
def test_a_throttled_read_is_replaced(ending: str) -> None:
    """K1: a read that may not be repeated for 20 minutes is replaced by another kind of read."""
    sim = Simulation(scenario("web-2", event_type="Freeze"))
    with refusing(sim, gets(ending), LONG, from_s=ANNOUNCED_S - 5):
        history = sim.run().history
    assert first(history, "member_out", "web-2") < ANNOUNCED_S + 60
    assert at(history, "event_acknowledged")
    assert at(history, "member_in", "web-2")
    assert at(history, "converged")


def test_a_refused_request_is_not_repeated_early() -> None:
    """A Retry-After is kept by each kind of request, however urgent it is, and after a restart."""
    sim = Simulation(scenario("web-2", event_type="Freeze"))
    with refusing(sim, gets("/loadBalancers/web-lb"), LONG, from_s=ANNOUNCED_S - 5):
        history = sim.run().history
    refused = [
        (str(each.detail["vm"]), each.at - EPOCH)
        for each in history
        if each.kind == "request" and each.detail["wait"] == "1200"
    ]
    assert len({vm for vm, _ in refused}) == len(refused)


@pytest.mark.parametrize(
    "refusal", ["NoRegisteredProviderFound", "InvalidApiVersionParameter", "InvalidResourceType"]
)
def test_a_cloud_that_lags_behind(refusal: str) -> None:
    """K7: where the pinned api-version is not supported, the newest tested one is used."""
    sim = Simulation(
        scenario(
            "web-2", settings={"newest_api_version": "2023-09-30", "api_version_refusal": refusal}
        )
    )
    accepted: set[str] = set()
    sim.handled.append(
        lambda request, answer: (
            accepted.add(request.parameter("api-version"))
            if answer.status < 300 and "/providers/Microsoft." in request.path
            else None
        )
    )
    history = sim.run().history
    assert first(history, "member_out", "web-2") < ANNOUNCED_S + 60
    assert at(history, "event_acknowledged")
    assert at(history, "converged")
    assert accepted == {"2023-09-01"}


def test_writes_use_the_pinned_version() -> None:
    """K7: reads and writes have one version, not the newest of an SDK."""
    sim = Simulation(scenario("web-2"))
    used: dict[str, set[str]] = {}
    sim.handled.append(
        lambda request, _answer: (
            used.setdefault(f"{request.method} {'Compute' in request.path}", set()).add(
                request.parameter("api-version")
            )
            if "/providers/Microsoft." in request.path and "/operations/" not in request.path
            else None
        )
    )
    sim.run()
    assert {"GET True", "GET False", "PUT False"} <= used.keys()
    for kind, seen in used.items():
        assert seen == {"2025-04-01" if kind.endswith("True") else "2025-05-01"}, kind


@pytest.mark.parametrize(("pools", "ip_pools"), [(("app",), ()), ((), ("app",))], ids=["nic", "ip"])
def test_an_operation_that_asks_for_patience(
    pools: tuple[str, ...], ip_pools: tuple[str, ...]
) -> None:
    """K7: Retry-After 10 is kept, and does not delay what the resource itself shows."""
    latency_s = 12.0
    settings = {
        "operation_latency_s": latency_s,
        "pool_operation_latency_s": latency_s,
        "lro_retry_after_s": 10,
    }
    sim = Simulation(scenario("web-2", pools=pools, ip_pools=ip_pools, settings=settings))
    history = sim.run().history
    polls = [
        each.at - EPOCH
        for each in history
        if each.kind == "request" and "/operations/" in each.subject
    ]
    acknowledged = first(history, "event_acknowledged")
    assert acknowledged < ANNOUNCED_S + latency_s + 2 + 3
    of_removal = [each for each in polls if each < acknowledged]
    assert len(of_removal) == 2
    assert of_removal[1] - of_removal[0] >= 10
