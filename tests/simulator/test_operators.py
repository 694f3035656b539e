"""What operators read and do with their own tools: lists of all kinds, roles, actions on VMs."""

import json
from typing import Any
from urllib.parse import parse_qsl, quote
from xml.etree import ElementTree

import pytest

from controller.simulator.services import api
from controller.simulator.services.faults import FaultBook
from controller.simulator.services.http_values import Reply, Request, Service
from controller.simulator.world.access import OPERATOR
from controller.simulator.world.world import World
from tests.simulator.test_arm import ARM, NOW, Arm, build, code
from tests.simulator.test_imds import ask as ask_imds

BLOB = "https://storage.azure.com/"


class Operator(Arm):
    """A client with every permission."""

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        headers.setdefault("token", self.world.token(OPERATOR, ARM))
        return super().__call__(method, path, body, **headers)


def operator(**kwargs: Any) -> Operator:
    return Operator(build(**kwargs).world)


def subscription(client: Arm) -> str:
    return f"/subscriptions/{client.world.subscription}"


def names(client: Arm, path: str) -> list[str]:
    return [entry["name"] for entry in client.get(path)["value"]]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("Microsoft.Compute/virtualMachines", ["web-1", "web-2", "web-3"]),
        ("Microsoft.Compute/availabilitySets", ["web"]),
        ("Microsoft.Compute/virtualMachineScaleSets", []),
        ("Microsoft.Network/networkInterfaces", ["web-1-nic", "web-2-nic", "web-3-nic"]),
        ("Microsoft.Network/loadBalancers", ["web-lb", "web-internal"]),
        ("Microsoft.Network/virtualNetworks", ["web-vnet"]),
        ("Microsoft.Network/publicIPAddresses", ["web-ip"]),
    ],
)
def test_lists(kind: str, expected: list[str]) -> None:
    """Every kind is listed in its group, and in the whole subscription over all groups."""
    client = operator(ip_pools=("api",), network_group="net-rg")
    assert names(client, f"{subscription(client)}/providers/{kind}") == expected
    by_group = [
        names(client, f"{subscription(client)}/resourceGroups/{group}/providers/{kind}")
        for group in ("web-rg", "net-rg")
    ]
    assert sorted(by_group, key=len) == [[], expected]
    assert [
        entry["type"] for entry in client.get(f"{subscription(client)}/providers/{kind}")["value"]
    ] == [kind] * len(expected)


def test_subscription_lists_need_the_permission_there() -> None:
    """A role on a group does not list the subscription."""
    client = build()
    world, vm = client.world, "web-1"
    world.roles.assignments[vm].clear()
    group = f"{subscription(client)}/resourceGroups/web-rg"
    world.roles.assign(vm, {"Microsoft.Network/networkInterfaces/read"}, group)
    kind = "providers/Microsoft.Network/networkInterfaces"
    assert client("GET", f"{group}/{kind}").status == 200
    assert client("GET", f"{subscription(client)}/{kind}").status == 403


@pytest.mark.parametrize(
    ("scope", "query", "count"),
    [
        ("", "", 10),
        ("/resourceGroups/web-rg", "", 4),
        ("/resourceGroups/net-rg", "", 6),
        ("", "&$filter=resourceType eq 'microsoft.compute/virtualmachines'", 3),
        ("", "&$filter=resourceGroup eq 'net-rg' and name eq 'web-lb'", 1),
    ],
)
def test_resources(scope: str, query: str, count: int) -> None:
    """Resource Manager lists all resources, also of a group, a type or a name."""
    client = operator(network_group="net-rg")
    path = f"{subscription(client)}{scope}/resources?api-version=2022-09-01{query}"
    assert len(client.get(path)["value"]) == count


def test_every_listed_resource_can_be_read() -> None:
    """Each resource in the list answers under its id, and its provider names a version for it."""
    client = operator(ip_pools=("api",))
    listed = client.get(f"{subscription(client)}/resources?api-version=2022-09-01")["value"]
    for entry in listed:
        namespace, _, kind = entry["type"].partition("/")
        provider = client.get(
            f"{subscription(client)}/providers/{namespace}?api-version=2022-09-01"
        )
        versions = {each["resourceType"]: each["apiVersions"] for each in provider["resourceTypes"]}
        body = client.get(f"{entry['id']}?api-version={versions[kind][0]}")
        assert (body["id"], body["type"]) == (entry["id"], entry["type"])
    unknown = f"{subscription(client)}/providers/Microsoft.Nothing?api-version=2022-09-01"
    assert code(client("GET", unknown)) == "InvalidResourceNamespace"


def test_children_of_a_load_balancer() -> None:
    """Rules, probes, frontends and NAT rules are listed and read like pools."""
    client = operator()
    load_balancer = client.world.pool_id("app").rpartition("/backendAddressPools")[0]
    for child in ("loadBalancingRules", "probes", "frontendIPConfigurations", "inboundNatRules"):
        for name in names(client, f"{load_balancer}/{child}"):
            reply = client("GET", f"{load_balancer}/{child}/{name}")
            assert json.loads(reply.body)["etag"] == reply.headers["ETag"]
        assert client("GET", f"{load_balancer}/{child}/nothing").status == 404


