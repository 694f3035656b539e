"""The users: an open-loop load that counts what it loses.

Open loop: requests start at their own times, whether or not earlier ones were answered, as those
of many independent users do. No retries. A request is lost when it gets anything but its whole
answer in time. Some requests use a connection of their own; the others share keep-alive
connections, which are given up after a number of requests or at an age, as real clients do.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import cast

from controller.simulator.sockets import HOST

MAX_LOST_KEPT = 10_000
MAX_CATCH_UP = 100
"""After a stall of the process, at most so many overdue requests are sent at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the users do."""

    rate_per_s: float = 100.0
    """Requests per second; 0 for none at all."""
    keep_alive_share: float = 0.5
    """Share of the requests that go over keep-alive connections (0 to 1)."""
    requests_per_connection: int = 20
    connection_age_s: float = 1.0
    """A keep-alive connection takes no new request after this age."""
    timeout_s: float = 2.0
    """A request without its whole answer after this long is lost."""
    seed: int = 1


class Loss(Enum):
    """Why a request was lost."""

    REFUSED = "refused"
    RESET = "reset"
    CLOSED = "closed"
    """The connection ended in good order, before the answer."""
    TIMEOUT = "timeout"
    WRONG_BODY = "wrong_body"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """One lost request. `at`: when sent, epoch seconds. `backend` is None if it got to none."""

    at: float
    reason: Loss
    backend: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the users have seen. Those still waiting make up the rest of `sent`."""

    sent: int
    ok: int
    lost: int
    ok_by_backend: dict[str, int] = field(default_factory=dict[str, int])
    losses: tuple[Lost, ...] = ()
    """The lost requests, oldest first; the first 10,000 of them."""
    latency_max_s: float = 0.0


class _Failed(Exception):
    def __init__(self, reason: Loss, backend: str | None) -> None:
        self.reason = reason
        self.backend = backend


