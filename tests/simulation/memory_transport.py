"""HTTP in memory: the agents' aiohttp sessions, joined to the simulator's handlers without sockets.

Everything above the socket is real: aiohttp's client and its parser, connection pool and time-outs
on one side, `aiohttp.web.Server` on the other. In between bytes take their time, in order, and a
link can be cut: what was sent arrives when it is whole again, also when the sender has long given
up, as TCP has it. Latencies follow from the seed and from what is sent, not from how often the
loop turned, so that they are the same on every Python.
"""

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Collection
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.client_proto import ResponseHandler

from controller.azure.http.session import SessionOptions, TrafficKind
from controller.simulator.app.server import Handler
from controller.simulator.services.http_values import Service
from tests.simulation.loop import Process, VirtualLoop

SERIAL = "x-simulation-serial"
"""Header in which a request carries its number, put in where its bytes leave the agent."""
APART_S = 1e-6
"""How long after a piece the next one of a connection arrives at the earliest.

Enough for what the first sets off to come to rest. Where a request and the reset of its connection
arrived at once, it would depend on the Python whether the handler had begun: aiohttp starts it
eagerly where tasks can be eager.
"""
METHODS = (b"GET ", b"PUT ", b"POST ", b"HEAD ", b"DELETE ")
SERVICES = {
    TrafficKind.IMDS: Service.IMDS,
    TrafficKind.IDENTITY: Service.IMDS,
    TrafficKind.ARM: Service.ARM,
    TrafficKind.BLOB: Service.BLOB,
}


def unit(*key: object) -> float:
    """Return a number from 0 to 1 that looks random and depends on nothing but `key`."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


@dataclass(frozen=True, slots=True)
class Departure:
    """A request whose first byte leaves an agent now."""

    vm: str
    service: Service
    method: str
    target: str
    """Path and query."""
    head: bytes
    """What left in one piece with it."""
    number: int
    """How many equal requests of this VM went before it."""
    serial: int
    """Its number among all requests of the simulation; it travels with it."""


@dataclass(frozen=True, slots=True)
class Passage:
    """How long a request, and its reply, are on their way, in seconds."""

    out_s: float
    back_s: float


class Wires:
    """All links between agents and services.

    Args:
        handlers: the handler of a service; for IMDS, that of a VM's endpoint.
        leaving: asked about every request that leaves; returns how long it travels, or None when
            the process died over it.
        cut_until: until when, in loop seconds, a link is cut; None while it is whole.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        *,
        handlers: Callable[[Service, str], Handler],
        leaving: Callable[[Departure], Passage | None],
        cut_until: Callable[[str, Service], float | None],
    ) -> None:
        self.loop = loop
        self.leaving, self.cut_until = leaving, cut_until
        self.context = copy_context()
        self.sent: Counter[tuple[str, Service, str, str]] = Counter()
        self.connections = 0
        self.requests = 0
        self.closed = False
        """Whether nothing gets through any more, in either direction."""
        self._handlers = handlers
        self._servers: dict[tuple[Service, str], web.Server] = {}
        self._open: dict[Process, set[_Pair]] = {}

    def sessions(
        self, process: Process, vm: str
    ) -> Callable[[SessionOptions], aiohttp.ClientSession]:
        """Return what builds the sessions of one agent process."""

        def build(options: SessionOptions) -> aiohttp.ClientSession:
            connector = _Connector(self, process, vm, SERVICES[options.traffic])
            return aiohttp.ClientSession(connector=connector, **options.arguments())

        return build

    def server(self, service: Service, vm: str) -> web.Server:
        """Return the HTTP server of a service."""
        key = (service, vm if service is Service.IMDS else "")
        if key not in self._servers:
            handler = self._handlers(*key)
            self._servers[key] = web.Server(
                handler, handler_cancellation=True, access_log=None, loop=self.loop
            )
        return self._servers[key]

    def awaited(self, service: Service, besides: Collection[str] = ()) -> bool:
        """Return whether a living process of another VM still waits for an answer of a service."""
        return any(
            pair.waits and pair.service is service and pair.vm not in besides
            for process, pairs in self._open.items()
            if process.alive  # one that died over a request may have sent another in that instant
            for pair in pairs
        )

    def joined(self, pair: "_Pair") -> None:
        """Keep a connection, to be severed when its process dies."""
        self._open.setdefault(pair.process, set()).add(pair)

    def parted(self, pair: "_Pair") -> None:
        """Forget a connection that ended."""
        self._open.get(pair.process, set()).discard(pair)

    def kill(self, process: Process) -> None:
        """End a process: its connections are reset by its operating system."""
        process.kill()
        for pair in sorted(self._open.pop(process, ()), key=lambda pair: pair.number):
            pair.sever()

    async def close(self) -> None:
        """Shut the servers down."""
        for server in self._servers.values():
            await server.shutdown(0)


