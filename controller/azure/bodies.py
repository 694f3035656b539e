"""NIC, pool and load balancer bodies: reading them, and the one change made to them. Pure.

A PUT replaces the resource: whatever it leaves out returns to its default (Microsoft docs, Azure
Resource Manager; Azure/azure-rest-api-specs#11948). So bodies are copied as they came, unknown
properties included, and only one pool list is edited.
"""

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from controller.azure.arm import Json, as_object, child, children, part, required, text
from controller.azure.failures import cap
from controller.core import strict_json
from controller.core.model import (
    AddressMembership,
    IpConfiguration,
    LoadBalancer,
    Nic,
    NicMembership,
    Pool,
    PoolKind,
    PoolMember,
    fold,
    fold_address,
)
from controller.errors import ContractViolation

POOLS_KEY = "loadBalancerBackendAddressPools"
ADDRESSES_KEY = "loadBalancerBackendAddresses"
_READ_ONLY_ENTRY = ("etag", "id", "type")
_READ_ONLY_PROPERTIES = (
    "provisioningState",
    "networkInterfaceIPConfiguration",
    "loadBalancerFrontendIPConfiguration",
    "inboundNatRulesPortMapping",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A body with one change, and what could not or need not be changed."""

    body: Json
    changed: bool
    absent: tuple[Any, ...] = ()


# --- NIC ----------------------------------------------------------------------------------------


def parse_nic(body: Json, observed_at: datetime, *, keep_body: bool = True) -> Nic:
    """Return the NIC in `body`."""
    nic_id = required(body, "id", "a NIC")
    properties = part(body, "properties", nic_id)
    configurations = tuple(
        _parse_ip_configuration(entry, nic_id)
        for entry in children(properties, "ipConfigurations", nic_id)
    )
    if not configurations:
        # Every NIC has one; without it, this one would seem to be out of every pool.
        raise ContractViolation(f"{cap(nic_id)} came without ipConfigurations")
    _once((configuration.name for configuration in configurations), nic_id)
    return Nic(
        nic_id=nic_id,
        vm_id=text(child(properties, "virtualMachine", nic_id), "id"),
        etag=text(body, "etag"),
        ip_configurations=configurations,
        failed=_failed(properties),
        updating=text(properties, "provisioningState").casefold() == "updating",
        observed_at=observed_at,
        body=body if keep_body else None,
    )


def _failed(properties: Json) -> bool:
    return text(properties, "provisioningState").casefold() == "failed"


def _parse_ip_configuration(entry: Json, nic_id: str) -> IpConfiguration:
    name = required(entry, "name", f"an ipConfiguration of {nic_id}")
    properties = part(entry, "properties", name)
    pools = children(properties, POOLS_KEY, name)
    return IpConfiguration(
        name=name,
        pool_ids=tuple(required(pool, "id", f"a pool of {name}") for pool in pools),
        private_ip=text(properties, "privateIPAddress"),
    )


def _once(names: Iterable[str], where: str) -> None:
    """Refuse a list in which one name stands twice: nobody could say which of them is meant."""
    seen: set[str] = set()
    for name in names:
        if fold(name) in seen:
            raise ContractViolation(f"{cap(name)} stands twice in {cap(where)}")
        seen.add(fold(name))


def standing(nic: Nic) -> frozenset[tuple[str, str]]:
    """Return what stands on a NIC, as folded (ipConfiguration, pool id) pairs."""
    return frozenset(
        (fold(configuration.name), fold(pool_id))
        for configuration in nic.ip_configurations
        for pool_id in configuration.pool_ids
    )


def place(membership: NicMembership) -> tuple[str, str]:
    """Return the (ipConfiguration, pool id) pair of a membership, folded."""
    return fold(membership.ip_configuration), fold(membership.pool_id)


def without_memberships(body: Json, memberships: tuple[NicMembership, ...]) -> Edit:
    """Return the NIC body without exactly these pool references.

    An emptied list stays, as []: Azure takes it and the absent key for the same.
    """
    edited = copy.deepcopy(body)
    wanted = {place(membership) for membership in memberships}
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
        absent=tuple(item for item in memberships if place(item) not in found),
    )


def with_memberships(body: Json, memberships: tuple[NicMembership, ...]) -> Edit:
    """Return the NIC body with these pool references where they were before.

    One that stands already is left alone; one whose ipConfiguration is gone is `absent`.
    """
    edited = copy.deepcopy(body)
    configurations = {fold(name): properties for name, properties in _configurations(edited)}
    changed = False
    # Ascending, so that every position counts the entries restored before it.
    for membership in sorted(memberships, key=lambda item: item.position):
        properties = configurations.get(fold(membership.ip_configuration))
        if properties is None:
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
            item for item in memberships if fold(item.ip_configuration) not in configurations
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
    """Return the load balancer in `body` with all its pools."""
    load_balancer_id = required(body, "id", "a load balancer")
    properties = part(body, "properties", load_balancer_id)
    if "backendAddressPools" not in properties:
        # Azure sends an empty list; a reply without it would make every pool look deleted.
        raise ContractViolation(f"{cap(load_balancer_id)} came without backendAddressPools")
    pools = tuple(
        parse_pool(pool, observed_at)
        for pool in children(properties, "backendAddressPools", load_balancer_id)
    )
    _once((pool.pool_id for pool in pools), load_balancer_id)
    return LoadBalancer(
        load_balancer_id=load_balancer_id,
        sku=text(child(body, "sku", load_balancer_id), "name"),
        pools=pools,
        observed_at=observed_at,
    )


def parse_pool(body: Json, observed_at: datetime) -> Pool:
    """Return the pool in `body`.

    A NIC-based pool lists its members twice, as references and as synthetic addresses; either may
    be missing (in a load balancer's body the addresses often are), so both are read.
    """
    pool_id = required(body, "id", "a backend pool")
    properties = part(body, "properties", pool_id)
    references = {
        fold(reference): reference for reference in _ip_configuration_ids(properties, pool_id)
    }
    addresses = tuple(
        _membership(pool_id, entry)
        for entry in children(properties, ADDRESSES_KEY, pool_id)
        if _is_address(entry)
    )
    members = [PoolMember(ip_configuration_id=reference) for reference in references.values()]
    kind = PoolKind.NIC if members else PoolKind.ADDRESS if addresses else PoolKind.EMPTY
    if kind is PoolKind.ADDRESS:
        members = [PoolMember(address=address) for address in addresses]
    return Pool(
        pool_id=pool_id,
        kind=kind,
        members=tuple(members),
        failed=_failed(properties),
        observed_at=observed_at,
    )


def _ip_configuration_ids(properties: Json, pool_id: str) -> Iterable[str]:
    for reference in children(properties, "backendIPConfigurations", pool_id):
        yield required(reference, "id", f"a member of {pool_id}")
    for entry in children(properties, ADDRESSES_KEY, pool_id):
        details = child(entry, "properties", pool_id)
        if reference_id := text(child(details, "networkInterfaceIPConfiguration", pool_id), "id"):
            yield reference_id


def _is_address(entry: Json) -> bool:
    details = child(entry, "properties", "a backend address")
    return bool(text(details, "ipAddress")) and not details.get("networkInterfaceIPConfiguration")


def address_of(entry: Mapping[str, Any]) -> str:
    """Return the folded IP address of a pool entry, empty when it has none."""
    return fold_address(text(child(entry, "properties", "a backend address"), "ipAddress"))


def addresses(body: Json) -> frozenset[tuple[str, str]]:
    """Return the entries of a pool body, as folded (name, address) pairs."""
    properties = part(body, "properties", "a backend pool")
    return frozenset(
        (fold(text(entry, "name")), address_of(entry))
        for entry in children(properties, ADDRESSES_KEY, "a backend pool")
    )


def _membership(pool_id: str, entry: Json) -> AddressMembership:
    return AddressMembership(
        pool_id=pool_id,
        name=text(entry, "name"),
        ip_address=text(child(entry, "properties", pool_id), "ipAddress"),
        body=json.dumps(entry, separators=(",", ":")),
    )


def without_addresses(body: Json, memberships: tuple[AddressMembership, ...]) -> Edit:
    """Return the pool body without exactly these addresses."""
    edited = copy.deepcopy(body)
    properties = as_object(edited.get("properties"), "properties of a pool")
    entries = children(properties, ADDRESSES_KEY, text(edited, "id"))
    # An entry that has no address is a NIC's, and not what an empty text could mean.
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
    """Return the pool body with these entries back, as they were but for read-only fields.

    An address that stands already is left alone. When its name now belongs to another address,
    somebody reused it: the entry is `absent` rather than overwritten.
    """
    edited = copy.deepcopy(body)
    properties = as_object(edited.get("properties"), "properties of a pool")
    entries = list(children(properties, ADDRESSES_KEY, text(edited, "id")))
    standing_addresses = {address_of(entry) for entry in entries}
    names = {fold(text(entry, "name")) for entry in entries}
    absent: list[AddressMembership] = []
    changed = False
    for membership in memberships:
        if fold_address(membership.ip_address) in standing_addresses:
            continue
        if fold(membership.name) in names:
            absent.append(membership)
            continue
        entries.append(_writable(membership))
        standing_addresses.add(fold_address(membership.ip_address))
        names.add(fold(membership.name))
        changed = True
    if changed:
        properties[ADDRESSES_KEY] = entries
    return Edit(body=edited, changed=changed, absent=tuple(absent))


def _writable(membership: AddressMembership) -> Json:
    what = f"the remembered body of {membership.name[:80]}"
    entry = as_object(strict_json.loads(membership.body, what), what)
    if (fold(text(entry, "name")), address_of(entry)) != (
        fold(membership.name),
        fold_address(membership.ip_address),
    ):
        raise ContractViolation(f"{what} is that of another address")
    for key in _READ_ONLY_ENTRY:
        entry.pop(key, None)
    details = entry.get("properties")
    if isinstance(details, dict):
        for key in _READ_ONLY_PROPERTIES:
            cast("Json", details).pop(key, None)
    return entry
