"""When an agent publishes its presence."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast

import pytest

from controller.agent import presence_sender
from controller.agent.presence_sender import PresenceSender
from controller.core.agent_presence import PERIOD_S, AgentPresence
from controller.errors import ControllerError, Denied, OutcomeUnknown
from tests.support.planner_scenario import at

if TYPE_CHECKING:
    from controller.storage.presence_store import PresenceWriter

FIRST = AgentPresence(vm="web-1", release="1", configuration="c", started_at=at(0), at=at(0))


class Bench:
    """A sender whose clock and storage are the test's."""

    def __init__(self) -> None:
        self.time, self.problem_text = at(0), ""
        self.written: list[AgentPresence] = []
        self.failure: ControllerError | None = None
        self.sender = PresenceSender(
            cast("PresenceWriter", self), FIRST, clock=self, problem=lambda: self.problem_text
        )
        self._looked = asyncio.Event()

    def now(self) -> datetime:
        self._looked.set()
        return self.time

    def monotonic(self) -> float:
        return 0.0

    async def write(self, presence: AgentPresence) -> None:
        if self.failure:
            raise self.failure
        self.written.append(presence)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.sender.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def after(self, seconds: float) -> int:
        """Let time pass and the sender look twice; return how often it has written so far."""
        self.time += timedelta(seconds=seconds)
        for _ in range(2):
            self._looked.clear()
            await self._looked.wait()
        return len(self.written)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(presence_sender, "CHECK_S", 0.0)
    return Bench()


async def test_an_idle_agent_writes_once_in_a_period(bench: Bench) -> None:
    """Thirty writes an hour, and none in between."""
    async with bench.running():
        assert await bench.after(0) == 1
        assert await bench.after(PERIOD_S - 1) == 1
        for hour in range(30):
            assert await bench.after(PERIOD_S) == hour + 2


async def test_a_clock_that_was_ahead_delays_nothing(bench: Bench) -> None:
    """The first poll of the events corrects it. The others would not see the agent until then."""
    bench.time = at(3600)
    async with bench.running():
        assert await bench.after(0) == 1
        assert await bench.after(-3600) == 2
        assert await bench.after(PERIOD_S - 1) == 2


async def test_a_change_is_published_at_once(bench: Bench) -> None:
    """A problem that comes or goes is one; another text of the same problem is none."""
    async with bench.running():
        assert await bench.after(0) == 1
        bench.problem_text = "no pass completed for 31 s"
        assert await bench.after(1) == 2  # at the second check that finds it
        bench.problem_text = "no pass completed for 32 s"
        assert await bench.after(1) == 2
        bench.problem_text = ""
        assert await bench.after(1) == 3
    assert [each.problem for each in bench.written] == ["", "no pass completed for 31 s", ""]


async def test_a_failed_write_is_tried_again(bench: Bench) -> None:
    """Storage that does not answer delays it only."""
    bench.failure = OutcomeUnknown("storage does not answer")
    async with bench.running():
        assert await bench.after(0) == 0
        bench.failure = None
        assert await bench.after(1) == 1


async def test_a_lasting_refusal_is_logged_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A missing permission is one line in the log, not one every ten seconds."""
    bench.failure = Denied("no permission")
    async with bench.running():
        for _ in range(5):
            await bench.after(10)
    assert [each.getMessage() for each in caplog.records] == [
        "the presence of this agent cannot be published: no permission"
    ]


async def test_the_end_is_published(bench: Bench) -> None:
    """So that it can be distinguished from an agent that has died."""
    bench.time = at(50)
    await bench.sender.stopped()
    assert bench.written == [replace(FIRST, at=at(50), stopped_at=at(50))]


async def test_the_end_waits_for_nothing(bench: Bench) -> None:
    """An agent that ends while storage is away ends."""
    bench.failure = OutcomeUnknown("storage does not answer")
    await bench.sender.stopped()
    assert bench.written == []
