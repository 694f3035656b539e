"""The web server on a simulated VM: real sockets that live, stop and die with the VM.

It answers every request with the name of its VM. `GET /slow?<seconds>` takes this long, `/stream`
turns the connection into a stream, `/healthz` is the health page.

A closed application asks for no further work and goes on answering: each answer is the last one on
its connection, its streams are asked to end, and the health page can answer 503.
"""

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import cast

from controller.simulator.traffic.messages import (
    CLOSE_LINE,
    Message,
    answer,
    split_message,
    switching_protocols,
)
from controller.simulator.traffic.sockets import HOST, reset

MAX_REQUEST_BYTES = 16 * 1024
HEALTH_PAGE = "/healthz"


class VmHealth(Enum):
    """What the sockets of a VM do."""

    SERVING = "serving"
    FROZEN = "frozen"
    """Paused: the kernel still completes handshakes, but no process reads."""
    DOWN = "down"
    """No listener, no connections."""


@dataclass(frozen=True, slots=True)
class Application:
    """What the application on a VM does while the VM runs."""

    closed: bool = False
    """Whether each answer is the last one on its connection."""
    ends_streams: bool = False
    """Whether it asks the clients of its streams to end them."""
    healthy: bool = True
    """Whether the health page answers 200, not 503."""


class Backend:
    """One VM's server.

    It listens on the same port after a reboot, because its agent counts the connections there;
    should another process have taken it meanwhile, on another one.
    """

    def __init__(self, vm: str, service_time_s: float, service_port: int = 0) -> None:
        self.vm = vm
        self.service_port = service_port
        """Where it listens while the VM runs; 0 until the first time."""
        self.service_time_s = service_time_s
        self.health = VmHealth.DOWN
        self.application = Application()
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

    def follow(self, application: Application) -> None:
        """Follow the application. A frozen VM changes nothing; the owner calls this again."""
        if self.health is VmHealth.FROZEN or application == self.application:
            return
        self.application = application
        for connection in list(self.connections):
            connection.application_changed()

    async def _listen(self) -> None:
        try:
            self._server = await self._listen_on(self.service_port)
        except OSError:
            self._server = await self._listen_on(0)
        self.port = self.service_port = self._server.sockets[0].getsockname()[1]

    async def _listen_on(self, port: int) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: Connection(self), HOST, port, backlog=512)

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = self.port = None
        for connection in list(self.connections):
            connection.abort()


class Connection(asyncio.Protocol):
    """One connection: requests in, one at a time, the VM's name out; or a stream of lines."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None
        self._due: Message | None = None
        """The request whose answer is due, but for a freeze."""
        self._streams = False
        self._asked_to_close = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._backend.connections.add(self)
        if self._backend.health is VmHealth.FROZEN:
            self._transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > MAX_REQUEST_BYTES:
            self.abort()
        else:
            self._next()

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
        """Pause or resume. A reply that became due during the pause is sent now."""
        if self._transport is None or self._transport.is_closing():
            return
        if frozen:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
            self._answer()

    def application_changed(self) -> None:
        """Ask the client of a stream to end it, if the application wants that now."""
        application = self._backend.application
        if self._streams and application.closed and application.ends_streams:
            self._ask_to_close()

    def _next(self) -> None:
        """Take one whole request from the buffer, unless one is being served."""
        if self._streams:
            self._answer_lines()
            return
        found = None if self._timer is not None else split_message(self._buffer)
        if found is None:
            return
        request, self._buffer = found
        delay_s = _own_delay_s(request)
        self._timer = asyncio.get_running_loop().call_later(
            self._backend.service_time_s if delay_s is None else delay_s, self._served, request
        )

    def _served(self, request: Message) -> None:
        self._due = request
        if self._backend.health is VmHealth.SERVING:
            self._answer()

    def _answer(self) -> None:
        if self._due is None or self._transport is None:
            return
        request, self._due, self._timer = self._due, None, None
        application = self._backend.application
        if request.upgrades:
            self._streams = True
            self._transport.write(switching_protocols())
            self.application_changed()
        else:
            closes = request.closes or application.closed
            unhealthy = _target(request) == HEALTH_PAGE and not application.healthy
            status = "503 Service Unavailable" if unhealthy else "200 OK"
            self._transport.write(answer(status, self._backend.vm, close=closes))
            if closes:
                self._transport.close()
                return
        self._next()

    def _answer_lines(self) -> None:
        *lines, self._buffer = self._buffer.split(b"\n")
        if self._transport is not None and lines:
            self._transport.write(f"{self._backend.vm}\n".encode() * len(lines))

    def _ask_to_close(self) -> None:
        if self._transport is not None and not self._asked_to_close:
            self._asked_to_close = True
            self._transport.write(CLOSE_LINE + b"\n")


def _target(request: Message) -> str:
    _, _, rest = request.first_line.decode("ascii", "replace").partition(" ")
    return rest.partition(" ")[0]


def _own_delay_s(request: Message) -> float | None:
    """Return how long the answer takes; None for the time that most answers take."""
    path, _, query = _target(request).partition("?")
    if path == HEALTH_PAGE:
        return 0.0
    if path != "/slow":
        return None
    try:
        return float(query)
    except ValueError:
        return None
