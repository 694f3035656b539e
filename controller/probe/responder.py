"""Answers HTTP health probes: 503 while the flag file exists, else the application's own answer.

The process is as available as the application: a request costs one `stat` of the flag file, the
application is asked at most once a second, and connections are bounded in number and in time. It
runs beside the agent and not in it, so that it answers while the agent restarts or is upgraded.

The load balancer marks a VM down when its probes get an answer other than 200. It sends the VM no
new connections then; established connections continue.
https://learn.microsoft.com/en-us/azure/load-balancer/load-balancer-custom-probes-overview
"""

import asyncio
import gc
import os
import socket
import sys
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import cast

from controller.probe.application_check import ApplicationCheck
from controller.probe.flag_file import FlagFile
from controller.probe.settings import (
    AZURE_PROBE_ADDRESSES,
    AllowedSources,
    ProbeSettings,
    plain_address,
)
from controller.system.signals import STOP, on_signal

MAX_CONNECTIONS = 1000
"""When there are more, the oldest one is closed: a probe that arrives now must be answered."""
REQUEST_WITHIN_S = 5.0
"""A client has that many seconds for its request."""
MAX_REQUEST_BYTES = 8192
BACKLOG = 1024
OWN_ADDRESSES = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
"""Questions from these come from this VM: they are no probes of the load balancer."""
PROBES = AllowedSources((*AZURE_PROBE_ADDRESSES, "127.0.0.0/8"))
"""Where probes come from: Azure's addresses, and in tests other addresses of loopback. Others that
are allowed, such as monitors, get an answer, and are no evidence."""
MAX_SOURCES = 16
"""Addresses whose refused probes are counted, at most."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: the status and a line of text."""

    status: int
    line: str


