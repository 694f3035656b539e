"""Resources that are created again under their old names, and the conversion of the set.

A name is not an identity: a resource created again has the id of the old one, but another `vmId`,
`resourceGuid` or etag. All of this happens past every API and at once, as an operator's template
does it between two reads of an agent.
"""

from dataclasses import replace
from typing import Literal

from controller.simulator.world import bodies
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.vm_states import VmStates

Members = Literal["none", "same"]
"""Whether a pool that is created again starts empty, or with the members that it had."""


class Replacements(VmStates):
    """What operators replace."""

    subscription: str
    resource_group: str
    availability_set_id: str
    """Id of the set, which is also its id after the set was converted."""
    scale_set_id: str
    """Id of the scale set that the set is migrated to, or was converted to; "" if there is none."""
    reverted: bool
    """Whether the set was turned into an availability set again."""
    converted: bool
    """Whether the set was converted to a scale set, and so was deleted."""

    def recreate_vm(self, vm: str, *, nics: Literal["keep", "recreate"] = "keep") -> None:
        """Delete a VM and create it again under its name, with its NICs or with new ones.

        The new VM runs, has another vmId and another identity with the same roles, and is in the
        pools that its NICs refer to.
        """
        old = self.vm(vm)
        order = list(self.vms)
        self.delete_vm(vm, nics="detach")
        new = replace(
            old,
            vm_id=bodies.guid(self.random),
            client_id=bodies.guid(self.random),
            created_at=self.now,
            base_state="running",
            impacts={},
            maintenance=None,
            etag=1,
            imds_last_call=None,
        )
        self.vms[vm.casefold()] = new
        self.vms = {name: self.vms[name] for name in order}
        for nic_id in new.nic_ids:
            nic = self.nic(nic_id)
            nic["properties"]["virtualMachine"] = {"id": new.resource_id}
            if nics == "recreate":
                self._renew_nic(nic)
            self.stamp_nic(nic, "Succeeded")
            self.apply_nic(nic_id)
        self.record("operator", new.resource_id, what="created again")
        self.record("vm_up", new.name)

    def recreate_nic(
        self, nic_id: str, *, pools: tuple[str, ...] | None = None, address: str = ""
    ) -> None:
        """Delete a NIC and create it again under its name, on the same VM.

        Its first ipConfiguration refers to `pools` (default: those it had) and has `address`
        (default: the one it had).
        """
        nic = self.nic(nic_id)
        first: Json = nic["properties"]["ipConfigurations"][0]["properties"]
        self.leave_all_pools(nic["id"])
        self._renew_nic(nic)
        if pools is not None:
            first.pop("loadBalancerBackendAddressPools", None)
        if pools:
            first["loadBalancerBackendAddressPools"] = [{"id": pool} for pool in pools]
        if address:
            first["privateIPAddress"] = address
        self.stamp_nic(nic, "Succeeded")
        self.record("operator", nic["id"], what="created again")
        self.apply_nic(nic["id"])

    def recreate_pool(self, pool_id: str, *, members: Members = "none") -> None:
        """Delete a pool and create it again under its name, with its rules.

        Its NICs lose the reference when it is deleted, and the new pool has no addresses, unless
        `members` is `same`.
        """
        old = self._pool(pool_id)
        load_balancer = self.load_balancer_of(pool_id)
        if load_balancer is None:
            raise KeyError(pool_id)
        properties = load_balancer["properties"]
        order, rules = (
            properties["backendAddressPools"].index(old),
            properties["loadBalancingRules"],
        )
        held = [(member.nic, member.ip_configuration) for member in self.members(pool_id)]
        self.delete_pool(pool_id)
        new = bodies.pool_body(old["id"])
        for name in ("loadBalancingRules", "outboundRules"):
            if name in old["properties"]:
                new["properties"][name] = old["properties"][name]
        if members == "same":
            addresses = old["properties"]["loadBalancerBackendAddresses"]
            new["properties"]["loadBalancerBackendAddresses"] = addresses
        properties["backendAddressPools"].insert(order, new)
        properties["loadBalancingRules"] = rules
        self.stamp_load_balancer(pool_id)
        self.record("operator", new["id"], what="created again")
        if members == "same":
            for nic_id, configuration in held:
                if nic_id:
                    self.add_membership(pool_id, nic_id, bodies.last(configuration))
        if not any(nic_id for nic_id, _ in held):
            self.apply_pool(pool_id)

    def recreate_load_balancer(self, load_balancer_id: str, *, members: Members = "none") -> None:
        """Delete a load balancer and create it again under its name, with all its pools."""
        load_balancer = self.load_balancers[key(load_balancer_id)]
        for pool in list(load_balancer["properties"]["backendAddressPools"]):
            self.recreate_pool(pool["id"], members=members)
        load_balancer["properties"]["resourceGuid"] = bodies.guid(self.random)
        bodies.stamp_load_balancer(load_balancer, bodies.new_etag(self.random))
        self.record("operator", load_balancer["id"], what="created again")

    def recreate_set(self, *, nics: Literal["keep", "recreate"] = "keep") -> None:
        """Create the set and all its VMs again under their names.

        A VM joins its set at its creation only, so a new set needs new VMs.
        """
        for vm in self.peers():
            self.recreate_vm(vm.name, nics=nics)
        self.record("operator", self.availability_set_id, what="created again")

    def begin_migration(self, scale_set: str = "") -> None:
        """Name the flexible scale set that the set is migrated to; the set still exists.

        Its body then has `virtualMachineScaleSetMigrationInfo.migrateToVirtualMachineScaleSet`.
        """
        name = scale_set or bodies.last(self.availability_set_id)
        self.scale_set_id = bodies.resource_id(
            self.subscription,
            bodies.group_of(self.availability_set_id),
            "Microsoft.Compute/virtualMachineScaleSets",
            name,
        )
        self.record("operator", self.availability_set_id, what=f"migrates to {name}")

    def convert_set(self, scale_set: str = "") -> None:
        """Convert the set to a flexible scale set: the VMs run on in it, the set is deleted.

        (Microsoft docs, Convert API of availability sets, preview, 03/17/2026.) The scale set has
        the name of the set by default.
        """
        if not self.scale_set_id or scale_set:
            self.begin_migration(scale_set)
        self.converted = True
        for vm in self.peers():
            vm.etag += 1
        self.record("operator", self.availability_set_id, what="converted to a scale set")

    def revert_set(self) -> None:
        """Turn the scale set into the availability set again, with the same VMs.

        Azure has no call for that; a simulation asks more than Azure does.
        """
        self.scale_set_id, self.converted, self.reverted = "", False, True
        for vm in self.peers():
            vm.etag += 1
        self.record("operator", self.availability_set_id, what="turned into an availability set")

    def _renew_nic(self, nic: Json) -> None:
        """Give a NIC the properties that differ after it was created again."""
        nic["properties"]["resourceGuid"] = bodies.guid(self.random)
        nic["properties"]["macAddress"] = bodies.mac_address(self.random)
