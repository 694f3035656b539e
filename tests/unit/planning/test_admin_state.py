"""adminState as a mechanism: Down takes VMs out, and the state that was recorded comes back."""

import json
from dataclasses import replace
from typing import Any

import pytest

from controller.core.azure_names import load_balancer_of
from controller.core.drain_history import Step
from controller.core.planning.actions import HoldReason, Phase, ReadLoadBalancer
from controller.core.planning.admin_state import AdminState
from controller.core.planning.member_states import Refusal
from controller.core.policy import Floor
from controller.core.resources import AddressMembership, AdminMembership, NicMembership, PoolKind
from tests.support.admin_states import StateScenario, state_of, state_of_address
from tests.support.planner_scenario import (
    API,
    APP,
    FAR,
    acknowledged,
    address,
    at,
    event,
    ip_id,
    membership,
    phase,
    reasons,
    removal,
    writes,
)
from tests.support.policies import make_policy

NO_STATE = Refusal(reason="the pool refuses adminState")
NO_ROLE = Refusal(reason="the role may not write the pool", denied=True)


@pytest.fixture
def scene() -> StateScenario:
    return StateScenario(events=[event()])


def texts(planned: Any) -> list[str]:
    return [str(action) for action in writes(planned)]


def drained(scene: StateScenario, name: str = "web-1", *pools: str) -> StateScenario:
    """Record a VM that is due, set its members Down, and see it out."""
    scene.settle(0)
    scene.states |= {(pool, name): "Down" for pool in pools or (APP,)}
    assert phase(scene.settle(5), name) is Phase.OUT
    return scene


def test_one_write_takes_many_vms_out_and_no_nic_is_written(scene: StateScenario) -> None:
    """Recorded, set Down in one write of the pool, seen Down, acknowledged: none leaves it."""
    scene.events = [event("web-1", "web-2")]
    assert texts(scene.settle(0)) == ["remove adminState of web-1-nic, web-2-nic (app)"]
    assert scene.entry("web-1").memberships == (state_of("web-1"),)
    scene.states[APP, "web-1"] = "Down"
    planned = scene.settle(5)
    assert phase(planned, "web-1") is Phase.OUT
    assert phase(planned, "web-2") is Phase.DRAINING
    assert acknowledged(scene.settle(200)) == []
    scene.states[APP, "web-2"] = "DOWN"
    scene.settle(210)
    assert acknowledged(scene.settle(250)) == ["E-1"]
    assert {name: scene.inside[name] for name in ("web-1", "web-2")} == {
        "web-1": [APP],
        "web-2": [APP],
    }


@pytest.mark.parametrize("before", ["", "None", "Up", "uP", "Sideways"])
def test_a_restore_puts_the_recorded_state_back(scene: StateScenario, before: str) -> None:
    """S3: absent, None, Up in any case, and what Azure does not document come back as they were."""
    scene.states[APP, "web-1"] = before
    drained(scene)
    assert scene.entry().memberships == (state_of("web-1", state=before),)
    scene.events = []
    planned = scene.settle(300)
    assert texts(planned) == ["restore adminState of web-1-nic (app)"]
    assert writes(planned)[0].memberships == (state_of("web-1", state=before),)
    scene.states[APP, "web-1"] = before
    scene.settle(380)
    assert phase(scene.settle(400)) is Phase.IN_SERVICE
    assert scene.ledger.entries == ()


def test_out_is_proven_by_a_view_after_the_write(scene: StateScenario) -> None:
    """S1: a pool shows Down before it is in force, so a view proves it once the write has ended."""
    scene.settle(0)
    scene.states[APP, "web-1"] = "Down"
    busy = {"in_flight": frozenset({AdminState().target(state_of("web-1"))})}
    assert phase(scene.settle(3, **busy)) is Phase.DRAINING
    sent = {"sent_at": {APP.casefold(): at(4)}, "ended_at": {}}
    assert phase(scene.settle(5, **sent)) is Phase.DRAINING
    assert phase(scene.settle(6, **{**sent, "ended_at": {APP.casefold(): at(6)}})) is Phase.OUT


