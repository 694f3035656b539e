"""A TCP proxy between one agent and one service, which misbehaves on request.

It passes bytes and understands none of them, TLS included. Everything is on 127.0.0.1 and runs in
the caller's event loop. What a network does to connections, and nothing else, is modelled:

- `REFUSED`: connections are reset, the present ones and those to come.
- `STALLED`: nothing arrives in either direction. When it is over everything arrives late, in
  order, even if its sender has died meanwhile, as retransmissions do.
- `DEAF`: requests arrive and their replies never do; connections are reset when it is over.
"""

import asyncio
from enum import Enum
from typing import cast

from controller.simulator.traffic.sockets import HOST, reset

MOST_HELD_BYTES = 4 * 1024 * 1024
"""A connection that holds back more is reset; requests and replies are far smaller."""


class Network(Enum):
    """What becomes of what is sent."""

    CLEAR = "clear"
    REFUSED = "refused"
    STALLED = "stalled"
    DEAF = "deaf"


class Proxy:
    """One listener, and the connections it relays to a port of a service."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections: set[_Connection] = set()
        self.network = Network.CLEAR

    @property
    def port(self) -> int:
        """Where agents connect to, once started."""
        if self._server is None:
            raise RuntimeError("the proxy has not been started")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Listen on a free port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self).client, HOST, 0)

    async def stop(self) -> None:
        """Stop listening and reset what there is."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def become(self, network: Network) -> None:
        """Change the network, for connections that stand and those to come."""
        self.network = network
        for connection in list(self.connections):
            connection.follow()

    def connect(self, connection: "_Connection") -> None:
        """Connect a client's connection to the service."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(connection.connect(self._target_port))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Connection:
    """The client's end and the service's end of one connection."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._lost_a_reply = False
        self.client = _End(self)
        self.service = _End(self)

    async def connect(self, port: int) -> None:
        """Reach the service; the client sees a reset when that fails."""
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.service, HOST, port)
        except OSError:
            self.reset()

    def opened(self, end: "_End") -> None:
        """An end stands."""
        if end is self.client:
            self._proxy.connections.add(self)
            if self._proxy.network is Network.REFUSED:
                self.reset()
            else:
                self._proxy.connect(self)
        else:
            self.follow()

    def arrived(self, end: "_End", data: bytes) -> None:
        """One end sent something: pass it on, hold it back, or lose it."""
        if end is self.service and self._proxy.network is Network.DEAF:
            self._lost_a_reply = True
            return
        end.held += data
        if len(end.held) > MOST_HELD_BYTES:
            self.reset()
        self.follow()

    def follow(self) -> None:
        """Do with the connection what the network does now."""
        if self._proxy.network is Network.REFUSED or (
            self._lost_a_reply and self._proxy.network is not Network.DEAF
        ):
            self.reset()
        elif self._proxy.network is not Network.STALLED:
            self._pass_on(self.client, self.service)
            self._pass_on(self.service, self.client)

    def _pass_on(self, source: "_End", sink: "_End") -> None:
        if sink.transport is not None and not sink.over:
            sink.transport.write(bytes(source.held))
            source.held.clear()
            if source.over and source.broken and source is self.service:
                reset(sink.transport)
            elif source.over:
                sink.transport.close()
        if self.client.over and (self.service.over or self.service.transport is None):
            self._proxy.connections.discard(self)

    def reset(self) -> None:
        """Reset both ends."""
        for end in (self.client, self.service):
            if end.transport is not None:
                reset(end.transport)
            end.over = True
        self._proxy.connections.discard(self)


class _End(asyncio.Protocol):
    """One end of a connection."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.transport: asyncio.Transport | None = None
        self.held = bytearray()
        """What it has sent and the other end has not got yet."""
        self.over = self.broken = False
        """Whether it has ended, and whether by a reset."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self.over:
            reset(self.transport)
        else:
            self._connection.opened(self)

    def data_received(self, data: bytes) -> None:
        self._connection.arrived(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.over, self.broken = True, exc is not None
        self._connection.follow()
