"""Simulated Microsoft.Compute: VMs, instance views, planned maintenance, the availability set.

References in its replies upper-case the resource group at random, as users report of Azure.
"""

from datetime import UTC, datetime

from controller.simulator import bodies
from controller.simulator.arm_replies import (
    Call,
    Refusal,
    accepted,
    compute_reply,
    error,
    missing_resource,
    not_allowed,
    page,
    unauthorized,
)
from controller.simulator.bodies import Json, key
from controller.simulator.wire import Reply
from controller.simulator.world import SimVm, World

COMPUTE = "Microsoft.Compute"


def _require(call: Call, action: str, scope: str) -> None:
    full = f"{COMPUTE}/{action}"
    roles = call.world.roles
    if call.world.settings.rbac_enforced and not roles.permit(call.principal, full, scope):
        raise unauthorized(call, full, scope)


def _require_vms(call: Call, scope: str, *, expand: bool) -> None:
    """Refuse who may not read VMs; whether `$expand` needs more than that is not documented."""
    _require(call, "virtualMachines/read", scope)
    if expand:
        _require(call, "virtualMachines/instanceView/read", scope)


def reference(world: World, resource: str) -> str:
    """Return an id as this provider spells it: sometimes with its resource group in capitals."""
    if not world.settings.random_case or world.random.random() < 0.5:
        return resource
    segments = resource.split("/")
    segments[4] = segments[4].upper()
    return "/".join(segments)


def virtual_machines(call: Call, group: str, names: list[str]) -> Reply:
    """Answer `virtualMachines`, one of them, and its instance view."""
    world = call.world
    if (call.request.method, [name.casefold() for name in names[1:]]) == (
        "POST",
        ["performmaintenance"],
    ):
        return _perform_maintenance(call, group, names[0])
    if call.request.method != "GET":
        raise not_allowed(call.request.method)
    expand = "instanceview" in call.request.parameter("$expand").casefold()
    if not names:
        scope = f"/subscriptions/{world.subscription}/resourceGroups/{group}"
        _require_vms(call, scope, expand=expand)
        found = [
            vm for vm in world.vms.values() if key(bodies.group_of(vm.resource_id)) == key(group)
        ]
        listed = page(call, [vm_body(world, vm, expand=expand) for vm in found])
        return compute_reply(call, listed)
    vm_id = bodies.resource_id(world.subscription, group, f"{COMPUTE}/virtualMachines", names[0])
    _require_vms(call, vm_id, expand=expand)
    vm = world.find_vm(names[0])
    if vm is None or key(vm.resource_id) != key(vm_id):
        raise missing_resource(f"{COMPUTE}/virtualMachines", names[0], group)
    match [name.casefold() for name in names[1:]]:
        case []:
            body = vm_body(world, vm, expand=expand)
            return compute_reply(call, body, headers={"ETag": body["etag"]})
        case ["instanceview"]:
            _require(call, "virtualMachines/instanceView/read", vm_id)
            return compute_reply(call, instance_view(world, vm))
        case _:
            raise missing_resource(f"{COMPUTE}/virtualMachines", "/".join(names), group)


def vm_body(world: World, vm: SimVm, *, expand: bool) -> Json:
    """Return a VM. With a single NIC, that NIC has no `primary`."""
    nics: list[Json] = [{"id": reference(world, nic)} for nic in vm.nic_ids]
    if len(nics) > 1:
        for order, nic in enumerate(nics):
            nic["properties"] = {"primary": order == 0}
    properties: Json = {
        "hardwareProfile": {"vmSize": "Standard_D2s_v5"},
        "provisioningState": "Succeeded",
        "vmId": vm.vm_id,
        "storageProfile": _storage(world, vm),
        "osProfile": {
            "computerName": vm.computer_name,
            "adminUsername": "azureuser",
            "linuxConfiguration": {"disablePasswordAuthentication": True, "provisionVMAgent": True},
            "secrets": [],
            "allowExtensionOperations": True,
            "requireGuestProvisionSignal": True,
        },
        "networkProfile": {"networkInterfaces": nics},
        "timeCreated": "2024-01-01T00:00:00Z",
    }
    if vm.in_set:
        properties["availabilitySet"] = {"id": reference(world, world.availability_set_id)}
    if expand:
        properties["instanceView"] = instance_view(world, vm)
    return {
        "name": vm.name,
        "id": vm.resource_id,
        "type": f"{COMPUTE}/virtualMachines",
        "location": world.location,
        "tags": {"team": "web"},
        "identity": {
            "type": "SystemAssigned",
            "principalId": vm.client_id,
            "tenantId": world.tenant,
        },
        "properties": properties,
        "etag": f'"{vm.etag}"',
    }


