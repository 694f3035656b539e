"""Both sides of a drain in histories made to measure: the VM closes, is proven closed, and opens.

`CLOSING` holds the safeguards of laws S8, S9 and of S1 for VMs that are still in their pools.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.simulation import ablations
from tests.simulation.campaign import judge
from tests.simulation.faults.refusals import at, first
from tests.simulation.faults.test_ablations import ANNOUNCED_S, H2, event, scenario
from tests.simulation.faults.test_refused_writes import set_roles
from tests.simulation.runner import Played, Simulation
from tests.simulation.scenario import Act, Habits, Scenario, Storm

POLICY = {
    "close": True,
    "connection_drain_s": 12,
    "restore_settle_s": 3,
    "restore_ready_timeout_s": 10,
    "lead_time_s": 240,
}
SLOW = {"operation_latency_s": 12.0}
VM = "web-2"
RESTARTING_S = ANNOUNCED_S + 98.0
"""While the first event restarts web-2."""


def closing(*acts: Act, habits: Habits | None = None, **fields: Any) -> Scenario:
    """Return a set of three VMs that close before they leave."""
    given = {"policy": POLICY, "drain": {"quiet_s": 1, "open_after_s": 60}, **fields}
    each = habits or Habits(ends_within_s=1.0)
    return scenario(*acts, habits=dict.fromkeys(("web-1", "web-2", "web-3"), each), **given)


# --- what is played


def play_reboot(**habits: Any) -> Played:
    """An ordinary reboot of web-2."""
    return Simulation(closing(event(), habits=Habits(**habits) if habits else None)).run()


def play_slow_writes() -> Played:
    """A write takes longer than the probes need to notice that web-2 is closed."""
    return Simulation(closing(event(), settings=SLOW)).run()


def play_withdrawn_in_silence() -> Played:
    """Storage stops to answer while web-2 is closed, and its event is withdrawn."""
    until_s = ANNOUNCED_S + 300.0
    storm = Storm("cut", ANNOUNCED_S + 15.0, until_s, service="blob")
    act = event(notice_s=900.0, cancel_after_s=20.0)
    policy = {**POLICY, "lead_time_s": 900, "acknowledge": False}
    return Simulation(closing(act, policy=policy, storms=(storm,), calm_at_s=until_s)).run()


def play_near_in_silence(vms: tuple[str, ...], floor: int) -> Played:
    """Storage stops to answer, and then an event of a minute's notice is announced."""
    storm = Storm("cut", ANNOUNCED_S - 2.0, ANNOUNCED_S + 100.0, service="blob")
    act = event(notice_s=50.0, vms=vms)
    calm_at_s = ANNOUNCED_S + 100.0
    floors = {"app": floor}
    return Simulation(closing(act, storms=(storm,), floors=floors, calm_at_s=calm_at_s)).run()


def play_old_report() -> Played:
    """web-2 cannot write its report, and the blob holds that of an earlier drain."""
    storm = Storm("blob 503", ANNOUNCED_S - 5.0, ANNOUNCED_S + 60.0, vm=VM, path=".vms/")
    spoilt = Act(ANNOUNCED_S - 2.0, "spoil_report", {"vm": VM, "how": "earlier drain"})
    habits = Habits(ends_within_s=30.0)
    calm_at_s = ANNOUNCED_S + 60.0
    acts = (spoilt, event())
    return Simulation(
        closing(*acts, habits=habits, settings=SLOW, storms=(storm,), calm_at_s=calm_at_s)
    ).run()


def play_restarted() -> Played:
    """No removal has an effect; a second event comes while the first one restarts web-2."""
    until_s = ANNOUNCED_S + 120.0
    storm = Storm("operation without effect", ANNOUNCED_S - 5.0, until_s)
    acts = (event(), event(RESTARTING_S, notice_s=222.0))
    return Simulation(closing(*acts, storms=(storm,), calm_at_s=until_s)).run()


CLOSING: Mapping[str, Callable[[], Played]] = {
    "close-by-record": play_reboot,
    "current-report": play_old_report,
    "open-without-news": play_withdrawn_in_silence,
    "proof-of-closed": play_slow_writes,
    "report-of-this-boot": play_restarted,
}
"""A history in which a safeguard is needed, by its name."""


