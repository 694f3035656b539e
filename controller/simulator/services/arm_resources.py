"""What Resource Manager itself answers about resources: lists of all kinds, and the providers."""

import re

from controller.simulator.services.api_versions import VERSIONS
from controller.simulator.services.arm_errors import Refusal, error
from controller.simulator.services.arm_networks import network_bodies, public_address_bodies
from controller.simulator.services.arm_replies import (
    Call,
    network_reply,
    not_allowed,
    page,
    require_action,
)
from controller.simulator.services.http_values import Reply
from controller.simulator.world import bodies
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.world import World


def resources(call: Call, group: str) -> Reply:
    """Answer all resources of the subscription, or of one group, without their properties."""
    if call.request.method != "GET":
        raise not_allowed(call.request.method)
    scope = f"/subscriptions/{call.world.subscription}"
    scope = f"{scope}/resourceGroups/{group}" if group else scope
    require_action(call, "Microsoft.Resources/subscriptions/resources/read", scope)
    found = [
        entry
        for entry in _all(call.world)
        if (not group or key(bodies.group_of(entry["id"])) == key(group))
        and _chosen(call.request.parameter("$filter"), entry)
    ]
    return network_reply(call, page(call, found))


def _chosen(text: str, entry: Json) -> bool:
    for name, value in re.findall(r"(\w+)\s+eq\s+'([^']*)'", text):
        if name == "resourceGroup":
            held = bodies.group_of(entry["id"])
        else:
            held = str(entry["type"] if name == "resourceType" else entry.get(name, ""))
        if key(held) != key(value):
            return False
    return True


def _all(world: World) -> list[Json]:
    vm_kind = "Microsoft.Compute/virtualMachines"
    entries = [_entry(world, vm.resource_id, vm_kind) for vm in world.vms.values()]
    kind = "Microsoft.Compute/availabilitySets"
    entries += [_entry(world, set_id, kind) for set_id in world.set_ids()]
    if world.converted and world.scale_set_id:
        kind = "Microsoft.Compute/virtualMachineScaleSets"
        entries.append(_entry(world, world.scale_set_id, kind))
    network = (
        *world.nics.values(),
        *world.load_balancers.values(),
        *network_bodies(world),
        *public_address_bodies(world),
    )
    return entries + [_entry(world, body["id"], body["type"]) for body in network]


def _entry(world: World, resource: str, kind: str) -> Json:
    return {
        "id": resource,
        "name": bodies.last(resource),
        "type": kind,
        "location": world.location,
        "tags": {"team": "web"},
    }


def provider(call: Call, namespace: str) -> Reply:
    """Answer a resource provider: its types with their api-versions, which clients choose from."""
    if call.request.method != "GET":
        raise not_allowed(call.request.method)
    newest = call.world.settings.newest_api_version or "9999"
    types = [
        {
            "resourceType": kind,
            "locations": [call.world.location],
            "apiVersions": [each for each in reversed(versions) if each <= newest],
            "capabilities": "SupportsTags, SupportsLocation",
        }
        for name, (kind, versions) in VERSIONS.items()
        if name.startswith(key(namespace) + "/")
    ]
    if not types:
        message = f"The resource namespace '{namespace}' is invalid."
        raise Refusal(404, error("InvalidResourceNamespace", message), gateway=True)
    spelling = {"microsoft.compute": "Microsoft.Compute", "microsoft.network": "Microsoft.Network"}
    body: Json = {
        "id": f"/subscriptions/{call.world.subscription}/providers/{spelling[key(namespace)]}",
        "namespace": spelling[key(namespace)],
        "registrationState": "Registered",
        "registrationPolicy": "RegistrationRequired",
        "resourceTypes": types,
    }
    return network_reply(call, body)
