"""What a load balancer becomes when a PUT replaces it: all children, with defaults for the rest.

Pools keep the members that come from NICs, because those are written on the NICs.
"""

from typing import Any, cast

from controller.simulator.services.arm_replies import as_object, bad_request, items
from controller.simulator.world import bodies
from controller.simulator.world.bodies import Json, key

CHILDREN = (
    "frontendIPConfigurations",
    "backendAddressPools",
    "loadBalancingRules",
    "probes",
    "inboundNatRules",
    "outboundRules",
    "inboundNatPools",
)
READ_ONLY = (
    "provisioningState",
    "loadBalancingRules",
    "inboundNatRules",
    "outboundRules",
    "backendIPConfigurations",
    "backendIPConfiguration",
)
DEFAULTS: dict[str, Json] = {
    "frontendIPConfigurations": {"privateIPAllocationMethod": "Dynamic"},
    "probes": {"numberOfProbes": 1, "probeThreshold": 1},
    "loadBalancingRules": {
        "enableFloatingIP": False,
        "idleTimeoutInMinutes": 4,
        "enableTcpReset": False,
        "loadDistribution": "Default",
        "disableOutboundSnat": False,
    },
}


def replaced_load_balancer(body: Json, old: Json | None, lb_id: str, guid: str) -> Json:
    """Return the load balancer that a PUT of `body` asks for; its etag is not yet set.

    `guid` is its resourceGuid if it is new.
    """
    if not body.get("location"):
        raise bad_request("LocationRequired", "The location property is required.")
    given = as_object(body.get("properties") or {})
    kept: Json = old["properties"] if old is not None else {"resourceGuid": guid}
    properties: Json = {
        "provisioningState": "Succeeded",
        "resourceGuid": kept["resourceGuid"],
    }
    for name in CHILDREN:
        properties[name] = _children(given, name, lb_id)
    _relate(properties)
    new: Json = {
        "name": bodies.last(lb_id),
        "id": lb_id,
        "etag": "",
        "type": "Microsoft.Network/loadBalancers",
    }
    if body.get("tags"):
        new["tags"] = dict(body["tags"])
    new["location"] = str(old["location"]) if old is not None else str(body["location"])
    new["properties"] = properties
    new["sku"] = {"tier": "Regional", **as_object(body.get("sku") or {"name": "Standard"})}
    return new


def _children(given: Json, name: str, lb_id: str) -> list[Json]:
    entries = [as_object(entry) for entry in items(given.get(name))]
    names = [key(str(entry.get("name") or "")) for entry in entries]
    if "" in names or len(set(names)) < len(names):
        raise bad_request("InvalidRequestFormat", f"{name} need distinct names.")
    return [_child(entry, name, lb_id) for entry in entries]


def _child(entry: Json, name: str, lb_id: str) -> Json:
    given = as_object(entry.get("properties") or {})
    properties: Json = {"provisioningState": "Succeeded", **DEFAULTS.get(name, {})}
    if name == "backendAddressPools":
        properties["loadBalancerBackendAddresses"] = []
    for part, value in given.items():
        if part in READ_ONLY or value is None:
            continue
        if part == "loadBalancerBackendAddresses":
            addresses = [as_object(address) for address in items(value)]
            properties[part] = [_address(each) for each in addresses if _has_address(each)]
        else:
            properties[part] = _reduced(value)
    return {
        "name": str(entry["name"]),
        "id": f"{lb_id}/{name}/{entry['name']}",
        "etag": "",
        "type": f"Microsoft.Network/loadBalancers/{name}",
        "properties": properties,
    }


def _has_address(entry: Json) -> bool:
    properties = as_object(entry.get("properties") or {})
    by_nic = properties.get("networkInterfaceIPConfiguration")
    return bool(properties.get("ipAddress")) and not by_nic


def _address(entry: Json) -> Json:
    given = as_object(entry["properties"])
    properties = {
        name: _reduced(value)
        for name, value in given.items()
        if name != "provisioningState" and value is not None
    }
    return {"name": str(entry.get("name") or given["ipAddress"]), "properties": properties}


def _reduced(value: Any) -> Any:
    """Return a value with expanded references reduced to their ids."""
    if isinstance(value, list):
        return [_reduced(part) for part in cast("list[object]", value)]
    if isinstance(value, dict):
        body = cast("Json", value)
        if isinstance(body.get("id"), str):
            return {"id": body["id"]}
        return body
    return value


def _relate(properties: Json) -> None:
    """Add the references that frontends, pools and probes have to the rules that name them."""
    places = (
        ("frontendIPConfiguration", "frontendIPConfigurations"),
        ("backendAddressPool", "backendAddressPools"),
        ("probe", "probes"),
    )
    for rule in properties["loadBalancingRules"]:
        part = rule["properties"]
        pools: list[Json] = part.get("backendAddressPools") or []
        if not part.get("backendAddressPool") and pools:
            part["backendAddressPool"] = pools[0]
        if part.get("backendAddressPool") and not pools:
            part["backendAddressPools"] = [part["backendAddressPool"]]
        for name, place in places:
            if not part.get(name):
                continue
            wanted = key(part[name]["id"])
            found = [child for child in properties[place] if key(child["id"]) == wanted]
            if not found:
                raise bad_request(
                    "InvalidResourceReference",
                    f"Resource {part[name]['id']} referenced by resource {rule['id']} was not "
                    "found.",
                )
            held = found[0]["properties"].setdefault("loadBalancingRules", [])
            held.append({"id": rule["id"]})
