"""The simulated Resource Manager answers like the real one, and its data plane follows."""

import base64
import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from controller.simulator.services import arm
from controller.simulator.services.http_values import Delivery, Reply, Request, Service
from controller.simulator.world.builder import build_world
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.world import World

NOW = 1_700_000_000.0
ARM = "https://management.azure.com/"
WIRE = Path(__file__).parents[1] / "wire"


def version_of(path: str) -> str:
    """Return the api-version of the recorded traffic of a provider."""
    return "2025-04-01" if "/microsoft.compute/" in path.casefold() else "2025-05-01"


@dataclass
class Arm:
    """A client that sends any request."""

    world: World
    vm: str = "web-1"

    def __call__(
        self, method: str, path: str, body: Any = None, *, token: str = "", **headers: str
    ) -> Reply:
        path, _, query = path.partition("?")
        text = token or self.world.token(self.vm, ARM)
        request = Request(
            service=Service.ARM,
            method=method,
            path=path,
            query=tuple(parse_qsl(query)) or (("api-version", version_of(path)),),
            headers={
                "authorization": f"Bearer {text}",
                **{name.replace("_", "-"): value for name, value in headers.items()},
            },
            body=b"" if body is None else json.dumps(body).encode(),
        )
        return arm.handle(self.world, request, self.world.now)

    def get(self, path: str) -> Any:
        reply = self("GET", path)
        assert reply.status == 200, reply.body
        return json.loads(reply.body)

    def poll(self, reply: Reply) -> Any:
        url = urlsplit(reply.headers["Azure-AsyncOperation"])
        return self.get(f"{url.path}?{url.query}")


def build(*, settings: dict[str, Any] | None = None, **kwargs: Any) -> Arm:
    return Arm(build_world(now=NOW, settings=WorldSettings(**(settings or {})), **kwargs))


def recorded(name: str) -> dict[str, Any]:
    return json.loads((WIRE / f"{name}.json").read_text())


