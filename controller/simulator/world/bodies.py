"""Raw ARM JSON of the simulated resources, and the ids that name them. No state, no time.

Shapes follow recorded traffic of Microsoft.Network 2025-05-01 and Microsoft.Compute 2025-04-01
(cassettes of kubernetes-sigs/cloud-provider-azure), and the published OpenAPI where none exists.
"""

import random
import uuid
from typing import Any, cast

Json = dict[str, Any]

DOMAIN_SUFFIX = "simulatedsimulatedsimulate.bx.internal.cloudapp.net"
API_ROOT = "/subscriptions/{subscription}/resourceGroups/{group}/providers/{kind}/{name}"


def guid(source: random.Random) -> str:
    """Return a random GUID from the seeded source."""
    return str(uuid.UUID(int=source.getrandbits(128), version=4))


def key(resource_id: str) -> str:
    """Return what ids are compared by: Azure ignores case, and so must every comparison."""
    return resource_id.rstrip("/").casefold()


def resource_id(subscription: str, group: str, kind: str, name: str) -> str:
    """Return the id of a top-level resource; `kind` such as `Microsoft.Network/loadBalancers`."""
    return API_ROOT.format(subscription=subscription, group=group, kind=kind, name=name)


def group_of(resource: str) -> str:
    """Return the resource group an id names, in the spelling of the id."""
    return resource.split("/")[4]


def last(resource: str) -> str:
    """Return the last segment of an id: the resource's name."""
    return resource.rstrip("/").rsplit("/", 1)[-1]


def references(body: Json, name: str) -> list[str]:
    """Return the ids in the reference list `name`; absent, null and empty mean the same."""
    entries: list[Json] = body.get(name) or []
    return [str(entry["id"]) for entry in entries]


def new_etag(source: random.Random) -> str:
    """Return a weak etag as Microsoft.Network spells it."""
    return f'W/"{guid(source)}"'


def mac_address(source: random.Random) -> str:
    """Return a MAC address of Azure's range, as a NIC spells it."""
    return "-".join(f"{part:02X}" for part in (0, 13, 58, *source.randbytes(3)))


def stamp_nic(nic: Json, etag: str, state: str) -> None:
    """Give a NIC and its ipConfigurations, which share its etag, a new etag and state."""
    nic["etag"] = etag
    nic["properties"]["provisioningState"] = state
    for entry in nic["properties"]["ipConfigurations"]:
        entry["etag"] = etag
        entry["properties"]["provisioningState"] = state


def stamp_load_balancer(load_balancer: Json, etag: str) -> None:
    """Give a load balancer and all its children, which share its etag, a new one."""
    load_balancer["etag"] = etag
    properties: Json = load_balancer["properties"]
    for children in properties.values():
        if isinstance(children, list):
            for entry in cast("list[Json]", children):
                entry["etag"] = etag


def ip_configuration(
    nic_id: str, name: str, *, address: str, subnet: str, pools: tuple[str, ...], primary: bool
) -> Json:
    """Return one ipConfiguration. The pool list is absent when there is none, as on the wire."""
    six = ":" in address
    properties: Json = {
        "provisioningState": "Succeeded",
        "privateIPAddress": address,
        "privateIPAllocationMethod": "Dynamic",
        "subnet": {"id": subnet},
        "primary": primary,
        "privateIPAddressVersion": "IPv6" if six else "IPv4",
    }
    if pools:
        properties["loadBalancerBackendAddressPools"] = [{"id": pool} for pool in pools]
    return {
        "name": name,
        "id": f"{nic_id}/ipConfigurations/{name}",
        "etag": "",
        "type": "Microsoft.Network/networkInterfaces/ipConfigurations",
        "properties": properties,
    }


