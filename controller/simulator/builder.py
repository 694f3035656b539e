"""Furnishes a new world: VMs with realistic NICs, load balancers, pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from controller.simulator import bodies
from controller.simulator.bodies import Json, key

if TYPE_CHECKING:
    from controller.simulator.world import SimVm, World


class Builder:
    """Adds resources to a world that nobody has called yet."""

    def __init__(self, world: World, *, nics_per_vm: int, ipv6: bool) -> None:
        self._world = world
        self._nics_per_vm = nics_per_vm
        self._ipv6 = ipv6

    def public_load_balancer(self, name: str, pools: tuple[str, ...], vms: list[str]) -> None:
        """Add a public load balancer with NIC-based pools and one inbound NAT rule per VM."""
        lb_id = self._id("Microsoft.Network/loadBalancers", name)
        frontend: Json = {
            "publicIPAddress": {"id": self._id("Microsoft.Network/publicIPAddresses", "web-ip")}
        }
        load_balancer = bodies.load_balancer_body(
            lb_id,
            source=self._world.random,
            location=self._world.location,
            frontend=frontend,
            pools=[bodies.pool_body(f"{lb_id}/backendAddressPools/{pool}") for pool in pools],
        )
        load_balancer["properties"]["inboundNatRules"] = [
            {"name": f"ssh-{vm}", "id": f"{lb_id}/inboundNatRules/ssh-{vm}"} for vm in vms
        ]
        self._world.load_balancers[key(lb_id)] = load_balancer

    def internal_load_balancer(self, name: str, pools: tuple[str, ...]) -> None:
        """Add an internal load balancer whose IP-based pools hold the first address of every VM."""
        lb_id = self._id("Microsoft.Network/loadBalancers", name)
        addresses = [(vm.name, self._first_address(vm)) for vm in self._world.vms.values()]
        frontend: Json = {"privateIPAddress": "10.0.255.250", "subnet": {"id": self.subnet}}
        self._world.load_balancers[key(lb_id)] = bodies.load_balancer_body(
            lb_id,
            source=self._world.random,
            location=self._world.location,
            frontend=frontend,
            pools=[
                bodies.pool_body(
                    f"{lb_id}/backendAddressPools/{pool}",
                    [bodies.address_entry(vm, address, self.network) for vm, address in addresses],
                )
                for pool in pools
            ],
        )

    def add_vm(self, vm: SimVm, order: int, pools: tuple[str, ...]) -> None:
        """Add a VM and its NICs, all of them in all `pools`."""
        self._world.vms[vm.name.casefold()] = vm
        for number in range(1, self._nics_per_vm + 1):
            name = f"{vm.name}-nic" if number == 1 else f"{vm.name}-nic{number}"
            nic = self._nic(vm, name, order=order, number=number, pools=pools)
            self._world.nics[key(nic["id"])] = nic
            vm.nic_ids.append(nic["id"])

    @property
    def network(self) -> str:
        """The id of the virtual network."""
        return self._id("Microsoft.Network/virtualNetworks", "web-vnet")

    @property
    def subnet(self) -> str:
        """The id of the subnet all NICs are in."""
        return f"{self.network}/subnets/default"

    def _nic(
        self, vm: SimVm, name: str, *, order: int, number: int, pools: tuple[str, ...]
    ) -> Json:
        nic_id = self._id("Microsoft.Network/networkInterfaces", name)
        host = order + 4
        configurations = [
            bodies.ip_configuration(
                nic_id,
                "ipconfig1",
                address=f"10.{host // 250}.{number - 1}.{host % 250}",
                subnet=self.subnet,
                pools=tuple(self._world.pool_id(pool) for pool in pools),
                primary=True,
            )
        ]
        if self._ipv6:
            configurations.append(
                bodies.ip_configuration(
                    nic_id,
                    "ipconfig-v6",
                    address=f"fd00::{number}:{host:x}",
                    subnet=self.subnet,
                    pools=tuple(self._world.pool_id(f"{pool}-v6") for pool in pools),
                    primary=False,
                )
            )
        self._add_nat_rule(vm, configurations[0], number)
        return bodies.nic_body(
            nic_id,
            source=self._world.random,
            location=self._world.location,
            configurations=configurations,
            vm_id=vm.resource_id,
            security_group=self._id("Microsoft.Network/networkSecurityGroups", "web-nsg"),
            accelerated=True,
            primary=number == 1,
        )

    def _add_nat_rule(self, vm: SimVm, configuration: Json, number: int) -> None:
        for load_balancer in self._world.load_balancers.values():
            for rule in load_balancer["properties"]["inboundNatRules"]:
                if number == 1 and rule["name"] == f"ssh-{vm.name}":
                    configuration["properties"]["loadBalancerInboundNatRules"] = [
                        {"id": rule["id"]}
                    ]

    def _first_address(self, vm: SimVm) -> str:
        nic = self._world.nic(vm.nic_ids[0])
        return str(nic["properties"]["ipConfigurations"][0]["properties"]["privateIPAddress"])

    def _id(self, kind: str, name: str) -> str:
        world = self._world
        return bodies.resource_id(world.subscription, world.network_group, kind, name)