@pytest.mark.parametrize(
    ("state", "restored"), [("Up", "Up"), ("Sideways", "Sideways"), ("None", ""), ("", "")]
)
def test_a_member_that_another_client_sets_up_is_set_down_again(
    scene: StateScenario, state: str, restored: str
) -> None:
    """S1: seen by the regular reads while the event is announced, and recorded as put back.

    S3: what people chose last comes back. A member has no state also because its NIC was written.
    """
    drained(scene)
    scene.states[APP, "web-1"] = state
    planned = scene.settle(30)
    assert texts(planned) == ["remove adminState of web-1-nic (app)"]
    assert scene.ledger.transitions[-1].step == Step.PUT_BACK
    assert scene.entry().memberships == (state_of("web-1", state=restored),)
    assert acknowledged(planned) == []


def test_what_people_set_before_the_first_write_takes_effect_comes_back(
    scene: StateScenario,
) -> None:
    """S3: the record is older than their choice, and the write that followed it changed nothing."""
    scene.settle(0)
    scene.states[APP, "web-1"] = "Up"
    assert texts(scene.settle(5)) == ["remove adminState of web-1-nic (app)"]
    assert scene.entry().memberships == (state_of("web-1", state="Up"),)


def test_the_pools_are_read_while_a_vm_is_down(scene: StateScenario) -> None:
    """S1: a NIC does not show adminState, so only the pool proves that a VM stays out."""
    drained(scene)
    late = replace(scene.observe().pools[0], observed_at=at(5))
    planned = scene.settle(25, pools=(late,))
    assert ReadLoadBalancer(load_balancer_of(APP)) in planned.actions


# --- what people have set ------------------------------------------------------------------------


def test_a_member_that_people_set_down_is_out_and_not_ours(scene: StateScenario) -> None:
    """S3: it is neither recorded nor restored; the other pools of its VM are."""
    scene.policy = replace(scene.policy, pools={APP: Floor(number=1), API: Floor(number=1)})
    scene.inside = {f"web-{n}": [APP, API] for n in (1, 2, 3)}
    scene.states[APP, "web-1"] = "Down"
    assert texts(scene.settle(0)) == ["remove adminState of web-1-nic (api)"]
    scene.states[API, "web-1"] = "Down"
    scene.settle(5)
    assert scene.entry().memberships == (state_of("web-1", API),)
    scene.events = []
    assert texts(scene.settle(300)) == ["restore adminState of web-1-nic (api)"]
    del scene.states[API, "web-1"]
    scene.settle(380)
    scene.settle(400)
    assert scene.ledger.entries == ()


def test_a_vm_that_people_set_down_everywhere_needs_nothing(scene: StateScenario) -> None:
    """Its members get nothing new: no record, no write, and the event is acknowledged."""
    scene.states[APP, "web-1"] = "down"
    planned = scene.settle(0)
    assert writes(planned) == []
    assert scene.ledger.entries == ()
    assert phase(planned) is Phase.UNMANAGED


def test_people_who_set_it_down_before_our_write_own_it(scene: StateScenario) -> None:
    """S3: recorded and never sent, a member that is Down was not set by us."""
    scene.settle(0)
    scene.states[APP, "web-1"] = "Down"
    unsent = frozenset({state_of("web-1").key})
    scene.settle(5, unsent=unsent)
    assert scene.ledger.entries == ()


def test_the_floor_counts_what_is_down_in_full(scene: StateScenario) -> None:
    """S2: neither what people set Down nor what we hold Down serves, and a percentage counts it."""
    scene.inside = {f"web-{n}": [APP] for n in range(1, 5)}
    scene.policy = replace(scene.policy, pools={APP: Floor(number=50, percent=True)})
    scene.events = [event("web-1"), event("web-2", event_id="E-2")]
    scene.states[APP, "web-4"] = "Down"
    planned = scene.settle(0)
    assert len(writes(planned)) == 1
    assert reasons(planned)["web-2"] == HoldReason.FLOOR.value


