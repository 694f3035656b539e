"""Simulated virtual networks, subnets and public IP addresses of Microsoft.Network, read only."""

from controller.simulator.services.arm_replies import (
    Call,
    missing_child,
    missing_resource,
    network_reply,
    not_allowed,
    page,
)
from controller.simulator.services.http_values import Reply
from controller.simulator.services.network_requests import NETWORK, list_scope, require
from controller.simulator.world import bodies
from controller.simulator.world.bodies import Json, group_of, key
from controller.simulator.world.world import World

SUBNETS = "/subnets/"


def virtual_networks(call: Call, group: str, names: list[str]) -> Reply:
    """Answer `virtualNetworks`, one network, its subnets, and one subnet."""
    world = call.world
    if call.request.method != "GET":
        raise not_allowed(call.request.method)
    if not names:
        require(call, "virtualNetworks/read", list_scope(call, group))
        found = [_network(world, network_id) for network_id in _networks(world, group)]
        return network_reply(call, page(call, found))
    kind = f"{NETWORK}/virtualNetworks"
    network_id = bodies.resource_id(world.subscription, group, kind, names[0])
    match [key(name) for name in names[1:]]:
        case ["subnets", _]:
            return _subnet_reply(call, f"{network_id}{SUBNETS}{names[2]}")
        case ["subnets"]:
            require(call, "virtualNetworks/subnets/read", network_id)
            body = _network(world, network_id)
            return network_reply(call, page(call, body["properties"]["subnets"]))
        case []:
            require(call, "virtualNetworks/read", network_id)
        case _:
            raise missing_child(call.request.path)
    known = {key(each): each for each in _networks(world, group)}
    if key(network_id) not in known:
        raise missing_resource(kind, names[0], group)
    body = _network(world, known[key(network_id)])
    return network_reply(call, body, headers={"ETag": body["etag"]})


def public_addresses(call: Call, group: str, names: list[str]) -> Reply:
    """Answer `publicIPAddresses` and one address: those of the load balancers."""
    world, kind = call.world, f"{NETWORK}/publicIPAddresses"
    if call.request.method != "GET" or len(names) > 1:
        raise not_allowed(call.request.method)
    found = [body for body in public_address_bodies(world) if _in_group(body["id"], group)]
    if not names:
        require(call, "publicIPAddresses/read", list_scope(call, group))
        return network_reply(call, page(call, found))
    address_id = bodies.resource_id(world.subscription, group, kind, names[0])
    require(call, "publicIPAddresses/read", address_id)
    body = next((each for each in found if key(each["id"]) == key(address_id)), None)
    if body is None:
        raise missing_resource(kind, names[0], group)
    return network_reply(call, body, headers={"ETag": body["etag"]})


def network_bodies(world: World) -> list[Json]:
    """Return all virtual networks."""
    return [_network(world, network_id) for network_id in _networks(world, "")]


def public_address_bodies(world: World) -> list[Json]:
    """Return the public addresses that frontends of load balancers refer to."""
    found: dict[str, Json] = {}
    for load_balancer in world.load_balancers.values():
        for frontend in load_balancer["properties"]["frontendIPConfigurations"]:
            reference = frontend["properties"].get("publicIPAddress")
            if reference:
                body = bodies.public_address_body(
                    reference["id"], frontend["id"], location=world.location, order=len(found)
                )
                found.setdefault(key(reference["id"]), body)
    return list(found.values())


def _in_group(resource: str, group: str) -> bool:
    return not group or key(group_of(resource)) == key(group)


def _subnets(world: World) -> list[str]:
    """Return the ids of the subnets that NICs are in, each once."""
    known = {
        key(entry["properties"]["subnet"]["id"]): str(entry["properties"]["subnet"]["id"])
        for nic in world.nics.values()
        for entry in nic["properties"]["ipConfigurations"]
    }
    return list(known.values())


def _networks(world: World, group: str) -> list[str]:
    known = {key(subnet.rpartition(SUBNETS)[0]): subnet for subnet in _subnets(world)}
    networks = [subnet.rpartition(SUBNETS)[0] for subnet in known.values()]
    return [network for network in networks if _in_group(network, group)]


def _network(world: World, network_id: str) -> Json:
    subnets = [_subnet(world, each) for each in _subnets(world)]
    own = [each for each in subnets if key(each["id"]).startswith(key(network_id) + SUBNETS)]
    return bodies.virtual_network_body(network_id, own, location=world.location)


def _subnet(world: World, subnet_id: str) -> Json:
    captive = world.settings.outbound_needs_public_pool
    return bodies.subnet_body(subnet_id, nat_gateway=not captive)


def _subnet_reply(call: Call, subnet_id: str) -> Reply:
    require(call, "virtualNetworks/subnets/read", subnet_id)
    known = {key(each): each for each in _subnets(call.world)}
    if key(subnet_id) not in known:
        raise missing_child(subnet_id)
    body = _subnet(call.world, known[key(subnet_id)])
    return network_reply(call, body, headers={"ETag": body["etag"]})
