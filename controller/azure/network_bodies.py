"""Bodies of NICs, pools and load balancers: parsing, and the edits of pool lists. Pure.

A PUT replaces the resource: a property that it leaves out returns to its default (Microsoft docs,
Azure Resource Manager; Azure/azure-rest-api-specs#11948). So bodies are copied as received, unknown
properties included, and only one pool list is edited.
"""

import copy
import json
from collections.abc import Container, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from controller.azure.http.json_reader import (
    Json,
    as_object,
    child,
    children,
    required_child,
    required_text,
    text,
)
from controller.azure.recorded_entries import address_of, recorded_body, writable_entry
from controller.azure.rule_health_bodies import parse_rules
from controller.core.azure_names import fold, fold_address
from controller.core.printable import excerpt
from controller.core.resources import (
    AddressMembership,
    IpConfiguration,
    LoadBalancer,
    Nic,
    NicMembership,
    Pool,
    PoolKind,
    PoolMember,
)
from controller.errors import ContractViolation

POOLS_KEY = "loadBalancerBackendAddressPools"
ADDRESSES_KEY = "loadBalancerBackendAddresses"
MAX_STATE_CHARACTERS = 40
"""Limit for an adminState; the documented ones have at most 4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A body with one change."""

    body: Json
    changed: bool
    absent: tuple[Any, ...] = ()
    """Memberships that could not or need not be changed."""


def encode(edit: Edit) -> bytes:
    """Return the body of an edit as it is sent."""
    return json.dumps(edit.body, separators=(",", ":")).encode()


# --- NIC ----------------------------------------------------------------------------------------


def parse_nic(body: Json, observed_at: datetime, *, keep_body: bool = True) -> Nic:
    """Return the NIC in `body`."""
    nic_id = required_text(body, "id", "a NIC")
    properties = required_child(body, "properties", nic_id)
    configurations = tuple(
        _parse_ip_configuration(entry, nic_id)
        for entry in children(properties, "ipConfigurations", nic_id)
    )
    if not configurations:
        # Every NIC has one. Without it, the NIC would seem to be out of every pool.
        raise ContractViolation(f"{excerpt(nic_id)} has no ipConfigurations")
    _refuse_duplicates((configuration.name for configuration in configurations), nic_id)
    return Nic(
        nic_id=nic_id,
        vm_id=text(child(properties, "virtualMachine", nic_id), "id"),
        etag=text(body, "etag"),
        ip_configurations=configurations,
        failed=_failed(properties),
        updating=text(properties, "provisioningState").casefold() == "updating",
        guid=text(properties, "resourceGuid"),
        observed_at=observed_at,
        body=body if keep_body else None,
    )


def is_about(body: Json, nic_ids: Container[str], vm_ids: Container[str]) -> bool:
    """Return whether the body of a NIC is that of one of these NICs, or of a NIC of these VMs.

    Args:
        body: the NIC in a list.
        nic_ids, vm_ids: folded ids.
    """
    if fold(text(body, "id")) in nic_ids:
        return True
    owner = child(child(body, "properties", "a NIC"), "virtualMachine", "a NIC")
    return fold(text(owner, "id")) in vm_ids


def _failed(properties: Json) -> bool:
    return text(properties, "provisioningState").casefold() == "failed"


def _parse_ip_configuration(entry: Json, nic_id: str) -> IpConfiguration:
    name = required_text(entry, "name", f"an ipConfiguration of {nic_id}")
    properties = required_child(entry, "properties", name)
    pools = children(properties, POOLS_KEY, name)
    return IpConfiguration(
        name=name,
        pool_ids=tuple(required_text(pool, "id", f"a pool of {name}") for pool in pools),
        private_ip=text(properties, "privateIPAddress"),
    )


def _refuse_duplicates(names: Iterable[str], where: str) -> None:
    """Refuse a list with a name twice, because a membership could not be assigned to one entry."""
    seen: set[str] = set()
    for name in names:
        if fold(name) in seen:
            raise ContractViolation(f"{excerpt(name)} is twice in {excerpt(where)}")
        seen.add(fold(name))


def pool_references(nic: Nic) -> frozenset[tuple[str, str]]:
    """Return the pools of a NIC, as folded (ipConfiguration, pool id) pairs."""
    return frozenset(
        (fold(configuration.name), fold(pool_id))
        for configuration in nic.ip_configurations
        for pool_id in configuration.pool_ids
    )


def pool_reference(membership: NicMembership) -> tuple[str, str]:
    """Return the (ipConfiguration, pool id) pair of a membership, folded."""
    return fold(membership.ip_configuration), fold(membership.pool_id)