# --- where it does not work ----------------------------------------------------------------------


@pytest.mark.parametrize("lacking", ["unprobed", "ruleless"])
def test_a_rule_without_a_probe_needs_a_removal(scene: StateScenario, lacking: str) -> None:
    """Down has no effect there: the VM is removed, and a member that is Down serves."""
    setattr(scene, lacking, {APP})
    scene.states[APP, "web-1"] = "Down"
    assert texts(scene.settle(0)) == ["remove web-1-nic (app)"]
    (recorded,) = scene.entry().memberships
    assert isinstance(recorded, NicMembership)
    assert recorded.admin_state == "Down"


def test_off_by_default() -> None:
    """Without the setting every VM is removed, and adminState is only kept."""
    scene = StateScenario(events=[event()], in_use=False)
    assert writes(scene.settle(0)) == [removal("web-1")]


def test_each_pool_has_the_mechanism_that_works_there(scene: StateScenario) -> None:
    """L2: a VM leaves one pool by Down and the other by its NIC; both come back."""
    scene.policy = replace(scene.policy, pools={APP: Floor(number=1), FAR: Floor(number=1)})
    scene.inside = {f"web-{n}": [APP, FAR] for n in (1, 2, 3)}
    scene.unprobed = {FAR}
    assert sorted(texts(scene.settle(0))) == [
        "remove adminState of web-1-nic (app)",
        "remove web-1-nic (far)",
    ]
    scene.inside["web-1"], scene.states[APP, "web-1"] = [APP], "Down"
    assert phase(scene.settle(5)) is Phase.OUT
    scene.events = []
    assert len(writes(scene.settle(300))) == 2
    scene.inside["web-1"], scene.states[APP, "web-1"] = [APP, FAR], ""
    scene.settle(380)
    scene.settle(400)
    assert scene.ledger.entries == ()


def test_a_refusal_is_followed_by_a_removal(scene: StateScenario) -> None:
    """S7: what a pool refuses is recorded again, the history says why, and the VM is removed."""
    scene.states[APP, "web-1"] = "Up"
    scene.settle(0)
    scene.refused[APP] = NO_STATE
    planned = scene.settle(1, unsent=frozenset({state_of("web-1").key}))
    assert texts(planned) == ["remove web-1-nic (app)"]
    assert scene.entry().memberships == (replace(membership("web-1"), admin_state="Up"),)
    assert "removed, not set Down: the pool refuses adminState" in (
        scene.ledger.transitions[-1].detail
    )
    scene.events = [*scene.events, event("web-2", event_id="E-2")]
    assert "remove web-2-nic (app)" in texts(scene.settle(2)), "remembered"


def test_what_the_role_lacks_is_no_reason_to_remove(scene: StateScenario) -> None:
    """A role can be corrected; the write that it forbids is tried again, and held."""
    scene.refused[APP] = NO_ROLE
    assert texts(scene.settle(0)) == ["remove adminState of web-1-nic (app)"]


def test_a_vm_that_is_down_stays_so_when_its_pool_refuses_more(scene: StateScenario) -> None:
    """S1: Down is Down, whatever the pool would answer now."""
    drained(scene)
    scene.refused[APP] = NO_STATE
    planned = scene.settle(30)
    assert writes(planned) == []
    assert phase(planned) is Phase.OUT


@pytest.mark.parametrize("before", ["", "Up"])
def test_without_its_probe_a_pool_no_longer_keeps_a_vm_out(
    scene: StateScenario, before: str
) -> None:
    """S1: when the probe of a rule is deleted, a VM that is Down gets connections: remove it."""
    scene.states[APP, "web-1"] = before
    drained(scene)
    scene.unprobed = {APP}
    assert texts(scene.settle(30)) == ["remove web-1-nic (app)"]
    assert scene.entry().memberships == (
        state_of("web-1", state=before),
        replace(membership("web-1"), admin_state=before),
    )
    assert acknowledged(scene.settle(31)) == []
    scene.inside["web-1"], scene.states = [], {}
    assert phase(scene.settle(35)) is Phase.OUT
    scene.events = []
    assert texts(scene.settle(300)) == ["restore web-1-nic (app)"]
    scene.inside["web-1"], scene.states = [APP], {(APP, "web-1"): before}
    scene.settle(380)
    scene.settle(400)
    assert scene.ledger.entries == ()


