"""The simulated Instance Metadata Service keeps to Microsoft's documentation of the real one."""

import json
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from controller.simulator.services import imds
from controller.simulator.services.http_values import Delivery, Reply, Request, Service
from controller.simulator.world.access import OPERATOR, OPERATOR_CLIENT_ID
from controller.simulator.world.builder import build_world
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.world import World

NOW = 1_700_000_000.0
EVENTS = "/metadata/scheduledevents"
TOKEN = "/metadata/identity/oauth2/token"
ARM = "https://management.azure.com/"
WIRE = Path(__file__).parents[1] / "wire"


def build(**settings: Any) -> World:
    return build_world(now=NOW, settings=WorldSettings(**settings))


def ask(
    world: World,
    path: str = EVENTS,
    *,
    vm: str = "web-1",
    method: str = "GET",
    body: bytes = b"",
    version: str = "2020-07-01",
    query: tuple[tuple[str, str], ...] = (),
    headers: dict[str, str] | None = None,
    at: float | None = None,
) -> Reply:
    request = Request(
        service=Service.IMDS,
        method=method,
        path=path,
        query=(("api-version", version), *query) if version else query,
        headers={"metadata": "true"} if headers is None else headers,
        body=body,
        vm=vm,
    )
    return imds.handle(world, request, world.now if at is None else at)


def document(world: World, **kwargs: Any) -> dict[str, Any]:
    reply = ask(world, **kwargs)
    assert reply.status == 200
    return json.loads(reply.body)


def acknowledge(world: World, event_id: str, *, vm: str = "web-2") -> Reply:
    body = json.dumps({"StartRequests": [{"EventId": event_id}]}).encode()
    return ask(world, method="POST", body=body, vm=vm)


# What every endpoint refuses


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, ()),
        ({"metadata": "true", "x-forwarded-for": "10.0.0.1"}, ()),
        ({"metadata": "true"}, (("api-version", "2020-07-01"),)),
    ],
)
def test_refusals(headers: dict[str, str], query: tuple[tuple[str, str], ...]) -> None:
    """A missing header, a forwarded request and a doubled parameter are refused with 400."""
    assert ask(build(), headers=headers, query=query).status == 400


@pytest.mark.parametrize("version", ["", "latest", "2020-07-02"])
def test_bad_version(version: str) -> None:
    """A missing or unknown api-version is refused with the three newest ones."""
    reply = ask(build(), version=version)
    assert reply.status == 400
    assert json.loads(reply.body)["newest-versions"] == ["2020-07-01", "2019-08-01", "2019-04-01"]


def test_rate_limit() -> None:
    """The sixth request within a second is refused with 429, and a second later none is."""
    world = build()
    assert [ask(world).status for _ in range(6)] == [200] * 5 + [429]
    assert ask(world, at=NOW + 1.0).status == 200
    assert ask(world, vm="web-2").status == 200


# Scheduled events


def test_no_events() -> None:
    """An idle set has a document with an incarnation and an empty list."""
    assert document(build()) == {"DocumentIncarnation": 1, "Events": []}


def test_event_shape() -> None:
    """An event has the documented fields, and every VM of the set sees it."""
    world = build()
    world.events.schedule("Freeze", "web-1", "web-2", duration_s=9, notice_s=900)
    for vm in ("web-1", "web-2", "web-3"):
        [event] = document(world, vm=vm)["Events"]
        assert parsedate_to_datetime(event.pop("NotBefore")).timestamp() == NOW + 900
        assert event.pop("EventId").isupper()
        assert event == {
            "EventStatus": "Scheduled",
            "EventType": "Freeze",
            "ResourceType": "VirtualMachine",
            "Resources": ["web-1", "web-2"],
            "Description": "Host server is undergoing maintenance.",
            "EventSource": "Platform",
            "DurationInSeconds": 9,
        }


def test_old_version_has_fewer_fields() -> None:
    """A version from before DurationInSeconds leaves that key out."""
    world = build()
    world.events.schedule("Reboot", "web-1")
    [event] = document(world, version="2019-08-01")["Events"]
    assert "DurationInSeconds" not in event
    assert "EventSource" in event


def test_life_cycle() -> None:
    """An event without an acknowledgement starts at NotBefore, keeps its id, and then is gone."""
    world = build()
    event = world.events.schedule("Reboot", "web-1", notice_s=300, started_s=60)
    before = document(world, at=NOW + 299)
    [started] = document(world, at=NOW + 300, vm="web-2")["Events"]
    assert (started["EventStatus"], started["NotBefore"]) == ("Started", "")
    assert started["EventId"] == event.event_id
    after = document(world, at=NOW + 360, vm="web-2")
    assert after["Events"] == []
    assert after["DocumentIncarnation"] > before["DocumentIncarnation"]


