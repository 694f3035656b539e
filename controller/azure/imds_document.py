"""The documents of the instance metadata service: the VM itself, and its scheduled events. Pure.

No OpenAPI exists for scheduled events, so the parser takes every event field as optional and keeps
unknown values. An event whose id, type or resources cannot be read is set aside, and the rest of
the document is used. The document reports what is set aside, because a restore depends on "the
event is not in the document". A document without a list of events is refused as a whole.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import cast

from controller.core import strict_json
from controller.core.azure_names import fold
from controller.core.blob_limits import MAX_COUNT
from controller.core.events import (
    EVENT_TYPES,
    EventDocument,
    EventSource,
    EventStatus,
    ScheduledEvent,
    SetAside,
)
from controller.core.printable import excerpt
from controller.errors import ContractViolation

MAX_TEXT_CHARACTERS = 1024
"""Limit for a name, an id or a date, which go into the ledger and into logs."""
MAX_SET_ASIDE = 50
"""Of the entries of a document that cannot be used, no more are described."""
_TYPES = {name.casefold(): name for name in EVENT_TYPES}
_STATUSES = {status.value.casefold(): status for status in EventStatus}
_SOURCES = {source.value.casefold(): source for source in EventSource}
SANE_YEARS = range(2000, 9000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """This VM, as the metadata service describes it."""

    name: str
    vm_id: str
    """ARM resource id."""
    subscription_id: str
    resource_group: str
    location: str
    environment: str
    scale_set_id: str = ""
    """The scale set that the VM is in, composed of its name; empty without one."""


def parse_document(body: bytes) -> EventDocument:
    """Return the event document in `body`.

    Raises ContractViolation for anything but a document. An empty body is not a document: some VMs
    get status 200 without a body, which proves nothing about events. A single entry that is not an
    event is set aside.
    """
    document = _object(_parse_json(body), "event document")
    entries = document.get("Events")
    if not isinstance(entries, list):
        raise ContractViolation(f"Events is {value_excerpt(entries)}, not a list")
    # A repeated entry adds nothing.
    parsed = tuple(dict.fromkeys(map(_parse_entry, cast("list[object]", entries))))
    incarnation = document.get("DocumentIncarnation")
    found = EventDocument(
        incarnation=incarnation if type(incarnation) is int else None,
        events=tuple(each for each in parsed if isinstance(each, ScheduledEvent)),
        set_aside=tuple(each for each in parsed if isinstance(each, SetAside)),
    )
    return _bounded(_mark_shared_ids(found))


def _bounded(document: EventDocument) -> EventDocument:
    """Describe no more entries that are set aside than people read; one stands for the others.

    Without an id it may be any event, so no event that was known counts as gone (law S6).
    """
    over = document.set_aside[MAX_SET_ASIDE:]
    if not over:
        return document
    vms = tuple(dict.fromkeys(vm for each in over for vm in each.vms))
    others = SetAside(problem="more entries of the document cannot be used", vms=vms)
    return replace(document, set_aside=(*document.set_aside[:MAX_SET_ASIDE], others))


def _mark_shared_ids(document: EventDocument) -> EventDocument:
    """Keep different events with one id from being acknowledged, and report them.

    An acknowledgement names an event by its id, so it would release all of these events (law S1).
    """
    ids = [event.event_id for event in document.events]
    ids += [odd.event_id for odd in document.set_aside if odd.event_id]
    counts = Counter(map(fold, ids))
    shared = {key for key, count in counts.items() if count > 1}
    problems: dict[str, SetAside] = {}
    names: dict[str, dict[str, None]] = {key: {} for key in shared}
    for event in document.events:
        key = fold(event.event_id)
        if key in shared:
            names[key].update(dict.fromkeys(event.resources))
            problem = f"{counts[key]} different events have EventId {value_excerpt(event.event_id)}"
            problems.setdefault(key, SetAside(problem=problem, event_id=event.event_id))
    with_vms = (replace(each, vms=tuple(names[key])) for key, each in problems.items())
    return replace(
        document,
        events=tuple(
            replace(event, acknowledgeable=fold(event.event_id) not in shared)
            for event in document.events
        ),
        set_aside=(*document.set_aside, *with_vms),
    )


def _parse_entry(value: object) -> ScheduledEvent | SetAside:
    """Return the event, or the readable part of an entry that is not an event."""
    if not isinstance(value, dict):
        return SetAside(problem=f"an event is {value_excerpt(value)}, not an object")
    entry = cast("dict[str, object]", value)
    names, unread = _names(entry.get("Resources"))
    event_id = event_type = problem = ""
    try:
        event_id = _text(entry, "EventId")
        event_type = _text(entry, "EventType")
    except ContractViolation as error:
        problem = str(error)
    else:
        if not event_id:
            problem = f"an event has no EventId: {value_excerpt(entry)}"
        elif unread:
            problem = f"Resources of event {value_excerpt(event_id)} is {unread}"
    if problem:
        return SetAside(problem=problem, event_id=event_id, vms=names)
    return ScheduledEvent(
        event_id=event_id,
        event_type=_TYPES.get(event_type.casefold(), event_type),
        status=_STATUSES.get(_text_or_none(entry, "EventStatus").casefold(), EventStatus.UNKNOWN),
        resources=names,
        not_before=parse_instant(_text_or_none(entry, "NotBefore")),
        duration_s=_duration_s(entry.get("DurationInSeconds")),
        source=_SOURCES.get(_text_or_none(entry, "EventSource").casefold(), EventSource.UNKNOWN),
    )


def _names(value: object) -> tuple[tuple[str, ...], str]:
    """Return the readable names in Resources, and an excerpt if there are unreadable ones."""
    if not isinstance(value, list):
        return (), value_excerpt(value)
    items = cast("list[object]", value)
    names = tuple(
        item for item in items if isinstance(item, str) and len(item) <= MAX_TEXT_CHARACTERS
    )
    return names, "" if len(names) == len(items) else value_excerpt(items)


def _duration_s(value: object) -> int:
    """Return the expected interruption in seconds; -1, which counts as long, if it is no duration.

    9.0 and "9" are 9. A fraction is rounded up: a longer interruption is never ignored. What no
    agent reads in the blob of another one (`blob_limits`) is no duration.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return -1
    if isinstance(value, str) and len(value) > 20:
        return -1
    try:
        number = value if isinstance(value, int) else float(value)
    except ValueError:
        return -1
    return math.ceil(number) if 0 <= number <= MAX_COUNT else -1


