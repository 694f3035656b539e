"""What an agent knows of the others: read when a person looks, and not more often than needed."""

import asyncio

import pytest

from controller.agent import agents_reader
from controller.agent.agents_reader import AgentsReader
from controller.core.agent_presence import SeenAgent

SEEN = (SeenAgent(vm="web-1"),)


class Reads:
    """Counts how often the agents were read."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> tuple[SeenAgent, ...]:
        self.count += 1
        return SEEN


async def test_nothing_is_read_until_it_is_wanted() -> None:
    """An agent whose page nobody opens reads no presence."""
    reads = Reads()
    reader = AgentsReader(reads)
    task = asyncio.create_task(reader.run())
    await asyncio.sleep(0)
    assert (reads.count, reader.agents) == (0, ())
    for _ in range(3):
        await reader.refresh()
    assert (reads.count, reader.agents) == (1, SEEN)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_answer_does_not_wait_for_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows what is known, which is nothing here."""
    monkeypatch.setattr(agents_reader, "WAIT_S", 0.0)
    reader = AgentsReader(Reads())
    await reader.refresh()
    assert reader.agents == ()