class Clients:
    """Sends the load to a port until stopped."""

    def __init__(
        self,
        load: Load,
        backend_of: Callable[[int], str | None],
        clock: Callable[[], float],
    ) -> None:
        """`backend_of` tells which VM a client port was balanced to; `clock` dates the losses."""
        self._load = load
        self._backend_of = backend_of
        self._clock = clock
        self._random = random.Random(load.seed)  # noqa: S311  (a load, not a secret)
        self._port = 0
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._requests: set[asyncio.Task[None]] = set()
        self._sender: asyncio.Task[None] | None = None
        self._sent = self._ok = self._lost = 0
        self._ok_by_backend: dict[str, int] = {}
        self._losses: list[Lost] = []
        self._latency_max_s = 0.0

    def start(self, port: int) -> None:
        """Start sending to 127.0.0.1:`port`."""
        self._port = port
        if self._load.rate_per_s > 0:
            self._sender = asyncio.get_running_loop().create_task(self._send_forever())

    async def stop(self) -> None:
        """Send no more, wait for the answers, which is bounded by their timeout, and hang up."""
        if self._sender is not None:
            self._sender.cancel()
            with suppress(asyncio.CancelledError):
                await self._sender
        await asyncio.gather(*self._requests)
        for connection in list(self._open):
            connection.hang_up()

    def counts(self) -> Counts:
        """Return the figures up to now."""
        return Counts(
            sent=self._sent,
            ok=self._ok,
            lost=self._lost,
            ok_by_backend=dict(sorted(self._ok_by_backend.items())),
            losses=tuple(self._losses),
            latency_max_s=self._latency_max_s,
        )

    async def _send_forever(self) -> None:
        loop = asyncio.get_running_loop()
        period_s = 1.0 / self._load.rate_per_s
        due = loop.time()
        while True:
            due = max(due, loop.time() - MAX_CATCH_UP * period_s)
            while due <= loop.time():
                due += period_s
                self._sent += 1
                task = loop.create_task(self._one_request())
                self._requests.add(task)
                task.add_done_callback(self._requests.discard)
            await asyncio.sleep(due - loop.time())

    async def _one_request(self) -> None:
        loop = asyncio.get_running_loop()
        at, started = self._clock(), loop.time()
        keep_alive = self._random.random() < self._load.keep_alive_share
        try:
            backend = await self._exchange(keep_alive=keep_alive)
        except _Failed as failed:
            self._lost += 1
            if len(self._losses) < MAX_LOST_KEPT:
                lost = Lost(at=at, reason=failed.reason, backend=failed.backend)
                self._losses.append(lost)
        else:
            self._ok += 1
            self._ok_by_backend[backend] = self._ok_by_backend.get(backend, 0) + 1
            self._latency_max_s = max(self._latency_max_s, loop.time() - started)

    async def _exchange(self, *, keep_alive: bool) -> str:
        """Make one request; return the backend that answered, raise `_Failed` if none did."""
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(self._load.timeout_s):
                connection = self._take_idle() if keep_alive else None
                if connection is None:
                    connection = await self._connect()
                body = await connection.ask(keep_alive=keep_alive)
        except TimeoutError:
            raise self._failed(Loss.TIMEOUT, connection) from None
        except ConnectionRefusedError:
            raise self._failed(Loss.REFUSED, connection) from None
        except EOFError:
            raise self._failed(Loss.CLOSED, connection) from None
        except OSError:
            raise self._failed(Loss.RESET, connection) from None
        served_by = self._backend_of(connection.local_port) or connection.backend
        if body is None or (served_by is not None and body != served_by):
            raise self._failed(Loss.WRONG_BODY, connection)
        connection.backend = body
        if keep_alive:
            self._idle.append(connection)
        else:
            connection.hang_up()
        return body

    def _take_idle(self) -> "_Connection | None":
        """Return the youngest usable keep-alive connection; hang up those that are past it."""
        now = asyncio.get_running_loop().time()
        usable: list[_Connection] = []
        for connection in self._idle:
            worn = connection.requests >= self._load.requests_per_connection
            if worn or now - connection.opened_at > self._load.connection_age_s:
                connection.hang_up()
            elif connection.usable:
                usable.append(connection)
        self._idle = usable
        return usable.pop() if usable else None

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: _Connection(self._open), HOST, self._port
        )
        return connection

    def _failed(self, reason: Loss, connection: "_Connection | None") -> _Failed:
        if connection is None:
            return _Failed(reason, None)
        backend = self._backend_of(connection.local_port) or connection.backend
        connection.hang_up()
        return _Failed(reason, backend)


class _Connection(asyncio.Protocol):
    """A client's connection; one request at a time."""

    def __init__(self, registry: set["_Connection"]) -> None:
        self._registry = registry
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiter: asyncio.Future[str | None] | None = None
        self.local_port = 0
        self.opened_at = 0.0
        self.requests = 0
        self.backend: str | None = None

    @property
    def usable(self) -> bool:
        """Whether the other side has not hung up yet."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._registry.add(self)
        self.local_port = transport.get_extra_info("sockname")[1]
        self.opened_at = asyncio.get_running_loop().time()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = bytes(self._buffer).partition(b"\r\n\r\n")
        if not separator or self._waiter is None or self._waiter.done():
            return
        length = _content_length(head)
        if length is None or not head.startswith(b"HTTP/1.1 200 "):
            self._waiter.set_result(None)
        elif len(body) >= length:
            self._buffer.clear()
            self._waiter.set_result(body.decode("utf-8", "replace"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._registry.discard(self)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(EOFError() if exc is None else ConnectionResetError())

    async def ask(self, *, keep_alive: bool) -> str | None:
        """Send a request; return the body of a good answer, None for any other answer."""
        if self._transport is None:
            raise ConnectionResetError
        self.requests += 1
        self._waiter = asyncio.get_running_loop().create_future()
        fate = b"keep-alive" if keep_alive else b"close"
        self._transport.write(b"GET / HTTP/1.1\r\nHost: app\r\nConnection: %s\r\n\r\n" % fate)
        return await self._waiter

    def hang_up(self) -> None:
        """Close in good order."""
        if self._transport is not None:
            self._transport.close()


def _content_length(head: bytes) -> int | None:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return int(value)
    return None
