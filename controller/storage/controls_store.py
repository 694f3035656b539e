"""The blob with the controls of the set, beside the ledger: operators write it, agents read it.

It is edited as every blob of operators is (`edited_blob`). Agents of versions before the controls
do not read it.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from controller.azure.blob import StateBlob
from controller.clock import Clock
from controller.core.azure_names import fold
from controller.core.blob_limits import MAX_CONTROLS_BYTES
from controller.core.blob_owner import ANY_OWNER, BlobOwner
from controller.core.controls import NO_CONTROLS, Controls
from controller.core.presence import LASTING, UNKNOWN, Existence, Source
from controller.errors import TRANSIENT, ContractViolation, ControllerError, NotFound
from controller.observability.logs import log
from controller.storage.controls_json import decode_controls, encode_controls
from controller.storage.edited_blob import EditedBlob

logger = logging.getLogger("lbdrain.storage")

KEPT_S = 3600.0
"""How long controls stay in force that cannot be read any more, in seconds, unless they end."""
PASSING_S = 60.0
"""How long a failure that can pass by itself is no problem yet, in seconds."""
REMEDY = (
    "repair the blob or delete it; without it no control is in force, and every agent works by its "
    "configuration"
)


def controls_blob_name(ledger_name: str) -> str:
    """Return the name of the blob with the controls, from the name of the ledger's blob."""
    return f"{ledger_name.removesuffix('.json')}.controls.json"


class ControlsStore(EditedBlob[Controls]):
    """The controls as their blob holds them."""

    def __init__(self, blob: StateBlob, *, owner: BlobOwner = ANY_OWNER) -> None:
        super().__init__(blob, owner=owner, nothing=NO_CONTROLS)

    def owned(self, content: Controls) -> Controls:
        """Return the controls with the name of the set."""
        return replace(content, set_id=content.set_id or fold(self._owner.set_id))

    def encoded(self, content: Controls) -> bytes:
        """Return what is written; raise ContractViolation if it is too much."""
        body = encode_controls(content)
        if len(body) > MAX_CONTROLS_BYTES:
            raise ContractViolation(
                f"the blob {self._blob.url} would have {len(body)} bytes, the limit is "
                f"{MAX_CONTROLS_BYTES}: nothing was changed. Delete the blob to end every control"
            )
        return body

    def decoded(self, body: bytes) -> Controls:
        """Return the controls; raise ContractViolation, with the remedy, if there are none."""
        try:
            controls = decode_controls(body)
        except ContractViolation as error:
            raise ContractViolation(
                f"the blob {self._blob.url} cannot be read as controls: {error}. To resolve it: "
                f"{REMEDY}"
            ) from error
        if other := self._owner.other_owner(controls.set_id):
            raise ContractViolation(f"the controls in {self._blob.url} are ignored: {other}")
        return controls


class ControlsWatch:
    """Keeps the controls of the last read.

    Controls that cannot be read any more stay in force for `KEPT_S`. A blob that is gone ends them
    as soon as its absence is proven. Before the first good read no control is in force.

    Args:
        store: the controls in their blob.
        clock: wall and monotonic clock.
        poll_s: seconds between two reads.
        leading: returns whether this agent has to know the controls.
        changed: called when the controls have changed.
    """

    def __init__(
        self,
        store: ControlsStore,
        *,
        clock: Clock,
        poll_s: float,
        leading: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self._store, self._clock = store, clock
        self._poll_s, self._leading, self._changed = poll_s, leading, changed
        self._tried_at: float | None = None
        self._read_at: float | None = None
        self._requested = False
        self._known = NO_CONTROLS
        self._presence = UNKNOWN
        """Whether there is a blob, by the replies of storage."""
        self._failure: ControllerError | None = None
        """Why the last read failed."""
        self._reported = ""
        self._listeners: list[Callable[[], None]] = []

    @property
    def controls(self) -> Controls:
        """The controls that are in force."""
        read_at = self._read_at
        if read_at is None or self._clock.monotonic() - read_at > KEPT_S:
            return NO_CONTROLS
        return self._known.in_force(self._clock.now())

    def on_turn(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every read, and regularly: controls end by themselves."""
        self._listeners.append(listener)

    def _turned(self) -> None:
        for listener in self._listeners:
            listener()

    @property
    def problem(self) -> str:
        """Why the controls are not known; empty also for a failure that passes by itself."""
        failure, read_at = self._failure, self._read_at
        if failure is None:
            return ""
        recent = read_at is not None and self._clock.monotonic() - read_at <= PASSING_S
        return "" if recent and isinstance(failure, TRANSIENT) else str(failure)

    async def run(self) -> None:
        """Read the blob every `poll_s` while this agent leads or a read is requested."""
        while True:
            if self._leading() or self._requested:
                self._requested = False
                await self.refresh(no_older_than_s=0)
            self._turned()
            await asyncio.sleep(self._poll_s)

    def request(self) -> None:
        """Read the blob with the next turn of `run`, also as a standby."""
        self._requested = True

    async def refresh(self, *, no_older_than_s: float) -> None:
        """Read once, unless the last attempt is recent enough; a failure keeps what is known."""
        sent_at = self._clock.monotonic()
        if self._tried_at is not None and sent_at - self._tried_at < no_older_than_s:
            return
        self._tried_at = sent_at
        await self._read(sent_at)
        self._turned()

    async def _read(self, sent_at: float) -> None:
        try:
            await self._store.refresh()
        except NotFound:
            self._replied(Existence.ABSENT)
            if self._read_at is None or LASTING.holds(self._presence):
                self._adopt(NO_CONTROLS, sent_at)
            elif self._known == NO_CONTROLS:
                self._read_at = sent_at
            self._recovered()
        except ControllerError as error:
            self._failed(error)
        else:
            self._replied(Existence.PRESENT)
            self._adopt(self._store.content, sent_at)
            self._recovered()

    def _replied(self, existence: Existence) -> None:
        at = self._clock.now()
        self._presence = self._presence.after(existence, at=at, source=Source.READ)

    def _adopt(self, read: Controls, sent_at: float) -> None:
        before, self._known, self._read_at = self._known, read, sent_at
        if read != before:
            self._changed()

    def _recovered(self) -> None:
        if self._failure is not None:
            self._failure, self._reported = None, ""
            self._changed()

    def _failed(self, error: ControllerError) -> None:
        """Log why the blob is not read, once per kind of failure: the text may differ each time."""
        self._failure = error
        if error.word() != self._reported:
            self._reported = error.word()
            self._changed()
            log(
                logger,
                logging.WARNING,
                f"the controls of the set cannot be read: {error}",
                event="controls_unreadable",
                outcome=error.word(),
            )
