"""The control endpoint: what a demo, a script or a test may see and do that no Azure API offers.

JSON in, JSON out; pure over the world, like the services. Bad input is answered 400 with one
sentence in `error`. Routes are the rows of `_ROUTES`.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import NoneType, UnionType
from typing import Literal, Union, cast, get_args, get_origin, get_type_hints

from controller.simulator.events import IMPACTS, EventState
from controller.simulator.faults import FaultBook, fault_from_json
from controller.simulator.maintenance import MaintenanceResult
from controller.simulator.settings import WorldSettings
from controller.simulator.wire import Reply
from controller.simulator.world import VmState, World

MAX_HISTORY = 2000
"""Changes in one answer; ask again with `since`."""
UNIONS = (Union, UnionType)
"""`Literal["x"] | None` is the first, `float | None` the second."""

Json = dict[str, object]


class _Missing(Exception):
    """What the path names does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    world: World
    faults: FaultBook
    name: str
    """The variable part of the path."""
    query: Mapping[str, str]
    body: Json
    traffic: Json | None


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
    """Answer one request to the control endpoint; `traffic` is what clients have seen so far."""
    world.advance(now)
    try:
        route, name = _route(method, path)
        call = _Call(
            world=world,
            faults=faults,
            name=name,
            query=query,
            body=_parse(body),
            traffic=traffic,
        )
        return _reply(200, route(call))
    except _Missing as missing:
        return _reply(404, {"error": str(missing)})
    except (TypeError, ValueError) as error:
        return _reply(400, {"error": str(error)})


def _route(method: str, path: str) -> tuple[Callable[[_Call], object], str]:
    """Find the row; `*` in a row stands for one segment, which is the name."""
    parts = path.strip("/").split("/")
    for (verb, pattern), route in _ROUTES.items():
        wanted = pattern.split("/")
        fits = len(wanted) == len(parts) and all(
            want in ("*", part) for want, part in zip(wanted, parts, strict=True)
        )
        if fits and verb == method:
            name = parts[wanted.index("*")] if "*" in wanted else ""
            return route, name
    raise _Missing(f"there is no {method} {path}; see the module controller.simulator.control")


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
    """Return everything worth seeing at a glance."""
    return {
        "now": world.now,
        "vms": [
            {"name": vm.name, "state": vm.state, "in_set": vm.in_set} for vm in world.vms.values()
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
            for operation in world.in_flight.values()
        ],
    }


def _state(call: _Call) -> object:
    return state(call.world)


def _traffic(call: _Call) -> object:
    if call.traffic is None:
        raise _Missing("nobody sends requests: start the simulation with --load")
    return call.traffic


def _history(call: _Call) -> object:
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


_EVENT_FIELDS: Mapping[str, object] = {
    "source": Literal["Platform", "User"],
    "notice_s": float,
    "duration_s": int,
    "impact_s": float,
    "impact_delay_s": float,
    "started_s": float,
    "started_first": bool,
    "cancel_after_s": float | None,
    "auto_approve_after_s": float | None,
    "impact": Literal["frozen", "rebooting", "deallocated", "deleted", ""] | None,
    "description": str,
    "at": float | None,
    "event_id": str | None,
}


def _schedule(call: _Call) -> object:
    body = dict(call.body)
    event_type = body.pop("event_type", None)
    if event_type not in IMPACTS:
        raise ValueError(f"event_type must be one of {', '.join(IMPACTS)}, not {event_type!r}")
    resources = _texts(body.pop("resources", None), "resources")
    if not resources:
        raise ValueError("resources must name at least one VM")
    strangers = [name for name in resources if call.world.find_vm(name) is None]
    if strangers:
        known_vms = ", ".join(vm.name for vm in call.world.vms.values())
        raise ValueError(f"there is no VM {', '.join(strangers)}; there are {known_vms}")
    options: Json = {}
    if (late := body.pop("late_impact", None)) is not None:
        pair = [_checked("late_impact", value, float) for value in _items(late, "late_impact")]
        if len(pair) != 2:
            raise ValueError("late_impact must be two numbers: delay and length in seconds")
        options["late_impact"] = tuple(pair)
    for name, value in body.items():
        if name not in _EVENT_FIELDS:
            known = ", ".join(("event_type", "resources", "late_impact", *_EVENT_FIELDS))
            raise ValueError(f"unknown event field {name!r}; known are {known}")
        options[name] = _checked(name, value, _EVENT_FIELDS[name])
    schedule = cast("Callable[..., object]", call.world.schedule_event)
    schedule(event_type, *resources, **options)
    event = call.world.events.events[-1]
    return {"id": event.event_id, "not_before": event.not_before}


