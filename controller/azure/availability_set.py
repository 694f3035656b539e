"""The body of an availability set: its VMs, and what decides about their events."""

from dataclasses import replace
from typing import cast

from controller.azure.http.arm_reader import ArmReader
from controller.azure.http.json_reader import (
    Json,
    as_object,
    child,
    required_child,
    required_text,
    text,
    verified_body,
)
from controller.azure.http.resource_id import ResourceId
from controller.azure.vm_set import SetVms, VmSet
from controller.core.azure_names import fold
from controller.errors import ContractViolation


class AvailabilitySetReader:
    """Reads availability sets: the body of one lists its members."""

    def __init__(self, reader: ArmReader) -> None:
        self._reader = reader

    async def read(self, set_id: str) -> VmSet:
        """Return an availability set, from one GET."""
        return replace(parse_availability_set(await self._body(set_id)), set_id=set_id)

    async def vms(self, set_id: str) -> SetVms:
        """Return the ids of the VMs, as the set itself lists them."""
        return parse_set_vms(await self._body(set_id))

    async def _body(self, set_id: str) -> Json:
        ResourceId.parse(set_id)
        return verified_body(set_id, await self._reader.get("availability_set_get", set_id))


def parse_availability_set(body: Json) -> VmSet:
    """Return the availability set in `body`."""
    return VmSet(
        set_id=required_text(body, "id", "an availability set"),
        vm_ids=parse_set_vms(body).vm_ids,
        approves=approves(body, "an availability set"),
        update_domains=_update_domains(body),
        publishes=publishes(body, "an availability set"),
        migrates_to=_migrates_to(body),
    )


def parse_set_vms(body: Json) -> SetVms:
    """Return the VMs that the set in `body` lists."""
    properties = required_child(body, "properties", "an availability set")
    references = cast("object", properties.get("virtualMachines"))
    if not isinstance(references, list):
        # Azure sends an empty list; without it no VM would count as a peer.
        raise ContractViolation("the availability set has no list of virtualMachines")
    found: dict[str, str] = {}
    odd = 0
    for reference in cast("list[object]", references):
        try:
            vm_id = required_text(as_object(reference, "a VM reference"), "id", "a VM reference")
            found.setdefault(fold(ResourceId.parse(vm_id).names[-1]), vm_id)
        except ContractViolation:
            odd += 1
    if odd and not found:
        raise ContractViolation("no VM that the availability set lists can be read")
    return SetVms(vm_ids=tuple(found.values()), complete=not odd)


def _update_domains(body: Json) -> int:
    properties = required_child(body, "properties", "an availability set")
    count = cast("object", properties.get("platformUpdateDomainCount"))
    return count if isinstance(count, int) else 0


def _migrates_to(body: Json) -> str:
    """Return the scale set to which the set is being migrated.

    (Microsoft docs, migration of availability sets to flexible scale sets, preview.)
    """
    properties = child(body, "properties", "an availability set")
    migration = child(properties, "virtualMachineScaleSetMigrationInfo", "an availability set")
    return text(child(migration, "migrateToVirtualMachineScaleSet", "an availability set"), "id")


def approves(body: Json, what: str) -> tuple[str, ...]:
    """Return the user events that a set approves automatically, before the drain has ended.

    `allInstancesDown` is approved by default (Microsoft docs, api-version 2025-04-01): nothing is
    left to serve then, so it is no cause for a warning.
    """
    properties = child(body, "properties", what)
    policy = child(properties, "scheduledEventsPolicy", what)
    automatic = sorted(
        kind
        for kind, rule in policy.items()
        if kind.startswith("userInitiated")
        and isinstance(rule, dict)
        and cast("Json", rule).get("automaticallyApprove") is True
    )
    return tuple(automatic)


def publishes(body: Json, what: str) -> bool:
    """Return whether a set sends its events to Resource Graph and Event Grid.

    It does so only if its owner has opted in (Microsoft docs, Scheduled Events in Azure Resource
    Graph, preview, 05/01/2026).
    """
    part = child(body, "properties", what)
    for name in (
        "scheduledEventsPolicy",
        "scheduledEventsAdditionalPublishingTargets",
        "eventGridAndResourceGraph",
    ):
        part = child(part, name, what)
    return part.get("enable") is True