def without_memberships(body: Json, memberships: tuple[NicMembership, ...]) -> Edit:
    """Return the NIC body without exactly these pool references.

    An empty list stays as []: to Azure it means the same as the absent property.
    """
    edited = copy.deepcopy(body)
    wanted = {pool_reference(membership) for membership in memberships}
    found: set[tuple[str, str]] = set()
    for name, properties in _configurations(edited):
        entries = children(properties, POOLS_KEY, name)
        pairs = [(fold(name), fold(text(entry, "id"))) for entry in entries]
        hits = wanted.intersection(pairs)
        if hits:
            found |= hits
            properties[POOLS_KEY] = [
                entry for entry, pair in zip(entries, pairs, strict=True) if pair not in hits
            ]
    return Edit(
        body=edited,
        changed=bool(found),
        absent=tuple(item for item in memberships if pool_reference(item) not in found),
    )


def with_memberships(body: Json, memberships: tuple[NicMembership, ...]) -> Edit:
    """Return the NIC body with these pool references at their old positions.

    An existing reference stays as it is. A reference whose ipConfiguration no longer exists, or
    whose NIC is another one with the old name, is `absent`.
    """
    edited = copy.deepcopy(body)
    guid = fold(text(child(edited, "properties", "a NIC"), "resourceGuid"))
    other = {item for item in memberships if guid and item.nic_guid and fold(item.nic_guid) != guid}
    configurations = {fold(name): properties for name, properties in _configurations(edited)}
    changed = False
    # In ascending order, because a position counts the entries that were restored before it.
    for membership in sorted(memberships, key=lambda item: item.position):
        properties = configurations.get(fold(membership.ip_configuration))
        if properties is None or membership in other:
            continue
        entries = children(properties, POOLS_KEY, membership.ip_configuration)
        if any(fold(text(entry, "id")) == fold(membership.pool_id) for entry in entries):
            continue
        position = min(max(membership.position, 0), len(entries))
        properties[POOLS_KEY] = [
            *entries[:position],
            {"id": membership.pool_id},
            *entries[position:],
        ]
        changed = True
    return Edit(
        body=edited,
        changed=changed,
        absent=tuple(
            item
            for item in memberships
            if fold(item.ip_configuration) not in configurations or item in other
        ),
    )


def _configurations(body: Json) -> list[tuple[str, Json]]:
    """Return name and properties of each ipConfiguration, for editing in place."""
    nic_id = text(body, "id")
    entries = children(child(body, "properties", nic_id), "ipConfigurations", nic_id)
    return [
        (
            text(entry, "name"),
            as_object(entry.get("properties"), "properties of an ipConfiguration"),
        )
        for entry in entries
    ]


# --- pools --------------------------------------------------------------------------------------


def parse_load_balancer(body: Json, observed_at: datetime) -> LoadBalancer:
    """Return the load balancer in `body` with all its pools; one that is odd hides no other."""
    load_balancer_id = required_text(body, "id", "a load balancer")
    properties = required_child(body, "properties", load_balancer_id)
    if "backendAddressPools" not in properties:
        # Azure sends an empty list; without it every pool would seem to be deleted.
        raise ContractViolation(f"{excerpt(load_balancer_id)} has no backendAddressPools")
    pools: dict[str, Pool] = {}
    problems: dict[str, str] = {}
    for entry in children(properties, "backendAddressPools", load_balancer_id):
        pool_id = fold(required_text(entry, "id", f"a pool of {load_balancer_id}"))
        if pool_id in pools:
            problems[pool_id] = f"{excerpt(pool_id)} is twice in {excerpt(load_balancer_id)}"
            continue
        try:
            pools[pool_id] = parse_pool(entry, observed_at)
        except ContractViolation as error:
            problems[pool_id] = str(error)
    return LoadBalancer(
        load_balancer_id=load_balancer_id,
        sku=text(child(body, "sku", load_balancer_id), "name"),
        pools=tuple(pool for key, pool in pools.items() if key not in problems),
        problems=problems,
        rules=parse_rules(properties),
        observed_at=observed_at,
    )


