"""A blob beside the ledger that operators edit and agents read: drain requests, controls.

An identity with rights on the container writes it without the lease. A write replaces only the
content that its writer has read (`If-Match`). Of two simultaneous writers, the second one reads the
blob again.

A reply without the blob is no proof that it has no content. A reader keeps what it has read; a
writer that has read the blob before creates it again with what it knows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from controller.azure.blob import StateBlob
from controller.core.blob_owner import BlobOwner
from controller.errors import (
    Conflict,
    ContractViolation,
    ControllerError,
    NotFound,
    OutcomeUnknown,
)

TRIES = 5
"""How often a change is applied to the content that another writer has written since."""

C = TypeVar("C")


class EditedBlob(ABC, Generic[C]):
    """The content of one blob.

    Args:
        blob: the blob.
        owner: the set that the content has to belong to.
        nothing: the content of no blob.
    """

    def __init__(self, blob: StateBlob, *, owner: BlobOwner, nothing: C) -> None:
        self._blob, self._owner = blob, owner
        self._etag = ""
        self._refused: tuple[str, ContractViolation] | None = None
        """The ETag of content that cannot be used, and why: megabytes are not read every time."""
        self.content: C = nothing

    @abstractmethod
    def decoded(self, body: bytes) -> C:
        """Return the content; raise ContractViolation, with the remedy, if it cannot be used."""

    @abstractmethod
    def encoded(self, content: C) -> bytes:
        """Return what is written; raise ContractViolation if it is too much."""

    @abstractmethod
    def owned(self, content: C) -> C:
        """Return the content with the name of the set."""

    async def refresh(self) -> bool:
        """Read the blob if it has changed; return whether it has changed.

        Raises:
            NotFound: there is no blob; what was read before is kept.
            ContractViolation: the content is something else; the message contains the fix.
            ControllerError: it could not be read.
        """
        etag = (await self._blob.read_properties()).etag
        if etag == self._etag:
            return False
        if self._refused is not None and self._refused[0] == etag:
            # Raised again, an error would keep the frames of every poll before.
            raise self._refused[1].with_traceback(None)
        content = await self._blob.read()
        try:
            self.content = self.decoded(content.body)
        except ContractViolation as error:
            self._refused = content.etag, error
            raise
        self._etag, self._refused = content.etag, None
        return True

    async def refresh_if_exists(self) -> None:
        """Read the blob if it has changed; if there is none, keep what was read before.

        Raises:
            ContractViolation, ControllerError: as `refresh`.
        """
        with suppress(NotFound):
            await self.refresh()

    async def change(self, edit: Callable[[C], C]) -> C:
        """Apply `edit` to the content of the blob, and return the new content.

        If another writer was faster, `edit` is applied again, to the new content. If there is no
        blob, it is created with what was read before.

        Raises:
            ContractViolation, ControllerError: as `refresh`.
            Conflict: other writers were faster in every attempt.
            OutcomeUnknown: the change may have been written, and it could not be read back.
        """
        wanted: C | None = None
        lost: OutcomeUnknown | None = None
        for _ in range(TRIES):
            try:
                await self.refresh()
            except NotFound:
                self._etag = ""  # the write is refused if a blob exists
            except ControllerError as error:
                if lost is None:
                    raise
                raise self._perhaps_written(error) from error
            if wanted is not None and self.content == wanted:
                return wanted  # the write whose reply was lost
            wanted = edit(self.content)
            if wanted == self.content and self._etag:
                return wanted
            wanted = self.owned(wanted)
            body = self.encoded(wanted)
            try:
                self._etag = await self._blob.replace(body, self._etag)
            except Conflict:
                continue
            except OutcomeUnknown as error:
                lost = error
                continue
            self.content = wanted
            return wanted
        if lost is not None:
            raise self._perhaps_written(lost) from lost
        raise Conflict(
            f"other writers changed the blob {self._blob.url} {TRIES} times in a row: try again"
        )

    def _perhaps_written(self, error: ControllerError) -> OutcomeUnknown:
        """Return the error of a change that may be in the blob."""
        found = OutcomeUnknown(
            f"it is not known whether the blob {self._blob.url} was changed: {error}. See what is "
            "in effect with lb-drain status before you try again",
            retry_after_s=error.retry_after_s,
        )
        found.service = error.service
        return found