def parse_instant(text: str) -> datetime | None:
    """Return the instant in `text`, which is RFC 1123 or ISO 8601; None when there is none.

    The weekday is ignored: in Microsoft's own samples it does not match the date.
    """
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = parse(text.strip())
            moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
        # Some clients of Azure write "0001-01-01" for "not set".
        return moment if moment.year in SANE_YEARS else None
    return None


def parse_instance(body: bytes) -> Instance:
    """Return the VM that the instance document describes."""
    compute = _object(_object(_parse_json(body), "instance document").get("compute"), "compute")
    name = _text(compute, "name")
    subscription_id = _text(compute, "subscriptionId")
    resource_group = _text(compute, "resourceGroupName")
    if not (name and subscription_id and resource_group):
        raise ContractViolation("the instance document has no name, subscription or resource group")
    composed = (
        f"/subscriptions/{subscription_id}/resourceGroups/{resource_group}"
        f"/providers/Microsoft.Compute/virtualMachines/{name}"
    )
    return Instance(
        name=name,
        vm_id=_text(compute, "resourceId") or composed,
        subscription_id=subscription_id,
        resource_group=resource_group,
        location=_text(compute, "location"),
        environment=_text(compute, "azEnvironment"),
        scale_set_id=_scale_set_id(compute, subscription_id, resource_group),
    )


def _scale_set_id(compute: Mapping[str, object], subscription_id: str, group: str) -> str:
    """Return the id of the scale set of the VM, which is in the same resource group.

    (Microsoft docs, Instance Metadata Service: `vmScaleSetName`.)
    """
    name = _text(compute, "vmScaleSetName")
    provider = "providers/Microsoft.Compute/virtualMachineScaleSets"
    return (
        f"/subscriptions/{subscription_id}/resourceGroups/{group}/{provider}/{name}" if name else ""
    )


def _parse_json(body: bytes) -> object:
    if not body.strip():
        raise ContractViolation("IMDS: status 200 with an empty body")
    try:
        return strict_json.loads(body, "IMDS: the reply")
    except ContractViolation as error:
        raise ContractViolation(f"{error}: {value_excerpt(body)}") from error


def _object(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ContractViolation(f"the {what} is {value_excerpt(value)}, not an object")
    return cast("dict[str, object]", value)


def _text(fields: Mapping[str, object], key: str) -> str:
    value = fields.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ContractViolation(f"{key} is {value_excerpt(value)}, not text")
    if len(value) > MAX_TEXT_CHARACTERS:
        raise ContractViolation(f"{key} has {len(value)} characters: {value_excerpt(value)}")
    return value


def _text_or_none(fields: Mapping[str, object], key: str) -> str:
    """Return an optional field; empty when it is not text or too long."""
    value = fields.get(key)
    return value if isinstance(value, str) and len(value) <= MAX_TEXT_CHARACTERS else ""


def value_excerpt(value: object) -> str:
    """Return at most 120 characters of a value, for a message."""
    text = value[:2000].decode(errors="replace") if isinstance(value, bytes) else repr(value)
    return excerpt(text, limit=120)