def shape(value: Any) -> Any:
    """Reduce a body to its keys and types; a list to the shape of its first entry."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in sorted(value.items())}
    if isinstance(value, list):
        return [shape(part) for part in value[:1]]
    return type(value).__name__


def code(reply: Reply) -> str:
    error = json.loads(reply.body)["error"]
    details = error.get("details") or []
    return "/".join([error["code"], *(detail["code"] for detail in details)])


def nic_id(client: Arm, vm: str = "web-1") -> str:
    return client.world.vm(vm).nic_ids[0]


def without_pools(nic: dict[str, Any]) -> dict[str, Any]:
    nic = copy.deepcopy(nic)
    for entry in nic["properties"]["ipConfigurations"]:
        entry["properties"].pop("loadBalancerBackendAddressPools", None)
    return nic


def remove(client: Arm, vm: str = "web-1", **headers: str) -> Reply:
    path = nic_id(client, vm)
    return client("PUT", path, without_pools(client.get(path)), **headers)


# Shapes of recorded traffic


def test_nic_shapes() -> None:
    """A NIC without a VM is created synchronously, and answers, reads and lists as recorded."""
    client, golden = build(), recorded("nic_02_put_201")
    path = nic_id(client).replace("web-1-nic", "testResource")
    body = golden["request"]["body"]
    body["properties"]["ipConfigurations"][0]["properties"]["subnet"]["id"] = client.get(
        nic_id(client)
    )["properties"]["ipConfigurations"][0]["properties"]["subnet"]["id"]
    created = client("PUT", path, body)
    assert created.status == 201
    assert "Azure-AsyncOperation" not in created.headers
    assert shape(json.loads(created.body)) == shape(golden["response"]["body"])
    listed = client.get(path.rpartition("/")[0])
    mine = [nic for nic in listed["value"] if nic["name"] == "testResource"]
    assert shape(mine) == shape(recorded("nic_06_get_200")["response"]["body"]["value"])


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("nic_03_get_200", nic_id),
        ("lb_03_get_200", lambda c: c.world.pool_id("app").rpartition("/backendAddressPools")[0]),
        ("pool_06_get_200", lambda c: c.world.pool_id("app")),
        ("vm_09_get_200", lambda c: c.world.vm("web-1").resource_id),
        ("as_02_get_200", lambda c: c.world.availability_set_id),
    ],
)
def test_single_resource(name: str, path: Callable[[Arm], str]) -> None:
    """A single GET has the recorded members at top and second level, and ETag where recorded."""
    client, golden = build(), recorded(name)["response"]
    reply = client("GET", path(client))
    body = json.loads(reply.body)
    optional = {"virtualMachineScaleSetMigrationInfo"}
    assert set(golden["body"]) <= set(body)
    assert set(golden["body"]["properties"]) - optional <= set(body["properties"])
    assert ("Etag" in golden["headers"]) == ("ETag" in reply.headers)
    assert reply.headers.get("ETag") == body.get("etag")


def test_pool_create_shape() -> None:
    """A pool is created in state Updating, with an operation, in the recorded shape."""
    client, golden = build(), recorded("pool_04_put_201")
    path = client.world.pool_id("app").replace("/app", "/testResource")
    reply = client("PUT", path, golden["request"]["body"])
    assert reply.status == 201
    assert shape(json.loads(reply.body)) == shape(golden["response"]["body"])
    assert json.loads(reply.body)["properties"]["provisioningState"] == "Updating"
    assert {"Azure-AsyncOperation", "Azure-AsyncNotification"} <= set(reply.headers)
    assert "ETag" not in reply.headers


def test_instance_view_shape() -> None:
    """The instance view has the members a reader needs, spelt as published."""
    client = build()
    example = recorded("VirtualMachine_Get_InstanceView")["responses"]["200"]["body"]
    view = client.get(f"{client.world.vm('web-1').resource_id}/instanceView")
    assert [status["code"] for status in view["statuses"]] == [
        status["code"] for status in example["statuses"]
    ]
    assert shape(view["vmAgent"]["statuses"]) == shape(example["vmAgent"]["statuses"])


@pytest.mark.parametrize(
    ("name", "suffix", "substitute"),
    [
        ("vm_03_get_404", "Microsoft.Compute/virtualMachines/testResource/instanceView", "web-rg"),
        ("nic_07_get_404", "Microsoft.Network/networkInterfaces", "aks-cit-Interfacenotfound"),
    ],
)
def test_not_found_of_the_gateway(name: str, suffix: str, substitute: str) -> None:
    """A missing group or top-level resource is ARM's own 404, with the recorded text."""
    client, golden = build(), recorded(name)["response"]
    group = f"/subscriptions/{client.world.subscription}/resourceGroups/{substitute}"
    reply = client("GET", f"{group}/providers/{suffix}")
    text = json.dumps(golden["body"]).replace("aks-cit-VirtualMachine", "web-rg")
    assert (reply.status, json.loads(reply.body)) == (404, json.loads(text))
    assert reply.headers["x-ms-failure-cause"] == "gateway"
    assert not [header for header in reply.headers if "ratelimit" in header]


def test_not_found_of_the_provider() -> None:
    """A missing child is the provider's 404, with the recorded text and a rate header."""
    client = build()
    path = client.world.pool_id("app").replace("/app", "/nowhere")
    reply = client("GET", path)
    golden = recorded("pool_08_get_404")["response"]["body"]
    golden["error"]["message"] = f"Resource {path} not found."
    assert (reply.status, json.loads(reply.body)) == (404, golden)
    assert "x-ms-failure-cause" not in reply.headers
    assert "x-ms-ratelimit-remaining-subscription-reads" in reply.headers


def test_layout_by_provider() -> None:
    """Microsoft.Compute indents and ends lines with CRLF, Microsoft.Network is compact."""
    client = build()
    assert b"\r\n" in client("GET", client.world.vm("web-1").resource_id).body
    assert b"\n" not in client("GET", nic_id(client)).body


# Etags and replacement


def test_etag_mismatch() -> None:
    """A foreign If-Match is refused with 412 in the recorded words, quoting normalised."""
    client = build()
    reply = remove(client, if_match="invalid")
    golden = recorded("lb_08_put_412")["response"]["body"]
    nic = client.get(nic_id(client))
    golden["error"]["details"][0]["message"] = (
        f'Etag provided in if-match header W/"invalid" does not match etag {nic["etag"]} of '
        f"resource {nic['id']} in NRP data store."
    )
    assert (reply.status, json.loads(reply.body)) == (412, golden)
    assert client.world.changes("write") == []