@pytest.mark.parametrize("pause_s", [0, 30])
def test_a_member_that_is_still_down_is_not_back(scene: StateScenario, pause_s: float) -> None:
    """S3: the probe of a rule is deleted while the event ends, or while Azure refuses the removal:
    the VM serves there, and its Down is ours to undo."""
    drained(scene)
    scene.unprobed = {APP}
    if pause_s:
        assert texts(scene.settle(5 + pause_s)) == ["remove web-1-nic (app)"]
    scene.events = []
    assert texts(scene.settle(300)) == ["restore adminState of web-1-nic (app)"]
    del scene.states[APP, "web-1"]
    scene.settle(380)
    scene.settle(400)
    assert scene.ledger.entries == ()


def test_a_removal_that_replaces_down_ends_when_the_rules_have_probes_again(
    scene: StateScenario,
) -> None:
    """L1: the VM is recorded with both mechanisms, and both are over."""
    drained(scene)
    scene.unprobed = {APP}
    scene.settle(30)
    scene.unprobed = set()
    assert phase(scene.settle(35)) is Phase.OUT
    scene.events = []
    scene.settle(300)
    del scene.states[APP, "web-1"]
    scene.settle(380)
    scene.settle(400)
    assert scene.ledger.entries == ()


@pytest.mark.parametrize("pool", [APP, FAR])
def test_a_removal_that_had_no_effect_does_not_keep_a_member_down(pool: str) -> None:
    """L1: the member never left its pool, and the rules have probes again: only its Down is undone.
    A restore of its place would find it there, change nothing, and be repeated for ever."""
    scene = StateScenario(events=[event()], policy=make_policy(pools={pool: Floor(number=1)}))
    scene.inside, member = {f"web-{n}": [APP] for n in (1, 2, 3)}, "web-1"
    if pool == FAR:
        scene.inside, member = {"web-1": [], "web-2": []}, "10.0.0.1"
        scene.ips = {"web-1": "10.0.0.1", "web-2": "10.0.0.2"}
        scene.addresses = {FAR: [address(ip, ip, FAR) for ip in scene.ips.values()]}
        scene.pools = {FAR: {"kind": PoolKind.ADDRESS}}
    scene.settle(0)
    scene.states[pool, member] = "Down"
    scene.settle(5)
    scene.unprobed = {pool}
    scene.settle(30)
    assert len(scene.entry().memberships) == 2
    scene.unprobed, scene.events = set(), []
    (write,) = writes(scene.settle(300))
    assert (write.restore, [type(m) for m in write.memberships]) == (True, [AdminMembership])
    del scene.states[pool, member]
    scene.settle(380)
    scene.settle(400)
    assert scene.ledger.entries == ()


def test_a_leader_that_cannot_read_the_rules_keeps_a_vm_down(scene: StateScenario) -> None:
    """S1, V1: no client has put it back. No other VM is set Down before the rules are known."""
    drained(scene)
    scene.ruleless = {APP}
    assert writes(scene.settle(30)) == []
    assert phase(scene.settle(31)) is Phase.OUT
    scene.events = [*scene.events, event("web-2", event_id="E-2")]
    assert texts(scene.settle(32)) == ["remove web-2-nic (app)"]


