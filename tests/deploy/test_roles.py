"""The role definitions in `deploy/roles`: a whole maintenance with them, and with nothing else.

Each role is assigned as `deploy/roles/README.md` describes. The NICs refer to everything that a NIC
can refer to, the IP-based pools name their addresses in both ways there are.
"""

import asyncio
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from controller.doctor.roles import Role, role_for
from controller.simulator.app.agent_processes import CONTAINER
from controller.simulator.app.server import ACCOUNT
from controller.simulator.services.faults import Effect
from controller.simulator.services.http_values import Service
from controller.simulator.world.world import World
from tests.conftest import OpenSet
from tests.support.in_process_set import NEVER_S, InProcessSet
from tests.support.probed_vm import probed_vm

ROLES = Path(__file__).parents[2] / "deploy" / "roles"
VMS = ("web-1", "web-2", "web-3")
REFERENCES = {
    "publicIPAddress": "publicIPAddresses/web",
    "gatewayLoadBalancer": "loadBalancers/inspection/frontendIPConfigurations/front",
}
REFERENCE_LISTS = {
    "applicationSecurityGroups": "applicationSecurityGroups/web",
    "applicationGatewayBackendAddressPools": "applicationGateways/web/backendAddressPools/web",
    "virtualNetworkTaps": "virtualNetworkTaps/web",
}


def role(name: str) -> dict[str, Any]:
    """Return a role definition."""
    return dict(json.loads((ROLES / f"{name}.json").read_text()))


def assign(world: World, name: str, scope: str) -> set[str]:
    """Assign a role to all VMs; return what is in it, case folded."""
    found = role(name)
    actions, data_actions = set(found["Actions"]), set(found["DataActions"])
    for vm in VMS:
        world.roles.assign(vm, actions, scope, data_actions=data_actions)
    return {action.casefold() for action in actions | data_actions}


def as_documented(world: World, pool_role: str) -> set[str]:
    """Assign exactly the roles in `deploy/roles/README.md`; return all their actions."""
    for vm in VMS:
        del world.roles.assignments[vm]
    subscription = f"/subscriptions/{world.subscription}"
    return (
        assign(world, pool_role, f"{subscription}/resourceGroups/{world.resource_group}")
        | assign(world, pool_role, f"{subscription}/resourceGroups/{world.network_group}")
        | assign(world, "operations", subscription)
        | assign(world, "ledger", world.blob_scope(f"/{ACCOUNT}/{CONTAINER}"))
    )


def refer_to_everything(world: World) -> None:
    """Let every NIC refer to everything it can, and one IP-based pool to subnets."""
    network = (
        f"/subscriptions/{world.subscription}/resourceGroups/{world.network_group}"
        "/providers/Microsoft.Network"
    )
    for nic in world.nics.values():
        properties = nic["properties"]["ipConfigurations"][0]["properties"]
        subnet = properties["subnet"]
        for name, target in REFERENCES.items():
            properties[name] = {"id": f"{network}/{target}"}
        for name, target in REFERENCE_LISTS.items():
            properties[name] = [{"id": f"{network}/{target}"}]
    for pool_id in world.pool_ids():
        pool = world.find_pool(pool_id)
        if pool is not None and pool["name"] == "search":
            for entry in pool["properties"]["loadBalancerBackendAddresses"]:
                del entry["properties"]["virtualNetwork"]
                entry["properties"]["subnet"] = subnet


async def maintain(bench: InProcessSet, vm: str) -> None:
    """Let a VM be drained, maintained and put back into every pool it was in."""
    before = bench.inside(vm)
    event_id = await bench.announce(vm)
    await bench.until(f"{vm} out", lambda: not bench.inside(vm))
    gone = bench.world.changes
    await bench.until(
        f"maintenance of {vm} over",
        lambda: event_id in [change.subject for change in gone("event_gone")],
    )
    await bench.until(f"{vm} back", lambda: bench.inside(vm) == before)
    await bench.until("all done", lambda: not bench.ledger()["entries"])


@pytest.mark.parametrize("sees_health", [False, True])
@pytest.mark.parametrize(
    ("pool_role", "pools", "ip_pools"),
    [("nic-pools", ("app", "admin"), ()), ("ip-pools", (), ("cache", "search"))],
)
async def test_a_role_is_exactly_sufficient(
    open_set: OpenSet,
    pool_role: str,
    pools: tuple[str, ...],
    ip_pools: tuple[str, ...],
    *,
    sees_health: bool,
) -> None:
    """From first start to last restore nothing else is refused, and every action is used."""
    async with open_set(pools=pools, ip_pools=ip_pools, network_group="net-rg") as bench:
        refer_to_everything(bench.world)
        bench.world.settings.rule_health_latency_s = 0.1
        assigned = as_documented(bench.world, pool_role)
        optional = {role("rule-health")["Actions"][0].casefold()}
        if sees_health:
            scope = f"/subscriptions/{bench.world.subscription}"
            assigned |= assign(bench.world, "rule-health", scope)
            optional = set()
        await bench.lead("web-1")
        await maintain(bench, "web-2")
        if sees_health:
            followed = "microsoft.network/locations/operationresults/read"
            granted = bench.world.roles.granted
            await bench.until("its answer is read", lambda: ("web-1", followed) in granted)
        await bench.stand_by("web-2")
        await maintain(bench, "web-1")
        assert bench.ledger()["leader"] == "web-2"
        roles = bench.world.roles
        assert {action for _, action in roles.refused} == optional
        assert {action for _, action in roles.granted} == assigned
        assert bench.reported() == []


