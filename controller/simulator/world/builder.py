"""Builds a world: VMs with realistic NICs, load balancers and pools."""

from controller.simulator.world import bodies
from controller.simulator.world.access import BLOB_CONTRIBUTOR, LEAST_PRIVILEGE
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.vm import SimVm
from controller.simulator.world.world import World

AGE_S = 90 * 86_400.0
"""How long before the start of a world its VMs were created."""


class Builder:
    """Adds resources to a new world."""

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
            bodies.inbound_nat_rule(lb_id, f"ssh-{vm}", port=50_000 + order)
            for order, vm in enumerate(vms)
        ]
        bodies.stamp_load_balancer(load_balancer, load_balancer["etag"])
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
        """Add a VM and its NICs, each in all `pools`."""
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


def build_world(
    *,
    now: float,
    vms: int = 3,
    nics_per_vm: int = 1,
    settings: WorldSettings | None = None,
    seed: int = 0,
    pools: tuple[str, ...] = ("app",),
    ip_pools: tuple[str, ...] = (),
    ipv6: bool = False,
    foreign_vms: int = 0,
    resource_group: str = "web-rg",
    network_group: str | None = None,
    availability_set: str = "web",
    prefix: str = "web",
    subscription: str = "11111111-2222-4333-8444-555555555555",
    location: str = "westeurope",
    probe_threshold: int = 1,
    flexible: bool = False,
) -> World:
    """Return a world with VMs `web-1` to `web-N`, each in all pools.

    `pools` are NIC-based, on the public load balancer `web-lb`; with `ipv6` each gets a twin
    `<name>-v6`. `ip_pools` are IP-based, on the internal `web-internal`. `foreign_vms` (`other-1`)
    are members of the pools, but not of the set. `network_group`: a separate resource group for
    NICs and load balancers. `flexible`: the set is a flexible scale set of the same name.
    """
    world = World(
        now=now,
        settings=settings or WorldSettings(),
        seed=seed,
        subscription=subscription,
        location=location,
        resource_group=resource_group,
        network_group=network_group or resource_group,
        availability_set=availability_set,
    )
    builder = Builder(world, nics_per_vm=nics_per_vm, ipv6=ipv6)
    names = [f"{prefix}-{order}" for order in range(1, vms + 1)]
    foreign = [f"other-{order}" for order in range(1, foreign_vms + 1)]
    nic_pools = (*pools, *(f"{pool}-v6" for pool in pools if ipv6))
    builder.public_load_balancer(f"{prefix}-lb", nic_pools, names)
    for order, name in enumerate((*names, *foreign)):
        builder.add_vm(_new_vm(world, name, order, in_set=order < vms), order, pools)
    if ip_pools:
        builder.internal_load_balancer(f"{prefix}-internal", ip_pools)
    probes = [p for each in world.load_balancers.values() for p in each["properties"]["probes"]]
    for probe in probes:
        probe["properties"]["probeThreshold"] = probe_threshold
    for nic in list(world.nics.values()):
        world.apply_nic(nic["id"])
    for name in ip_pools:
        world.apply_pool(world.pool_id(name))
    for name in (*names, *foreign):
        scope = f"/subscriptions/{subscription}"
        world.roles.assign(name, LEAST_PRIVILEGE, scope, data_actions=BLOB_CONTRIBUTOR)
    if flexible:
        world.convert_set()
    world.history.clear()  # building is not part of it
    return world


def scale_out(world: World, name: str, order: int, pools: tuple[str, ...]) -> None:
    """Add a VM to the set and its NIC-based pools, as autoscale or an instance repair does."""
    vm = _new_vm(world, name, order, in_set=True)
    Builder(world, nics_per_vm=1, ipv6=False).add_vm(vm, order, pools)
    for nic_id in vm.nic_ids:
        world.apply_nic(nic_id)
    scope = f"/subscriptions/{world.subscription}"
    world.roles.assign(name, LEAST_PRIVILEGE, scope, data_actions=BLOB_CONTRIBUTOR)
    world.record("vm_up", vm.name)


def _new_vm(world: World, name: str, order: int, *, in_set: bool) -> SimVm:
    return SimVm(
        name=name,
        resource_id=bodies.resource_id(
            world.subscription, world.resource_group, "Microsoft.Compute/virtualMachines", name
        ),
        vm_id=bodies.guid(world.random),
        # Not the name: only the name appears in event documents.
        computer_name=f"host{order:04d}",
        nic_ids=[],
        in_set=in_set,
        fault_domain=order % 3,
        update_domain=order % 5,
        client_id=bodies.guid(world.random),
        created_at=world.now - AGE_S,
    )
