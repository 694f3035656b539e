"""A name is no identity: VMs and NICs that are created again, and addresses of other VMs."""

from dataclasses import replace
from typing import Any

import pytest

from controller.core.ledger import Entry
from controller.core.planning.actions import ReadInventory, ReadNic
from controller.core.policy import Floor
from controller.core.resources import AddressMembership, IpConfiguration, NicMembership
from tests.support.planner_scenario import (
    APP,
    PlannerScenario,
    acknowledged,
    address,
    at,
    event,
    membership,
    nic_id,
    reasons,
    vm_id,
    writes,
)
from tests.support.policies import make_policy

KNOWN: dict[str, Any] = {"vms": {"web-1": {"guid": "vm-a"}}, "nics": {"web-1": {"guid": "nic-a"}}}
MINE = replace(membership("web-1"), vm_guid="vm-a", nic_guid="nic-a")


def out_and_over(**fields: Any) -> PlannerScenario:
    scene = PlannerScenario(events=[event()], **{**KNOWN, **fields})
    scene.take_out()
    scene.now, scene.events = 300, []
    return scene


def lost(scene: PlannerScenario) -> tuple[NicMembership | AddressMembership, ...]:
    return tuple(
        each for each in scene.entry().lost if isinstance(each, NicMembership | AddressMembership)
    )


def test_a_record_has_the_identities_of_its_vm_and_nic() -> None:
    """K3: the entry that is written before the removal names the very VM and NIC."""
    scene = PlannerScenario(events=[event()], **KNOWN)
    scene.adopt()
    assert scene.entry().memberships == (MINE,)


def test_an_entry_of_an_older_version_is_completed() -> None:
    """K3: an entry without identities gets them with the first pass that knows them."""
    scene = PlannerScenario(now=60, events=[event()], **KNOWN)
    scene.inside["web-1"] = []
    old = Entry(
        vm="WEB-1",
        vm_id=vm_id("web-1").upper(),
        events=(),
        memberships=(membership("web-1"),),
        recorded_at=at(0),
        out_at=at(5),
    )
    scene.ledger = scene.ledger.with_entry(old)
    scene.adopt()
    assert scene.entry().memberships == (MINE,)
    assert scene.adopt().ledger is None


def test_the_identity_of_an_old_inventory_is_not_recorded() -> None:
    """S3: a VM that was created again after the last inventory keeps its places in the pools."""
    scene = PlannerScenario(events=[event()], **KNOWN)
    scene.adopt(inventory_at=at(-200))
    assert scene.entry().memberships == (replace(MINE, vm_guid=""),)
    scene.vms = {"web-1": {"guid": "vm-b"}}
    scene.now = 5
    scene.adopt(inventory_at=at(5))
    assert scene.entry().memberships == (replace(MINE, vm_guid="vm-b"),)
    assert not scene.entry().lost


@pytest.mark.parametrize(("now", "reads"), [(59, False), (60, True)])
def test_the_identity_of_a_vm_that_was_recorded_is_read_soon(now: int, reads: bool) -> None:
    """K3: the writes of a drain go first; a VM that is created again later is then another one."""
    scene = PlannerScenario(events=[event()], **KNOWN)
    scene.adopt(inventory_at=at(-200))
    scene.now = now
    assert (ReadInventory() in scene.plan(inventory_at=at(-200)).actions) is reads


def test_no_identity_is_waited_for_that_azure_does_not_show() -> None:
    """H1: Azure Stack Hub may show no `vmId`: the inventory keeps its period."""
    scene = PlannerScenario(events=[event()])
    scene.adopt(inventory_at=at(-200))
    scene.now = 60
    assert ReadInventory() not in scene.plan(inventory_at=at(-200)).actions


@pytest.mark.parametrize(("recorded", "reads"), [(vm_id("WEB-1"), True), ("/other/web-1", False)])
def test_no_identity_is_waited_for_that_is_never_recorded(recorded: str, *, reads: bool) -> None:
    """H1: the entry of another VM stays until an operator forgets it, and costs no inventories."""
    scene = PlannerScenario(events=[event()], **KNOWN)
    scene.adopt(inventory_at=at(-200))
    scene.ledger = scene.ledger.with_entry(replace(scene.entry(), vm_id=recorded))
    scene.now = 60
    assert (ReadInventory() in scene.plan(inventory_at=at(-200)).actions) is reads


def test_an_entry_of_another_vm_is_not_completed() -> None:
    """K3: identities are those of the VM with the recorded id, never of a namesake."""
    scene = out_and_over()
    foreign = replace(scene.entry(), vm_id="/other/web-1", memberships=(membership("web-1"),))
    scene.ledger = scene.ledger.with_entry(foreign)
    scene.adopt()
    assert scene.entry().memberships == (membership("web-1"),)


