"""The simulated Instance Metadata Service of each VM: metadata, scheduled events, identity.

Rules and texts: Microsoft docs, Instance Metadata Service and Scheduled Events. Never documented
and therefore settings: the reply to an acknowledgement of an unknown id, and its empty body.
"""

import json
from email.utils import formatdate
from typing import Any, cast

from controller.simulator.services import imds_instance
from controller.simulator.services.connectivity import connectivity
from controller.simulator.services.http_values import Delivery, Reply, Request, Service
from controller.simulator.world.access import OPERATOR, OPERATOR_CLIENT_ID
from controller.simulator.world.bodies import Json
from controller.simulator.world.vm import SimVm
from controller.simulator.world.world import World

VERSIONS = (
    "2017-03-01",
    "2017-04-02",
    "2017-08-01",
    "2017-10-01",
    "2017-11-01",
    "2017-12-01",
    "2018-02-01",
    "2018-04-02",
    "2018-10-01",
    "2019-01-01",
    "2019-02-01",
    "2019-03-11",
    "2019-04-01",
    "2019-04-30",
    "2019-06-01",
    "2019-06-04",
    "2019-08-01",
    "2019-08-15",
    "2019-11-01",
    "2020-06-01",
    "2020-07-01",
    "2020-07-15",
    "2020-09-01",
    "2020-10-01",
    "2020-12-01",
    "2021-01-01",
    "2021-02-01",
    "2021-03-01",
    "2021-05-01",
    "2021-10-01",
    "2021-11-01",
    "2021-11-15",
    "2021-12-13",
    "2023-07-01",
    "2023-11-15",
    "2024-03-15",
    "2024-07-17",
    "2025-04-07",
)
EVENT_VERSIONS = (
    "2017-03-01",
    "2017-08-01",
    "2017-11-01",
    "2019-01-01",
    "2019-04-01",
    "2019-08-01",
    "2020-07-01",
)
EVENT_FIELDS_SINCE = {
    "Description": "2019-04-01",
    "EventSource": "2019-08-01",
    "DurationInSeconds": "2020-07-01",
}
"""Older versions of the document lack these keys (Microsoft docs, Scheduled Events)."""

REQUESTS_PER_S = 5
IDENTITY_REQUESTS_PER_S = 20


def handle(world: World, request: Request, now: float) -> Reply:
    """Answer one request on the link-local endpoint of VM `request.vm`."""
    world.advance(now)
    vm = world.find_vm(request.vm or "")
    if vm is None:
        return Reply(status=404, delivery=Delivery.RESET)
    delivery = connectivity(world, vm.name, Service.IMDS)
    if delivery is not Delivery.NORMAL:
        return Reply(status=503, delivery=delivery)
    world.request_counts["imds", vm.name, request.method] += 1
    path = request.path.rstrip("/").casefold()
    identity = path.startswith("/metadata/identity")
    window = vm.identity_window if identity else vm.imds_window
    limit = IDENTITY_REQUESTS_PER_S if identity else REQUESTS_PER_S
    if world.settings.imds_limit and not window.admit(now, limit):
        return _json(world, 429, {"error": "Too Many Requests"})
    return _refusal(world, request) or _route(world, vm, request, path)


def _route(world: World, vm: SimVm, request: Request, path: str) -> Reply:
    match path.split("/")[2:]:
        case ["scheduledevents"]:
            return _scheduled_events(world, vm, request)
        case ["identity", "oauth2", "token"]:
            return _token(world, vm, request)
        case ["versions"]:
            return _json(world, 200, {"apiVersions": list(VERSIONS)})
        case ["instance", *_]:
            return _instance(world, vm, request)
        case _:
            return _json(world, 404, {"error": "Not found"})


def _refusal(world: World, request: Request) -> Reply | None:
    """Return the refusal that every endpoint shares; None if the request is acceptable."""
    if request.headers.get("metadata", "").casefold() != "true":
        return _json(world, 400, {"error": "Bad Request, Required metadata header not specified"})
    if "x-forwarded-for" in request.headers:
        return _json(world, 400, {"error": "Bad request. X-Forwarded-For is not allowed."})
    names = [name.casefold() for name, _ in request.query]
    if len(names) != len(set(names)):
        return _json(world, 400, {"error": "Bad request. Duplicate query parameter."})
    return None


def _bad_version(world: World, versions: tuple[str, ...]) -> Reply:
    return _json(
        world,
        400,
        {
            "error": (
                "Bad request. api-version is invalid or was not specified in the request. "
                "For more information refer to aka.ms/azureimds"
            ),
            "newest-versions": list(reversed(versions[-3:])),
        },
    )


def _method_not_allowed(world: World) -> Reply:
    return _json(world, 405, {"error": "Method not allowed"})


# Scheduled events


def _scheduled_events(world: World, vm: SimVm, request: Request) -> Reply:
    version = request.parameter("api-version")
    if version not in EVENT_VERSIONS:
        return _bad_version(world, EVENT_VERSIONS)
    match request.method:
        case "GET":
            delay_s = _enable(world, vm)
            return _json(world, 200, _document(world, vm, version), delay_s=delay_s)
        case "POST":
            return _acknowledge(world, vm, request.body)
        case _:
            return _method_not_allowed(world)