@pytest.mark.parametrize("name", CLOSING)
def test_the_law_is_kept_by_the_safeguard(name: str) -> None:
    """The history keeps every law, and breaks this one when the safeguard is switched off."""
    assert judge(CLOSING[name]()) == []
    with ablations.without(name):
        broken = {each.law for each in judge(CLOSING[name]())}
    assert ablations.SWITCHES[name].law in broken
    assert H2 not in broken, "the switch itself ends no agent"


def test_a_vm_is_closed_before_it_leaves_and_opens_after_it_is_back() -> None:
    """Closed, out, rebooted, closed again by the entry that still names it, in, and open."""
    history = play_reboot().history
    closed, opened = at(history, "application_closed", VM), at(history, "application_opened", VM)
    assert closed[0] < first(history, "member_out", VM)
    assert first(history, "vm_up", VM) < closed[-1] < first(history, "member_in", VM) < opened[-1]


def test_a_vm_opens_for_the_pool_that_it_is_back_in() -> None:
    """L2: a pool that the agents may not join any more keeps no VM closed in another pool."""
    two_pools = closing(event(), pools=("app", "api"), calm_at_s=ANNOUNCED_S + 200.0)
    sim = Simulation(two_pools)
    sim.loop.call_at(ANNOUNCED_S + 60.0, lambda: set_roles(sim, sim.world.roles.revoke, "api"))
    reinstated_s = ANNOUNCED_S + 400.0
    sim.loop.call_at(reinstated_s, lambda: set_roles(sim, sim.world.roles.reinstate, "api"))
    history = sim.run().history
    closed, opened = at(history, "application_closed", VM), at(history, "application_opened", VM)
    joined = at(history, "member_in", VM)
    assert closed[-1] < joined[0] < opened[-1] < joined[1]


def test_a_vm_that_is_closed_and_quiet_is_acknowledged_before_it_is_out() -> None:
    """Its responder has refused the probes of every rule, while the write is under way."""
    played = play_slow_writes()
    assert first(played.history, "event_acknowledged") < first(played.history, "member_out", VM)


@pytest.mark.parametrize(
    "habits", [{"responder": False}, {"never_quiet": True}, {"uncounted": True}]
)
def test_without_proof_a_vm_is_out_before_it_is_acknowledged(habits: Mapping[str, Any]) -> None:
    """A flag without a responder, or a connection that stays, proves nothing."""
    history = play_reboot(**habits).history
    assert first(history, "member_out", VM) < first(history, "event_acknowledged")


@pytest.mark.parametrize(
    ("vms", "floor", "alone"),
    [(("web-2",), 1, 1), (("web-1", "web-2"), 1, 2), (("web-1", "web-2"), 2, 0)],
)
def test_a_vm_closes_alone_before_its_own_event(
    vms: tuple[str, ...], floor: int, alone: int
) -> None:
    """Storage does not answer: all VMs with near events close, or none if the floor forbids it."""
    played = play_near_in_silence(vms, floor)
    assert judge(played) == []
    closed = {
        each.subject
        for each in played.history
        if each.kind == "application_closed" and each.at < first_start(played)
    }
    assert len(closed) == alone


def first_start(played: Played) -> float:
    """Return when the event began."""
    return next(each.at for each in played.history if each.kind == "event_started")


@pytest.mark.parametrize(
    "line",
    [
        "set_flag",
        "after set_flag",
        "connections",
        "refused_probes",
        "renew_flag",
        "readiness",
        "clear_flag",
        "after clear_flag",
        "hook closing",
        "hook opening",
    ],
)
def test_an_agent_that_dies_at_any_line_leaves_no_vm_closed(line: str) -> None:
    """Its next run goes on: the laws hold, and the VM is open in the end."""
    habits = Habits(ends_within_s=1.0, dies=frozenset({(line, 1)}))
    played = Simulation(closing(event(), habits=habits, hooks=("closing", "opening"))).run()
    assert any(mark.startswith("dies: ") for mark in played.marks)
    assert judge(played) == []
    assert at(played.history, "application_closed", VM)
