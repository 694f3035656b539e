"""The check of the resource itself while an operation runs."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from controller.azure.http import long_running
from controller.azure.http.long_running import Check
from controller.errors import ControllerError, NotFound, ServiceFault, Throttled

TURNS = 100
"""Turns of the event loop: the check needs one or two for each reply, and no time."""


def body(state: str, etag: str = "new") -> dict[str, Any]:
    return {"etag": etag, "properties": {"provisioningState": state}}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_running, "FIRST_CHECK_S", 0)
    monkeypatch.setattr(long_running, "CHECK_EVERY_S", 0)


async def found(replies: Iterable[dict[str, Any] | ControllerError]) -> Any:
    """Return the body that ends the check; None if these replies do not end it."""
    left = list(replies)

    async def read() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        reply = left.pop(0)
        if isinstance(reply, ControllerError):
            raise reply
        return reply

    check = Check(read=read, shows=lambda each: each["etag"] == "new")
    ends = asyncio.ensure_future(check.wait())
    for _ in range(TURNS):
        await asyncio.sleep(0)
    if ends.done():
        return ends.result()
    ends.cancel()
    return None


async def test_success_after_updating_is_the_end() -> None:
    """S1: the resource proves the end of its operation by leaving the state Updating."""
    end = body("Succeeded")
    assert await found([body("Updating"), body("updating"), end]) is end


@pytest.mark.parametrize(
    "replies",
    [
        [body("Succeeded")] * 5,
        [body("Updating"), body("Succeeded", "old"), body("Succeeded", "old")],
        [body("Updating"), body("Failed")],
        [body("Updating"), {"etag": "new", "properties": {}}],
        [body("Updating"), {"etag": "new"}],
        [body("Updating"), Throttled("busy"), body("Succeeded")],
    ],
    ids=["never updating", "old body", "failed", "no state", "no properties", "throttled"],
)
async def test_nothing_else_is_the_end(replies: list[dict[str, Any] | ControllerError]) -> None:
    """S1: a state that never changed, an old body and a failure prove nothing: Azure decides."""
    assert await found(replies) is None


async def test_a_failed_read_does_not_end_the_check() -> None:
    """A read that fails is repeated with the next check."""
    end = body("Succeeded")
    odd: dict[str, Any] = {"properties": 5}
    assert await found([ServiceFault("503"), body("Updating"), NotFound("404"), odd, end]) is end


NIC = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Network/networkInterfaces/nic"