def test_acknowledgement_starts_the_event() -> None:
    """An acknowledgement by any peer releases the event before NotBefore, for all resources."""
    world = build(ack_starts_event_after_s=5.0)
    event = world.events.schedule("Reboot", "web-1", "web-3", impact_delay_s=1)
    reply = acknowledge(world, event.event_id.lower())
    assert (reply.status, reply.body) == (200, b"")
    world.advance(NOW + 6)
    assert [c.at for c in world.changes("event_started")] == [NOW + 5]
    assert [c.subject for c in world.changes("vm_down")] == ["web-1", "web-3"]


def test_acknowledgement_may_not_hurry_the_platform() -> None:
    """With the delay unset, an acknowledged event still waits for NotBefore."""
    world = build(ack_starts_event_after_s=None)
    event = world.events.schedule("Reboot", "web-1", notice_s=300)
    acknowledge(world, event.event_id)
    world.advance(NOW + 299)
    assert world.changes("event_started") == []


def test_acknowledgement_is_idempotent() -> None:
    """A second acknowledgement, by whomever, is answered 200 and changes nothing."""
    world = build()
    event = world.events.schedule("Reboot", "web-1")
    replies = [acknowledge(world, event.event_id, vm=vm) for vm in ("web-2", "web-3")]
    assert [reply.status for reply in replies] == [200, 200]
    assert [(c.detail["by"], c.detail["first"]) for c in world.changes("event_acknowledged")] == [
        ("web-2", True),
        ("web-3", False),
    ]


def test_unknown_and_malformed_acknowledgements() -> None:
    """An id that is not in the document, and a body that is not JSON, are refused with 400."""
    world = build()
    assert acknowledge(world, "C7061BAC-AFDC-4513-B24B-AA5F13A16123").status == 400
    assert ask(world, method="POST", body=b"StartRequests").status == 400


def test_cancelled() -> None:
    """A cancelled event leaves the document without ever starting."""
    world = build()
    world.events.schedule("Freeze", "web-1", cancel_after_s=60)
    assert document(world, at=NOW + 61)["Events"] == []
    assert world.changes("event_started", "vm_down") == []


def test_started_first() -> None:
    """An unpredicted failure appears as Started, and its VM is already gone."""
    world = build()
    world.events.schedule("Reboot", "web-1", started_first=True)
    [event] = document(world, vm="web-2", at=NOW)["Events"]
    assert (event["EventStatus"], event["NotBefore"]) == ("Started", "")
    assert not world.reachable("web-1")


def test_ids_may_change() -> None:
    """With that knob on, the id of Scheduled is unknown once the event has started."""
    world = build(event_ids_change=True)
    event = world.events.schedule("Reboot", "web-1", notice_s=60, impact_delay_s=1)
    first = event.event_id
    world.advance(NOW + 61)
    assert acknowledge(world, first).status == 400
    assert acknowledge(world, event.event_id).status == 200


def test_late_second_impact() -> None:
    """A VM may go down a second time while its event is still Started."""
    world = build()
    world.events.schedule(
        "Freeze", "web-1", notice_s=60, impact_s=5, started_s=300, late_impact=(100, 3)
    )
    world.advance(NOW + 1000)
    assert [(c.kind, c.at - NOW) for c in world.changes("vm_down", "vm_up")] == [
        ("vm_down", 61),
        ("vm_up", 66),
        ("vm_down", 160),
        ("vm_up", 163),
    ]


def test_dead_vms_reach_nothing() -> None:
    """A rebooting VM's requests are reset, a frozen one's hang, and both recover."""
    world = build()
    world.events.schedule("Reboot", "web-1", started_first=True, impact_s=30)
    world.events.schedule("Freeze", "web-2", started_first=True, impact_s=5)
    world.advance(NOW)
    assert ask(world, vm="web-1").delivery is Delivery.RESET
    assert ask(world, vm="web-2").delivery is Delivery.HANG
    assert ask(world, vm="web-2", at=NOW + 6).delivery is Delivery.NORMAL
    assert ask(world, vm="web-1", at=NOW + 31).delivery is Delivery.NORMAL


def test_first_call_is_slow() -> None:
    """The first call of a VM enables the service, which takes a while; later calls do not wait."""
    world = build(first_imds_call_s=120.0)
    assert ask(world).delay_s == 120.0
    assert ask(world, at=NOW + 30).delay_s == 90.0
    assert ask(world, at=NOW + 121).delay_s == 0.0


def test_events_appear_after_a_while() -> None:
    """A VM sees events only some time after its first call; until then its document is empty."""
    world = build(events_visible_after_s=300.0)
    world.events.schedule("Freeze", "web-2", notice_s=900)

    def seen(vm: str, at: float) -> int:
        return len(json.loads(ask(world, vm=vm, at=NOW + at).body)["Events"])

    assert [seen("web-1", at) for at in (0, 299, 300)] == [0, 0, 1]
    assert [seen("web-2", at) for at in (301, 600, 601)] == [0, 0, 1]
    world.settings.imds_idle_disable_s = 60.0
    assert [seen("web-1", at) for at in (700, 750, 800)] == [0, 0, 0]


