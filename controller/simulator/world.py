"""The state of a simulated Azure and everything that can happen to it. Pure: `now` is injected.

Two truths are kept apart, because Azure keeps them apart: resource bodies (what GETs answer) and
the data plane (where new flows go). Writes change the first at once and the second a while later.
`history` records what truly happened; tests judge by that, never by what an agent believed.

Imports nothing of the controller outside `controller.simulator`.
"""

import copy
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from controller.simulator import bodies
from controller.simulator.access import (
    LEAST_PRIVILEGE,
    OPERATOR,
    Bucket,
    Issuer,
    Roles,
    Window,
    same_audience,
)
from controller.simulator.blob import BlobStore
from controller.simulator.bodies import Json, key
from controller.simulator.builder import Builder
from controller.simulator.dataplane import DataPlane, Member, address_members, nic_members
from controller.simulator.events import EventBoard, SimEvent
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
from controller.simulator.wire import Delivery, Service

__all__ = ["Change", "SimVm", "VmState", "World", "WorldSettings", "build_world"]

VmState = Literal["running", "rebooting", "frozen", "stopped", "deallocated", "deleted"]


@dataclass(slots=True, kw_only=True)
class SimVm:
    """One VM. It is what its base state says unless an impact is upon it."""

    name: str
    resource_id: str
    vm_id: str
    computer_name: str
    nic_ids: list[str]
    in_set: bool
    fault_domain: int
    update_domain: int
    client_id: str
    base_state: VmState = "running"
    impacts: dict[str, VmState] = field(default_factory=dict[str, VmState])
    etag: int = 1
    imds_last_call: float | None = None
    imds_ready_at: float = 0.0
    imds_incarnation_base: int = 0
    imds_window: Window = field(default_factory=Window)
    identity_window: Window = field(default_factory=Window)

    @property
    def state(self) -> VmState:
        """What the VM is now; of several impacts the reboot wins over the freeze."""
        if self.base_state != "running" or not self.impacts:
            return self.base_state
        return "rebooting" if "rebooting" in self.impacts.values() else "frozen"

    @property
    def power_state(self) -> str:
        """What Microsoft.Compute reports; it does not notice a freeze."""
        match self.state:
            case "rebooting":
                return "starting"
            case "frozen":
                return "running"
            case other:
                return other


