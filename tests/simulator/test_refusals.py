"""What the simulated Azure refuses, and how: a client's mistake must not pass for a success."""

import base64
import json
from typing import Any
from urllib.parse import parse_qsl

import pytest

from controller.simulator.app import control
from controller.simulator.services import arm, blob
from controller.simulator.services.faults import FaultBook
from controller.simulator.services.http_values import Reply, Request, Service
from controller.simulator.world.blob_store import BlobStore
from controller.simulator.world.builder import build_world
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.world import World

NOW = 1_700_000_000.0
ARM = "https://management.azure.com/"
PROVIDERS = "{group}/providers"
NETWORK, COMPUTE = f"{PROVIDERS}/Microsoft.Network", f"{PROVIDERS}/Microsoft.Compute"
LB, INNER = f"{NETWORK}/loadBalancers/web-lb", f"{NETWORK}/loadBalancers/web-internal"
NIC_POOL, IP_POOL = f"{LB}/backendAddressPools/app", f"{INNER}/backendAddressPools/ip"


def world() -> World:
    settings = WorldSettings(shuffle_members=False, ip_pool_member_limit=2)
    return build_world(now=NOW, vms=2, ip_pools=("ip",), settings=settings)


def ask(
    of: World, method: str, path: str, body: bytes = b"", *, version: str = "2024-07-01"
) -> Reply:
    subscription = f"/subscriptions/{of.subscription}"
    path = path.format(sub=subscription, group=f"{subscription}/resourceGroups/{of.resource_group}")
    path, _, query = path.partition("?")
    request = Request(
        service=Service.ARM,
        method=method,
        path=path,
        query=(("api-version", version), *parse_qsl(query)),
        headers={"authorization": f"Bearer {of.token('web-1', ARM)}"},
        body=body,
    )
    return arm.handle(of, request, of.now)


def pool(*addresses: Any) -> bytes:
    return json.dumps({"properties": {"loadBalancerBackendAddresses": list(addresses)}}).encode()


def address(name: str, ip: str, **properties: Any) -> dict[str, Any]:
    return {"name": name, "properties": {"ipAddress": ip, **properties}}


BY_NIC = {"name": "n", "properties": {"networkInterfaceIPConfiguration": {"id": "/x"}}}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/tenants", 200),
        ("GET", "/subscriptions", 200),
        ("GET", "{sub}", 200),
        ("GET", "{sub}/resourceGroups", 200),
        ("GET", "{group}", 200),
        ("GET", f"{COMPUTE}/availabilitySets", 200),
        ("GET", f"{LB}/backendAddressPools", 200),
        ("GET", "/nothing", 404),
        ("GET", "/subscriptions/00000000-0000-0000-0000-000000000000", 404),
        ("GET", "{sub}/nothing", 404),
        ("GET", f"{PROVIDERS}/Microsoft.Storage/storageAccounts", 404),
        ("GET", "{sub}/providers/Microsoft.Network/locations/westeurope/operations/x", 404),
        ("GET", "{sub}/providers/Microsoft.Compute/locations/westeurope/operations/x", 404),
        ("GET", f"{COMPUTE}/availabilitySets/other", 404),
        ("GET", f"{COMPUTE}/virtualMachines/web-1/extensions", 404),
        ("GET", f"{NETWORK}/loadBalancers/other", 404),
        ("GET", f"{LB}/backendAddressPools/other", 404),
        ("GET", f"{LB}/probes/other", 403),
        ("PUT", "{sub}", 405),
        ("PUT", "{group}", 405),
        ("PUT", f"{NETWORK}/networkInterfaces", 405),
        ("DELETE", f"{NETWORK}/networkInterfaces/web-1-nic", 405),
        ("PUT", f"{NETWORK}/loadBalancers", 405),
        ("PUT", LB, 403),
        ("POST", LB, 405),
        ("PUT", f"{COMPUTE}/virtualMachines/web-1", 405),
        ("PUT", f"{COMPUTE}/availabilitySets/web", 405),
    ],
)
def test_what_there_is_to_ask_for(method: str, path: str, status: int) -> None:
    """Resource Manager answers 404 for a missing resource and 405 for an unknown method."""
    reply = ask(world(), method, path)
    assert reply.status == status, reply.body
    assert ("error" in json.loads(reply.body)) == (status != 200)