@pytest.mark.parametrize("path", ["", "/nothing"])
def test_missing_network(path: str) -> None:
    """A network, subnet or public address that does not exist is 404."""
    client = operator()
    root = f"{subscription(client)}/resourceGroups/web-rg/providers/Microsoft.Network"
    assert client("GET", f"{root}/virtualNetworks/other{path}").status == 404
    assert client("GET", f"{root}/virtualNetworks/web-vnet/subnets/other").status == 404
    assert client("GET", f"{root}/publicIPAddresses/other").status == 404


# The filter of the VM list


def vm_list(client: Arm, **query: str) -> Reply:
    path = client.world.vm("web-1").resource_id.rpartition("/")[0]
    text = "".join(f"&${name}={value}" for name, value in query.items())
    return client("GET", f"{path}?api-version=2025-04-01{text}")


def test_vm_list_filter() -> None:
    """The list can be restricted to a scale set, and to nothing else."""
    client = build()
    for name, count in (("notexists", 0), ("", 3)):
        reply = vm_list(client, filter=f"'virtualMachineScaleSet/id' eq '{name}'")
        assert len(json.loads(reply.body)["value"]) == count
    assert vm_list(client, filter="name eq 'web-1'").status == 400
    client.world.convert_set("flex")
    reply = vm_list(client, filter=f"'virtualMachineScaleSet/id' eq '{client.world.scale_set_id}'")
    assert len(json.loads(reply.body)["value"]) == 3


def test_vm_list_may_refuse_expand() -> None:
    """With that knob the list expands instance views only together with a filter."""
    client = build(settings={"vm_list_expand": False})
    assert vm_list(client, expand="instanceView").status == 400
    filtered = "'virtualMachineScaleSet/id' eq ''"
    assert vm_list(client, expand="instanceView", filter=filtered).status == 200
    assert vm_list(client).status == 200


def test_scale_set_of_a_converted_set() -> None:
    """After a conversion the scale set is listed and read, and is a flexible one."""
    client = operator()
    client.world.convert_set("flex")
    body = client.get(client.world.scale_set_id)
    assert body["properties"]["orchestrationMode"] == "Flexible"
    assert names(client, client.world.scale_set_id.rpartition("/")[0]) == ["flex"]
    assert client("GET", f"{client.world.scale_set_id}2").status == 404


# Roles


def test_roles() -> None:
    """Assignments name principals that VMs have, and roles that exist with their actions."""
    client = operator()
    root = f"{subscription(client)}/providers/Microsoft.Authorization"
    assigned = client.get(f"{root}/roleAssignments?api-version=2022-04-01")["value"]
    principals = {entry["properties"]["principalId"] for entry in assigned}
    for vm in client.world.peers():
        body = client.get(vm.resource_id)
        assert body["identity"]["principalId"] in principals
    defined = {
        body["id"]: body
        for body in client.get(f"{root}/roleDefinitions?api-version=2022-04-01")["value"]
    }
    actions: set[str] = set()
    for entry in assigned:
        role = defined[entry["properties"]["roleDefinitionId"]]
        assert client.get(f"{role['id']}?api-version=2022-04-01") == role
        actions |= {each for part in role["properties"]["permissions"] for each in part["actions"]}
    assert "Microsoft.Network/networkInterfaces/write" in actions


def test_role_filters() -> None:
    """Assignments are listed for a principal, and at a scope with those above it."""
    client = operator()
    vm = client.world.vm("web-2")
    root = "providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01"
    for text in (f"principalId eq '{vm.client_id}'", f"assignedTo('{vm.client_id}')"):
        found = client.get(f"{vm.resource_id}/{root}&$filter={text}")["value"]
        assert {entry["properties"]["principalId"] for entry in found} == {vm.client_id}
    roles = root.replace("roleAssignments", "roleDefinitions")
    found = client.get(f"{subscription(client)}/{roles}&$filter=roleName eq 'Owner'")["value"]
    assert [entry["properties"]["roleName"] for entry in found] == ["Owner"]
    assert build()("GET", f"{subscription(client)}/{root}").status == 403


def test_names_of_principals() -> None:
    """Graph names the principals of assignments, without an api-version."""
    client = operator()
    vm = client.world.vm("web-2")
    reply = client("POST", "/v1.0/directoryObjects/getByIds?x=1", {"ids": [vm.client_id, "x"]})
    assert [entry["displayName"] for entry in json.loads(reply.body)["value"]] == ["web-2"]
    assert client("GET", "/v1.0/directoryObjects/getByIds?x=1").status == 405


# Actions on VMs


def act(client: Arm, vm: str, action: str) -> Reply:
    return client("POST", f"{client.world.vm(vm).resource_id}/{action}")


