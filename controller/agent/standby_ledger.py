"""A standby's cached read of the lease and the ledger, for its status page.

It is read on request, and when its blob has changed, at most once in 10 seconds: a standby that
becomes the leader after storage has lost the ledger continues from what it has read. The cache has
a store of its own: what it shows can never be mistaken for a ledger that a leader has opened.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from controller.core.lease import LEASED
from controller.errors import ControllerError
from controller.observability.logs import log
from controller.status.ledger_view import LeaseStatus, read_lease_status
from controller.storage.ledger_store import LedgerStore

logger = logging.getLogger("lbdrain.agent")

READ_PERIOD_S = 10.0
"""How often the blob is read at most, however many pages are open."""
CONTEST_AGAIN_S = 45.0
"""The shortest time between the first two attempts to end the term of a leader that lacks entries,
in seconds. It doubles with every attempt: another agent may take the lease each time."""
MOST_CONTEST_AGAIN_S = 3600.0
WAIT_S = 2.0
"""How long an answer waits for a read at most; after that it shows what is known."""


class StandbyLedgerCache:
    """Reads the lease and the ledger on request; `run` is a task of the agent.

    Args:
        store: of this cache, and of what plans from it; the agent's part in a drain has another.
        now: wall clock, corrected.
        should_lead: whether nothing keeps this agent from the lease that it would break.
    """

    def __init__(
        self,
        store: LedgerStore,
        now: Callable[[], datetime],
        *,
        should_lead: Callable[[], bool] = lambda: True,
    ) -> None:
        self._now, self._should_lead = now, should_lead
        self.store = store
        """What the ledger is read into."""
        self._requested, self._attempted = asyncio.Event(), asyncio.Event()
        self.latest: LeaseStatus | None = None
        """As last read; None before the first read."""
        self._contest_at: datetime | None = None
        self._contests = 0
        self._listeners: list[Callable[[str], None]] = []
        self.problem = ""
        """Why the last attempt failed; empty when it succeeded."""

    def request(self) -> None:
        """Request a read; returns at once."""
        self._requested.set()

    def on_blob_read(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the ETag of the blob, whenever a reply about its lease shows it."""
        self._listeners.append(listener)

    def blob_read(self, etag: str) -> bool:
        """Request a read if the blob has changed, by the ETag of a reply about its lease.

        Returns whether storage has lost entries that this agent remembers: it should lead next.
        """
        for listener in self._listeners:
            listener(etag)
        if etag != self.store.etag or self.store.has_lost_entries:
            self.request()
        return self.store.has_lost_entries

    async def refresh(self) -> None:
        """Request a read, and wait a moment for it."""
        self.request()
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await self._attempted.wait()

    async def _contest(self) -> None:
        """End the term of a leader that lacks entries which this agent remembers.

        Storage has lost the ledger, and the leader began with an empty one: the VMs of these
        entries would stay out of rotation. The agent that leads next may be this one, so nothing is
        done while this agent should not lead: a healthy leader would only be interrupted.
        """
        now = self._now()
        if not self.store.has_lost_entries:
            self._contests = 0
            return
        early = self._contest_at is not None and now < self._contest_at
        if early or self.store.lease_state != LEASED or not self._should_lead():
            return
        wait_s = min(MOST_CONTEST_AGAIN_S, CONTEST_AGAIN_S * 2.0**self._contests)
        self._contests = min(self._contests + 1, 10)
        self._contest_at = now + timedelta(seconds=wait_s)
        message = (
            "the ledger in storage lacks VMs that are out of rotation: it was deleted or replaced. "
            "This agent remembers them and ends the term of the leader, to lead itself"
        )
        log(logger, logging.ERROR, message, event="ledger_failed", outcome="lost")
        await self.store.break_lease()

    async def run(self) -> None:
        """Read on request, until cancelled."""
        while True:
            await self._requested.wait()
            try:
                self.latest = await read_lease_status(self.store, self._now())
                self.problem = ""
                await self._contest()
            except ControllerError as error:
                self.problem = str(error)
            self._attempted.set()
            await asyncio.sleep(READ_PERIOD_S)
            self._requested.clear()
            self._attempted.clear()