def _existing_event(call: _Call) -> str:
    if call.world.events.find(call.name) is None:
        raise _Missing(f"no event {call.name} is scheduled or started")
    return call.name


def _cancel(call: _Call) -> object:
    call.world.cancel_event(_existing_event(call))
    return {}


def _complete(call: _Call) -> object:
    call.world.complete_event(_existing_event(call))
    return {}


def _list_faults(call: _Call) -> object:
    return {"faults": call.faults.to_json()}


def _add_fault(call: _Call) -> object:
    call.faults.add(fault_from_json(call.body))
    return _list_faults(call)


def _clear_faults(call: _Call) -> object:
    call.faults.clear()
    return _list_faults(call)


def _set_vm_state(call: _Call) -> object:
    vm = call.world.find_vm(call.name)
    if vm is None:
        raise _Missing(f"there is no VM {call.name}")
    _only(call.body, "state")
    wanted = cast("VmState", _checked("state", call.body.get("state"), VmState))
    call.world.set_vm_state(vm.name, wanted)
    return {"name": vm.name, "state": wanted}


_MAINTENANCE_FIELDS: Mapping[str, object] = {
    "window_s": float,
    "opens_in_s": float,
    "down_s": float,
    "outcome": MaintenanceResult,
}


def _plan_maintenance(call: _Call) -> object:
    body = dict(call.body)
    vms = _texts(body.pop("vms", None), "vms")
    if not vms:
        raise ValueError("vms must name at least one VM")
    strangers = [name for name in vms if call.world.find_vm(name) is None]
    if strangers:
        raise _Missing(f"there is no VM {', '.join(strangers)}")
    _only(body, *_MAINTENANCE_FIELDS)
    options = {name: _checked(name, body[name], _MAINTENANCE_FIELDS[name]) for name in body}
    plan = cast("Callable[..., object]", call.world.plan_maintenance)
    plan(*vms, **options)
    return {"vms": vms}


def _nic_id(call: _Call) -> str:
    try:
        return str(call.world.nic(call.name)["id"])
    except (KeyError, StopIteration):
        raise _Missing(f"there is no NIC {call.name}") from None


def _edit_tags(call: _Call) -> object:
    nic_id = _nic_id(call)
    _only(call.body, "tags")
    tags = call.body.get("tags")
    if not isinstance(tags, dict):
        raise ValueError("tags must be an object of texts")  # noqa: TRY004 - a value, not a type
    pairs = cast("dict[str, object]", tags)
    call.world.edit_tags(nic_id, {k: str(_checked(k, v, str)) for k, v in pairs.items()})
    return {"id": nic_id}


def _edit_membership(call: _Call) -> object:
    nic_id, world = _nic_id(call), call.world
    _only(call.body, "action", "pool", "ip_configuration")
    action = _checked("action", call.body.get("action"), Literal["add", "remove"])
    wanted = str(_checked("pool", call.body.get("pool"), str))
    configuration = str(_checked("ip_configuration", call.body.get("ip_configuration", ""), str))
    try:
        pool_id = wanted if "/" in wanted else world.pool_id(wanted)
    except StopIteration:
        raise _Missing(f"there is no pool {wanted}") from None
    if world.find_pool(pool_id) is None:
        raise _Missing(f"there is no pool {wanted}")
    edit = world.add_membership if action == "add" else world.remove_membership
    try:
        edit(pool_id, nic_id, configuration)
    except StopIteration:
        raise _Missing(f"the NIC has no ipConfiguration {configuration}") from None
    return {"id": nic_id, "pool": pool_id}


