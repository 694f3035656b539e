"""The ledger in its blob: read, opened under a new epoch, written with the lease id and If-Match.

A write whose outcome is unknown, or that met another content, is settled by reading: what the blob
holds is the ledger. A content that is no ledger is never replaced (laws S3, S4, S5).
"""

from dataclasses import replace
from datetime import datetime

from controller.azure.blob import LedgerBlob
from controller.core.ledger import Ledger, decode, encode
from controller.elector import Elector
from controller.errors import Conflict, ContractViolation, LeaseLost, NotFound, OutcomeUnknown


class LedgerStore:
    """The newest durable ledger that this agent knows of."""

    def __init__(self, blob: LedgerBlob) -> None:
        self._blob = blob
        self._etag = ""
        self.ledger = Ledger()
        self.lease_state = "available"
        """As Azure named it when the ledger was read."""

    async def read(self) -> None:
        """Take over what the blob holds; a blob that does not exist holds an empty ledger.

        Raises:
            ContractViolation: it holds no ledger; the message says what to do.
            ControllerError: it could not be read.
        """
        try:
            content = await self._blob.read()
        except NotFound:
            self._etag, self.ledger, self.lease_state = "", Ledger(), "available"
            return
        try:
            ledger = decode(content.body)
        except ContractViolation as error:
            raise ContractViolation(
                f"the blob {self._blob.url} cannot be read as a ledger: {error}. Nothing is "
                "written until it is resolved: download the blob, repair it or, if no VM is out, "
                "delete it; the agents look again every half minute"
            ) from error
        self._etag, self.ledger, self.lease_state = content.etag, ledger, content.lease_state

    async def open(self, elector: Elector, *, vm: str, now: datetime) -> None:
        """Read the ledger and write it back under the next epoch, as every new leader does.

        Raises:
            ContractViolation, ControllerError: as `read`.
            LeaseLost: the lease is not ours any more.
        """
        await self.read()
        opened = replace(self.ledger, epoch=self.ledger.epoch + 1, leader=vm, leader_since=now)
        await self._put(opened.noting(at=now, vm=vm, what="leads"), elector)

    async def write(self, wanted: Ledger, elector: Elector) -> bool:
        """Make `wanted` durable; False when the blob holds something else now, which is adopted.

        Raises:
            ContractViolation, ControllerError: as `read`.
            LeaseLost: the lease is not ours any more, or another leader has opened the ledger.
        """
        epoch = self.ledger.epoch
        try:
            await self._put(wanted, elector)
        except (Conflict, OutcomeUnknown):
            await self.read()
            if self.ledger.epoch != epoch:
                raise LeaseLost("another leader has opened the ledger") from None
        return self.ledger == wanted

    async def _put(self, ledger: Ledger, elector: Elector) -> None:
        if not self._etag:
            raise LeaseLost("the blob of the ledger was deleted, and the lease with it")
        self._etag = await self._blob.write(
            encode(ledger), self._etag, elector.lease_id, elector.fence
        )
        self.ledger = ledger
