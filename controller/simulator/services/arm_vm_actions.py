"""Actions on VMs of Microsoft.Compute: restart, redeploy, stop, start, and planned maintenance.

Each is a POST that answers 202 and begins an operation.
"""

from controller.simulator.services.arm_errors import Refusal, error
from controller.simulator.services.arm_replies import (
    Call,
    accepted,
    missing_resource,
    not_allowed,
    require_action,
)
from controller.simulator.services.http_values import Reply
from controller.simulator.world import bodies
from controller.simulator.world.bodies import key
from controller.simulator.world.user_actions import UserAction
from controller.simulator.world.vm import SimVm

VMS = "Microsoft.Compute/virtualMachines"
ACTIONS: dict[str, UserAction] = {
    "restart": "restart",
    "redeploy": "redeploy",
    "poweroff": "powerOff",
    "deallocate": "deallocate",
    "start": "start",
}


def vm_action(call: Call, group: str, name: str, action: str) -> Reply:
    """Begin an action on a VM."""
    world = call.world
    vm_id = bodies.resource_id(world.subscription, group, VMS, name)
    user_action = ACTIONS.get(key(action))
    if user_action is None and key(action) != "performmaintenance":
        raise not_allowed(call.request.method)
    spelling = user_action or "performMaintenance"
    require_action(call, f"{VMS}/{spelling}/action", vm_id)
    vm = world.find_vm(name)
    if vm is None or key(vm.resource_id) != key(vm_id):
        raise missing_resource(VMS, name, group)
    if user_action is None:
        return _perform_maintenance(call, vm)
    return accepted(call, world.user_actions.begin(vm.name, user_action, call.principal))


def _perform_maintenance(call: Call, vm: SimVm) -> Reply:
    """Begin planned maintenance. The text of the 409 was seen by SDK tests."""
    world = call.world
    if vm.maintenance is not None and vm.maintenance.under_way:
        message = (
            "The request failed due to conflict with a concurrent request. To resolve it, please "
            "refer to https://aka.ms/activitylog to get more details on the conflicting requests."
        )
        raise Refusal(409, error("Conflict", message))
    if vm.maintenance is None or not vm.maintenance.allowed(world.now):
        message = (
            f"Operation 'performMaintenance' is not allowed on VM '{vm.name}' since the "
            "Subscription of this VM is not eligible."
        )
        raise Refusal(409, error("OperationNotAllowed", message))
    return accepted(call, world.maintenance.perform(vm.name, call.principal))