@pytest.mark.parametrize("condition", ['W/"1"', "*"])
def test_no_condition_holds_for_what_is_not_there(condition: str) -> None:
    """A conditional PUT of a NIC or pool that was deleted meanwhile does not bring it back."""
    client = build(ip_pools=("cache",))
    for path in (nic_id(client), client.world.pool_id("cache")):
        body = client.get(path)
        assert client("PUT", f"{path}-gone", body, if_match=condition).status == 412


def test_etag_spellings() -> None:
    """An If-Match without quotes and weakness mark is the same etag."""
    client = build()
    bare = client.get(nic_id(client))["etag"].removeprefix("W/").strip('"')
    assert remove(client, if_match=bare).status == 200


def test_if_match_may_be_ignored() -> None:
    """With the knob off, a NIC PUT succeeds whatever its If-Match says."""
    assert remove(build(settings={"if_match_on_nic": False}), if_match="invalid").status == 200


def test_every_write_changes_the_etag() -> None:
    """A NIC write changes the etag of the NIC, its children, and of the pools it touches."""
    client = build()
    pool = client.get(client.world.pool_id("app"))["etag"]
    before = client.get(nic_id(client))["etag"]
    remove(client)
    client.world.advance(NOW + 60)
    after = client.get(nic_id(client))
    assert before != after["etag"]
    assert {c["etag"] for c in after["properties"]["ipConfigurations"]} == {after["etag"]}
    assert client.get(client.world.pool_id("app"))["etag"] != pool


def test_echo_changes_nothing_else() -> None:
    """A PUT of what was read, minus the pools, leaves everything else as it was."""
    client = build(ipv6=True)
    before = client.get(nic_id(client))
    remove(client)
    client.world.advance(NOW + 60)
    after = client.get(nic_id(client))

    def plain(nic: dict[str, Any]) -> Any:
        nic = without_pools(nic)
        nic.pop("etag")
        for entry in nic["properties"]["ipConfigurations"]:
            entry.pop("etag")
        return nic

    assert plain(before) == plain(after)


def test_put_replaces() -> None:
    """What a PUT leaves out returns to its default, and what is read-only stays."""
    client = build()
    path = nic_id(client)
    before = client.get(path)
    entry = before["properties"]["ipConfigurations"][0]
    careless = {
        "location": before["location"],
        "properties": {
            "macAddress": "00-00-00-00-00-00",
            "ipConfigurations": [
                {"name": entry["name"], "properties": {"subnet": entry["properties"]["subnet"]}}
            ],
        },
    }
    assert client("PUT", path, careless).status == 200
    after = client.get(path)
    assert "tags" not in after
    assert "networkSecurityGroup" not in after["properties"]
    assert after["properties"]["enableAcceleratedNetworking"] is False
    assert after["properties"]["macAddress"] == before["properties"]["macAddress"]
    assert after["properties"]["virtualMachine"] == before["properties"]["virtualMachine"]
    properties = after["properties"]["ipConfigurations"][0]["properties"]
    assert "loadBalancerInboundNatRules" not in properties
    assert properties["privateIPAddress"] == entry["properties"]["privateIPAddress"]


def test_expanded_references_are_reduced() -> None:
    """A whole object where a reference belongs is accepted, and stored as its id."""
    client = build()
    nic = client.get(nic_id(client))
    group = nic["properties"]["networkSecurityGroup"]
    group.update(etag="x", properties={"securityRules": []})
    reply = client("PUT", nic["id"], nic)
    assert json.loads(reply.body)["properties"]["networkSecurityGroup"] == {"id": group["id"]}


def test_ids_ignore_case() -> None:
    """Any spelling of a path finds the resource, which answers in its own."""
    client = build()
    assert client.get(nic_id(client).upper().replace("/SUBSCRIPTIONS", "/subscriptions"))[
        "id"
    ] == nic_id(client)


# Operations and the data plane


