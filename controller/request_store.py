"""The requests in their blob beside the ledger: read by the leader, written by hand.

Anybody with rights on the container may write it, without the lease: a write replaces only what its
writer has read (`If-Match`), so of two people at once the second looks again.
"""

import asyncio
import logging
from collections.abc import Callable

from controller.azure.blob import LedgerBlob
from controller.clock import Clock
from controller.core.model import Request
from controller.core.requests import Edit, Requests, decode, encode
from controller.errors import Conflict, ContractViolation, ControllerError, NotFound, OutcomeUnknown
from controller.logs import log

logger = logging.getLogger(__name__)

EVERY_S = 5.0
"""How often a leader looks whether the blob has changed."""
STALE_S = 60.0
"""What was read longer ago says nothing any more: somebody may have asked for more since."""
TRIES = 5
"""How often a change is applied again to what somebody else has written meanwhile."""


def requests_name_of(ledger_name: str) -> str:
    """Return the name of the blob with the requests, from the name of the ledger's."""
    return f"{ledger_name.removesuffix('.json')}.requests.json"


class RequestStore:
    """The requests as their blob holds them."""

    def __init__(self, blob: LedgerBlob) -> None:
        self._blob = blob
        self._etag = ""
        self.requests: Requests = Requests()

    async def refresh(self) -> bool:
        """Read the blob if it has changed; tell whether it had.

        Raises:
            ContractViolation: it holds something else; the message says what to do.
            ControllerError: it could not be read.
        """
        try:
            if (await self._blob.peek()).etag == self._etag:
                return False
            content = await self._blob.read()
        except NotFound:
            changed, self._etag, self.requests = bool(self._etag), "", Requests()
            return changed
        self.requests = self._decoded(content.body)
        self._etag = content.etag
        return True

    async def change(self, edit: Edit) -> Requests:
        """Apply `edit` to what the blob holds, whoever else writes, and return what it holds then.

        Raises:
            ContractViolation, ControllerError: as `refresh`; or others wrote without end.
        """
        wanted: Requests | None = None
        for _ in range(TRIES):
            await self.refresh()
            if wanted is not None and self.requests == wanted:
                return wanted  # the write whose reply was lost
            wanted = edit(self.requests)
            if wanted == self.requests:
                return wanted
            try:
                self._etag = await self._blob.replace(encode(wanted), self._etag)
            except (Conflict, OutcomeUnknown):
                continue
            self.requests = wanted
            return wanted
        raise Conflict(f"the blob {self._blob.url} changes all the time: try again")

    def _decoded(self, body: bytes) -> Requests:
        try:
            return decode(body)
        except ContractViolation as error:
            raise ContractViolation(
                f"the blob {self._blob.url} cannot be read as requests: {error}. VMs that are out "
                "by hand stay out until it is resolved: repair the blob or delete it, which "
                "withdraws all requests"
            ) from error


class RequestWatch:
    """A leader's eye on the requests.

    What was read last counts while the blob cannot be read, for a minute.
    """

    def __init__(
        self,
        store: RequestStore,
        *,
        clock: Clock,
        leading: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self._store, self._clock = store, clock
        self._leading, self._changed = leading, changed
        self._read_at: float | None = None
        self._failing = ""

    @property
    def requests(self) -> tuple[Request, ...] | None:
        """What people asked for; None while that is not known."""
        if self._read_at is None or self._clock.monotonic() - self._read_at > STALE_S:
            return None
        return self._store.requests.requests

    async def run(self) -> None:
        """Look every few seconds while this agent leads, until cancelled."""
        while True:
            if self._leading():
                await self.look(no_older_than_s=0)
            await asyncio.sleep(EVERY_S)

    async def look(self, *, no_older_than_s: float) -> None:
        """Look once, unless the last look is young enough; a failure keeps what is known."""
        now = self._clock.monotonic()
        if self._read_at is not None and now - self._read_at < no_older_than_s:
            return
        try:
            changed = await self._store.refresh()
        except ControllerError as error:
            if type(error).__name__ != self._failing:  # its text may differ every time
                self._failing = type(error).__name__
                message = f"the requests made by hand cannot be read: {error}"
                log(logger, logging.WARNING, message, event="requests", outcome=self._failing)
            return
        first, self._read_at, self._failing = self._read_at is None, now, ""
        if changed or first:
            self._changed()
