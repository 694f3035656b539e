"""The ledger as this VM's agent follows it: its own while it leads, else that in the blob."""

from collections.abc import Callable

from controller.azure.blob import StateBlob
from controller.clock import Clock
from controller.core.blob_owner import BlobOwner
from controller.core.ledger import Ledger
from controller.errors import ControllerError
from controller.storage.ledger_json import decode_ledger


class LedgerFollower:
    """Reads the ledger when asked, with a conditional GET.

    Args:
        blob: the blob of the ledger.
        owner: the set whose ledger it has to be.
        led: returns the durable ledger while this agent leads, else None.
        clock: monotonic clock.
    """

    def __init__(
        self,
        blob: StateBlob,
        *,
        owner: BlobOwner,
        led: Callable[[], Ledger | None],
        clock: Clock,
    ) -> None:
        self._blob, self._owner, self._led, self._clock = blob, owner, led, clock
        self._etag = ""
        self._read: Ledger | None = None
        self._read_at: float | None = None

    @property
    def ledger(self) -> Ledger | None:
        """The newest durable ledger that is known; None before the first read."""
        self._remember_led()
        return self._read

    @property
    def age_s(self) -> float:
        """Seconds since storage last showed the ledger; infinite before."""
        self._remember_led()
        if self._read_at is None:
            return float("inf")
        return self._clock.monotonic() - self._read_at

    def _remember_led(self) -> None:
        """Keep what this agent leads by: it still knows it when it has lost the lease."""
        led = self._led()
        if led is not None:
            self._read, self._read_at = led, self._clock.monotonic()

    def is_newest(self, etag: str) -> bool:
        """Return whether the ledger with this ETag was read."""
        return self._led() is not None or etag == self._etag

    async def refresh(self) -> None:
        """Read the ledger if it has changed. A failure keeps what is known."""
        self._remember_led()
        if self._led() is not None:
            return
        sent_at = self._clock.monotonic()
        try:
            content = await self._blob.read_if_changed(self._etag)
            if content is not None:
                ledger = decode_ledger(content.body)
                if self._owner.other_owner(ledger.set_id):
                    return
                self._etag, self._read = content.etag, ledger
        except ControllerError:
            return  # a ledger that is lost or garbled is reported by the leader
        self._read_at = sent_at
