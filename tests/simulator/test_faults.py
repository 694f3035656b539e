"""Fault rules and the control endpoint, without a socket."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

from controller.simulator.app import control
from controller.simulator.services import api
from controller.simulator.services.faults import (
    Effect,
    Fault,
    FaultBook,
    fault_from_json,
    fault_to_json,
)
from controller.simulator.services.http_values import Delivery, Reply, Request, Service
from controller.simulator.world.builder import build_world

if TYPE_CHECKING:
    from controller.simulator.world.world import World

NOW = 1_800_000_000.0
EVENTS_URL = "/metadata/scheduledevents"


class Simulation:
    """A world with a fault book, on a clock that only the test moves."""

    def __init__(self) -> None:
        self.now = NOW
        self.world: World = build_world(now=NOW, vms=2)
        self.faults = FaultBook()

    def poll(self, vm: str = "web-1") -> Reply:
        request = Request(
            service=Service.IMDS,
            method="GET",
            path=EVENTS_URL,
            query=(("api-version", "2020-07-01"),),
            headers={"metadata": "true"},
            vm=vm,
        )
        self.now += 1
        return api.handle(self.world, self.faults, request, self.now)

    def control(
        self, method: str, path: str, body: object = None, query: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, object]]:
        reply = control.handle(
            self.world,
            self.faults,
            method=method,
            path=path,
            query=query or {},
            body=b"" if body is None else json.dumps(body).encode(),
            now=self.now,
        )
        return reply.status, json.loads(reply.body)


def test_reply_fault() -> None:
    """A reply rule answers in the service's place, headers included."""
    simulation = Simulation()
    simulation.faults.add(
        Fault(effect=Effect.REPLY, status=429, headers=(("Retry-After", "7"),), body="busy")
    )
    reply = simulation.poll()
    assert (reply.status, reply.body, dict(reply.headers)) == (429, b"busy", {"Retry-After": "7"})


@pytest.mark.parametrize(
    ("effect", "delivery"),
    [
        (Effect.HANG, Delivery.HANG),
        (Effect.HANG_AFTER, Delivery.HANG),
        (Effect.RESET_BEFORE, Delivery.RESET),
        (Effect.RESET_AFTER, Delivery.RESET),
    ],
)
def test_delivery_faults(effect: Effect, delivery: Delivery) -> None:
    """Hangs and resets keep the reply from arriving."""
    simulation = Simulation()
    simulation.faults.add(Fault(effect=effect))
    assert simulation.poll().delivery is delivery


@pytest.mark.parametrize(
    ("effect", "happened"),
    [
        (Effect.HANG, False),
        (Effect.RESET_BEFORE, False),
        (Effect.HANG_AFTER, True),
        (Effect.RESET_AFTER, True),
    ],
)
def test_whether_the_effect_took_place(effect: Effect, happened: bool) -> None:
    """Only the `after` rules let a request do its work before its reply is lost."""
    simulation = Simulation()
    event = simulation.world.events.schedule("Reboot", "web-1")
    simulation.faults.add(Fault(effect=effect, method="POST"))
    request = Request(
        service=Service.IMDS,
        method="POST",
        path=EVENTS_URL,
        query=(("api-version", "2020-07-01"),),
        headers={"metadata": "true"},
        body=json.dumps({"StartRequests": [{"EventId": event.event_id}]}).encode(),
        vm="web-2",
    )
    api.handle(simulation.world, simulation.faults, request, simulation.now)
    assert bool(event.acknowledged_by) is happened


def test_budget() -> None:
    """A rule lets `after` requests pass, treats `times`, and is then spent."""
    simulation = Simulation()
    simulation.faults.add(Fault(effect=Effect.REPLY, status=500, after=1, times=2))
    assert [simulation.poll().status for _ in range(4)] == [200, 500, 500, 200]


def test_until() -> None:
    """A rule ends at its instant."""
    simulation = Simulation()
    simulation.faults.add(Fault(effect=Effect.EMPTY_200, until=NOW + 2))
    assert [simulation.poll().body == b"" for _ in range(3)] == [True, False, False]