def _enable(world: World, vm: SimVm) -> float:
    """Record a call; return its delay in seconds while the service is still being enabled."""
    idle = None if vm.imds_last_call is None else world.now - vm.imds_last_call
    if idle is None or idle > world.settings.imds_idle_disable_s:
        vm.imds_ready_at = world.now + world.settings.first_imds_call_s
        vm.imds_events_at = world.now + world.settings.events_visible_after_s
        if idle is not None:
            vm.imds_incarnation_base = world.events.incarnation - 1
    vm.imds_last_call = world.now
    return max(0.0, vm.imds_ready_at - world.now)


def _document(world: World, vm: SimVm, version: str) -> Json:
    # The events of an availability set are for its VMs; a VM without a set has only its own.
    # Until the service is enabled, the document is valid and empty.
    published = world.events.document() if world.now >= vm.imds_events_at else []
    events = [entry for entry in published if _sees(world, vm, entry["Resources"])]
    absent = [name for name, since in EVENT_FIELDS_SINCE.items() if version < since]
    return {
        "DocumentIncarnation": world.events.incarnation - vm.imds_incarnation_base,
        "Events": [{k: v for k, v in entry.items() if k not in absent} for entry in events],
    }


def _sees(world: World, vm: SimVm, resources: list[str]) -> bool:
    """Return whether an event is for a VM; one of no set is for that of the world."""
    if not (own := world.set_of(vm)):
        return vm.name in resources
    named = [found for name in resources if (found := world.find_vm(name)) is not None]
    if named and all(each.placement_group != vm.placement_group for each in named):
        return False
    sets = {world.set_of(each) for each in named} - {""}
    return own in sets or (vm.in_set and not sets)


def _acknowledge(world: World, vm: SimVm, body: bytes) -> Reply:
    """Acknowledge; any content type is accepted, because Microsoft's samples send none."""
    try:
        wanted = [str(entry["EventId"]) for entry in json.loads(body)["StartRequests"]]
    except (ValueError, KeyError, TypeError):
        return _json(world, 400, {"error": "Bad request. Malformed payload."})
    known = [world.events.acknowledge(event_id, vm.name) for event_id in wanted]
    if not all(known) or not wanted:
        return _json(world, world.settings.unknown_ack_status, {"error": "Unknown EventId"})
    return Reply(status=200, headers=_headers(world, "application/json; charset=utf-8"))


# Identity


def _token(world: World, vm: SimVm, request: Request) -> Reply:
    if request.method != "GET":
        return _method_not_allowed(world)
    if request.parameter("api-version") not in VERSIONS:
        return _bad_version(world, VERSIONS)
    audience = request.parameter("resource")
    if not audience:
        return _identity_error(world, "Required audience parameter not specified")
    client_id = request.parameter("client_id")
    # Each VM has a system-assigned identity, and all VMs share two user-assigned identities.
    known = ("", vm.client_id, world.user_assigned_client_id, OPERATOR_CLIENT_ID)
    if client_id.casefold() not in known:
        return _identity_error(world, "Identity not found")
    principal = OPERATOR if client_id.casefold() == OPERATOR_CLIENT_ID else vm.name
    lifetime_s = world.settings.token_lifetime_s
    token, text = world.issuer.issue(principal, audience, world.now, lifetime_s)
    return _json(
        world,
        200,
        {
            "access_token": text,
            "client_id": client_id or vm.client_id,
            "expires_in": str(int(token.expires_at - world.now)),
            "expires_on": str(token.expires_at),
            "ext_expires_in": str(token.expires_at - token.issued_at),
            "not_before": str(token.issued_at),
            "resource": audience,
            "token_type": "Bearer",
        },
    )


def _identity_error(world: World, description: str) -> Reply:
    return _json(world, 400, {"error": "invalid_request", "error_description": description})


# Instance metadata


def _instance(world: World, vm: SimVm, request: Request) -> Reply:
    if request.method != "GET":
        return _method_not_allowed(world)
    if request.parameter("api-version") not in VERSIONS:
        return _bad_version(world, VERSIONS)
    node: Any = imds_instance.document(world, vm)
    for part in request.path.strip("/").split("/")[2:]:
        node = _child(node, part)
        if node is None:
            return _json(world, 404, {"error": "Not found"})
    if not isinstance(node, str):
        return _json(world, 200, node)
    if request.parameter("format") != "text":
        return _json(world, 400, {"error": "Bad request. A leaf needs format=text."})
    headers = _headers(world, "text/plain; charset=utf-8")
    return Reply(status=200, headers=headers, body=node.encode())


def _child(node: Any, name: str) -> Any:
    parts: Json = {}
    if isinstance(node, dict):
        parts = cast("Json", node)
    elif isinstance(node, list):
        parts = {str(order): entry for order, entry in enumerate(cast("list[Json]", node))}
    return next((part for key, part in parts.items() if key.casefold() == name.casefold()), None)


# Replies


def _headers(world: World, content_type: str) -> dict[str, str]:
    return {
        "Content-Type": content_type,
        "Server": "IMDS/150.870.65.1854",
        "Date": formatdate(world.now, usegmt=True),
    }


def _json(world: World, status: int, body: Any, *, delay_s: float = 0.0) -> Reply:
    return Reply(
        status=status,
        headers=_headers(world, "application/json; charset=utf-8"),
        body=json.dumps(body, separators=(",", ":")).encode(),
        delay_s=delay_s,
    )
