"""Azure refuses one membership of a write that carries several: the others must not wait for it."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from controller.simulator.world.history import Change
from tests.simulation.runner import Simulation
from tests.simulation.scenario import Act, Scenario

JOIN = "Microsoft.Network/loadBalancers/backendAddressPools/join/action"
VMS = ("web-1", "web-2", "web-3")
REBOOT = {"event_type": "Reboot", "notice_s": 120.0, "duration_s": -1, "impact_s": 10.0}


def scenario(*events: dict[str, object], **fields: Any) -> Scenario:
    """Return a set of three VMs, with these events at 20 s."""
    base: dict[str, Any] = {
        "seed": 4,
        "vms": 3,
        "pools": ("app", "api"),
        "policy": {"connection_drain_s": 2, "restore_settle_s": 3},
        "acts": tuple(Act(20.0, "event", {**REBOOT, "started_s": 20.0, **e}) for e in events),
        "calm_at_s": 25.0,
        "patience_s": 100.0,
        "converge_within_s": 600.0,
        "idle_s": 1.0,
    }
    return Scenario(**{**base, **fields})


def pool_id(sim: Simulation, name: str) -> str:
    """Return the id of a pool."""
    return next(each for each in sim.world.pool_ids() if each.endswith(f"/{name}"))


def set_roles(sim: Simulation, change: Callable[[str, str, str], object], pool: str) -> None:
    """Change the permission of every VM to join a pool."""
    for vm in VMS:
        change(vm, JOIN, pool_id(sim, pool))


def moves(history: Iterable[Change], kind: str) -> list[tuple[str, str]]:
    """Return which VM left or joined which pool, in order."""
    return [
        (str(each.detail["vm"]), each.subject.rsplit("/", 1)[-1])
        for each in history
        if each.kind == kind
    ]


@pytest.mark.parametrize(("refused", "other"), [("api", "app"), ("app", "api")])
def test_one_pool_refuses(refused: str, other: str) -> None:
    """L2: a pool that the agents may not join any more keeps no VM out of another pool."""
    sim = Simulation(scenario({"vms": ("web-2",)}))
    sim.loop.call_at(36.0, lambda: set_roles(sim, sim.world.roles.revoke, refused))
    joined = moves(sim.run().history, "member_in")
    assert ("web-2", other) in joined
    assert ("web-2", refused) not in joined


def test_the_pool_accepts_again() -> None:
    """L1: what was refused is restored as soon as Azure accepts it, and the entry is forgotten."""
    sim = Simulation(scenario({"vms": ("web-2",)}))
    sim.loop.call_at(36.0, lambda: set_roles(sim, sim.world.roles.revoke, "api"))
    sim.loop.call_at(200.0, lambda: set_roles(sim, sim.world.roles.reinstate, "api"))
    history = sim.run().history
    assert {("web-2", "app"), ("web-2", "api")} <= set(moves(history, "member_in"))
    assert any(each.kind == "converged" for each in history)


def test_a_refused_pool_does_not_hold_the_floor() -> None:
    """L2: a VM that is back in one pool counts there, also while another pool refuses it."""
    sim = Simulation(scenario({"vms": ("web-2",)}, floors={"app": 2}))
    sim.loop.call_at(36.0, lambda: set_roles(sim, sim.world.roles.revoke, "api"))
    late = Act(300.0, "event", {**REBOOT, "vms": ("web-3",), "started_s": 20.0})
    sim.loop.call_at(300.0, lambda: sim.stage.perform(late))
    history = sim.run().history
    out = [each for each in history if each.kind == "member_out" and each.detail["vm"] == "web-3"]
    started = [each.at for each in history if each.kind == "event_started"]
    assert {each.subject.rsplit("/", 1)[-1] for each in out} == {"app", "api"}
    assert all(each.at < started[-1] for each in out)


@pytest.mark.parametrize(("refused", "other"), [("api", "app"), ("app", "api")])
def test_what_is_back_is_not_restored_again_for_what_is_refused(refused: str, other: str) -> None:
    """S3: while one pool refuses a VM, an operator takes it out of a pool that it is back in."""
    sim = Simulation(scenario({"vms": ("web-2",)}))
    sim.loop.call_at(36.0, lambda: set_roles(sim, sim.world.roles.revoke, refused))
    leave = Act(320.0, "leave_pool", {"vm": "web-2", "pool": other})
    sim.loop.call_at(320.0, lambda: sim.stage.perform(leave))
    sim.loop.call_at(400.0, lambda: set_roles(sim, sim.world.roles.reinstate, refused))
    history = sim.run().history
    joined = moves(history, "member_in")
    assert (joined.count(("web-2", other)), joined.count(("web-2", refused))) == (1, 1)
    left = [(vm, pool) for vm, pool in moves(history, "member_out") if pool == other]
    assert left == [("web-2", other)] * 2
    assert any(each.kind == "converged" for each in history)
