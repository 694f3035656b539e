"""Acknowledging: every resource durably out and empty, or nothing is said (law S1)."""

from dataclasses import replace

import pytest
from scene import APP, Scene, acknowledged, at, event, membership, nic_id, phase, reasons, vm_id

from controller.core.actions import Phase, ReadInventory, ReadLoadBalancer
from controller.core.ledger import Entry
from controller.core.model import EventStatus, fold


@pytest.fixture
def scene() -> Scene:
    return Scene(events=[event()])


def test_a_vm_that_stands_inside_is_not_ready_in_any_spelling(scene: Scene) -> None:
    """S1: an entry that says out does not outweigh a view that shows the VM inside."""
    scene.vms = {"web-1": {"name": "Web-1"}}
    scene.events = [event("WEB-1")]
    scene.take_out()
    scene.now, scene.inside["web-1"] = 60, [APP]
    assert acknowledged(scene.plan()) == []
    scene.inside["web-1"] = []
    assert acknowledged(scene.plan()) == ["E-1"]


def test_out_again_after_a_restore_is_nobodys_drain(scene: Scene) -> None:
    """S1: whom we saw restored and an operator took out was not drained by us."""
    scene.take_out()
    scene.now, scene.events, scene.inside["web-1"] = 300, [], [APP]
    scene.adopt()
    assert scene.entry().restored_at == at(300)
    scene.now, scene.events = 305, [event(event_id="E-2", not_before=900)]
    scene.inside["web-1"] = []
    assert acknowledged(scene.plan()) == []


def test_an_entry_that_a_restore_may_still_undo_is_not_out(scene: Scene) -> None:
    """S1: whatever else an entry says, a restore that may land keeps it from being out."""
    scene.take_out()
    scene.now = 60
    assert acknowledged(scene.plan()) == ["E-1"]
    undone = replace(scene.entry(), restoring_at=at(50))
    scene.ledger = scene.ledger.with_entry(undone)
    assert acknowledged(scene.plan()) == []


def test_a_peer_in_no_pool_needs_no_new_inventory(scene: Scene) -> None:
    """H1: only a name that nobody knows makes an inventory of a minute ago too old."""
    scene.inside["web-1"] = []
    scene.policy = replace(scene.policy, acknowledge_unmanaged=True)
    planned = scene.plan(inventory_at=at(-299))
    assert (acknowledged(planned), ReadInventory() in planned.actions) == (["E-1"], False)


@pytest.mark.parametrize("agreed", [False, True])
def test_a_stranger_on_an_old_inventory_is_looked_for_first(scene: Scene, agreed: bool) -> None:
    """S1: a name that nobody knows is no reason to acknowledge before the set was read again."""
    scene.policy = replace(scene.policy, acknowledge_unmanaged=agreed)
    scene.events = [event("db-1")]
    planned = scene.plan(inventory_at=at(-60))
    assert planned.actions == (ReadInventory(),)
    assert reasons(planned) == {}


def test_each_stranger_is_told_whatever_the_others_wait_for(scene: Scene) -> None:
    """Every resource that is not ready says why, not only the first one."""
    scene.events = [event("web-1", "db-1")]
    planned = scene.plan()
    assert reasons(planned) == {"E-1": "unmanaged_resource"}
    assert "db-1" in planned.holds[0].message


def test_unmanaged_is_believed_on_fresh_pools_only(scene: Scene) -> None:
    """S1: an old view of a pool does not show that a VM is in none; the pool is read again."""
    scene.inside["web-1"] = []
    scene.policy = replace(scene.policy, acknowledge_unmanaged=True)
    scene.pools = {APP: {"observed_at": at(-31)}}
    planned = scene.plan()
    assert [type(action) for action in planned.actions] == [ReadLoadBalancer]


def test_unmanaged_is_nobody_who_was_never_seen(scene: Scene) -> None:
    """S1: a VM whose NIC has no view yet may stand anywhere, whatever was agreed to."""
    scene.inside["web-1"] = []
    scene.policy = replace(scene.policy, acknowledge_unmanaged=True)
    rest = scene.observe().nics[1:]
    assert acknowledged(scene.plan(nics=rest)) == []
    assert acknowledged(scene.plan(nics=rest, missing=frozenset({fold(nic_id("web-1"))}))) == [
        "E-1"
    ]


def test_an_event_without_resources_is_left_alone(scene: Scene) -> None:
    """S1: all of no resources are ready, and that says nothing."""
    scene.events = [replace(event(), resources=())]
    assert scene.plan().actions == ()


def test_unknown_status_is_not_acknowledged(scene: Scene) -> None:
    """S1: only an event that is scheduled for certain is acknowledged."""
    scene.take_out()
    scene.now = 60
    scene.events = [event(status=EventStatus.UNKNOWN)]
    assert acknowledged(scene.plan()) == []


def test_a_vm_of_the_ledger_alone_is_ready_when_it_is_out(scene: Scene) -> None:
    """L2: a VM that has left the set while it was out does not block its event."""
    scene.take_out()
    scene.now = 60
    rest = tuple(vm for vm in scene.observe().vms if vm.name != "web-1")
    planned = scene.plan(vms=rest)
    assert acknowledged(planned) == ["E-1"]
    assert phase(planned) is Phase.OUT


def test_no_drain_is_waited_for_where_not_before_is_unknown(scene: Scene) -> None:
    """Without a NotBefore the connection drain is given its whole time."""
    scene.events = [event(not_before=None)]
    entry = Entry(
        vm="web-1", vm_id=vm_id("web-1"), events=(), memberships=(membership("web-1"),),
        recorded_at=at(-100), out_at=at(-29.5),
    )  # fmt: skip
    scene.ledger, scene.inside["web-1"] = scene.ledger.with_entry(entry), []
    assert (acknowledged(scene.plan()), scene.plan().wake_at) == ([], at(0.5))
    scene.now = 0.5
    assert acknowledged(scene.plan()) == ["E-1"]
