"""Roles in the simulated Azure: actions, data actions, scopes, and the note of what was needed."""

import json
from collections.abc import Mapping

import pytest

from controller.simulator.services import api
from controller.simulator.services.faults import FaultBook
from controller.simulator.services.http_values import Reply, Request, Service
from controller.simulator.world.access import CONTAINERS, Roles
from controller.simulator.world.builder import build_world
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.world import World

NOW = 1_700_000_000.0
READ, WRITE = f"{CONTAINERS}/blobs/read", f"{CONTAINERS}/blobs/write"
BLOB = "/account/lb-drain/set.json"
SINGLE = ("publicIPAddress", "gatewayLoadBalancer")
REFERENCES = {
    "publicIPAddress": (
        "publicIPAddresses/ip",
        "publicIPAddresses/join/action",
    ),
    "gatewayLoadBalancer": (
        "loadBalancers/gateway/frontendIPConfigurations/front",
        "loadBalancers/frontendIPConfigurations/join/action",
    ),
    "applicationSecurityGroups": (
        "applicationSecurityGroups/web",
        "applicationSecurityGroups/joinIpConfiguration/action",
    ),
    "applicationGatewayBackendAddressPools": (
        "applicationGateways/web/backendAddressPools/web",
        "applicationGateways/backendAddressPools/join/action",
    ),
    "virtualNetworkTaps": (
        "virtualNetworkTaps/tap",
        "virtualNetworkTaps/join/action",
    ),
}


def world_with_blob(**settings: bool) -> World:
    """Return a world whose set shares a ledger blob."""
    world = build_world(now=NOW, settings=WorldSettings(**settings))  # type: ignore[arg-type]
    world.blobs.create_container("account", "lb-drain", NOW)
    assert put(world).status == 201
    return world