def test_idle_service_is_disabled() -> None:
    """After a day without a call the service starts over, incarnation included."""
    world = build(first_imds_call_s=10.0)
    world.events.schedule("Freeze", "web-2", notice_s=60)
    ask(world)
    reply = ask(world, at=NOW + 86_500)
    assert reply.delay_s == 10.0
    assert json.loads(reply.body)["DocumentIncarnation"] == 1


# Identity


def test_operator_identity() -> None:
    """Every VM has the identity of an operator, whose token does everything."""
    world = build()
    query = (("resource", ARM), ("client_id", OPERATOR_CLIENT_ID.upper()))
    body = json.loads(ask(world, TOKEN, version="2018-02-01", query=query).body)
    assert world.caller(body["access_token"], ARM, NOW) == OPERATOR


def test_token() -> None:
    """A token has the published members, all of them strings, and is good for its audience only."""
    world = build()
    reply = ask(world, TOKEN, version="2018-02-01", query=(("resource", ARM),))
    body = json.loads(reply.body)
    recorded = json.loads((WIRE / "GetIdentityToken.json").read_text())["responses"]["200"]["body"]
    assert {*recorded, "token_type"} == set(body)
    assert {type(value) for value in body.values()} == {str}
    token = body["access_token"]
    assert world.caller(token, ARM, NOW) == "web-1"
    assert world.caller(token, "https://storage.azure.com/", NOW) is None
    assert world.caller(token[:-1] + "A", ARM, NOW) is None
    assert world.caller(token, ARM, float(body["expires_on"])) is None


def test_token_errors() -> None:
    """A missing audience and an unknown identity are refused in the OAuth error shape."""
    for query in ((), (("resource", ARM), ("client_id", "nobody"))):
        reply = ask(build(), TOKEN, version="2018-02-01", query=query)
        assert reply.status == 400
        assert set(json.loads(reply.body)) == {"error", "error_description"}


# Instance metadata


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part)]
    if isinstance(value, list):
        return [leaf for part in value for leaf in leaves(part)]
    return [value]


def test_instance_shape() -> None:
    """The compute part has every member of the published example, and every leaf is a string."""
    body = json.loads(ask(build(), "/metadata/instance", version="2021-02-01").body)
    example = json.loads((WIRE / "GetInstanceMetadata.json").read_text())
    assert set(example["responses"]["200"]["body"]["compute"]) <= set(body["compute"])
    assert {type(leaf) for leaf in leaves(body)} == {str}
    assert body["compute"]["name"] == "web-1"
    assert body["compute"]["osProfile"]["computerName"] != "web-1"


def test_leaf_needs_text() -> None:
    """A leaf is answered as text only."""
    world = build()
    path = "/metadata/instance/compute/name"
    assert ask(world, path).status == 400
    assert ask(world, path, query=(("format", "text"),)).body == b"web-1"


# What there is to ask for


@pytest.mark.parametrize(
    ("method", "path", "version", "query", "status"),
    [
        ("GET", "/metadata/versions", "", (), 200),
        ("GET", "/metadata/nothing", "", (), 404),
        ("DELETE", EVENTS, "2020-07-01", (), 405),
        ("POST", TOKEN, "2018-02-01", (), 405),
        ("GET", TOKEN, "latest", (("resource", ARM),), 400),
        ("GET", TOKEN, "2018-02-01", (), 400),
        ("GET", TOKEN, "2018-02-01", (("resource", ARM), ("client_id", "x")), 400),
        ("POST", "/metadata/instance", "2021-02-01", (), 405),
        ("GET", "/metadata/instance", "latest", (), 400),
        ("GET", "/metadata/instance/compute/nothing", "2021-02-01", (), 404),
        ("GET", "/metadata/instance/compute/name", "2021-02-01", (), 400),
        ("GET", "/metadata/instance/compute/name", "2021-02-01", (("format", "text"),), 200),
        ("GET", "/metadata/instance/network/interface/0", "2021-02-01", (), 200),
        ("GET", "/metadata/instance/network/interface/9", "2021-02-01", (), 404),
    ],
)
def test_what_there_is_to_ask_for(
    method: str, path: str, version: str, query: tuple[tuple[str, str], ...], status: int
) -> None:
    """Paths, methods, versions and leaves are answered as documented, with 404, 405 and 400."""
    reply = ask(build(), path, method=method, version=version, query=query)
    assert reply.status == status, reply.body


def test_a_vm_that_does_not_exist_has_no_metadata_service() -> None:
    """The service is link-local: without a VM there is no answer."""
    assert ask(build(), vm="web-9").delivery is Delivery.RESET
