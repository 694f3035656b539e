"""The resources of a simulated Azure as stored, and the record of what happened to them.

Bodies are what GETs answer. They are kept in Azure's spelling and found in any case.
"""

import random
from types import MappingProxyType

from controller.simulator.world import bodies
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.history import Change
from controller.simulator.world.scheduler import Scheduler
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.vm import SimVm


class Resources:
    """VMs, NICs and load balancers, found by id or name. The base of every world."""

    def __init__(
        self, *, scheduler: Scheduler, settings: WorldSettings, source: random.Random, location: str
    ) -> None:
        self.scheduler = scheduler
        self.settings = settings
        self.random = source
        self.location = location
        self.history: list[Change] = []
        self.vms: dict[str, SimVm] = {}
        self.nics: dict[str, Json] = {}
        self.load_balancers: dict[str, Json] = {}

    @property
    def now(self) -> float:
        """The present instant of this world, epoch seconds."""
        return self.scheduler.now

    def record(self, kind: str, subject: str, **detail: object) -> None:
        """Append to the history, at the present instant."""
        self.history.append(Change(self.now, kind, subject, MappingProxyType(detail)))

    def changes(self, *kinds: str) -> list[Change]:
        """Return the history, restricted to `kinds` if any are given."""
        return [change for change in self.history if not kinds or change.kind in kinds]

    def vm(self, name: str) -> SimVm:
        """Return the VM of that name, in any case; KeyError if there is none."""
        return self.vms[name.casefold()]

    def find_vm(self, name: str) -> SimVm | None:
        """Return the VM of that name, in any case."""
        return self.vms.get(name.casefold())

    def peers(self) -> tuple[SimVm, ...]:
        """Return the VMs of the availability set, deleted ones included."""
        return tuple(vm for vm in self.vms.values() if vm.in_set)

    def pool_ids(self) -> tuple[str, ...]:
        """Return the ids of all backend pools."""
        return tuple(
            pool["id"]
            for load_balancer in self.load_balancers.values()
            for pool in load_balancer["properties"]["backendAddressPools"]
        )

    def owner(self, nic_id: str) -> SimVm | None:
        """Return the VM a NIC is attached to."""
        nic = self.nics.get(key(nic_id))
        vm = nic["properties"].get("virtualMachine") if nic is not None else None
        return self.vms.get(bodies.last(vm["id"]).casefold()) if vm is not None else None

    def nic(self, nic_id: str) -> Json:
        """Return the stored body of a NIC, given its id or its bare name."""
        if "/" in nic_id:
            return self.nics[key(nic_id)]
        return next(nic for nic in self.nics.values() if key(nic["name"]) == key(nic_id))

    def load_balancer(self, name: str) -> Json:
        """Return the stored body of the first load balancer called `name`, which must exist."""
        return next(lb for lb in self.load_balancers.values() if key(lb["name"]) == key(name))

    def load_balancer_of(self, pool_id: str) -> Json | None:
        """Return the stored body of the load balancer that a pool id lies under, or names."""
        return self.load_balancers.get(key(pool_id).partition("/backendaddresspools/")[0])

    def find_pool(self, pool_id: str) -> Json | None:
        """Return the stored body of a pool."""
        load_balancer = self.load_balancer_of(pool_id)
        if load_balancer is None:
            return None
        pools: list[Json] = load_balancer["properties"]["backendAddressPools"]
        return next((pool for pool in pools if key(pool["id"]) == key(pool_id)), None)

    def pool_id(self, name: str) -> str:
        """Return the id of the first pool called `name`."""
        found = (
            str(pool["id"])
            for load_balancer in self.load_balancers.values()
            for pool in load_balancer["properties"]["backendAddressPools"]
            if key(pool["name"]) == key(name)
        )
        return next(found)

    def address_owners(self) -> dict[str, str]:
        """Return VM names by private address."""
        owners: dict[str, str] = {}
        for nic in self.nics.values():
            vm = self.owner(nic["id"])
            for entry in nic["properties"]["ipConfigurations"]:
                if vm is not None:
                    owners[entry["properties"]["privateIPAddress"]] = vm.name
        return owners

    def stamp_nic(self, nic: Json, state: str) -> None:
        """Give a NIC a new etag and this provisioningState."""
        bodies.stamp_nic(nic, bodies.new_etag(self.random), state)

    def stamp_load_balancer(self, pool_id: str) -> None:
        """Give the load balancer of a pool a new etag."""
        load_balancer = self.load_balancer_of(pool_id)
        if load_balancer is not None:
            bodies.stamp_load_balancer(load_balancer, bodies.new_etag(self.random))