def test_nic_write() -> None:
    """A NIC write shows in its GET at once, in data plane and pool later, and then ends."""
    client = build()
    world, pool = client.world, client.world.pool_id("app")
    reply = remove(client)
    assert json.loads(reply.body)["properties"]["provisioningState"] == "Updating"
    assert client.poll(reply) == {"status": "InProgress"}
    assert world.rotation(pool) == ("web-1", "web-2", "web-3")
    world.advance(NOW + 5)
    assert world.rotation(pool) == ("web-2", "web-3")
    assert len(client.get(pool)["properties"]["backendIPConfigurations"]) == 2
    assert client.poll(reply) == {"status": "InProgress"}
    world.advance(NOW + 10)
    assert client.poll(reply) == recorded("lb_01_get_200")["response"]["body"]
    assert client.get(nic_id(client))["properties"]["provisioningState"] == "Succeeded"
    assert [(c.at - NOW, c.detail["vm"]) for c in world.changes("member_out")] == [(5, "web-1")]
    assert [c.detail["by"] for c in world.changes("write")] == ["web-1"]


def test_nic_list_key_is_absent_when_empty() -> None:
    """A NIC in no pool has no pool list at all; a pool without members has an empty one."""
    client = build(vms=1)
    remove(client)
    client.world.advance(NOW + 60)
    entry = client.get(nic_id(client))["properties"]["ipConfigurations"][0]
    assert "loadBalancerBackendAddressPools" not in entry["properties"]
    pool = client.get(client.world.pool_id("app"))["properties"]
    assert pool["loadBalancerBackendAddresses"] == []


def test_pool_member_shape() -> None:
    """A NIC-based pool lists its members twice, by ipConfiguration and by composed name."""
    client = build(vms=1)
    configuration = f"{nic_id(client)}/ipConfigurations/ipconfig1"
    pool = client.get(client.world.pool_id("app"))["properties"]
    assert pool["backendIPConfigurations"] == [{"id": configuration}]
    [address] = pool["loadBalancerBackendAddresses"]
    assert address["name"] == "web-rg_web-1-nicipconfig1"
    assert address["properties"]["networkInterfaceIPConfiguration"] == {"id": configuration}


@pytest.mark.parametrize("outcome", ["failed", "canceled"])
def test_failed_operation(outcome: str) -> None:
    """A failed or cancelled operation is polled with 200 and has not moved the member."""
    client = build()
    client.world.writes.plan(nic_id(client), outcome)  # type: ignore[arg-type]
    reply = remove(client)
    client.world.advance(NOW + 60)
    ended = client.poll(reply)
    assert ended["status"] == outcome.capitalize()
    assert ended["error"]["code"]
    assert client.world.rotation(client.world.pool_id("app")) == ("web-1", "web-2", "web-3")


def test_success_without_effect() -> None:
    """An operation may report success although nothing changed."""
    client = build()
    client.world.writes.plan(nic_id(client), "no_effect")
    reply = remove(client)
    client.world.advance(NOW + 60)
    assert client.poll(reply)["status"] == "Succeeded"
    entry = client.get(nic_id(client))["properties"]["ipConfigurations"][0]["properties"]
    assert entry["loadBalancerBackendAddressPools"]
    assert client.world.changes("member_out") == []


@pytest.mark.parametrize("outcome", ["no_effect", "failed", "canceled"])
def test_a_write_that_comes_to_nothing_brings_no_deleted_pool_back(outcome: Any) -> None:
    """The reference of a NIC to a pool goes with the pool, also while the NIC is written."""
    client = build()
    client.world.writes.plan(nic_id(client), outcome)
    remove(client)
    client.world.delete_pool(client.world.pool_id("app"))
    client.world.advance(NOW + 60)
    entry = client.get(nic_id(client))["properties"]["ipConfigurations"][0]["properties"]
    assert not entry.get("loadBalancerBackendAddressPools")


def test_same_nic_is_busy() -> None:
    """A second write of a NIC in flight is refused, and the text says how long to wait."""
    client = build()
    remove(client)
    client.world.advance(NOW + 4)
    reply = remove(client)
    assert (reply.status, code(reply)) == (
        429,
        "RetryableError/RetryableErrorDueToAnotherOperation",
    )
    assert b"The call can be retried in 6 seconds." in reply.body
    assert "Retry-After" not in reply.headers


def test_serial_set() -> None:
    """In serial mode the NICs of a set are written one at a time; in parallel mode they are not."""
    statuses = {}
    for mode in ("parallel", "serial"):
        client = build(settings={"conflict_mode": mode, "busy_retry_after": True})
        remove(client, "web-1")
        statuses[mode] = remove(client, "web-2")
    assert statuses["parallel"].status == 200
    assert (statuses["serial"].status, statuses["serial"].headers["Retry-After"]) == (429, "10")


