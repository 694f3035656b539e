"""Client of Microsoft.Compute: the availability set, its VMs, and their power states."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol, cast

from controller.azure.availability_set import (
    AvailabilitySet,
    SetVms,
    parse_availability_set,
    parse_set_vms,
)
from controller.azure.http.arm_client import Arm
from controller.azure.http.arm_reader import NOTHING, ArmReader, Enough, read_all
from controller.azure.http.call import Caller, Observer, ignore_outcome
from controller.azure.http.json_reader import (
    Json,
    child,
    children,
    required_child,
    required_text,
    text,
    verified_body,
)
from controller.azure.http.long_running import Poller
from controller.azure.http.resource_id import ResourceId
from controller.azure.http.sdk_clients import SdkClients
from controller.clock import Clock
from controller.core.azure_names import fold, short
from controller.core.resources import PowerState, Vm
from controller.errors import (
    ContractViolation,
    ControllerError,
    InvariantViolation,
    NotFound,
    SetupError,
    VersionRefused,
)

GONE_AFTER_S = 1.0
PARALLEL_READS = 8
WITH_POWER: Mapping[str, str] = MappingProxyType({"$expand": "instanceView"})
_log = logging.getLogger("lbdrain.azure.compute")


class _VirtualMachines(Protocol):
    async def begin_perform_maintenance(
        self, group: str, name: str, /, **options: Any
    ) -> Poller: ...


class ComputeClient(Protocol):
    """The part of `ComputeManagementClient` used here; its own annotations are mostly Any."""

    @property
    def virtual_machines(self) -> _VirtualMachines: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class VmListing:
    """The VMs of a set, as far as the list of their resource group shows them."""

    vms: Mapping[str, Vm]
    """By folded id. A VM whose body in the list cannot be used is missing."""
    pages: int
    """How many pages were read."""
    complete: bool
    """Whether the list has no more pages."""
    problem: ControllerError | None = None
    """Why the next page could not be read; None if it was not asked for."""


class Compute:
    """Client of Microsoft.Compute."""

    def __init__(self, arm: Arm, *, clock: Clock, observer: Observer = ignore_outcome) -> None:

        self._clock = clock
        self.version = arm.compute_version
        self._caller = Caller(
            service="compute", clock=clock, observer=observer, version=self.version
        )
        self._reader = ArmReader(arm, self._caller)
        self._clients = SdkClients[ComputeClient](
            arm, "azure.mgmt.compute.aio", "ComputeManagementClient"
        )
        self._missing_since: dict[str, float] = {}
        self.guids: dict[str, str] = {}
        """The `vmId` of each VM, by folded id, as last read."""
        self._problems: dict[str, str] = {}
        """Why a VM is set aside, by folded id."""
        self._lists_power = True
        """Whether Azure accepts the list of VMs with instance views."""

    # --- the set

    async def discover(self, vm_id: str) -> AvailabilitySet:
        """Return the availability set of a VM, from two GETs."""
        return await self.availability_set(await self.set_id_of(vm_id))

    async def set_id_of(self, vm_id: str) -> str:
        """Return the id of the availability set of a VM, as the VM states it.

        The metadata service does not name the set (Microsoft docs, Instance Metadata Service).

        Raises:
            SetupError: the VM is in no availability set.
        """
        body = await self._reader.get("vm_get", vm_id)
        properties = required_child(verified_body(vm_id, body), "properties", vm_id)
        set_id = text(child(properties, "availabilitySet", vm_id), "id")
        scale_set_id = text(child(properties, "virtualMachineScaleSet", vm_id), "id")
        if not set_id and scale_set_id:
            raise SetupError(
                f"{vm_id} is in the scale set {short(scale_set_id)} and in no availability set, "
                "and this service manages availability sets only. If Azure has converted the set, "
                "check that every VM is in its pools, then remove the service",
                scale_set_id=scale_set_id,
            )
        if not set_id:
            raise SetupError(
                f"{vm_id} is not in an availability set, so no peer can take over. A VM can join a "
                "set only when it is created: create it again in a set, or do not install this "
                "service"
            )
        return set_id

    async def availability_set(self, set_id: str) -> AvailabilitySet:
        """Return an availability set, from a GET."""
        found = parse_availability_set(await self._set_body(set_id))
        _warn_of_approvals(found)
        return replace(found, availability_set_id=set_id)

    async def listed_set_of(self, vm_id: str) -> AvailabilitySet:
        """Return the availability set that lists a VM, from the list of its resource group.

        It needs no read of the VM or of the set, each of which has a request limit of its own. A VM
        is always in the resource group of its set.

        Raises:
            ContractViolation: no set lists it. One list is no proof that it is in none.
        """
        target = ResourceId.parse(vm_id)
        path = (
            f"/subscriptions/{target.subscription}/resourceGroups/{target.group}"
            "/providers/Microsoft.Compute/availabilitySets"
        )
        for body in await self._reader.entries("availability_set_list", path):
            with suppress(ContractViolation):
                found = parse_availability_set(body)
                if fold(vm_id) in map(fold, found.vm_ids):
                    _warn_of_approvals(found)
                    return found
        raise ContractViolation(f"no availability set of its resource group lists {vm_id}")

    async def set_vms(self, availability_set_id: str) -> SetVms:
        """Return the ids of the VMs of a set, as the set itself lists them."""
        return parse_set_vms(await self._set_body(availability_set_id))

    async def scale_set_vms(self, scale_set_id: str) -> tuple[str, ...]:
        """Return the ids of the VMs of a flexible scale set, which are VMs of their own."""
        group = scale_set_id[: fold(scale_set_id).rfind("/providers/")]
        path = f"{group}/providers/Microsoft.Compute/virtualMachines"
        found: list[str] = []
        for body in await self._reader.entries("vm_list", path):
            with suppress(ContractViolation):
                vm = self._vm(body)
                if fold(vm.scale_set_id) == fold(scale_set_id):
                    found.append(vm.vm_id)
        return tuple(found)

    async def _set_body(self, set_id: str) -> Json:
        ResourceId.parse(set_id)
        return verified_body(set_id, await self._reader.get("availability_set_get", set_id))

    # --- its VMs

    async def members(self, availability_set_id: str) -> tuple[Vm, ...]:
        """Return all VMs of the set with NICs and power, in the set's order.

        A VM that the list of the resource group does not show is read by its id. If that fails
        too, `Vm.problem` has the reason: one VM must not hide the others (law L2).

        Raises:
            ControllerError: no VM could be read.
        """
        vm_ids = (await self.set_vms(availability_set_id)).vm_ids
        listing = await self.list_vms(availability_set_id, vm_ids)
        listed = listing.vms
        gate = asyncio.Semaphore(PARALLEL_READS)

        async def find(vm_id: str) -> Vm:
            known = listed.get(fold(vm_id))
            if known is not None:
                return known
            async with gate:
                return await self._read_or_set_aside(vm_id)

        vms = tuple(await asyncio.gather(*(find(vm_id) for vm_id in vm_ids)))
        if listing.problem is not None and vms and all(vm.problem for vm in vms):
            raise listing.problem
        self.report_problems(vms)
        return vms

    async def list_vms(
        self, availability_set_id: str, vm_ids: Iterable[str], *, enough: Enough = read_all
    ) -> VmListing:
        """Return what the list of the resource group shows of these VMs.

        A VM is always in the resource group of its set, and Azure has no filter for availability
        sets. The list with instance views is outside the published contract
        (Azure/azure-rest-api-specs#42411): if Azure refuses it, the list is read without them, and
        power states are unknown.
        """
        target = ResourceId.parse(availability_set_id)
        path = (
            f"/subscriptions/{target.subscription}/resourceGroups/{target.group}"
            "/providers/Microsoft.Compute/virtualMachines"
        )
        wanted = frozenset(fold(vm_id) for vm_id in vm_ids)
        params = WITH_POWER if self._lists_power else NOTHING
        listing = await self._reader.listing("vm_list", path, params, enough=enough)
        if params and not listing.pages and _is_refused(listing.problem):
            without = await self._reader.listing("vm_list", path, enough=enough)
            if without.pages:
                self._lists_power = False
                listing = without
        found: dict[str, Vm] = {}
        for body in listing.entries:
            # VMs of other sets are ignored; a VM of this set is then read again by its id.
            with suppress(ContractViolation):
                if fold(text(body, "id")) in wanted:
                    vm = self._vm(body)
                    found[fold(vm.vm_id)] = vm
        return VmListing(
            vms=found, pages=listing.pages, complete=listing.complete, problem=listing.problem
        )

    async def vm(self, vm_id: str) -> Vm:
        """Return one VM with NICs and power."""
        body = await self._reader.get("vm_get", vm_id, WITH_POWER)
        return self._vm(verified_body(vm_id, body))

    def report_problems(self, vms: Iterable[Vm]) -> None:
        """Log every VM that is set aside, once per problem."""
        problems = {fold(vm.vm_id): vm for vm in vms if vm.problem}
        for key, vm in problems.items():
            if self._problems.get(key) != vm.problem:
                _log.warning("VM %s is set aside, the other VMs are used: %s", vm.name, vm.problem)
        self._problems = {key: vm.problem for key, vm in problems.items()}

    async def power(self, vm_id: str) -> PowerState:
        """Return the power state of a VM.

        A single 404 can be replication lag and is raised as `NotFound`. Another one, a second or
        more later, means GONE.
        """
        try:
            vm = await self.vm(vm_id)
        except NotFound:
            now = self._clock.monotonic()
            first = self._missing_since.setdefault(fold(vm_id), now)
            if now - first < GONE_AFTER_S:
                raise
            return PowerState.GONE
        self._missing_since.pop(fold(vm_id), None)
        return vm.power

    async def power_in_view(self, vm_id: str) -> PowerState:
        """Return the power state of a VM by its instance view alone, another kind of request."""
        ResourceId.parse(vm_id)
        view = await self._reader.get("vm_view_get", f"{vm_id}/instanceView")
        power = power_in(view)
        if power is PowerState.UNKNOWN:
            raise ContractViolation(f"the instance view of {vm_id} shows no power state")
        return power

    async def client(self, subscription: str) -> ComputeClient:
        """Return the SDK client of a subscription."""
        return await self._clients.of(subscription)

    async def vm_body(self, vm_id: str) -> Json:
        """Return the body of one VM with its instance view."""
        return verified_body(vm_id, await self._reader.get("vm_get", vm_id, WITH_POWER))

    async def _read_or_set_aside(self, vm_id: str) -> Vm:
        try:
            return await self.vm(vm_id)
        except NotFound:
            # One reply of either kind can be old. Which NICs the VM has is not known.
            problem = "Azure lists it in the availability set, and does not find it"
        except InvariantViolation:
            raise
        except ControllerError as error:
            problem = str(error)
        # It is still a peer by its name, as long as the set lists it.
        return Vm(name=short(vm_id), vm_id=vm_id, nic_ids=(), problem=problem)

    def _vm(self, body: Json) -> Vm:
        vm_id = required_text(body, "id", "a VM")
        properties = required_child(body, "properties", vm_id)
        profile = required_child(properties, "networkProfile", vm_id)
        interfaces = children(profile, "networkInterfaces", vm_id)
        view = cast("object", properties.get("instanceView"))
        guid = text(properties, "vmId")
        self.guids[fold(vm_id)] = guid
        return Vm(
            name=ResourceId.parse(vm_id).names[-1],
            vm_id=vm_id,
            nic_ids=tuple(
                required_text(interface, "id", f"a NIC of {vm_id}") for interface in interfaces
            ),
            power=power_in(view),
            power_observed_at=self._clock.now() if view else None,
            guid=guid,
            scale_set_id=text(child(properties, "virtualMachineScaleSet", vm_id), "id"),
        )


def _warn_of_approvals(found: AvailabilitySet) -> None:
    if found.approves:
        _log.warning(
            "scheduledEventsPolicy of the availability set approves %s automatically: these "
            "events start before the drain has ended",
            ", ".join(found.approves),
        )


def _is_refused(problem: ControllerError | None) -> bool:
    """Return whether Azure refused a request for what it asks, and not for who asks or how often.

    A refused api-version is not about the parameters.
    """
    return problem is not None and problem.status == 400 and not isinstance(problem, VersionRefused)


def power_in(view: object) -> PowerState:
    """Return the power state in an instance view; UNKNOWN if it shows none."""
    statuses = cast("Json", view).get("statuses") if isinstance(view, dict) else None
    for status in cast("list[object]", statuses) if isinstance(statuses, list) else ():
        code = cast("Json", status).get("code") if isinstance(status, dict) else None
        kind, _, state = code.casefold().partition("/") if isinstance(code, str) else ("", "", "")
        if kind == "powerstate":
            return PowerState.RUNNING if state == "running" else PowerState.NOT_RUNNING
    return PowerState.UNKNOWN
