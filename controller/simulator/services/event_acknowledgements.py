"""Simulated Microsoft.Maintenance: acknowledging a scheduled event through Resource Manager.

`POST {VM or set}/providers/Microsoft.Maintenance/scheduledevents/{id}/acknowledge` (Microsoft
OpenAPI, 2023-10-01-preview). An acknowledgement counts like that of the metadata service. What an
unknown event gets is not documented; here it is 404.
"""

from controller.simulator.services.arm_errors import Refusal, error
from controller.simulator.services.arm_replies import (
    Call,
    missing_resource,
    network_reply,
    not_allowed,
    require_action,
)
from controller.simulator.services.http_values import Reply
from controller.simulator.world import bodies
from controller.simulator.world.bodies import key
from controller.simulator.world.events import SimEvent

ACTION = "Microsoft.Maintenance/scheduledevents/acknowledge/action"
KINDS = {"virtualmachines": "vms", "availabilitysets": "set", "virtualmachinescalesets": "set"}


def serves(lower: list[str]) -> bool:
    """Return whether the segments below a resource group are an acknowledgement."""
    return lower[4:7] == ["providers", "microsoft.maintenance", "scheduledevents"]


def acknowledge(call: Call, group: str, lower: list[str], segments: list[str]) -> Reply:
    """Answer an acknowledgement."""
    world = call.world
    if call.request.method != "POST" or len(lower) != 9 or lower[8] != "acknowledge":
        raise not_allowed(call.request.method)
    kind, name, event_id = f"Microsoft.Compute/{segments[2]}", segments[3], segments[7]
    target = bodies.resource_id(world.subscription, group, kind, name)
    require_action(call, ACTION, target)
    vm = world.find_vm(name)
    known = vm.resource_id if vm is not None else ""
    scale_set = world.scale_set_id if world.converted else ""
    if key(target) not in {key(known), key(scale_set), *map(key, world.set_ids())} - {""}:
        raise missing_resource(kind, name, group)
    event = world.events.find(event_id)
    under = world.settings.arm_acknowledges_under
    if event is None or under not in {"both", KINDS[lower[2]]} or not _named(event, lower):
        raise Refusal(404, error("NotFound", "Scheduled event not found", []))
    world.events.acknowledge(event_id, call.principal)
    return network_reply(call, {"value": "Successfully approved scheduled event"})


def _named(event: SimEvent, lower: list[str]) -> bool:
    """Return whether an event names the VM; a set has all events of its VMs."""
    return KINDS[lower[2]] == "set" or lower[3] in map(key, event.resources)
