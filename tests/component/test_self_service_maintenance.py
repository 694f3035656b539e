"""Planned maintenance over real sockets: read, started once, refused, and lost on the way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from controller.azure.http.session import open_azure
from controller.azure.maintenance import LastResult, MaintenanceState
from controller.errors import Denied, NotDone, OutcomeUnknown
from controller.operator.drain_client import DrainClient, connect
from controller.operator.maintenance import TASK_NAME, SelfServiceMaintenance, read_statuses
from controller.operator.rolling import RollingRunner
from controller.operator.rolling_task import NothingStarted
from controller.simulator.services.faults import Effect
from controller.simulator.services.http_values import Service
from controller.simulator.world.access import MAINTENANCE
from tests.support.in_process_set import InProcessSet
from tests.support.patience import PATIENCE_S

PERFORM = "Microsoft.Compute/virtualMachines/performMaintenance/action"
FOLLOW = "Microsoft.Compute/locations/operations/read"
OpenClient = Callable[[], AbstractAsyncContextManager[DrainClient]]


@pytest.fixture
def reported() -> list[str]:
    """Return what the client reports to its user."""
    return []


@pytest.fixture
def clients(
    bench: InProcessSet, reported: list[str], monkeypatch: pytest.MonkeyPatch
) -> OpenClient:
    """Return a function that connects on web-1 with short intervals and the right to maintain."""
    for name, value in (("STATUS_INTERVAL_S", 0.05), ("RETRY_S", 0.05), ("UNCHANGED_S", 0.3)):
        monkeypatch.setattr(f"controller.operator.maintenance.{name}", value)
    monkeypatch.setattr("controller.operator.drain_client.LEDGER_INTERVAL_S", 0.05)
    bench.tuning = replace(bench.tuning, drain_requests_poll_s=0.1)
    settings = bench.settings(bench.config("web-1"))
    bench.world.roles.assign("web-1", MAINTENANCE, f"/subscriptions/{bench.world.subscription}")

    @asynccontextmanager
    async def opened() -> AsyncIterator[DrainClient]:
        async with connect(
            settings, environ={}, clock=bench.clock, report=reported.append
        ) as client:
            yield client

    return opened


def begun(bench: InProcessSet, vm: str = "web-2") -> int:
    """Return how often the maintenance of a VM was begun."""
    return len([c for c in bench.world.changes("maintenance_begun") if c.subject == vm])


def maintenance_task(
    client: DrainClient, bench: InProcessSet, complete_within_s: float = PATIENCE_S
) -> SelfServiceMaintenance:
    async def wait_until_healthy(_vm: str) -> None:
        """Every VM is."""

    vm_ids = {vm.name: vm.resource_id for vm in bench.world.peers()}
    return SelfServiceMaintenance(
        client, vm_ids, complete_within_s=complete_within_s, wait_until_healthy=wait_until_healthy
    )


async def maintain(client: DrainClient, bench: InProcessSet, **options: Any) -> None:
    """Do to web-2 what a roll does while it is out."""
    task = maintenance_task(client, bench, **options).task()
    await task.work("web-2")
    await task.wait_until_healthy("web-2")


# --- the adapter ---


async def test_every_vm_says_how_it_stands(bench: InProcessSet, clients: OpenClient) -> None:
    """Open, not open yet, and nothing planned, with update domain and windows."""
    bench.world.maintenance.plan("web-2", window_s=3600)
    bench.world.maintenance.plan("web-3", opens_in_s=600, window_s=3600)
    async with clients() as client:
        found = await read_statuses(client)
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


async def test_an_operation_is_followed_to_its_end(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """The reply has no body, and neither has the last one; then the VM is done."""
    bench.world.maintenance.plan("web-2", down_s=0.3)
    async with clients() as client:
        await client.azure.maintenance.perform(bench.world.vm("web-2").resource_id)
        found = await client.azure.maintenance.status(bench.world.vm("web-2").resource_id)
    assert (found.state, found.last_result) == (MaintenanceState.DONE, LastResult.COMPLETED)
    assert begun(bench) == 1


async def test_what_is_not_allowed_is_refused(bench: InProcessSet, clients: OpenClient) -> None:
    """Azure's own words say why."""
    async with clients() as client:
        with pytest.raises(NotDone, match=r"OperationNotAllowed .*not eligible"):
            await client.azure.maintenance.perform(bench.world.vm("web-2").resource_id)


