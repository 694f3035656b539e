"""Flexible scale sets: discovery, members, the ledger, and what it all costs."""

import time
from pathlib import Path

import pytest

from controller.agent.startup import discover_identity
from controller.azure.http.session import open_azure
from controller.clock import SystemClock
from controller.core.azure_names import fold
from controller.core.deleted_vms import KEPT
from controller.errors import SetupError
from controller.simulator.app.server import SimulatorServer
from controller.simulator.services.http_values import Service
from controller.simulator.world.builder import build_world, scale_out
from controller.simulator.world.world import World
from tests.component.test_start import refuse, settings_for
from tests.conftest import OpenSet
from tests.support.inventory import open_inventory

SCALE_SET_READ = "Microsoft.Compute/virtualMachineScaleSets/read"


def flexible(vms: int = 3) -> World:
    """Return a world whose set is a flexible scale set, which its VMs may read."""
    world = build_world(now=time.time(), vms=vms, flexible=True)
    for vm in world.peers():
        world.roles.assign(vm.name, {SCALE_SET_READ}, f"/subscriptions/{world.subscription}")
    return world


async def test_agents_of_a_scale_set_drain_and_restore(open_set: OpenSet) -> None:
    """S1, L1: the instances are named, drained and restored as the VMs of an availability set."""
    async with open_set(flexible=True) as bench:
        agent = await bench.lead("web-1")
        await bench.stand_by("web-2")
        event_id = await bench.announce("web-3")
        await bench.until("web-3 out", lambda: not bench.inside("web-3"))
        await bench.until("over", lambda: bench.world.changes("event_gone"))
        await bench.until("back", lambda: bench.inside("web-3"))
        await bench.until("all done", lambda: not bench.ledger()["entries"])
        assert [change.subject for change in bench.world.changes("event_gone")] == [event_id]
        assert bench.ledger()["set_id"] == fold(bench.world.scale_set_id)
        assert agent.live_status.status()["availability_set"] == bench.world.scale_set_id


@pytest.mark.parametrize("how", ["allowed", "denied", "VM throttled"])
async def test_a_scale_set_is_discovered(tmp_path: Path, how: str) -> None:
    """K1, K4: by the VM, without the role for scale sets, or by the metadata service."""
    world = flexible()
    if how == "denied":
        world.roles.revoke("web-1", SCALE_SET_READ)
    async with SimulatorServer(world, tmp_path / "pki") as server:
        if how == "VM throttled":
            refuse(server, "/virtualMachines/web-1", wait_s=1200)
        settings = settings_for(server, world.pool_id("app"))
        async with open_azure(settings, SystemClock(), {}) as azure:
            found = await discover_identity(azure, settings)
    assert fold(found.set_id) == fold(found.owner_id) == fold(world.scale_set_id)
    assert sorted(found.vms) == ["web-1", "web-2", "web-3"]
    assert found.ledger_name == f"{world.subscription}/{world.resource_group}/web.json"


@pytest.mark.parametrize("shown", ["by the id of the instance", "by the scale set"])
async def test_a_uniform_scale_set_is_refused(tmp_path: Path, shown: str) -> None:
    """The message states what is refused, why, and what to do."""
    world = flexible()
    world.orchestration_mode = "Uniform"
    async with SimulatorServer(world, tmp_path / "pki") as server:
        settings = settings_for(server, world.pool_id("app"))
        async with open_azure(settings, SystemClock(), {}) as azure:
            vm_id = world.vm("web-1").resource_id
            discovery = (
                azure.compute.discover(vm_id)
                if shown == "by the scale set"
                else discover_identity(azure, settings)
            )
            with pytest.raises(SetupError) as caught:
                await discovery
    said = str(caught.value)
    assert said.startswith("the scale set web has the orchestration mode Uniform: the NICs")
    assert said.endswith("or do not install this service on them")


# --- members


async def test_instances_that_appear_are_peers(tmp_path: Path) -> None:
    """Autoscale: the next inventory shows the VM with its NIC, without further requests."""
    async with open_inventory(tmp_path, vms=3, flexible=True) as inventory:
        await inventory.reader.read()
        scale_out(inventory.world, "web_1a2b3c4d", 3, ("app",))
        await inventory.read()
        assert inventory.known == {"web-1", "web-2", "web-3", "web_1a2b3c4d"}
        assert all(vm.power_observed_at for vm in inventory.state.cache.vms)
        assert inventory.state.cache.set_id == inventory.world.scale_set_id