# IP-based pools


def ip_pool(client: Arm, drop: str) -> tuple[str, dict[str, Any]]:
    path = client.world.pool_id("api")
    pool = client.get(path)
    pool["properties"]["loadBalancerBackendAddresses"] = [
        entry
        for entry in pool["properties"]["loadBalancerBackendAddresses"]
        if entry["name"] != drop
    ]
    return path, pool


def test_ip_pool_shape() -> None:
    """An IP-based pool has the published shape; its entries have what OpenAPI leaves out."""
    client = build(ip_pools=("api",))
    golden = recorded("LBBackendAddressPoolWithBackendAddressesGet")["responses"]["200"]["body"]
    pool = client.get(client.world.pool_id("api"))
    for entry in pool["properties"]["loadBalancerBackendAddresses"]:
        for name in ("id", "etag", "type"):
            del entry[name]
        del entry["properties"]["provisioningState"]
    assert shape(pool) == shape(golden)


def test_pool_write_that_changes_members() -> None:
    """The pool and its members show Updating until the write ends, and the etag changes twice."""
    client = build(ip_pools=("api",))
    path, body = ip_pool(client, "web-1")
    reply = client("PUT", path, body)
    answered = json.loads(reply.body)
    states = {
        part["properties"]["provisioningState"]
        for part in (answered, *answered["properties"]["loadBalancerBackendAddresses"])
    }
    assert states == {"Updating"}
    assert client.get(path)["properties"]["provisioningState"] == "Updating"
    assert client.poll(reply)["status"] == "InProgress"
    assert "web-1" in client.world.rotation(path)
    client.world.advance(NOW + 60)
    after = client.get(path)
    assert after["properties"]["provisioningState"] == "Succeeded"
    assert len({body["etag"], answered["etag"], after["etag"]}) == 3
    assert client.world.rotation(path) == ("web-2", "web-3")


def test_pool_write_claims_success_while_running() -> None:
    """A pool update without other members answers Succeeded, although its operation runs."""
    client = build(ip_pools=("api",))
    reply = client("PUT", *ip_pool(client, ""))
    assert json.loads(reply.body)["properties"]["provisioningState"] == "Succeeded"
    assert client.poll(reply)["status"] == "InProgress"


def test_second_pool_write_supersedes() -> None:
    """Of two pool writes in flight the first ends Canceled, and the last one counts."""
    client = build(ip_pools=("api",))
    path, body = ip_pool(client, "web-1")
    first = client("PUT", path, body)
    other = ip_pool(client, "web-2")[1]
    second = client("PUT", path, other)
    ended = client.poll(first)
    assert ended["status"] == "Canceled"
    [detail] = ended["error"]["details"]
    assert detail["code"] == "CanceledAndSupersededDueToAnotherOperation"
    client.world.advance(NOW + 60)
    assert client.poll(second)["status"] == "Succeeded"
    assert client.world.rotation(path) == ("web-3",)


def test_failed_successor_undoes_what_it_superseded() -> None:
    """When the later of two writes comes to nothing, GET shows what the data plane does."""
    client = build(ip_pools=("api",))
    path, body = ip_pool(client, "web-1")
    client("PUT", path, body)
    client.world.writes.plan(path, "no_effect")
    client("PUT", path, ip_pool(client, "web-2")[1])
    client.world.advance(NOW + 60)
    entries = client.get(path)["properties"]["loadBalancerBackendAddresses"]
    assert sorted(entry["name"] for entry in entries) == ["web-1", "web-2", "web-3"]
    assert len(client.world.rotation(path)) == 3


def test_nic_pool_refuses_pool_writes() -> None:
    """The members of a NIC-based pool cannot be written through it, and kinds never mix."""
    client = build(ip_pools=("api",))
    nic_pool = client.get(client.world.pool_id("app"))
    reply = client("PUT", nic_pool["id"], nic_pool)
    assert (reply.status, code(reply)) == (400, "ModificationOfNICIpConfigBackendPoolNotSupported")
    ip_body = client.get(client.world.pool_id("api"))
    mixed = client("PUT", nic_pool["id"], ip_body)
    assert code(mixed).startswith("CannotMixIPBased")
    nic = client.get(nic_id(client))
    entry = nic["properties"]["ipConfigurations"][0]["properties"]
    entry["loadBalancerBackendAddressPools"].append({"id": ip_body["id"]})
    assert code(client("PUT", nic["id"], nic)).startswith("CannotMixIPBased")


