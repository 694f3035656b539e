"""What a NIC becomes when a PUT replaces it: read-only parts kept, defaults for the rest."""

import copy
from typing import Any

from controller.simulator.services.arm_replies import as_object, bad_request, items
from controller.simulator.world import bodies
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.world import World

READ_ONLY = (
    "resourceGuid",
    "macAddress",
    "primary",
    "virtualMachine",
    "vnetEncryptionSupported",
    "hostedWorkloads",
    "tapConfigurations",
    "privateEndpoint",
    "allowPort25Out",
    "defaultOutboundConnectivityEnabled",
)
DEFAULTS: Json = {
    "enableAcceleratedNetworking": False,
    "enableIPForwarding": False,
    "disableTcpStateTracking": False,
    "nicType": "Standard",
    "auxiliaryMode": "None",
    "auxiliarySku": "None",
}
NEW: Json = {
    "vnetEncryptionSupported": False,
    "hostedWorkloads": [],
    "tapConfigurations": [],
    "allowPort25Out": True,
    "defaultOutboundConnectivityEnabled": False,
}
REFERENCES = ("subnet", "publicIPAddress", "gatewayLoadBalancer")
REFERENCE_LISTS = (
    "loadBalancerBackendAddressPools",
    "loadBalancerInboundNatRules",
    "applicationSecurityGroups",
    "applicationGatewayBackendAddressPools",
    "virtualNetworkTaps",
)


def replaced_nic(world: World, body: Json, old: Json | None, nic_id: str) -> Json:
    """Return the NIC that a PUT of `body` asks for; its etag and state are not yet set."""
    given = as_object(body.get("properties") or {})
    if not body.get("location"):
        raise bad_request("LocationRequired", "The location property is required.")
    properties: Json = {"provisioningState": "Succeeded"}
    before: Json = old["properties"] if old is not None else {}
    kept: Json = before or {"resourceGuid": bodies.guid(world.random), **NEW}
    properties.update({name: copy.deepcopy(kept[name]) for name in READ_ONLY if name in kept})
    properties["ipConfigurations"] = _configurations(world, given, before, nic_id)
    properties["dnsSettings"] = _dns(given, before)
    for name, default in DEFAULTS.items():
        properties[name] = given.get(name, default) if given.get(name) is not None else default
    if given.get("networkSecurityGroup"):
        properties["networkSecurityGroup"] = _reference(given["networkSecurityGroup"])
    # Properties this simulator has not heard of belong to a newer api-version: stored as sent.
    known = {*properties, "networkSecurityGroup", *READ_ONLY}
    properties.update({name: value for name, value in given.items() if name not in known})
    new: Json = {"name": bodies.last(nic_id), "id": nic_id, "etag": ""}
    if body.get("tags"):
        new["tags"] = dict(body["tags"])
    new["properties"] = properties
    new["type"] = "Microsoft.Network/networkInterfaces"
    new["location"] = str(old["location"]) if old is not None else str(body["location"])
    new["kind"] = "Regular"
    return new


def _reference(value: Any) -> Json:
    body = as_object(value)
    if not isinstance(body.get("id"), str):
        raise bad_request("InvalidRequestFormat", "A reference needs an id.")
    return {"id": body["id"]}


def _dns(given: Json, before: Json) -> Json:
    servers = items(as_object(given.get("dnsSettings") or {}).get("dnsServers"))
    held = as_object(before.get("dnsSettings") or {})
    suffix = held.get("internalDomainNameSuffix", bodies.DOMAIN_SUFFIX)
    return {
        "dnsServers": servers,
        "appliedDnsServers": list(servers),
        "internalDomainNameSuffix": suffix,
    }


def _configurations(world: World, given: Json, before: Json, nic_id: str) -> list[Json]:
    entries = [as_object(entry) for entry in items(given.get("ipConfigurations"))]
    if not entries:
        raise bad_request(
            "NetworkInterfaceMustHaveAtLeastOneIpConfiguration",
            f"Network interface {nic_id} must have one or more IP configurations.",
        )
    names = [key(str(entry.get("name", ""))) for entry in entries]
    if "" in names or len(set(names)) < len(names):
        raise bad_request("InvalidRequestFormat", "IP configurations need distinct names.")
    stored = {key(entry["name"]): entry for entry in before.get("ipConfigurations", [])}
    return [
        _configuration(world, entry, stored.get(name), nic_id, first=order == 0)
        for order, (name, entry) in enumerate(zip(names, entries, strict=True))
    ]


def _configuration(
    world: World, entry: Json, old: Json | None, nic_id: str, *, first: bool
) -> Json:
    given = as_object(entry.get("properties") or {})
    version = given.get("privateIPAddressVersion") or "IPv4"
    method = given.get("privateIPAllocationMethod") or "Dynamic"
    held = old["properties"]["privateIPAddress"] if old is not None else None
    wanted = given.get("privateIPAddress") if method == "Static" else None
    properties: Json = {
        "provisioningState": "Succeeded",
        "privateIPAddress": wanted or held or f"10.0.200.{world.random.randint(4, 250)}",
        "privateIPAllocationMethod": method,
        "primary": bool(given.get("primary", first and version == "IPv4")),
        "privateIPAddressVersion": version,
    }
    for name in REFERENCES:
        if given.get(name):
            properties[name] = _reference(given[name])
    for name in REFERENCE_LISTS:
        # Absent, null and empty mean none, and none is absent on the wire.
        if given.get(name):
            properties[name] = [_reference(value) for value in given[name]]
    if "subnet" not in properties:
        raise bad_request("SubnetRequired", f"IP configuration {entry['name']} needs a subnet.")
    return {
        "name": str(entry["name"]),
        "id": f"{nic_id}/ipConfigurations/{entry['name']}",
        "etag": "",
        "type": "Microsoft.Network/networkInterfaces/ipConfigurations",
        "properties": properties,
    }
