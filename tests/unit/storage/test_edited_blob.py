"""What a watch reads of a blob that it cannot use."""

import traceback
from types import SimpleNamespace
from typing import Any

import pytest

from controller.azure.blob import Content
from controller.core.blob_owner import ANY_OWNER
from controller.errors import ContractViolation
from controller.storage.controls_store import ControlsStore


async def test_content_that_cannot_be_used_keeps_no_memory_with_every_poll() -> None:
    """It is not read again, and its error keeps the frames of the last poll alone."""

    async def properties() -> Any:
        return SimpleNamespace(etag="x")

    async def read() -> Content:
        return Content(body=b"{", etag="x", lease_state="available", lease_status="")

    blob: Any = SimpleNamespace(read_properties=properties, read=read, name="controls", url="u")
    store = ControlsStore(blob, owner=ANY_OWNER)
    frames: list[int] = []
    for _ in range(4):
        with pytest.raises(ContractViolation) as caught:
            await store.refresh()
        frames.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert frames[1] == frames[2] == frames[3]