def _storage(world: World, vm: SimVm) -> Json:
    disk = bodies.resource_id(
        world.subscription, world.resource_group, f"{COMPUTE}/disks", f"{vm.name}-os"
    )
    return {
        "imageReference": {
            "publisher": "canonical",
            "offer": "ubuntu-24_04-lts",
            "sku": "server",
            "version": "latest",
            "exactVersion": "24.04.202501010",
        },
        "osDisk": {
            "osType": "Linux",
            "name": f"{vm.name}-os",
            "createOption": "FromImage",
            "caching": "ReadWrite",
            "managedDisk": {
                "storageAccountType": "Premium_LRS",
                "id": reference(world, disk),
            },
            "deleteOption": "Delete",
            "diskSizeGB": 30,
        },
        "dataDisks": [],
    }


def instance_view(world: World, vm: SimVm) -> Json:
    """Return the instance view. The platform does not notice a freeze; nor does the VM agent."""
    power, up = vm.power_state, vm.state in ("running", "frozen")
    time = datetime.fromtimestamp(int(world.now), UTC).isoformat()
    agent: Json = {
        "code": "ProvisioningState/succeeded" if up else "ProvisioningState/Unavailable",
        "level": "Info" if up else "Warning",
        "displayStatus": "Ready" if up else "Not Ready",
        "message": "Guest Agent is running" if up else "VM status blob is found but not updated.",
        "time": time,
    }
    succeeded: Json = {
        "code": "ProvisioningState/succeeded",
        "level": "Info",
        "displayStatus": "Provisioning succeeded",
        "time": time,
    }
    view: Json = {
        "platformUpdateDomain": vm.update_domain,
        "platformFaultDomain": vm.fault_domain,
        "computerName": vm.computer_name,
        "osName": "ubuntu",
        "osVersion": "24.04",
        "vmAgent": {"vmAgentVersion": "2.11.1.12", "statuses": [agent], "extensionHandlers": []},
        "disks": [{"name": f"{vm.name}-os", "statuses": [succeeded]}],
        "hyperVGeneration": "V2",
        "statuses": [
            succeeded,
            {"code": f"PowerState/{power}", "level": "Info", "displayStatus": f"VM {power}"},
        ],
    }
    if vm.maintenance is not None:
        # Only returned while maintenance is planned (Microsoft docs, maintenance notifications).
        view["maintenanceRedeployStatus"] = vm.maintenance.body(world.now)
    return view


def _perform_maintenance(call: Call, group: str, name: str) -> Reply:
    """Begin planned maintenance: 202 without a body. The text of the 409 was seen by SDK tests."""
    world = call.world
    vm_id = bodies.resource_id(world.subscription, group, f"{COMPUTE}/virtualMachines", name)
    _require(call, "virtualMachines/performMaintenance/action", vm_id)
    vm = world.find_vm(name)
    if vm is None or key(vm.resource_id) != key(vm_id):
        raise missing_resource(f"{COMPUTE}/virtualMachines", name, group)
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
    return accepted(call, world.perform_maintenance(vm.name, call.principal))


def availability_sets(call: Call, group: str, names: list[str]) -> Reply:
    """Answer one availability set. It has no etag, in body or header."""
    world = call.world
    if call.request.method != "GET" or len(names) > 1:
        raise not_allowed(call.request.method)
    own_group = key(bodies.group_of(world.availability_set_id)) == key(group)
    if not names:
        scope = f"/subscriptions/{world.subscription}/resourceGroups/{group}"
        _require(call, "availabilitySets/read", scope)
        return compute_reply(call, page(call, [_availability_set(world)] if own_group else []))
    scope = bodies.resource_id(world.subscription, group, f"{COMPUTE}/availabilitySets", names[0])
    _require(call, "availabilitySets/read", scope)
    if key(scope) != key(world.availability_set_id):
        raise missing_resource(f"{COMPUTE}/availabilitySets", names[0], group)
    return compute_reply(call, _availability_set(world))


def _availability_set(world: World) -> Json:
    members = [{"id": reference(world, vm.resource_id)} for vm in world.vms.values() if vm.in_set]
    properties: Json = {
        "platformUpdateDomainCount": 5,
        "platformFaultDomainCount": 3,
        "virtualMachines": members,
    }
    if world.scheduled_events_policy is not None:
        properties["scheduledEventsPolicy"] = world.scheduled_events_policy
    return {
        "name": bodies.last(world.availability_set_id),
        "id": world.availability_set_id,
        "type": f"{COMPUTE}/availabilitySets",
        "location": world.location,
        "properties": properties,
        "sku": {"name": "Aligned"},
    }
