"""The state of a simulated Azure and everything that can happen to it. Pure: `now` is injected.

Two truths are kept apart, because Azure keeps them apart: resource bodies (what GETs answer) and
the data plane (where new flows go). Writes change the first at once and the second a while later.
`history` records what truly happened; tests judge by that, never by what an agent believed.

Imports nothing of the controller outside `controller.simulator`.
"""

import random
from collections import Counter
from typing import Literal

from controller.simulator import bodies
from controller.simulator.access import (
    BLOB_CONTRIBUTOR,
    LEAST_PRIVILEGE,
    OPERATOR,
    Bucket,
    Issuer,
    Roles,
    same_audience,
)
from controller.simulator.blob import BlobStore
from controller.simulator.bodies import Json, key
from controller.simulator.builder import Builder
from controller.simulator.events import EventBoard, SimEvent
from controller.simulator.history import Change
from controller.simulator.maintenance import MESSAGES, MaintenanceResult, PlannedMaintenance
from controller.simulator.network import Network
from controller.simulator.operations import Operation
from controller.simulator.settings import WorldSettings
from controller.simulator.timeline import Timeline
from controller.simulator.vm import SimVm, VmState
from controller.simulator.wire import Delivery, Service

__all__ = ["Change", "SimVm", "VmState", "World", "WorldSettings", "build_world"]


class World(Network):
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
        super().__init__(
            timeline=Timeline(now),
            settings=settings,
            source=random.Random(seed),  # noqa: S311 - a simulation has to be repeatable
            location=location,
        )
        self.subscription = subscription
        self.tenant = bodies.guid(self.random)
        self.user_assigned_client_id = bodies.guid(self.random)
        self.resource_group = resource_group
        self.resource_groups = list(dict.fromkeys((resource_group, network_group)))
        self.network_group = network_group
        self.availability_set_id = bodies.resource_id(
            subscription, resource_group, "Microsoft.Compute/availabilitySets", availability_set
        )
        self.scheduled_events_policy: Json | None = None
        self.events = EventBoard(self)
        self.issuer = Issuer(self.random.randbytes(32), self.tenant)
        self.roles = Roles()
        self.roles.assign(OPERATOR, {"*"}, "", data_actions={"*"})
        self.buckets: dict[tuple[str, str], Bucket] = {}
        self.request_counts: Counter[tuple[str, str, str]] = Counter()
        self.blobs = BlobStore(record=self.record, permit=self._permit_blob)

    # Time

    def advance(self, now: float) -> None:
        """Let everything due up to `now` happen, in order. Going back does nothing."""
        self.timeline.advance(now)

    def next_timer(self) -> float | None:
        """Return when something will happen next without a request; None if nothing will."""
        return self.timeline.next()

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

    def blob_scope(self, path: str) -> str:
        """Return the ARM scope of `/account/container` or `/account/container/blob`."""
        account, container, *blob = path.strip("/").split("/", 2)
        kind = "Microsoft.Storage/storageAccounts"
        store = bodies.resource_id(self.subscription, self.resource_group, kind, account)
        return "/".join((store, "blobServices/default/containers", container, *blob))

    def _permit_blob(self, by: str, action: str, path: str, *, data: bool) -> bool:
        permitted = self.roles.permit(by, action, self.blob_scope(path), data=data)
        return permitted or not self.settings.rbac_enforced

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

    # Planned maintenance

    def plan_maintenance(
        self,
        *vms: str,
        window_s: float = 3600.0,
        opens_in_s: float = 0.0,
        down_s: float = 20.0,
        outcome: MaintenanceResult = "MaintenanceCompleted",
    ) -> None:
        """Announce maintenance that the owner of `vms` may start within a window.

        The window opens `opens_in_s` from now (or has opened, if negative) and stays open for
        `window_s`; a window as long, in which Azure would do it, follows and is only shown.
        """
        opens_at = self.now + opens_in_s
        for vm in vms:
            found = self.vm(vm)
            found.maintenance = PlannedMaintenance(
                opens_at=opens_at,
                closes_at=opens_at + window_s,
                ends_at=opens_at + 2 * window_s,
                down_s=down_s,
                outcome=outcome,
            )
            self.record("maintenance_planned", found.name)

    def perform_maintenance(self, vm: str, by: str) -> Operation:
        """Begin the maintenance of a VM, which is allowed; the VM goes down and comes back."""
        found = self.vm(vm)
        planned = found.maintenance
        if planned is None:
            raise ValueError(f"no maintenance is planned for {vm}")
        planned.under_way = True
        operation = Operation(
            operation_id=bodies.guid(self.random),
            kind="PerformMaintenanceOperation",
            resource=found.resource_id,
            location=self.location,
            started_at=self.now,
            before={},
        )
        self.operations[operation.operation_id] = operation
        self.record("maintenance_begun", found.name, by=by)
        if planned.outcome != "RetryLater":
            self.begin_impact(found.name, operation.operation_id, "rebooting")
        self.timeline.at(self.now + planned.down_s, lambda: self._maintained(found, operation))
        return operation

    def _maintained(self, vm: SimVm, operation: Operation) -> None:
        planned = vm.maintenance
        if planned is None:
            return
        self.end_impact(vm.name, operation.operation_id)
        planned.under_way, planned.result = False, planned.outcome
        completed = planned.result == "MaintenanceCompleted"
        operation.status = "Succeeded" if completed else "Failed"
        operation.ended_at = self.now
        if not completed:
            operation.error = {"code": planned.result, "message": MESSAGES[planned.result]}
        self.record("maintenance_ended", vm.name, result=planned.result)

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
        scope = f"/subscriptions/{subscription}"
        world.roles.assign(name, LEAST_PRIVILEGE, scope, data_actions=BLOB_CONTRIBUTOR)
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