@pytest.mark.parametrize("version", ["latest", "2025-5-1"])
def test_api_versions_are_dates(version: str) -> None:
    """An api-version that is no date is refused first."""
    reply = ask(world(), "GET", LB, version=version)
    assert json.loads(reply.body)["error"]["code"] == "InvalidApiVersionParameter"


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        (IP_POOL, b"{", "InvalidRequestContent"),
        (IP_POOL, b"[]", "InvalidRequestFormat"),
        (IP_POOL, b'{"properties": {"loadBalancerBackendAddresses": 5}}', "InvalidRequestFormat"),
        (IP_POOL, pool(address("a", "10.0.0.9"), address("A", "10.0.0.8")), "InvalidRequestFormat"),
        (IP_POOL, pool(address("a", "10.0.0.9"), address("b", "10.0.0.9")), "InvalidRequestFormat"),
        (IP_POOL, pool(address("a", "")), "InvalidRequestFormat"),
        (
            IP_POOL,
            pool(*(address(f"a{n}", f"10.1.0.{n}") for n in range(3))),
            "BackendAddressPoolLimitReached",
        ),
        (IP_POOL, pool(BY_NIC), "ModificationOfNICIpConfigBackendPoolNotSupported"),
        (
            IP_POOL,
            pool(BY_NIC, address("a", "10.0.0.9")),
            "CannotMixIPBasedAddressesAndIPConfigurationsOnLoadBalancerBackendAddressPool",
        ),
        (NIC_POOL, pool(BY_NIC), "ModificationOfNICIpConfigBackendPoolNotSupported"),
        (
            NIC_POOL,
            pool(address("a", "10.0.0.9")),
            "CannotMixIPBasedAddressesAndIPConfigurationsOnLoadBalancerBackendAddressPool",
        ),
    ],
)
def test_pool_bodies_that_break_a_rule(path: str, body: bytes, code: str) -> None:
    """A pool write that breaks a rule of Azure's changes nothing and says which rule."""
    here = world()
    before = ask(here, "GET", path).body
    reply = ask(here, "PUT", path, body)
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (400, code)
    assert ask(here, "GET", path).body == before


def test_a_nic_in_an_ip_based_pool_or_twice_in_one() -> None:
    """Pools of addresses take no NICs, and no pool takes an ipConfiguration twice."""
    here = world()
    path = here.vm("web-1").nic_ids[0]
    for pools in (["web-internal/ip"], ["web-lb/app", "web-lb/app"]):
        body = json.loads(ask(here, "GET", path).body)
        properties = body["properties"]["ipConfigurations"][0]["properties"]
        ids = [next(i for i in here.pool_ids() if i.endswith(p.split("/")[1])) for p in pools]
        properties["loadBalancerBackendAddressPools"] = [{"id": each} for each in ids]
        reply = ask(here, "PUT", path, json.dumps(body).encode())
        assert reply.status == 400, reply.body


# --- blobs ---


def ask_blob(store: BlobStore, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
    path, _, query = path.partition("?")
    request = Request(
        service=Service.BLOB,
        method=method,
        path=path,
        query=tuple(parse_qsl(query)),
        headers={
            "authorization": "Bearer web-1",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
        body=body,
    )
    return blob.handle(store, request, NOW, caller=lambda token: token)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("DELETE", "/account/c/b", {}, 202),
        ("DELETE", "/account/c/b", {"if_match": '"0x1"'}, 412),
        ("GET", "/account/c/b", {"if_none_match": "*"}, 304),
        ("GET", "/account/c/b", {"if_match": '"0x1"'}, 412),
        ("PUT", "/account/c/b?comp=lease", {"x_ms_lease_action": "steal"}, 400),
        ("PUT", "/account/c/b?comp=lease", {"x_ms_lease_action": "acquire"}, 400),
        (
            "PUT",
            "/account/c/b?comp=lease",
            {"x_ms_lease_action": "acquire", "x_ms_lease_duration": "x"},
            400,
        ),
        ("PUT", "/account/c/b?comp=lease", {"x_ms_lease_action": "renew"}, 400),
        (
            "PUT",
            "/account/c/b?comp=lease",
            {"x_ms_lease_action": "acquire", "x_ms_lease_duration": "15", "if_none_match": "*"},
            412,
        ),
        ("PUT", "/account/c/b", {"x_ms_blob_type": "PageBlob"}, 400),
        (
            "PUT",
            "/account/c/new",
            {
                "x_ms_blob_type": "BlockBlob",
                "x_ms_lease_id": "aaaaaaaa-0000-4000-8000-000000000001",
            },
            412,
        ),
        ("POST", "/account/c/b", {}, 400),
        ("POST", "/account/c?restype=container", {}, 400),
    ],
)
def test_what_blob_storage_refuses(
    method: str, path: str, headers: dict[str, Any], status: int
) -> None:
    """Conditions, leases and requests are refused as Microsoft documents, with a code."""
    store = BlobStore()
    store.create_container("account", "c", NOW)
    made = ask_blob(store, "PUT", "/account/c/b", b"x", x_ms_blob_type="BlockBlob")
    assert made.status == 201
    reply = ask_blob(store, method, path, **headers)
    assert reply.status == status, reply.body
    assert ("x-ms-error-code" in reply.headers) == (status >= 400 or status == 304)


