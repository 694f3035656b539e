"""Entries of IP-based pools as the ledger records them, and as a restore sends them. Pure."""

import json
from collections.abc import Mapping
from typing import Any, cast

from controller.azure.http.json_reader import Json, as_object, child, text
from controller.core import strict_json
from controller.core.azure_names import fold, fold_address
from controller.core.blob_limits import MAX_ID_CHARACTERS
from controller.core.printable import excerpt
from controller.core.resources import AddressMembership
from controller.errors import ContractViolation

_READ_ONLY_ENTRY = ("etag", "id", "type")
_READ_ONLY_PROPERTIES = (
    "provisioningState",
    "networkInterfaceIPConfiguration",
    "loadBalancerFrontendIPConfiguration",
    "inboundNatRulesPortMapping",
)


def address_of(entry: Mapping[str, Any]) -> str:
    """Return the folded IP address of a pool entry, empty when it has none."""
    return fold_address(text(child(entry, "properties", "a backend address"), "ipAddress"))


def recorded_body(pool_id: str, entry: Json) -> str:
    """Return a pool entry as the ledger records it, so that every agent can read it again.

    Azure lists in it the ports of inbound NAT rules, which are read-only and can be hundreds.
    """
    body = json.dumps(entry, separators=(",", ":"))
    if len(body) > MAX_ID_CHARACTERS:
        body = json.dumps(_without_read_only(entry), separators=(",", ":"))
    if len(body) > MAX_ID_CHARACTERS:
        raise ContractViolation(f"an address of {excerpt(pool_id)} has {len(body)} characters")
    return body


def writable_entry(membership: AddressMembership) -> Json:
    """Return a recorded entry as a restore sends it.

    Raises:
        ContractViolation: it is not the entry of this address.
    """
    what = f"the recorded body of {membership.name[:80]}"
    entry = as_object(strict_json.loads(membership.body, what), what)
    if (fold(text(entry, "name")), address_of(entry)) != (
        fold(membership.name),
        fold_address(membership.ip_address),
    ):
        raise ContractViolation(f"{what} belongs to another address")
    return _without_read_only(entry)


def _without_read_only(entry: Json) -> Json:
    kept = {key: value for key, value in entry.items() if key not in _READ_ONLY_ENTRY}
    details = cast("object", kept.get("properties"))
    if isinstance(details, dict):
        items = cast("Json", details).items()
        kept["properties"] = {key: each for key, each in items if key not in _READ_ONLY_PROPERTIES}
    return kept
