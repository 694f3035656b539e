"""A service in memory: replies as bytes, from the first header to the last byte of the body.

Everything above the socket is real: aiohttp's parser, azure-core's pipelines, the SDK clients and
our adapters on top of them. Only the connection is not one, and time is not the world's: what
sleeps wakes at once, later by as much as it wanted to sleep.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import aiohttp

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
NEXT_REPLY = b"\n%%%%\n"
"""Between the replies of one script; the first request gets the first of them."""
T = TypeVar("T")


class _Patience(selectors.DefaultSelector):
    """A selector that does not wait: it notes for how long it would have."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("nothing will ever happen: a reply is waited for without a limit")
        self.waited_s += max(0.0, timeout)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._patience = _Patience()
        super().__init__(self._patience)

    def time(self) -> float:
        return self._patience.waited_s


@dataclass
class Clock:
    """The clock of the loop, at a fixed date."""

    loop: asyncio.AbstractEventLoop

    def now(self) -> datetime:
        return START + timedelta(seconds=self.loop.time())

    def monotonic(self) -> float:
        return self.loop.time()


@dataclass(frozen=True)
class Request:
    """What was sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Service:
    """Answers one request after the other, with what the script says, whatever is asked."""

    script: list[bytes] = field(default_factory=list)
    otherwise: bytes = b""
    """The reply beyond the script; empty breaks the connection."""
    received: list[Request] = field(default_factory=list)

    def start(self, script: bytes) -> None:
        """Begin a new conversation."""
        self.script = script.split(NEXT_REPLY)
        self.received = []

    def answer(self, request: Request) -> bytes:
        """Return the next reply."""
        self.received.append(request)
        return self.script.pop(0) if self.script else self.otherwise

    def writes(self) -> list[Request]:
        """Return the requests that change something."""
        return [request for request in self.received if request.method not in {"GET", "HEAD"}]


class _Wire(asyncio.Transport):
    """One connection: reads a whole request, answers it, and hangs up."""

    def __init__(self, protocol: Any, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._protocol, self._service, self._loop = protocol, service, loop
        self._sent = bytearray()
        self._closing = self._answered = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._sent += data
        head, found, body = bytes(self._sent).partition(b"\r\n\r\n")
        if not found or self._answered:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.casefold(): value.strip() for name, _, value in pairs}
        if len(body) < int(headers.get("content-length", 0)):
            return
        self._answered = True
        method, path, _ = first.split(" ", 2)
        reply = self._service.answer(Request(method, path, headers, body))
        self._loop.call_soon(self._hang_up, reply)

    def _hang_up(self, reply: bytes) -> None:
        if not self._closing:
            self._protocol.data_received(reply)
            self.close()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        """Everything has been delivered already."""

    def resume_reading(self) -> None:
        """Everything has been delivered already."""


class _Connector(aiohttp.BaseConnector):
    def __init__(self, service: Service) -> None:
        super().__init__(force_close=True)
        self._service = service

    async def _create_connection(self, *_args: Any) -> Any:
        protocol = self._factory()
        protocol.connection_made(_Wire(protocol, self._service, self._loop))
        return protocol


class Runtime:
    """One event loop for all conversations of a process."""

    def __init__(self) -> None:
        self.loop = _Loop()
        self.clock = Clock(self.loop)

    def session(self, service: Service, **options: Any) -> aiohttp.ClientSession:
        """Return a session that leads to a service; call it inside the loop."""
        return aiohttp.ClientSession(connector=_Connector(service), **options)

    def run(self, act: Callable[[], Awaitable[T]]) -> T:
        """Run to the end; whatever then still goes on is a finding too (law H2)."""

        async def whole() -> T:
            try:
                return await act()
            finally:
                await asyncio.sleep(1)  # connections take a moment to close
                left = asyncio.all_tasks() - {asyncio.current_task()}
                assert not left, left

        return self.loop.run_until_complete(whole())