async def test_a_missing_right_is_reported_with_action_and_scope(bench: InProcessSet) -> None:
    """The agents' own roles do not allow it."""
    bench.world.maintenance.plan("web-2")
    vm_id = bench.world.vm("web-2").resource_id
    async with open_azure(bench.settings(bench.config("web-1")), bench.clock, {}) as azure:
        with pytest.raises(Denied) as caught:
            await azure.maintenance.perform(vm_id)
    assert (caught.value.action, caught.value.scope) == (PERFORM, vm_id)
    assert begun(bench) == 0


# --- what a roll does to a VM ---


async def test_a_vm_is_maintained_and_healthy_afterwards(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """Started once; it is over when Compute says that it runs and is done."""
    bench.world.maintenance.plan("web-2", down_s=0.3)
    async with clients() as client:
        await maintain(client, bench)
        await maintain(client, bench)  # as after an interruption
    assert begun(bench) == 1
    assert bench.world.vm("web-2").state == "running"


@pytest.mark.parametrize("effect", [Effect.RESET_AFTER, Effect.RESET_BEFORE], ids=str)
async def test_a_reply_that_was_lost_is_not_sent_again(
    bench: InProcessSet, clients: OpenClient, reported: list[str], effect: Effect
) -> None:
    """What became of it is seen at the VM; if nothing did, a person decides."""
    bench.world.maintenance.plan("web-2", down_s=0.2)
    bench.fault(Service.ARM, effect, method="POST", path_contains="performMaintenance", times=1)
    async with clients() as client:
        if effect is Effect.RESET_AFTER:
            await maintain(client, bench)
        else:
            with pytest.raises(
                NotDone, match="the outcome of the maintenance is unknown"
            ) as caught:
                await maintain(client, bench)
            assert not isinstance(caught.value, NothingStarted)
    assert begun(bench) == (effect is Effect.RESET_AFTER)
    assert any("to find the outcome" in text for text in reported)


async def test_an_operation_that_cannot_be_followed_is_seen_at_the_vm(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """Without the right to follow the operation, the instance view still shows its end."""
    bench.world.maintenance.plan("web-2", down_s=0.3)
    bench.world.roles.revoke("web-1", FOLLOW)
    async with clients() as client:
        with pytest.raises(OutcomeUnknown, match="not followed to its end"):
            await client.azure.maintenance.perform(bench.world.vm("web-2").resource_id)
        await maintain(client, bench)
    assert begun(bench) == 1


@pytest.mark.parametrize("outcome", ["RetryLater", "MaintenanceAborted"])
async def test_a_failed_attempt_stops_with_what_azure_says(
    bench: InProcessSet, clients: OpenClient, outcome: Any
) -> None:
    """The VM may be half done, so it counts as touched."""
    bench.world.maintenance.plan("web-2", down_s=0.1, outcome=outcome)
    async with clients() as client:
        with pytest.raises(NotDone, match=f"^Azure reports {outcome}: The main") as caught:
            await maintain(client, bench)
    assert not isinstance(caught.value, NothingStarted)
    assert begun(bench) == 1


async def test_maintenance_that_was_called_off_is_no_failure(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """Without a plan there is nothing to be done; a window that has closed a person looks at."""
    async with clients() as client:
        await maintain(client, bench)
        bench.world.maintenance.plan("web-2", opens_in_s=-100, window_s=50)
        with pytest.raises(NotDone, match="scheduled, but cannot be started now") as caught:
            await maintain(client, bench)
    assert not isinstance(caught.value, NothingStarted)
    assert begun(bench) == 0


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [(409, "OperationNotAllowed", "not now"), (429, "TooManyRequests", "could not be started")],
)
async def test_a_refusal_leaves_the_vm_untouched(
    bench: InProcessSet, clients: OpenClient, status: int, code: str, message: str
) -> None:
    """Azure says itself that it did not begin."""
    bench.world.maintenance.plan("web-2")
    body = f'{{"error": {{"code": "{code}", "message": "not now"}}}}'
    bench.fault(
        Service.ARM, method="POST", path_contains="performMaintenance", status=status, body=body
    )
    async with clients() as client:
        with pytest.raises(NothingStarted, match=message):
            await maintain(client, bench)
    assert begun(bench) == 0


async def test_what_is_under_way_already_is_waited_for(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """A run that continues after a crash finds the maintenance that was started before it."""
    bench.world.maintenance.plan("web-2", down_s=0.5)
    bench.world.maintenance.perform("web-2", "another user")
    async with clients() as client:
        await maintain(client, bench)
    assert begun(bench) == 1


async def test_maintenance_that_another_user_starts_is_waited_for(
    bench: InProcessSet, clients: OpenClient, reported: list[str]
) -> None:
    """A conflict may be this very maintenance, so the VM decides here, too."""
    bench.world.maintenance.plan("web-2", down_s=600)

    def begin(request: Any, _reply: object) -> None:
        if request.path.endswith("/virtualMachines/web-2") and not begun(bench):
            bench.world.maintenance.perform("web-2", "another user")

    def end(text: str) -> None:
        reported.append(text)
        if "409 Conflict" in text:
            bench.clock.ahead_s += 600

    bench.server.observers.append(begin)
    async with clients() as client:
        client.report = end
        await maintain(client, bench)
    assert begun(bench) == 1
    assert any("409 Conflict" in text for text in reported)


async def test_a_vm_that_is_not_seen_done_in_time_is_not_put_back(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """Done by the operation alone is not enough: the VM has to run."""
    bench.world.maintenance.plan("web-2", down_s=0.1)
    async with clients() as client:
        task = maintenance_task(client, bench, complete_within_s=4).task()
        await task.work("web-2")
        bench.world.set_vm_state("web-2", "stopped")
        with pytest.raises(NotDone, match="Azure reports: not running, done"):
            await task.wait_until_healthy("web-2")


# --- a roll ---


async def test_a_roll_without_the_right_puts_the_vm_back(
    bench: InProcessSet, clients: OpenClient, reported: list[str]
) -> None:
    """Nothing was done to it, so it does not stay out; the message says who may do it."""
    bench.world.maintenance.plan("web-2")
    await bench.lead("web-1")
    async with clients() as client:
        bench.world.roles.revoke("web-1", PERFORM)
        rolling = RollingRunner(client, maintenance_task(client, bench).task(), for_s=600).begin(
            ("web-2",)
        )
        with pytest.raises(NotDone, match=f"{PERFORM} on .*web-2 is missing.*--availability-set"):
            await rolling
        assert not any("stays out of rotation" in text for text in reported)
        await bench.until("web-2 in rotation", lambda: bench.inside("web-2"))


async def test_a_roll_that_died_in_the_midst_of_it_goes_on(
    bench: InProcessSet, clients: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The VM that was being maintained is not maintained again."""
    monkeypatch.setattr("controller.operator.rolling.HEARTBEAT_TIMEOUT_S", 0.3)
    monkeypatch.setattr("controller.operator.rolling.HEARTBEAT_S", 0.1)
    bench.world.maintenance.plan("web-2", "web-3", down_s=0.5)
    await bench.lead("web-1")
    async with clients() as client, clients() as other:
        first = RollingRunner(client, maintenance_task(client, bench).task(), for_s=600)
        rolling = asyncio.create_task(first.begin(("web-2", "web-3")))
        await bench.until("web-2 down", lambda: begun(bench))
        rolling.cancel()
        await asyncio.gather(rolling, return_exceptions=True)
        await RollingRunner(other, maintenance_task(other, bench).task(), for_s=600).resume()
        roll = other.requests.requests.roll
    assert roll is not None
    assert (roll.what, roll.done, roll.remaining) == (TASK_NAME, ("web-2", "web-3"), ())
    assert (begun(bench), begun(bench, "web-3")) == (1, 1)
