"""Quotas: those of Compute per principal and resource, and refusals of single identities."""

import json

import pytest

from controller.simulator.services.http_values import Reply
from tests.simulator.test_arm import NOW, Arm, build, code, nic_id, remove


def vm_list(client: Arm) -> str:
    return client.world.vm("web-1").resource_id.rpartition("/")[0]


def assert_refused(reply: Reply, retry_after: str | None) -> None:
    assert (reply.status, code(reply)) == (429, "OperationNotAllowed/TooManyRequests")
    assert reply.headers.get("Retry-After") == retry_after
    [detail] = json.loads(reply.body)["error"]["details"]
    assert json.loads(detail["message"])["operationGroup"] == detail["target"]


def test_subscription_bucket() -> None:
    """The wait that an empty bucket of a principal asks for is a knob."""
    client = build(settings={"read_bucket": 0, "subscription_retry_after_s": 300})
    reply = client("GET", nic_id(client))
    assert (reply.status, reply.headers["Retry-After"]) == (429, "300")


def test_compute_bucket() -> None:
    """An empty bucket of Compute refuses everything in it until its Retry-After has passed."""
    client = build(settings={"compute_list_bucket": 2, "compute_retry_after_s": 1200})
    path = vm_list(client)
    assert [client("GET", path).status for _ in range(2)] == [200, 200]
    assert_refused(client("GET", path), "1200")
    client.world.advance(NOW + 300)
    assert_refused(client("GET", path), "900")
    client.world.advance(NOW + 1200)
    assert client("GET", path).status == 200


def test_compute_buckets_are_separate() -> None:
    """A used-up list refuses neither single VMs, nor other principals, nor Network."""
    client = build(settings={"compute_list_bucket": 1})
    client("GET", vm_list(client))
    assert client("GET", vm_list(client)).status == 429
    assert client("GET", client.world.vm("web-1").resource_id).status == 200
    assert client("GET", client.world.availability_set_id).status == 200
    assert client("GET", nic_id(client)).status == 200
    client.vm = "web-2"
    assert client("GET", vm_list(client)).status == 200


def test_buckets_of_single_resources() -> None:
    """Reads of one VM that are used up leave the other VMs readable."""
    client = build(settings={"compute_read_bucket": 1, "compute_retry_after_s": 7})
    first, second = (client.world.vm(name).resource_id for name in ("web-1", "web-2"))
    assert client("GET", first).status == 200
    assert_refused(client("GET", f"{first}/instanceView"), "7")
    reply = client("GET", second)
    assert reply.headers["x-ms-ratelimit-remaining-resource"] == "Microsoft.Compute/LowCostGet;0"


def test_compute_refusal_without_header() -> None:
    """Retry-After may be absent, and the quotas may be off."""
    client = build(settings={"compute_list_bucket": 0, "throttle_retry_after": False})
    assert_refused(client("GET", vm_list(client)), None)
    client.world.settings.throttle = False
    assert client("GET", vm_list(client)).status == 200


@pytest.mark.parametrize("provider", ["Microsoft.Network", "Microsoft.Compute"])
def test_one_identity_is_throttled(provider: str) -> None:
    """A refusal of one identity by one provider leaves other identities and providers alone."""
    client = build()
    world = client.world
    world.throttles.begin(provider=provider, principal="web-1", until=NOW + 60)
    paths = {"Microsoft.Network": nic_id(client), "Microsoft.Compute": vm_list(client)}
    world.advance(NOW + 10)
    refused = client("GET", paths.pop(provider))
    assert (refused.status, refused.headers["Retry-After"]) == (429, "50")
    assert client("GET", *paths.values()).status == 200
    client.vm = "web-2"
    assert client("GET", nic_id(client)).status == 200
    client.vm = "web-1"
    world.advance(NOW + 60)
    assert client("GET", nic_id(client)).status == 200


def test_one_resource_is_throttled() -> None:
    """A refusal of writes to one NIC leaves its reads and other NICs alone; it can be ended."""
    client = build()
    throttles = client.world.throttles
    throttles.begin(
        provider="Microsoft.Network", resource=nic_id(client), writes_only=True, until=NOW + 60
    )
    assert remove(client).status == 429
    assert remove(client, "web-2").status == 200
    throttles.end()
    assert remove(client).status == 200
