"""Availability set and VMs: who the peers are, and whether they run."""

import asyncio
import logging
from collections.abc import Container
from dataclasses import dataclass
from typing import Any, Protocol, cast

from controller.azure.arm import (
    Arm,
    Json,
    ResourceId,
    SlimClient,
    about,
    as_object,
    child,
    children,
    load_sdk,
    part,
    raw,
    required,
    text,
)
from controller.azure.failures import Caller, Observer, ignore
from controller.azure.operations import Poller
from controller.clock import Clock
from controller.core.model import PowerState, Vm, fold
from controller.errors import ConfigError, ContractViolation, NotFound

COMPUTE_VERSION = "2024-07-01"
READ_TIMEOUT_S = 15.0
LIST_TIMEOUT_S = 60.0
GONE_AFTER_S = 1.0
SINGLE_READS = 8
_log = logging.getLogger(__name__)


class _VirtualMachines(Protocol):
    async def get(self, group: str, name: str, /, **options: Any) -> object: ...
    async def begin_perform_maintenance(
        self, group: str, name: str, /, **options: Any
    ) -> Poller: ...


class _AvailabilitySets(Protocol):
    async def get(self, group: str, name: str, /, **options: Any) -> object: ...


class ComputeClient(Protocol):
    """The part of `ComputeManagementClient` used here; its own annotations are mostly Any."""

    @property
    def virtual_machines(self) -> _VirtualMachines: ...
    @property
    def availability_sets(self) -> _AvailabilitySets: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AvailabilitySet:
    """The set this VM belongs to."""

    availability_set_id: str
    vm_ids: tuple[str, ...]
    approves: tuple[str, ...] = ()
    """Rules of its scheduledEventsPolicy by which it approves events without waiting for anyone."""
    update_domains: int = 0
    """Groups of VMs that planned maintenance reaches one after the other; 0 when it is not said."""


