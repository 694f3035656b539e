"""Simulated load balancers and backend pools of Microsoft.Network.

A PUT replaces the pool: what is read-only in it is ignored, and expanded references are reduced to
their ids. (Microsoft OpenAPI loadBalancer.json; recorded traffic for the reduction.)
"""

import copy

from controller.simulator.services import rule_health
from controller.simulator.services.arm_replies import (
    Call,
    as_object,
    bad_request,
    items,
    missing_child,
    missing_resource,
    network_reply,
    not_allowed,
    not_provisioned,
    page,
)
from controller.simulator.services.http_values import Reply
from controller.simulator.services.lb_put import CHILDREN, replaced_load_balancer
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
from controller.simulator.world import bodies
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.dataplane import AdminState, Member
from controller.simulator.world.world import World


def load_balancers(call: Call, group: str, names: list[str]) -> Reply:
    """Answer `loadBalancers`, one load balancer, its pools, and one pool."""
    world, method = call.world, call.request.method
    kind = f"{NETWORK}/loadBalancers"
    if not names:
        if method != "GET":
            raise not_allowed(method)
        require(call, "loadBalancers/read", list_scope(call, group))
        entries = [
            render_load_balancer(world, lb)
            for lb in world.load_balancers.values()
            if not group or key(bodies.group_of(lb["id"])) == key(group)
        ]
        return network_reply(call, page(call, entries))
    lb_id = bodies.resource_id(world.subscription, group, kind, names[0])
    load_balancer = world.load_balancers.get(key(lb_id))
    if method != "GET":
        return _write(call, load_balancer, lb_id, names[1:])
    children = {key(child): child for child in CHILDREN}
    child = children.get(key(names[1])) if len(names) > 1 else ""
    if len(names) > 3 or child is None:
        raise not_allowed(method)
    require(call, f"loadBalancers/{child}/read" if child else "loadBalancers/read", lb_id)
    if load_balancer is None:
        raise missing_resource(kind, names[0], group)
    if not child:
        body = render_load_balancer(world, load_balancer)
        return network_reply(call, body, headers={"ETag": body["etag"]})
    if child != "backendAddressPools":
        return _get_child(call, load_balancer, child, names[2:])
    if len(names) == 2:
        pools = load_balancer["properties"]["backendAddressPools"]
        return network_reply(call, page(call, [render_pool(world, pool) for pool in pools]))
    return _get_pool(call, f"{load_balancer['id']}/backendAddressPools/{names[2]}")


def _get_child(call: Call, load_balancer: Json, child: str, names: list[str]) -> Reply:
    """Answer the children of one kind, such as rules or probes, or one child."""
    entries: list[Json] = load_balancer["properties"][child]
    if not names:
        return network_reply(call, page(call, entries))
    for body in entries:
        if key(body["name"]) == key(names[0]):
            return network_reply(call, body, headers={"ETag": body["etag"]})
    raise missing_child(f"{load_balancer['id']}/{child}/{names[0]}")


def _write(call: Call, load_balancer: Json | None, lb_id: str, children: list[str]) -> Reply:
    match call.request.method, [name.casefold() for name in children]:
        case "POST", ["loadbalancingrules", _, "health"]:
            return rule_health.begin(
                call, load_balancer, f"{lb_id}/loadBalancingRules/{children[1]}"
            )
        case "PUT", []:
            require(call, "loadBalancers/write", lb_id)
            return _put_load_balancer(call, load_balancer, lb_id)
        case "PUT", ["backendaddresspools", _]:
            scope = f"{lb_id}/backendAddressPools/{children[1]}"
            require(call, "loadBalancers/backendAddressPools/write", scope)
            if load_balancer is None:
                kind, name = f"{NETWORK}/loadBalancers", bodies.last(lb_id)
                raise missing_resource(kind, name, bodies.group_of(lb_id))
            pool_id = f"{load_balancer['id']}/backendAddressPools/{children[1]}"
            return _put_pool(call, load_balancer, pool_id)
        case method, _:
            raise not_allowed(method)


def render_load_balancer(world: World, load_balancer: Json) -> Json:
    """Return a load balancer as GET shows it: with the members that NICs contribute."""
    properties = load_balancer["properties"]
    pools = [render_pool(world, pool) for pool in properties["backendAddressPools"]]
    return {**load_balancer, "properties": {**properties, "backendAddressPools": pools}}


