"""The simulated acknowledgement of an event through Resource Manager."""

from typing import Any

import pytest

from controller.simulator.services.arm import handle
from controller.simulator.services.event_acknowledgements import ACTION
from controller.simulator.services.http_values import Reply, Request, Service
from controller.simulator.world.builder import build_world
from controller.simulator.world.events import EventState
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.world import World

NOW = 1_800_000_000.0


def world_of(**knobs: Any) -> World:
    """Return a world whose VMs may acknowledge."""
    world = build_world(now=NOW, vms=2, settings=WorldSettings(**knobs))
    for vm in ("web-1", "web-2"):
        world.roles.assign(vm, {ACTION}, f"/subscriptions/{world.subscription}")
    return world


def acknowledge(
    world: World,
    target: str,
    event_id: str,
    *,
    method: str = "POST",
    version: str = "2023-10-01-preview",
) -> Reply:
    """Acknowledge as web-1."""
    token = world.token("web-1", "https://management.azure.com")
    request = Request(
        service=Service.ARM,
        method=method,
        path=f"{target}/providers/Microsoft.Maintenance/scheduledevents/{event_id}/acknowledge",
        query=(("api-version", version),),
        headers={"authorization": f"Bearer {token}"},
    )
    return handle(world, request, NOW)


def vm_id(world: World, name: str = "web-2") -> str:
    return world.vm(name).resource_id


def test_an_event_is_acknowledged_under_its_vm_or_the_set() -> None:
    """It counts like that of the metadata service; ids are compared without case."""
    for target in (vm_id, lambda world: world.availability_set_id.upper()):
        world = world_of()
        event = world.events.schedule("Reboot", "web-2")
        reply = acknowledge(world, target(world), event.event_id.lower())
        assert (reply.status, reply.body) == (
            200,
            b'{"value":"Successfully approved scheduled event"}',
        )
        assert event.acknowledged_by == ["web-1"]
        world.advance(NOW + 11)
        assert event.state is EventState.STARTED


@pytest.mark.parametrize(
    ("under", "vm", "availability_set"), [("vms", 200, 404), ("set", 404, 200)]
)
def test_under_which_resource_an_event_is_known_is_a_setting(
    under: str, vm: int, availability_set: int
) -> None:
    """Azure does not document it."""
    world = world_of(arm_acknowledges_under=under)
    event = world.events.schedule("Reboot", "web-2")
    assert acknowledge(world, vm_id(world), event.event_id).status == vm
    found = acknowledge(world, world.availability_set_id, event.event_id)
    assert found.status == availability_set


def test_what_is_not_there_is_not_acknowledged() -> None:
    """An unknown event, a VM that it does not name, a VM that does not exist."""
    world = world_of()
    event = world.events.schedule("Reboot", "web-2")
    for target, event_id in (
        (vm_id(world), "E-9"),
        (vm_id(world, "web-1"), event.event_id),
        (vm_id(world).replace("web-2", "web-9"), event.event_id),
    ):
        assert acknowledge(world, target, event_id).status == 404
    assert event.acknowledged_by == []


def test_the_permission_is_needed() -> None:
    """403 names it, before anything about the event is shown."""
    world = world_of()
    world.roles.revoke("web-1", ACTION)
    reply = acknowledge(world, vm_id(world), "E-9")
    assert reply.status == 403
    assert ACTION.encode() in reply.body


def test_other_methods_and_versions_are_refused() -> None:
    """As every resource type refuses them."""
    world = world_of()
    assert acknowledge(world, vm_id(world), "E-1", method="GET").status == 405
    assert acknowledge(world, vm_id(world), "E-1", version="2021-05-01").status == 400