class Compute:
    """Client of Microsoft.Compute."""

    def __init__(self, arm: Arm, *, clock: Clock, observer: Observer = ignore) -> None:
        self._arm = arm
        self._clock = clock
        self._caller = Caller(service="compute", clock=clock, observer=observer)
        self._slim = SlimClient(arm, self._caller)
        self._clients: dict[str, ComputeClient] = {}
        self._missing_since: dict[str, float] = {}

    async def discover(self, vm_id: str) -> AvailabilitySet:
        """Return the availability set of a VM, without the compute SDK.

        The metadata service does not name the set (Microsoft docs, Instance Metadata Service).
        """
        vm = about(vm_id, await self._slim.get("vm_get", vm_id, COMPUTE_VERSION, READ_TIMEOUT_S))
        set_id = text(child(part(vm, "properties", vm_id), "availabilitySet", vm_id), "id")
        if not set_id:
            raise ConfigError(
                f"{vm_id} is not in an availability set, so it has no peers to hand over to. A VM "
                "can only join a set when it is created: create it again in one, or run without "
                "this service"
            )
        body = await self._slim.get("availability_set_get", set_id, COMPUTE_VERSION, READ_TIMEOUT_S)
        vm_ids = _vm_ids(about(set_id, body))
        approves = _approves(body)
        if approves:
            _log.warning(
                "scheduledEventsPolicy of the availability set approves %s by itself: such events "
                "start without waiting for the drain",
                ", ".join(approves),
            )
        return AvailabilitySet(
            availability_set_id=set_id,
            vm_ids=vm_ids,
            approves=approves,
            update_domains=_update_domains(body),
        )

    async def members(self, availability_set_id: str) -> tuple[Vm, ...]:
        """Return all VMs of the set with NICs and power, in the set's order.

        One list of the resource group: Azure has no filter for availability sets, and a VM is
        always in the resource group of its set. A VM the list lags behind on is read singly.
        """
        target = ResourceId.parse(availability_set_id)
        sets = (await self.client(target.subscription)).availability_sets
        async with self._caller.call("availability_set_get", READ_TIMEOUT_S):
            body = await sets.get(target.group, target.names[-1], cls=raw)
            vm_ids = _vm_ids(about(availability_set_id, as_object(body, "an availability set")))
        listed = await self._list(target, {fold(vm_id) for vm_id in vm_ids})
        gate = asyncio.Semaphore(SINGLE_READS)

        async def find(vm_id: str) -> Vm:
            known = listed.get(fold(vm_id))
            if known is not None:
                return known
            async with gate:
                return await self._read_or_name(vm_id)

        return tuple(await asyncio.gather(*(find(vm_id) for vm_id in vm_ids)))

    async def power(self, vm_id: str) -> PowerState:
        """Return whether a VM runs.

        A single 404 may be replication lag and is raised as `NotFound`; the next one, a second or
        more later, means GONE.
        """
        try:
            vm = await self._read(vm_id)
        except NotFound:
            now = self._clock.monotonic()
            first = self._missing_since.setdefault(fold(vm_id), now)
            if now - first < GONE_AFTER_S:
                raise
            return PowerState.GONE
        self._missing_since.pop(fold(vm_id), None)
        return vm.power

    async def client(self, subscription: str) -> ComputeClient:
        """Return the SDK client of a subscription, which is loaded when it is first needed."""
        client = self._clients.get(fold(subscription))
        if client is None:
            sdk = await load_sdk("azure.mgmt.compute.aio")
            client = self._clients[fold(subscription)] = cast(
                "ComputeClient",
                sdk.ComputeManagementClient(
                    self._arm.credential, subscription, **self._arm.client_options()
                ),
            )
        return client

    async def _read(self, vm_id: str) -> Vm:
        target = ResourceId.parse(vm_id)
        machines = (await self.client(target.subscription)).virtual_machines
        async with self._caller.call("vm_get", READ_TIMEOUT_S):
            body = await machines.get(
                target.group, target.names[-1], expand="instanceView", cls=raw
            )
            return self._vm(about(vm_id, as_object(body, "a VM")))

    async def _read_or_name(self, vm_id: str) -> Vm:
        try:
            return await self._read(vm_id)
        except NotFound:
            # Still a peer by name, as long as the set says so.
            return Vm(name=ResourceId.parse(vm_id).names[-1], vm_id=vm_id, nic_ids=())

    async def _list(self, target: ResourceId, wanted: Container[str]) -> dict[str, Vm]:
        path = (
            f"/subscriptions/{target.subscription}/resourceGroups/{target.group}"
            "/providers/Microsoft.Compute/virtualMachines"
        )
        params = {"api-version": COMPUTE_VERSION, "$expand": "instanceView"}
        listed = await self._slim.list("vm_list", path, params, LIST_TIMEOUT_S)
        # Other people's VMs in the group are not ours to understand.
        ours = [body for body in listed if fold(text(body, "id")) in wanted]
        return {fold(vm.vm_id): vm for vm in map(self._vm, ours)}

    def _vm(self, body: Json) -> Vm:
        vm_id = required(body, "id", "a VM")
        properties = part(body, "properties", vm_id)
        interfaces = children(part(properties, "networkProfile", vm_id), "networkInterfaces", vm_id)
        view = child(properties, "instanceView", vm_id)
        return Vm(
            name=ResourceId.parse(vm_id).names[-1],
            vm_id=vm_id,
            nic_ids=tuple(
                required(interface, "id", f"a NIC of {vm_id}") for interface in interfaces
            ),
            power=power_in(view, vm_id),
            power_observed_at=self._clock.now() if view else None,
        )


def _vm_ids(body: Json) -> tuple[str, ...]:
    properties = part(body, "properties", "an availability set")
    if "virtualMachines" not in properties:
        # Azure sends an empty list; a reply without it would make every peer a stranger.
        raise ContractViolation("an availability set came without virtualMachines")
    references = children(properties, "virtualMachines", "an availability set")
    vm_ids = tuple(required(reference, "id", "a VM reference") for reference in references)
    names = [fold(ResourceId.parse(vm_id).names[-1]) for vm_id in vm_ids]
    if len(set(names)) < len(names):
        raise ContractViolation("an availability set lists one VM twice")
    return vm_ids


def _update_domains(body: Json) -> int:
    count = cast("object", part(body, "properties", "a set").get("platformUpdateDomainCount"))
    return count if isinstance(count, int) else 0


def power_in(view: Json, vm_id: str) -> PowerState:
    """Return what an instance view says of a VM's power."""
    for status in children(view, "statuses", vm_id):
        kind, _, state = text(status, "code").casefold().partition("/")
        if kind == "powerstate":
            return PowerState.RUNNING if state == "running" else PowerState.NOT_RUNNING
    return PowerState.UNKNOWN


def _approves(body: Json) -> tuple[str, ...]:
    """Return which events the set approves by itself: then nobody waits for our drain."""
    properties = child(body, "properties", "an availability set")
    policy = child(properties, "scheduledEventsPolicy", "an availability set")
    automatic = sorted(
        kind
        for kind, rule in policy.items()
        if isinstance(rule, dict) and cast("Json", rule).get("automaticallyApprove") is True
    )
    return tuple(automatic)
