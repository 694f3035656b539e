"""What other parts of the agent learn from reads of the drain requests."""

from typing import Any

import pytest

from controller.core.drain_requests import DrainRequests
from controller.errors import ControllerError, Denied, NotFound
from controller.storage.drain_request_store import DrainRequestWatch
from tests.support.clocks import StoppedClock


class Store:
    """Drain requests that a read finds, or not."""

    def __init__(self, error: ControllerError | None) -> None:
        self.error, self.requests = error, DrainRequests()

    async def refresh(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("error", "reported"),
    [(None, None), (NotFound("no blob"), None), (Denied("no role"), "no role")],
    ids=["read", "no blob", "denied"],
)
async def test_a_read_shows_whether_storage_answers(
    error: ControllerError | None, reported: str | None
) -> None:
    """L1: a leader that storage refuses yields; a blob that does not exist is an answer."""
    store: Any = Store(error)
    watch = DrainRequestWatch(
        store, clock=StoppedClock(), poll_s=5, leading=lambda: True, changed=lambda: None
    )
    heard: list[ControllerError | None] = []
    watch.on_read(heard.append)
    await watch.refresh(no_older_than_s=0)
    assert [str(each) if each else None for each in heard] == [reported]
