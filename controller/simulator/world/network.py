"""The simulated data plane: which VMs each pool sends new flows to.

The data plane follows a body when a write has taken effect, not when the body changes.
"""

import random
from collections.abc import Callable
from dataclasses import replace

from controller.simulator.world import bodies
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.dataplane import (
    AdminState,
    DataPlane,
    Member,
    address_members,
    nic_members,
)
from controller.simulator.world.resources import Resources
from controller.simulator.world.scheduler import Scheduler
from controller.simulator.world.settings import WorldSettings


class Network(Resources):
    """The members that are really in rotation, and how they follow the bodies."""

    def __init__(
        self, *, scheduler: Scheduler, settings: WorldSettings, source: random.Random, location: str
    ) -> None:
        super().__init__(scheduler=scheduler, settings=settings, source=source, location=location)
        self.data_plane = DataPlane()
        self.admin_states: dict[tuple[str, str], AdminState] = {}
        """States of members that come from NICs, by the keys of pool and ipConfiguration."""
        self._edited_by_people = False
        """Whether an operator sets an adminState now; the history has that as their edit."""
        self.failing_probes: set[str] = set()
        """Casefolded names of running VMs whose application fails the health probe."""
        self.probe_results: dict[tuple[str, str], bool] = {}
        """What health probes have found, by pool and VM, where a data plane sends them."""

    def members(self, pool_id: str) -> tuple[Member, ...]:
        """Return what the load balancer has programmed for a pool, dead VMs included."""
        return self.data_plane.members(pool_id)

    def rotation(self, pool_id: str) -> tuple[str, ...]:
        """Return the VMs (or bare addresses) that new flows may be sent to now, before probing."""
        return self._labels(pool_id, lambda state: state != "Down")

    def held_down(self, pool_id: str) -> tuple[str, ...]:
        """Return the members that get no new flows because their adminState is Down."""
        return self._labels(pool_id, lambda state: state == "Down")

    def held_up(self, pool_id: str) -> tuple[str, ...]:
        """Return the members that get new flows whatever the probe finds: adminState Up."""
        return self._labels(pool_id, lambda state: state == "Up")

    def fails_probe(self, vm: str) -> bool:
        """Return whether the application on a VM is broken, so that it fails the health probe."""
        return vm.casefold() in self.failing_probes

    def passes_probe(self, vm: str) -> bool:
        """Return whether the application on a VM answers the health probe."""
        found = self.find_vm(vm)
        if found is None or found.state != "running" or self.fails_probe(vm):
            return False
        return not (found.closed and self.settings.closed_fails_probe)

    def record_probe(self, pool_id: str, vm: str, up: bool | None) -> None:
        """Note what the probes of a data plane have found; None for a VM that left the pool."""
        member = key(pool_id), vm.casefold()
        if up is None:
            self.probe_results.pop(member, None)
        else:
            self.probe_results[member] = up

    def probed_up(self, pool_id: str, vm: str) -> bool:
        """Return whether a member is up; without a data plane, as if probed a moment ago."""
        found = self.probe_results.get((key(pool_id), vm.casefold()))
        return self.passes_probe(vm) if found is None else found

    def probed(self, pool_id: str) -> bool:
        """Return whether a rule of the pool has a probe; without one adminState has no effect."""
        return any(rule["properties"].get("probe") for rule in self._rules(pool_id))

    def probe_of(self, pool_id: str) -> Json | None:
        """Return the properties of the probe of the pool's first rule with one; None without."""
        load_balancer = self.load_balancer_of(pool_id)
        probes: list[Json] = load_balancer["properties"]["probes"] if load_balancer else []
        named = {
            key(rule["properties"]["probe"]["id"])
            for rule in self._rules(pool_id)
            if rule["properties"].get("probe")
        }
        return next((probe["properties"] for probe in probes if key(probe["id"]) in named), None)

    def source_affinity(self, pool_id: str) -> bool:
        """Return whether new flows of one client address go to one member: `loadDistribution`."""
        return any(
            rule["properties"].get("loadDistribution", "Default") != "Default"
            for rule in self._rules(pool_id)
        )

    def _rules(self, pool_id: str) -> list[Json]:
        """Return the load balancing rules of a pool."""
        load_balancer = self.load_balancer_of(pool_id)
        rules: list[Json] = (
            load_balancer["properties"]["loadBalancingRules"] if load_balancer else []
        )
        return [
            rule
            for rule in rules
            if key(rule["properties"]["backendAddressPool"]["id"]) == key(pool_id)
        ]

    def _labels(self, pool_id: str, wanted: Callable[[str], bool]) -> tuple[str, ...]:
        members = self.members(pool_id)
        special = any(member.admin_state != "None" for member in members)
        effective = special and self.probed(pool_id)
        return tuple(m.label for m in members if wanted(m.admin_state if effective else "None"))

    # From bodies to the data plane

    def apply_nic(self, nic_id: str) -> None:
        """Make the data plane follow the body of a NIC."""
        nic, vm = self.nics.get(key(nic_id)), self.owner(nic_id)
        if nic is None or vm is None:
            return
        wanted = nic_members(nic, vm.name)
        wanted = {
            pool: [self._with_admin_state(pool, member) for member in members]
            for pool, members in wanted.items()
        }
        # A deleted pool has no data plane.
        known = {pool for pool in wanted if self.find_pool(pool) is not None}
        for pool in sorted({*known, *self.data_plane.pools}):
            if self._program(pool, wanted.get(pool, []), owner=nic["id"]):
                self._membership_written(pool)

    def apply_admin_states(self, pool_id: str) -> None:
        """Make the data plane follow the admin states of the members that come from NICs.

        Which members these are is a matter of their NICs, whose writes may still be under way.
        """
        members = [member for member in self.members(pool_id) if member.nic]
        for nic_id in sorted({member.nic for member in members}):
            mine = [self._with_admin_state(pool_id, each) for each in members if each.nic == nic_id]
            self._program(pool_id, mine, owner=nic_id)

    def evict(self, pool_id: str, ip_configuration: str) -> None:
        """Take an ipConfiguration out of a pool; its NIC loses the reference."""
        nic = self.nics[key(ip_configuration).rpartition("/ipconfigurations/")[0]]
        self.record("evicted", pool_id, ip_configuration=ip_configuration)
        drop_pool(
            self._configuration(nic["id"], bodies.last(ip_configuration))["properties"], pool_id
        )
        self.stamp_nic(nic, nic["properties"]["provisioningState"])
        self.apply_nic(nic["id"])

    def apply_pool(self, pool_id: str) -> None:
        """Make the data plane follow the body of an IP-based pool."""
        pool = self.find_pool(pool_id)
        if pool is not None:
            self._program(pool_id, address_members(pool, self.address_owners()), owner="")

    def _program(self, pool_id: str, wanted: list[Member], *, owner: str) -> bool:
        pool = self.find_pool(pool_id)
        subject = pool["id"] if pool is not None else pool_id
        states = {each.identity: each.admin_state for each in self.members(pool_id)}
        joining, leaving = self.data_plane.replace(pool_id, wanted, owner=owner)
        for member in leaving:
            # A member that joins again is another member, without an admin state.
            self.admin_states.pop((key(pool_id), key(member.ip_configuration)), None)
        for kind, members in (("member_out", leaving), ("member_in", joining)):
            for member in members:
                self.record(kind, subject, **_named(member))
        for member in joining:
            if key(member.admin_state) == "down":  # an address that is created again with it
                state = {"before": "", "state": member.admin_state}
                self.record("member_state", subject, **_named(member), **state)
        for member in () if self._edited_by_people else wanted:
            before = states.get(member.identity, member.admin_state)
            if before != member.admin_state:
                state = {"before": before, "state": member.admin_state}
                self.record("member_state", subject, **_named(member), **state)
        return bool(joining or leaving)

    def _with_admin_state(self, pool_id: str, member: Member) -> Member:
        state = self.admin_states.get((key(pool_id), key(member.ip_configuration)), "None")
        return replace(member, admin_state=state)

    def _membership_written(self, pool_id: str) -> None:
        if self.settings.nic_write_changes_lb_etag:
            self.stamp_load_balancer(pool_id)

    def leave_all_pools(self, nic_id: str) -> None:
        """Take a NIC out of the data plane of every pool."""
        for pool in sorted(self.data_plane.pools):
            if self._program(pool, [], owner=nic_id):
                self._membership_written(pool)

    def _configuration(self, nic_id: str, name: str) -> Json:
        entries: list[Json] = self.nic(nic_id)["properties"]["ipConfigurations"]
        return next(entry for entry in entries if not name or key(entry["name"]) == key(name))

    def _pool(self, pool_id: str) -> Json:
        pool = self.find_pool(pool_id)
        if pool is None:
            raise KeyError(pool_id)
        return pool


def _named(member: Member) -> dict[str, str]:
    """Return how the history names a member."""
    return {
        "vm": member.vm,
        "nic": member.nic,
        "ip_configuration": member.ip_configuration,
        "address": member.address,
    }


def drop_pool(properties: Json, pool_id: str) -> bool:
    """Remove a pool reference; the list goes with its last entry, as on the wire."""
    held = bodies.references(properties, "loadBalancerBackendAddressPools")
    kept = [{"id": pool} for pool in held if key(pool) != key(pool_id)]
    if kept:
        properties["loadBalancerBackendAddressPools"] = kept
    else:
        properties.pop("loadBalancerBackendAddressPools", None)
    return len(kept) < len(held)
