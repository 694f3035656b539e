"""The query for scheduled events in Resource Graph, and what its rows may hold."""

from typing import Any

import pytest

from controller.azure.http.json_reader import Json
from controller.azure.resource_graph_rows import events_query, parse_page, parse_row, quota_wait_s
from controller.core.second_source import GraphEvent, GraphStatus
from controller.errors import ContractViolation
from tests.support.planner_scenario import vm_id

VM = vm_id("web-1")
TARGETS = {VM.casefold()}


def row(**properties: Any) -> Json:
    """Return a row as Azure documents it."""
    given = {
        "EventId": "E-1",
        "EventStatus": "Completed",
        "EventType": "Reboot",
        "ResourceType": "VirtualMachine",
        "Resources": ["web-1"],
        "NotBefore": "",
        "TargetResourceId": VM,
    }
    known = {key: value for key, value in (given | properties).items() if value is not None}
    return {"id": f"{VM}/providers/microsoft.maintenance/scheduledevents/E-1", "name": "E-1",
            "properties": known}  # fmt: skip


def read(found: object) -> GraphEvent:
    event = parse_row(found, TARGETS)
    assert isinstance(event, GraphEvent), event
    return event


def test_the_query_asks_for_this_set_and_for_what_is_not_over() -> None:
    """It names the VMs and the set, and the events whose end is asked for."""
    query = events_query([VM, "/set"], ["E-1"])
    assert query.splitlines() == [
        "maintenanceresources",
        "| where type =~ 'microsoft.maintenance/scheduledevents'",
        f"| where tostring(properties.TargetResourceId) in~ ('{VM}', '/set')",
        "| where tostring(properties.EventStatus) !in~ ('Completed', 'Canceled') "
        "or tostring(properties.EventId) in~ ('E-1')",
        "| project id, name, properties",
        "| order by id asc",
    ]
    assert "EventId" not in events_query([VM], [])


@pytest.mark.parametrize("odd", ["x') or true //", "a'b", "", "a\nb", "x" * 2000, "a|b"])
def test_an_id_cannot_change_the_query(odd: str) -> None:
    """What is neither an id nor a name is left out."""
    assert events_query([VM], [odd]) == events_query([VM], [])
    assert events_query([VM, odd], ["E-1"]) == events_query([VM], ["E-1"])


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("Completed", GraphStatus.COMPLETED),
        ("canceled", GraphStatus.CANCELED),
        ("Cancelled", GraphStatus.CANCELED),
        ("SCHEDULED", GraphStatus.SCHEDULED),
        ("Started", GraphStatus.STARTED),
        ("Postponed", GraphStatus.UNKNOWN),
        ("", GraphStatus.UNKNOWN),
        (None, GraphStatus.UNKNOWN),
    ],
)
def test_a_status_that_is_not_documented_is_unknown(
    status: str | None, expected: GraphStatus
) -> None:
    """It proves no end."""
    assert read(row(EventStatus=status)).status is expected


def test_ids_are_compared_without_case() -> None:
    """Azure spells the id of a VM, and of an event, in several ways."""
    found = row(TargetResourceId=VM.upper(), EventId="e-1")
    assert read(found).event_id == "e-1"
    del found["name"]
    assert read(found).event_id == "e-1"
    assert read(row(EventId=None)).event_id == "E-1"


def test_what_is_not_needed_may_be_missing_or_odd() -> None:
    """An event is known by its id, its target and its status."""
    event = read(row(Resources=None, NotBefore=None, EventType=None))
    assert (event.vms, event.not_before, event.event_type) == ((), None, "")
    odd = read(row(Resources=["web-1", 7, "x" * 2000], NotBefore="tomorrow"))
    assert (odd.vms, odd.not_before) == (("web-1",), None)
    assert read(row(NotBefore=7, Resources="web-1")).not_before is None


@pytest.mark.parametrize(
    ("odd", "problem"),
    [
        ("text", "a row is text, not an object"),
        ([], "a row is a list, not an object"),
        ({"name": "E-1"}, "properties is nothing, not an object"),
        ({"properties": "{}"}, "properties is text, not an object"),
        (row(EventId="E-2"), "a row has two ids"),
        ({"properties": {"EventStatus": "Completed", "TargetResourceId": VM}}, "has no EventId"),
        (row(EventId=7), "EventId is a number, not text"),
        (row(EventStatus=["Completed"]), "EventStatus is a list, not text"),
        (row(EventType="x" * 5000), "EventType of a row has 5000 characters"),
        (row(TargetResourceId=None), "about '', not about this set"),
        (row(TargetResourceId=vm_id("other-1")), "not about this set"),
    ],
)
def test_a_row_that_is_no_event_of_this_set_is_set_aside(odd: object, problem: str) -> None:
    """The others are used."""
    found = parse_row(odd, TARGETS)
    assert isinstance(found, str)
    assert problem in found


@pytest.mark.parametrize(
    "body", [{}, {"data": None}, {"data": {"columns": [], "rows": []}}, {"data": "x"}]
)
def test_a_reply_without_a_list_of_rows_is_refused(body: Json) -> None:
    """It does not show that there are no events."""
    with pytest.raises(ContractViolation, match="not a list of rows"):
        parse_page(body)


def test_a_page_may_name_the_next_one() -> None:
    """The last page has no token."""
    assert parse_page({"data": [1], "$skipToken": "t"}).skip_token == "t"
    assert parse_page({"data": []}).skip_token == ""


@pytest.mark.parametrize(
    ("remaining", "resets", "expected"),
    [
        ("0", "00:00:05", 5.0),
        (" 0 ", "00:01:05", 65.0),
        ("0", "9:59:59", 600.0),
        ("0", "00:00:02.5000000", 2.0),
        ("1", "00:00:05", None),
        ("14", "00:00:05", None),
        ("", "00:00:05", None),
        ("0", "", None),
        ("0", "soon", None),
        ("-1", "00:00:05", None),
        ("9" * 5000, "00:00:05", None),
    ],
)
def test_the_quota_is_heard_only_when_it_is_used_up(
    remaining: str, resets: str, expected: float | None
) -> None:
    """Headers that cannot be read ask for nothing."""
    headers = {"x-ms-user-quota-remaining": remaining, "x-ms-user-quota-resets-after": resets}
    assert quota_wait_s(headers) == expected
