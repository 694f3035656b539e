"""Planned maintenance over real sockets: read, started once, refused, and lost on the way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from controller.azure.maintenance import LastResult, MaintenanceState
from controller.azure.session import open_azure
from controller.by_hand import hand as hands_module
from controller.by_hand.hand import Hand
from controller.by_hand.maintenance import WHAT, Maintainer, look
from controller.by_hand.roll import Roller, Untouched
from controller.errors import Denied, NotDone, OutcomeUnknown
from controller.simulator.access import MAINTENANCE
from controller.simulator.faults import Effect
from controller.simulator.wire import Service

from .in_process import Bench

PERFORM = "Microsoft.Compute/virtualMachines/performMaintenance/action"
FOLLOW = "Microsoft.Compute/locations/operations/read"
OpenHand = Callable[[], AbstractAsyncContextManager[Hand]]


@pytest.fixture
def said() -> list[str]:
    """What whoever asks is told."""
    return []


@pytest.fixture
def hands(bench: Bench, said: list[str], monkeypatch: pytest.MonkeyPatch) -> OpenHand:
    """Return what opens a hand on web-1, quick to look, whose identity may start maintenance."""
    for name, value in (("LOOK_S", 0.05), ("AGAIN_S", 0.05), ("UNCHANGED_S", 0.3)):
        monkeypatch.setattr(f"controller.by_hand.maintenance.{name}", value)
    monkeypatch.setattr("controller.by_hand.hand.LOOK_S", 0.05)
    monkeypatch.setattr("controller.request_store.EVERY_S", 0.1)
    settings = bench.settings(bench.config("web-1"))
    bench.world.roles.assign("web-1", MAINTENANCE, f"/subscriptions/{bench.world.subscription}")

    @asynccontextmanager
    async def opened() -> AsyncIterator[Hand]:
        async with hands_module.open_hand(
            settings, environ={}, clock=bench.clock, say=said.append
        ) as hand:
            yield hand

    return opened


def begun(bench: Bench, vm: str = "web-2") -> int:
    """Return how often the maintenance of a VM was begun."""
    return len([c for c in bench.world.changes("maintenance_begun") if c.subject == vm])


def maintainer(hand: Hand, bench: Bench, over_for_s: float = 10.0) -> Maintainer:
    async def well(_vm: str) -> None:
        """Every VM is."""

    vm_ids = {vm.name: vm.resource_id for vm in bench.world.peers()}
    return Maintainer(hand, vm_ids, over_for_s=over_for_s, well=well)


async def maintain(hand: Hand, bench: Bench, **options: Any) -> None:
    """Do to web-2 what a roll does while it is out."""
    task = maintainer(hand, bench, **options).task()
    await task.work("web-2")
    await task.healthy("web-2")


# --- the adapter ---


async def test_every_vm_says_how_it_stands(bench: Bench, hands: OpenHand) -> None:
    """Open, not open yet, and nothing planned, with update domain and windows."""
    bench.world.plan_maintenance("web-2", window_s=3600)
    bench.world.plan_maintenance("web-3", opens_in_s=600, window_s=3600)
    async with hands() as hand:
        found = await look(hand)
    assert [(each.name, each.update_domain, each.state) for each in found] == [
        ("web-2", 1, MaintenanceState.SELF_SERVICE),
        ("web-3", 2, MaintenanceState.SCHEDULED),
        ("web-1", 0, MaintenanceState.NOT_SCHEDULED),
    ]
    window = found[0].self_service
    assert window.opens_at is not None
    assert window.closes_at is not None
    assert (window.closes_at - window.opens_at).total_seconds() == 3600
    assert found[0].scheduled.opens_at == window.closes_at


async def test_an_operation_is_followed_to_its_end(bench: Bench, hands: OpenHand) -> None:
    """The reply has no body, and neither has the last one; then the VM is done."""
    bench.world.plan_maintenance("web-2", down_s=0.3)
    async with hands() as hand:
        await hand.azure.maintenance.perform(bench.world.vm("web-2").resource_id)
        found = await hand.azure.maintenance.status(bench.world.vm("web-2").resource_id)
    assert (found.state, found.last_result) == (MaintenanceState.DONE, LastResult.COMPLETED)
    assert begun(bench) == 1


async def test_what_is_not_allowed_is_refused(bench: Bench, hands: OpenHand) -> None:
    """Azure's own words say why."""
    async with hands() as hand:
        with pytest.raises(NotDone, match=r"OperationNotAllowed .*not eligible"):
            await hand.azure.maintenance.perform(bench.world.vm("web-2").resource_id)