def test_conditions() -> None:
    """A rule touches only the VM, service, method and path that it names."""
    simulation = Simulation()
    simulation.faults.add(Fault(effect=Effect.EMPTY_200, vm="WEB-1", path_contains="ScheduledE"))
    simulation.faults.add(Fault(effect=Effect.HANG, service=Service.ARM))
    simulation.faults.add(Fault(effect=Effect.HANG, method="PUT"))
    assert simulation.poll("web-1").body == b""
    assert simulation.poll("web-2").body != b""


def test_stale() -> None:
    """A stale rule repeats the last answer from before it came into force."""
    simulation = Simulation()
    before = simulation.poll().body
    simulation.faults.add(Fault(effect=Effect.STALE))
    simulation.world.events.schedule("Freeze", "web-1")
    assert simulation.poll().body == before
    simulation.faults.clear()
    assert simulation.poll().body != before


def test_unreadable_bodies() -> None:
    """Garbage is no JSON in any encoding, and oversized is far beyond any document."""
    simulation = Simulation()
    simulation.faults.add(Fault(effect=Effect.GARBAGE, times=1))
    simulation.faults.add(Fault(effect=Effect.OVERSIZED, times=1))
    with pytest.raises(ValueError):  # noqa: PT011 - decoding or parsing, either will do
        json.loads(simulation.poll().body)
    assert len(simulation.poll().body) > 10_000_000


def test_rules_round_trip() -> None:
    """A rule survives JSON unchanged."""
    fault = Fault(
        service=Service.ARM,
        vm="web-1",
        method="PUT",
        effect=Effect.OPERATION,
        operation="canceled",
        headers=(("Retry-After", "1"),),
        times=3,
        after=1,
        until=NOW,
        delay_s=0.5,
    )
    assert fault_from_json(json.loads(json.dumps(fault_to_json(fault)))) == fault


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"effect": "explode"},
        {"effect": "hang", "when": 1},
        {"effect": "hang", "times": 0},
        {"effect": "hang", "times": "2"},
        {"effect": "reply", "headers": {"a": 1}},
        {"effect": "reply", "headers": {"a": "b\r\nc: d"}},
        {"effect": "reply", "headers": []},
        {"effect": "operation", "operation": "Exploded"},
        {"effect": "hang", "service": "dns"},
    ],
)
def test_bad_rules(body: object) -> None:
    """A bad rule is refused with one sentence and changes nothing."""
    simulation = Simulation()
    status, answer = simulation.control("POST", "/faults", body)
    assert status == 400
    assert isinstance(answer["error"], str)
    assert simulation.faults.to_json() == []


def test_frozen_vm_reaches_nothing() -> None:
    """What a frozen VM asks is never answered, what a rebooting VM asks is reset."""
    simulation = Simulation()
    simulation.world.set_vm_state("web-1", "frozen")
    assert simulation.poll().delivery is Delivery.HANG
    simulation.world.set_vm_state("web-1", "rebooting")
    assert simulation.poll().delivery is Delivery.RESET


def test_control_state_and_history() -> None:
    """State shows VMs, pools and events; history is read on from where one stopped."""
    simulation = Simulation()
    body = {"event_type": "Reboot", "resources": ["web-1"], "notice_s": 300}
    status, answer = simulation.control("POST", "/events", body)
    assert status == 200
    _, state = simulation.control("GET", "/state")
    assert [event["id"] for event in state["events"]] == [answer["id"]]  # type: ignore[attr-defined]
    assert state["pools"][0]["members"] == ["web-1", "web-2"]  # type: ignore[index]
    _, history = simulation.control("GET", "/history")
    assert [change["kind"] for change in history["changes"]] == ["event_published"]  # type: ignore[attr-defined]
    assert simulation.control("POST", f"/events/{answer['id']}/cancel")[0] == 200
    since = {"since": str(history["next"])}
    _, history = simulation.control("GET", "/history", query=since)
    assert [change["kind"] for change in history["changes"]] == ["event_cancelled"]  # type: ignore[attr-defined]


