"""The instance metadata of a VM (Microsoft docs, Instance Metadata Service).

Every leaf is a string; a value that does not exist is the empty string.
"""

from controller.simulator.world.bodies import Json, group_of
from controller.simulator.world.vm import SimVm
from controller.simulator.world.world import World


def document(world: World, vm: SimVm) -> Json:
    """Return all metadata of a VM."""
    return {"compute": _compute(world, vm), "network": _network(world, vm)}


def _resource_id(world: World, vm: SimVm, scale_set: str) -> str:
    """Return the id; that of a uniform instance is below its scale set."""
    if scale_set and world.orchestration_mode == "Uniform":
        return f"{scale_set}/virtualMachines/{vm.name.rpartition('-')[2]}"
    return vm.resource_id


def _compute(world: World, vm: SimVm) -> Json:
    """Return the `compute` part."""
    scale_set = world.scale_set_id if world.converted and vm.in_set else ""
    return {
        "azEnvironment": "AzurePublicCloud",
        "additionalCapabilities": {"hibernationEnabled": "false"},
        "evictionPolicy": "",
        "extendedLocation": {"type": "", "name": ""},
        "hostGroup": {"id": ""},
        "isHostCompatibilityLayerVm": "false",
        "licenseType": "",
        "location": world.location,
        "name": vm.name,
        "offer": "ubuntu-24_04-lts",
        "osProfile": {
            "adminUsername": "azureuser",
            "computerName": vm.computer_name,
            "disablePasswordAuthentication": "true",
        },
        "osType": "Linux",
        "placementGroupId": "",
        "plan": {"name": "", "product": "", "publisher": ""},
        "platformFaultDomain": str(vm.fault_domain),
        "platformSubFaultDomain": "",
        "platformUpdateDomain": str(vm.update_domain),
        "priority": "",
        "provider": "Microsoft.Compute",
        "publicKeys": [],
        "publisher": "canonical",
        "resourceGroupName": group_of(vm.resource_id),
        "resourceId": _resource_id(world, vm, scale_set),
        "securityProfile": {
            "encryptionAtHost": "false",
            "secureBootEnabled": "true",
            "securityType": "TrustedLaunch",
            "virtualTpmEnabled": "true",
        },
        "sku": "server",
        "storageProfile": _storage(vm),
        "subscriptionId": world.subscription,
        "tags": "team:web",
        "tagsList": [{"name": "team", "value": "web"}],
        "userData": "",
        "version": "24.04.202501010",
        "virtualMachineScaleSet": {"id": scale_set},
        "vmId": vm.vm_id,
        "vmScaleSetName": scale_set.rpartition("/")[2],
        "vmSize": "Standard_D2s_v5",
        "zone": "",
    }


def _storage(vm: SimVm) -> Json:
    return {
        "dataDisks": [],
        "imageReference": {
            "id": "",
            "offer": "ubuntu-24_04-lts",
            "publisher": "Canonical",
            "sku": "server",
            "version": "latest",
        },
        "osDisk": {
            "caching": "ReadWrite",
            "createOption": "FromImage",
            "diffDiskSettings": {"option": ""},
            "diskSizeGB": "30",
            "encryptionSettings": {"enabled": "false"},
            "image": {"uri": ""},
            "managedDisk": {"id": "", "storageAccountType": "Premium_LRS"},
            "name": f"{vm.name}-os",
            "osType": "Linux",
            "vhd": {"uri": ""},
            "writeAcceleratorEnabled": "false",
        },
        "resourceDisk": {"size": "16384"},
    }


def _network(world: World, vm: SimVm) -> Json:
    """Return the `network` part: addresses, without any resource id."""
    return {"interface": [_interface(world.nics[nic.casefold()]) for nic in vm.nic_ids]}


def _interface(nic: Json) -> Json:
    entries = [entry["properties"] for entry in nic["properties"]["ipConfigurations"]]

    def addresses(version: str) -> list[str]:
        return [e["privateIPAddress"] for e in entries if e["privateIPAddressVersion"] == version]

    return {
        "ipv4": {
            "ipAddress": [
                {"privateIpAddress": address, "publicIpAddress": ""}
                for address in addresses("IPv4")
            ],
            "subnet": [{"address": "10.0.0.0", "prefix": "8"}],
        },
        "ipv6": {"ipAddress": [{"privateIpAddress": address} for address in addresses("IPv6")]},
        "macAddress": nic["properties"]["macAddress"].replace("-", ""),
    }