async def test_whoever_may_not_is_told_the_action_and_the_scope(bench: Bench) -> None:
    """The agents' own roles do not allow it."""
    bench.world.plan_maintenance("web-2")
    vm_id = bench.world.vm("web-2").resource_id
    async with open_azure(bench.settings(bench.config("web-1")), bench.clock, {}) as azure:
        with pytest.raises(Denied) as caught:
            await azure.maintenance.perform(vm_id)
    assert (caught.value.action, caught.value.scope) == (PERFORM, vm_id)
    assert begun(bench) == 0


# --- what a roll does to a VM ---


async def test_a_vm_is_maintained_and_found_well(bench: Bench, hands: OpenHand) -> None:
    """Started once; it is over when Compute says that it runs and is done."""
    bench.world.plan_maintenance("web-2", down_s=0.3)
    async with hands() as hand:
        await maintain(hand, bench)
        await maintain(hand, bench)  # as somebody does who goes on after an interruption
    assert begun(bench) == 1
    assert bench.world.vm("web-2").state == "running"


@pytest.mark.parametrize("effect", [Effect.RESET_AFTER, Effect.RESET_BEFORE], ids=str)
async def test_a_reply_that_was_lost_is_not_sent_again(
    bench: Bench, hands: OpenHand, said: list[str], effect: Effect
) -> None:
    """What became of it is seen at the VM; if nothing did, a person decides."""
    bench.world.plan_maintenance("web-2", down_s=0.2)
    bench.fault(Service.ARM, effect, method="POST", path_contains="performMaintenance", times=1)
    async with hands() as hand:
        if effect is Effect.RESET_AFTER:
            await maintain(hand, bench)
        else:
            with pytest.raises(NotDone, match="not known what became of it") as caught:
                await maintain(hand, bench)
            assert not isinstance(caught.value, Untouched)
    assert begun(bench) == (effect is Effect.RESET_AFTER)
    assert any("looking what became of it" in text for text in said)


async def test_an_operation_that_cannot_be_followed_is_seen_at_the_vm(
    bench: Bench, hands: OpenHand
) -> None:
    """Whoever may start it but not follow it, or loses sight of it, still sees how it ends."""
    bench.world.plan_maintenance("web-2", down_s=0.3)
    bench.world.roles.revoke("web-1", FOLLOW)
    async with hands() as hand:
        with pytest.raises(OutcomeUnknown, match="not followed to its end"):
            await hand.azure.maintenance.perform(bench.world.vm("web-2").resource_id)
        await maintain(hand, bench)
    assert begun(bench) == 1


@pytest.mark.parametrize("outcome", ["RetryLater", "MaintenanceAborted"])
async def test_a_failed_attempt_stops_with_what_azure_says(
    bench: Bench, hands: OpenHand, outcome: Any
) -> None:
    """The VM may be half done, so it counts as touched."""
    bench.world.plan_maintenance("web-2", down_s=0.1, outcome=outcome)
    async with hands() as hand:
        with pytest.raises(NotDone, match=f"^Compute says {outcome}: The main") as caught:
            await maintain(hand, bench)
    assert not isinstance(caught.value, Untouched)
    assert begun(bench) == 1


