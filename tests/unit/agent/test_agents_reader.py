"""What an agent knows of the others: read when a person looks, and not more often than needed."""

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from controller.agent import agents_reader
from controller.agent.agents_reader import AgentsReader, known_vms
from controller.core.agent_presence import AgentPresence, SeenAgent
from tests.support.planner_scenario import at

if TYPE_CHECKING:
    from controller.agent.leader_election import LeaderElection
    from controller.agent.reconciler import Reconciler
    from controller.agent.standby_view import StandbyView

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


async def test_what_was_known_stays_while_storage_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason why it may be old."""
    monkeypatch.setattr(agents_reader, "READ_PERIOD_S", 0.0)
    presence = AgentPresence(vm="web-1", release="1", configuration="c", started_at=at(0), at=at(0))
    answers = [
        (SeenAgent(vm="web-1", presence=presence), SeenAgent(vm="web-2")),
        (SeenAgent(vm="WEB-1", problem="503"), SeenAgent(vm="web-2", problem="503")),
    ]
    read_all = asyncio.Event()

    async def read() -> tuple[SeenAgent, ...]:
        if len(answers) == 1:
            read_all.set()
            return answers[0]
        return answers.pop(0)

    reader = AgentsReader(read)
    task = asyncio.create_task(reader.run())
    await reader.refresh()
    assert [each.problem for each in reader.agents] == ["", ""]
    while not read_all.is_set():
        await reader.refresh()
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [(each.presence, each.problem) for each in reader.agents] == [
        (presence, "503"),
        (None, "503"),
    ]


@pytest.mark.parametrize("role", ["dry run", "leader", "standby", "no open page", "not read yet"])
def test_the_vms_of_the_set_are_those_of_the_newest_inventory(role: str) -> None:
    """A deleted instance has no agent that could run, and a new one has."""
    now = SimpleNamespace(cache=SimpleNamespace(vms=(SimpleNamespace(name="web-3"),)))
    nothing = SimpleNamespace(cache=SimpleNamespace(vms=()))
    leads = role == "leader"
    own = now if role in ("leader", "dry run") else nothing
    view = SimpleNamespace(latest=lambda: now if role == "standby" else None)
    election = None if role == "dry run" else SimpleNamespace(leading=leads)
    found = known_vms(
        ("web-1", "web-2"),
        cast("Reconciler", own),
        cast("LeaderElection | None", election),
        cast("StandbyView", view),
    )
    current = role in ("leader", "dry run", "standby")
    assert found == (("web-3",) if current else ("web-1", "web-2"))