class _Connector(aiohttp.BaseConnector):
    """Opens connections of one agent to one service."""

    def __init__(self, wires: Wires, process: Process, vm: str, service: Service) -> None:
        super().__init__(keepalive_timeout=3600)  # it would look at the real clock
        self._wires, self._process = wires, process
        self._vm, self._service = vm, service

    async def _create_connection(
        self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        loop = self._wires.loop
        if self._wires.closed:
            raise aiohttp.ClientConnectorError(req.connection_key, OSError("the play is over"))
        async with asyncio.timeout(timeout.sock_connect):
            while (until := self._wires.cut_until(self._vm, self._service)) is not None:
                await asyncio.sleep(until - loop.time() + 0.001)
        client = ResponseHandler(loop=loop)
        server = self._wires.server(self._service, self._vm)()
        _Pair(self._wires, self._process, self._vm, self._service, client, server)
        return client


class _Pair:
    """One connection: two transports, and what is under way between them."""

    def __init__(
        self,
        wires: Wires,
        process: Process,
        vm: str,
        service: Service,
        client: asyncio.Protocol,
        server: asyncio.Protocol,
    ) -> None:
        wires.connections += 1
        self.number = wires.connections
        self.wires, self.process, self.vm, self.service = wires, process, vm, service
        self.passage = Passage(0.001, 0.001)
        self.waits = False
        """Whether a request has left of which the answer has not begun to arrive."""
        self.client = _End(self, client, process.context, outward=True)
        self.server = _End(self, server, wires.context, outward=False)
        self.client.peer, self.server.peer = self.server, self.client
        wires.joined(self)
        wires.context.run(server.connection_made, self.server)
        client.connection_made(self.client)

    def sever(self) -> None:
        """Reset the connection on behalf of a process that died."""
        self.client.abort()

    def note(self, data: bytes) -> bytes:
        """Look at what leaves the client; return what of it leaves, which is nothing if it died."""
        if not data.startswith(METHODS):
            return data
        line, end, rest = data.partition(b"\r\n")
        method, target, _ = line.decode().split(" ", 2)
        key = (self.vm, self.service, method, target)
        self.wires.requests += 1
        serial = self.wires.requests
        departure = Departure(
            self.vm, self.service, method, target, data, self.wires.sent[key], serial
        )
        self.wires.sent[key] += 1
        passage = self.wires.leaving(departure)
        if passage is None:
            return b""
        self.passage = passage
        self.waits = True
        return line + end + f"{SERIAL}: {serial}".encode() + end + rest


class _End(asyncio.Transport):
    """One end of a connection."""

    peer: "_End"

    def __init__(
        self, pair: _Pair, protocol: asyncio.BaseProtocol, context: Context, *, outward: bool
    ) -> None:
        super().__init__()
        self._pair, self._protocol, self._context, self._outward = pair, protocol, context, outward
        self._loop = pair.wires.loop
        self._closing = False
        self._lost = False
        self._reading = True
        self._waiting: list[bytes] = []
        self._under_way: deque[tuple[float, Callable[[], None]]] = deque()
        self._last_arrival = 0.0

    def write(self, data: Any) -> None:
        data = bytes(data)
        if self._closing or not data or self._pair.wires.closed:
            return
        if self._outward:
            data = self._pair.note(data)
        if data:
            self._send(lambda: self.peer.arrive(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def _send(self, arrive: Callable[[], None]) -> None:
        """Let something happen at the other end, after everything sent before it."""
        passage = self._pair.passage
        travel_s = passage.out_s if self._outward else passage.back_s
        self._last_arrival = max(self._last_arrival + APART_S, self._loop.now + travel_s)
        self._under_way.append((self._last_arrival, arrive))
        if len(self._under_way) == 1:
            self._land_at(self._last_arrival)

    def _land_at(self, when: float) -> None:
        self._loop.call_at(when, self._land, context=self._pair.wires.context)

    def _land(self) -> None:
        until = self._pair.wires.cut_until(self._pair.vm, self._pair.service)
        if until is not None:
            self._land_at(until + 0.001)  # repeated until it gets through
            return
        _, arrive = self._under_way.popleft()
        if self._under_way:
            self._land_at(max(self._under_way[0][0], self._loop.now + APART_S))
        if self._outward:
            arrive()
        else:
            self._loop.call_soon(arrive, context=self.peer._context)

    def arrive(self, data: bytes) -> None:
        """Take bytes in."""
        if self._outward:
            self._pair.waits = False
        if self._lost or self._closing:
            return
        if not self._reading:
            self._waiting.append(data)
            return
        self._protocol.data_received(data)  # type: ignore[attr-defined]

    def end(self) -> None:
        """The other side has said goodbye."""
        if not self._lost and not self._closing:
            self._protocol.eof_received()  # type: ignore[attr-defined]
            self.close()

    def fail(self) -> None:
        """The other side has reset the connection."""
        self._closing = True
        self._lose(ConnectionResetError(104, "Connection reset by peer"))

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._send(self.peer.end)
        self._loop.call_soon(self._lose, None, context=self._context)

    def abort(self) -> None:
        if self._lost:
            return
        self._closing = True
        self._send(self.peer.fail)
        self._loop.call_soon(self._lose, None, context=self._context)

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._pair.wires.parted(self._pair)
            self._protocol.connection_lost(error)

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self._loop.call_soon(self.arrive, data, context=self._context)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever buffered: it is on its way."""
