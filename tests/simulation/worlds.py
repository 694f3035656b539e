"""Makes the simulated Azure of a scenario: the set, and how its resources are spread."""

import copy
from typing import TYPE_CHECKING, Any

from controller.simulator.app.agent_processes import CONTAINER
from controller.simulator.app.server import ACCOUNT
from controller.simulator.world import bodies
from controller.simulator.world.access import ACKNOWLEDGE, BLOB_CONTRIBUTOR, LEAST_PRIVILEGE
from controller.simulator.world.builder import AGE_S, Builder, build_world
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.vm import SimVm
from controller.simulator.world.world import World
from tests.simulation.scenario import Scenario, SecondSet

if TYPE_CHECKING:
    from controller.simulator.world.bodies import Json

SECOND_BALANCER = "web-lb-2"
PUBLISHING = {
    "scheduledEventsAdditionalPublishingTargets": {"eventGridAndResourceGraph": {"enable": True}}
}
"""The `scheduledEventsPolicy` of a set that sends its events to Resource Graph."""


def world_of(scenario: Scenario, now: float) -> World:
    """Return the world in which a scenario begins, at `now` in epoch seconds."""
    settings: Any = dict(scenario.settings)
    shape = scenario.shape
    world = build_world(
        now=now,
        vms=scenario.vms,
        nics_per_vm=scenario.nics_per_vm,
        settings=WorldSettings(**settings),
        seed=scenario.seed,
        pools=tuple(pool for pool in scenario.pools if pool not in shape.moved_pools),
        ip_pools=scenario.ip_pools,
        ipv6=scenario.ipv6,
        foreign_vms=scenario.foreign_vms,
        network_group=shape.network_group or None,
        flexible=scenario.flexible,
    )
    if scenario.second_set is not None:
        _add_second_set(world, scenario, scenario.second_set)
    _add_second_balancer(world, scenario)
    _add_configurations(world, scenario)
    for vm, pool in shape.outside:
        _leave(world, vm, pool)
    for order, peer in enumerate(world.peers()):
        peer.placement_group = order % scenario.placement_groups
    if scenario.publishes:
        world.scheduled_events_policy = copy.deepcopy(PUBLISHING)
    for vm in world.vms if scenario.may_acknowledge else ():
        world.roles.assign(vm, ACKNOWLEDGE, f"/subscriptions/{world.subscription}")
    world.history.clear()  # building is not part of the history
    return world


def ledger_path(set_id: str) -> str:
    """Return the path of the ledger of an availability set."""
    parts = set_id.strip("/").split("/")
    return f"/{ACCOUNT}/{CONTAINER}/{parts[1]}/{parts[3]}/{parts[-1]}.json"


def sets_of(world: World) -> dict[str, tuple[str, ...]]:
    """Return the names of the VMs of each availability set with agents, by its ledger."""
    found = {ledger_path(world.availability_set_id): tuple(vm.name for vm in world.peers())}
    for vm in world.vms.values():
        if vm.other_set_id:
            path = ledger_path(vm.other_set_id)
            found[path] = (*found.get(path, ()), vm.name)
    return found


def _add_second_set(world: World, scenario: Scenario, second: SecondSet) -> None:
    """Add VMs of another availability set to all pools."""
    if second.resource_group not in world.resource_groups:
        world.resource_groups.append(second.resource_group)
    compute = (world.subscription, second.resource_group, "Microsoft.Compute")
    builder = Builder(world, nics_per_vm=scenario.nics_per_vm, ipv6=scenario.ipv6)
    pools = tuple(pool for pool in scenario.pools if pool not in scenario.shape.moved_pools)
    for number in range(1, second.vms + 1):
        name, order = f"shop-{number}", len(world.vms)
        vm = SimVm(
            name=name,
            resource_id=_compute_id(*compute, "virtualMachines", name),
            vm_id=bodies.guid(world.random),
            computer_name=f"host{order:04d}",
            nic_ids=[],
            in_set=False,
            other_set_id=_compute_id(*compute, "availabilitySets", second.name),
            fault_domain=order % 3,
            update_domain=order % 5,
            client_id=bodies.guid(world.random),
            created_at=world.now - AGE_S,
        )
        builder.add_vm(vm, order, pools)
        for nic_id in vm.nic_ids:
            world.apply_nic(nic_id)
        _add_addresses(world, scenario, vm, builder.network)
        scope = f"/subscriptions/{world.subscription}"
        world.roles.assign(name, LEAST_PRIVILEGE, scope, data_actions=BLOB_CONTRIBUTOR)


def _compute_id(subscription: str, group: str, provider: str, kind: str, name: str) -> str:
    return bodies.resource_id(subscription, group, f"{provider}/{kind}", name)


def _add_addresses(world: World, scenario: Scenario, vm: SimVm, network: str) -> None:
    first = world.nic(vm.nic_ids[0])["properties"]["ipConfigurations"][0]["properties"]
    for name in scenario.ip_pools:
        body = world.find_pool(world.pool_id(name))
        if body is not None:
            entry = bodies.address_entry(vm.name, str(first["privateIPAddress"]), network)
            entries = body["properties"]["loadBalancerBackendAddresses"]
            world.set_addresses(body["id"], [*copy.deepcopy(entries), entry])


def _add_second_balancer(world: World, scenario: Scenario) -> None:
    shape = scenario.shape
    if not shape.moved_pools:
        return
    first_group = world.network_group
    world.network_group = shape.balancer_group or first_group
    if world.network_group not in world.resource_groups:
        world.resource_groups.append(world.network_group)
    builder = Builder(world, nics_per_vm=1, ipv6=False)
    builder.public_load_balancer(SECOND_BALANCER, shape.moved_pools, [])
    world.network_group = first_group
    for pool in shape.moved_pools:
        for nic in list(world.nics.values()):
            world.add_membership(world.pool_id(pool), nic["id"])


def _add_configurations(world: World, scenario: Scenario) -> None:
    """Give first NICs further ipConfigurations, in the pools of the first one."""
    for order, vm in enumerate(world.vms.values()):
        nic = world.nic(vm.nic_ids[0])
        configurations: list[Json] = nic["properties"]["ipConfigurations"]
        for number in range(1, scenario.shape.more_configurations + 1):
            first = configurations[0]["properties"]
            added = bodies.ip_configuration(
                nic["id"],
                f"ipconfig{number + 1}",
                address=f"10.{100 + number}.{order // 250}.{order % 250 + 4}",
                subnet=str(first["subnet"]["id"]),
                pools=tuple(bodies.references(first, "loadBalancerBackendAddressPools")),
                primary=False,
            )
            added["etag"] = nic["etag"]
            configurations.append(added)
        world.apply_nic(nic["id"])


def _leave(world: World, vm: str, pool: str) -> None:
    """Take a VM out of one pool, whichever kind that is."""
    pool_id = world.pool_id(pool)
    nics = world.vm(vm).nic_ids
    for nic_id in nics:
        for configuration in world.nic(nic_id)["properties"]["ipConfigurations"]:
            world.remove_membership(pool_id, nic_id, configuration["name"])
    first = world.nic(nics[0])["properties"]["ipConfigurations"][0]
    address = first["properties"]["privateIPAddress"]
    body = world.find_pool(pool_id)
    entries = body["properties"]["loadBalancerBackendAddresses"] if body is not None else []
    kept = [each for each in entries if each["properties"]["ipAddress"] != address]
    if len(kept) < len(entries):
        world.set_addresses(pool_id, copy.deepcopy(kept))