class Responder:
    """What every connection shares: the flag, the application, and the count of refused probes."""

    def __init__(self, settings: ProbeSettings) -> None:
        self._settings = settings
        self._flag = FlagFile(
            settings.flag_file,
            open_after_s=settings.open_after_s,
            state_directory=settings.state_directory,
            boot_id=settings.boot_id,
        )
        self._check = ApplicationCheck(settings.check)
        self._sources = AllowedSources(settings.allow)
        self._refused: dict[str, int] = {}
        self._connections: OrderedDict[ProbeConnection, None] = OrderedDict()

    # --- connections ---

    def opened(self, connection: "ProbeConnection") -> None:
        """Register a connection; close the oldest one when there are too many."""
        self._connections[connection] = None
        if len(self._connections) > MAX_CONNECTIONS:
            oldest, _ = self._connections.popitem(last=False)
            oldest.abort()

    def closed(self, connection: "ProbeConnection") -> None:
        """Forget a connection."""
        self._connections.pop(connection, None)

    def allows(self, source: str) -> bool:
        """Return whether this source gets an answer."""
        return self._sources.allows(source)

    # --- answers ---

    async def answer(self, method: str, path: str, source: str) -> Answer:
        """Return the answer to one request."""
        if path.partition("?")[0] != self._settings.path:
            return Answer(404, f"only {self._settings.path} is answered")
        if method not in ("GET", "HEAD"):
            return Answer(405, "only GET and HEAD are answered")
        flag = self._flag.current()
        if flag is None:
            self._refused.clear()
            readiness = await self._check.readiness()
            return Answer(200 if readiness.ready else 503, readiness.reason)
        self._count(source)
        return Answer(503, f"closed: drain for {flag.reason}" if flag.reason else "closed: drain")

    def _count(self, source: str) -> None:
        address = plain_address(source)
        if address is None or address in OWN_ADDRESSES or not PROBES.allows(source):
            return
        key = str(address)
        if key in self._refused or len(self._refused) < MAX_SOURCES:
            self._refused[key] = self._refused.get(key, 0) + 1

    @property
    def refused(self) -> int:
        """How many probes of the load balancer got a 503 since the VM closed."""
        return sum(self._refused.values())

    async def listen(self) -> asyncio.Server:
        """Start to answer."""
        loop, host, port = asyncio.get_running_loop(), self._settings.host, self._settings.port
        if not _is_any_ipv6(host) or not socket.has_dualstack_ipv6():
            return await loop.create_server(self._connection, host, port, backlog=BACKLOG)
        # asyncio makes every IPv6 socket one for IPv6 only. The load balancer's IPv4 probes and the
        # agent on this VM would get no answer.
        both = socket.create_server(
            (host, port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True
        )
        return await loop.create_server(self._connection, sock=both, backlog=BACKLOG)

    def _connection(self) -> "ProbeConnection":
        return ProbeConnection(self)


class ProbeConnection(asyncio.Protocol):
    """One connection, which carries one request."""

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._source = ""
        self._late: asyncio.TimerHandle | None = None
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse a source that gets no answer; else wait for the request."""
        self._transport = transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._source = str(peer[0]) if peer else ""
        local = transport.get_extra_info("sockname")
        # Both ends have one address: this is the agent or the doctor on this VM, which asks where
        # [probe] listen is. A client elsewhere cannot open such a connection.
        own = bool(peer and local and peer[0] == local[0])
        if not own and not self._responder.allows(self._source):
            transport.abort()
            return
        self._responder.opened(self)
        self._late = asyncio.get_running_loop().call_later(REQUEST_WITHIN_S, self.abort)

    def data_received(self, data: bytes) -> None:
        """Answer when the head of the request is complete."""
        if self._answering is not None:
            return
        self._received += data
        if b"\r\n\r\n" in self._received or b"\n\n" in self._received:
            self._answering = asyncio.create_task(self._answer())
        elif len(self._received) > MAX_REQUEST_BYTES:
            self.abort()

    def eof_received(self) -> bool:
        """Keep a connection whose client has sent its request and closes its side: it listens."""
        return self._answering is not None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- of the interface
        """Forget the connection."""
        if self._late is not None:
            self._late.cancel()
        if self._answering is not None:
            self._answering.cancel()
        self._responder.closed(self)

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    async def _answer(self) -> None:
        method, path = _request_line(bytes(self._received))
        if not method:
            answer = Answer(400, "this is not an HTTP request")
        else:
            answer = await self._responder.answer(method, path, self._source)
        if self._transport is None or self._transport.is_closing():
            return
        body = "" if method == "HEAD" else answer.line + "\n"
        head = (
            f"HTTP/1.1 {answer.status} {REASONS[answer.status]}\r\n"
            "Content-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len((answer.line + chr(10)).encode())}\r\n"
            "Cache-Control: no-store\r\n"
            f"LB-Drain-Refused-Probes: {self._responder.refused}\r\n"
            "Connection: close\r\n\r\n"
        )
        self._transport.write((head + body).encode())
        self._transport.close()


REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


def _request_line(request: bytes) -> tuple[str, str]:
    """Return the method and the path of a request; empty texts if it is no HTTP request."""
    try:
        words = request.split(b"\n", 1)[0].decode("ascii").split()
    except UnicodeDecodeError:
        return "", ""
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
        return "", ""
    return words[0], words[1]


def _is_any_ipv6(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return isinstance(address, IPv6Address) and address.is_unspecified


def _reason(error: OSError) -> str:
    """Return why; a host name that is not found has a negative number that names no error."""
    number = error.errno or 0
    return os.strerror(number) if number > 0 else error.strerror or str(error)


def serve(settings: ProbeSettings) -> None:
    """Answer probes until SIGTERM or SIGINT; exit with 1 if the port cannot be used."""

    async def run() -> None:
        stopped = asyncio.Event()
        on_signal(STOP, stopped.set)
        try:
            server = await Responder(settings).listen()
        except OSError as error:
            sys.exit(
                f"lb-drain probe: cannot listen on {settings.host}:{settings.port} "
                f"({_reason(error)}); "
                "stop the other program or change [probe] listen"
            )
        port = server.sockets[0].getsockname()[1]
        print(f"lb-drain probe: answers on {settings.host}:{port}{settings.path}", flush=True)
        gc.freeze()
        async with server:
            await stopped.wait()

    asyncio.run(run())