@pytest.mark.parametrize(
    ("again", "why"),
    [
        ({"vms": {"web-1": {"guid": "vm-b"}}}, "the VM was created again"),
        ({"nics": {"web-1": {"guid": "nic-b"}}}, "the NIC was created again"),
        ({"nics": {"web-1": {"guid": "nic-a", "vm_id": vm_id("web-2")}}}, "not attached to the VM"),
        ({"nics": {"web-1": {"guid": "nic-a", "vm_id": ""}}}, "not attached to the VM"),
    ],
    ids=["VM", "NIC", "NIC of another VM", "detached"],
)
def test_another_resource_under_an_old_name_is_not_restored(
    again: dict[str, Any], why: str
) -> None:
    """S3: what was removed was another resource; it is kept as lost, and restored if it returns."""
    scene = out_and_over()
    for name, value in again.items():
        setattr(scene, name, value)
    planned = scene.through()
    assert (writes(planned), lost(scene)) == ([], (MINE,))
    assert reasons(planned) == {"web-1": "lost"}
    assert why in planned.holds[0].message
    scene.vms, scene.nics = KNOWN["vms"], KNOWN["nics"]
    (write,) = writes(scene.through())
    assert (write.restore, write.memberships) == (True, (MINE,))


def test_an_identity_in_other_capitals_is_the_same() -> None:
    """Azure spells a GUID as it likes."""
    scene = out_and_over()
    scene.vms, scene.nics = {"web-1": {"guid": "VM-A"}}, {"web-1": {"guid": "NIC-A"}}
    assert len(writes(scene.through())) == 1


def test_a_vm_that_was_created_again_is_drained_for_itself() -> None:
    """S1, S3: its removal is recorded with its own identity, and that is what comes back."""
    scene = out_and_over()
    scene.vms, scene.nics = {"web-1": {"guid": "vm-b"}}, {"web-1": {"guid": "nic-b"}}
    scene.inside["web-1"], scene.events = [APP], [event(event_id="E-2", not_before=900)]
    planned = scene.through()
    new = replace(MINE, vm_guid="vm-b", nic_guid="nic-b")
    assert (scene.entry().memberships, lost(scene)) == ((new,), (MINE,))
    assert [write.restore for write in writes(planned)] == [False]
    scene.inside["web-1"], scene.now = [], 305
    scene.adopt()
    scene.now = 340
    assert acknowledged(scene.plan()) == ["E-2"]
    scene.events = []
    (write,) = writes(scene.through())
    assert (write.restore, write.memberships) == (True, (new,))


def test_a_new_vm_in_the_pool_ends_nothing() -> None:
    """S3: that a namesake is in the pool does not show that the recorded VM is back."""
    scene = out_and_over()
    scene.vms, scene.nics = {"web-1": {"guid": "vm-b"}}, {"web-1": {"guid": "nic-b"}}
    scene.inside["web-1"] = [APP]
    scene.through()
    assert lost(scene) == (MINE,)


def test_a_nic_that_was_never_seen_is_read_before_its_restore() -> None:
    """S3: the body of the NIC shows which VM it belongs to."""
    scene = out_and_over()
    planned = scene.through(nics=())
    assert writes(planned) == []
    assert ReadNic(nic_id("web-1")) in planned.actions


def test_what_was_restored_is_not_lost_with_its_vm() -> None:
    """L1: a VM is created again just after its restore, and an event for the new one is due."""
    scene = out_and_over()
    scene.adopt()
    scene.inside["web-1"] = [APP]
    scene.now = 310
    scene.through()
    assert scene.entry().restored_at is not None
    scene.vms = {"web-1": {"guid": "vm-b"}}
    scene.now, scene.events = 315, [event(event_id="E-2", not_before=900)]
    scene.through()
    assert scene.entry().lost == ()
    assert scene.entry().memberships == (replace(MINE, vm_guid="vm-b"),)


# --- addresses ---


def by_address(ip: str) -> PlannerScenario:
    """A VM that is out of an IP-based pool; its NIC has this address now."""
    entry = Entry(
        vm="web-1",
        vm_id=vm_id("web-1"),
        events=(),
        memberships=(address("a", "10.0.0.1"),),
        recorded_at=at(0),
        out_at=at(5),
    )
    scene = PlannerScenario(now=300, ips={"web-1": ip})
    scene.policy = make_policy(pools={APP: Floor(number=1)})
    scene.inside = {name: [] for name in scene.inside}
    scene.ledger = scene.ledger.with_entry(entry)
    return scene


def test_an_address_is_restored_while_it_is_the_vms_own() -> None:
    """S3: the NIC of the VM has it."""
    assert len(writes(by_address("10.0.0.1").through())) == 1


@pytest.mark.parametrize("ip", ["10.0.0.9", ""])
def test_an_address_that_the_vm_does_not_have_is_lost(ip: str) -> None:
    """S3: it may be another machine's by now, and would send its traffic there."""
    scene = by_address(ip)
    planned = scene.through()
    assert (writes(planned), lost(scene)) == ([], (address("a", "10.0.0.1"),))
    assert "the address is not one of the VM's" in planned.holds[0].message


def test_an_address_of_a_nic_that_the_vm_does_not_have_is_lost() -> None:
    """S3: that an entry names the VM does not make another machine's address its own."""
    scene = by_address("10.0.0.9")
    scene.nics = {
        "web-2": {
            "ip_configurations": (IpConfiguration(name="ipconfig1", private_ip="10.0.0.1"),),
        }
    }
    scene.through()
    assert lost(scene) == (address("a", "10.0.0.1"),)


def test_an_address_waits_for_nics_that_were_not_seen() -> None:
    """S3: unknown is neither the VM's nor lost."""
    scene = by_address("10.0.0.1")
    planned = scene.through(nics=())
    assert (writes(planned), lost(scene)) == ([], ())
    assert ReadNic(nic_id("web-1")) in planned.actions
