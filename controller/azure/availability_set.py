"""The body of an availability set: its VMs, and what decides about their events."""

from dataclasses import dataclass
from typing import cast

from controller.azure.http.json_reader import (
    Json,
    as_object,
    child,
    required_child,
    required_text,
    text,
)
from controller.azure.http.resource_id import ResourceId
from controller.core.azure_names import fold
from controller.errors import ContractViolation


@dataclass(frozen=True, slots=True, kw_only=True)
class AvailabilitySet:
    """The availability set of this VM."""

    availability_set_id: str
    vm_ids: tuple[str, ...]
    approves: tuple[str, ...] = ()
    """Rules of its scheduledEventsPolicy that approve events automatically."""
    update_domains: int = 0
    """Number of update domains, which planned maintenance reaches one by one; 0 if unknown."""
    publishes: bool = False
    """Whether its scheduled events are sent to Resource Graph and Event Grid too (preview)."""
    migrates_to: str = ""
    """Id of the flexible scale set that the set is being migrated to; empty without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetVms:
    """The VMs that an availability set lists."""

    vm_ids: tuple[str, ...]
    complete: bool = True
    """Whether every entry of the list could be read."""


def parse_availability_set(body: Json) -> AvailabilitySet:
    """Return the availability set in `body`."""
    return AvailabilitySet(
        availability_set_id=required_text(body, "id", "an availability set"),
        vm_ids=parse_set_vms(body).vm_ids,
        approves=_approves(body),
        update_domains=_update_domains(body),
        publishes=_publishes(body),
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


def _approves(body: Json) -> tuple[str, ...]:
    """Return the user events that the set approves automatically, before the drain has ended.

    `allInstancesDown` is approved by default (Microsoft docs, api-version 2025-04-01): nothing is
    left to serve then, so it is no cause for a warning.
    """
    properties = child(body, "properties", "an availability set")
    policy = child(properties, "scheduledEventsPolicy", "an availability set")
    automatic = sorted(
        kind
        for kind, rule in policy.items()
        if kind.startswith("userInitiated")
        and isinstance(rule, dict)
        and cast("Json", rule).get("automaticallyApprove") is True
    )
    return tuple(automatic)


def _publishes(body: Json) -> bool:
    """Return whether the set sends its events to Resource Graph and Event Grid.

    It does so only if its owner has opted in (Microsoft docs, Scheduled Events in Azure Resource
    Graph, preview, 05/01/2026).
    """
    part, what = child(body, "properties", "an availability set"), "an availability set"
    for name in (
        "scheduledEventsPolicy",
        "scheduledEventsAdditionalPublishingTargets",
        "eventGridAndResourceGraph",
    ):
        part = child(part, name, what)
    return part.get("enable") is True
