"""A blob with one writer: the agent of one VM, which replaces whatever the blob holds."""

from controller.azure.blob import StateBlob
from controller.errors import Conflict, NotFound


class OwnBlob:
    """The blob of one agent, beside the ledger."""

    def __init__(self, blob: StateBlob) -> None:
        self._blob, self._etag = blob, ""

    async def replace(self, body: bytes) -> None:
        """Replace the content.

        Raises:
            ControllerError: it was not written, or perhaps not; write again.
        """
        try:
            self._etag = await self._blob.replace(body, self._etag)
        except (Conflict, NotFound):
            # An earlier run of this agent wrote it, or it was deleted.
            self._etag = await self._present_etag()
            self._etag = await self._blob.replace(body, self._etag)

    async def _present_etag(self) -> str:
        try:
            return (await self._blob.read_properties()).etag
        except NotFound:
            return ""