# --- the control endpoint ---


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "expected"),
    [
        ("GET", "/nothing", b"", 404, "there is no GET /nothing"),
        ("POST", "/events", b"{", 400, "must be JSON"),
        ("POST", "/events", b"[]", 400, "must be a JSON object"),
        ("POST", "/events", b'{"event_type": "Nap"}', 400, "event_type must be one of"),
        ("POST", "/events", b'{"event_type": "Reboot", "resources": "web-1"}', 400, "be a list"),
        ("POST", "/events", b'{"event_type": "Reboot", "resources": []}', 400, "at least one VM"),
        (
            "POST",
            "/events",
            b'{"event_type": "Reboot", "resources": ["web-1"], "late_impact": [1]}',
            400,
            "two numbers",
        ),
        (
            "POST",
            "/events",
            b'{"event_type": "Reboot", "resources": ["web-1"], "impact": "gone"}',
            400,
            "impact must be",
        ),
        ("POST", "/vms/web-9/state", b'{"state": "running"}', 404, "there is no VM web-9"),
        ("POST", "/nics/x/tags", b'{"tags": {}}', 404, "there is no NIC x"),
        ("POST", "/nics/web-1-nic/tags", b'{"tags": []}', 400, "tags must be an object"),
        ("POST", "/nics/web-1-nic/tags", b'{"more": 1}', 400, "unknown field"),
        (
            "POST",
            "/nics/web-1-nic/membership",
            b'{"action": "add", "pool": "other"}',
            404,
            "there is no pool other",
        ),
        (
            "POST",
            "/nics/web-1-nic/membership",
            b'{"action": "add", "pool": "/a/b"}',
            404,
            "there is no pool /a/b",
        ),
        (
            "POST",
            "/nics/web-1-nic/membership",
            b'{"action": "add", "pool": "app", "ip_configuration": "x"}',
            404,
            "no ipConfiguration x",
        ),
        ("POST", "/settings", b'{"nonsense": 1}', 400, "unknown setting"),
        ("POST", "/blob", b'{"foreign_write_status": 500}', 400, "must be 409 or 412"),
        ("POST", "/events/E-9/complete", b"", 404, "no event E-9"),
    ],
)
def test_what_the_control_endpoint_refuses(
    method: str, path: str, body: bytes, status: int, expected: str
) -> None:
    """Bad input is answered in one sentence, and nothing happens."""
    here = world()
    happened = len(here.history)
    reply = control.handle(
        here, FaultBook(), method=method, path=path, query={}, body=body, now=NOW
    )
    assert (reply.status, expected in json.loads(reply.body)["error"]) == (status, True), reply.body
    assert len(here.history) == happened


def test_the_history_is_asked_for_by_number() -> None:
    """What is no number is refused; a number gives what came after it."""
    here = world()
    for since, status in (("x", 400), ("0", 200)):
        reply = control.handle(
            here,
            FaultBook(),
            method="GET",
            path="/history",
            query={"since": since},
            body=b"",
            now=NOW,
        )
        assert reply.status == status


def test_an_event_with_a_late_impact_and_knobs_of_the_blob_service() -> None:
    """What no Azure API offers can be set here, and is shown."""
    here, faults = world(), FaultBook()

    def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        sent = json.dumps(body).encode()
        reply = control.handle(here, faults, method="POST", path=path, query={}, body=sent, now=NOW)
        assert reply.status == 200, reply.body
        return dict(json.loads(reply.body))

    late = {"event_type": "Reboot", "resources": ["web-1"], "late_impact": [5, 2.5]}
    assert post("/events", late)["id"]
    assert post("/events", {**late, "impact": "frozen"})["id"]
    knobs = {
        "wait_after_expiry_s": 3.5,
        "foreign_write_status": 409,
        "denied_reads": ["web-2"],
        "denied_writes": ["web-1"],
    }
    assert post("/blob", knobs) == knobs
    assert post("/settings", {"throttle": True})["throttle"] is True
    assert post("/vms/web-1/state", {"state": "deallocated"})["state"] == "deallocated"
    edit = {"action": "remove", "pool": "app"}
    assert post("/nics/web-2-nic/membership", edit)["pool"] == here.pool_id("app")
    assert here.rotation(here.pool_id("app")) == ("web-1",)


# --- tokens ---


@pytest.mark.parametrize(
    ("audience", "at", "code"),
    [
        ("https://storage.azure.com/", 0, "InvalidAuthenticationTokenAudience"),
        (ARM, 10**6, "ExpiredAuthenticationToken"),
    ],
)
def test_tokens_for_something_else(audience: str, at: float, code: str) -> None:
    """A token for another service, or one that has expired, is refused with the reason."""
    here = world()
    request = Request(
        service=Service.ARM,
        method="GET",
        path="/tenants",
        query=(("api-version", "2024-07-01"),),
        headers={"authorization": f"Bearer {here.token('web-1', audience)}"},
        body=b"",
    )
    reply = arm.handle(here, request, NOW + at)
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (401, code)


def test_a_forged_token() -> None:
    """A made-up token is refused, whatever it claims."""
    here = world()
    claims = base64.urlsafe_b64encode(b'{"aud": "x"}').decode().rstrip("=")
    request = Request(
        service=Service.ARM,
        method="GET",
        path="/tenants",
        query=(("api-version", "2024-07-01"),),
        headers={"authorization": f"Bearer e30.{claims}.x"},
        body=b"",
    )
    assert arm.handle(here, request, NOW).status == 401
