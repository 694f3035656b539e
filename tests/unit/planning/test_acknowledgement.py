"""Acknowledging: every resource durably out and empty, or nothing is said (law S1)."""

from dataclasses import replace

import pytest

from controller.core.azure_names import fold
from controller.core.events import EventStatus
from controller.core.ledger import Entry, EventReference
from controller.core.planning import operator_controls
from controller.core.planning.actions import (
    Phase,
    Plan,
    Read,
    ReadInventory,
    ReadLoadBalancer,
    ReadNic,
)
from controller.core.policy import Floor
from controller.core.presence import Source
from controller.core.resources import PoolKind
from tests.support.planner_scenario import (
    APP,
    FAR,
    LB,
    LB2,
    PlannerScenario,
    acknowledged,
    address,
    at,
    deferred,
    event,
    lasting_absence,
    membership,
    nic_id,
    phase,
    reasons,
    removal,
    started,
    vm_id,
    writes,
)
from tests.support.policies import make_policy


def test_a_vm_that_stands_inside_is_not_ready_in_any_spelling(scene: PlannerScenario) -> None:
    """S1: an entry that says out does not outweigh a view that shows the VM inside."""
    scene.vms = {"web-1": {"name": "Web-1"}}
    scene.events = [event("WEB-1")]
    scene.take_out()
    scene.now, scene.inside["web-1"] = 60, [APP]
    assert acknowledged(scene.plan()) == []
    scene.inside["web-1"] = []
    assert acknowledged(scene.plan()) == ["E-1"]


@pytest.mark.parametrize("names", [("web-1", "web-2"), ("web-2", "web-1")])
def test_one_vm_that_is_out_is_not_enough(scene: PlannerScenario, names: tuple[str, str]) -> None:
    """S1: an event that names two VMs waits for both, in whichever order it names them."""
    scene.take_out("web-1")
    scene.now, scene.events = 60, [event(*names)]
    assert acknowledged(scene.plan()) == []


def test_out_again_after_a_restore_is_nobodys_drain(scene: PlannerScenario) -> None:
    """S1: whom we saw restored and an operator took out was not drained by us."""
    scene.take_out()
    scene.now, scene.events, scene.inside["web-1"] = 300, [], [APP]
    scene.adopt()
    assert scene.entry().restored_at == at(300)
    scene.now, scene.events = 305, [event(event_id="E-2", not_before=900)]
    scene.inside["web-1"] = []
    assert acknowledged(scene.plan()) == []


def test_an_entry_that_a_restore_may_still_undo_is_not_out(scene: PlannerScenario) -> None:
    """S1: whatever else an entry says, a restore that may land keeps it from being out."""
    scene.take_out()
    scene.now = 60
    assert acknowledged(scene.plan()) == ["E-1"]
    undone = replace(scene.entry(), restoring_at=at(50))
    scene.ledger = scene.ledger.with_entry(undone)
    assert acknowledged(scene.plan()) == []


def test_a_peer_in_no_pool_needs_no_new_inventory(scene: PlannerScenario) -> None:
    """H1: only a name that nobody knows makes an inventory of a minute ago too old."""
    scene.inside["web-1"] = []
    scene.policy = replace(scene.policy, acknowledge_unmanaged=True)
    planned = scene.plan(inventory_at=at(-299))
    assert (acknowledged(planned), ReadInventory() in planned.actions) == (["E-1"], False)


@pytest.mark.parametrize("agreed", [False, True])
def test_a_stranger_on_an_old_inventory_is_looked_for_first(
    scene: PlannerScenario, agreed: bool
) -> None:
    """S1: a name that nobody knows is no reason to acknowledge before the set was read again."""
    scene.policy = replace(scene.policy, acknowledge_unmanaged=agreed)
    scene.events = [event("db-1")]
    planned = scene.plan(inventory_at=at(-60))
    assert planned.actions == (ReadInventory(),)
    assert reasons(planned) == {}


def test_each_stranger_is_told_whatever_the_others_wait_for(scene: PlannerScenario) -> None:
    """Every resource that is not ready says why, not only the first one."""
    scene.events = [event("web-1", "db-1")]
    planned = scene.plan()
    assert reasons(planned) == {"E-1": "unmanaged_resource"}
    assert "db-1" in planned.holds[0].message