async def test_the_role_for_acknowledgement_is_exactly_sufficient(open_set: OpenSet) -> None:
    """With it the agents acknowledge through Resource Manager, and need nothing else for it."""
    both = {"events": {"acknowledge_through": "imds-then-arm"}}
    async with open_set(pools=("app",), network_group="net-rg") as bench:
        as_documented(bench.world, "nic-pools")
        before = bench.world.roles.granted.copy()
        group = f"/subscriptions/{bench.world.subscription}/resourceGroups"
        added = assign(bench.world, "acknowledgement", f"{group}/{bench.world.resource_group}")
        bench.fault(
            Service.IMDS, Effect.REPLY, method="POST", path_contains="scheduledevents", status=500
        )
        await bench.lead("web-1", overrides=both)
        await maintain(bench, "web-2")
        roles = bench.world.roles
        assert {each.detail["by"] for each in bench.world.changes("event_acknowledged")} == {
            "web-1"
        }
        assert added < {action for _, action in roles.granted - before}
        optional = {role("rule-health")["Actions"][0].casefold()}
        assert {action for _, action in roles.refused} == optional


@pytest.mark.parametrize("reads_policy", [False, True])
async def test_the_roles_are_sufficient_in_a_scale_set(
    open_set: OpenSet, *, reads_policy: bool
) -> None:
    """A flexible scale set needs no more than an availability set; its own role is optional."""
    async with open_set(network_group="net-rg", flexible=True) as bench:
        world = bench.world
        assigned = as_documented(world, "nic-pools")
        policy = {action.casefold() for action in role("scale-sets")["Actions"]}
        health = {role("rule-health")["Actions"][0].casefold()}
        if reads_policy:
            scope = f"/subscriptions/{world.subscription}/resourceGroups/{world.resource_group}"
            assigned |= assign(world, "scale-sets", scope)
        await bench.lead("web-1")
        await maintain(bench, "web-2")
        refused = {action for _, action in world.roles.refused}
        assert refused == (health if reads_policy else health | policy)
        granted = {action for _, action in world.roles.granted}
        assert granted <= assigned
        assert (policy <= granted) == reads_policy
        assert bench.reported() == []


async def test_the_role_for_maintenance_is_exactly_sufficient(open_set: OpenSet) -> None:
    """With this role and the ledger's, operators start planned maintenance; agents cannot."""
    async with open_set(network_group="net-rg") as bench:
        world = bench.world
        await bench.lead("web-1")
        del world.roles.assignments["web-3"]
        group = f"/subscriptions/{world.subscription}/resourceGroups/{world.resource_group}"
        container = world.blob_scope(f"/{ACCOUNT}/{CONTAINER}")
        assigned: set[str] = set()
        for name, scope in (("maintenance", group), ("ledger", container)):
            found = role(name)
            actions, data_actions = set(found["Actions"]), set(found["DataActions"])
            world.roles.assign("web-3", actions, scope, data_actions=data_actions)
            assigned |= {action.casefold() for action in actions | data_actions}
        world.maintenance.plan("web-2", down_s=0.3)
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "controller", "maintenance", "start", "--all"),
            *("--config", str(bench.config("web-3"))),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await command.communicate()
        assert command.returncode == 0, output
        asked = world.roles
        assert {action for who, action in asked.refused if who == "web-3"} == set()
        assert {action for who, action in asked.granted if who == "web-3"} == assigned
        agents = {action for who, action in asked.granted if who == "web-1"}
        assert "microsoft.compute/virtualmachines/performmaintenance/action" not in agents
        assert world.changes("maintenance_ended")[0].subject == "web-2"


@pytest.mark.parametrize("path", sorted(ROLES.glob("*.json")), ids=lambda path: path.stem)
def test_a_role_has_the_format_of_the_command_line(path: Path) -> None:
    """A definition has every required part, no wildcard, and no duplicate."""
    found = role(path.stem)
    assert list(found) == [
        "Name",
        "IsCustom",
        "Description",
        "Actions",
        "NotActions",
        "DataActions",
        "NotDataActions",
        "AssignableScopes",
    ]
    actions = found["Actions"] + found["DataActions"]
    assert actions
    assert not [action for action in actions if "*" in action]
    assert len({action.casefold() for action in actions}) == len(actions)
    assert found["NotActions"] == found["NotDataActions"] == []
    assert found["AssignableScopes"] == ["/subscriptions/{subscription}"]


