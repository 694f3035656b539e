"""The last moment before a write leaves: the fence, and the guard against a second send.

Between the decision to write and its first byte a token may be fetched and a connection opened,
and both can take longer than the lease has left (law S4).
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import aiohttp

from controller.errors import OutcomeUnknown

Fence = Callable[[], None]
"""Raises LeaseLost when the lease could have expired."""
_WRITES = frozenset({"PUT", "POST", "PATCH", "DELETE"})


class Send:
    """Travels with one request down to the socket: the fence, and a guard against a second send.

    aiohttp repeats a PUT by itself when a kept-alive connection breaks under it. The first may
    have had its effect, so the repeat would meet its own new etag, and it would pass the fence
    unseen: a request that writes goes out once.
    """

    __slots__ = ("fence", "method", "sent")

    def __init__(self, method: str, fence: Fence | None) -> None:
        self.method = method
        self.fence = fence
        self.sent = False

    def leave(self) -> None:
        if self.method not in _WRITES:
            return
        if self.sent:
            raise OutcomeUnknown(f"{self.method}: the connection broke after the request was sent")
        if self.fence is not None:
            self.fence()
        self.sent = True


def guard_trace() -> aiohttp.TraceConfig:
    """Return the hook that asks `Send`; every session must be built with it.

    aiohttp calls it with the connection open and the token in the headers, right before the
    first byte of the request leaves.
    """

    async def leave(
        _session: aiohttp.ClientSession,
        context: SimpleNamespace,
        _params: aiohttp.TraceRequestHeadersSentParams,
    ) -> None:
        send = cast("object", context.trace_request_ctx)
        if isinstance(send, Send):
            send.leave()

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(leave)
    return trace
