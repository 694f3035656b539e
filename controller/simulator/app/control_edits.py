"""Changes through the control endpoint: events, faults, VM states, NICs and settings."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Literal, cast, get_type_hints

from controller.simulator.app.control_input import (
    ControlCall,
    Json,
    MissingError,
    as_list,
    as_texts,
    checked,
    only,
)
from controller.simulator.services.faults import fault_from_json
from controller.simulator.world.events import IMPACTS
from controller.simulator.world.maintenance import MaintenanceResult
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.vm import VmState

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

REPLACEABLE = ("vm", "nic", "pool", "load-balancer", "set", "conversion")
"""What can be created again; `conversion` turns the set into a scale set instead."""


def schedule_event(call: ControlCall) -> object:
    """Announce an event."""
    body = dict(call.body)
    event_type = body.pop("event_type", None)
    if event_type not in IMPACTS:
        raise ValueError(f"event_type must be one of {', '.join(IMPACTS)}, not {event_type!r}")
    resources = as_texts(body.pop("resources", None), "resources")
    if not resources:
        raise ValueError("resources must name at least one VM")
    if unknown := [name for name in resources if call.world.find_vm(name) is None]:
        known_vms = ", ".join(vm.name for vm in call.world.vms.values())
        raise ValueError(f"there is no VM {', '.join(unknown)}; the VMs are {known_vms}")
    options: Json = {}
    if (late := body.pop("late_impact", None)) is not None:
        pair = [checked("late_impact", value, float) for value in as_list(late, "late_impact")]
        if len(pair) != 2:
            raise ValueError("late_impact must be two numbers: delay and length in seconds")
        options["late_impact"] = tuple(pair)
    for name, value in body.items():
        if name not in _EVENT_FIELDS:
            known = ", ".join(("event_type", "resources", "late_impact", *_EVENT_FIELDS))
            raise ValueError(f"unknown event field {name!r}; known fields: {known}")
        options[name] = checked(name, value, _EVENT_FIELDS[name])
    schedule = cast("Callable[..., object]", call.world.events.schedule)
    schedule(event_type, *resources, **options)
    event = call.world.events.events[-1]
    return {"id": event.event_id, "not_before": event.not_before}


def _existing_event(call: ControlCall) -> str:
    if call.world.events.find(call.name) is None:
        raise MissingError(f"no event {call.name} is scheduled or started")
    return call.name


def cancel_event(call: ControlCall) -> object:
    """Cancel an announced event."""
    call.world.events.cancel(_existing_event(call))
    return {}


def complete_event(call: ControlCall) -> object:
    """End an event now."""
    call.world.events.complete(_existing_event(call))
    return {}


def faults(call: ControlCall) -> object:
    """Return the fault rules."""
    return {"faults": call.faults.to_json()}


def add_fault(call: ControlCall) -> object:
    """Add a fault rule."""
    call.faults.add(fault_from_json(call.body))
    return faults(call)


def clear_faults(call: ControlCall) -> object:
    """Remove all fault rules."""
    call.faults.clear()
    return faults(call)


def set_vm_state(call: ControlCall) -> object:
    """Change the state of a VM."""
    vm = call.world.find_vm(call.name)
    if vm is None:
        raise MissingError(f"there is no VM {call.name}")
    only(call.body, "state")
    wanted = cast("VmState", checked("state", call.body.get("state"), VmState))
    call.world.set_vm_state(vm.name, wanted)
    return {"name": vm.name, "state": wanted}


_MAINTENANCE_FIELDS: Mapping[str, object] = {
    "window_s": float,
    "opens_in_s": float,
    "down_s": float,
    "outcome": MaintenanceResult,
}


def plan_maintenance(call: ControlCall) -> object:
    """Plan self-service maintenance."""
    body = dict(call.body)
    vms = as_texts(body.pop("vms", None), "vms")
    if not vms:
        raise ValueError("vms must name at least one VM")
    if unknown := [name for name in vms if call.world.find_vm(name) is None]:
        raise MissingError(f"there is no VM {', '.join(unknown)}")
    only(body, *_MAINTENANCE_FIELDS)
    options = {name: checked(name, body[name], _MAINTENANCE_FIELDS[name]) for name in body}
    plan = cast("Callable[..., object]", call.world.maintenance.plan)
    plan(*vms, **options)
    return {"vms": vms}


def _nic_id(call: ControlCall) -> str:
    try:
        return str(call.world.nic(call.name)["id"])
    except (KeyError, StopIteration):
        raise MissingError(f"there is no NIC {call.name}") from None


def edit_tags(call: ControlCall) -> object:
    """Replace the tags of a NIC, as an operator would."""
    nic_id = _nic_id(call)
    only(call.body, "tags")
    tags = call.body.get("tags")
    if not isinstance(tags, dict):
        raise ValueError("tags must be an object of texts")  # noqa: TRY004 - a value, not a type
    pairs = cast("dict[str, object]", tags)
    call.world.edit_tags(nic_id, {k: str(checked(k, v, str)) for k, v in pairs.items()})
    return {"id": nic_id}


def edit_membership(call: ControlCall) -> object:
    """Add a NIC to a pool or remove it, as an operator would."""
    nic_id, world = _nic_id(call), call.world
    only(call.body, "action", "pool", "ip_configuration")
    action = checked("action", call.body.get("action"), Literal["add", "remove"])
    wanted = str(checked("pool", call.body.get("pool"), str))
    configuration = str(checked("ip_configuration", call.body.get("ip_configuration", ""), str))
    try:
        pool_id = wanted if "/" in wanted else world.pool_id(wanted)
    except StopIteration:
        raise MissingError(f"there is no pool {wanted}") from None
    if world.find_pool(pool_id) is None:
        raise MissingError(f"there is no pool {wanted}")
    edit = world.add_membership if action == "add" else world.remove_membership
    try:
        edit(pool_id, nic_id, configuration)
    except StopIteration:
        raise MissingError(f"the NIC has no ipConfiguration {configuration}") from None
    return {"id": nic_id, "pool": pool_id}


def settings(call: ControlCall) -> object:
    """Return the settings of the world."""
    return {f.name: getattr(call.world.settings, f.name) for f in fields(WorldSettings)}


def set_settings(call: ControlCall) -> object:
    """Change settings: all, or none if one is wrong."""
    hints = get_type_hints(WorldSettings)
    if unknown := sorted(set(call.body) - set(hints)):
        raise ValueError(f"unknown setting {unknown[0]!r}; GET /settings lists them")
    values = {name: checked(name, value, hints[name]) for name, value in call.body.items()}
    for name, value in values.items():
        setattr(call.world.settings, name, value)
    return settings(call)


def blob_settings(call: ControlCall) -> object:
    """Return the settings of the storage accounts."""
    store = call.world.blobs
    return {
        "wait_after_expiry_s": store.wait_after_expiry_s,
        "foreign_write_status": store.foreign_write_status,
        "denied_reads": sorted(store.denied_reads),
        "denied_writes": sorted(store.denied_writes),
    }


def set_blob_settings(call: ControlCall) -> object:
    """Change settings of the storage accounts: all, or none if one is wrong."""
    store, body = call.world.blobs, call.body
    only(body, "wait_after_expiry_s", "foreign_write_status", "denied_reads", "denied_writes")
    wait_s = checked("wait_after_expiry_s", body.get("wait_after_expiry_s", 0.0), float)
    status = cast(
        "int", checked("foreign_write_status", body.get("foreign_write_status", 412), int)
    )
    reads = as_texts(body.get("denied_reads", []), "denied_reads")
    writes = as_texts(body.get("denied_writes", []), "denied_writes")
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
    return blob_settings(call)


def replace(call: ControlCall) -> object:
    """Create a resource again under its name, or convert the set to a scale set."""
    world = call.world
    only(call.body, "kind", "name")
    kind = checked("kind", call.body.get("kind"), Literal[*REPLACEABLE])
    name = str(checked("name", call.body.get("name", ""), str))
    try:
        match kind:
            case "vm":
                world.recreate_vm(name)
            case "nic":
                world.recreate_nic(world.nic(name)["id"])
            case "pool":
                world.recreate_pool(world.pool_id(name))
            case "load-balancer":
                world.recreate_load_balancer(world.load_balancer(name)["id"])
            case "set":
                world.recreate_set()
            case _:
                world.convert_set(name)
    except (KeyError, StopIteration):
        raise MissingError(f"there is no {kind} {name}") from None
    return {"kind": kind, "name": name}
