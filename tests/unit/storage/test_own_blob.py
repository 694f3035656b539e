"""The blob of one agent: its writer replaces whatever the blob holds."""

from typing import TYPE_CHECKING, Any, cast

import pytest

from controller.errors import Conflict, NotFound
from controller.storage.own_blob import OwnBlob

if TYPE_CHECKING:
    from controller.azure.blob import StateBlob


class StoredBlob:
    """A blob in memory; a write needs the ETag of what is stored, or none for a new blob."""

    def __init__(self) -> None:
        self.body: bytes | None = None
        self.etag = ""

    async def replace(self, body: bytes, etag: str) -> str:
        if self.body is None and etag:
            raise NotFound("there is no blob")
        if etag != self.etag:
            raise Conflict("another writer was faster")
        self.store(body)
        return self.etag

    async def read_properties(self) -> Any:
        if self.body is None:
            raise NotFound("there is no blob")
        return self

    def store(self, body: bytes | None) -> None:
        """Let another writer replace or delete the blob."""
        self.body, self.etag = body, f"{self.etag}+" if body is not None else ""


@pytest.mark.parametrize("meanwhile", [b"of an earlier run", None], ids=["replaced", "deleted"])
@pytest.mark.parametrize("written", [False, True], ids=["first write", "later write"])
async def test_whatever_the_blob_holds_is_replaced(
    meanwhile: bytes | None, *, written: bool
) -> None:
    """An agent that starts again finds the blob of its earlier run; an operator may delete it."""
    stored = StoredBlob()
    own = OwnBlob(cast("StateBlob", stored))
    if written:
        await own.replace(b"1")
    stored.store(meanwhile)
    await own.replace(b"2")
    assert stored.body == b"2"
    await own.replace(b"3")
    assert stored.body == b"3"