class World:
    """One subscription with one availability set, its network, and the platform below it."""

    def __init__(
        self,
        *,
        now: float,
        settings: WorldSettings,
        seed: int,
        subscription: str,
        location: str,
        resource_group: str,
        network_group: str,
        availability_set: str,
    ) -> None:
        self.settings = settings
        self.random = random.Random(seed)  # noqa: S311 - a simulation has to be repeatable
        self.timeline = Timeline(now)
        self.history: list[Change] = []
        self.subscription = subscription
        self.tenant = bodies.guid(self.random)
        self.user_assigned_client_id = bodies.guid(self.random)
        self.location = location
        self.resource_group = resource_group
        self.resource_groups = list(dict.fromkeys((resource_group, network_group)))
        self.network_group = network_group
        self.availability_set_id = bodies.resource_id(
            subscription, resource_group, "Microsoft.Compute/availabilitySets", availability_set
        )
        self.scheduled_events_policy: Json | None = None
        self.vms: dict[str, SimVm] = {}
        self.nics: dict[str, Json] = {}
        self.load_balancers: dict[str, Json] = {}
        self.data_plane = DataPlane()
        self.events = EventBoard(self)
        self.operations: dict[str, Operation] = {}
        self.in_flight: dict[str, Operation] = {}
        self.planned: dict[str, list[PlannedOutcome]] = {}
        self.stale: dict[str, tuple[float, Json]] = {}
        self.issuer = Issuer(self.random.randbytes(32))
        self.roles = Roles()
        self.roles.assign(OPERATOR, frozenset({"*"}), "")
        self.buckets: dict[tuple[str, str], Bucket] = {}
        self.request_counts: Counter[tuple[str, str, str]] = Counter()
        self.blobs = BlobStore(record=self.record)

    # Time

    @property
    def now(self) -> float:
        """The instant this world stands at, epoch seconds."""
        return self.timeline.now

    def advance(self, now: float) -> None:
        """Let everything due up to `now` happen, in order. Going back does nothing."""
        self.timeline.advance(now)

    def next_timer(self) -> float | None:
        """Return when something will happen next without a request; None if nothing will."""
        return self.timeline.next()

    def record(self, kind: str, subject: str, **detail: object) -> None:
        """Append to the history, at the present instant."""
        self.history.append(Change(self.now, kind, subject, MappingProxyType(detail)))

    def changes(self, *kinds: str) -> list[Change]:
        """Return the history, restricted to `kinds` if any are given."""
        return [change for change in self.history if not kinds or change.kind in kinds]

    # Looking things up

    def vm(self, name: str) -> SimVm:
        """Return the VM of that name, in any case; KeyError if it never was or is deleted."""
        return self.vms[name.casefold()]

    def find_vm(self, name: str) -> SimVm | None:
        """Return the VM of that name, in any case."""
        return self.vms.get(name.casefold())

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

    def owner(self, nic_id: str) -> SimVm | None:
        """Return the VM a NIC is attached to."""
        wanted = key(nic_id)
        return next((v for v in self.vms.values() if wanted in map(key, v.nic_ids)), None)

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

    def serving(self, vm: str) -> bool:
        """Tell whether a VM answers: it runs and is neither rebooting nor frozen."""
        found = self.find_vm(vm)
        return found is not None and found.state == "running"

    def reachable(self, vm: str) -> bool:
        """Tell whether packets find the VM's network: a frozen VM is reachable and silent."""
        found = self.find_vm(vm)
        return found is not None and found.state in ("running", "frozen")

    def connectivity(self, principal: str, service: Service) -> Delivery:
        """Return what becomes of anything the VM says to a service now."""
        if principal == OPERATOR:
            return Delivery.NORMAL
        vm = self.find_vm(principal)
        if vm is not None and vm.state == "frozen":
            return Delivery.HANG
        if vm is None or vm.state != "running":
            return Delivery.RESET
        if service is not Service.IMDS and self.settings.outbound_needs_public_pool:
            return Delivery.NORMAL if self._in_public_pool(vm.name) else Delivery.HANG
        return Delivery.NORMAL

    def _in_public_pool(self, vm: str) -> bool:
        return any(
            member.vm == vm
            for load_balancer in self.load_balancers.values()
            for pool in load_balancer["properties"]["backendAddressPools"]
            for member in self.members(pool["id"])
            if "publicIPAddress"
            in load_balancer["properties"]["frontendIPConfigurations"][0]["properties"]
        )

    # Identity

    def token(self, principal: str, audience: str) -> str:
        """Return an access token, as the VM's IMDS would issue it."""
        return self.issuer.issue(principal, audience, self.now, self.settings.token_lifetime_s)[1]

    def caller(self, token: str, audience: str, now: float) -> str | None:
        """Return the VM a bearer token was issued to; None if forged, expired or for another."""
        found = self.issuer.read(token)
        if found is None or found.expires_at <= now or not same_audience(found.audience, audience):
            return None
        return found.principal

    # Scheduled events

    def schedule_event(
        self,
        event_type: str,
        *resources: str,
        source: str = "Platform",
        notice_s: float = 900.0,
        duration_s: int = -1,
        impact_s: float = 30.0,
        impact_delay_s: float = 1.0,
        started_s: float = 300.0,
        started_first: bool = False,
        cancel_after_s: float | None = None,
        auto_approve_after_s: float | None = None,
        late_impact: tuple[float, float] | None = None,
        impact: str | None = None,
        description: str = "Host server is undergoing maintenance.",
        at: float | None = None,
        event_id: str | None = None,
    ) -> SimEvent:
        """Announce maintenance of `resources` (VM names), now or `at` an instant.

        The event starts at NotBefore, `notice_s` ahead, or earlier once acknowledged; it stays
        Started for `started_s`. Its VMs go down `impact_delay_s` after the start for `impact_s`,
        and once more if `late_impact` (delay, length) is given. `duration_s` is only what the
        document claims. `impact` overrides what the type implies: a Reboot that is a freeze, or ""
        for none. `started_first`: no notice at all. `auto_approve_after_s`: somebody else acks.
        """
        return self.events.schedule(
            event_type=event_type,
            resources=resources,
            source=source,
            notice_s=notice_s,
            duration_s=duration_s,
            impact_s=impact_s,
            impact_delay_s=impact_delay_s,
            started_s=started_s,
            started_first=started_first,
            cancel_after_s=cancel_after_s,
            auto_approve_after_s=auto_approve_after_s,
            late_impact=late_impact,
            impact=impact,
            description=description,
            at=at,
            event_id=event_id,
        )

    def cancel_event(self, event_id: str) -> None:
        """Take a Scheduled event out of the document; it never starts."""
        self.events.cancel(event_id)

    def complete_event(self, event_id: str) -> None:
        """End an event now."""
        self.events.complete(event_id)

    def acknowledge(self, event_id: str, by_vm: str, now: float) -> bool:
        """Acknowledge as `by_vm`; False if the document has no such event."""
        self.advance(now)
        return self.events.acknowledge(event_id, by_vm)

    # VMs

    def begin_impact(self, vm: str, cause: str, state: str) -> None:
        """Let maintenance hit a VM; names that are not ours are somebody else's VMs."""
        found = self.find_vm(vm)
        if found is None:
            return
        match state:
            case "deleted":
                self.delete_vm(vm)
            case "deallocated":
                self.set_vm_state(vm, "deallocated")
            case "frozen" | "rebooting":
                found.impacts[cause] = state
                self.record("vm_down", found.name, state=found.state)
            case _:
                raise ValueError(f"{state!r} is not an impact")

    def end_impact(self, vm: str, cause: str) -> None:
        """Let a VM come back from an impact, unless another one holds it."""
        found = self.find_vm(vm)
        if found is None or found.impacts.pop(cause, None) is None:
            return
        if found.state == "running":
            self.record("vm_up", found.name)

    def set_vm_state(self, vm: str, state: VmState) -> None:
        """Stop, deallocate, start, freeze or reboot a VM by hand; `running` ends all of that."""
        found = self.vm(vm)
        if state == "deleted":
            self.delete_vm(vm)
            return
        found.impacts.clear()
        if state in ("frozen", "rebooting"):
            found.base_state = "running"
            found.impacts["by hand"] = state
        else:
            found.base_state = state
        found.etag += 1
        self.record("vm_state", found.name, state=state)
        if state == "running":
            self.record("vm_up", found.name)
        else:
            self.record("vm_down", found.name, state=state)

    def delete_vm(self, vm: str, *, nics: Literal["delete", "detach"] = "delete") -> None:
        """Delete a VM, and delete or keep its NICs."""
        found = self.vms.pop(vm.casefold())
        for nic_id in found.nic_ids:
            self._leave_all_pools(nic_id)
            if nics == "delete":
                self.nics.pop(key(nic_id), None)
            elif key(nic_id) in self.nics:
                self.nics[key(nic_id)]["properties"].pop("virtualMachine", None)
                self._stamp_nic(self.nics[key(nic_id)], "Succeeded")
        self.record("vm_down", found.name, state="deleted")
        self.record("vm_state", found.name, state="deleted")

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
) -> World:
    """Return a world with VMs `web-1` to `web-N`, all of them in all pools.

    `pools` are NIC-based, on the public load balancer `web-lb`; with `ipv6` each gets a twin
    `<name>-v6`. `ip_pools` are IP-based, on the internal `web-internal`. `foreign_vms` (`other-1`)
    are members too, but not of the availability set. `network_group`: a resource group of its own
    for NICs and load balancers.
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
    nic_pools = (*pools, *(f"{pool}-v6" for pool in pools if ipv6))
    names = [f"{prefix}-{order}" for order in range(1, vms + 1)]
    foreign = [f"other-{order}" for order in range(1, foreign_vms + 1)]
    builder.public_load_balancer(f"{prefix}-lb", nic_pools, names)
    for order, name in enumerate((*names, *foreign)):
        builder.add_vm(_new_vm(world, name, order, in_set=order < vms), order, pools)
    if ip_pools:
        builder.internal_load_balancer(f"{prefix}-internal", ip_pools)
    for nic in list(world.nics.values()):
        world.apply_nic(nic["id"])
    for name in ip_pools:
        world.apply_pool(world.pool_id(name))
    for name in (*names, *foreign):
        world.roles.assign(name, LEAST_PRIVILEGE, f"/subscriptions/{subscription}")
    # How a world began is not something that happened in it.
    world.history.clear()
    return world


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
    )