@pytest.mark.parametrize("before", ["", "Up", "None"])
def test_an_address_is_removed_with_the_state_that_it_had(before: str) -> None:
    """S3: the body that a restore adds again does not have our Down."""
    scene = StateScenario(events=[event()], policy=make_policy(pools={FAR: Floor(number=1)}))
    scene.inside = {"web-1": [], "web-2": []}
    scene.ips = {"web-1": "10.0.0.1", "web-2": "10.0.0.2"}
    bodies = [
        {"name": f"a{n}", "properties": {"ipAddress": f"10.0.0.{n}", "adminState": "Down"}}
        for n in (1, 2)
    ]
    scene.addresses[FAR] = [
        replace(address(f"a{n}", f"10.0.0.{n}", FAR), body=json.dumps(body))
        for n, body in enumerate(bodies, start=1)
    ]
    scene.pools[FAR] = {"kind": PoolKind.ADDRESS}
    scene.states[FAR, "10.0.0.1"] = before
    assert texts(scene.settle(0)) == ["remove adminState of 10.0.0.1 (far)"]
    assert scene.entry().memberships == (state_of_address("10.0.0.1", "a1", FAR, state=before),)
    scene.states[FAR, "10.0.0.1"] = "Down"
    scene.settle(5)
    scene.unprobed = {FAR}
    assert texts(scene.settle(30)) == ["remove 10.0.0.1 (far)"]
    _, recorded = scene.entry().memberships
    assert isinstance(recorded, AddressMembership)
    assert json.loads(recorded.body)["properties"].get("adminState", "") == before
    scene.addresses[FAR] = scene.addresses[FAR][1:]
    assert phase(scene.settle(40)) is Phase.OUT
    scene.events = []
    assert texts(scene.settle(300)) == ["restore 10.0.0.1 (far)"]


# --- what changes meanwhile ----------------------------------------------------------------------


def test_the_ledger_decides_and_not_a_new_configuration(scene: StateScenario) -> None:
    """S3: a VM that is Down when the setting is taken back is restored from Down."""
    drained(scene)
    scene.policy = replace(scene.policy, admin_state=False)
    assert phase(scene.settle(30)) is Phase.OUT
    scene.events = []
    assert texts(scene.settle(300)) == ["restore adminState of web-1-nic (app)"]


def test_a_vm_that_was_removed_comes_back_to_its_pool(scene: StateScenario) -> None:
    """S3: a drain that began as a removal ends as one after the setting is made."""
    scene.policy = replace(scene.policy, admin_state=False)
    scene.take_out()
    scene.policy = replace(scene.policy, admin_state=True)
    scene.events = []
    assert texts(scene.settle(300)) == ["restore web-1-nic (app)"]


def test_the_state_of_a_member_that_is_removed_is_not_followed() -> None:
    """S3: a removal records a place in a pool; what it loses with that place is known at once."""
    scene = StateScenario(events=[event()])
    scene.policy = replace(scene.policy, admin_state=False)
    scene.settle(0)
    recorded = scene.entry().memberships
    scene.states[APP, "web-1"] = "Up"
    scene.settle(5)
    assert scene.entry().memberships == recorded == (membership("web-1"),)


def test_a_pool_can_have_members_of_both_mechanisms() -> None:
    """L2: one VM was removed before the setting was made, and another one is Down."""
    scene = StateScenario(events=[event()], policy=make_policy(pools={FAR: Floor(number=1)}))
    scene.policy = replace(scene.policy, admin_state=False)
    scene.inside = {f"web-{n}": [] for n in (1, 2, 3)}
    scene.ips = {f"web-{n}": f"10.0.0.{n}" for n in (1, 2, 3)}
    scene.addresses[FAR] = [address(f"a{n}", f"10.0.0.{n}", FAR) for n in (1, 2, 3)]
    scene.pools[FAR] = {"kind": PoolKind.ADDRESS}
    assert texts(scene.settle(0)) == ["remove 10.0.0.1 (far)"]
    scene.addresses[FAR] = scene.addresses[FAR][1:]
    scene.settle(5)
    scene.policy = replace(scene.policy, admin_state=True)
    scene.events = [event("web-1", "web-2")]
    assert texts(scene.settle(10)) == ["remove adminState of 10.0.0.2 (far)"]
    scene.states[FAR, "10.0.0.2"] = "Down"
    scene.settle(15)
    scene.events = []
    assert texts(scene.settle(300)) == ["restore 10.0.0.1 (far)"]
    scene.addresses[FAR] = [address(f"a{n}", f"10.0.0.{n}", FAR) for n in (1, 2, 3)]
    assert "restore adminState of 10.0.0.2 (far)" in texts(scene.settle(310))