def test_admin_state_down_takes_out_of_rotation() -> None:
    """A member in admin state Down gets no new flows, and stays a member."""
    client = build(ip_pools=("api",))
    path, pool = ip_pool(client, "")
    for entry in pool["properties"]["loadBalancerBackendAddresses"]:
        if entry["name"] == "web-1":
            entry["properties"]["adminState"] = "Down"
    client("PUT", path, pool)
    client.world.advance(NOW + 60)
    assert client.world.rotation(path) == ("web-2", "web-3")
    assert len(client.world.members(path)) == 3


@pytest.mark.parametrize("state", ["Failed", "Updating"])
def test_unready_nic_blocks_its_load_balancer(state: str) -> None:
    """A NIC that is Failed or Updating makes writes on its load balancer fail; a PUT repairs it."""
    client = build()
    pool = client.world.pool_id("app").replace("/app", "/new")
    if state == "Failed":
        client.world.fail_nic(nic_id(client))
    else:
        remove(client)
    reply = client("PUT", pool, {"properties": {}})
    assert (reply.status, code(reply)) == (429, "RetryableError/ReferencedResourceNotProvisioned")
    if state == "Failed":
        client("PUT", nic_id(client), client.get(nic_id(client)))
    client.world.advance(NOW + 60)
    assert client("PUT", pool, {"properties": {}}).status == 201


def test_lost_superseded_write() -> None:
    """With that knob off, a superseded write to another pool of the load balancer is undone."""
    rotations = {}
    for survives in (True, False):
        client = build(ip_pools=("api", "admin"), settings={"superseded_write_survives": survives})
        path, body = ip_pool(client, "web-1")
        client("PUT", path, body)
        other = client.get(client.world.pool_id("admin"))
        client("PUT", other["id"], other)
        client.world.advance(NOW + 60)
        rotations[survives] = client.world.rotation(path)
    assert rotations == {True: ("web-2", "web-3"), False: ("web-1", "web-2", "web-3")}


def test_failed_write_may_show_its_body() -> None:
    """With that knob on, a failed write's body stays visible, in state Failed, without effect."""
    client = build(settings={"failed_write_keeps_body": True})
    client.world.writes.plan(nic_id(client), "failed")
    remove(client)
    client.world.advance(NOW + 60)
    nic = client.get(nic_id(client))
    assert nic["properties"]["provisioningState"] == "Failed"
    assert without_pools(nic) == nic
    assert "web-1" in client.world.rotation(client.world.pool_id("app"))


def test_stale_reads() -> None:
    """With a read lag, a GET after a write still answers the old body and its old etag."""
    client = build(settings={"read_lag_s": 20.0})
    before = client.get(nic_id(client))
    remove(client)
    assert client.get(nic_id(client)) == before
    client.world.advance(NOW + 20)
    assert client.get(nic_id(client))["etag"] != before["etag"]


def test_operator_edits() -> None:
    """An operator's edit takes effect at once, with a new etag and in the history."""
    client = build()
    world, pool = client.world, client.world.pool_id("app")
    before = client.get(nic_id(client))["etag"]
    world.remove_membership(pool, "web-1-nic")
    assert world.rotation(pool) == ("web-2", "web-3")
    world.add_membership(pool, "web-1-nic")
    assert world.rotation(pool) == ("web-2", "web-3", "web-1")
    assert client.get(nic_id(client))["etag"] != before
    assert [c.kind for c in world.history] == ["operator", "member_out", "operator", "member_in"]


# Access and limits


def test_token_is_required() -> None:
    """A missing, forged, expired or foreign token is refused with 401 and a challenge."""
    client = build(settings={"token_lifetime_s": 60.0})
    own = client.world.token("web-1", ARM)
    blob = client.world.token("web-1", "https://storage.azure.com/")
    for token in (" ", f"{own[:-1]}.", blob):
        reply = client("GET", nic_id(client), token=token)
        assert reply.status == 401
        assert reply.headers["WWW-Authenticate"].startswith("Bearer ")
    client.world.advance(NOW + 60)
    assert code(client("GET", nic_id(client), token=own)) == "ExpiredAuthenticationToken"


