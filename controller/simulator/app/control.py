"""The control endpoint: state and changes of the simulation that no Azure API offers.

JSON in, JSON out; pure over the world, like the services. Bad input is answered with 400 and one
sentence in `error`. `_ROUTES` lists the routes.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import cast

from controller.simulator.app import control_edits, control_hub
from controller.simulator.app.control_input import ControlCall, Json, MissingError
from controller.simulator.services.faults import FaultBook
from controller.simulator.services.http_values import Reply
from controller.simulator.world.events import EventState
from controller.simulator.world.world import World

MAX_HISTORY = 2000
"""Most changes in one answer; ask for more with `since`."""


def handle(
    world: World,
    faults: FaultBook,
    *,
    method: str,
    path: str,
    query: Mapping[str, str],
    body: bytes,
    now: float,
    traffic: Json | None = None,
) -> Reply:
    """Answer one request to the control endpoint; `traffic` is the result of the clients so far."""
    world.advance(now)
    try:
        route, name = _route(method, path)
        call = ControlCall(
            world=world,
            faults=faults,
            name=name,
            query=query,
            body=_parse(body),
            traffic=traffic,
        )
        return _reply(200, route(call))
    except MissingError as missing:
        return _reply(404, {"error": str(missing)})
    except (TypeError, ValueError) as error:
        return _reply(400, {"error": str(error)})


def _route(method: str, path: str) -> tuple[Callable[[ControlCall], object], str]:
    """Find the route; `*` in a route is one segment of the path, the name."""
    parts = path.strip("/").split("/")
    for (verb, pattern), route in _ROUTES.items():
        wanted = pattern.split("/")
        fits = len(wanted) == len(parts) and all(
            want in ("*", part) for want, part in zip(wanted, parts, strict=True)
        )
        if fits and verb == method:
            name = parts[wanted.index("*")] if "*" in wanted else ""
            return route, name
    known = ", ".join(f"{verb} /{pattern}" for verb, pattern in _ROUTES)
    raise MissingError(f"there is no {method} {path}; the routes are: {known}")


def _parse(body: bytes) -> Json:
    if not body.strip():
        return {}
    try:
        data: object = json.loads(body)
    except ValueError:
        raise ValueError("the body must be JSON") from None
    if not isinstance(data, dict):
        raise ValueError("the body must be a JSON object")  # noqa: TRY004 - a value, not a type
    return cast("Json", data)


def _reply(status: int, data: object) -> Reply:
    text = json.dumps(data, allow_nan=False)
    return Reply(status=status, headers={"content-type": "application/json"}, body=text.encode())


def state(world: World) -> Json:
    """Return VMs, pools, events, leases and running operations."""
    return {
        "now": world.now,
        "vms": [
            {"name": vm.name, "state": vm.state, "in_set": vm.in_set, "closed": vm.closed}
            for vm in world.vms.values()
        ],
        "pools": [
            {"id": pool["id"], "name": pool["name"], "members": list(world.rotation(pool["id"]))}
            for load_balancer in world.load_balancers.values()
            for pool in load_balancer["properties"]["backendAddressPools"]
        ],
        "events": [
            {
                "id": event.event_id,
                "type": event.event_type,
                "status": event.state.value,
                "resources": list(event.resources),
                "source": event.source,
                "not_before": event.not_before,
                "duration_s": event.duration_s,
                "acknowledged_by": list(event.acknowledged_by),
            }
            for event in world.events.events
            if event.state is not EventState.GONE
        ],
        "leases": [
            {
                "path": lease.path,
                "state": lease.state,
                "holder": lease.holder,
                "ends_at": None if math.isinf(lease.ends_at) else lease.ends_at,
            }
            for lease in world.blobs.leases(world.now)
        ],
        "operations": [
            {
                "id": operation.operation_id,
                "kind": operation.kind,
                "resource": operation.resource,
                "started_at": operation.started_at,
            }
            for operation in world.writes.in_flight.values()
        ],
    }


def _state(call: ControlCall) -> object:
    return state(call.world)


def _traffic(call: ControlCall) -> object:
    if call.traffic is None:
        raise MissingError("there is no client traffic: start the simulation with --load")
    return call.traffic


def _history(call: ControlCall) -> object:
    text = call.query.get("since", "0")
    if not text.isdecimal():
        raise ValueError(f"since must be a whole number, not {text!r}")
    first = int(text)
    changes = call.world.history[first : first + MAX_HISTORY]
    return {
        "next": first + len(changes),
        "changes": [
            {
                "at": change.at,
                "kind": change.kind,
                "subject": change.subject,
                "detail": dict(change.detail),
            }
            for change in changes
        ],
    }


_ROUTES: Mapping[tuple[str, str], Callable[[ControlCall], object]] = {
    ("GET", "state"): _state,
    ("GET", "history"): _history,
    ("GET", "traffic"): _traffic,
    ("POST", "events"): control_edits.schedule_event,
    ("POST", "events/*/cancel"): control_edits.cancel_event,
    ("POST", "events/*/complete"): control_edits.complete_event,
    ("GET", "faults"): control_edits.faults,
    ("POST", "faults"): control_edits.add_fault,
    ("DELETE", "faults"): control_edits.clear_faults,
    ("POST", "vms/*/state"): control_edits.set_vm_state,
    ("POST", "maintenance"): control_edits.plan_maintenance,
    ("POST", "nics/*/tags"): control_edits.edit_tags,
    ("POST", "nics/*/membership"): control_edits.edit_membership,
    ("POST", "replacements"): control_edits.replace,
    ("POST", "updates"): control_hub.start_update,
    ("GET", "updates/status"): control_hub.update_status,
    ("GET", "settings"): control_edits.settings,
    ("POST", "settings"): control_edits.set_settings,
    ("GET", "blob"): control_edits.blob_settings,
    ("POST", "blob"): control_edits.set_blob_settings,
}
