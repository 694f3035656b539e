"""A standby that remembers more than storage holds: when it ends the term of the leader."""

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import pytest

from controller.agent.standby_ledger import (
    CONTEST_AGAIN_S,
    MOST_CONTEST_AGAIN_S,
    StandbyLedgerCache,
)
from controller.core.lease import LEASED
from controller.core.ledger import Ledger
from tests.support.planner_scenario import at

if TYPE_CHECKING:
    from controller.storage.ledger_store import LedgerStore


class Store:
    """A ledger blob that another agent leads from; counts how often its lease was broken."""

    etag, ledger, lease_state = "1", Ledger(), LEASED

    def __init__(self) -> None:
        self.has_lost_entries, self.broken = True, 0
        self.was_read = asyncio.Event()

    async def read(self) -> None:
        """Find the same content again; what follows happens before any other task runs."""
        self.was_read.set()

    async def break_lease(self) -> None:
        self.broken += 1


class Standby:
    """A standby on a clock of the test."""

    def __init__(self) -> None:
        self.store, self.now, self.should_lead = Store(), at(0), True
        self._cache = StandbyLedgerCache(
            cast("LedgerStore", self.store),
            lambda: self.now,
            should_lead=lambda: self.should_lead,
        )

    async def look(self, after_s: float = 0.0) -> int:
        """Read the ledger after some seconds; return how often the lease was broken so far."""
        self.now += timedelta(seconds=after_s)
        self.store.was_read.clear()
        self._cache.request()
        task = asyncio.create_task(self._cache.run())
        await self.store.was_read.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return self.store.broken


@pytest.fixture
def standby() -> Standby:
    """Return a standby that remembers an entry which storage has lost."""
    return Standby()


async def test_a_leader_without_the_entries_is_ended(standby: Standby) -> None:
    """L1: the agent that remembers them may lead next."""
    assert await standby.look() == 1


async def test_an_agent_that_should_not_lead_ends_no_term(standby: Standby) -> None:
    """The same leader would take the lease again, with the same ledger."""
    standby.should_lead = False
    assert await standby.look() == 0
    standby.should_lead = True
    assert await standby.look() == 1


async def test_a_leader_with_the_entries_is_left_alone(standby: Standby) -> None:
    """S4: a healthy leader that knows as much keeps its lease."""
    standby.store.has_lost_entries = False
    assert await standby.look() == 0


async def test_a_leader_that_takes_the_lease_again_is_interrupted_ever_more_rarely(
    standby: Standby,
) -> None:
    """It leads: an interruption every 45 s would keep it from its work."""
    assert await standby.look() == 1
    assert await standby.look(CONTEST_AGAIN_S - 1) == 1
    assert await standby.look(1) == 2
    assert await standby.look(CONTEST_AGAIN_S) == 2
    assert await standby.look(CONTEST_AGAIN_S) == 3
    for _ in range(12):
        await standby.look(MOST_CONTEST_AGAIN_S)
    assert await standby.look(MOST_CONTEST_AGAIN_S - 1) == 15
    assert await standby.look(1) == 16