def render_pool(world: World, pool: Json) -> Json:
    """Return a pool as GET shows it; its NIC members are those of the data plane."""
    pool = world.writes.lagging(pool)
    members = [member for member in world.members(pool["id"]) if member.nic]
    addresses = list(pool["properties"]["loadBalancerBackendAddresses"])
    if world.settings.shuffle_members:
        world.random.shuffle(members)
        world.random.shuffle(addresses)
    if members:
        addresses = [_nic_address(world, pool, member) for member in members]
    properties: Json = {
        **pool["properties"],
        "loadBalancerBackendAddresses": [_entry(pool, address) for address in addresses],
    }
    if members:
        properties["backendIPConfigurations"] = [{"id": m.ip_configuration} for m in members]
    return {**pool, "properties": properties}


def _entry(pool: Json, address: Json) -> Json:
    """Return a member as GET shows it: a child resource with the etag and state of its pool.

    As bodies in public issue threads show it; Microsoft's OpenAPI declares name and properties.
    """
    return {
        "name": address["name"],
        "id": f"{pool['id']}/loadBalancerBackendAddresses/{address['name']}",
        "etag": pool["etag"],
        "properties": {
            "provisioningState": pool["properties"]["provisioningState"],
            **address["properties"],
        },
        "type": f"{NETWORK}/loadBalancers/backendAddressPools/loadBalancerBackendAddresses",
    }


def _nic_address(world: World, pool: Json, member: Member) -> Json:
    nic_id, configuration = member.nic, member.ip_configuration
    name = f"{bodies.group_of(nic_id)}_{bodies.last(nic_id)}{bodies.last(configuration)}"
    properties: Json = {"networkInterfaceIPConfiguration": {"id": configuration}}
    if state := world.admin_states.get((key(pool["id"]), key(configuration))):
        properties["adminState"] = state
    return {"name": name, "properties": properties}


def _get_pool(call: Call, pool_id: str) -> Reply:
    pool = call.world.find_pool(pool_id)
    if pool is None:
        raise missing_child(pool_id)
    body = render_pool(call.world, pool)
    return network_reply(call, body, headers={"ETag": body["etag"]})


def _put_pool(call: Call, load_balancer: Json, pool_id: str) -> Reply:
    world = call.world
    old = world.find_pool(pool_id)
    by_nic = any(member.nic for member in world.members(pool_id))
    if old is not None and by_nic and world.settings.nic_pool_admin_state:
        return _put_admin_states(call, load_balancer, old)
    addresses = _addresses(world, as_object(json_body(call).get("properties") or {}), pool_id)
    _check_network_links(call, pool_id, addresses)
    check_etag(call, pool_id, old, honoured=world.settings.if_match_on_pool)
    _check_provisioned(world, load_balancer)
    new = _replaced_pool(json_body(call), pool_id, addresses, old)
    pools: list[Json] = load_balancer["properties"]["backendAddressPools"]
    if old is None:
        pools.append(new)
        before = bodies.pool_body(pool_id)
    else:
        before = copy.deepcopy(old)
        pools[pools.index(old)] = new
    operation = world.writes.put_pool(new, before, call.principal)
    return written(call, render_pool(world, new), operation, 200 if old else 201)


def _put_admin_states(call: Call, load_balancer: Json, pool: Json) -> Reply:
    """Set the adminState of members that come from NICs. Members that are left out are evicted.

    (Azure/bicep-registry-modules#2512 for the eviction.)
    """
    world, pool_id = call.world, str(pool["id"])
    check_etag(call, pool_id, pool, honoured=world.settings.if_match_on_pool)
    properties = as_object(json_body(call).get("properties") or {})
    wanted: dict[str, AdminState] = {}
    for entry in map(as_object, items(properties.get("loadBalancerBackendAddresses"))):
        part = as_object(entry.get("properties") or {})
        if not part.get("networkInterfaceIPConfiguration"):
            raise mixed_pool(pool_id)
        wanted[key(part["networkInterfaceIPConfiguration"]["id"])] = _admin_state(part)
    held = {
        key(member.ip_configuration): member.ip_configuration for member in world.members(pool_id)
    }
    if not wanted.keys() <= held.keys():
        raise _nic_based(pool_id)
    _check_provisioned(world, load_balancer)

    def follow() -> None:
        for configuration, original in held.items():
            if configuration in wanted:
                world.admin_states[key(pool_id), configuration] = wanted[configuration]
            else:
                world.evict(pool_id, original)
        world.apply_admin_states(pool_id)

    operation = world.writes.put_pool(pool, copy.deepcopy(pool), call.principal, on_apply=follow)
    return written(call, render_pool(world, pool), operation, 200)