def parse_pool(body: Json, observed_at: datetime) -> Pool:
    """Return the pool in `body`.

    A NIC-based pool lists its members twice, as references and as generated addresses. Either list
    can be missing (in the body of a load balancer the addresses often are), so both are read.
    """
    pool_id = required_text(body, "id", "a backend pool")
    properties = required_child(body, "properties", pool_id)
    references = _references(properties, pool_id)
    members = [
        _member(state, ip_configuration_id=reference) for reference, state in references.values()
    ]
    addresses = [
        _member(state_of(entry), address=_membership(pool_id, entry))
        for entry in children(properties, ADDRESSES_KEY, pool_id)
        if _is_address(entry)
    ]
    kind = PoolKind.NIC if members else PoolKind.ADDRESS if addresses else PoolKind.EMPTY
    if kind is PoolKind.ADDRESS:
        members = addresses
    return Pool(
        pool_id=pool_id,
        kind=kind,
        members=tuple(members),
        etag=text(body, "etag"),
        failed=_failed(properties),
        observed_at=observed_at,
    )


def _member(state: str, **place: Any) -> PoolMember:
    return PoolMember(admin_state=state, admin_down=state.casefold() == "down", **place)


def _references(properties: Json, pool_id: str) -> dict[str, tuple[str, str]]:
    """Return the ipConfigurations of a pool with their adminState, by folded id."""
    found: dict[str, tuple[str, str]] = {}
    for reference in children(properties, "backendIPConfigurations", pool_id):
        reference_id = required_text(reference, "id", f"a member of {pool_id}")
        found[fold(reference_id)] = reference_id, ""
    for entry in children(properties, ADDRESSES_KEY, pool_id):
        if reference_id := reference_of(entry):
            found[fold(reference_id)] = reference_id, state_of(entry)
    return found


def reference_of(entry: Json) -> str:
    """Return the id of the ipConfiguration of a pool entry; empty for an address."""
    details = child(entry, "properties", "a backend address")
    return text(child(details, "networkInterfaceIPConfiguration", "a backend address"), "id")


def state_of(entry: Json) -> str:
    """Return the adminState of a pool entry; clients spell it in any case.

    What is no text names no state.
    """
    state = child(entry, "properties", "a backend address").get("adminState")
    return state[:MAX_STATE_CHARACTERS] if isinstance(state, str) else ""


def _is_address(entry: Json) -> bool:
    details = child(entry, "properties", "a backend address")
    return bool(text(details, "ipAddress")) and not details.get("networkInterfaceIPConfiguration")


def address_entries(body: Json) -> frozenset[tuple[str, str]]:
    """Return the entries of a pool body, as folded (name, address) pairs."""
    properties = required_child(body, "properties", "a backend pool")
    return frozenset(
        (fold(text(entry, "name")), address_of(entry))
        for entry in children(properties, ADDRESSES_KEY, "a backend pool")
    )


def _membership(pool_id: str, entry: Json) -> AddressMembership:
    return AddressMembership(
        pool_id=pool_id,
        name=text(entry, "name"),
        ip_address=text(child(entry, "properties", pool_id), "ipAddress"),
        body=recorded_body(pool_id, entry),
    )


def without_addresses(body: Json, memberships: tuple[AddressMembership, ...]) -> Edit:
    """Return the pool body without exactly these addresses."""
    edited = copy.deepcopy(body)
    properties = as_object(edited.get("properties"), "properties of a pool")
    entries = children(properties, ADDRESSES_KEY, text(edited, "id"))
    # An entry without an address belongs to a NIC, and must not match an empty address.
    wanted = {fold_address(membership.ip_address) for membership in memberships} - {""}
    found = {address_of(entry) for entry in entries} & wanted
    if found:
        properties[ADDRESSES_KEY] = [entry for entry in entries if address_of(entry) not in found]
    return Edit(
        body=edited,
        changed=bool(found),
        absent=tuple(item for item in memberships if fold_address(item.ip_address) not in found),
    )


def with_addresses(body: Json, memberships: tuple[AddressMembership, ...]) -> Edit:
    """Return the pool body with these entries as they were, without their read-only properties.

    An existing address stays as it is. If the name now belongs to another address, the entry is
    `absent` and does not overwrite it.
    """
    edited = copy.deepcopy(body)
    properties = as_object(edited.get("properties"), "properties of a pool")
    entries = list(children(properties, ADDRESSES_KEY, text(edited, "id")))
    present = {address_of(entry) for entry in entries}
    names = {fold(text(entry, "name")) for entry in entries}
    absent: list[AddressMembership] = []
    changed = False
    for membership in memberships:
        if fold_address(membership.ip_address) in present:
            continue
        if fold(membership.name) in names:
            absent.append(membership)
            continue
        entries.append(writable_entry(membership))
        present.add(fold_address(membership.ip_address))
        names.add(fold(membership.name))
        changed = True
    if changed:
        properties[ADDRESSES_KEY] = entries
    return Edit(body=edited, changed=changed, absent=tuple(absent))