def test_api_version_is_required() -> None:
    """A request without api-version is refused with 400."""
    client = build()
    assert code(client("GET", f"{nic_id(client)}?x=1")) == "MissingApiVersionParameter"


def test_missing_permission() -> None:
    """Without the action the caller is refused, by name of action and scope."""
    client = build()
    client.world.roles.revoke("web-1", "Microsoft.Network/networkInterfaces/write")
    reply = remove(client)
    assert (reply.status, code(reply)) == (403, "AuthorizationFailed")
    assert b"Microsoft.Network/networkInterfaces/write" in reply.body
    client.vm = "web-2"
    assert remove(client).status == 200


@pytest.mark.parametrize(
    "action",
    [
        "virtualNetworks/subnets/join/action",
        "networkSecurityGroups/join/action",
        "loadBalancers/backendAddressPools/join/action",
        "loadBalancers/inboundNatRules/join/action",
    ],
)
def test_linked_scopes(action: str) -> None:
    """A PUT needs the join permission for everything its body refers to, changed or not."""
    client = build()
    client.world.roles.revoke("web-1", f"Microsoft.Network/{action}")
    nic = client.get(nic_id(client))
    reply = client("PUT", nic["id"], nic)
    assert (reply.status, code(reply)) == (403, "LinkedAuthorizationFailed")


def test_leaving_a_pool_needs_no_join() -> None:
    """Removing a membership works without the right that restoring it will need."""
    client = build()
    client.world.roles.revoke(
        "web-1", "Microsoft.Network/loadBalancers/backendAddressPools/join/action"
    )
    assert remove(client).status == 200


def test_deleted_pool_is_an_invalid_link() -> None:
    """A reference to a deleted pool is refused like a missing permission."""
    client = build()
    nic = client.get(nic_id(client))
    client.world.delete_pool(client.world.pool_id("app"))
    assert code(client("PUT", nic["id"], nic)) == "LinkedAuthorizationFailed"
    assert client.world.nic("web-2-nic")["properties"]["ipConfigurations"][0]["properties"].keys()
    assert len(client.world.changes("member_out")) == 3


def test_throttling() -> None:
    """An empty bucket is a 429 with Retry-After, and fills again."""
    client = build(settings={"read_bucket": 2, "read_refill_per_s": 1.0})
    replies = [client("GET", nic_id(client)) for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 429]
    left = "x-ms-ratelimit-remaining-subscription-reads"
    assert [reply.headers[left] for reply in replies] == ["1", "0", "0"]
    assert replies[-1].headers["Retry-After"] == "1"
    client.world.advance(NOW + 1)
    assert client("GET", nic_id(client)).status == 200


def test_dead_vm_has_no_effect() -> None:
    """What a dead VM sends does not arrive; others can see that nothing was written."""
    client = build()
    nic = without_pools(client.get(nic_id(client)))
    client.world.set_vm_state("web-1", "frozen")
    assert client("PUT", nic["id"], nic).delivery is Delivery.HANG
    client.world.set_vm_state("web-1", "rebooting")
    assert client("PUT", nic["id"], nic).delivery is Delivery.RESET
    assert client.world.changes("write") == []


def test_outbound_through_the_public_pool() -> None:
    """Without default outbound, a VM outside every public pool no longer reaches ARM."""
    client = build(settings={"outbound_needs_public_pool": True})
    remove(client)
    client.world.advance(NOW + 60)
    assert client("GET", nic_id(client)).delivery is Delivery.HANG
    client.vm = "web-2"
    assert client("GET", nic_id(client)).delivery is Delivery.NORMAL


# Compute


def test_resource_group_casing() -> None:
    """References in compute bodies upper-case the group at random, ids of the bodies do not."""
    client = build()
    seen = {
        client.get(client.world.vm("web-1").resource_id)["properties"]["availabilitySet"]["id"]
        for _ in range(30)
    }
    assert {entry.split("/")[4] for entry in seen} == {"web-rg", "WEB-RG"}