def nic_body(
    nic_id: str,
    *,
    source: random.Random,
    location: str,
    configurations: list[Json],
    vm_id: str | None,
    security_group: str | None,
    accelerated: bool,
    primary: bool,
) -> Json:
    """Return a NIC attached to a VM, with everything a careless PUT would lose."""
    properties: Json = {
        "provisioningState": "Succeeded",
        "resourceGuid": guid(source),
        "ipConfigurations": configurations,
        "dnsSettings": {
            "dnsServers": ["10.0.0.10"],
            "appliedDnsServers": ["10.0.0.10"],
            "internalDomainNameSuffix": DOMAIN_SUFFIX,
        },
        "macAddress": mac_address(source),
        "primary": primary,
        "enableAcceleratedNetworking": accelerated,
        "vnetEncryptionSupported": False,
        "enableIPForwarding": True,
        "disableTcpStateTracking": False,
        "hostedWorkloads": [],
        "tapConfigurations": [],
        "nicType": "Standard",
        "allowPort25Out": True,
        "defaultOutboundConnectivityEnabled": False,
        "auxiliaryMode": "None",
        "auxiliarySku": "None",
    }
    if security_group is not None:
        properties["networkSecurityGroup"] = {"id": security_group}
    if vm_id is not None:
        properties["virtualMachine"] = {"id": vm_id}
    nic: Json = {
        "name": last(nic_id),
        "id": nic_id,
        "etag": "",
        "tags": {"team": "web", "Cost-Center": "4711"},
        "properties": properties,
        "type": "Microsoft.Network/networkInterfaces",
        "location": location,
        "kind": "Regular",
    }
    stamp_nic(nic, new_etag(source), "Succeeded")
    return nic


def subnet_body(subnet_id: str, *, nat_gateway: bool) -> Json:
    """Return a private subnet (Microsoft OpenAPI virtualNetwork.json), or one with a way out."""
    properties: Json = {
        "provisioningState": "Succeeded",
        "addressPrefix": "10.0.0.0/8",
        "privateEndpointNetworkPolicies": "Disabled",
        "privateLinkServiceNetworkPolicies": "Enabled",
        "defaultOutboundAccess": False,
    }
    if nat_gateway:
        network = subnet_id.rpartition("/virtualNetworks/")[0]
        properties["natGateway"] = {"id": f"{network}/natGateways/web-nat"}
    return {
        "name": last(subnet_id),
        "id": subnet_id,
        "etag": 'W/"5b1f2c9e-7a53-4a06-9d1c-0f6c1f8f9a10"',
        "type": "Microsoft.Network/virtualNetworks/subnets",
        "properties": properties,
    }


def virtual_network_body(network_id: str, subnets: list[Json], *, location: str) -> Json:
    """Return a virtual network (Microsoft OpenAPI virtualNetwork.json)."""
    return {
        "name": last(network_id),
        "id": network_id,
        "etag": 'W/"0c8a4a3e-8a64-4d7c-9f0e-6f2f3b1a7c55"',
        "type": "Microsoft.Network/virtualNetworks",
        "location": location,
        "properties": {
            "provisioningState": "Succeeded",
            "resourceGuid": "5c1b7f3a-93d2-4c58-8f0d-7a3f2b9c1e44",
            "addressSpace": {"addressPrefixes": ["10.0.0.0/8"]},
            "subnets": subnets,
            "virtualNetworkPeerings": [],
            "enableDdosProtection": False,
        },
    }


def public_address_body(address_id: str, frontend: str, *, location: str, order: int) -> Json:
    """Return a public address of a load balancer (Microsoft OpenAPI publicIpAddress.json)."""
    return {
        "name": last(address_id),
        "id": address_id,
        "etag": 'W/"8a5c5c0e-0a6b-4a2d-a4dd-2f7f1a6f5b77"',
        "type": "Microsoft.Network/publicIPAddresses",
        "location": location,
        "properties": {
            "provisioningState": "Succeeded",
            "resourceGuid": "3e0f2d91-4c0e-4f7a-b0c5-90f2a8d1c6e2",
            "ipAddress": f"203.0.113.{10 + order}",
            "publicIPAddressVersion": "IPv4",
            "publicIPAllocationMethod": "Static",
            "idleTimeoutInMinutes": 4,
            "ipTags": [],
            "ipConfiguration": {"id": frontend},
        },
        "sku": {"name": "Standard", "tier": "Regional"},
    }


def pool_body(pool_id: str, addresses: list[Json] | None = None) -> Json:
    """Return a backend pool as stored. Members that come from NICs are added when it is read."""
    return {
        "name": last(pool_id),
        "id": pool_id,
        "etag": "",
        "properties": {
            "provisioningState": "Succeeded",
            "loadBalancerBackendAddresses": addresses or [],
        },
        "type": "Microsoft.Network/loadBalancers/backendAddressPools",
    }


