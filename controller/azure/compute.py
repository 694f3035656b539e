"""Client of Microsoft.Compute: the set, its VMs, and their power states."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, cast

from controller.azure.availability_set import AvailabilitySetReader, parse_availability_set
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
from controller.azure.scale_set import ScaleSetReader, refused_uniform
from controller.azure.vm_set import SetReader, SetVms, VmSet
from controller.clock import Clock
from controller.core.azure_names import SetKind, fold, short
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
        self._sets: Mapping[SetKind, SetReader] = {
            SetKind.AVAILABILITY_SET: AvailabilitySetReader(self._reader),
            SetKind.SCALE_SET: ScaleSetReader(self._reader, self._vm),
        }
        self._missing_since: dict[str, float] = {}
        self.guids: dict[str, str] = {}
        """The `vmId` of each VM, by folded id, as last read."""
        self._problems: dict[str, str] = {}
        """Why a VM is set aside, by folded id."""
        self._lists_power = True
        """Whether Azure accepts the list of VMs with instance views."""

    # --- the set

    async def discover(self, vm_id: str) -> VmSet:
        """Return the set of a VM, from a GET of the VM and one of the set."""
        return await self.read_set(await self.set_id_of(vm_id))

    async def set_id_of(self, vm_id: str) -> str:
        """Return the id of the set of a VM, as the VM states it: in one of the two kinds.

        The metadata service does not name an availability set (Microsoft docs, Instance Metadata
        Service).

        Raises:
            SetupError: the VM is in no set, or in a uniform scale set.
        """
        kind = "/virtualmachinescalesets/"
        if kind in fold(vm_id):
            raise refused_uniform(vm_id[fold(vm_id).find(kind) :].split("/")[2])
        body = await self._reader.get("vm_get", vm_id)
        found = _stated_set(verified_body(vm_id, body), vm_id)
        if not found:
            raise SetupError(
                f"{vm_id} is not in an availability set or scale set, so no peer can take over. A "
                "VM can join an availability set only when it is created: create it again in a "
                "set, or do not install this service"
            )
        return found

    async def read_set(self, set_id: str) -> VmSet:
        """Return a set with its members and its policy.

        Raises:
            SetupError: it is a scale set that is not flexible.
        """
        found = await self._sets[SetKind.of(set_id)].read(set_id)
        _warn_of_approvals(found)
        return found

    async def listed_set_of(self, vm_id: str) -> VmSet:
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

    async def set_vms(self, set_id: str) -> SetVms:
        """Return the members of a set."""
        return await self._sets[SetKind.of(set_id)].vms(set_id)

    # --- its VMs

    async def members(self, set_id: str) -> tuple[Vm, ...]:
        """Return all VMs of the set with NICs and power, in the set's order.

        A VM that the list of the resource group does not show is read by its id. If that fails
        too, `Vm.problem` has the reason: one VM must not hide the others (law L2).

        Raises:
            ControllerError: no VM could be read.
        """
        found = await self.set_vms(set_id)
        vm_ids, listed, problem = found.vm_ids, found.vms, found.problem
        if SetKind.of(set_id) is SetKind.AVAILABILITY_SET:
            listing = await self.list_vms(set_id, vm_ids)
            listed, problem = listing.vms, listing.problem
        gate = asyncio.Semaphore(PARALLEL_READS)

        async def find(vm_id: str) -> Vm:
            known = listed.get(fold(vm_id))
            if known is not None:
                return known
            async with gate:
                return await self._read_or_set_aside(vm_id)

        vms = tuple(await asyncio.gather(*(find(vm_id) for vm_id in vm_ids)))
        if problem is not None and vms and all(vm.problem for vm in vms):
            raise problem
        self.report_problems(vms)
        return vms

    async def list_vms(
        self, set_id: str, vm_ids: Iterable[str], *, enough: Enough = read_all
    ) -> VmListing:
        """Return what the list of the resource group shows of these VMs.

        A VM is always in the resource group of its set, and Azure has no filter for availability
        sets. The list with instance views is outside the published contract
        (Azure/azure-rest-api-specs#42411): if Azure refuses it, the list is read without them, and
        power states are unknown.
        """
        target = ResourceId.parse(set_id)
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
            problem = "Azure lists it in the set, and does not find it"
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
            set_id=_stated_set(body, vm_id),
        )


def _stated_set(body: Json, vm_id: str) -> str:
    """Return the set that a VM states it is in; empty for none. It is in one set at most."""
    properties = required_child(body, "properties", vm_id)
    scale_set_id = text(child(properties, "virtualMachineScaleSet", vm_id), "id")
    return text(child(properties, "availabilitySet", vm_id), "id") or scale_set_id


def _warn_of_approvals(found: VmSet) -> None:
    if found.approves:
        _log.warning(
            "scheduledEventsPolicy of the %s approves %s automatically: these events start before "
            "the drain has ended",
            found.kind.value,
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