def _settings(call: _Call) -> object:
    return {f.name: getattr(call.world.settings, f.name) for f in fields(WorldSettings)}


def _set_settings(call: _Call) -> object:
    """Turn knobs: all of them, or none if one is wrong."""
    hints = get_type_hints(WorldSettings)
    if unknown := sorted(set(call.body) - set(hints)):
        raise ValueError(f"unknown setting {unknown[0]!r}; GET /settings lists them")
    checked = {name: _checked(name, value, hints[name]) for name, value in call.body.items()}
    for name, value in checked.items():
        setattr(call.world.settings, name, value)
    return _settings(call)


def _blob(call: _Call) -> object:
    store = call.world.blobs
    return {
        "wait_after_expiry_s": store.wait_after_expiry_s,
        "foreign_write_status": store.foreign_write_status,
        "denied_reads": sorted(store.denied_reads),
        "denied_writes": sorted(store.denied_writes),
    }


def _set_blob(call: _Call) -> object:
    store, body = call.world.blobs, call.body
    _only(body, "wait_after_expiry_s", "foreign_write_status", "denied_reads", "denied_writes")
    wait_s = _checked("wait_after_expiry_s", body.get("wait_after_expiry_s", 0.0), float)
    status = cast(
        "int", _checked("foreign_write_status", body.get("foreign_write_status", 412), int)
    )
    reads = _texts(body.get("denied_reads", []), "denied_reads")
    writes = _texts(body.get("denied_writes", []), "denied_writes")
    if status not in (409, 412):
        raise ValueError(f"foreign_write_status must be 409 or 412, not {status}")
    if "wait_after_expiry_s" in body:
        store.wait_after_expiry_s = cast("float", wait_s)
    if "foreign_write_status" in body:
        store.foreign_write_status = status
    if "denied_reads" in body:
        store.denied_reads = set(reads)
    if "denied_writes" in body:
        store.denied_writes = set(writes)
    return _blob(call)


_ROUTES: Mapping[tuple[str, str], Callable[[_Call], object]] = {
    ("GET", "state"): _state,
    ("GET", "history"): _history,
    ("GET", "traffic"): _traffic,
    ("POST", "events"): _schedule,
    ("POST", "events/*/cancel"): _cancel,
    ("POST", "events/*/complete"): _complete,
    ("GET", "faults"): _list_faults,
    ("POST", "faults"): _add_fault,
    ("DELETE", "faults"): _clear_faults,
    ("POST", "vms/*/state"): _set_vm_state,
    ("POST", "maintenance"): _plan_maintenance,
    ("POST", "nics/*/tags"): _edit_tags,
    ("POST", "nics/*/membership"): _edit_membership,
    ("GET", "settings"): _settings,
    ("POST", "settings"): _set_settings,
    ("GET", "blob"): _blob,
    ("POST", "blob"): _set_blob,
}


def _only(body: Json, *known: str) -> None:
    if unknown := sorted(set(body) - set(known)):
        raise ValueError(f"unknown field {unknown[0]!r}; known are {', '.join(known)}")


def _items(value: object, name: str) -> list[object]:
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list")  # noqa: TRY004 - a value, not a type
    return cast("list[object]", value)


def _texts(value: object, name: str) -> list[str]:
    return [str(_checked(name, item, str)) for item in _items(value, name)]


def _checked(name: str, value: object, hint: object) -> object:
    """Return `value` if it is what `hint` allows: bool, int, float, str, Literal, or a union."""
    if _allows(hint, value):
        return value
    raise ValueError(f"{name} must be {_describe(hint)}, not {value!r}")


def _allows(hint: object, value: object) -> bool:
    if get_origin(hint) in UNIONS:
        return any(_allows(part, value) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is int or hint is float:
        kinds = (int,) if hint is int else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, cast("type", hint))


def _describe(hint: object) -> str:
    if get_origin(hint) in UNIONS:
        return " or ".join(_describe(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(value) for value in get_args(hint))
    words: Mapping[object, str] = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        NoneType: "null",
    }
    return words[hint]
