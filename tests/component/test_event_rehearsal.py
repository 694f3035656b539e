"""`lb-drain test event` with real agents: the whole chain, and nothing sent to Azure about it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from controller.agent.inspection import inspect_set
from controller.config.loader import load
from controller.core.planning.actions import Phase
from controller.operator.drain_client import DrainClient, connect
from controller.operator.event_rehearsal import EventRehearsal
from controller.simulator.services.http_values import Service
from tests.support.in_process_set import InProcessSet
from tests.support.patience import PATIENCE_S

OpenClient = Callable[[], AbstractAsyncContextManager[DrainClient]]
LONG_S = 600.0
NOTICE_S, LASTS_S, POLLED_S = 25.0, 5.0, 4.0
"""Far below the lease, and the clock is never moved further than between two polls."""


@pytest.fixture
def clients(bench: InProcessSet, monkeypatch: pytest.MonkeyPatch) -> OpenClient:
    """Return a function that connects on web-1 with short intervals."""
    monkeypatch.setattr("controller.operator.drain_client.LEDGER_INTERVAL_S", 0.05)
    bench.tuning = replace(bench.tuning, drain_requests_poll_s=0.1)
    path = bench.config("web-1")
    bench.settings(path)

    @asynccontextmanager
    async def opened() -> AsyncIterator[DrainClient]:
        settings = load(path, {}).settings
        async with connect(
            settings, environ={}, clock=bench.clock, report=lambda _: None
        ) as client:
            yield client

    return opened


@pytest.fixture
def posted(bench: InProcessSet) -> list[str]:
    """Return what the agents post to the metadata service."""
    found: list[str] = []

    def note(request: Any, _reply: object) -> None:
        if request.service is Service.IMDS and request.method == "POST":
            found.append(request.path)

    bench.server.observers.append(note)
    return found


def steps(bench: InProcessSet) -> list[str]:
    return [line["what"] for line in bench.ledger()["transitions"] if line["what"] != "leads"]


def rehearsal_of(client: DrainClient, notice_s: float = LONG_S) -> EventRehearsal:
    return EventRehearsal(client, event_type="Freeze", notice_s=notice_s, lasts_s=LASTS_S)


async def test_a_test_event_goes_through_the_whole_chain(
    bench: InProcessSet, clients: OpenClient, posted: list[str]
) -> None:
    """Announced, drained, started, completed, judged, restored; never acknowledged."""
    await bench.lead("web-1")
    async with clients() as client, asyncio.timeout(PATIENCE_S):
        run = asyncio.create_task(rehearsal_of(client, NOTICE_S).run(("WEB-2", "web-2")))
        await bench.until("web-2 is out", lambda: "out" in steps(bench))
        while "completed" not in steps(bench):
            bench.clock.ahead_s += POLLED_S
            await bench.requests(2, "scheduledevents")
        (verdict,) = await run
    assert (verdict.vm, verdict.verdict) == ("web-2", "drained")
    assert verdict.event_id.startswith("test-")
    assert bench.inside("web-2") != []
    assert posted == []
    assert steps(bench) == [
        *("announced", "recorded", "out", "started", "completed"),
        *("restoring", "restored", "in service"),
    ]


@pytest.mark.parametrize("vm", ["web-1", "web-2"])
async def test_an_interrupted_test_event_is_cancelled(
    bench: InProcessSet, clients: OpenClient, posted: list[str], vm: str
) -> None:
    """^C ends its requests: the event is gone before it began, and the VM is restored.

    A leader whose own VM the event names has handed over to another agent. Commands on other VMs
    show the event while it is announced.
    """
    await bench.lead("web-1")
    await bench.stand_by("web-2")
    async with clients() as client:
        run = asyncio.create_task(rehearsal_of(client).run((vm,)))
        await bench.until(f"{vm} is out", lambda: "out" in steps(bench))
        assert bench.ledger()["leader"] != vm
        shown = await inspect_set(bench.settings(bench.config("web-3")), {})
        assert [each.event.resources for each in shown.snapshot.seen_events] == [(vm,)]
        assert {each.vm: each.phase for each in shown.plan.phases}[vm] is Phase.OUT
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await bench.until(f"{vm} is back", lambda: "in service" in steps(bench))
    assert "cancelled" in steps(bench)
    [found] = bench.ledger()["verdicts"]
    assert found["verdict"] == "cancelled"
    assert bench.inside(vm) != []
    assert posted == []
