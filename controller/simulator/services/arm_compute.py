"""Simulated Microsoft.Compute: VMs, instance views, planned maintenance, the availability set.

References in its replies upper-case the resource group at random, as users report of Azure.
"""

import re
from datetime import UTC, datetime

from controller.simulator.services.arm_replies import (
    Call,
    as_object,
    bad_request,
    compute_reply,
    missing_resource,
    not_allowed,
    page,
    require_action,
)
from controller.simulator.services.arm_vm_actions import vm_action
from controller.simulator.services.http_values import Reply
from controller.simulator.services.network_requests import json_body, list_scope
from controller.simulator.world import bodies
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.vm import SimVm
from controller.simulator.world.world import World

COMPUTE = "Microsoft.Compute"


def _require(call: Call, action: str, scope: str) -> None:
    require_action(call, f"{COMPUTE}/{action}", scope)


def _require_vms(call: Call, scope: str, *, expand: bool) -> None:
    """Refuse a caller without read permission, the only one that is documented for `$expand`."""
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
    """Answer `virtualMachines`, one VM, and its instance view."""
    world = call.world
    if call.request.method == "POST" and len(names) == 2:
        return vm_action(call, group, names[0], names[1])
    if call.request.method != "GET":
        raise not_allowed(call.request.method)
    expand = "instanceview" in call.request.parameter("$expand").casefold()
    if not names:
        _require_vms(call, list_scope(call, group), expand=expand)
        listed = page(call, [vm_body(world, vm, expand=expand) for vm in _listed(call, group)])
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


def _listed(call: Call, group: str) -> list[SimVm]:
    """Return the VMs that a list shows. Its only `$filter` names a scale set."""
    world, text = call.world, call.request.parameter("$filter")
    if call.request.parameter("$expand") and not text and not world.settings.vm_list_expand:
        raise bad_request("BadRequest", "$expand is supported only together with $filter.")
    wanted = re.fullmatch(r"\s*'virtualMachineScaleSet/id'\s+eq\s+'([^']*)'\s*", text)
    if text and wanted is None:
        raise bad_request("BadRequest", f"The filter {text!r} is not supported.")
    return [
        vm
        for vm in world.vms.values()
        if (not group or key(bodies.group_of(vm.resource_id)) == key(group))
        and (wanted is None or (key(wanted[1]) == key(_scale_set_of(world, vm))))
    ]


def _scale_set_of(world: World, vm: SimVm) -> str:
    return world.scale_set_id if world.converted and vm.in_set else ""


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
        "timeCreated": datetime.fromtimestamp(int(vm.created_at), UTC).isoformat(),
    }
    if vm.in_set and world.converted:
        properties["virtualMachineScaleSet"] = {"id": reference(world, world.scale_set_id)}
        properties["platformFaultDomain"] = vm.fault_domain
    elif set_id := world.set_of(vm):
        properties["availabilitySet"] = {"id": reference(world, set_id)}
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


def availability_sets(call: Call, group: str, names: list[str]) -> Reply:
    """Answer one availability set, or change its `scheduledEventsPolicy`.

    It has no etag, in body or header.
    """
    world = call.world
    patches = call.request.method == "PATCH" and len(names) == 1
    if not patches and (call.request.method != "GET" or len(names) > 1):
        raise not_allowed(call.request.method)
    if not names:
        _require(call, "availabilitySets/read", list_scope(call, group))
        shown = [
            _availability_set(world, set_id)
            for set_id in world.set_ids()
            if not group or key(bodies.group_of(set_id)) == key(group)
        ]
        return compute_reply(call, page(call, shown))
    scope = bodies.resource_id(world.subscription, group, f"{COMPUTE}/availabilitySets", names[0])
    _require(call, f"availabilitySets/{'write' if patches else 'read'}", scope)
    found = next((set_id for set_id in world.set_ids() if key(set_id) == key(scope)), None)
    if found is None:
        raise missing_resource(f"{COMPUTE}/availabilitySets", names[0], group)
    if patches:
        properties = as_object(json_body(call).get("properties") or {})
        policy = as_object(properties.get("scheduledEventsPolicy") or {})
        world.scheduled_events_policy = {**(world.scheduled_events_policy or {}), **policy}
    return compute_reply(call, _availability_set(world, found))


def _migration(world: World) -> Json:
    """Return the scale set of a later conversion (recorded), and that of a running migration."""
    group = bodies.group_of(world.availability_set_id)
    kind, name = f"{COMPUTE}/virtualMachineScaleSets", bodies.last(world.availability_set_id)
    default = bodies.resource_id(world.subscription, group, kind, name)
    migration: Json = {
        "defaultVirtualMachineScaleSetInfo": {
            "constrainedMaximumCapacity": True,
            "defaultVirtualMachineScaleSet": {"id": default},
        }
    }
    if world.scale_set_id:
        migration["migrateToVirtualMachineScaleSet"] = {"id": world.scale_set_id}
    return migration


def _availability_set(world: World, set_id: str) -> Json:
    members = [
        {"id": reference(world, vm.resource_id)}
        for vm in world.vms.values()
        if key(world.set_of(vm)) == key(set_id)
    ]
    properties: Json = {
        "platformUpdateDomainCount": 5,
        "platformFaultDomainCount": 3,
        "virtualMachines": members,
        "virtualMachineScaleSetMigrationInfo": _migration(world),
    }
    if world.scheduled_events_policy is not None:
        properties["scheduledEventsPolicy"] = world.scheduled_events_policy
    return {
        "name": bodies.last(set_id),
        "id": set_id,
        "type": f"{COMPUTE}/availabilitySets",
        "location": world.location,
        "properties": properties,
        "sku": {"name": "Aligned"},
    }


def scale_sets(call: Call, group: str, names: list[str]) -> Reply:
    """Answer the flexible scale set that the set was converted or is migrated to, if any."""
    world, kind = call.world, f"{COMPUTE}/virtualMachineScaleSets"
    if call.request.method != "GET" or len(names) > 1:
        raise not_allowed(call.request.method)
    own_group = not group or key(bodies.group_of(world.availability_set_id)) == key(group)
    if not names:
        _require(call, "virtualMachineScaleSets/read", list_scope(call, group))
        shown = own_group and world.scale_set_id
        return compute_reply(call, page(call, [_scale_set(world)] if shown else []))
    scope = bodies.resource_id(world.subscription, group, kind, names[0])
    _require(call, "virtualMachineScaleSets/read", scope)
    if key(scope) != key(world.scale_set_id):
        raise missing_resource(kind, names[0], group)
    return compute_reply(call, _scale_set(world))


def _scale_set(world: World) -> Json:
    policy = world.scheduled_events_policy
    return {
        "name": bodies.last(world.scale_set_id),
        "id": world.scale_set_id,
        "type": f"{COMPUTE}/virtualMachineScaleSets",
        "location": world.location,
        "properties": {
            "singlePlacementGroup": False,
            "orchestrationMode": world.orchestration_mode,
            "platformFaultDomainCount": 3,
            "provisioningState": "Succeeded",
            "uniqueId": world.scale_set_id[-36:],
            **({"scheduledEventsPolicy": policy} if policy is not None else {}),
        },
    }
