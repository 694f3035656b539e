"""The adminState of members of a backend pool: the edit of a pool body, and its proof. Pure.

A PUT replaces the list of a pool. One that left a member out has evicted NICs
(Azure/bicep-registry-modules#2512), so a body is edited only if its list is complete, and sent back
with every entry as it came. NIC-based pools may refuse the property: that is not documented.
"""

import copy
from collections.abc import Iterable

from controller.azure.http.json_reader import Json, as_object, child, children, text
from controller.azure.network_bodies import (
    ADDRESSES_KEY,
    Edit,
    reference_of,
    state_of,
)
from controller.azure.recorded_entries import address_of
from controller.core.azure_names import fold, nic_of
from controller.core.planning.member_states import is_down, is_neutral
from controller.core.printable import excerpt
from controller.core.resources import AdminMembership, MembershipKey
from controller.errors import ContractViolation, ControllerError, ServiceFault, StateRefused

BAD_REQUEST = 400
DOWN = "Down"
REFUSALS = frozenset(
    {
        "modificationofnicipconfigbackendpoolnotsupported",
        "cannotmixipbasedaddressesandipconfigurationsonloadbalancerbackendaddresspool",
    }
)
"""Codes with which a pool refuses a write of its members (Azure/terraform-provider-azurerm#10496,
#25962), also as the result of an operation."""
_WRITTEN = {"none": "None", "up": "Up", "down": DOWN}
_AUTOMATIC = "automatic"


def with_states(body: Json, memberships: tuple[AdminMembership, ...], *, restore: bool) -> Edit:
    """Return the pool body with these members Down, or with the state that they had before.

    Every other entry stays as it came. A member that is not in the list is `absent`. A member whose
    state another client has set meanwhile stays as it is: a restore leaves it so, and a removal has
    to record the state first (law S5). The pool as it was read shows it.

    Raises:
        StateRefused: the list is not complete, or not for clients to write.
    """
    edited = copy.deepcopy(body)
    entries = _entries(edited)
    _refuse_incomplete(edited, entries)
    pool_id = text(edited, "id")
    wanted = {each.member.key: each for each in memberships}
    found: set[MembershipKey] = set()
    changed = False
    for entry in entries:
        place = _place(pool_id, entry)
        membership = wanted.get(place)
        if membership is None:
            continue
        found.add(place)
        before = state_of(entry)
        after = membership.admin_state if restore else DOWN
        recorded = not restore and _folded(before) == _folded(membership.admin_state)
        if not (is_down(before) or is_neutral(before) or recorded):
            continue
        if _folded(after) != _folded(before):
            _set(entry, after)
            changed = True
    absent = tuple(m for m in memberships if m.member.key not in found)
    return Edit(body=edited, changed=changed, absent=absent)


def states(body: Json) -> dict[MembershipKey, str]:
    """Return the adminState of every entry of a pool, folded, with none for an absent one."""
    pool_id = text(body, "id")
    return {_place(pool_id, entry): _folded(state_of(entry)) for entry in _entries(body)}


def check_written(written: Json, after: Json, memberships: Iterable[AdminMembership]) -> None:
    """Check that a pool has the members that were written, and ours the state that was written.

    Raises:
        ServiceFault: it has not, although Azure reports success.
    """
    wanted, found = states(written), states(after)
    pool_id = text(written, "id")
    if wanted.keys() != found.keys():
        raise ServiceFault(
            f"Azure reports success, but the members of {pool_id} are not those written: "
            f"{len(wanted.keys() - found.keys())} missing, "
            f"{len(found.keys() - wanted.keys())} unexpected"
        )
    for membership in memberships:
        key = membership.member.key
        if key in wanted and wanted[key] != found[key]:
            raise Ineffective(
                f"Azure reports success, but in {pool_id} the adminState of {excerpt(key[1])} is "
                f"{found[key]}, not {wanted[key]}"
            )


class Ineffective(ServiceFault):
    """Azure reports the success of a write that changed nothing."""


def is_refusal(error: ControllerError) -> bool:
    """Return whether a pool does not take the adminState of its members."""
    known = bool(error.codes & REFUSALS) or error.status == BAD_REQUEST
    return isinstance(error, StateRefused) or (
        known and isinstance(error, ContractViolation | ServiceFault)
    )


def _folded(state: str) -> str:
    return "none" if is_neutral(state) else fold(state)


def _entries(body: Json) -> list[Json]:
    properties = child(body, "properties", "a backend pool")
    return children(properties, ADDRESSES_KEY, "a backend pool")


def _place(pool_id: str, entry: Json) -> MembershipKey:
    if reference := reference_of(entry):
        nic_id, name = nic_of(reference)
        return fold(pool_id), fold(nic_id), fold(name)
    return fold(pool_id), "address", address_of(entry)


def _set(entry: Json, state: str) -> None:
    details = as_object(entry.get("properties"), "properties of a backend address")
    if state:
        details["adminState"] = _WRITTEN.get(fold(state), state)
    else:
        details.pop("adminState", None)


def _refuse_incomplete(body: Json, entries: list[Json]) -> None:
    """Refuse a body that would evict members when it is sent back, or that Azure itself keeps."""
    pool_id = text(body, "id")
    properties = child(body, "properties", "a backend pool")
    if ADDRESSES_KEY not in properties:
        raise StateRefused(f"{pool_id} is read without its list of members: it is not written")
    if text(properties, "syncMode").casefold() == _AUTOMATIC:
        raise StateRefused(f"{pool_id} has syncMode Automatic: its members are not for clients")
    places = [_place(pool_id, entry) for entry in entries]
    if len(set(places)) < len(places) or any(not place[2] for place in places):
        raise StateRefused(f"{pool_id} lists a member twice, or without a place: it is not written")
    listed = {
        fold(text(each, "id")) for each in children(properties, "backendIPConfigurations", pool_id)
    }
    missing = listed - {fold(reference_of(entry)) for entry in entries}
    if missing:
        raise StateRefused(
            f"{pool_id} is read with {len(missing)} members that its list lacks: a write would "
            "evict them, and none is sent"
        )