def test_a_member_that_vanished_is_never_added(scene: StateScenario) -> None:
    """S3: another client removed it while it was Down: it is reported, and dropped on request."""
    drained(scene)
    scene.inside["web-1"] = []
    assert phase(scene.settle(30)) is Phase.OUT
    scene.events = []
    planned = scene.settle(300)
    assert writes(planned) == []
    assert reasons(planned)["web-1"] == HoldReason.LOST.value
    assert "the pool does not list the member" in planned.holds[0].message
    scene.inside["web-1"] = [APP]
    del scene.states[APP, "web-1"]
    scene.settle(400)
    scene.settle(470)
    scene.settle(500)
    assert scene.ledger.entries == ()


def test_a_lost_member_that_is_listed_again_as_down_is_restored(scene: StateScenario) -> None:
    """S3: the view without it was wrong; the Down is still ours."""
    drained(scene)
    scene.inside["web-1"], scene.events = [], []
    scene.settle(300)
    scene.inside["web-1"] = [APP]
    assert texts(scene.settle(320)) == ["restore adminState of web-1-nic (app)"]


def test_a_vm_created_again_keeps_the_state_of_its_members(scene: StateScenario) -> None:
    """S3: a name is no identity; what another VM has in the pool is not ours to change."""
    scene.vms["web-1"] = {"guid": "one"}
    drained(scene)
    (recorded,) = scene.entry().memberships
    assert isinstance(recorded, AdminMembership)
    assert recorded.vm_guid == "one"
    scene.vms["web-1"], scene.events = {"guid": "two"}, []
    planned = scene.settle(300)
    assert writes(planned) == []
    assert reasons(planned)["web-1"] == HoldReason.LOST.value


def test_the_next_maintenance_records_the_state_of_that_time(scene: StateScenario) -> None:
    """S3: an entry that is over says nothing about what people have set since."""
    drained(scene)
    scene.events = []
    scene.settle(300)
    del scene.states[APP, "web-1"]
    scene.settle(380)
    assert scene.entry().restored_at is not None
    scene.states[APP, "web-1"] = "Up"
    scene.events = [event(event_id="E-2", not_before=900)]
    scene.settle(385)
    assert scene.entry().memberships == (state_of("web-1", state="Up"),)


def test_a_nic_that_is_newer_than_its_pool_is_recorded_all_the_same(scene: StateScenario) -> None:
    """S5: a member that its pool does not list yet is recorded, by whichever mechanism."""
    drained(scene)
    scene.events = []
    scene.settle(300)
    del scene.states[APP, "web-1"]
    scene.settle(380)
    assert scene.entry().restored_at is not None
    scene.events = [event(event_id="E-2", not_before=900)]
    pool = replace(scene.observe().pools[0], observed_at=at(381))
    others = tuple(m for m in pool.members if m.ip_configuration_id != ip_id("web-1"))
    scene.settle(385, pools=(replace(pool, members=others),))
    assert scene.entry().memberships == (state_of("web-1"),)


def test_hundreds_of_members_are_one_write() -> None:
    """One PUT of the pool for a whole fault domain, whatever the size of the pool."""
    names = [f"web-{n}" for n in range(1, 401)]
    scene = StateScenario(
        events=[event(*names[:130])],
        inside={name: [APP] for name in names},
        policy=make_policy(pools={APP: Floor(number=200, ignores_other_sets=True)}),
    )
    scene.strangers = [ip_id(f"db-{n}") for n in range(100)]
    (write,) = writes(scene.settle(0))
    assert len(write.memberships) == 130