def test_unmanaged_is_believed_on_fresh_pools_only(scene: PlannerScenario) -> None:
    """S1: an old view of a pool does not show that a VM is in none; the pool is read again."""
    scene.inside["web-1"] = []
    scene.policy = replace(scene.policy, acknowledge_unmanaged=True)
    scene.pools = {APP: {"observed_at": at(-31)}}
    planned = scene.plan()
    assert [type(action) for action in planned.actions] == [ReadLoadBalancer]


def test_an_address_may_belong_to_a_vm_whose_nic_was_never_seen(scene: PlannerScenario) -> None:
    """S1: a VM is out of its NIC-based pool and was added to an IP-based one. A new leader that
    could not read its NIC does not know whose address that pool lists."""
    scene.policy = make_policy(pools={APP: Floor(number=1), FAR: Floor(number=0)})
    scene.ips, scene.pools = {"web-1": "10.0.0.1"}, {FAR: {"kind": PoolKind.ADDRESS}}
    scene.take_out()
    scene.now, scene.addresses[FAR] = 60, [address("put", "10.0.0.1", FAR)]
    others = tuple(nic for nic in scene.observe().nics if nic.nic_id != nic_id("web-1"))
    planned = scene.plan(nics=others)
    assert acknowledged(planned) == []
    assert ReadNic(nic_id("web-1")) in planned.actions
    scene.addresses[FAR] = []
    assert acknowledged(scene.plan()) == ["E-1"]


def test_unmanaged_is_nobody_who_was_never_seen(scene: PlannerScenario) -> None:
    """S1: a VM whose NIC has no view yet may stand anywhere, whatever was agreed to."""
    scene.inside["web-1"] = []
    scene.policy = replace(scene.policy, acknowledge_unmanaged=True)
    rest = scene.observe().nics[1:]
    assert acknowledged(scene.plan(nics=rest)) == []
    assert acknowledged(scene.plan(nics=rest, missing=frozenset({fold(nic_id("web-1"))}))) == [
        "E-1"
    ]


@pytest.mark.parametrize(("led_for_s", "acknowledges"), [(59, False), (61, True)])
def test_unmanaged_is_no_vm_that_an_earlier_leader_may_have_removed(
    scene: PlannerScenario, led_for_s: float, acknowledges: bool
) -> None:
    """S1: a removal shows before it takes effect, and the ledger that records it can be lost."""
    scene.inside["web-1"] = []
    scene.policy = replace(scene.policy, acknowledge_unmanaged=True)
    scene.ledger = replace(scene.ledger, leader_since=at(scene.now - led_for_s))
    planned = scene.plan()
    assert bool(acknowledged(planned)) is acknowledges
    assert acknowledges or planned.wake_at == at(scene.now + 1)


def test_unmanaged_is_no_vm_whose_nic_is_being_changed(scene: PlannerScenario) -> None:
    """S1: the NIC shows what another client asked for; it is read until the operation has ended."""
    scene.inside["web-1"] = []
    scene.policy = replace(scene.policy, acknowledge_unmanaged=True)
    own, *rest = scene.observe().nics
    for observed_at, read in ((at(scene.now), False), (at(scene.now - 5), True)):
        changing = replace(own, updating=True, observed_at=observed_at)
        planned = scene.plan(nics=(changing, *rest))
        assert acknowledged(planned) == []
        assert (ReadNic(own.nic_id) in planned.actions) is read


def test_an_event_without_resources_is_left_alone(scene: PlannerScenario) -> None:
    """S1: all of no resources are ready, and that says nothing."""
    scene.events = [replace(event(), resources=())]
    assert scene.plan().actions == ()


def test_unknown_status_is_not_acknowledged(scene: PlannerScenario) -> None:
    """S1: only an event that is scheduled for certain is acknowledged."""
    scene.take_out()
    scene.now = 60
    scene.events = [event(status=EventStatus.UNKNOWN)]
    assert acknowledged(scene.plan()) == []