async def test_maintenance_that_was_called_off_is_no_failure(bench: Bench, hands: OpenHand) -> None:
    """Without a plan there is nothing to be done; a window that has closed a person looks at."""
    async with hands() as hand:
        await maintain(hand, bench)
        bench.world.plan_maintenance("web-2", opens_in_s=-100, window_s=50)
        with pytest.raises(NotDone, match="announced, not to be started now") as caught:
            await maintain(hand, bench)
    assert not isinstance(caught.value, Untouched)
    assert begun(bench) == 0


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [(409, "OperationNotAllowed", "not now"), (429, "TooManyRequests", "could not be started")],
)
async def test_a_refusal_leaves_the_vm_untouched(
    bench: Bench, hands: OpenHand, status: int, code: str, told: str
) -> None:
    """Azure says itself that it did not begin."""
    bench.world.plan_maintenance("web-2")
    body = f'{{"error": {{"code": "{code}", "message": "not now"}}}}'
    bench.fault(
        Service.ARM, method="POST", path_contains="performMaintenance", status=status, body=body
    )
    async with hands() as hand:
        with pytest.raises(Untouched, match=told):
            await maintain(hand, bench)
    assert begun(bench) == 0


async def test_what_is_under_way_already_is_waited_for(bench: Bench, hands: OpenHand) -> None:
    """Somebody who goes on after a crash meets the maintenance that was begun before it."""
    bench.world.plan_maintenance("web-2", down_s=0.5)
    bench.world.perform_maintenance("web-2", "somebody")
    async with hands() as hand:
        await maintain(hand, bench)
    assert begun(bench) == 1


async def test_what_somebody_else_begins_meanwhile_is_waited_for(
    bench: Bench, hands: OpenHand, said: list[str]
) -> None:
    """A conflict may be this very maintenance, so the VM decides here, too."""
    bench.world.plan_maintenance("web-2", down_s=0.5)

    def begin(request: Any, _reply: object) -> None:
        if request.path.endswith("/virtualMachines/web-2") and not begun(bench):
            bench.world.perform_maintenance("web-2", "somebody")

    bench.server.observers.append(begin)
    async with hands() as hand:
        await maintain(hand, bench)
    assert begun(bench) == 1
    assert any("409 Conflict" in text for text in said)


async def test_a_vm_that_is_not_seen_done_in_time_is_not_put_back(
    bench: Bench, hands: OpenHand
) -> None:
    """Done by the operation alone is not enough: the VM has to run."""
    bench.world.plan_maintenance("web-2", down_s=0.1)
    async with hands() as hand:
        task = maintainer(hand, bench, over_for_s=0.3).task()
        await task.work("web-2")
        bench.world.set_vm_state("web-2", "stopped")
        with pytest.raises(NotDone, match="it says: not running, done"):
            await task.healthy("web-2")


# --- a roll ---


async def test_a_roll_without_the_right_puts_the_vm_back(
    bench: Bench, hands: OpenHand, said: list[str]
) -> None:
    """Nothing was done to it, so it does not stay out; the message says who may do it."""
    bench.world.plan_maintenance("web-2")
    await bench.lead("web-1")
    async with hands() as hand:
        bench.world.roles.revoke("web-1", PERFORM)
        rolling = Roller(hand, maintainer(hand, bench).task(), for_s=600).begin(("web-2",))
        with pytest.raises(NotDone, match=f"{PERFORM} on .*web-2 is missing.*--availability-set"):
            await rolling
        assert not any("stays out of rotation" in text for text in said)
        await bench.until("web-2 in rotation", lambda: bench.inside("web-2"))


async def test_a_roll_that_died_in_the_midst_of_it_goes_on(
    bench: Bench, hands: OpenHand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The VM that was being maintained is not maintained again."""
    monkeypatch.setattr("controller.by_hand.roll.SILENT_S", 0.3)
    monkeypatch.setattr("controller.by_hand.roll.BEAT_S", 0.1)
    bench.world.plan_maintenance("web-2", "web-3", down_s=0.5)
    await bench.lead("web-1")
    async with hands() as hand, hands() as other:
        first = Roller(hand, maintainer(hand, bench).task(), for_s=600)
        rolling = asyncio.create_task(first.begin(("web-2", "web-3")))
        await bench.until("web-2 down", lambda: begun(bench))
        rolling.cancel()
        await asyncio.gather(rolling, return_exceptions=True)
        await Roller(other, maintainer(other, bench).task(), for_s=600).resume()
        roll = other.requests.requests.roll
    assert roll is not None
    assert (roll.what, roll.done, roll.left) == (WHAT, ("web-2", "web-3"), ())
    assert (begun(bench), begun(bench, "web-3")) == (1, 1)
