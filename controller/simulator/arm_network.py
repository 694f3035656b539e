"""Simulated Microsoft.Network: NICs, load balancers, backend pools.

A PUT replaces the resource: what it leaves out returns to its default, what is read-only in it is
ignored, what is expanded in it is reduced to its id. (Microsoft OpenAPI networkInterface.json and
loadBalancer.json; recorded traffic for the reduction.)
"""

import copy
import json
from collections.abc import Iterator

from controller.simulator import bodies
from controller.simulator.arm_replies import (
    Call,
    as_object,
    bad_request,
    bare,
    busy,
    etag_mismatch,
    items,
    missing_child,
    missing_resource,
    network_reply,
    not_allowed,
    not_provisioned,
    operation_headers,
    page,
    unauthorized,
    unauthorized_link,
)
from controller.simulator.bodies import Json, key
from controller.simulator.nic_put import replaced_nic
from controller.simulator.operations import Operation
from controller.simulator.wire import Reply
from controller.simulator.world import World

NETWORK = "Microsoft.Network"

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


def require(call: Call, action: str, scope: str) -> None:
    """Refuse a caller without `action` (below Microsoft.Network) on `scope`."""
    settings, roles = call.world.settings, call.world.roles
    full = f"{NETWORK}/{action}"
    if settings.rbac_enforced and not roles.permit(call.principal, full, scope):
        raise unauthorized(call, full, scope)


def _require_link(call: Call, action: str, scope: str, needs: str, linked: str) -> None:
    settings, roles = call.world.settings, call.world.roles
    full = f"{NETWORK}/{needs}"
    if settings.rbac_enforced and not roles.permit(call.principal, full, linked):
        raise unauthorized_link(call, f"{NETWORK}/{action}", scope, needs=full, linked=linked)


def _body(call: Call) -> Json:
    try:
        return as_object(json.loads(call.request.body))
    except ValueError:
        raise bad_request("InvalidRequestContent", "The request content was invalid.") from None


def _check_etag(call: Call, resource_id: str, old: Json | None, *, honoured: bool) -> None:
    """Refuse a condition that does not hold; none holds for what is not there."""
    given = call.request.headers.get("if-match", "")
    if not given or not honoured or (old is not None and given.strip() == "*"):
        return
    etag = "" if old is None else str(old["etag"])
    if not etag or bare(given).casefold() != bare(etag).casefold():
        raise etag_mismatch(given, etag, resource_id if old is None else str(old["id"]))


def _written(call: Call, body: Json, operation: Operation | None, status: int) -> Reply:
    headers = {} if operation is None else operation_headers(call, operation)
    return network_reply(call, body, status=status, headers=headers)


# Network interfaces