def test_a_vm_of_the_ledger_alone_is_ready_when_it_is_out(scene: PlannerScenario) -> None:
    """L2: a VM that has left the set while it was out does not block its event."""
    scene.take_out()
    scene.now = 60
    rest = tuple(vm for vm in scene.observe().vms if vm.name != "web-1")
    planned = scene.plan(vms=rest)
    assert acknowledged(planned) == ["E-1"]
    assert phase(planned) is Phase.OUT


def test_no_drain_is_waited_for_where_not_before_is_unknown(scene: PlannerScenario) -> None:
    """Without a NotBefore the connection drain is given its whole time."""
    scene.events = [event(not_before=None)]
    named = EventReference(event_id="E-1", event_type="Reboot")
    entry = Entry(
        vm="web-1", vm_id=vm_id("web-1"), events=(named,), memberships=(membership("web-1"),),
        recorded_at=at(-100), out_at=at(-29.5),
    )  # fmt: skip
    scene.ledger, scene.inside["web-1"] = scene.ledger.with_entry(entry), []
    assert (acknowledged(scene.plan()), scene.plan().wake_at) == ([], at(0.5))
    scene.now = 0.5
    assert acknowledged(scene.plan()) == ["E-1"]


# --- read right before ---------------------------------------------------------------------------


def reads(planned: Plan) -> list[Read]:
    """Return the reads of memberships that a plan starts."""
    return [each for each in planned.actions if isinstance(each, ReadLoadBalancer | ReadNic)]


def drained(scene: PlannerScenario, *vms: str) -> None:
    """Take these VMs out, and let their connections end."""
    scene.events = [event(*vms)]
    scene.adopt()
    scene.inside.update({vm: [] for vm in vms})
    scene.now = 5
    scene.adopt()
    scene.now = 40


@pytest.mark.parametrize(("age_s", "young"), [(3, True), (3.1, False), (30, False)])
def test_an_acknowledgement_follows_a_read(
    scene: PlannerScenario, age_s: float, young: bool
) -> None:
    """S1: a pool that was read a while ago does not show that the VM is out now."""
    drained(scene, "web-1")
    scene.pools = {APP: {"observed_at": at(scene.now - age_s)}}
    planned = scene.plan()
    assert acknowledged(planned) == (["E-1"] if young else [])
    assert (ReadLoadBalancer(LB) in planned.actions) is not young


def test_reads_do_not_grow_with_the_vms_that_are_out(scene: PlannerScenario) -> None:
    """One read for each load balancer shows every VM, whatever the NICs were last seen to list."""
    scene.policy = make_policy(pools={APP: Floor(number=0), FAR: Floor(number=0)})
    scene.inside = {f"web-{n}": [APP, FAR] for n in range(1, 9)}
    drained(scene, *scene.inside)
    old = {"observed_at": at(5)}
    scene.nics = dict.fromkeys(scene.inside, old)
    scene.pools = {APP: old, FAR: old}
    assert reads(scene.plan()) == [ReadLoadBalancer(LB), ReadLoadBalancer(LB2)]
    scene.pools = {}
    planned = scene.plan()
    assert (acknowledged(planned), reads(planned)) == (["E-1"], [])


def test_the_read_is_over_when_the_connections_are(scene: PlannerScenario) -> None:
    """S7: the pools are read shortly before the connection drain ends, not after it."""
    scene.take_out()
    scene.now = 32.9
    scene.pools = {APP: {"observed_at": at(30)}}
    planned = scene.plan()
    assert (reads(planned), planned.wake_at) == ([], at(33))
    scene.now = 33
    assert reads(scene.plan()) == [ReadLoadBalancer(LB)]
    scene.pools = {APP: {"observed_at": at(33.5)}}
    scene.now = 33.6
    assert scene.plan().wake_at == at(35)
    scene.now = 35
    assert acknowledged(scene.plan()) == ["E-1"]


