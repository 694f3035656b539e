"""The web server on a simulated VM: real sockets that live, stop and die with the VM."""

import asyncio
from enum import Enum
from typing import cast

from controller.simulator.sockets import HOST, reset

MAX_REQUEST_BYTES = 16 * 1024


class VmHealth(Enum):
    """What the sockets of a VM do."""

    SERVING = "serving"
    FROZEN = "frozen"
    """Paused: the kernel still completes handshakes, nobody reads."""
    DOWN = "down"
    """No listener, no connections."""


class Backend:
    """One VM's server.

    It listens on another port after a reboot: while it was down its old one was free for anybody.
    """

    def __init__(self, vm: str, service_time_s: float) -> None:
        self.vm = vm
        self.service_time_s = service_time_s
        self.health = VmHealth.DOWN
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self.port: int | None = None
        """Where it listens; None while the VM is down."""

    async def start(self) -> None:
        """Listen for the first time."""
        await self._listen()
        self.health = VmHealth.SERVING

    async def stop(self) -> None:
        """Close everything."""
        self._close()

    async def become(self, health: VmHealth) -> None:
        """Follow the VM."""
        if health is self.health:
            return
        before, self.health = self.health, health
        if health is VmHealth.DOWN:
            self._close()
            return
        if before is VmHealth.DOWN:
            await self._listen()
        for connection in list(self.connections):
            connection.freeze(frozen=health is VmHealth.FROZEN)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), HOST, 0, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = self.port = None
        for connection in list(self.connections):
            connection.abort()


class Connection(asyncio.Protocol):
    """One connection: requests in, one at a time, the VM's name out."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._due: bytes | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._backend.connections.add(self)
        if self._backend.health is VmHealth.FROZEN:
            self._transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > MAX_REQUEST_BYTES:
            self.abort()
            return
        self._next_request()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        self._transport = None
        self._backend.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def abort(self) -> None:
        """Reset the connection."""
        if self._transport is not None:
            reset(self._transport)

    def freeze(self, *, frozen: bool) -> None:
        """Stop, or go on where it stopped: an answer that fell due meanwhile is sent now."""
        if self._transport is None or self._transport.is_closing():
            return
        if frozen:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
            self._answer()

    def _next_request(self) -> None:
        """Take one whole request from the buffer, unless one is being served."""
        if self._timer is not None:
            return
        head, separator, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if not separator:
            return
        self._buffer = bytearray(rest)
        close = b"connection: close" in head.lower()
        is_probe = head.startswith(b"GET /healthz ")
        self._timer = asyncio.get_running_loop().call_later(
            0 if is_probe else self._backend.service_time_s, self._served, close
        )

    def _served(self, close: bool) -> None:
        name = self._backend.vm.encode()
        fate = b"close" if close else b"keep-alive"
        self._due = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n%s" % (
            len(name),
            fate,
            name,
        )
        if self._backend.health is VmHealth.SERVING:
            self._answer()

    def _answer(self) -> None:
        if self._due is None or self._transport is None:
            return
        closing = b"Connection: close" in self._due
        self._transport.write(self._due)
        self._due = self._timer = None
        if closing:
            self._transport.close()
        else:
            self._next_request()
