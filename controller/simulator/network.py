"""The simulated network: what bodies say, what the data plane does, and writes between them.

A write changes a body at once, the data plane after a share of its latency, and the state of its
operation at the end. Operators may edit past every API; their edits are immediate.
"""

import copy
import random
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from controller.simulator import bodies
from controller.simulator.bodies import Json, key
from controller.simulator.dataplane import DataPlane, Member, address_members, nic_members
from controller.simulator.history import Change
from controller.simulator.operations import (
    Operation,
    OperationStatus,
    Outcome,
    PlannedOutcome,
    failure,
    superseded,
)
from controller.simulator.settings import WorldSettings
from controller.simulator.timeline import Timeline
from controller.simulator.vm import SimVm


class Network:
    """NICs, load balancers, operations, and the members really in rotation."""

    def __init__(
        self, *, timeline: Timeline, settings: WorldSettings, source: random.Random, location: str
    ) -> None:
        self.timeline = timeline
        self.settings = settings
        self.random = source
        self.location = location
        self.history: list[Change] = []
        self.vms: dict[str, SimVm] = {}
        self.nics: dict[str, Json] = {}
        self.load_balancers: dict[str, Json] = {}
        self.data_plane = DataPlane()
        self.operations: dict[str, Operation] = {}
        self.in_flight: dict[str, Operation] = {}
        self.planned: dict[str, list[PlannedOutcome]] = {}
        self.stale: dict[str, tuple[float, Json]] = {}

    @property
    def now(self) -> float:
        """The instant this world stands at, epoch seconds."""
        return self.timeline.now

    def record(self, kind: str, subject: str, **detail: object) -> None:
        """Append to the history, at the present instant."""
        self.history.append(Change(self.now, kind, subject, MappingProxyType(detail)))

    # Looking things up

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

    def load_balancer_of(self, pool_id: str) -> Json | None:
        """Return the stored body of the load balancer that a pool id lies under."""
        return self.load_balancers.get(key(pool_id).rpartition("/backendaddresspools/")[0])

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

    # The data plane

    def members(self, pool_id: str) -> tuple[Member, ...]:
        """Return what the load balancer has programmed for a pool, dead VMs included."""
        return self.data_plane.members(pool_id)

    def rotation(self, pool_id: str) -> tuple[str, ...]:
        """Return the VMs (or bare addresses) that new flows may be sent to now, before probing."""
        return tuple(m.label for m in self.members(pool_id) if m.admin_state != "Down")

    # What operators do, past every API

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
        _drop_pool(self._configuration(nic_id, ip_configuration)["properties"], pool_id)
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
                if _drop_pool(entry["properties"], pool_id):
                    self._stamp_nic(nic, nic["properties"]["provisioningState"])
        for owner in sorted({member.nic for member in self.members(pool_id)}):
            self._program(pool_id, [], owner=owner)
        self.stamp_load_balancer(pool_id)
        self.record("operator", pool["id"], what="deleted")

    def fail_nic(self, nic_id: str) -> None:
        """Leave a NIC in provisioningState Failed: its load balancer refuses writes."""
        nic = self.nic(nic_id)
        self._stamp_nic(nic, "Failed")
        self.record("operator", nic["id"], what="failed")

    def plan_outcome(self, resource: str, outcome: Outcome, latency_s: float | None = None) -> None:
        """Decide how the next operation on a NIC or pool (id) ends, and how long it takes."""
        self.planned.setdefault(key(resource), []).append(
            PlannedOutcome(outcome=outcome, latency_s=latency_s)
        )

    # Writes, as ARM accepts them

    def write_nic(self, body: Json, by: str) -> Operation | None:
        """Store an accepted NIC body; None if it is synchronous, having no VM."""
        before = copy.deepcopy(self.nics[key(body["id"])])
        self.nics[key(body["id"])] = body
        if self.owner(body["id"]) is None:
            self._stamp_nic(body, "Succeeded")
            self.record("write", body["id"], by=by, operation="")
            return None
        self._stamp_nic(body, "Updating")
        return self._begin(
            "PutNicOperation", body["id"], before, by, self.settings.operation_latency_s
        )

    def write_pool(self, body: Json, before: Json, by: str) -> Operation:
        """Account for a pool body just stored; an earlier write on its LB is superseded."""
        kind = "PutLoadBalancerBackendAddressPoolOperation"
        earlier = [
            operation
            for operation in self.in_flight.values()
            if operation.kind == kind
            and self.load_balancer_of(operation.resource) is self.load_balancer_of(body["id"])
        ]
        operation = self._begin(
            kind, body["id"], before, by, self.settings.pool_operation_latency_s
        )
        for loser in earlier:
            self._supersede(loser, operation)
        self.stamp_load_balancer(body["id"])
        return operation

    def _begin(self, kind: str, resource: str, before: Json, by: str, latency: float) -> Operation:
        queue = self.planned.get(key(resource))
        planned = queue.pop(0) if queue else PlannedOutcome(outcome="succeeded")
        operation = Operation(
            operation_id=bodies.guid(self.random),
            kind=kind,
            resource=resource,
            location=self.location,
            started_at=self.now,
            before=before,
            outcome=planned.outcome,
        )
        latency += self.random.uniform(0.0, self.settings.operation_jitter_s)
        latency = latency if planned.latency_s is None else planned.latency_s
        self.operations[operation.operation_id] = operation
        # A later pool write takes this slot; the loser's own timers are cancelled by then.
        self.in_flight[key(resource)] = operation
        self.record("write", resource, by=by, operation=operation.operation_id)
        if self.settings.read_lag_s > 0:
            self.stale[key(resource)] = (self.now + self.settings.read_lag_s, before)
        visible = self.now + latency * self.settings.membership_visible_after
        if planned.outcome == "succeeded":
            operation.timers.append(self.timeline.at(visible, lambda: self._apply(operation)))
        operation.timers.append(self.timeline.at(self.now + latency, lambda: self._end(operation)))
        return operation

    def remaining_s(self, operation: Operation) -> float:
        """Return how long an operation in flight will still take."""
        return max((timer.at for timer in operation.timers), default=self.now) - self.now

    def _apply(self, operation: Operation) -> None:
        operation.applied = True
        if operation.kind == "PutNicOperation":
            self.apply_nic(operation.resource)
            return
        # The later of two writes carries the whole load balancer, the superseded one included.
        load_balancer = self.load_balancer_of(operation.resource)
        for pool in load_balancer["properties"]["backendAddressPools"] if load_balancer else ():
            self.apply_pool(pool["id"])

    def _end(self, operation: Operation) -> None:
        statuses: dict[Outcome, OperationStatus] = {"failed": "Failed", "canceled": "Canceled"}
        status = statuses.get(operation.outcome, "Succeeded")
        if status != "Succeeded":
            operation.error = failure(operation)
        if operation.outcome != "succeeded" and not (
            status == "Failed" and self.settings.failed_write_keeps_body
        ):
            self._revert(operation)
        self._finish(operation, status)
        nic = self.nics.get(key(operation.resource))
        if nic is not None:
            self._stamp_nic(nic, "Failed" if status == "Failed" else "Succeeded")
        pool = self.find_pool(operation.resource)
        if pool is not None:
            pool["properties"]["provisioningState"] = (
                "Failed" if status == "Failed" else "Succeeded"
            )
            self.stamp_load_balancer(operation.resource)

    def _supersede(self, loser: Operation, winner: Operation) -> None:
        for timer in loser.timers:
            timer.cancel()
        loser.error = superseded(loser, winner)
        same = key(loser.resource) == key(winner.resource)
        if not loser.applied:
            if same or self.settings.superseded_write_survives:
                winner.carried.append(loser)
            else:
                self._revert(loser)
        self._finish(loser, "Canceled")

    def _finish(self, operation: Operation, status: OperationStatus) -> None:
        operation.status = status
        operation.ended_at = self.now
        if self.in_flight.get(key(operation.resource)) is operation:
            del self.in_flight[key(operation.resource)]
        self.record(
            "operation_ended", operation.operation_id, resource=operation.resource, status=status
        )

    def _revert(self, operation: Operation) -> None:
        if key(operation.resource) in self.nics:
            self.nics[key(operation.resource)] = copy.deepcopy(operation.before)
            return
        pool = self.find_pool(operation.resource)
        if pool is not None:
            pool["properties"] = copy.deepcopy(operation.before["properties"])
        for carried in reversed(operation.carried):
            self._revert(carried)

    # Bodies to data plane

    def apply_nic(self, nic_id: str) -> None:
        """Make the data plane follow what a NIC's body says."""
        nic, vm = self.nics.get(key(nic_id)), self.owner(nic_id)
        if nic is None or vm is None:
            return
        wanted = nic_members(nic, vm.name)
        # A pool that was deleted meanwhile has no data plane to program.
        known = {pool for pool in wanted if self.find_pool(pool) is not None}
        for pool in sorted({*known, *self.data_plane.pools}):
            if self._program(pool, wanted.get(pool, []), owner=nic["id"]):
                self._membership_written(pool)

    def apply_pool(self, pool_id: str) -> None:
        """Make the data plane follow what the body of an IP-based pool says."""
        pool = self.find_pool(pool_id)
        if pool is not None:
            self._program(pool_id, address_members(pool, self.address_owners()), owner="")

    def stamp_load_balancer(self, pool_id: str) -> None:
        """Give the load balancer of a pool a new etag."""
        load_balancer = self.load_balancer_of(pool_id)
        if load_balancer is not None:
            bodies.stamp_load_balancer(load_balancer, bodies.new_etag(self.random))

    def _program(self, pool_id: str, wanted: list[Member], *, owner: str) -> bool:
        pool = self.find_pool(pool_id)
        subject = pool["id"] if pool is not None else pool_id
        joining, leaving = self.data_plane.replace(pool_id, wanted, owner=owner)
        for kind, members in (("member_out", leaving), ("member_in", joining)):
            for member in members:
                self.record(
                    kind,
                    subject,
                    vm=member.vm,
                    nic=member.nic,
                    ip_configuration=member.ip_configuration,
                    address=member.address,
                )
        return bool(joining or leaving)

    def _membership_written(self, pool_id: str) -> None:
        if self.settings.nic_write_changes_lb_etag:
            self.stamp_load_balancer(pool_id)

    def _leave_all_pools(self, nic_id: str) -> None:
        for pool in sorted(self.data_plane.pools):
            if self._program(pool, [], owner=nic_id):
                self._membership_written(pool)

    def _stamp_nic(self, nic: Json, state: str) -> None:
        bodies.stamp_nic(nic, bodies.new_etag(self.random), state)

    def _operator_wrote_nic(self, nic_id: str, what: str) -> None:
        nic = self.nic(nic_id)
        self._stamp_nic(nic, nic["properties"]["provisioningState"])
        self.record("operator", nic["id"], what=what)
        self.apply_nic(nic["id"])

    def _configuration(self, nic_id: str, name: str) -> Json:
        entries: list[Json] = self.nic(nic_id)["properties"]["ipConfigurations"]
        return next(entry for entry in entries if not name or key(entry["name"]) == key(name))

    def _pool(self, pool_id: str) -> Json:
        pool = self.find_pool(pool_id)
        if pool is None:
            raise KeyError(pool_id)
        return pool


def _drop_pool(properties: Json, pool_id: str) -> bool:
    """Remove a pool reference; the list goes with its last entry, as on the wire."""
    held = bodies.references(properties, "loadBalancerBackendAddressPools")
    kept = [{"id": pool} for pool in held if key(pool) != key(pool_id)]
    if kept:
        properties["loadBalancerBackendAddressPools"] = kept
    else:
        properties.pop("loadBalancerBackendAddressPools", None)
    return len(kept) < len(held)
