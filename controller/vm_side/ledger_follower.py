"""The ledger as this VM's agent follows it: its own while it leads, else that in the blob.

What any part of the agent reads or writes counts: storage that answers the election is not silent.
"""

import math
from collections.abc import Callable

from controller.azure.blob import StateBlob
from controller.clock import Clock
from controller.core.blob_owner import BlobOwner
from controller.core.ledger import Ledger
from controller.core.ledger_recovery import LedgerCopy, LedgerMemory, is_older
from controller.errors import ContractViolation, ControllerError
from controller.storage.ledger_json import decode_ledger

IN_A_ROW_S = 15.0
"""Requests further apart do not show that storage was silent between them."""


class LedgerFollower:
    """Reads the ledger when asked, with a conditional GET.

    Args:
        blob: the blob of the ledger.
        owner: the set whose ledger it has to be.
        memory: what this agent has read and written.
        leads: returns whether this agent leads, and has opened the ledger: what it has written is
            the newest then.
        clock: monotonic clock.
    """

    def __init__(
        self,
        blob: StateBlob,
        *,
        owner: BlobOwner,
        memory: LedgerMemory,
        leads: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._blob, self._owner, self._clock = blob, owner, clock
        self._memory, self._leads = memory, leads
        self._etag = ""
        self._latest: LedgerCopy | None = None
        self._read: Ledger | None = None
        self._read_at: float | None = None
        self._asked_at = -math.inf
        self._failing_since: float | None = None

    @property
    def ledger(self) -> Ledger | None:
        """The newest durable ledger that is known; None before the first read."""
        self._take_over()
        return self._read

    @property
    def age_s(self) -> float:
        """Seconds since storage last showed the ledger; infinite before."""
        self._take_over()
        if self._read_at is None:
            return float("inf")
        return self._clock.monotonic() - self._read_at

    @property
    def silent_s(self) -> float:
        """For how many seconds storage has shown no ledger, by requests that followed each other.

        0 if the last request succeeded, and while this agent leads.
        """
        self._take_over()
        if self._failing_since is None:
            return 0.0
        return self._clock.monotonic() - self._failing_since

    def _take_over(self) -> None:
        """Keep what this agent has read and written: it knows it when it has lost the lease."""
        latest = self._memory.latest
        if latest is not None and latest is not self._latest:
            self._latest = latest
            self._read_at, self._failing_since = self._clock.monotonic(), None
            if self._read is None or not is_older(latest.ledger, self._read):
                self._read, self._etag = latest.ledger, latest.etag
        if self._leads():
            self._read_at, self._failing_since = self._clock.monotonic(), None

    def is_newest(self, etag: str) -> bool:
        """Return whether the ledger with this ETag was read."""
        return self._leads() or etag == self._etag

    async def refresh(self) -> None:
        """Read the ledger if it has changed. A failure keeps what is known."""
        self._take_over()
        if self._leads():
            return
        sent_at, known = self._clock.monotonic(), self._latest
        if sent_at - self._asked_at > IN_A_ROW_S:
            self._failing_since = None
        self._asked_at = sent_at
        try:
            ledger, etag = await self._new_ledger()
        except ControllerError:
            # A ledger that is lost or garbled is reported by the leader.
            if self._failing_since is None:
                self._failing_since = sent_at
            return
        self._failing_since = None
        if self._memory.latest is not known:
            return  # this agent has read or written a newer one meanwhile
        if ledger is not None:
            self._etag, self._read = etag, ledger
            self._memory.note(ledger, etag)  # this agent may have to continue a lost ledger
            self._latest = self._memory.latest
        self._read_at = sent_at

    async def _new_ledger(self) -> tuple[Ledger | None, str]:
        """Return the ledger with its ETag; None if it has not changed.

        Raises:
            ControllerError: storage does not show a ledger of this set.
        """
        content = await self._blob.read_if_changed(self._etag)
        if content is None:
            return None, self._etag
        ledger = decode_ledger(content.body)
        if problem := self._owner.other_owner(ledger.set_id):
            raise ContractViolation(problem)
        return ledger, content.etag
