"""What this agent knows of the agents of its set: read on request, for people who look at it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from controller.agent.context import AgentContext
from controller.agent.leader_election import LeaderElection
from controller.agent.reconciler import Reconciler
from controller.agent.standby_view import StandbyView
from controller.core.agent_presence import SeenAgent
from controller.core.azure_names import fold
from controller.storage.presence_store import read_agents

READ_PERIOD_S = 15.0
"""How often the presences are read at most, however many pages are open."""
WAIT_S = 2.0
"""How long an answer waits for a read at most; after that it shows what is known."""


def known_vms(
    at_start: tuple[str, ...],
    reconciler: Reconciler,
    election: LeaderElection | None,
    standby_view: StandbyView | None,
) -> tuple[str, ...]:
    """Return the names of the VMs of the set: instances come and go while an agent runs.

    A leader and a dry run know the newest inventory, a standby that of its open page. Without one
    it is the VMs that were in the set when the agent started.
    """
    if election is None or election.leading:
        reads: Reconciler | None = reconciler
    else:
        reads = standby_view.latest() if standby_view else None
    return tuple(vm.name for vm in reads.cache.vms) if reads and reads.cache.vms else at_start


class AgentsReader:
    """Reads the presence of every agent on request; `run` is a task of the agent.

    Args:
        read: reads them once, and raises nothing.
    """

    def __init__(self, read: Callable[[], Awaitable[tuple[SeenAgent, ...]]]) -> None:
        self._read = read
        self._requested, self._known = asyncio.Event(), asyncio.Event()
        self.agents: tuple[SeenAgent, ...] = ()
        """As last read; empty before the first request."""

    async def refresh(self) -> None:
        """Request a read, and wait a moment for the first one."""
        self._requested.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await self._known.wait()

    async def run(self) -> None:
        """Read on request, until cancelled."""
        while True:
            await self._requested.wait()
            self.agents = _kept(self.agents, await self._read())
            self._known.set()
            await asyncio.sleep(READ_PERIOD_S)
            self._requested.clear()


def _kept(known: tuple[SeenAgent, ...], read: tuple[SeenAgent, ...]) -> tuple[SeenAgent, ...]:
    """Return what was read; where that failed, with the presence as last read."""
    before = {fold(each.vm): each.presence for each in known}
    return tuple(
        replace(each, presence=before.get(fold(each.vm))) if each.problem else each for each in read
    )


def assemble_agents(
    context: AgentContext,
    ledger_name: str,
    reconciler: Reconciler,
    election: LeaderElection | None,
    standby_view: StandbyView | None,
) -> AgentsReader:
    """Return what reads the presence of every agent of the set as it is now."""

    async def read() -> tuple[SeenAgent, ...]:
        vms = known_vms(context.identity.vms, reconciler, election, standby_view)
        return await read_agents(context.azure.state_blob, ledger_name, vms)

    return AgentsReader(read)
