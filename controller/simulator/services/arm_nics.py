"""Simulated network interfaces of Microsoft.Network.

A PUT replaces the resource: what it leaves out returns to its default, what is read-only in it is
ignored, and expanded references are reduced to their ids. (Microsoft OpenAPI networkInterface.json;
recorded traffic for the reduction.)
"""

from collections.abc import Iterator

from controller.simulator.services.arm_replies import (
    Call,
    bad_request,
    busy,
    missing_resource,
    network_reply,
    not_allowed,
    page,
    unauthorized_link,
)
from controller.simulator.services.http_values import Reply
from controller.simulator.services.network_requests import (
    NETWORK,
    check_etag,
    json_body,
    list_scope,
    mixed_pool,
    require,
    require_link,
    written,
)
from controller.simulator.services.nic_put import replaced_nic
from controller.simulator.world import bodies
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.world import World

LINKED_LISTS = {
    "loadBalancerBackendAddressPools": "loadBalancers/backendAddressPools/join/action",
    "loadBalancerInboundNatRules": "loadBalancers/inboundNatRules/join/action",
    "applicationSecurityGroups": "applicationSecurityGroups/joinIpConfiguration/action",
    "applicationGatewayBackendAddressPools": "applicationGateways/backendAddressPools/join/action",
    "virtualNetworkTaps": "virtualNetworkTaps/join/action",
}
LINKED_OBJECTS = {
    "subnet": "virtualNetworks/subnets/join/action",
    "publicIPAddress": "publicIPAddresses/join/action",
    "gatewayLoadBalancer": "loadBalancers/frontendIPConfigurations/join/action",
}


def network_interfaces(call: Call, group: str, names: list[str]) -> Reply:
    """Answer `networkInterfaces` and `networkInterfaces/{name}`."""
    world = call.world
    method = call.request.method
    if not names:
        if method != "GET":
            raise not_allowed(method)
        require(call, "networkInterfaces/read", list_scope(call, group))
        entries = [
            nic
            for nic in world.nics.values()
            if not group or key(bodies.group_of(nic["id"])) == key(group)
        ]
        return network_reply(call, page(call, entries))
    nic_id = bodies.resource_id(world.subscription, group, f"{NETWORK}/networkInterfaces", names[0])
    match method, len(names):
        case "GET", 1:
            return _get_nic(call, group, nic_id)
        case "PUT", 1:
            return _put_nic(call, nic_id)
        case _:
            raise not_allowed(method)


def _get_nic(call: Call, group: str, nic_id: str) -> Reply:
    require(call, "networkInterfaces/read", nic_id)
    nic = call.world.nics.get(key(nic_id))
    if nic is None:
        raise missing_resource(f"{NETWORK}/networkInterfaces", bodies.last(nic_id), group)
    nic = call.world.writes.lagging(nic)
    return network_reply(call, nic, headers={"ETag": nic["etag"]})


def _put_nic(call: Call, nic_id: str) -> Reply:
    world = call.world
    require(call, "networkInterfaces/write", nic_id)
    body, old = json_body(call), world.nics.get(key(nic_id))
    new = replaced_nic(world, body, old, nic_id if old is None else str(old["id"]))
    _check_links(call, new)
    _check_pools(world, new)
    check_etag(call, nic_id, old, honoured=world.settings.if_match_on_nic)
    if old is None:
        world.nics[key(nic_id)] = new
        return written(call, new, world.writes.put_nic(new, call.principal), 201)
    _check_busy(call, old)
    return written(call, new, world.writes.put_nic(new, call.principal), 200)


def _check_links(call: Call, nic: Json) -> None:
    """Refuse references that the caller may not join, new in this write or not."""
    for needs, linked in _links(nic):
        require_link(call, "networkInterfaces/write", nic["id"], needs, linked)
        in_pool = "/backendaddresspools/" in key(linked) and "/loadbalancers/" in key(linked)
        if in_pool and call.world.find_pool(linked) is None:
            # A deleted pool is an invalid linked scope, so it looks like a missing permission.
            action = f"{NETWORK}/networkInterfaces/write"
            full = f"{NETWORK}/{needs}"
            raise unauthorized_link(call, action, nic["id"], needs=full, linked=linked)


def _links(nic: Json) -> Iterator[tuple[str, str]]:
    group = nic["properties"].get("networkSecurityGroup")
    if group:
        yield "networkSecurityGroups/join/action", group["id"]
    for entry in nic["properties"]["ipConfigurations"]:
        properties = entry["properties"]
        for name, needs in LINKED_OBJECTS.items():
            if properties.get(name):
                yield needs, properties[name]["id"]
        for name, needs in LINKED_LISTS.items():
            for linked in bodies.references(properties, name):
                yield needs, linked


def _check_pools(world: World, nic: Json) -> None:
    for entry in nic["properties"]["ipConfigurations"]:
        pools = bodies.references(entry["properties"], "loadBalancerBackendAddressPools")
        if len(set(map(key, pools))) < len(pools):
            raise bad_request(
                "InvalidRequestFormat",
                "DuplicateIpConfigurationReferenceOnBackendAddressPool: "
                f"{entry['id']} refers to a pool more than once.",
            )
        for pool_id in pools:
            pool = world.find_pool(pool_id)
            if pool is not None and pool["properties"]["loadBalancerBackendAddresses"]:
                raise mixed_pool(pool_id)


def _check_busy(call: Call, nic: Json) -> None:
    """Refuse while this NIC, or in serial mode any NIC of the set, is being written."""
    world = call.world
    own = world.writes.in_flight.get(key(nic["id"]))
    if own is not None and world.settings.nic_put_conflict == "supersede":
        own = None
    blockers = [own] if own is not None else []
    vm = world.owner(nic["id"])
    if world.settings.conflict_mode == "serial" and vm is not None and world.set_of(vm):
        for operation in world.writes.in_flight.values():
            other = world.owner(operation.resource)
            if other is not None and world.set_of(other) == world.set_of(vm):
                blockers.append(operation)
    if blockers:
        raise busy(call, blockers[0], max(world.writes.remaining_s(b) for b in blockers))