def test_nics_are_read_while_their_load_balancer_cannot_be(scene: PlannerScenario) -> None:
    """L2: a load balancer that cannot be read holds no acknowledgement that its NICs can prove."""
    drained(scene, "web-1")
    old = {"observed_at": at(5)}
    scene.pools, scene.nics = {APP: old}, {"web-1": old}
    fails = deferred(ReadLoadBalancer(LB).key, until=60)
    planned = scene.plan(**fails)
    assert (acknowledged(planned), reads(planned)) == ([], [ReadNic(nic_id("web-1"))])
    scene.nics = {}
    assert acknowledged(scene.plan(**fails)) == ["E-1"]
    scene.nics = {"web-1": {"updating": True}}
    assert acknowledged(scene.plan(**fails)) == []


@pytest.mark.parametrize(
    ("kind", "proven"), [(PoolKind.NIC, True), (PoolKind.EMPTY, True), (PoolKind.ADDRESS, False)]
)
def test_nics_prove_nothing_about_pools_of_addresses(
    scene: PlannerScenario, kind: PoolKind, proven: bool
) -> None:
    """S1: only a pool that has NICs, or had ours, is shown by them."""
    drained(scene, "web-1")
    scene.pools = {APP: {"observed_at": at(5), "kind": kind}}
    fails = deferred(ReadLoadBalancer(LB).key, until=60)
    assert acknowledged(scene.plan(**fails)) == (["E-1"] if proven else [])


def test_an_empty_pool_that_had_an_address_is_not_shown_by_nics(scene: PlannerScenario) -> None:
    """S1: what was recorded of an empty pool shows its kind."""
    drained(scene, "web-1")
    scene.ledger = scene.ledger.with_entry(
        replace(scene.entry(), memberships=(address("web-1", "10.0.0.1"),))
    )
    scene.pools = {APP: {"observed_at": at(5), "kind": PoolKind.EMPTY}}
    assert acknowledged(scene.plan(**deferred(ReadLoadBalancer(LB).key, until=60))) == []


def test_a_pool_that_one_reply_did_not_show_proves_nothing(scene: PlannerScenario) -> None:
    """S1: only a pool whose absence lasts is left out; until then its last view counts."""
    drained(scene, "web-1")
    scene.pools = {APP: {"observed_at": at(5)}}
    once: frozenset[str] = frozenset({fold(APP)})
    assert acknowledged(scene.plan(absent=once)) == []
    assert acknowledged(scene.plan(missing=once)) == ["E-1"]


@pytest.mark.parametrize(("age_s", "leaves"), [(10, True), (10.1, False)])
def test_what_is_checked_when_it_leaves(scene: PlannerScenario, age_s: float, leaves: bool) -> None:
    """S1: an acknowledgement leaves on reads of ten seconds ago, and not on older ones."""
    drained(scene, "web-1")
    scene.pools = {APP: {"observed_at": at(scene.now - age_s)}}
    assert operator_controls.may_acknowledge("e-1", scene.evidence()) is leaves
    assert not operator_controls.may_acknowledge("E-2", scene.evidence())
    assert not operator_controls.may_acknowledge("E-1", scene.evidence(document=None))


@pytest.mark.parametrize("pool", [APP, FAR])
def test_a_vm_that_was_put_back_is_removed_before_it_is_acknowledged(
    scene: PlannerScenario, pool: str
) -> None:
    """S1: put back into any managed pool, a VM is recorded, removed and observed out again."""
    scene.policy = make_policy(pools={APP: Floor(number=1), FAR: Floor(number=0)})
    drained(scene, "web-1")
    scene.inside["web-1"] = [pool]
    planned = scene.through()
    assert acknowledged(planned) == []
    assert [[m.pool_id for m in write.memberships] for write in writes(planned)] == [[pool]]
    line = scene.ledger.transitions[-1]
    assert (line.vm, line.step, line.detail) == ("web-1", "put back", pool.rsplit("/", 1)[-1])
    scene.now, scene.inside["web-1"] = 50, []
    assert acknowledged(scene.through()) == []
    assert scene.entry().out_at == at(50)
    scene.now = 80
    assert acknowledged(scene.plan()) == ["E-1"]


def test_a_vm_that_is_put_back_during_its_maintenance_is_removed(scene: PlannerScenario) -> None:
    """S7: also after the event has started a VM that was put back leaves its pools at once."""
    drained(scene, "web-1")
    scene.events = [started()]
    scene.inside["web-1"] = [APP]
    assert writes(scene.through()) == [removal()]


