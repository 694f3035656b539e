"""The simulated Resource Graph: the events of the set, late, and kept when they have ended."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from controller.azure.resource_graph_rows import events_query
from controller.simulator.services.arm import handle
from controller.simulator.services.http_values import Reply, Request, Service
from controller.simulator.world.access import OPERATOR
from controller.simulator.world.builder import build_world
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.world import World

NOW = 1_800_000_000.0
PATH = "/providers/Microsoft.ResourceGraph/resources"
PUBLISHED = {"scheduledEventsAdditionalPublishingTargets": {
    "eventGridAndResourceGraph": {"enable": True, "scheduledEventsApiVersion": "2020-07-01"}
}}  # fmt: skip


def world_of(*, published: bool = True, **knobs: Any) -> World:
    """Return a world with three VMs whose set publishes its events."""
    world = build_world(now=NOW, vms=3, settings=WorldSettings(**knobs))
    world.scheduled_events_policy = PUBLISHED if published else None
    return world


def ask(world: World, query: str, now: float, *, vm: str = "web-1", **options: Any) -> Reply:
    """Send a query as a VM."""
    world.advance(now)
    token = world.token(vm, "https://management.azure.com")
    body = {"subscriptions": [world.subscription], "query": query, "options": options}
    request = Request(
        service=Service.ARM,
        method="POST",
        path=PATH,
        query=(("api-version", "2021-03-01"),),
        headers={"authorization": f"Bearer {token}"},
        body=json.dumps(body).encode(),
    )
    return handle(world, request, now)


def everything(world: World, event_ids: Sequence[str] = ()) -> str:
    """Return the query of an agent of this set."""
    targets = [vm.resource_id for vm in world.vms.values()]
    return events_query([*targets, world.availability_set_id], event_ids)


def rows(reply: Reply) -> list[tuple[str, str]]:
    """Return id and status of the rows."""
    assert reply.status == 200, reply.body
    data = json.loads(reply.body)["data"]
    return [(each["name"], each["properties"]["EventStatus"]) for each in data]


def test_a_set_publishes_nothing_by_default() -> None:
    """It is a preview, and its owner has to opt in."""
    world = world_of(published=False)
    world.events.schedule("Reboot", "web-1")
    assert rows(ask(world, everything(world), NOW + 100)) == []


def test_rows_follow_late_and_stay() -> None:
    """Scheduled, started, completed: each so long after the event, and the last one for good."""
    world = world_of(resource_graph_delay_s=30)
    event = world.events.schedule("Reboot", "web-2", notice_s=100, started_s=50)
    query = everything(world, [event.event_id])
    seen = [rows(ask(world, query, NOW + at)) for at in (29, 30, 129, 131, 179, 181, 9000)]
    name = event.event_id
    assert seen == [
        [],
        [(name, "Scheduled")],
        [(name, "Scheduled")],
        [(name, "Started")],
        [(name, "Started")],
        [(name, "Completed")],
        [(name, "Completed")],
    ]
    assert rows(ask(world, everything(world), NOW + 9001)) == []  # over, and not asked for


def test_a_cancelled_event_is_canceled() -> None:
    """The metadata service shows only that it is absent."""
    world = world_of(resource_graph_delay_s=0)
    event = world.events.schedule("Freeze", "web-2", cancel_after_s=10)
    query = everything(world, [event.event_id.lower()])
    assert rows(ask(world, query, NOW + 20)) == [(event.event_id, "Canceled")]


def test_an_event_of_several_vms_has_a_row_for_each_or_one_for_the_set() -> None:
    """Which of the two Azure does is not documented."""
    world = world_of(resource_graph_delay_s=0)
    world.events.schedule("Reboot", "web-1", "web-2")
    assert len(rows(ask(world, everything(world), NOW + 1))) == 2
    world.settings.resource_graph_target = "set"
    (row,) = json.loads(ask(world, everything(world), NOW + 2).body)["data"]
    assert row["properties"]["TargetResourceId"] == world.availability_set_id
    assert row["id"].endswith(f"/scheduledevents/{row['name']}")


def test_the_query_of_the_documentation_shows_everything() -> None:
    """The second one adds a projection and an order."""
    world = world_of(resource_graph_delay_s=0)
    event = world.events.schedule("Reboot", "web-1")
    for query in (
        'maintenanceresources\n| where type == "microsoft.maintenance/scheduledevents"',
        'Maintenanceresources | where type == "microsoft.maintenance/scheduledevents" '
        "| sort by tostring(properties.EventStatus), tostring(properties.EventId) asc "
        "| project resourceGroup, zones, properties.EventStatus",
    ):
        assert rows(ask(world, query, NOW + 1)) == [(event.event_id, "Scheduled")]


@pytest.mark.parametrize("query", ["", "resources", "maintenanceresources | where x contains 'a'"])
def test_what_it_does_not_know_is_refused(query: str) -> None:
    """400, as for a query with a mistake."""
    assert ask(world_of(), query, NOW).status == 400


def test_pages_follow_each_other() -> None:
    """A page has as many rows as the query asks for, and a token for the next."""
    world = world_of(resource_graph_delay_s=0)
    ids = sorted(world.events.schedule("Reboot", "web-1").event_id for _ in range(5))
    found: list[str] = []
    options: dict[str, Any] = {"$top": 2}
    while True:
        reply = ask(world, everything(world), NOW + 1, **options)
        found += [name for name, _ in rows(reply)]
        token = json.loads(reply.body).get("$skipToken")
        if not token:
            break
        options["$skipToken"] = token
    assert found == ids


def test_rows_and_the_table_need_read_permissions() -> None:
    """A VM that may not be read has no row; without the set there is no answer."""
    world = world_of(resource_graph_delay_s=0)
    world.events.schedule("Reboot", "web-1", "web-2")
    web_2 = world.vm("web-2").resource_id
    world.roles.revoke("web-1", "Microsoft.Compute/virtualMachines/read", web_2)
    assert len(rows(ask(world, everything(world), NOW + 1))) == 1
    world.roles.revoke("web-1", "Microsoft.Compute/availabilitySets/read")
    assert ask(world, everything(world), NOW + 2).status == 403


def test_the_quota_is_stated_and_refuses() -> None:
    """15 queries in 5 s, with the headers that Azure documents."""
    world = world_of()
    replies = [ask(world, everything(world), NOW) for _ in range(16)]
    assert replies[0].headers["x-ms-user-quota-remaining"] == "14"
    assert replies[0].headers["x-ms-user-quota-resets-after"] == "00:00:05"
    assert [each.status for each in replies[14:]] == [200, 429]
    assert replies[15].headers["Retry-After"] == "5"
    assert ask(world, everything(world), NOW + 5).status == 200


def test_the_owner_of_the_set_opts_in() -> None:
    """By the request that the doctor prints; what the policy states besides stays."""
    world = world_of(published=False)
    world.scheduled_events_policy = {"userInitiatedReboot": {"automaticallyApprove": True}}
    body = {"properties": {"scheduledEventsPolicy": PUBLISHED}}

    def patch(principal: str) -> Reply:
        token = world.token(principal, "https://management.azure.com")
        request = Request(
            service=Service.ARM,
            method="PATCH",
            path=world.availability_set_id,
            query=(("api-version", "2024-07-01"),),
            headers={"authorization": f"Bearer {token}"},
            body=json.dumps(body).encode(),
        )
        return handle(world, request, NOW)

    assert patch("web-1").status == 403
    assert not world.publishes_events
    reply = patch(OPERATOR)
    shown = json.loads(reply.body)["properties"]["scheduledEventsPolicy"]
    assert shown == {"userInitiatedReboot": {"automaticallyApprove": True}, **PUBLISHED}
    assert world.publishes_events