def test_primary_only_with_several_nics() -> None:
    """A single NIC has no primary flag; of several exactly one is primary."""

    def flags(nics_per_vm: int) -> list[Any]:
        client = build(nics_per_vm=nics_per_vm)
        profile = client.get(client.world.vm("web-1").resource_id)["properties"]["networkProfile"]
        return [nic.get("properties") for nic in profile["networkInterfaces"]]

    assert flags(1) == [None]
    assert flags(2) == [{"primary": True}, {"primary": False}]


def test_paging() -> None:
    """A long list comes in pages, and the next links lead to every entry once."""
    client = build(vms=5, settings={"list_page_size": 2})
    path = client.world.vm("web-1").resource_id.rpartition("/")[0]
    names: list[str] = []
    query = "api-version=2025-04-01&$expand=instanceView"
    while query:
        listed = client.get(f"{path}?{query}")
        names += [vm["name"] for vm in listed["value"]]
        assert all(vm["properties"]["instanceView"]["statuses"] for vm in listed["value"])
        query = urlsplit(listed.get("nextLink", "")).query
    assert names == [f"web-{order}" for order in range(1, 6)]


@pytest.mark.parametrize(
    ("state", "power"),
    [("frozen", "running"), ("deallocated", "deallocated"), ("stopped", "stopped")],
)
def test_power_state(state: Any, power: str) -> None:
    """The power state follows the VM, but a freeze goes unnoticed."""
    client = build()
    client.world.set_vm_state("web-2", state)
    view = client.get(f"{client.world.vm('web-2').resource_id}/instanceView")
    assert view["statuses"][1]["code"] == f"PowerState/{power}"


def test_deleted_vm() -> None:
    """A deleted VM is gone from compute, from its set, and from rotation."""
    client = build()
    path = client.world.vm("web-2").resource_id
    client.world.delete_vm("web-2")
    assert client("GET", path).status == 404
    assert len(client.get(client.world.availability_set_id)["properties"]["virtualMachines"]) == 2
    assert client.world.rotation(client.world.pool_id("app")) == ("web-1", "web-3")


def test_other_group_and_other_vms() -> None:
    """Network resources may have their own group, and pools may hold VMs of no set of ours."""
    client = build(network_group="net-rg", foreign_vms=1)
    assert "/resourceGroups/net-rg/" in nic_id(client)
    assert "other-1" in client.world.rotation(client.world.pool_id("app"))
    members = client.get(client.world.availability_set_id)["properties"]["virtualMachines"]
    assert len(members) == 3


def test_same_seed_same_world() -> None:
    """Two worlds of one seed answer the same bytes."""
    left, right = build(), build()
    assert left("GET", nic_id(left)) == right("GET", nic_id(right))


def test_sign_in_of_the_command_line_client() -> None:
    """The cloud describes itself without a token, and a token says to which tenant it belongs."""
    client = build()
    request = Request(service=Service.ARM, method="GET", path="/metadata/endpoints")
    reply = arm.handle(client.world, request, client.world.now)
    cloud = json.loads(reply.body)
    assert reply.status == 200
    assert ARM in cloud["authentication"]["audiences"]
    payload = client.world.token("web-1", ARM).split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["tid"] == cloud["authentication"]["tenant"] == client.world.tenant
    assert claims["nbf"] == claims["iat"] < claims["exp"]


@pytest.mark.parametrize("captive", [False, True])
def test_a_subnet_tells_whether_there_is_a_way_out(captive: bool) -> None:
    """The subnet of the NICs has a NAT gateway, unless VMs need their public pool to get out."""
    client = build(settings={"outbound_needs_public_pool": captive})
    nic = client.get(nic_id(client))
    subnet = nic["properties"]["ipConfigurations"][0]["properties"]["subnet"]["id"]
    assert code(client("GET", subnet)) == "AuthorizationFailed"
    actions = frozenset({"Microsoft.Network/virtualNetworks/subnets/read"})
    client.world.roles.assign("web-1", actions, f"/subscriptions/{client.world.subscription}")
    body = client.get(subnet.upper())
    assert body["id"] == subnet
    assert ("natGateway" in body["properties"]) is not captive
    assert client("PUT", subnet, body).status == 405
    assert client("GET", f"{subnet}-2").status == 404