def test_control_edits() -> None:
    """Operators' edits, VM states and knobs take effect at once."""
    simulation = Simulation()
    world = simulation.world
    nic = world.vm("web-1").nic_ids[0].rpartition("/")[2]
    edit = {"action": "remove", "pool": "app"}
    assert simulation.control("POST", f"/nics/{nic}/membership", edit)[0] == 200
    assert world.rotation(world.pool_id("app")) == ("web-2",)
    assert simulation.control("POST", f"/nics/{nic}/tags", {"tags": {"a": "b"}})[0] == 200
    assert world.nic(nic)["tags"] == {"a": "b"}
    assert simulation.control("POST", "/vms/web-2/state", {"state": "stopped"})[0] == 200
    assert not world.serving("web-2")
    assert simulation.control("POST", "/settings", {"flows_on_remove": "drop"})[0] == 200
    assert world.settings.flows_on_remove == "drop"
    assert simulation.control("POST", "/settings", {"lro_retry_after_s": None})[0] == 200
    assert world.settings.lro_retry_after_s is None
    assert simulation.control("POST", "/blob", {"wait_after_expiry_s": 60})[0] == 200
    assert world.blobs.wait_after_expiry_s == 60


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("vm", "web-1"),
        ("nic", "web-1-nic"),
        ("pool", "app"),
        ("load-balancer", "web-lb"),
        ("set", ""),
        ("conversion", "flex"),
    ],
)
def test_control_replaces(kind: str, name: str) -> None:
    """Each kind of resource can be created again by name, and the set can be converted."""
    simulation = Simulation()
    status, answer = simulation.control("POST", "/replacements", {"kind": kind, "name": name})
    assert (status, answer) == (200, {"kind": kind, "name": name})
    said = {str(change.detail["what"]) for change in simulation.world.changes("operator")}
    assert said & {"created again", "converted to a scale set"}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/replacements", {"kind": "disk", "name": "web-1"}, 400),
        ("/replacements", {"kind": "vm", "name": "web-9"}, 404),
        ("/replacements", {"kind": "nic", "name": "web-9"}, 404),
        ("/replacements", {"kind": "pool", "name": "none"}, 404),
        ("/replacements", {"kind": "load-balancer", "name": "none"}, 404),
        ("/events", {"event_type": "Explode", "resources": ["web-1"]}, 400),
        ("/events", {"event_type": "Reboot"}, 400),
        ("/events", {"event_type": "Reboot", "resources": []}, 400),
        ("/events", {"event_type": "Reboot", "resources": ["web-1"], "notice_s": "soon"}, 400),
        ("/events", {"event_type": "Reboot", "resources": ["web-1"], "notice": 3}, 400),
        ("/events", {"event_type": ["Reboot"], "resources": ["web-1"]}, 400),
        ("/events", [], 400),
        ("/events/none/cancel", None, 404),
        ("/vms/web-9/state", {"state": "running"}, 404),
        ("/vms/web-1/state", {"state": "tired"}, 400),
        ("/nics/none/tags", {"tags": {}}, 404),
        ("/nics/web-1-nic/tags", {"tags": 1}, 400),
        ("/settings", {"flows_on_remove": "lose"}, 400),
        ("/settings", {"rbac_enforced": 1}, 400),
        ("/settings", {"operation_latency_s": "1"}, 400),
        ("/settings", {"unheard_of": 1}, 400),
        ("/blob", {"foreign_write_status": 500}, 400),
        ("/nowhere", None, 404),
    ],
)
def test_bad_control_input(path: str, body: object, status: int) -> None:
    """Bad input is answered with one sentence that says what is wrong, and changes nothing."""
    simulation = Simulation()
    got, answer = simulation.control("POST", path, body)
    assert got == status
    assert isinstance(answer["error"], str)
    assert simulation.world.history == []