def ask(
    world: World,
    method: str,
    path: str,
    *,
    service: Service = Service.ARM,
    vm: str = "web-1",
    query: tuple[tuple[str, str], ...] = (("api-version", "2024-07-01"),),
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> Reply:
    """Send a request as the identity of a VM."""
    audience = "https://management.azure.com/"
    token = world.token(vm, audience if service is Service.ARM else "https://storage.azure.com/")
    request = Request(
        service=service,
        method=method,
        path=path,
        query=query,
        headers={"authorization": f"Bearer {token}", **(headers or {})},
        body=body,
    )
    return api.handle(world, FaultBook(), request, NOW)


def put(world: World, path: str = BLOB) -> Reply:
    """Write a blob."""
    headers = {"x-ms-blob-type": "BlockBlob"}
    return ask(world, "PUT", path, service=Service.BLOB, query=(), headers=headers)


def get(world: World, path: str = BLOB) -> Reply:
    """Read a blob."""
    return ask(world, "GET", path, service=Service.BLOB, query=())


def lease(world: World) -> Reply:
    """Lease the blob."""
    headers = {"x-ms-lease-action": "acquire", "x-ms-lease-duration": "15"}
    query = (("comp", "lease"),)
    return ask(world, "PUT", BLOB, service=Service.BLOB, query=query, headers=headers)


def refused(reply: Reply) -> bool:
    """Tell whether Blob Storage answers that the role does not suffice."""
    mismatch = reply.headers.get("x-ms-error-code") == "AuthorizationPermissionMismatch"
    return mismatch and reply.status == 403


# --- assignments ---------------------------------------------------------------------------------


def test_an_assignment_covers_its_scope_and_what_is_below() -> None:
    """An action is allowed on the assigned scope and below it, and nowhere else."""
    roles = Roles()
    roles.assign("web-1", {"A/read"}, "/subscriptions/s/resourceGroups/Web")
    assert roles.permit("WEB-1", "a/READ", "/subscriptions/s/resourcegroups/web/x")
    assert roles.permit("web-1", "A/read", "/subscriptions/s/resourceGroups/web")
    assert not roles.permit("web-1", "A/read", "/subscriptions/s")
    assert not roles.permit("web-1", "A/read", "/subscriptions/s/resourceGroups/web2")
    assert not roles.permit("web-2", "A/read", "/subscriptions/s/resourceGroups/web")


def test_actions_allow_no_data_actions() -> None:
    """Neither the same name nor a star among the actions allows a data action, nor the reverse."""
    roles = Roles()
    roles.assign("web-1", {"*"}, "")
    roles.assign("web-2", (), "", data_actions={"*"})
    assert roles.permit("web-1", READ, "/x")
    assert not roles.permit("web-1", READ, "/x", data=True)
    assert roles.permit("web-2", READ, "/x", data=True)
    assert not roles.permit("web-2", READ, "/x")


def test_what_was_needed_is_noted() -> None:
    """Every decision leaves principal and action under granted or refused."""
    roles = Roles()
    roles.assign("web-1", {"A/read"}, "")
    roles.permit("web-1", "A/read", "/x")
    roles.permit("web-1", "A/write", "/x")
    assert roles.granted == {("web-1", "a/read")}
    assert roles.refused == {("web-1", "a/write")}


# --- Resource Manager ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFERENCES)
def test_a_nic_may_be_written_by_who_may_join_what_it_refers_to(name: str) -> None:
    """A PUT of a NIC needs the join action of each reference in it, changed or not."""
    world = world_with_blob()
    nic = world.nic("web-2-nic")
    path, action = REFERENCES[name]
    target = {"id": f"{nic['id'].rsplit('/networkInterfaces/')[0]}/{path}"}
    properties = nic["properties"]["ipConfigurations"][0]["properties"]
    properties[name] = target if name in SINGLE else [target]
    body = json.dumps(nic).encode()
    assert ask(world, "PUT", nic["id"], body=body).status == 200
    world.roles.revoke("web-3", f"Microsoft.Network/{action}")
    reply = ask(world, "PUT", nic["id"], body=body, vm="web-3")
    assert reply.status == 403
    assert action in reply.body.decode()
    assert ("web-3", f"Microsoft.Network/{action}".casefold()) in world.roles.refused


@pytest.mark.parametrize(
    ("reference", "path", "action"),
    [
        ("virtualNetwork", "web-vnet", "joinLoadBalancer/action"),
        ("subnet", "web-vnet/subnets/default", "subnets/join/action"),
        ("subnet", "web-vnet/subnets/default", "subnets/joinLoadBalancer/action"),
    ],
)
def test_a_pool_may_be_written_by_who_may_join_what_its_addresses_refer_to(
    reference: str, path: str, action: str
) -> None:
    """A PUT of a pool needs the join actions of the network or subnet of each address."""
    world = build_world(now=NOW, pools=(), ip_pools=("cache",))
    pool = world.find_pool(world.pool_id("cache"))
    assert pool is not None
    network = f"{pool['id'].rsplit('/loadBalancers/')[0]}/virtualNetworks/{path}"
    addresses = pool["properties"]["loadBalancerBackendAddresses"]
    for entry in addresses:
        address = entry["properties"]["ipAddress"]
        entry["properties"] = {"ipAddress": address, reference: {"id": network}}
    body = json.dumps(pool).encode()
    assert ask(world, "PUT", pool["id"], body=body).status == 200
    world.roles.revoke("web-3", f"Microsoft.Network/virtualNetworks/{action}")
    reply = ask(world, "PUT", pool["id"], body=body, vm="web-3")
    assert reply.status == 403
    assert f"virtualNetworks/{action}" in reply.body.decode()


def test_an_expanded_instance_view_needs_its_own_action() -> None:
    """A VM may be read without the action; its instance view, also in a list, may not."""
    world = world_with_blob()
    world.roles.revoke("web-1", "Microsoft.Compute/virtualMachines/instanceView/read")
    vm = world.vm("web-2").resource_id
    expanded = (("api-version", "2024-07-01"), ("$expand", "instanceView"))
    for path in (vm, vm.rsplit("/", 1)[0]):
        assert ask(world, "GET", path).status == 200
        assert ask(world, "GET", path, query=expanded).status == 403


# --- Blob ----------------------------------------------------------------------------------------


def test_reading_a_blob_needs_the_read_data_action() -> None:
    """Without it a read is refused, and a write is not."""
    world = world_with_blob()
    world.roles.revoke("web-1", READ)
    assert refused(get(world))
    assert put(world).status == 201


def test_writing_and_leasing_need_the_write_data_action() -> None:
    """Without it writes and lease operations are refused, and reads are not."""
    world = world_with_blob()
    world.roles.revoke("web-1", WRITE)
    assert refused(put(world))
    assert refused(lease(world))
    assert get(world).status == 200


def test_deleting_needs_the_delete_data_action() -> None:
    """Whoever may write a blob may not thereby delete it."""
    world = world_with_blob()
    world.roles.revoke("web-1", f"{CONTAINERS}/blobs/delete")
    assert refused(ask(world, "DELETE", BLOB, service=Service.BLOB, query=()))
    assert put(world).status == 201


def test_a_role_on_a_container_ends_with_the_container() -> None:
    """Data actions over one container allow nothing in another one of the account."""
    world = world_with_blob()
    world.blobs.create_container("account", "other", NOW)
    del world.roles.assignments["web-1"]
    scope = world.blob_scope("/account/lb-drain")
    world.roles.assign("web-1", (), scope, data_actions={READ, WRITE})
    assert put(world).status == 201
    assert refused(put(world, "/account/other/set.json"))


def test_roles_that_are_not_enforced_refuse_nothing() -> None:
    """With `rbac_enforced` off blobs are read and written without a role."""
    world = world_with_blob(rbac_enforced=False)
    world.roles.revoke("web-1", READ)
    assert get(world).status == 200
