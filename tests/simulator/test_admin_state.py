"""adminState on both kinds of pools, and the health of a rule, as Microsoft documents them."""

import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from controller.simulator.services.http_values import Reply
from controller.simulator.world.access import RULE_HEALTH
from tests.simulator.test_arm import NOW, Arm, build, code, nic_id, remove


def pool_with(client: Arm, name: str, states: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """Return the path and body of a pool whose members at these positions have these states."""
    path = client.world.pool_id(name)
    pool = client.get(path)
    entries = pool["properties"]["loadBalancerBackendAddresses"]
    for entry in entries:
        for vm, state in states.items():
            if vm in entry["name"]:
                entry["properties"]["adminState"] = state
    return path, pool


def states_of(client: Arm, name: str) -> dict[str, Any]:
    entries = client.get(client.world.pool_id(name))["properties"]["loadBalancerBackendAddresses"]
    return {
        vm.name: entry["properties"].get("adminState")
        for entry in entries
        for vm in client.world.peers()
        if vm.name in entry["name"]
    }


@pytest.mark.parametrize("name", ["app", "api"])
def test_states_are_written_in_any_case(name: str) -> None:
    """Both kinds of pools take Down, UP and none, and answer them as Azure spells them."""
    client = build(ip_pools=("api",), settings={"nic_pool_admin_state": True})
    path, pool = pool_with(client, name, {"web-1": "DOWN", "web-2": "up", "web-3": "none"})
    assert client("PUT", path, pool).status == 200
    client.world.advance(NOW + 60)
    assert states_of(client, name) == {"web-1": "Down", "web-2": "Up", "web-3": "None"}
    assert set(client.world.rotation(path)) == {"web-2", "web-3"}
    assert client.world.held_down(path) == ("web-1",)
    assert client.world.held_up(path) == ("web-2",)
    path, pool = pool_with(client, name, {"web-1": "Sideways"})
    assert client("PUT", path, pool).status == 400


def test_nic_pool_refuses_by_default() -> None:
    """Without the knob a NIC-based pool refuses adminState as it refuses any other write."""
    client = build()
    reply = client("PUT", *pool_with(client, "app", {"web-1": "Down"}))
    assert (reply.status, code(reply)) == (400, "ModificationOfNICIpConfigBackendPoolNotSupported")


def test_a_later_write_replaces_an_earlier_one_that_is_under_way() -> None:
    """The list of the later write counts; the earlier one never takes effect by itself."""
    client = build(settings={"nic_pool_admin_state": True})
    client("PUT", *pool_with(client, "app", {"web-1": "Down"}))
    path, pool = pool_with(client, "app", {"web-1": "None", "web-2": "Down"})
    assert client("PUT", path, pool).status == 200
    client.world.advance(NOW + 60)
    moved = [each.detail["vm"] for each in client.world.changes("member_state")]
    assert (moved, client.world.held_down(path)) == (["web-2"], ("web-2",))


def test_incomplete_list_evicts() -> None:
    """A PUT of a NIC-based pool that leaves a member out takes its NIC out of the pool."""
    client = build(settings={"nic_pool_admin_state": True})
    path, pool = pool_with(client, "app", {"web-1": "Down"})
    entries = pool["properties"]["loadBalancerBackendAddresses"]
    pool["properties"]["loadBalancerBackendAddresses"] = [
        entry for entry in entries if "web-1" in entry["name"]
    ]
    assert client("PUT", path, pool).status == 200
    client.world.advance(NOW + 60)
    assert [member.vm for member in client.world.members(path)] == ["web-1"]
    assert client.world.rotation(path) == ()


def test_pool_writes_keep_to_members() -> None:
    """A PUT of a NIC-based pool adds no member, and takes no address."""
    client = build(ip_pools=("api",), settings={"nic_pool_admin_state": True})
    path, pool = pool_with(client, "app", {})
    [first, *_] = pool["properties"]["loadBalancerBackendAddresses"]
    reference = first["properties"]["networkInterfaceIPConfiguration"]
    reference["id"] = reference["id"].replace("ipconfig1", "ipconfig9")
    assert code(client("PUT", path, pool)) == "ModificationOfNICIpConfigBackendPoolNotSupported"
    assert code(client("PUT", path, client.get(client.world.pool_id("api")))).startswith("Cannot")


@pytest.mark.parametrize("name", ["app", "api"])
def test_operator_sets_a_state(name: str) -> None:
    """An operator's state is in force at once, in the GET, the data plane and the history."""
    client = build(ip_pools=("api",))
    path = client.world.pool_id(name)
    client.world.set_admin_state(path, "web-2", "Down")
    assert client.world.rotation(path) == ("web-1", "web-3")
    assert states_of(client, name)["web-2"] == "Down"
    assert len(client.world.members(path)) == 3
    client.world.set_admin_state(path, "web-2", "None")
    assert set(client.world.rotation(path)) == {"web-1", "web-2", "web-3"}


def test_new_member_has_no_state() -> None:
    """A member that leaves a pool and joins it again follows the probe."""
    client = build()
    path = client.world.pool_id("app")
    client.world.set_admin_state(path, "web-2", "Down")
    client.world.remove_membership(path, "web-2-nic")
    client.world.add_membership(path, "web-2-nic")
    assert "web-2" in client.world.rotation(path)
    assert states_of(client, "app")["web-2"] is None


def test_an_admin_state_moves_no_member_that_is_being_written() -> None:
    """The write of a NIC can still fail, and its member never left."""
    client = build()
    path = client.world.pool_id("app")
    client.world.writes.plan(nic_id(client), "failed")
    remove(client)
    client.world.set_admin_state(path, "web-2", "Up")
    assert client.world.changes("member_out") == []
    client.world.advance(NOW + 60)
    assert "web-1" in client.world.rotation(path)


def test_no_effect_without_a_probe() -> None:
    """Down takes nothing out of rotation when the rule of the pool has no probe."""
    client = build()
    path = client.world.pool_id("app")
    for rule in client.world.load_balancer_of(path)["properties"]["loadBalancingRules"]:  # type: ignore[index]
        del rule["properties"]["probe"]
    client.world.set_admin_state(path, "web-2", "Down")
    assert len(client.world.rotation(path)) == 3


# The health of a rule


def rule_path(client: Arm, name: str = "app") -> str:
    load_balancer = client.world.pool_id(name).rpartition("/backendAddressPools")[0]
    return f"{load_balancer}/loadBalancingRules/{name}-rule/health"


def permit(client: Arm) -> None:
    client.world.roles.assign("web-1", RULE_HEALTH, f"/subscriptions/{client.world.subscription}")


def follow(client: Arm, reply: Reply) -> Reply:
    url = urlsplit(reply.headers["Location"])
    return client("GET", f"{url.path}?{url.query}")


def health_of(client: Arm, name: str = "app") -> dict[str, Any]:
    reply = client("POST", rule_path(client, name))
    assert (reply.status, reply.body) == (202, b"")
    assert follow(client, reply).status == 202
    client.world.advance(client.world.now + 10)
    body: dict[str, Any] = json.loads(follow(client, reply).body)
    return body


def test_health_needs_its_own_permission() -> None:
    """The default role does not read the health of a rule."""
    client = build()
    reply = client("POST", rule_path(client))
    assert (reply.status, code(reply)) == (403, "AuthorizationFailed")
    assert b"loadBalancers/loadBalancingRules/health/action" in reply.body


@pytest.mark.parametrize("name", ["app", "api"])
def test_health_lists_every_member(name: str) -> None:
    """The result counts members up and down, and gives the address, state and reason of each."""
    client = build(vms=5, ip_pools=("api",))
    permit(client)
    world, path = client.world, client.world.pool_id(name)
    world.set_vm_state("web-2", "rebooting")
    world.failing_probes.add("web-3")
    world.set_admin_state(path, "web-4", "Down")
    world.set_admin_state(path, "web-5", "Up")
    body = health_of(client, name)
    assert (body["up"], body["down"]) == (2, 3)
    owners = world.address_owners()
    reasons = {
        owners[entry["ipAddress"]]: (entry["state"], entry["reason"])
        for entry in body["loadBalancerBackendAddresses"]
    }
    assert reasons == {
        "web-1": ("Up", "Up_Probe_Success"),
        "web-2": ("Down", "Down_Probe_TcpProbeTimeout"),
        "web-3": ("Down", "Down_Probe_HttpStatusCodeError"),
        "web-4": ("Down", "Down_Admin"),
        "web-5": ("Up", "Up_Admin"),
    }
    by_nic = [
        "networkInterfaceIPConfigurationId" in e for e in body["loadBalancerBackendAddresses"]
    ]
    assert by_nic == [name == "app"] * 5


def test_health_when_all_members_are_down() -> None:
    """A probe that puts all members up when none answers says so in the reason."""
    client = build()
    permit(client)
    load_balancer = client.world.load_balancer_of(client.world.pool_id("app"))
    assert load_balancer is not None
    client.world.failing_probes.update({"web-1", "web-2", "web-3"})
    assert health_of(client)["down"] == 3
    probe = load_balancer["properties"]["probes"][0]["properties"]
    probe["noHealthyBackendsBehavior"] = "AllProbedUp"
    body = health_of(client)
    assert body["up"] == 3
    reasons = {entry["reason"] for entry in body["loadBalancerBackendAddresses"]}
    assert reasons == {"Up_Probe_AllDownIsUp"}


def test_health_of_nothing() -> None:
    """A rule or result that does not exist is 404."""
    client = build()
    permit(client)
    assert client("POST", rule_path(client).replace("app-rule", "none")).status == 404
    assert client("POST", rule_path(client).replace("web-lb", "none")).status == 404
    reply = client("POST", rule_path(client))
    reply = Reply(status=202, headers={"Location": reply.headers["Location"].replace("?", "0?")})
    assert follow(client, reply).status == 404
