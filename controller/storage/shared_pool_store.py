"""The blobs in which availability sets that share a pool state what they take out of it.

A blob is written without a lease: each set has a leader of its own. A write replaces only the
content that its writer has read (`If-Match`), and leaves under the lease of its own set (law S4).
"""

from collections.abc import Callable

from controller.azure.blob import StateBlob
from controller.azure.http.write_guard import WriteGuard
from controller.clock import Clock
from controller.core.azure_names import fold
from controller.core.planning.actions import PublishShare
from controller.core.shared_pools import PoolShares, SharedPool
from controller.errors import ContractViolation, NotFound
from controller.storage.shared_pool_json import decode_shares, encode_shares


def shared_pool_blob_name(pool_id: str) -> str:
    """Return the name of the blob of a pool: its folded id, as a path."""
    parts = fold(pool_id).strip("/").split("/")
    return f"pools/{'/'.join(parts[1::2])}.json"


class SharedPoolStore:
    """The shares in the pools of one set.

    Args:
        blob_of: returns the client of the blob with this name.
        availability_set_id: the set of this agent.
        clock: wall clock, corrected.
    """

    def __init__(
        self, blob_of: Callable[[str], StateBlob], *, availability_set_id: str, clock: Clock
    ) -> None:
        self._blob_of, self._set_id, self._clock = blob_of, availability_set_id, clock

    async def read(self, pool_id: str) -> SharedPool:
        """Return what the sets state about a pool; without a blob, nothing.

        Raises:
            ContractViolation: the content is something else; the message contains the fix.
            ControllerError: it could not be read.
        """
        blob = self._blob_of(shared_pool_blob_name(pool_id))
        try:
            content = await blob.read()
        except NotFound:
            return self._view(PoolShares(pool_id=pool_id), etag="")
        try:
            shares = decode_shares(content.body, pool_id)
        except ContractViolation as error:
            raise ContractViolation(
                f"the blob {blob.url} does not state what leaves the pool: {error}. "
                "Delete it: every set writes its part again"
            ) from error
        return self._view(shares, etag=content.etag)

    async def publish(self, action: PublishShare, guard: WriteGuard) -> SharedPool:
        """Write the content, if the blob did not change since it was read; return the new view.

        Raises:
            ContractViolation: no set could read it; the message contains the fix.
            Conflict: another set was faster; read the blob again.
            ControllerError: its class shows whether the write may have happened.
        """
        blob = self._blob_of(shared_pool_blob_name(action.pool_id))
        body = encode_shares(action.shares)
        try:
            decode_shares(body, action.pool_id)
        except ContractViolation as error:
            raise ContractViolation(
                f"the blob {blob.url} has no room for this set: {error}. Delete it: every set that "
                "exists writes its part again"
            ) from error
        etag = await blob.replace(body, action.etag, guard)
        return self._view(action.shares, etag=etag)

    def _view(self, shares: PoolShares, *, etag: str) -> SharedPool:
        return SharedPool(
            shares=shares,
            availability_set_id=self._set_id,
            etag=etag,
            observed_at=self._clock.now(),
        )
