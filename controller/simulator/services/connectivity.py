"""Whether the packets of a VM reach a service: frozen, stopped and isolated VMs do not."""

from controller.simulator.services.http_values import Delivery, Service
from controller.simulator.world.access import OPERATOR
from controller.simulator.world.world import World


def connectivity(world: World, principal: str, service: Service) -> Delivery:
    """Return the fate of anything that `principal` sends to a service now."""
    if principal == OPERATOR:
        return Delivery.NORMAL
    vm = world.find_vm(principal)
    if vm is not None and vm.state == "frozen":
        return Delivery.HANG
    if vm is None or vm.state != "running":
        return Delivery.RESET
    if service is not Service.IMDS and world.settings.outbound_needs_public_pool:
        return Delivery.NORMAL if _in_public_pool(world, vm.name) else Delivery.HANG
    return Delivery.NORMAL


def _in_public_pool(world: World, vm: str) -> bool:
    return any(
        member.vm == vm
        for load_balancer in world.load_balancers.values()
        for pool in load_balancer["properties"]["backendAddressPools"]
        for member in world.members(pool["id"])
        if "publicIPAddress"
        in load_balancer["properties"]["frontendIPConfigurations"][0]["properties"]
    )
