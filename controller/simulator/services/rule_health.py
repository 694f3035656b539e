"""The health of a load balancing rule: what the probe found, member by member.

A POST answers 202 with a Location, which answers 202 until the result is ready (Microsoft docs,
Manage Azure Load Balancer health status, 10/30/2024). How fresh a result is, and how often it may
be requested, is not documented.
"""

from controller.simulator.services.arm_errors import Refusal, error
from controller.simulator.services.arm_replies import (
    Call,
    empty_reply,
    missing_child,
    missing_resource,
    network_reply,
)
from controller.simulator.services.http_values import Reply
from controller.simulator.services.network_requests import NETWORK, require
from controller.simulator.world import bodies
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.dataplane import Member
from controller.simulator.world.world import World


def begin(call: Call, load_balancer: Json | None, rule_id: str) -> Reply:
    """Answer the POST: accepted."""
    world = call.world
    require(call, "loadBalancers/loadBalancingRules/health/action", rule_id)
    if load_balancer is None:
        lb_id = rule_id.rpartition("/loadBalancingRules/")[0]
        kind = f"{NETWORK}/loadBalancers"
        raise missing_resource(kind, bodies.last(lb_id), bodies.group_of(lb_id))
    rules: list[Json] = load_balancer["properties"]["loadBalancingRules"]
    rule = next((rule for rule in rules if key(rule["id"]) == key(rule_id)), None)
    if rule is None:
        raise missing_child(rule_id)
    result_id = bodies.guid(world.random)
    ready_at = world.now + world.settings.rule_health_latency_s
    world.rule_health[result_id] = ready_at, health(world, load_balancer, rule)
    version = call.request.parameter("api-version")
    location = (
        f"{call.base}/subscriptions/{world.subscription}/providers/{NETWORK}/locations"
        f"/{world.location}/operationResults/{result_id}?api-version={version}"
    )
    return empty_reply(call, 202, {"Location": location})


def result(call: Call, result_id: str) -> Reply:
    """Answer a poll of the Location."""
    world = call.world
    scope = f"/subscriptions/{world.subscription}"
    require(call, "locations/operationResults/read", scope)
    found = world.rule_health.get(result_id.casefold())
    if found is None:
        raise Refusal(404, error("NotFound", f"Operation {result_id} was not found.", []))
    ready_at, body = found
    if world.now < ready_at:
        return empty_reply(call, 202, {"Location": f"{call.base}{_target(call)}"})
    return network_reply(call, body)


def health(world: World, load_balancer: Json, rule: Json) -> Json:
    """Return the health of a rule now."""
    properties = rule["properties"]
    pool_id = properties["backendAddressPool"]["id"]
    reference: Json = properties.get("probe") or {}
    members = world.members(pool_id)
    probe = next(
        (
            probe["properties"]
            for probe in load_balancer["properties"]["probes"]
            if key(probe["id"]) == key(str(reference.get("id", "")))
        ),
        None,
    )
    good = {member.identity for member in members if world.probed_up(pool_id, member.vm)}
    all_up = (
        not good and probe is not None and probe.get("noHealthyBackendsBehavior") == "AllProbedUp"
    )
    entries = [
        _entry(member, _reason(world, member, probe, good=member.identity in good, all_up=all_up))
        for member in members
    ]
    up = sum(entry["state"] == "Up" for entry in entries)
    return {"up": up, "down": len(entries) - up, "loadBalancerBackendAddresses": entries}


def _reason(world: World, member: Member, probe: Json | None, *, good: bool, all_up: bool) -> str:
    if probe is not None and member.admin_state != "None":
        return f"{member.admin_state}_Admin"
    if good or probe is None:
        # The reason of a rule without a probe is not documented.
        return "Up_Probe_Success"
    if all_up:
        return "Up_Probe_AllDownIsUp"
    http = str(probe["protocol"]).casefold() != "tcp"
    answers = http and world.serving(member.vm)
    return "Down_Probe_HttpStatusCodeError" if answers else "Down_Probe_TcpProbeTimeout"


def _entry(member: Member, reason: str) -> Json:
    entry: Json = {
        "ipAddress": member.address,
        "state": reason.partition("_")[0],
        "reason": reason,
    }
    if member.nic:
        entry["networkInterfaceIPConfigurationId"] = member.ip_configuration
    return entry


def _target(call: Call) -> str:
    version = call.request.parameter("api-version")
    return f"{call.request.path}?api-version={version}"
