"""Every resource type knows its own api-versions, and an old version shows less."""

import json
from typing import Any

import pytest

from controller.simulator.services.api_versions import COMPUTE_VERSIONS, NETWORK_VERSIONS
from controller.simulator.world.settings import WorldSettings
from tests.simulator.test_arm import Arm, build, code, nic_id


def paths(client: Arm) -> dict[str, str]:
    world = client.world
    pool = world.pool_id("app")
    return {
        "vm": world.vm("web-1").resource_id,
        "set": world.availability_set_id,
        "nic": nic_id(client),
        "pool": pool,
        "load balancer": pool.rpartition("/backendAddressPools")[0],
    }


@pytest.mark.parametrize(
    ("kind", "spelling", "version"),
    [
        ("vm", "virtualMachines", "2025-05-01"),
        ("set", "availabilitySets", "2099-01-01"),
        ("nic", "networkInterfaces", "2025-04-01"),
        ("pool", "loadBalancers", "2024-02-30"),
        ("load balancer", "loadBalancers", "2025-05-01-preview"),
    ],
)
def test_unknown_version(kind: str, spelling: str, version: str) -> None:
    """A version of another provider, of the future or of nothing is refused with those known."""
    client = build()
    reply = client("GET", f"{paths(client)[kind]}?api-version={version}")
    assert (reply.status, code(reply)) == (400, "NoRegisteredProviderFound")
    message = json.loads(reply.body)["error"]["message"]
    assert f"API version '{version}' for type '{spelling}'" in message
    known = COMPUTE_VERSIONS if kind in ("vm", "set") else NETWORK_VERSIONS
    assert f"The supported api-versions are '{', '.join(known.split())}'" in message


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        ("NoRegisteredProviderFound", 400),
        ("InvalidApiVersionParameter", 400),
        ("InvalidResourceType", 404),
    ],
)
def test_lagging_cloud(refusal: Any, status: int) -> None:
    """A cloud that lags refuses newer versions, reads and writes alike, and serves older ones."""
    client = build(settings={"newest_api_version": "2023-07-01", "api_version_refusal": refusal})
    path = nic_id(client)
    for method in ("GET", "PUT"):
        reply = client(method, f"{path}?api-version=2025-05-01", {})
        assert (reply.status, code(reply)) == (status, refusal)
        assert b"2023-06-01" in reply.body
        assert b"2023-09-01" not in reply.body
    assert client("GET", f"{path}?api-version=2023-06-01").status == 200


def test_types_without_a_registry() -> None:
    """Subscriptions and resource groups are not registered types of a provider."""
    client = build()
    path = f"/subscriptions/{client.world.subscription}/resourceGroups"
    assert client("GET", f"{path}?api-version=2021-04-01").status == 200


def names(value: Any) -> set[str]:
    """Return the names of all properties in a body."""
    if isinstance(value, list):
        return {name for part in value for name in names(part)}
    if isinstance(value, dict):
        return set(value) | {name for part in value.values() for name in names(part)}
    return set()


@pytest.mark.parametrize(
    ("kind", "old", "new", "expected"),
    [
        ("vm", "2021-07-01", "2021-11-01", {"timeCreated"}),
        ("vm", "2024-03-01", "2024-07-01", {"etag"}),
        ("set", "2024-07-01", "2024-11-01", {"virtualMachineScaleSetMigrationInfo"}),
        ("set", "2024-03-01", "2024-07-01", {"scheduledEventsPolicy"}),
        ("nic", "2024-05-01", "2024-07-01", {"defaultOutboundConnectivityEnabled"}),
        ("load balancer", "2022-01-01", "2022-05-01", {"probeThreshold"}),
        ("pool", "2021-03-01", "2021-05-01", {"adminState"}),
    ],
)
def test_properties_appear_with_their_version(
    kind: str, old: str, new: str, expected: set[str]
) -> None:
    """A property is shown from its first version on."""
    client = build()
    client.world.scheduled_events_policy = {"userInitiatedReboot": {"automaticallyApprove": True}}
    client.world.set_admin_state(client.world.pool_id("app"), "web-1", "Up")
    path = paths(client)[kind]
    before, after = (client("GET", f"{path}?api-version={version}") for version in (old, new))
    assert expected <= names(json.loads(after.body))
    assert not expected & names(json.loads(before.body))
    assert ("ETag" in before.headers) is ("etag" in names(json.loads(before.body)))


def test_load_balancer_keeps_its_pools() -> None:
    """Only the list of pools in a rule is new; that of the load balancer is in every version."""
    client = build()
    path = paths(client)["load balancer"]
    body = client.get(f"{path}?api-version=2018-11-01")
    assert len(body["properties"]["backendAddressPools"]) == 1
    assert "backendAddressPools" not in body["properties"]["loadBalancingRules"][0]["properties"]


def test_settings_are_complete_by_default() -> None:
    """By default no version is missing."""
    assert not WorldSettings().newest_api_version
