"""The role definitions in `deploy/roles`: a whole maintenance with them, and with nothing else.

Each role is assigned where `deploy/roles/README.md` says. The NICs refer to everything that a NIC
can refer to, the IP-based pools name their addresses in both ways there are.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from controller.simulator.fleet import CONTAINER
from controller.simulator.server import ACCOUNT
from controller.simulator.world import World

from .conftest import OpenBench
from .in_process import Bench

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
    """Assign what `deploy/roles/README.md` says and nothing else; return all that is in it."""
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


async def maintain(bench: Bench, vm: str) -> None:
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


@pytest.mark.parametrize(
    ("pool_role", "pools", "ip_pools"),
    [("nic-pools", ("app", "admin"), ()), ("ip-pools", (), ("cache", "search"))],
)
async def test_a_role_is_exactly_sufficient(
    open_set: OpenBench, pool_role: str, pools: tuple[str, ...], ip_pools: tuple[str, ...]
) -> None:
    """From first start to last restore nothing is refused, and no action goes unused."""
    async with open_set(pools=pools, ip_pools=ip_pools, network_group="net-rg") as bench:
        refer_to_everything(bench.world)
        assigned = as_documented(bench.world, pool_role)
        await bench.lead("web-1")
        await maintain(bench, "web-2")
        bench.start("web-2")
        await bench.requests(1, "/lb-drain/", method="HEAD")
        await maintain(bench, "web-1")
        assert bench.ledger()["leader"] == "web-2"
        roles = bench.world.roles
        assert {action for _, action in roles.refused} == set()
        assert {action for _, action in roles.granted} == assigned
        assert bench.told() == []


async def test_the_role_for_maintenance_is_exactly_sufficient(open_set: OpenBench) -> None:
    """With it and the ledger's, people see and start planned maintenance; agents have neither."""
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
        world.plan_maintenance("web-2", down_s=0.3)
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "controller", "maintenance", "start", "--all"),
            *("--config", str(bench.config("web-3"))),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await command.communicate()
        assert command.returncode == 0, said
        asked = world.roles
        assert {action for who, action in asked.refused if who == "web-3"} == set()
        assert {action for who, action in asked.granted if who == "web-3"} == assigned
        agents = {action for who, action in asked.granted if who == "web-1"}
        assert "microsoft.compute/virtualmachines/performmaintenance/action" not in agents
        assert world.changes("maintenance_ended")[0].subject == "web-2"


@pytest.mark.parametrize("path", sorted(ROLES.glob("*.json")), ids=lambda path: path.stem)
def test_a_role_is_what_the_command_line_takes(path: Path) -> None:
    """A definition names every part that Azure asks for, no wildcard, and nothing twice."""
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