@pytest.mark.parametrize(("action", "kind"), [("restart", "Reboot"), ("redeploy", "Redeploy")])
def test_action_becomes_an_event(action: str, kind: str) -> None:
    """Where events are read, a restart or redeploy is announced and waits, and then ends."""
    client = operator()
    world = client.world
    ask_imds(world, vm="web-2")
    reply = act(client, "web-1", action)
    assert (reply.status, reply.body) == (202, b"")
    [event] = json.loads(ask_imds(world, vm="web-2").body)["Events"]
    assert (event["EventType"], event["EventSource"]) == (kind, "User")
    assert (event["Resources"], event["EventStatus"]) == (["web-1"], "Scheduled")
    assert "requested by authorized user" in event["Description"]
    world.advance(NOW + 60)
    assert world.serving("web-1")
    assert client.poll(reply)["status"] == "InProgress"
    world.events.acknowledge(event["EventId"], "web-2")
    world.advance(NOW + 80)
    assert not world.serving("web-1")
    world.advance(NOW + 120)
    assert world.serving("web-1")
    assert client.poll(reply)["status"] == "Succeeded"


@pytest.mark.parametrize("approved", [True, False])
def test_action_without_notice(approved: bool) -> None:
    """Without a reader of events, or with a policy that approves, a restart happens at once."""
    client = operator()
    world = client.world
    if approved:
        ask_imds(world)
        world.scheduled_events_policy = {"userInitiatedReboot": {"automaticallyApprove": True}}
    reply = act(client, "web-1", "restart")
    world.advance(NOW + 5)
    assert not world.serving("web-1")
    world.advance(NOW + 60)
    assert world.serving("web-1")
    assert client.poll(reply)["status"] == "Succeeded"


def test_cancelled_restart_ends() -> None:
    """An operation whose event is cancelled does not run for ever."""
    client = operator()
    ask_imds(client.world)
    reply = act(client, "web-1", "restart")
    client.world.events.cancel(client.world.events.events[-1].event_id)
    assert client.poll(reply)["status"] == "Succeeded"


def test_stop_and_start() -> None:
    """A VM is stopped, deallocated and started, each as an operation."""
    client = operator()
    for action, state in (
        ("powerOff", "stopped"),
        ("deallocate", "deallocated"),
        ("start", "running"),
    ):
        reply = act(client, "web-3", action)
        assert client.world.vm("web-3").state == state
        assert client.poll(reply)["status"] == "InProgress"
        client.world.advance(client.world.now + 60)
        assert client.poll(reply)["status"] == "Succeeded"


def test_actions_need_their_permission() -> None:
    """Each action has its own permission; an action that does not exist is refused."""
    client = build()
    for action in ("restart", "redeploy", "deallocate", "start", "powerOff"):
        reply = act(client, "web-1", action)
        assert (reply.status, code(reply)) == (403, "AuthorizationFailed")
        assert f"virtualMachines/{action}/action".encode() in reply.body
    assert act(client, "web-1", "explode").status == 405


# Lists of blobs


def blob(world: World, method: str, path: str, query: str = "", body: bytes = b"") -> Reply:
    request = Request(
        service=Service.BLOB,
        method=method,
        path=path,
        query=tuple(parse_qsl(query)),
        headers={
            "authorization": f"Bearer {world.token(OPERATOR, BLOB)}",
            "x-ms-blob-type": "BlockBlob",
        },
        body=body,
    )
    return api.handle(world, FaultBook(), request, NOW)


def listed(reply: Reply) -> tuple[list[str | None], str | None]:
    assert reply.status == 200, reply.body
    root = ElementTree.fromstring(reply.body.decode("utf-8-sig"))
    found = [name.text for name in root.iter("Name")]
    return found, root.findtext("NextMarker")


def test_lists_of_containers_and_blobs() -> None:
    """Containers and blobs are listed by name, by prefix, as folders and in pages."""
    world = build().world
    for container in ("b", "a"):
        world.blobs.create_container("account", container, NOW)
    for name in ("x/1", "x/2", "y&z"):
        assert blob(world, "PUT", f"/account/a/{name}", body=b"{}").status == 201
    assert listed(blob(world, "GET", "/account/", "comp=list"))[0] == ["a", "b"]
    query = "restype=container&comp=list"
    assert listed(blob(world, "GET", "/account/a", query))[0] == ["x/1", "x/2", "y&z"]
    assert listed(blob(world, "GET", "/account/a", f"{query}&prefix=y"))[0] == ["y&z"]
    assert listed(blob(world, "GET", "/account/a", f"{query}&delimiter=/"))[0] == ["x/", "y&z"]
    found, marker = listed(blob(world, "GET", "/account/a", f"{query}&maxresults=2"))
    assert (found, marker) == (["x/1", "x/2"], "y&z")
    assert listed(blob(world, "GET", "/account/a", f"{query}&marker={quote(marker or '')}"))[0] == [
        "y&z"
    ]
    assert blob(world, "GET", "/account/c", query).status == 404
    assert blob(world, "PUT", "/account/", "comp=list").status == 400
