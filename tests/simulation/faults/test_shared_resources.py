"""What several drains share: the room above a floor, and a VM that several operators want out."""

from collections.abc import Mapping

import pytest

from controller.simulator.world.access import RULE_HEALTH
from tests.simulation.campaign import judge
from tests.simulation.runner import EPOCH, Played, Simulation
from tests.simulation.scenario import Act, Scenario

POLICY: Mapping[str, object] = {
    "lead_time_s": 60.0, "connection_drain_s": 2, "restore_settle_s": 3,
}  # fmt: skip
ANNOUNCED = Act(
    20.0,
    "event",
    {"event_type": "Reboot", "vms": ("web-2",), "notice_s": 200.0, "duration_s": -1,
     "impact_s": 20.0, "started_s": 30.0},
)  # fmt: skip


def play(*requests: Act, vms: int = 2) -> Played:
    """Play requests beside an event for web-2 that is announced for 220 s and due at 160 s."""
    return Simulation(
        Scenario(
            seed=24,
            vms=vms,
            policy=POLICY,
            acts=tuple(sorted((ANNOUNCED, *requests), key=lambda act: act.at_s)),
            calm_at_s=420.0,
            patience_s=60.0,
            idle_s=1.0,
        )
    ).run()


def ask(at_s: float, for_s: float, vm: str = "web-1") -> Act:
    """Let an operator request a VM."""
    return Act(at_s, "ask", {"vm": vm, "for_s": for_s, "request_id": f"R-{at_s:.0f}"})


def moves(played: Played) -> list[tuple[str, str]]:
    """Return which VMs left the pool and came back, in their order."""
    return [
        (change.kind.removeprefix("member_"), str(change.detail["vm"]))
        for change in played.history
        if change.kind in {"member_out", "member_in"}
    ]


def first(played: Played, kind: str, vm: str) -> float:
    """Return when something first happened to a VM."""
    found = (
        each.at - EPOCH
        for each in played.history
        if each.kind == kind and vm in (each.subject, each.detail.get("vm"))
    )
    return next(found)


@pytest.mark.parametrize(
    "requests",
    [(ask(30.0, 350.0),), (ask(30.0, 140.0), ask(100.0, 300.0)), (ask(150.0, 220.0),)],
    ids=["before it is due", "two requests", "shortly before"],
)
def test_a_request_leaves_room_for_an_announced_event(requests: tuple[Act, ...]) -> None:
    """S7: of two VMs, the one that Azure announced leaves, and the requested one only after it."""
    played = play(*requests)
    assert moves(played)[:2] == [("out", "web-2"), ("in", "web-2")]
    assert first(played, "member_out", "web-2") < first(played, "vm_down", "web-2")
    assert judge(played) == []


def test_a_request_that_ends_before_the_event_is_due_is_granted() -> None:
    """A short request is over before the event needs the room."""
    played = play(ask(30.0, 60.0))
    assert moves(played)[:3] == [("out", "web-1"), ("in", "web-1"), ("out", "web-2")]
    assert judge(played) == []


def test_a_request_is_granted_where_there_is_room_for_both() -> None:
    """With a third VM both leave, the requested one at once."""
    played = play(ask(30.0, 350.0), vms=3)
    assert moves(played)[:2] == [("out", "web-1"), ("out", "web-2")]
    assert judge(played) == []


@pytest.mark.parametrize("pool", ["app", "api"])
def test_a_member_that_is_down_does_not_hold_the_floor(pool: str) -> None:
    """S2: of three members one has adminState Down, two must serve: no other one leaves."""
    sim = Simulation(
        Scenario(
            seed=24,
            vms=3,
            pools=("app",),
            ip_pools=("api",),
            floors={pool: 2},
            policy=POLICY,
            acts=(ANNOUNCED,),
            calm_at_s=300.0,
            patience_s=60.0,
            idle_s=1.0,
        )
    )
    pool_id = sim.world.pool_id(pool)
    sim.loop.call_at(10.0, lambda: sim.world.set_admin_state(pool_id, "web-3", "Down"))
    sim.loop.call_at(180.0, lambda: sim.world.set_admin_state(pool_id, "web-3", "None"))
    out = [
        change.at - EPOCH
        for change in sim.run().history
        if change.kind == "member_out" and change.subject == pool_id
    ]
    assert out
    assert 180 < min(out) < 220


# --- a VM that several operators want out ---


def test_a_second_request_for_a_vm_ends_no_other() -> None:
    """A VM is out while any request for it stands: a short one does not end a long one."""
    acts = (ask(20.0, 160.0, "web-2"), ask(60.0, 60.0, "web-2"))
    scenario = Scenario(
        seed=3,
        vms=3,
        policy=POLICY,
        acts=acts,
        calm_at_s=65.0,
        patience_s=10.0,
        converge_within_s=120.0,
        idle_s=1.0,
    )
    history = Simulation(scenario).run().history
    back = [each.at - EPOCH for each in history if each.kind == "member_in"]
    assert back
    assert min(back) >= 180


@pytest.mark.parametrize("permitted", [True, False])
def test_a_member_that_fails_its_probe_does_not_hold_the_floor(permitted: bool) -> None:
    """S2: where the role shows that a member serves nothing, no other one leaves meanwhile.

    Without the permission the member counts, and no drain is later for it.
    """
    sim = Simulation(
        Scenario(
            seed=24,
            vms=3,
            floors={"app": 1},
            policy={**POLICY, "lead_time_s": 150.0},
            acts=(ANNOUNCED, Act(90.0, "ask", {"vm": "web-3", "for_s": 30.0, "request_id": "R"})),
            calm_at_s=300.0,
            patience_s=60.0,
            idle_s=1.0,
        )
    )
    if permitted:
        for vm in ("web-1", "web-2", "web-3"):
            sim.world.roles.assign(vm, RULE_HEALTH, f"/subscriptions/{sim.world.subscription}")
    sim.loop.call_at(60.0, lambda: sim.world.failing_probes.add("web-1"))
    history = sim.run().history
    out = {
        str(change.detail["vm"]): change.at - EPOCH
        for change in history
        if change.kind == "member_out"
    }
    assert 70 < out["web-2"] < 90
    assert ("web-3" in out) is not permitted
    sent = [
        each.at - EPOCH
        for each in history
        if each.kind == "sent" and each.subject.endswith("/health")
    ]
    assert min(sent) >= 69
    assert len(sent) == (2 if permitted else 1)
