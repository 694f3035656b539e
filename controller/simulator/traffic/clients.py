"""Clients that send requests, count what they lose, and spare the server nothing.

No client tries again: a request without its answer is lost, also one that was sent on a connection
which had ended without a word.
"""

import asyncio
import random
from collections.abc import Callable

from controller.simulator.traffic.connection import Connection
from controller.simulator.traffic.flow import Endpoint
from controller.simulator.traffic.load import HOLDING, Counts, Kind, Load, Loss, Lost, Tally
from controller.simulator.traffic.sockets import HOST, within

MAX_CATCH_UP = 100
"""Most overdue requests that are sent at once after a stall of the process."""


class _Failed(Exception):
    def __init__(self, reason: Loss, connection: Connection | None) -> None:
        self.reason = reason
        self.connection = connection


class Clients:
    """Sends the load to a port until stopped."""

    def __init__(
        self,
        load: Load,
        backend_of: Callable[[Endpoint], str | None],
        clock: Callable[[], float],
    ) -> None:
        """`backend_of` returns the VM of a client's endpoint; `clock` dates the losses."""
        self._load = load
        self._backend_of = backend_of
        self._clock = clock
        self._random = random.Random(load.seed)  # noqa: S311  (a load, not a secret)
        self._port = 0
        self._open: set[Connection] = set()
        self._requests: set[asyncio.Task[Connection | None]] = set()
        self._senders: list[asyncio.Task[None]] = []
        self._tally = Tally(tuple(kind for kind in Kind if load.mix.get(kind)))

    def start(self, port: int) -> None:
        """Start sending to 127.0.0.1:`port`."""
        self._port = port
        loop = asyncio.get_running_loop()
        for kind in Kind:
            rate_per_s = self._load.rate_of(kind)
            if rate_per_s <= 0:
                continue
            if kind in HOLDING:
                clients = max(1, round(rate_per_s * self._load.pause_s))
                senders = [self._hold(kind, clients / rate_per_s) for _ in range(clients)]
            else:
                senders = [self._send_forever(kind, 1.0 / rate_per_s)]
            self._senders += [loop.create_task(sender) for sender in senders]

    async def stop(self) -> None:
        """Send no more, wait for the answers, which is bounded by their timeout, and hang up."""
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)
        await asyncio.gather(*self._requests)
        for connection in list(self._open):
            connection.hang_up()

    def counts(self) -> Counts:
        """Return the figures up to now."""
        return self._tally.counts()

    async def _send_forever(self, kind: Kind, period_s: float) -> None:
        """Send requests at this rate, however long their answers take."""
        loop = asyncio.get_running_loop()
        due = loop.time() + period_s * self._random.random()
        while True:
            due = max(due, loop.time() - MAX_CATCH_UP * period_s)
            while due <= loop.time():
                due += period_s
                self._start_request(kind, None)
            await asyncio.sleep(due - loop.time())

    async def _hold(self, kind: Kind, pause_s: float) -> None:
        """Be one client that holds a connection, and sends a request after each pause."""
        held: Connection | None = None
        await asyncio.sleep(pause_s * self._random.random())
        while True:
            if held is not None and asyncio.get_running_loop().time() >= held.gives_up_at:
                held.hang_up()
                held = None
            task = self._start_request(kind, held)
            await asyncio.wait({task})  # a cancelled sender leaves its request to `stop`
            held = task.result()
            await asyncio.sleep(pause_s * self._random.uniform(0.5, 1.5))
            if held is not None and held.asked_to_close:
                held = None  # a stream that ended during the pause

    def _start_request(
        self, kind: Kind, held: Connection | None
    ) -> "asyncio.Task[Connection | None]":
        self._tally.sent(kind)
        task = asyncio.get_running_loop().create_task(self._request(kind, held))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)
        return task

    async def _request(self, kind: Kind, held: Connection | None) -> Connection | None:
        """Make one request and count it; return its connection if that can take another one."""
        loop = asyncio.get_running_loop()
        at, started = self._clock(), loop.time()
        try:
            connection, backend = await self._exchange(kind, held)
        except _Failed as failed:
            self._tally.lost(self._lost(kind, at, failed))
            if failed.connection is not None:
                failed.connection.hang_up()
            return None
        self._tally.answered(kind, backend, loop.time() - started)
        if kind in HOLDING and not connection.asked_to_close:
            return connection
        connection.hang_up()
        return None

    async def _exchange(self, kind: Kind, held: Connection | None) -> tuple[Connection, str]:
        """Make one request; return its connection and the backend. Raises `_Failed`."""
        connection = held if held is not None and held.take() else None
        patience_s = self._load.patience_s(kind)
        try:
            if connection is None:
                connection = await within(patience_s, self._connect(kind))
            body = await within(patience_s, self._ask(kind, connection))
        except TimeoutError:
            raise _Failed(Loss.TIMEOUT, connection) from None
        except ConnectionRefusedError:
            raise _Failed(Loss.REFUSED, connection) from None
        except EOFError:
            raise _Failed(Loss.CLOSED, connection) from None
        except OSError:
            raise _Failed(Loss.RESET, connection) from None
        served_by = self._backend_of(connection.endpoint) or connection.backend
        if body is None or (served_by is not None and body != served_by):
            raise _Failed(Loss.WRONG_ANSWER, connection)
        connection.backend = body
        return connection, body

    async def _ask(self, kind: Kind, connection: Connection) -> str | None:
        match kind:
            case Kind.STREAM:
                return await connection.message()
            case Kind.UPLOAD:
                return await connection.upload(self._load.upload_s)
            case Kind.SLOW:
                return await connection.get(f"/slow?{self._load.slow_s}", last=True)
            case _:
                return await connection.get("/", last=kind not in HOLDING)

    async def _connect(self, kind: Kind) -> Connection:
        loop = asyncio.get_running_loop()
        own: tuple[str, int] | None = None
        if self._load.addresses > 1:
            # All of 127.0.0.0/8 is this computer, so every client can have its own address.
            own = f"127.0.0.{self._random.randint(1, self._load.addresses)}", 0
        age_s = self._random.uniform(*self._load.pooled_age_s)
        gives_up_at = loop.time() + age_s if kind is Kind.POOLED else float("inf")
        at = self._clock()
        _, connection = await loop.create_connection(
            lambda: Connection(self._open, gives_up_at), HOST, self._port, local_addr=own
        )
        connection.connected_at = at
        return connection

    def _lost(self, kind: Kind, at: float, failed: _Failed) -> Lost:
        connection = failed.connection
        backend = None
        if connection is not None:
            backend = self._backend_of(connection.endpoint) or connection.backend
        return Lost(
            kind=kind,
            at=at,
            until=self._clock(),
            connected_at=at if connection is None else connection.connected_at,
            reason=failed.reason,
            backend=backend,
        )
