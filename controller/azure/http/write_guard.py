"""The check right before a write is sent: the write guard, and a bar to sending twice.

Between the decision to write and its first byte, the client may get a token and open a connection.
Both can take longer than the lease has left (law S4).
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import aiohttp

from controller.errors import OutcomeUnknown

_WRITES = frozenset({"PUT", "POST", "PATCH", "DELETE"})


def _record_nothing() -> None:
    """The write needs no record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteGuard:
    """Guards one write: a check, and separate records that it was sent and accepted."""

    check: Callable[[], None]
    """Raises to stop the write (LeaseLost, Conflict). Changes nothing."""
    sent: Callable[[], None] = _record_nothing
    """Records that the write is sent now. Called once, right after the check has passed."""
    accepted: Callable[[], None] = _record_nothing
    """Records that Azure has accepted the write; its operation may not have ended."""


class GuardedWrite:
    """The guard of one request, and a bar to sending the request twice.

    aiohttp repeats a PUT automatically when a kept-alive connection breaks. The first PUT may have
    taken effect, so the second one would fail on the new etag; and the guard would not check it.
    """

    __slots__ = ("guard", "method", "sent")

    def __init__(self, method: str, guard: WriteGuard | None) -> None:
        self.method = method
        self.guard = guard
        self.sent = False

    def before_send(self) -> None:
        """Check and record the write, right before its first byte is sent.

        Raises:
            OutcomeUnknown: the request was sent before.
            ControllerError: the guard stops the write.
        """
        if self.method not in _WRITES:
            return
        if self.sent:
            raise OutcomeUnknown(f"{self.method}: the connection broke after the request was sent")
        if self.guard is not None:
            self.guard.check()
        self.sent = True
        if self.guard is not None:
            self.guard.sent()


def write_guard_trace() -> aiohttp.TraceConfig:
    """Return the hook that calls `GuardedWrite.before_send`; every session must be built with it.

    aiohttp calls it when the connection is open and the headers have the token, right before it
    sends the first byte of the request.
    """

    async def before_headers(
        _session: aiohttp.ClientSession,
        context: SimpleNamespace,
        _params: aiohttp.TraceRequestHeadersSentParams,
    ) -> None:
        write = cast("object", context.trace_request_ctx)
        if isinstance(write, GuardedWrite):
            write.before_send()

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(before_headers)
    return trace
