"""A resource created again under its old name is another resource; a set can be converted."""

import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from controller.simulator.services import imds
from controller.simulator.services.http_values import Request, Service
from tests.simulator.test_arm import NOW, Arm, build, nic_id


def vm_identity(client: Arm, vm: str = "web-1") -> str:
    return str(client.get(client.world.vm(vm).resource_id)["properties"]["vmId"])


def nic_identity(client: Arm, vm: str = "web-1") -> str:
    return str(client.get(nic_id(client, vm))["properties"]["resourceGuid"])


def compute_metadata(client: Arm, vm: str) -> dict[str, Any]:
    request = Request(
        service=Service.IMDS,
        method="GET",
        path="/metadata/instance/compute",
        query=(("api-version", "2021-02-01"),),
        headers={"metadata": "true"},
        vm=vm,
    )
    body: dict[str, Any] = json.loads(imds.handle(client.world, request, client.world.now).body)
    return body


@pytest.mark.parametrize("nics", ["keep", "recreate"])
def test_recreated_vm(nics: Any) -> None:
    """A VM created again has its old id, another vmId, and its place in the set and its pools."""
    client = build()
    world, before = client.world, client.get(client.world.vm("web-2").resource_id)
    guid = nic_identity(client, "web-2")
    world.advance(NOW + 60)
    world.recreate_vm("web-2", nics=nics)
    after = client.get(before["id"])
    assert after["id"] == before["id"]
    assert after["properties"]["vmId"] != before["properties"]["vmId"]
    assert after["properties"]["timeCreated"] > before["properties"]["timeCreated"]
    assert after["properties"]["vmId"] == compute_metadata(client, "web-2")["vmId"]
    assert (nic_identity(client, "web-2") == guid) is (nics == "keep")
    assert [vm.name for vm in world.peers()] == ["web-1", "web-2", "web-3"]
    assert set(world.rotation(world.pool_id("app"))) == {"web-1", "web-2", "web-3"}
    assert [c.kind for c in world.changes("member_out", "member_in", "vm_up")] == [
        "member_out",
        "member_in",
        "vm_up",
    ]


def test_vm_identity_is_stable() -> None:
    """Reboots, writes and time do not change the identity of a VM or NIC."""
    client = build()
    before = vm_identity(client), nic_identity(client)
    client.world.set_vm_state("web-1", "rebooting")
    client.world.set_vm_state("web-1", "running")
    client.world.edit_tags(nic_id(client), {"a": "b"})
    assert (vm_identity(client), nic_identity(client)) == before


def test_recreated_nic() -> None:
    """A NIC created again has its old id, another resourceGuid, and the pools of its template."""
    client = build()
    world, pool = client.world, client.world.pool_id("app")
    before = client.get(nic_id(client))
    world.recreate_nic(nic_id(client), pools=(), address="10.0.0.99")
    after = client.get(nic_id(client))
    assert after["id"] == before["id"]
    for name in ("resourceGuid", "macAddress"):
        assert after["properties"][name] != before["properties"][name]
    assert after["properties"]["virtualMachine"] == before["properties"]["virtualMachine"]
    assert (
        after["properties"]["ipConfigurations"][0]["properties"]["privateIPAddress"] == "10.0.0.99"
    )
    assert world.rotation(pool) == ("web-2", "web-3")
    world.recreate_nic(nic_id(client), pools=(pool,))
    assert "web-1" in world.rotation(pool)


@pytest.mark.parametrize(("members", "count"), [("none", 0), ("same", 3)])
@pytest.mark.parametrize("name", ["app", "api"])
def test_recreated_pool(name: str, members: Any, count: int) -> None:
    """A pool created again has its old id and rules, another etag, and no members by default."""
    client = build(ip_pools=("api",))
    world, pool = client.world, client.world.pool_id(name)
    before = client.get(pool)
    world.recreate_pool(pool, members=members)
    after = client.get(pool)
    assert (after["id"], after["etag"] == before["etag"]) == (before["id"], False)
    assert after["properties"]["loadBalancingRules"] == before["properties"]["loadBalancingRules"]
    assert len(after["properties"]["loadBalancerBackendAddresses"]) == count
    assert len(world.rotation(pool)) == count