def network_interfaces(call: Call, group: str, names: list[str]) -> Reply:
    """Answer `networkInterfaces` and `networkInterfaces/{name}`."""
    world = call.world
    method = call.request.method
    if not names:
        if method != "GET":
            raise not_allowed(method)
        scope = f"/subscriptions/{world.subscription}/resourceGroups/{group}"
        require(call, "networkInterfaces/read", scope)
        entries = [
            nic for nic in world.nics.values() if key(bodies.group_of(nic["id"])) == key(group)
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
    nic = _lagging(call.world, nic)
    return network_reply(call, nic, headers={"ETag": nic["etag"]})


def _put_nic(call: Call, nic_id: str) -> Reply:
    world = call.world
    require(call, "networkInterfaces/write", nic_id)
    body, old = _body(call), world.nics.get(key(nic_id))
    new = replaced_nic(world, body, old, nic_id if old is None else str(old["id"]))
    _check_links(call, new)
    _check_pools(world, new)
    _check_etag(call, nic_id, old, honoured=world.settings.if_match_on_nic)
    if old is None:
        world.nics[key(nic_id)] = new
        return _written(call, new, world.write_nic(new, call.principal), 201)
    _check_busy(call, old)
    return _written(call, new, world.write_nic(new, call.principal), 200)


def _check_links(call: Call, nic: Json) -> None:
    """Refuse references the caller may not join, whether or not this write brought them in."""
    for needs, linked in _links(nic):
        _require_link(call, "networkInterfaces/write", nic["id"], needs, linked)
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
                raise _mixed(pool_id)


def _mixed(pool_id: str) -> Exception:
    return bad_request(
        "CannotMixIPBasedAddressesAndIPConfigurationsOnLoadBalancerBackendAddressPool",
        f"Mixing backend ipconfigs and IPAddresses in backend pool {pool_id} is not allowed.",
    )


def _check_busy(call: Call, nic: Json) -> None:
    """Refuse while this NIC, or in serial mode any NIC of the set, is being written."""
    world = call.world
    own = world.in_flight.get(key(nic["id"]))
    blockers = [own] if own is not None else []
    vm = world.owner(nic["id"])
    if world.settings.conflict_mode == "serial" and vm is not None and vm.in_set:
        for operation in world.in_flight.values():
            other = world.owner(operation.resource)
            if other is not None and other.in_set:
                blockers.append(operation)
    if blockers:
        raise busy(call, blockers[0], max(world.remaining_s(b) for b in blockers))


def _lagging(world: World, resource: Json) -> Json:
    until, before = world.stale.get(key(resource["id"]), (0.0, resource))
    return before if world.now < until else resource


# Virtual networks


def subnet(call: Call, group: str, network: str, name: str) -> Reply:
    """Answer a subnet, read only: the one that all NICs are in."""
    world = call.world
    if call.request.method != "GET":
        raise not_allowed(call.request.method)
    kind = f"{NETWORK}/virtualNetworks"
    network_id = bodies.resource_id(world.subscription, group, kind, network)
    subnet_id = f"{network_id}/subnets/{name}"
    require(call, "virtualNetworks/subnets/read", subnet_id)
    known = {
        key(entry["properties"]["subnet"]["id"]): str(entry["properties"]["subnet"]["id"])
        for nic in world.nics.values()
        for entry in nic["properties"]["ipConfigurations"]
    }
    if key(subnet_id) not in known:
        raise missing_child(subnet_id)
    body = bodies.subnet_body(
        known[key(subnet_id)], nat_gateway=not world.settings.outbound_needs_public_pool
    )
    return network_reply(call, body, headers={"ETag": body["etag"]})


# Load balancers and pools


def load_balancers(call: Call, group: str, names: list[str]) -> Reply:
    """Answer `loadBalancers`, one of them, its pools, and one pool."""
    world, method = call.world, call.request.method
    kind = f"{NETWORK}/loadBalancers"
    if not names:
        if method != "GET":
            raise not_allowed(method)
        scope = f"/subscriptions/{world.subscription}/resourceGroups/{group}"
        require(call, "loadBalancers/read", scope)
        entries = [
            render_load_balancer(world, lb)
            for lb in world.load_balancers.values()
            if key(bodies.group_of(lb["id"])) == key(group)
        ]
        return network_reply(call, page(call, entries))
    lb_id = bodies.resource_id(world.subscription, group, kind, names[0])
    load_balancer = world.load_balancers.get(key(lb_id))
    match method, [name.casefold() for name in names[1:]]:
        case "GET", []:
            require(call, "loadBalancers/read", lb_id)
        case "GET", ["backendaddresspools", *_]:
            require(call, "loadBalancers/backendAddressPools/read", lb_id)
        case "PUT", ["backendaddresspools", _]:
            scope = f"{lb_id}/backendAddressPools/{names[2]}"
            require(call, "loadBalancers/backendAddressPools/write", scope)
        case _:
            raise not_allowed(method)
    if load_balancer is None:
        raise missing_resource(kind, names[0], group)
    if len(names) == 1:
        body = render_load_balancer(world, load_balancer)
        return network_reply(call, body, headers={"ETag": body["etag"]})
    if len(names) == 2:
        pools = load_balancer["properties"]["backendAddressPools"]
        return network_reply(call, page(call, [render_pool(world, pool) for pool in pools]))
    pool_id = f"{load_balancer['id']}/backendAddressPools/{names[2]}"
    if method == "PUT":
        return _put_pool(call, load_balancer, pool_id)
    return _get_pool(call, pool_id)


def render_load_balancer(world: World, load_balancer: Json) -> Json:
    """Return a load balancer as GET shows it: with the members that NICs contribute."""
    properties = load_balancer["properties"]
    pools = [render_pool(world, pool) for pool in properties["backendAddressPools"]]
    return {**load_balancer, "properties": {**properties, "backendAddressPools": pools}}


def render_pool(world: World, pool: Json) -> Json:
    """Return a pool as GET shows it; NIC-based members are what the data plane holds."""
    pool = _lagging(world, pool)
    members = [member for member in world.members(pool["id"]) if member.nic]
    addresses = list(pool["properties"]["loadBalancerBackendAddresses"])
    if world.settings.shuffle_members:
        world.random.shuffle(members)
        world.random.shuffle(addresses)
    properties: Json = {**pool["properties"], "loadBalancerBackendAddresses": addresses}
    if members:
        properties["loadBalancerBackendAddresses"] = [
            _nic_address(member.nic, member.ip_configuration) for member in members
        ]
        properties["backendIPConfigurations"] = [{"id": m.ip_configuration} for m in members]
    return {**pool, "properties": properties}


def _nic_address(nic_id: str, configuration: str) -> Json:
    name = f"{bodies.group_of(nic_id)}_{bodies.last(nic_id)}{bodies.last(configuration)}"
    return {
        "name": name,
        "properties": {
            "provisioningState": "Succeeded",
            "networkInterfaceIPConfiguration": {"id": configuration},
        },
    }


def _get_pool(call: Call, pool_id: str) -> Reply:
    pool = call.world.find_pool(pool_id)
    if pool is None:
        raise missing_child(pool_id)
    body = render_pool(call.world, pool)
    return network_reply(call, body, headers={"ETag": body["etag"]})


def _put_pool(call: Call, load_balancer: Json, pool_id: str) -> Reply:
    world = call.world
    old = world.find_pool(pool_id)
    addresses = _addresses(world, as_object(_body(call).get("properties") or {}), pool_id)
    _check_network_links(call, pool_id, addresses)
    _check_etag(call, pool_id, old, honoured=world.settings.if_match_on_pool)
    _check_provisioned(world, load_balancer)
    new = _replaced_pool(_body(call), pool_id, addresses, old)
    pools: list[Json] = load_balancer["properties"]["backendAddressPools"]
    if old is None:
        pools.append(new)
        before = bodies.pool_body(pool_id)
    else:
        before = copy.deepcopy(old)
        pools[pools.index(old)] = new
    operation = world.write_pool(new, before, call.principal)
    return _written(call, render_pool(world, new), operation, 200 if old else 201)


def _addresses(world: World, properties: Json, pool_id: str) -> list[Json]:
    """Return the members a body asks for; refuse what belongs to NICs, and what is doubled."""
    entries = [as_object(entry) for entry in items(properties.get("loadBalancerBackendAddresses"))]
    parts = [as_object(entry.get("properties") or {}) for entry in entries]
    by_nic = [part for part in parts if part.get("networkInterfaceIPConfiguration")]
    by_address = [part for part in parts if part.get("ipAddress")]
    if any(member.nic for member in world.members(pool_id)):
        if by_address:
            raise _mixed(pool_id)
        raise _nic_based(pool_id)
    if by_nic:
        raise _mixed(pool_id) if by_address else _nic_based(pool_id)
    names = [str(entry.get("name", "")).casefold() for entry in entries]
    values = [str(part.get("ipAddress")) for part in parts]
    if len(set(names)) < len(names) or len(set(values)) < len(values):
        raise bad_request("InvalidRequestFormat", "Backend addresses must be unique.")
    if len(entries) > world.settings.ip_pool_member_limit:
        raise bad_request("BackendAddressPoolLimitReached", "The pool has too many members.")
    return [
        _address(entry, part, order)
        for order, (entry, part) in enumerate(zip(entries, parts, strict=True))
    ]


def _address(entry: Json, part: Json, order: int) -> Json:
    properties: Json = {}
    for name in ("virtualNetwork", "subnet"):
        if part.get(name):
            properties[name] = {"id": part[name]["id"]}
    if not part.get("ipAddress"):
        raise bad_request("InvalidRequestFormat", "A backend address needs an ipAddress.")
    properties["ipAddress"] = part["ipAddress"]
    if part.get("adminState"):
        properties["adminState"] = str(part["adminState"]).capitalize()
    return {"name": entry.get("name") or f"address{order}", "properties": properties}


def _nic_based(pool_id: str) -> Exception:
    return bad_request(
        "ModificationOfNICIpConfigBackendPoolNotSupported",
        f"Backend pool {pool_id} is NIC-based; its members are changed on the network interface.",
    )


def _check_network_links(call: Call, pool_id: str, addresses: list[Json]) -> None:
    action = "loadBalancers/backendAddressPools/write"
    for entry in addresses:
        properties = entry["properties"]
        if "virtualNetwork" in properties:
            linked = properties["virtualNetwork"]["id"]
            _require_link(call, action, pool_id, "virtualNetworks/joinLoadBalancer/action", linked)
        elif "subnet" in properties:
            linked = properties["subnet"]["id"]
            # Which of the two Azure asks for is not documented.
            for needs in ("subnets/join/action", "subnets/joinLoadBalancer/action"):
                _require_link(call, action, pool_id, f"virtualNetworks/{needs}", linked)


def _check_provisioned(world: World, load_balancer: Json) -> None:
    """Refuse while a NIC that is, or is about to be, a member of any of its pools is not ready."""
    prefix = key(load_balancer["id"]) + "/backendaddresspools/"
    members = {
        key(member.nic)
        for pool in load_balancer["properties"]["backendAddressPools"]
        for member in world.members(pool["id"])
    }
    for nic in world.nics.values():
        state = nic["properties"]["provisioningState"]
        if state == "Succeeded":
            continue
        for entry in nic["properties"]["ipConfigurations"]:
            pools = bodies.references(entry["properties"], "loadBalancerBackendAddressPools")
            if key(nic["id"]) in members or any(key(pool).startswith(prefix) for pool in pools):
                raise not_provisioned(entry["id"], load_balancer["id"], state)


def _replaced_pool(body: Json, pool_id: str, addresses: list[Json], old: Json | None) -> Json:
    read_only = ("provisioningState", "loadBalancingRules", "backendIPConfigurations")
    given = as_object(body.get("properties") or {})
    kept = {name: value for name, value in given.items() if name not in read_only}
    new = bodies.pool_body(pool_id if old is None else old["id"], addresses)
    new["properties"] = {
        "provisioningState": "Updating" if old is None else "Succeeded",
        **kept,
        "loadBalancerBackendAddresses": addresses,
    }
    if old is not None and "loadBalancingRules" in old["properties"]:
        new["properties"]["loadBalancingRules"] = old["properties"]["loadBalancingRules"]
    return new
