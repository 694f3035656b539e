"""What a standby sees of the set, for its status page: VMs, pools and the plan of a leader.

It is read on request, at most once in 10 seconds, and only as far as the planner asks: of an idle
set, an inventory every few minutes. Without an open page nothing is read (law H1). It has a working
state of its own: nothing that it reads or plans reaches the agent's part in a drain.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from controller.agent.operator_blobs import OperatorBlobs
from controller.agent.reconciler import Reconciler

READ_PERIOD_S = 10.0
"""How often is read at most, however many pages are open."""
ROUNDS = 4
"""How often the planner may ask for more within one read: the set, its NICs, their health."""
WAIT_S = 2.0
"""How long an answer waits for a read at most; after that it shows what is known."""
KEPT_FOR = timedelta(seconds=60)
"""What was read before that is not shown any more: the page was closed meanwhile."""


class StandbyView:
    """Reads the set on request; `run` is a task of the agent.

    Args:
        reconciler: of this view alone; it writes nothing.
        operator: drain requests and controls, which a standby does not read otherwise.
        now: wall clock, corrected.
    """

    def __init__(
        self, reconciler: Reconciler, operator: OperatorBlobs, now: Callable[[], datetime]
    ) -> None:
        self._reconciler, self._operator, self._now = reconciler, operator, now
        self._requested, self._attempted = asyncio.Event(), asyncio.Event()
        self._read_at: datetime | None = None
        self._drains: list[object] = []
        """The entries of the ledger, as of the last read."""

    def request(self) -> None:
        """Request a read; returns at once."""
        self._requested.set()

    async def refresh(self) -> None:
        """Request a read, and wait a moment for it."""
        self.request()
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await self._attempted.wait()

    def latest(self) -> Reconciler | None:
        """Return what was read a moment ago; None if nothing was."""
        if self._read_at is None or self._now() - self._read_at > KEPT_FOR:
            return None
        return self._reconciler if self._reconciler.cache.inventory_at is not None else None

    async def run(self) -> None:
        """Read on request, until cancelled."""
        while True:
            await self._requested.wait()
            await self._operator.refresh(no_older_than_s=READ_PERIOD_S)
            self._outdate()
            await self._reconciler.preview(rounds=ROUNDS)
            self._read_at = self._now()
            self._attempted.set()
            await asyncio.sleep(READ_PERIOD_S)
            self._requested.clear()
            self._attempted.clear()

    def _outdate(self) -> None:
        """Let everything be read again if the leader has changed something.

        A leader reads what it has written. Here the writes are those of another agent, and show
        only in the ledger.
        """
        drains: list[object] = [
            (each.vm, each.out_at, each.restored_at) for each in self._reconciler.ledger.entries
        ]
        if drains != self._drains:
            self._reconciler.cache.inventory_at = None
        self._drains = drains
