"""A standby's glance at the lease and the ledger, for its status page: only when asked, and seldom.

A standby has no other use for the ledger before it leads. It reads through a store of its own, so
that what it shows cannot be mistaken for what a leader has opened.
"""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from controller.errors import ControllerError
from controller.home import look_at_lease
from controller.ledger_store import LedgerStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from controller.look import LeaseLook

EVERY_S = 10.0
"""How often the blob is read at most, however many pages are open."""
WAIT_S = 2.0
"""How long an answer waits for a look at most; what is known is shown then."""


class Glance:
    """Reads the lease and the ledger when somebody asks; `run` is a task of the agent."""

    def __init__(self, store: LedgerStore, now: "Callable[[], datetime]") -> None:
        self._store, self._now = store, now
        self._asked, self._tried = asyncio.Event(), asyncio.Event()
        self.look: LeaseLook | None = None
        """The newest; None before the first."""
        self.problem = ""
        """Why the last attempt failed; empty when it did not."""

    def ask(self) -> None:
        """Want a newer look; returns at once."""
        self._asked.set()

    async def fresh(self) -> None:
        """Wait until the newest attempt is young, but not for long."""
        self.ask()
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await self._tried.wait()

    async def run(self) -> None:
        """Read when asked, until cancelled."""
        while True:
            await self._asked.wait()
            try:
                self.look = await look_at_lease(self._store, self._now())
                self.problem = ""
            except ControllerError as error:
                self.problem = str(error)
            self._tried.set()
            await asyncio.sleep(EVERY_S)
            self._asked.clear()
            self._tried.clear()