def test_the_ledger_names_an_event_before_it_is_acknowledged(scene: PlannerScenario) -> None:
    """S6: a leader that dies after the acknowledgement leaves a record that keeps the VM out."""
    scene.take_out()
    scene.now = 60
    scene.events.append(event(event_id="E-2"))
    assert acknowledged(scene.adopt()) == ["E-1"]
    assert scene.entry().is_for("E-2")
    assert acknowledged(scene.plan()) == ["E-1", "E-2"]


# --- what Azure does not find proves nothing alone ---


def test_a_vm_is_not_out_because_azure_finds_neither_nics_nor_pools(scene: PlannerScenario) -> None:
    """S1: a resource group answers `ResourceGroupNotFound` for minutes; the VM is in its pool."""
    scene.adopt()
    scene.now = 300
    everything = lasting_absence(nic_id("web-1"), *scene.policy.pools)
    planned = scene.through(presence=everything, pools=(), nics=())
    assert scene.entry().out_at is None
    assert acknowledged(planned) == []
    assert phase(planned) is Phase.DRAINING


def test_a_vm_that_is_out_is_not_acknowledged_while_azure_shows_nothing_of_it(
    scene: PlannerScenario,
) -> None:
    """S1: it could be back in its pool, and no read can show that."""
    scene.take_out()
    scene.now = 300
    everything = lasting_absence(nic_id("web-1"), *scene.policy.pools)
    assert acknowledged(scene.plan(presence=everything, pools=(), nics=())) == []


def test_an_unmanaged_vm_is_not_left_aside_while_azure_shows_nothing_of_it(
    scene: PlannerScenario,
) -> None:
    """S1: whether it is in a managed pool is not known then."""
    scene.policy = replace(scene.policy, acknowledge_unmanaged=True)
    scene.inside["web-1"] = []
    assert acknowledged(scene.plan()) == ["E-1"]
    everything = lasting_absence(nic_id("web-1"), *scene.policy.pools)
    assert acknowledged(scene.plan(presence=everything, pools=(), nics=())) == []


def test_pools_of_a_resource_group_that_is_not_found_prove_nothing(scene: PlannerScenario) -> None:
    """S1: the NICs are in another group, and an address in a pool does not show on its NIC."""
    scene.take_out()
    elsewhere = APP.casefold().replace("/resourcegroups/", "/resourcegroups/network-")
    scene.policy = replace(
        scene.policy, pools={**scene.policy.pools, elsewhere: scene.policy.pools[APP]}
    )
    scene.now = 300
    kept = tuple(each for each in scene.observe().pools if each.pool_id == APP)
    planned = scene.plan(presence=lasting_absence(elsewhere), pools=kept)
    assert acknowledged(planned) == []

    listed = lasting_absence(elsewhere, source=Source.LIST)
    planned = scene.plan(presence=listed, pools=kept)
    assert acknowledged(planned) == ["E-1"], "its load balancer is shown without the pool"


def test_a_deleted_nic_alone_keeps_no_event_waiting(scene: PlannerScenario) -> None:
    """L2: the pools are read, and show that the VM is in none."""
    scene.take_out()
    scene.now = 300
    planned = scene.plan(presence=lasting_absence(nic_id("web-1")))
    assert acknowledged(planned) == ["E-1"]


@pytest.mark.parametrize(("read_at", "expected"), [(59, []), (60, ["E-1"])])
def test_a_pool_that_lists_a_vm_has_to_agree_with_its_nic(
    scene: PlannerScenario, read_at: float, expected: list[str]
) -> None:
    """S1: Azure can show a NIC as a failed write wanted it; the pool is read after it."""
    inside = scene.observe().pools
    scene.take_out()
    scene.now = 60
    listed = [replace(each, observed_at=at(read_at)) for each in inside]
    shown = listed if read_at < scene.now else scene.observe().pools
    planned = scene.plan(pools=tuple(shown))
    assert acknowledged(planned) == expected
    assert (ReadLoadBalancer(LB) in planned.actions) is (expected == [])
