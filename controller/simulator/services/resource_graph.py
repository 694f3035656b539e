"""Simulated Azure Resource Graph: the scheduled events of the set in `maintenanceresources`.

Off until the set publishes its events there (`scheduledEventsPolicy`). Rows follow events late
(`resource_graph_delay_s`) and stay when the events have ended. Of the query language it knows what
a query for scheduled events needs: `where` with `type`, `properties.NAME` and lists of texts,
joined by `or`; `project`, `order by` and `limit` change nothing here. What Azure answers without
any permission is not documented; here it is 403.
"""

import math
import re
from datetime import UTC, datetime

from controller.simulator.services.arm_errors import Refusal, error
from controller.simulator.services.arm_replies import (
    Call,
    as_object,
    bad_request,
    items,
    network_reply,
    not_allowed,
    unauthorized,
)
from controller.simulator.services.http_values import Reply
from controller.simulator.services.network_requests import json_body
from controller.simulator.world import bodies
from controller.simulator.world.access import Bucket
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.world import World

TABLE = "maintenanceresources"
TYPE = "microsoft.maintenance/scheduledevents"
WINDOW_S = 5.0
_TERM = re.compile(
    r"(?:tostring\()?(?P<field>type|name|id|properties\.\w+)\)?\s*"
    r"(?P<operator>=~|==|!in~|in~)\s*(?P<values>'[^']*'|\"[^\"]*\"|\([^()]*\))",
    re.IGNORECASE,
)
_VALUE = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_WITHOUT_EFFECT = ("project", "order by", "sort by", "limit", "take")


def query(call: Call) -> Reply:
    """Answer one query."""
    if call.request.method != "POST":
        raise not_allowed(call.request.method)
    body = json_body(call)
    wanted = {key(str(each)) for each in items(body.get("subscriptions"))}
    conditions = _conditions(str(body.get("query") or ""))
    world = call.world
    if not _permitted(call, world.availability_set_id):
        raise unauthorized(call, "Microsoft.ResourceGraph/resources/read", call.request.path)
    headers = _quota(call)
    shown = not wanted or key(world.subscription) in wanted
    rows = [row for row in _rows(call) if all(_holds(each, row) for each in conditions)]
    options = as_object(body.get("options") or {})
    return network_reply(call, _page(rows if shown else [], options), headers=headers)


def _rows(call: Call) -> list[Json]:
    world, settings = call.world, call.world.settings
    if not world.publishes_events:
        return []
    found: list[Json] = []
    for event, fields in world.events.rows(settings.resource_graph_delay_s):
        for target in _targets(world, event.resources):
            if _permitted(call, target):
                lie = settings.resource_graph_lie
                properties = fields | {"TargetResourceId": target}
                properties["EventStatus"] = lie or fields["EventStatus"]
                found.append(_row(world, target, properties))
    return sorted(found, key=lambda row: str(row["id"]))


def _targets(world: World, names: tuple[str, ...]) -> list[str]:
    vms = [vm for name in names if (vm := world.find_vm(name)) is not None]
    if world.settings.resource_graph_target == "set":
        return [world.availability_set_id] if any(vm.in_set for vm in vms) else []
    return [vm.resource_id for vm in vms]


def _row(world: World, target: str, properties: Json) -> Json:
    event_id = str(properties["EventId"])
    return {
        "id": f"{target}/providers/Microsoft.Maintenance/scheduledevents/{event_id}",
        "name": event_id,
        "type": TYPE,
        "tenantId": world.tenant,
        "location": world.location,
        "resourceGroup": bodies.group_of(target),
        "subscriptionId": world.subscription,
        "properties": properties,
    }


def _permitted(call: Call, target: str) -> bool:
    """Return whether the caller may read a VM or set; a row of another one is left out."""
    world = call.world
    kind = "virtualMachines" if "/virtualmachines/" in key(target) else "availabilitySets"
    action = f"Microsoft.Compute/{kind}/read"
    return not world.settings.rbac_enforced or world.roles.permit(call.principal, action, target)


# --- the query


def _conditions(text: str) -> list[list[re.Match[str]]]:
    """Return the conditions of a query, each a list of alternatives."""
    table, *stages = (part.strip() for part in re.split(r"\n?\s*\|\s*", text.strip()))
    if key(table) != TABLE:
        raise bad_request("InvalidQuery", f"The table '{table[:60]}' is not known.")
    found: list[list[re.Match[str]]] = []
    for stage in stages:
        if stage.casefold().startswith(_WITHOUT_EFFECT):
            continue
        word, _, rest = stage.partition(" ")
        terms = [_TERM.fullmatch(each.strip()) for each in re.split(r"\sor\s", rest)]
        if word.casefold() != "where" or not all(terms):
            raise bad_request("ParserFailure", f"The query cannot be parsed at '{stage[:60]}'.")
        found.append([each for each in terms if each is not None])
    return found


def _holds(alternatives: list[re.Match[str]], row: Json) -> bool:
    return any(_term_holds(each, row) for each in alternatives)


def _term_holds(term: re.Match[str], row: Json) -> bool:
    field, operator = term["field"], term["operator"].casefold()
    part: Json = row
    if field.casefold().startswith("properties."):
        part, field = row["properties"], field.partition(".")[2]
    value = str(part.get(field, ""))
    values = [one or other for one, other in _VALUE.findall(term["values"])]
    if operator == "==":
        return value in values
    found = value.casefold() in {each.casefold() for each in values}
    return not found if operator.startswith("!") else found


def _page(rows: list[Json], options: Json) -> Json:
    size = max(1, min(1000, int(options.get("$top") or 1000)))
    token = str(options.get("$skipToken") or "0")
    start = int(token) if token.isdigit() else 0
    shown = rows[start : start + size]
    more = start + size < len(rows)
    body: Json = {
        "totalRecords": len(rows),
        "count": len(shown),
        "data": shown,
        "facets": [],
        "resultTruncated": "true" if more else "false",
    }
    if more:
        body["$skipToken"] = str(start + size)
    return body


# --- the quota


def _quota(call: Call) -> dict[str, str]:
    """Count a query; refuse it when the window is used up."""
    world = call.world
    size = world.settings.resource_graph_bucket
    bucket = world.buckets.setdefault((call.principal, "resource graph"), Bucket(world.now))
    left, allowed = bucket.take(
        world.now, size=size, refill_per_s=size / WINDOW_S, enforced=world.settings.throttle
    )
    resets = datetime.fromtimestamp(WINDOW_S, UTC)
    headers = {
        "x-ms-user-quota-remaining": str(left),
        "x-ms-user-quota-resets-after": f"{resets:%H:%M:%S}",
    }
    if not allowed:
        message = "Please provide below info when asking for support: RateLimiting."
        wait = {"Retry-After": str(math.ceil(WINDOW_S))}
        raise Refusal(429, error("RateLimiting", message), headers | wait)
    return headers