def address_entry(name: str, address: str, network: str) -> Json:
    """Return one member of an IP-based pool."""
    return {
        "name": name,
        "properties": {"ipAddress": address, "virtualNetwork": {"id": network}},
    }


def load_balancer_body(
    lb_id: str,
    *,
    source: random.Random,
    location: str,
    frontend: Json,
    pools: list[Json],
    probe_interval_s: int = 5,
) -> Json:
    """Return a Standard load balancer with one frontend, one probe, and one rule per pool."""
    front, probe = f"{lb_id}/frontendIPConfigurations/front", f"{lb_id}/probes/http"
    rules = [
        _rule(lb_id, pool, front=front, probe=probe, port=80 + order)
        for order, pool in enumerate(pools)
    ]
    back_references = [{"id": rule["id"]} for rule in rules]
    for pool, reference in zip(pools, back_references, strict=True):
        pool["properties"]["loadBalancingRules"] = [reference]
    load_balancer: Json = {
        "name": last(lb_id),
        "id": lb_id,
        "etag": "",
        "type": "Microsoft.Network/loadBalancers",
        "tags": {"team": "web"},
        "location": location,
        "properties": {
            "provisioningState": "Succeeded",
            "resourceGuid": guid(source),
            "frontendIPConfigurations": [_frontend(front, frontend, back_references)],
            "backendAddressPools": pools,
            "loadBalancingRules": rules,
            "probes": [_probe(probe, probe_interval_s, back_references)],
            "inboundNatRules": [],
            "outboundRules": [],
            "inboundNatPools": [],
        },
        "sku": {"name": "Standard", "tier": "Regional"},
    }
    stamp_load_balancer(load_balancer, new_etag(source))
    return load_balancer


def inbound_nat_rule(lb_id: str, name: str, *, port: int) -> Json:
    """Return a rule that forwards a port of the frontend to SSH of one VM."""
    return {
        "name": name,
        "id": f"{lb_id}/inboundNatRules/{name}",
        "etag": "",
        "type": "Microsoft.Network/loadBalancers/inboundNatRules",
        "properties": {
            "provisioningState": "Succeeded",
            "frontendIPConfiguration": {"id": f"{lb_id}/frontendIPConfigurations/front"},
            "frontendPort": port,
            "backendPort": 22,
            "enableFloatingIP": False,
            "idleTimeoutInMinutes": 4,
            "protocol": "Tcp",
            "enableTcpReset": False,
        },
    }


def _frontend(frontend_id: str, properties: Json, rules: list[Json]) -> Json:
    return {
        "name": "front",
        "id": frontend_id,
        "etag": "",
        "type": "Microsoft.Network/loadBalancers/frontendIPConfigurations",
        "properties": {
            "provisioningState": "Succeeded",
            "privateIPAllocationMethod": "Dynamic",
            **properties,
            "loadBalancingRules": rules,
        },
    }


def _probe(probe_id: str, interval_s: int, rules: list[Json]) -> Json:
    return {
        "name": "http",
        "id": probe_id,
        "etag": "",
        "type": "Microsoft.Network/loadBalancers/probes",
        "properties": {
            "provisioningState": "Succeeded",
            "protocol": "Http",
            "port": 80,
            "requestPath": "/healthz",
            "intervalInSeconds": interval_s,
            "numberOfProbes": 2,
            "probeThreshold": 1,
            "loadBalancingRules": rules,
        },
    }


def _rule(lb_id: str, pool: Json, *, front: str, probe: str, port: int) -> Json:
    name = f"{pool['name']}-rule"
    return {
        "name": name,
        "id": f"{lb_id}/loadBalancingRules/{name}",
        "etag": "",
        "type": "Microsoft.Network/loadBalancers/loadBalancingRules",
        "properties": {
            "provisioningState": "Succeeded",
            "frontendIPConfiguration": {"id": front},
            "frontendPort": port,
            "backendPort": 80,
            "enableFloatingIP": False,
            "idleTimeoutInMinutes": 4,
            "protocol": "Tcp",
            "enableTcpReset": True,
            "loadDistribution": "Default",
            "disableOutboundSnat": False,
            "backendAddressPool": {"id": pool["id"]},
            "backendAddressPools": [{"id": pool["id"]}],
            "probe": {"id": probe},
        },
    }