def test_recreated_load_balancer() -> None:
    """A load balancer created again has another resourceGuid, and its pools are empty."""
    client = build()
    load_balancer = client.world.pool_id("app").rpartition("/backendAddressPools")[0]
    before = client.get(load_balancer)["properties"]
    client.world.recreate_load_balancer(load_balancer)
    after = client.get(load_balancer)["properties"]
    assert after["resourceGuid"] != before["resourceGuid"]
    assert len(after["loadBalancingRules"]) == len(before["loadBalancingRules"])
    assert client.world.rotation(client.world.pool_id("app")) == ()


def test_recreated_set() -> None:
    """A set created again has its old id, and every VM in it is another VM."""
    client = build()
    before = {vm.vm_id for vm in client.world.peers()}
    client.world.recreate_set()
    after = {vm.vm_id for vm in client.world.peers()}
    assert not before & after
    assert len(client.get(client.world.availability_set_id)["properties"]["virtualMachines"]) == 3


def test_migration_is_announced() -> None:
    """Every set names its default scale set; a set under migration names its scale set."""
    client = build()
    key = "virtualMachineScaleSetMigrationInfo"
    info = client.get(client.world.availability_set_id)["properties"][key]
    assert set(info) == {"defaultVirtualMachineScaleSetInfo"}
    client.world.begin_migration("web-flex")
    info = client.get(client.world.availability_set_id)["properties"][key]
    assert info["migrateToVirtualMachineScaleSet"]["id"].endswith(
        "virtualMachineScaleSets/web-flex"
    )


def test_converted_set() -> None:
    """After the conversion the set is gone, and its VMs run on in the scale set and its pools."""
    client = build()
    world, path = client.world, client.world.availability_set_id
    before = vm_identity(client)
    world.convert_set()
    assert client("GET", path).status == 404
    assert client.get(path.rpartition("/")[0])["value"] == []
    properties = client.get(world.vm("web-1").resource_id)["properties"]
    assert "availabilitySet" not in properties
    assert properties["virtualMachineScaleSet"]["id"].casefold() == world.scale_set_id.casefold()
    assert compute_metadata(client, "web-1")["vmScaleSetName"] == "web"
    assert vm_identity(client) == before
    assert world.rotation(world.pool_id("app")) == ("web-1", "web-2", "web-3")


@pytest.mark.parametrize(
    ("port", "host", "expected"),
    [
        (True, "management.azure.com", "management.azure.com:443"),
        (False, "management.azure.com", "management.azure.com"),
        (True, "127.0.0.1:8443", "127.0.0.1:8443"),
    ],
)
def test_next_link_names_the_port(port: bool, host: str, expected: str) -> None:
    """A next link names port 443 by default; a port that the client named stays."""
    client = build(settings={"list_page_size": 1, "next_link_port": port})
    reply = client("GET", client.world.vm("web-1").resource_id.rpartition("/")[0], host=host)
    assert urlsplit(json.loads(reply.body)["nextLink"]).netloc == expected


def test_pool_entries_are_child_resources() -> None:
    """Members of both pool kinds have id, etag, type and state, and an etag that is the pool's."""
    client = build(ip_pools=("api",))
    for name in ("app", "api"):
        pool = client.get(client.world.pool_id(name))
        for entry in pool["properties"]["loadBalancerBackendAddresses"]:
            assert entry["id"] == f"{pool['id']}/loadBalancerBackendAddresses/{entry['name']}"
            assert entry["etag"] == pool["etag"]
            assert entry["properties"]["provisioningState"] == "Succeeded"
            assert entry["type"].endswith("/loadBalancerBackendAddresses")
