"""The query for scheduled events in Azure Resource Graph, and the rows that answer it. Pure.

Facts about Azure, with their sources:

- Table `maintenanceresources`, type `microsoft.maintenance/scheduledevents`. `properties` has the
  fields of the metadata service and `TargetResourceId`; the last part of a row's id and its `name`
  are the EventId. `EventStatus` is `Completed` or `Canceled` too (Microsoft docs, Scheduled Events
  in Azure Resource Graph, preview, 05/01/2026). What `TargetResourceId` names for the VM of an
  availability set, and how long rows are kept, is not documented.
- A reply has `data`, `resultTruncated` and, if there is another page, `$skipToken`; a page has at
  most 1,000 rows and needs an order (Microsoft docs, Working with large Azure resource data sets).
- Every reply has `x-ms-user-quota-remaining` and `x-ms-user-quota-resets-after`, as hh:mm:ss
  (Microsoft docs, Guidance for throttled requests in Azure Resource Graph).
"""

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from controller.azure.http.json_reader import Json, as_object, text
from controller.azure.imds_document import MAX_TEXT_CHARACTERS, parse_instant, value_excerpt
from controller.core.azure_names import fold
from controller.core.second_source import GraphEvent, GraphStatus
from controller.errors import ContractViolation

PAGE_ROWS = 200
MAX_RESETS_S = 600.0
"""A quota that is back later than this counts as back then: the windows are seconds."""
_QUOTABLE = re.compile(r"[A-Za-z0-9._()/-]{1,1024}")
_LENGTH = re.compile(r"(\d{1,3}):([0-5]\d):([0-5]\d)(?:\.\d+)?")
_STATUSES = {status.value.casefold(): status for status in GraphStatus} | {
    "cancelled": GraphStatus.CANCELED
}


def events_query(targets: Iterable[str], event_ids: Iterable[str]) -> str:
    """Return the query for what is not over, and for the end of certain events.

    Args:
        targets: ids of the VMs of the set and of the set itself.
        event_ids: events whose end is asked for.
    """
    ids = _quoted(event_ids)
    over = f" or tostring(properties.EventId) in~ ({ids})" if ids else ""
    return "\n".join(
        (
            "maintenanceresources",
            "| where type =~ 'microsoft.maintenance/scheduledevents'",
            f"| where tostring(properties.TargetResourceId) in~ ({_quoted(targets)})",
            f"| where tostring(properties.EventStatus) !in~ ('Completed', 'Canceled'){over}",
            "| project id, name, properties",
            "| order by id asc",
        )
    )


def _quoted(values: Iterable[str]) -> str:
    """Return values as a list; one that is neither an id nor a name would be another query."""
    return ", ".join(f"'{each}'" for each in values if _QUOTABLE.fullmatch(each))


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a reply."""

    rows: tuple[object, ...]
    skip_token: str
    """Of the next page; empty on the last one."""


def parse_page(body: Json) -> Page:
    """Return one page. Raises ContractViolation for anything but a list of objects."""
    rows = cast("object", body.get("data"))
    if not isinstance(rows, list):
        raise ContractViolation(f"data is {value_excerpt(rows)}, not a list of rows")
    return Page(rows=tuple(cast("list[object]", rows)), skip_token=text(body, "$skipToken"))


def parse_row(row: object, targets: Container[str]) -> GraphEvent | str:
    """Return the event in a row, or why it is set aside.

    Args:
        row: any JSON value.
        targets: folded ids of what the set consists of.
    """
    try:
        fields = as_object(row, "a row")
        properties = as_object(fields.get("properties"), "properties")
        event_id = _id(fields, properties)
        target = _short_text(properties, "TargetResourceId")
        status = _short_text(properties, "EventStatus")
        event_type = _short_text(properties, "EventType")
    except ContractViolation as error:
        return str(error)
    if fold(target) not in targets:
        return f"the row of event {event_id} is about {value_excerpt(target)}, not about this set"
    return GraphEvent(
        event_id=event_id,
        event_type=event_type,
        status=_STATUSES.get(status.casefold(), GraphStatus.UNKNOWN),
        vms=_names(properties.get("Resources")),
        not_before=parse_instant(_text_or_none(properties, "NotBefore")),
    )


def _id(fields: Json, properties: Json) -> str:
    named, stated = _short_text(fields, "name"), _short_text(properties, "EventId")
    found = stated or named
    if not found:
        raise ContractViolation(f"a row has no EventId: {value_excerpt(fields)}")
    if named and fold(named) != fold(found):
        raise ContractViolation(f"a row has two ids, {value_excerpt(named)} and {stated}")
    return found


def _short_text(fields: Json, key: str) -> str:
    value = text(fields, key)
    if len(value) > MAX_TEXT_CHARACTERS:
        raise ContractViolation(f"{key} of a row has {len(value)} characters")
    return value


def _text_or_none(fields: Json, key: str) -> str:
    value = cast("object", fields.get(key))
    return value if isinstance(value, str) and len(value) <= MAX_TEXT_CHARACTERS else ""


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    items = cast("list[object]", value)
    return tuple(
        each for each in items if isinstance(each, str) and len(each) <= MAX_TEXT_CHARACTERS
    )


def quota_wait_s(headers: Mapping[str, str]) -> float | None:
    """Return how long no further query may be sent, in seconds; None if one may.

    Header names are lower case.
    """
    remaining = headers.get("x-ms-user-quota-remaining", "").strip()
    length = _LENGTH.fullmatch(headers.get("x-ms-user-quota-resets-after", "").strip())
    if not remaining.isdigit() or int(remaining[:9]) > 0 or length is None:
        return None
    hours, minutes, seconds = map(int, length.groups())
    return min(MAX_RESETS_S, hours * 3600.0 + minutes * 60.0 + seconds)