async def test_instances_that_disappear_are_no_peers(tmp_path: Path) -> None:
    """Scale-in, repair: neither the list nor the id shows the VM, so it has left the set."""
    async with open_inventory(tmp_path, vms=3, flexible=True) as inventory:
        await inventory.reader.read()
        inventory.world.delete_vm("web-3")
        await inventory.read()
        assert inventory.known == {"web-1", "web-2"}
        assert inventory.problems == {}


async def test_what_is_known_does_not_grow_with_every_instance(tmp_path: Path) -> None:
    """Instances are replaced all the time: those that are gone for a while are forgotten."""
    async with open_inventory(tmp_path, vms=3, flexible=True) as inventory:
        await inventory.reader.read()
        sizes = set[tuple[int, int]]()
        for number in range(3):
            scale_out(inventory.world, f"web_{number}", 3, ("app",))
            await inventory.read()
            inventory.world.delete_vm(f"web_{number}")
            inventory.clock.move(KEPT.total_seconds())
            await inventory.read()
            cache = inventory.state.cache
            sizes.add((len(cache.nics), len(cache.presence)))
        assert sizes == {(3, len(cache.presence))}


@pytest.mark.parametrize("missing", ["web-1", "web-3"])
async def test_one_list_without_an_instance_proves_nothing(tmp_path: Path, missing: str) -> None:
    """K3: a list can miss an entry; a VM that exists stays a peer."""
    async with open_inventory(tmp_path, vms=3, flexible=True) as inventory:
        await inventory.reader.read()
        inventory.world.vm(missing).in_set = False
        await inventory.reader.read()
        inventory.world.vm(missing).in_set = True
        await inventory.read()
        assert inventory.known == {"web-1", "web-2", "web-3"}
        assert inventory.state.inventory.holes_in_a_row == 0


async def test_a_second_list_without_an_instance_removes_it(tmp_path: Path) -> None:
    """A VM that was taken out of the scale set, and runs on elsewhere, is no peer."""
    async with open_inventory(tmp_path, vms=3, flexible=True) as inventory:
        await inventory.reader.read()
        inventory.world.vm("web-3").in_set = False
        await inventory.read()
        assert inventory.state.inventory.holes_in_a_row == 1
        await inventory.read()
        assert inventory.known == {"web-1", "web-2"}
        assert inventory.state.inventory.holes_in_a_row == 0


@pytest.mark.parametrize("status", [429, 403, 500])
async def test_a_list_that_is_refused_hides_no_vm(tmp_path: Path, status: int) -> None:
    """L2: the VMs that are known are read one by one."""
    async with open_inventory(tmp_path, vms=3, flexible=True) as inventory:
        await inventory.reader.read()
        inventory.fault(lambda request: bool(request.parameter("$filter")), status=status)
        await inventory.read()
        assert inventory.known == {"web-1", "web-2", "web-3"}
        assert inventory.problems == {}
        inventory.heal()
        await inventory.read()
        assert inventory.state.inventory.holes_in_a_row == 0


async def test_a_scale_set_without_a_list_of_power_states(tmp_path: Path) -> None:
    """K5: if Azure refuses instance views in the list, it is read without them."""
    async with open_inventory(tmp_path, vms=3, flexible=True) as inventory:
        inventory.fault(lambda request: bool(request.parameter("$expand")), status=400)
        await inventory.read()
        await inventory.read()
        assert inventory.known == {"web-1", "web-2", "web-3"}


@pytest.mark.parametrize("vms", [3, 200, 1000])
async def test_the_reads_of_an_idle_scale_set_are_bounded(tmp_path: Path, vms: int) -> None:
    """H1: the inventories take no more than 48 reads an hour, however many instances there are."""
    async with open_inventory(tmp_path, vms=vms, flexible=True) as inventory:
        assert await inventory.reads_in_an_hour() <= 50
        assert len(inventory.known) == vms


# --- the ledger of another set


async def test_a_ledger_of_an_availability_set_that_exists_is_not_continued(
    open_set: OpenSet,
) -> None:
    """S3: an availability set and a scale set of one name never share a ledger unnoticed."""
    async with open_set() as bench:
        agent = await bench.lead("web-1")
        await bench.stop(agent)
        bench.world.convert_set()
        set_id = bench.world.availability_set_id
        body = f'{{"id": "{set_id}", "name": "web", "properties": {{"virtualMachines": '
        body += f'[{{"id": "{bench.world.vm("web-1").resource_id}"}}]}}}}'
        bench.fault(Service.ARM, path_contains="availabilitySets/web", status=200, body=body)
        agent = bench.start("web-1")
        await bench.until("it waits", lambda: bench.logged("which still has VMs"))
        assert "election.blob_name" in bench.logged("which still has VMs")[0]
        bench.heal()
        await bench.sees("it leads", lambda: agent.live_status.status().get("leading"), True)