def _admin_state(part: Json) -> AdminState:
    """Return the adminState of an entry, which is written in any case."""
    match str(part.get("adminState") or "None").casefold():
        case "none":
            return "None"
        case "up":
            return "Up"
        case "down":
            return "Down"
        case other:
            raise bad_request("InvalidRequestFormat", f"{other!r} is not an adminState.")


def _addresses(world: World, properties: Json, pool_id: str) -> list[Json]:
    """Return the members that a body requests; refuse members of NICs, and duplicates."""
    entries = [as_object(entry) for entry in items(properties.get("loadBalancerBackendAddresses"))]
    parts = [as_object(entry.get("properties") or {}) for entry in entries]
    by_nic = [part for part in parts if part.get("networkInterfaceIPConfiguration")]
    by_address = [part for part in parts if part.get("ipAddress")]
    if any(member.nic for member in world.members(pool_id)):
        if by_address:
            raise mixed_pool(pool_id)
        raise _nic_based(pool_id)
    if by_nic:
        raise mixed_pool(pool_id) if by_address else _nic_based(pool_id)
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
        properties["adminState"] = _admin_state(part)
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
            require_link(call, action, pool_id, "virtualNetworks/joinLoadBalancer/action", linked)
        elif "subnet" in properties:
            linked = properties["subnet"]["id"]
            # Which of the two Azure asks for is not documented.
            for needs in ("subnets/join/action", "subnets/joinLoadBalancer/action"):
                require_link(call, action, pool_id, f"virtualNetworks/{needs}", linked)


def _check_provisioned(world: World, load_balancer: Json) -> None:
    """Refuse while a present or future NIC member of any of its pools is not provisioned."""
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
        "provisioningState": _state_while_written(addresses, old),
        **kept,
        "loadBalancerBackendAddresses": addresses,
    }
    if old is not None and "loadBalancingRules" in old["properties"]:
        new["properties"]["loadBalancingRules"] = old["properties"]["loadBalancingRules"]
    return new


def _state_while_written(addresses: list[Json], old: Json | None) -> str:
    """Return the state that a pool shows until its write has ended.

    A new pool, and one whose members change, shows Updating; another write shows Succeeded although
    its operation is running (recorded traffic).
    """
    if old is None:
        return "Updating"
    held: list[Json] = old["properties"]["loadBalancerBackendAddresses"]
    unchanged = len(addresses) == len(held) and all(entry in held for entry in addresses)
    return "Succeeded" if unchanged else "Updating"


def _put_load_balancer(call: Call, load_balancer: Json | None, lb_id: str) -> Reply:
    """Replace a load balancer, or create one. Its pools cannot go while NICs are in them."""
    world = call.world
    body = json_body(call)
    check_etag(call, lb_id, load_balancer, honoured=True)
    own_id = lb_id if load_balancer is None else str(load_balancer["id"])
    new = replaced_load_balancer(body, load_balancer, own_id, bodies.guid(world.random))
    before = new if load_balancer is None else load_balancer
    if load_balancer is not None:
        _check_provisioned(world, load_balancer)
        wanted = {key(pool["id"]) for pool in new["properties"]["backendAddressPools"]}
        for pool in load_balancer["properties"]["backendAddressPools"]:
            in_use = any(member.nic for member in world.members(pool["id"]))
            if in_use and key(pool["id"]) not in wanted:
                raise bad_request(
                    "InUseBackendAddressPoolCannotBeDeleted",
                    f"Backend address pool {pool['id']} is in use and cannot be deleted.",
                )
    world.load_balancers[key(own_id)] = new
    operation = world.writes.put_load_balancer(new, before, call.principal)
    status = 201 if load_balancer is None else 200
    return written(call, render_load_balancer(world, new), operation, status)
