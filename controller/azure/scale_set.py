"""A flexible scale set: its members are VMs of their own, with the NICs and the APIs of any VM.

The scale set does not list them. The list of VMs has a filter for it, and shows every VM whole
(Microsoft docs, Virtual Machines - List: `$filter='virtualMachineScaleSet/id' eq '...'`; with a
filter, `$expand=instanceView` is in the published contract).

An instance of a uniform scale set is no VM of its own: its NIC is part of the scale set's model,
and no agent can take it out of a pool.
"""

import logging
from collections.abc import Callable
from contextlib import suppress

from controller.azure.availability_set import approves, publishes
from controller.azure.http.arm_reader import ArmReader, Listing
from controller.azure.http.json_reader import Json, required_child, text, verified_body
from controller.azure.http.resource_id import ResourceId
from controller.azure.vm_set import SetVms, VmSet
from controller.core.azure_names import fold, short
from controller.core.resources import Vm
from controller.errors import (
    ContractViolation,
    Denied,
    SetupError,
    VersionRefused,
)

_log = logging.getLogger("lbdrain.azure.compute")
FLEXIBLE = "flexible"


class ScaleSetReader:
    """Reads flexible scale sets.

    Args:
        reader: sends the requests.
        parse_vm: returns the VM that a body describes.
    """

    def __init__(self, reader: ArmReader, parse_vm: Callable[[Json], Vm]) -> None:
        self._reader, self._parse_vm = reader, parse_vm
        self._lists_power = True
        """Whether Azure accepts the list of VMs with instance views."""

    async def read(self, set_id: str) -> VmSet:
        """Return a scale set, from one GET and the list of its VMs.

        A role of before scale sets does not allow the GET: the set is then used without it, because
        what has the id of a VM and names a scale set is an instance of a flexible one.

        Raises:
            SetupError: the scale set is no flexible one.
        """
        unread, policy, sends = "", tuple[str, ...](), False
        try:
            body = await self._body(set_id)
        except Denied as error:
            unread = str(error)
            _log.info("the scale set is used without its policy: %s", error)
        else:
            _require_flexible(set_id, body)
            policy, sends = approves(body, "a scale set"), publishes(body, "a scale set")
        found = await self.vms(set_id)
        if found.problem is not None:
            raise found.problem
        return VmSet(
            set_id=set_id,
            vm_ids=found.vm_ids,
            approves=policy,
            publishes=sends,
            unread=unread,
        )

    async def vms(self, set_id: str) -> SetVms:
        """Return the members. A scale set that does not exist has an empty list, too.

        Raises:
            NotFound: the list is empty, and the scale set is not found.
        """
        listing = await self._list(set_id)
        if listing.problem is not None and not listing.pages:
            raise listing.problem
        vms: dict[str, Vm] = {}
        ids: dict[str, str] = {}
        odd = 0
        for body in listing.entries:
            vm_id = text(body, "id")
            try:
                name = fold(ResourceId.parse(vm_id).names[-1])
            except ContractViolation:
                odd += 1
                continue
            ids.setdefault(name, vm_id)
            with suppress(ContractViolation):  # it is read by its id then
                vms[fold(vm_id)] = self._parse_vm(body)
        if not ids and listing.complete and not odd:
            await self._body(set_id)
        return SetVms(
            vm_ids=tuple(ids.values()),
            complete=listing.complete and not odd and bool(ids),
            vms=vms,
            requests=listing.pages,
            problem=listing.problem,
        )

    async def _body(self, set_id: str) -> Json:
        ResourceId.parse(set_id)
        return verified_body(set_id, await self._reader.get("scale_set_get", set_id))

    async def _list(self, set_id: str) -> Listing:
        target = ResourceId.parse(set_id)
        path = (
            f"/subscriptions/{target.subscription}/resourceGroups/{target.group}"
            "/providers/Microsoft.Compute/virtualMachines"
        )
        params = {"$filter": f"'virtualMachineScaleSet/id' eq '{set_id}'"}
        if not self._lists_power:
            return await self._reader.listing("vm_list", path, params)
        expanded = {**params, "$expand": "instanceView"}
        listing = await self._reader.listing("vm_list", path, expanded)
        problem = listing.problem
        refused = problem is not None and problem.status == 400
        if refused and not listing.pages and not isinstance(problem, VersionRefused):
            without = await self._reader.listing("vm_list", path, params)
            if without.pages:
                self._lists_power = False
                listing = without
        return listing


def _require_flexible(set_id: str, body: Json) -> None:
    """Refuse a scale set that is not flexible; one without a mode is taken at its VMs' word."""
    mode = text(required_child(body, "properties", "a scale set"), "orchestrationMode")
    if mode and fold(mode) != FLEXIBLE:
        raise refused_uniform(short(set_id), mode)


def refused_uniform(name: str, mode: str = "Uniform") -> SetupError:
    """Return why the instances of a scale set that is not flexible cannot be drained."""
    return SetupError(
        f"the scale set {name} has the orchestration mode {mode}: the NICs of its instances belong "
        "to the model of the scale set, so no agent can take one instance out of a pool. Only "
        "flexible scale sets are managed: create the VMs in a scale set with "
        "--orchestration-mode Flexible, or do not install this service on them"
    )
