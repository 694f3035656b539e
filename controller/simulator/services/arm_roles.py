"""Simulated role assignments and definitions of Microsoft.Authorization, read only.

Every assignment of the world refers to a custom role with the same actions.
"""

import re
import uuid

from controller.simulator.services.arm_replies import (
    Call,
    missing_child,
    network_reply,
    not_allowed,
    page,
    require_action,
)
from controller.simulator.services.http_values import Reply
from controller.simulator.world.access import OPERATOR, OPERATOR_CLIENT_ID, Assignment
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.world import World

AUTHORIZATION = "Microsoft.Authorization"
_NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")


def role_assignments(call: Call, scope: str, names: list[str]) -> Reply:
    """Answer the assignments at a scope, and those above and below it."""
    if call.request.method != "GET" or len(names) > 1:
        raise not_allowed(call.request.method)
    require_action(call, f"{AUTHORIZATION}/roleAssignments/read", scope)
    found = [
        body
        for principal, entries in sorted(call.world.roles.assignments.items())
        for order, entry in enumerate(entries)
        if _related(scope, entry.scope)
        for body in [_assignment(call.world, principal, entry, order)]
        if _chosen(call, body)
    ]
    return _reply(call, found, names)


def role_definitions(call: Call, scope: str, names: list[str]) -> Reply:
    """Answer the roles that can be assigned at a scope."""
    if call.request.method != "GET" or len(names) > 1:
        raise not_allowed(call.request.method)
    require_action(call, f"{AUTHORIZATION}/roleDefinitions/read", scope)
    distinct = {
        _role_id(call.world, entry): entry
        for entries in call.world.roles.assignments.values()
        for entry in entries
    }
    found = [_definition(call.world, entry) for _, entry in sorted(distinct.items())]
    return _reply(call, [body for body in found if _chosen(call, body)], names)


def _reply(call: Call, found: list[Json], names: list[str]) -> Reply:
    if not names:
        return network_reply(call, page(call, found))
    for body in found:
        if key(body["name"]) == key(names[0]):
            return network_reply(call, body)
    raise missing_child(call.request.path)


def _related(scope: str, assigned: str) -> bool:
    wanted = key(scope)
    return assigned == wanted or wanted.startswith(assigned + "/") or assigned.startswith(wanted)


def _chosen(call: Call, body: Json) -> bool:
    """Return whether a body fits the part of `$filter` that names a principal or role."""
    text = call.request.parameter("$filter")
    properties = body["properties"]
    for name, pattern in (
        ("principalId", r"(?:principalId eq|assignedTo\()\s*'([^']+)'"),
        ("roleName", r"roleName eq '([^']+)'"),
    ):
        wanted = re.search(pattern, text, re.IGNORECASE)
        if wanted and name in properties and key(properties[name]) != key(wanted[1]):
            return False
    return True


def principal_id(world: World, principal: str) -> str:
    """Return the object id of a principal: that of the identity of a VM, or one of its own."""
    if key(principal) == OPERATOR:
        return OPERATOR_CLIENT_ID
    vm = world.find_vm(principal)
    return vm.client_id if vm is not None else str(uuid.uuid5(_NAMESPACE, principal))


def _role_id(world: World, entry: Assignment) -> str:
    name = "|".join((*sorted(entry.actions), "data", *sorted(entry.data_actions)))
    found = uuid.uuid5(_NAMESPACE, name)
    return f"/subscriptions/{world.subscription}/providers/{AUTHORIZATION}/roleDefinitions/{found}"


def _assignment(world: World, principal: str, entry: Assignment, order: int) -> Json:
    name = str(uuid.uuid5(_NAMESPACE, f"{principal} {order} {_role_id(world, entry)}"))
    scope = entry.spelled_scope or f"/subscriptions/{world.subscription}"
    return {
        "properties": {
            "roleDefinitionId": _role_id(world, entry),
            "principalId": principal_id(world, principal),
            "principalType": "ServicePrincipal",
            "scope": scope,
            "condition": None,
            "conditionVersion": None,
            "createdOn": "2024-01-01T00:00:00.0000000Z",
            "updatedOn": "2024-01-01T00:00:00.0000000Z",
            "createdBy": None,
            "updatedBy": None,
            "delegatedManagedIdentityResourceId": None,
            "description": None,
        },
        "id": f"{scope}/providers/{AUTHORIZATION}/roleAssignments/{name}",
        "type": f"{AUTHORIZATION}/roleAssignments",
        "name": name,
    }


def _definition(world: World, entry: Assignment) -> Json:
    role_id = _role_id(world, entry)
    name = role_id.rpartition("/")[2]
    owner = "*" in entry.actions
    return {
        "properties": {
            "roleName": "Owner" if owner else f"Simulated role {name[:8]}",
            "type": "BuiltInRole" if owner else "CustomRole",
            "description": "The permissions of one assignment of the simulated Azure.",
            "assignableScopes": ["/" if owner else f"/subscriptions/{world.subscription}"],
            "permissions": [
                {
                    "actions": sorted(entry.spelled_actions),
                    "notActions": [],
                    "dataActions": sorted(entry.spelled_data_actions),
                    "notDataActions": [],
                }
            ],
            "createdOn": "2024-01-01T00:00:00.0000000Z",
            "updatedOn": "2024-01-01T00:00:00.0000000Z",
            "createdBy": None,
            "updatedBy": None,
        },
        "id": role_id,
        "type": f"{AUTHORIZATION}/roleDefinitions",
        "name": name,
    }
