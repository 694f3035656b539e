"""Planned maintenance in the simulated Azure: what Compute shows, allows, refuses and does."""

import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from controller.simulator.app import control
from controller.simulator.services.faults import FaultBook
from controller.simulator.world.access import MAINTENANCE
from controller.simulator.world.maintenance import MaintenanceResult
from tests.simulator.test_arm import NOW, Arm, build, code


def allowed() -> Arm:
    """Return a client whose identity may do what is needed."""
    client = build()
    client.world.roles.assign("web-1", MAINTENANCE, f"/subscriptions/{client.world.subscription}")
    return client


def view(client: Arm, vm: str = "web-2") -> dict[str, Any]:
    return dict(client.get(f"{client.world.vm(vm).resource_id}/instanceView"))


def path(client: Arm, vm: str = "web-2") -> str:
    return f"{client.world.vm(vm).resource_id}/performMaintenance"


def test_nothing_is_shown_unless_maintenance_is_planned() -> None:
    """The property is absent from a VM that no wave concerns."""
    client = allowed()
    client.world.maintenance.plan("web-2", window_s=3600)
    assert "maintenanceRedeployStatus" not in view(client, "web-1")
    assert view(client)["maintenanceRedeployStatus"] == {
        "isCustomerInitiatedMaintenanceAllowed": True,
        "preMaintenanceWindowStartTime": "2023-11-14T22:13:20+00:00",
        "preMaintenanceWindowEndTime": "2023-11-14T23:13:20+00:00",
        "maintenanceWindowStartTime": "2023-11-14T23:13:20+00:00",
        "maintenanceWindowEndTime": "2023-11-15T00:13:20+00:00",
        "lastOperationResultCode": "None",
    }


def test_maintenance_takes_the_vm_down_and_is_done() -> None:
    """It is accepted without a body; both of its URLs say when it has ended."""
    client = allowed()
    client.world.maintenance.plan("web-2", down_s=20)
    reply = client("POST", path(client))
    assert (reply.status, reply.body) == (202, b"")
    location = urlsplit(reply.headers["Location"])
    assert client.poll(reply)["status"] == "InProgress"
    assert client("GET", f"{location.path}?{location.query}").status == 202
    assert client.world.vm("web-2").state == "rebooting"
    again = client("POST", path(client))
    assert (again.status, code(again)) == (409, "Conflict")
    client.world.advance(NOW + 20)
    assert client.poll(reply)["status"] == "Succeeded"
    last = client("GET", f"{location.path}?{location.query}")
    assert (last.status, last.body) == (200, b"")
    assert client.world.vm("web-2").state == "running"
    status = view(client)["maintenanceRedeployStatus"]
    assert status["lastOperationResultCode"] == "MaintenanceCompleted"
    assert status["isCustomerInitiatedMaintenanceAllowed"] is False
    kinds = [change.kind for change in client.world.changes() if change.subject == "web-2"]
    assert kinds == [
        "maintenance_planned",
        "maintenance_begun",
        "vm_down",
        "vm_up",
        "maintenance_ended",
    ]


@pytest.mark.parametrize("opens_in_s", [None, 10.0, -3600.0])
def test_maintenance_is_refused_outside_its_window(opens_in_s: float | None) -> None:
    """Without a plan, before the window and after it nothing happens to the VM."""
    client = allowed()
    if opens_in_s is not None:
        client.world.maintenance.plan("web-2", opens_in_s=opens_in_s, window_s=3600)
    reply = client("POST", path(client))
    assert (reply.status, code(reply)) == (409, "OperationNotAllowed")
    assert client.world.vm("web-2").state == "running"


@pytest.mark.parametrize(
    ("outcome", "downs"), [("RetryLater", 0), ("MaintenanceAborted", 1)], ids=str
)
def test_maintenance_can_come_to_nothing(outcome: MaintenanceResult, downs: int) -> None:
    """The operation fails, the instance view says why, and it may be tried again."""
    client = allowed()
    client.world.maintenance.plan("web-2", down_s=5, outcome=outcome)
    reply = client("POST", path(client))
    client.world.advance(NOW + 5)
    assert client.poll(reply)["error"]["code"] == outcome
    status = view(client)["maintenanceRedeployStatus"]
    assert status["lastOperationResultCode"] == outcome
    assert status["lastOperationMessage"]
    assert status["isCustomerInitiatedMaintenanceAllowed"] is True
    assert len(client.world.changes("vm_down")) == downs


@pytest.mark.parametrize("action", sorted(MAINTENANCE))
def test_each_right_is_asked_for(action: str) -> None:
    """The identity of a VM has neither unless it is given."""
    client = allowed()
    client.world.maintenance.plan("web-2")
    client.world.roles.revoke("web-1", action)
    reply = client("POST", path(client))
    if reply.status == 202:
        url = urlsplit(reply.headers["Azure-AsyncOperation"])
        reply = client("GET", f"{url.path}?{url.query}")
    assert reply.status == 403
    assert action in json.loads(reply.body)["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ({"vms": ["web-2"], "window_s": 60, "down_s": 1}, 200, ""),
        ({"vms": []}, 400, "vms must name at least one VM"),
        ({"vms": ["web-9"]}, 404, "there is no VM web-9"),
        ({"vms": ["web-2"], "outcome": "Done"}, 400, "outcome must be one of"),
        ({"vms": ["web-2"], "more": 1}, 400, "unknown field 'more'"),
    ],
)
def test_maintenance_is_planned_at_the_control_endpoint(
    body: dict[str, Any], status: int, expected: str
) -> None:
    """Whoever runs a simulation plans maintenance there; bad input is answered in one sentence."""
    world = build().world
    reply = control.handle(
        world,
        FaultBook(),
        method="POST",
        path="/maintenance",
        query={},
        body=json.dumps(body).encode(),
        now=NOW,
    )
    assert reply.status == status
    assert expected in json.loads(reply.body).get("error", "")
    assert bool(world.changes("maintenance_planned")) == (status == 200)
