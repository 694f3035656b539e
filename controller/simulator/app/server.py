"""Sockets around a simulated Azure: HTTPS for ARM, Blob and the Hub, HTTP for IMDS and control.

Everything listens on 127.0.0.1, on ports the system chooses. A separate task
advances the world with the clock, so that operations end and events start without requests.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from email.utils import formatdate
from pathlib import Path
from ssl import SSLContext
from types import TracebackType
from typing import Self

from aiohttp import web

from controller.simulator.app import control
from controller.simulator.app.tls import create_certificates
from controller.simulator.services import api
from controller.simulator.services.faults import FaultBook
from controller.simulator.services.http_values import Delivery, Reply, Request, Service
from controller.simulator.traffic.sockets import HOST, reset
from controller.simulator.world.world import World

ACCOUNT = "lbdrainsim"
LONGEST_REST_S = 0.25
"""The clock task reads the clock at least this often, because a test can move the clock."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Observer = Callable[[Request, Reply], None]


class SimulatorServer:
    """Serves a world until left. The world may be read and changed from the same event loop."""

    def __init__(
        self, world: World, directory: Path, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Prepare to serve `world`; PEM files go into `directory`; `clock` gives epoch seconds."""
        self.world = world
        self.faults = FaultBook()
        self.observers: list[Observer] = []
        """Called with every request to a simulated service and its reply."""
        self.traffic: Callable[[], dict[str, object]] | None = None
        """Returns the results of the clients for the control endpoint; None without clients."""
        self._clock = clock
        self._directory = directory
        self._stack = AsyncExitStack()
        self._stopping = asyncio.Event()
        self._changed = asyncio.Condition()
        self._woken = asyncio.Event()
        self._imds_ports: dict[str, int] = {}
        self._arm_port = self._blob_port = self._hub_port = self._control_port = 0

    @property
    def ca_file(self) -> Path:
        """The certificate to trust."""
        return self._directory / "ca.pem"

    @property
    def arm_url(self) -> str:
        """The Resource Manager endpoint, without a final slash."""
        return f"https://{HOST}:{self._arm_port}"

    @property
    def blob_url(self) -> str:
        """The URL of the storage account."""
        return f"https://{HOST}:{self._blob_port}/{ACCOUNT}"

    @property
    def hub_url(self) -> str:
        """The administrator endpoint of the Azure Stack Hub, which also issues its tokens."""
        return f"https://{HOST}:{self._hub_port}"

    def container_url(self, container: str) -> str:
        """Return the URL of a container, which is created if it does not exist."""
        if (ACCOUNT, container) not in self.world.blobs.containers:
            self.world.blobs.create_container(ACCOUNT, container, self._clock())
        return f"{self.blob_url}/{container}"

    def imds_url(self, vm: str) -> str:
        """Return the IMDS endpoint of this VM; KeyError if there is no such VM."""
        return f"http://{HOST}:{self._imds_ports[vm.casefold()]}"

    @property
    def control_url(self) -> str:
        """The control endpoint."""
        return f"http://{HOST}:{self._control_port}"

    async def wait_until(self, holds: Callable[[], bool], timeout_s: float = 120.0) -> None:
        """Wait until `holds()`, checked after every request and timer. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(holds)

    async def notify(self) -> None:
        """Notify the clock task and all waiters that the world was changed directly."""
        self._woken.set()
        async with self._changed:
            self._changed.notify_all()

    async def __aenter__(self) -> Self:
        certificates = await asyncio.to_thread(create_certificates, self._directory)
        tls = certificates.server_context()
        try:
            self._arm_port = await self._listen(self.handler(Service.ARM), tls)
            self._blob_port = await self._listen(self.handler(Service.BLOB), tls)
            self._hub_port = await self._listen(self.handler(Service.HUB), tls)
            for vm in self.world.vms.values():
                port = await self._listen(self.handler(Service.IMDS, vm.name), None)
                self._imds_ports[vm.name.casefold()] = port
            self._control_port = await self._listen(self._control, None)
        except BaseException:
            await self._stack.aclose()
            raise
        self.world.settings.arm_endpoint = self.arm_url
        ticker = asyncio.create_task(self._advance_forever(), name="simulated time")
        self._stack.push_async_callback(_cancelled, ticker)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        await self._stack.aclose()

    async def _listen(self, handler: Handler, tls: SSLContext | None) -> int:
        """Serve `handler` on a free port of loopback; return the port."""
        # With cancellation a hanging request ends as soon as its client has left.
        runner = web.ServerRunner(
            web.Server(handler, handler_cancellation=True), shutdown_timeout=0.5
        )
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, HOST, 0, ssl_context=tls)
        await site.start()
        address: tuple[str, int] = runner.addresses[-1]
        return address[1]

    def handler(self, service: Service, vm: str | None = None) -> Handler:
        """Return the handler of one service; for IMDS, of the endpoint of one VM."""

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            body = await request.read()
            asked = Request(
                service=service,
                method=request.method,
                path=request.path,
                query=tuple(request.query.items()),
                headers={name.lower(): value for name, value in request.headers.items()},
                body=body,
                vm=vm,
            )
            reply = api.handle(self.world, self.faults, asked, self._clock())
            for observer in self.observers:
                observer(asked, reply)
            await self.notify()
            return await self._deliver(request, reply)

        return answer

    async def _control(self, request: web.BaseRequest) -> web.StreamResponse:
        if "Origin" in request.headers:
            # Otherwise the scripts of any web page could control a simulator on the same machine.
            return web.json_response(
                {"error": "this endpoint refuses requests of browsers"}, status=403
            )
        reply = control.handle(
            self.world,
            self.faults,
            method=request.method,
            path=request.path,
            query=dict(request.query),
            body=await request.read(),
            now=self._clock(),
            traffic=self.traffic() if self.traffic is not None else None,
        )
        await self.notify()
        return await self._deliver(request, reply)

    async def _deliver(self, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
        """Send a reply, or hang or reset the connection instead."""
        if reply.delivery is Delivery.HANG:
            await self._stopping.wait()
        elif reply.delay_s > 0:
            await _wait(self._stopping, reply.delay_s)
        if reply.delivery is not Delivery.NORMAL and request.transport is not None:
            reset(request.transport)
        headers = {"date": formatdate(self._clock(), usegmt=True)} | dict(reply.headers)
        return web.Response(status=reply.status, headers=headers, body=reply.body or None)

    async def _advance_forever(self) -> None:
        while True:
            self._woken.clear()
            now = self._clock()
            self.world.advance(now)
            async with self._changed:
                self._changed.notify_all()
            due = self.world.next_timer()
            rest_s = LONGEST_REST_S if due is None else min(max(due - now, 0.001), LONGEST_REST_S)
            await _wait(self._woken, rest_s)


async def _wait(event: asyncio.Event, at_most_s: float) -> None:
    """Wait for an event or a time. `wait_for` of Python 3.11 may swallow a cancellation."""
    with suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            await event.wait()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
