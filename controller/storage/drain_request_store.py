"""The blob with the drain requests, beside the ledger: operators write it, the leader reads it.

It is edited as every blob of operators is (`edited_blob`).
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from controller.azure.blob import StateBlob
from controller.clock import Clock
from controller.core.azure_names import fold
from controller.core.blob_limits import MAX_REQUESTS_BYTES
from controller.core.blob_owner import ANY_OWNER, BlobOwner
from controller.core.drain_requests import (
    DrainRequest,
    DrainRequests,
    ForgetRequest,
    RollingRun,
    merged,
    rehearsed_events,
)
from controller.core.events import ScheduledEvent
from controller.core.presence import LASTING, UNKNOWN, Existence, Source
from controller.errors import ContractViolation, ControllerError, NotFound
from controller.observability.logs import log
from controller.storage.drain_requests_json import decode_requests, encode_requests
from controller.storage.edited_blob import EditedBlob

logger = logging.getLogger("lbdrain.storage")

STALE_S = 60.0
"""Older knowledge of the requests does not count, in seconds: it can lack newer requests."""


def drain_requests_blob_name(ledger_name: str) -> str:
    """Return the name of the blob with the drain requests, from the name of the ledger's blob."""
    return f"{ledger_name.removesuffix('.json')}.requests.json"


class DrainRequestStore(EditedBlob[DrainRequests]):
    """The drain requests as their blob holds them."""

    def __init__(self, blob: StateBlob, *, owner: BlobOwner = ANY_OWNER) -> None:
        super().__init__(blob, owner=owner, nothing=DrainRequests())

    @property
    def requests(self) -> DrainRequests:
        """The drain requests as last read or written."""
        return self.content

    def owned(self, content: DrainRequests) -> DrainRequests:
        """Return the requests with the name of the set."""
        return replace(content, set_id=content.set_id or fold(self._owner.set_id))

    def encoded(self, content: DrainRequests) -> bytes:
        """Return what is written; raise ContractViolation if it is too much."""
        body = encode_requests(content)
        if len(body) > MAX_REQUESTS_BYTES:
            raise ContractViolation(
                f"the blob {self._blob.url} would have {len(body)} bytes, the limit is "
                f"{MAX_REQUESTS_BYTES}: nothing was changed. Withdraw requests with lb-drain "
                "restore VM --all, or delete the blob"
            )
        return body

    def decoded(self, body: bytes) -> DrainRequests:
        """Return the requests; raise ContractViolation, with the remedy, if there are none."""
        try:
            requests = decode_requests(body)
        except ContractViolation as error:
            raise ContractViolation(
                f"the blob {self._blob.url} cannot be read as drain requests: {error}. Manually "
                "drained VMs stay out until it is resolved: repair the blob or delete it; without "
                "it a VM stays out until its request ends, or until lb-drain restore"
            ) from error
        if other := self._owner.other_owner(requests.set_id):
            raise ContractViolation(f"the drain requests in {self._blob.url} are ignored: {other}")
        return requests


class DrainRequestWatch:
    """Keeps the drain requests of the last read; they are valid for `STALE_S` without another read.

    Args:
        store: the requests in their blob.
        clock: monotonic clock.
        poll_s: seconds between two reads.
        leading: returns whether this agent has to know the requests.
        changed: called when the requests have changed.
    """

    def __init__(
        self,
        store: DrainRequestStore,
        *,
        clock: Clock,
        poll_s: float,
        leading: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self._store, self._clock = store, clock
        self._poll_s, self._leading, self._changed = poll_s, leading, changed
        self._read_at: float | None = None
        self._known: tuple[DrainRequest, ...] = ()
        self._presence = UNKNOWN
        """Whether there is a blob, by the replies of storage."""
        self._failing = ""
        self._listeners: list[Callable[[ControllerError | None], None]] = []

    def on_read(self, listener: Callable[[ControllerError | None], None]) -> None:
        """Call a listener after every read; with the error if storage did not answer it."""
        self._listeners.append(listener)

    def _ended(self, error: ControllerError | None) -> None:
        for listener in self._listeners:
            listener(error)

    @property
    def requests(self) -> tuple[DrainRequest, ...] | None:
        """The drain requests that were read, also if the blob has lost them since.

        None while they are not known: no read has succeeded for a while, and it is not proven that
        there is no blob.
        """
        if self._read_at is None or self._clock.monotonic() - self._read_at > STALE_S:
            return None
        return self._known

    def rehearsed_events(self, now: datetime) -> tuple[ScheduledEvent, ...]:
        """Return the events that only agents see; a standby, which reads no requests, sees none.

        They stay while the blob cannot be read: each ends by itself.
        """
        return rehearsed_events(self._known, now) if self._leading() else ()

    @property
    def roll(self) -> RollingRun | None:
        """The newest rolling run, as last read."""
        return self._store.requests.roll

    @property
    def forgets(self) -> tuple[ForgetRequest, ...]:
        """The requests to forget, as last read: each is about one entry, and never gets old."""
        return self._store.requests.forgets

    async def run(self) -> None:
        """Read the blob every `poll_s` while this agent leads, until cancelled."""
        while True:
            if self._leading():
                await self.refresh(no_older_than_s=0)
            await asyncio.sleep(self._poll_s)

    async def refresh(self, *, no_older_than_s: float) -> None:
        """Read once, unless the last read is recent enough; a failure keeps what is known."""
        sent_at = self._clock.monotonic()
        if self._read_at is not None and sent_at - self._read_at < no_older_than_s:
            return
        try:
            await self._store.refresh()
        except NotFound as error:
            self._ended(None)
            self._replied(Existence.ABSENT)
            if LASTING.holds(self._presence):
                self._adopt((), sent_at)
            if self._known:
                self._failed(
                    "the blob with the drain requests does not exist: no request is withdrawn by "
                    "that, and the next lb-drain drain or restore creates it",
                    error,
                )
        except ControllerError as error:
            self._ended(error)
            self._failed(f"the drain requests cannot be read: {error}", error)
        else:
            self._ended(None)
            self._replied(Existence.PRESENT)
            self._failing = ""
            self._adopt(self._store.requests.requests, sent_at)

    def _replied(self, existence: Existence) -> None:
        at = self._clock.now()
        self._presence = self._presence.after(existence, at=at, source=Source.READ)

    def _adopt(self, read: tuple[DrainRequest, ...], sent_at: float) -> None:
        before, first = self._known, self._read_at is None
        self._known = merged(before, read, self._clock.now())
        self._read_at = sent_at
        if first or self._known != before:
            self._changed()

    def _failed(self, message: str, error: ControllerError) -> None:
        """Log why the blob is not read, once per kind of failure: the text may differ each time."""
        if error.word() != self._failing:
            self._failing = error.word()
            log(
                logger,
                logging.WARNING,
                message,
                event="drain_requests_unreadable",
                outcome=error.word(),
            )