@pytest.mark.parametrize("sees_health", [False, True])
@pytest.mark.parametrize(("pools", "ip_pools"), [(("app", "admin"), ()), ((), ("cache",))])
async def test_readers_are_exactly_sufficient_to_close(
    open_set: OpenSet, pools: tuple[str, ...], ip_pools: tuple[str, ...], *, sees_health: bool
) -> None:
    """With `mechanism = "probe"` nothing is written: from first start to the VM that opens."""
    async with (
        open_set(pools=pools, ip_pools=ip_pools, network_group="net-rg") as bench,
        probed_vm(bench, "web-2") as vm,
    ):
        world = bench.world
        world.settings.rule_health_latency_s = 0.1
        for name in VMS:
            del world.roles.assignments[name]
        subscription = f"/subscriptions/{world.subscription}"
        assigned = (
            assign(world, "readers", f"{subscription}/resourceGroups/{world.resource_group}")
            | assign(world, "readers", f"{subscription}/resourceGroups/{world.network_group}")
            | assign(world, "ledger", world.blob_scope(f"/{ACCOUNT}/{CONTAINER}"))
        )
        optional = {role("rule-health")["Actions"][0].casefold()}
        if sees_health:
            assigned |= assign(world, "rule-health", subscription)
            optional = set()
        await bench.lead("web-1", overrides=vm.overrides())
        await bench.stand_by("web-2", overrides=vm.overrides())
        event_id = await bench.announce("web-2", started_s=NEVER_S)
        acknowledged = partial(world.changes, "event_acknowledged")
        await vm.until("acknowledged", acknowledged)
        if sees_health:
            followed = "microsoft.network/locations/operationresults/read"
            await bench.until("health is read", lambda: ("web-1", followed) in world.roles.granted)
        world.events.complete(event_id)
        await bench.server.notify()
        await bench.until("all done", lambda: not bench.ledger()["entries"])
        assert not vm.flag.exists()
        assert bench.writes() == []
        assert {action for _, action in world.roles.refused} == optional
        assert {action for _, action in world.roles.granted} == assigned
        assert bench.reported() == []


async def test_the_role_for_admin_state_is_exactly_sufficient(open_set: OpenSet) -> None:
    """With `mechanism = "admin-state"` NIC-based pools are written, and no NIC is."""
    async with open_set(pools=("app", "admin"), network_group="net-rg") as bench:
        world = bench.world
        world.settings.nic_pool_admin_state = True
        refer_to_everything(world)
        for name in VMS:
            del world.roles.assignments[name]
        subscription = f"/subscriptions/{world.subscription}"
        assigned = (
            assign(world, "admin-state", f"{subscription}/resourceGroups/{world.resource_group}")
            | assign(world, "admin-state", f"{subscription}/resourceGroups/{world.network_group}")
            | assign(world, "operations", subscription)
            | assign(world, "ledger", world.blob_scope(f"/{ACCOUNT}/{CONTAINER}"))
        )
        optional = {role("rule-health")["Actions"][0].casefold()}
        chosen = {"policy": {"mechanism": "admin-state"}}
        await bench.lead("web-1", overrides=chosen)
        await maintain(bench, "web-2")
        assert {action for _, action in world.roles.refused} == optional
        assert {action for _, action in world.roles.granted} == assigned
        assert not [each for each in bench.writes() if "networkInterfaces" in each.subject]
        assert bench.reported() == []


def test_the_doctor_names_the_role_for_admin_state() -> None:
    """Where only adminState is written, its role contains what may be missing."""
    for action in role("admin-state")["Actions"]:
        named = role_for(action, has_only_ip_pools=False, close_only=False, admin_state=True)
        assert named is Role.ADMIN_STATE
        addresses = role_for(action, has_only_ip_pools=True, close_only=False, admin_state=True)
        assert action in role(addresses.value)["Actions"]


@pytest.mark.parametrize("close_only", [True, False])
@pytest.mark.parametrize("has_only_ip_pools", [True, False])
@pytest.mark.parametrize(
    "name", ["nic-pools", "ip-pools", "operations", "ledger", "acknowledgement"]
)
def test_the_doctor_names_a_role_that_contains_the_action(
    name: str, has_only_ip_pools: bool, close_only: bool
) -> None:
    """For each action of a role the doctor names a role that contains the action."""
    for action in role(name)["Actions"] + role(name)["DataActions"]:
        named = role_for(action, has_only_ip_pools=has_only_ip_pools, close_only=close_only)
        definition = role(named.value)
        assert action in definition["Actions"] + definition["DataActions"]
        assert definition["Name"] == f"{named.label} {{subscription}}"
    both = set(role("nic-pools")["Actions"]) & set(role("ip-pools")["Actions"])
    readers = set(role("readers")["Actions"])
    assert readers < both
    for each in both:
        expected = Role.IP_POOLS if has_only_ip_pools else Role.NIC_POOLS
        expected = Role.READERS if close_only and each in readers else expected
        assert (
            role_for(each, has_only_ip_pools=has_only_ip_pools, close_only=close_only) is expected
        )
