"""Edits by operators, past every API: they take effect at once."""

from collections.abc import Iterable, Mapping

from controller.simulator.world import bodies
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.dataplane import AdminState
from controller.simulator.world.network import Network, drop_pool


class OperatorEdits(Network):
    """What operators change in NICs and pools."""

    def add_membership(self, pool_id: str, nic_id: str, ip_configuration: str = "") -> None:
        """Put an ipConfiguration (default: the first) into a NIC-based pool, at once."""
        properties = self._configuration(nic_id, ip_configuration)["properties"]
        if key(pool_id) not in map(
            key, bodies.references(properties, "loadBalancerBackendAddressPools")
        ):
            properties.setdefault("loadBalancerBackendAddressPools", []).append({"id": pool_id})
        self._operator_wrote_nic(nic_id, f"added to {pool_id}")

    def remove_membership(self, pool_id: str, nic_id: str, ip_configuration: str = "") -> None:
        """Take an ipConfiguration (default: the first) out of a NIC-based pool, at once."""
        drop_pool(self._configuration(nic_id, ip_configuration)["properties"], pool_id)
        self._operator_wrote_nic(nic_id, f"removed from {pool_id}")

    def edit_tags(self, nic_id: str, tags: Mapping[str, str]) -> None:
        """Give a NIC other tags, and thereby another etag."""
        self.nic(nic_id)["tags"] = dict(tags)
        self._operator_wrote_nic(nic_id, "tags")

    def set_addresses(self, pool_id: str, addresses: Iterable[Json]) -> None:
        """Give an IP-based pool these member entries, at once."""
        pool = self._pool(pool_id)
        pool["properties"]["loadBalancerBackendAddresses"] = list(addresses)
        self.stamp_load_balancer(pool_id)
        self.record("operator", pool["id"], what="addresses")
        self.apply_pool(pool_id)

    def set_admin_state(self, pool_id: str, vm: str, state: AdminState) -> None:
        """Give the members of a VM (or a bare address) in a pool this adminState, at once."""
        pool = self._pool(pool_id)
        chosen = [m for m in self.members(pool_id) if key(m.label) == key(vm)]
        addresses = {member.address for member in chosen if not member.nic}
        for entry in pool["properties"]["loadBalancerBackendAddresses"]:
            if entry["properties"]["ipAddress"] in addresses:
                entry["properties"]["adminState"] = state
        for member in chosen:
            if member.nic:
                self.admin_states[key(pool_id), key(member.ip_configuration)] = state
        self.stamp_load_balancer(pool_id)
        self.record("operator", pool["id"], what=f"adminState of {vm}: {state}")
        self._edited_by_people = True
        self.apply_admin_states(pool_id)
        self.apply_pool(pool_id)
        self._edited_by_people = False

    def delete_pool(self, pool_id: str) -> None:
        """Delete a pool; its NICs lose the reference, as they do in Azure."""
        pool = self._pool(pool_id)
        properties = self.load_balancers[key(pool_id).rpartition("/backendaddresspools/")[0]][
            "properties"
        ]
        properties["backendAddressPools"].remove(pool)
        properties["loadBalancingRules"] = [
            rule
            for rule in properties["loadBalancingRules"]
            if key(rule["properties"]["backendAddressPool"]["id"]) != key(pool_id)
        ]
        for nic in self.nics.values():
            for entry in nic["properties"]["ipConfigurations"]:
                if drop_pool(entry["properties"], pool_id):
                    self.stamp_nic(nic, nic["properties"]["provisioningState"])
        for owner in sorted({member.nic for member in self.members(pool_id)}):
            self._program(pool_id, [], owner=owner)
        self.stamp_load_balancer(pool_id)
        self.record("operator", pool["id"], what="deleted")

    def fail_nic(self, nic_id: str) -> None:
        """Leave a NIC in provisioningState Failed: its load balancer refuses writes."""
        nic = self.nic(nic_id)
        self.stamp_nic(nic, "Failed")
        self.record("operator", nic["id"], what="failed")

    def _operator_wrote_nic(self, nic_id: str, what: str) -> None:
        nic = self.nic(nic_id)
        self.stamp_nic(nic, nic["properties"]["provisioningState"])
        self.record("operator", nic["id"], what=what)
        self.apply_nic(nic["id"])
