"""Writes of other clients: whole load balancers, NICs, and operations that cancel ours."""

import copy
import json
from typing import Any

import pytest

from controller.simulator.services.http_values import Reply
from controller.simulator.world.access import OPERATOR
from tests.simulator.test_arm import ARM, NOW, Arm, build, code, ip_pool, nic_id, recorded, remove


def load_balancer_of(client: Arm, pool: str = "app") -> str:
    return client.world.pool_id(pool).rpartition("/backendAddressPools")[0]


def as_operator(client: Arm, path: str, body: Any, **headers: str) -> Reply:
    token = client.world.token(OPERATOR, ARM)
    return client("PUT", path, body, token=token, **headers)


def superseding(ended: dict[str, Any]) -> str:
    """Return the kind of the operation that superseded this one."""
    assert ended["status"] == "Canceled"
    [detail] = ended["error"]["details"]
    assert detail["code"] == "CanceledAndSupersededDueToAnotherOperation"
    return str(detail["message"].rpartition("operation ")[2].partition(" ")[0])


def plain(value: Any) -> Any:
    """Return a body without what changes with every write."""
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items() if name != "etag"}
    return value


def test_echo_of_a_load_balancer_changes_nothing() -> None:
    """A PUT of what was read leaves everything as it was, members of both kinds included."""
    client = build(ip_pools=("api",), settings={"shuffle_members": False})
    for name in ("app", "api"):
        path = load_balancer_of(client, name)
        before = client.get(path)
        reply = as_operator(client, path, copy.deepcopy(before))
        assert reply.status == 200
        assert client.poll(reply)["status"] == "InProgress"
        client.world.advance(client.world.now + 60)
        after = client.get(path)
        assert plain(after) == plain(before)
        assert after["etag"] != before["etag"]
        assert set(client.world.rotation(client.world.pool_id(name))) == {"web-1", "web-2", "web-3"}


def test_recorded_write() -> None:
    """A load balancer is created and updated with the recorded bodies and headers."""
    client = build()
    path = load_balancer_of(client).replace("web-lb", "testResource")
    for name, status in (("pool_02_put_201", 201), ("lb_06_put_200", 200)):
        golden = recorded(name)
        reply = as_operator(client, path, golden["request"]["body"])
        assert reply.status == status
        text = json.dumps(golden["response"]["body"])
        body, expected = json.loads(reply.body), json.loads(text)
        assert set(body) == set(expected)
        assert body["properties"].keys() == expected["properties"].keys()
        [frontend], [wanted] = (
            each["properties"]["frontendIPConfigurations"] for each in (body, expected)
        )
        assert frontend.keys() == wanted.keys()
        assert frontend["properties"] == wanted["properties"]
        assert body["sku"] == expected["sku"]
        assert {"Azure-AsyncOperation", "Azure-AsyncNotification"} <= set(reply.headers)
        assert "ETag" not in reply.headers


def test_load_balancer_etag() -> None:
    """A foreign If-Match on a load balancer is refused with the recorded text."""
    client = build()
    path = load_balancer_of(client)
    body = client.get(path)
    reply = as_operator(client, path, body, if_match="invalid")
    assert (reply.status, code(reply)) == (412, "PreconditionFailed/PreconditionFailedEtagMismatch")


def test_load_balancer_write_supersedes_ours() -> None:
    """A PUT of the load balancer cancels a pool write in flight; what it read decides."""
    for stale, rotation in ((False, ("web-2", "web-3")), (True, ("web-1", "web-2", "web-3"))):
        client = build(ip_pools=("api",))
        path, body = ip_pool(client, "web-1")
        ours = client("PUT", path, body)
        client.world.writes.rewrite_load_balancer(load_balancer_of(client, "api"), stale=stale)
        assert superseding(client.poll(ours)) == "PutLoadBalancerOperation"
        client.world.advance(NOW + 60)
        assert client.world.rotation(path) == rotation
        assert client.get(path)["properties"]["provisioningState"] == "Succeeded"


def test_pool_write_supersedes_a_load_balancer_write() -> None:
    """A pool write cancels a PUT of its load balancer in flight, and not that of another."""
    client = build(ip_pools=("api",))
    own, other = load_balancer_of(client, "api"), load_balancer_of(client, "app")
    replies = [as_operator(client, path, client.get(path)) for path in (own, other)]
    client("PUT", *ip_pool(client, "web-1"))
    assert superseding(client.poll(replies[0])) == "PutLoadBalancerBackendAddressPoolOperation"
    assert client.poll(replies[1])["status"] == "InProgress"


@pytest.mark.parametrize(("stale", "count"), [(False, 2), (True, 3)])
def test_nic_write_supersedes_ours(stale: bool, count: int) -> None:
    """A PUT of a NIC by another client cancels ours; a stale one undoes it."""
    client = build()
    ours = remove(client)
    client.world.writes.rewrite_nic(nic_id(client), stale=stale)
    assert superseding(client.poll(ours)) == "PutNicOperation"
    client.world.advance(NOW + 60)
    assert len(client.world.rotation(client.world.pool_id("app"))) == count
    assert client.get(nic_id(client))["properties"]["provisioningState"] == "Succeeded"


def test_nic_conflict_is_a_knob() -> None:
    """With that knob a second PUT of a NIC is accepted, and cancels the first."""
    client = build(settings={"nic_put_conflict": "supersede"})
    first = remove(client)
    assert remove(client).status == 200
    assert superseding(client.poll(first)) == "PutNicOperation"


def test_pool_in_use_stays() -> None:
    """A PUT of a load balancer without a pool that has NICs is refused."""
    client = build()
    path = load_balancer_of(client)
    body = client.get(path)
    body["properties"]["backendAddressPools"] = []
    body["properties"]["loadBalancingRules"] = []
    assert code(as_operator(client, path, body)) == "InUseBackendAddressPoolCannotBeDeleted"


@pytest.mark.parametrize("stuck", [True, False])
def test_unready_nic_blocks_writes_of_its_load_balancer(stuck: bool) -> None:
    """A NIC that stays Updating or Failed blocks PUTs of the load balancer, too."""
    client = build()
    world, path = client.world, load_balancer_of(client)
    if stuck:
        world.writes.stick(nic_id(client))
    else:
        world.fail_nic(nic_id(client))
    world.advance(NOW + 86_400)
    reply = as_operator(client, path, client.get(path))
    assert (reply.status, code(reply)) == (429, "RetryableError/ReferencedResourceNotProvisioned")
    if not stuck:
        return
    assert client.get(nic_id(client))["properties"]["provisioningState"] == "Updating"
    assert remove(client).status == 429
    world.writes.release(nic_id(client))
    assert remove(client).status == 200


@pytest.mark.parametrize("wait_s", [0, 1, 10, None])
def test_operations_ask_for_patience(wait_s: int | None) -> None:
    """Replies to PUTs and unfinished polls carry the Retry-After of the knob, or none."""
    client = build(settings={"lro_retry_after_s": wait_s})
    reply = remove(client)
    expected = None if wait_s is None else str(wait_s)
    assert reply.headers.get("Retry-After") == expected
    polled = client("GET", reply.headers["Azure-AsyncOperation"].partition("azure.com")[2])
    assert polled.headers.get("Retry-After") == expected
    client.world.advance(NOW + 60)
    polled = client("GET", reply.headers["Azure-AsyncOperation"].partition("azure.com")[2])
    assert "Retry-After" not in polled.headers
