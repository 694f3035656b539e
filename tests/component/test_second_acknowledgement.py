"""Real agents that acknowledge through Resource Manager when the metadata service fails."""

from typing import Any

import pytest

from controller.azure.http.session import open_azure
from controller.azure.http.write_guard import WriteGuard
from controller.errors import ControllerError, LeaseLost, Outdated
from controller.simulator.services.faults import Effect
from controller.simulator.services.http_values import Service
from controller.simulator.world.access import ACKNOWLEDGE
from tests.conftest import OpenSet
from tests.support.in_process_set import NEVER_S, InProcessSet

BOTH: dict[str, Any] = {"events": {"acknowledge_through": "imds-then-arm"}}
POSTS: dict[str, Any] = {"method": "POST", "path_contains": "scheduledevents"}
FAILURES = [
    {"status": 500},
    {"status": 429},
    {"effect": Effect.RESET_BEFORE},
    {"status": 403, "body": "no"},
]


def permit(bench: InProcessSet) -> None:
    """Assign the role to every VM of the set."""
    world = bench.world
    for vm in world.peers():
        world.roles.assign(vm.name, ACKNOWLEDGE, f"/subscriptions/{world.subscription}")


def acknowledged(bench: InProcessSet) -> list[str]:
    """Return which VMs have acknowledged."""
    return [str(each.detail["by"]) for each in bench.world.changes("event_acknowledged")]


@pytest.mark.parametrize("failure", FAILURES, ids=str)
async def test_resource_manager_takes_over(bench: InProcessSet, failure: dict[str, Any]) -> None:
    """The event is acknowledged once its VM is out, and the maintenance takes its course."""
    permit(bench)
    bench.fault(Service.IMDS, **POSTS, **failure)
    await bench.lead(overrides=BOTH)
    await bench.announce("web-2")
    await bench.until("acknowledged", lambda: acknowledged(bench) == ["web-1"])
    assert not bench.inside("web-2")
    await bench.until("logged", lambda: bench.logged("through Resource Manager", "INFO"))
    await bench.until("all done", lambda: not bench.ledger()["entries"])
    assert bench.inside("web-2")
    assert bench.ledger()["verdicts"][-1]["verdict"] == "drained"
    assert bench.ledger()["holds"] == []


@pytest.mark.parametrize("under", ["vms", "set"])
async def test_the_set_and_its_vms_are_tried(open_set: OpenSet, under: str) -> None:
    """Azure does not document under which resource it knows an event."""
    async with open_set(settings={"arm_acknowledges_under": under}) as bench:
        permit(bench)
        bench.fault(Service.IMDS, status=500, **POSTS)
        await bench.lead(overrides=BOTH)
        await bench.announce("web-2")
        await bench.until("acknowledged", lambda: acknowledged(bench) == ["web-1"])


async def test_a_refusal_of_the_event_is_not_tried_elsewhere(bench: InProcessSet) -> None:
    """The metadata service answers 404: it works, and the event is none that it knows."""
    permit(bench)
    bench.fault(Service.IMDS, status=404, times=6, **POSTS)
    await bench.lead(overrides=BOTH)
    await bench.announce("web-2", started_s=NEVER_S)
    await bench.until("acknowledged", lambda: acknowledged(bench))
    assert not bench.logged("through Resource Manager")


async def test_it_is_off_by_default(bench: InProcessSet) -> None:
    """Only the metadata service is tried, and the hold states why that fails."""
    permit(bench)
    bench.fault(Service.IMDS, status=500, **POSTS)
    await bench.lead()
    await bench.announce("web-2", started_s=NEVER_S)
    await bench.until("held", lambda: bench.ledger().get("holds"))
    await bench.requests(2, "scheduledevents", "POST")
    assert acknowledged(bench) == []
    (hold,) = bench.ledger()["holds"]
    assert (hold["reason"], "Resource Manager" in hold["message"]) == ("not_acknowledged", False)


async def test_when_both_refuse_the_hold_states_both_and_nothing_is_lost(
    bench: InProcessSet,
) -> None:
    """The identity has no role there. The VM stays out; the event waits for NotBefore."""
    bench.fault(Service.IMDS, status=500, **POSTS)
    await bench.lead(overrides=BOTH)
    await bench.announce("web-2", started_s=NEVER_S)
    await bench.until("held", lambda: bench.ledger().get("holds"))
    (hold,) = bench.ledger()["holds"]
    assert hold["reason"] == "not_acknowledged"
    assert "Microsoft.Maintenance/scheduledevents/acknowledge/action" in hold["message"]
    assert "and through the metadata service: event approval: 500" in hold["message"]
    assert not bench.inside("web-2")
    assert acknowledged(bench) == []
    permit(bench)
    await bench.until("acknowledged", lambda: acknowledged(bench))
    await bench.until("nothing held", lambda: not bench.ledger()["holds"])


@pytest.mark.parametrize("error", [LeaseLost("the lease lapsed"), Outdated("a VM was put back")])
async def test_the_guard_stops_it_before_it_leaves(
    bench: InProcessSet, error: ControllerError
) -> None:
    """Laws S1 and S4 are checked when the connection is open, for each target."""
    permit(bench)
    event = bench.world.events.schedule("Reboot", "web-2")

    def refuse() -> None:
        raise error

    settings, world = bench.settings(bench.config("web-1", BOTH)), bench.world
    targets = (world.availability_set_id, world.vm("web-2").resource_id)
    async with open_azure(settings, bench.clock, {}) as azure:
        with pytest.raises(type(error)):
            await azure.event_acknowledgement.acknowledge(
                event.event_id, targets, WriteGuard(check=refuse)
            )
    assert acknowledged(bench) == []
