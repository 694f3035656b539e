"""The adapters of an agent on services in memory, and good conversations to start from.

The good ones are recorded: every call is made once against the simulated Azure, and what that
answers, byte for byte, is what the mutations begin with.
"""

import atexit
import importlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import TypeVar
from unittest.mock import patch
from urllib.parse import parse_qsl, unquote, urlsplit

import aiohttp

from controller.azure.http import session
from controller.azure.http.request_waits import RequestWaits
from controller.azure.http.session import Azure, SessionOptions, TrafficKind, open_azure
from controller.config.schema import Settings
from controller.simulator.services import api, http_values
from controller.simulator.services.faults import FaultBook
from controller.simulator.world.access import MAINTENANCE
from controller.simulator.world.builder import build_world
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.world import World
from tests.fuzz.memory import START, Request, Runtime, Service

T = TypeVar("T")
ARM = "https://127.0.0.1:44301"
BLOB = "https://127.0.0.1:44302"
IMDS = "http://127.0.0.1:44303"
TOKEN = "SECRET-token"
IDENTITY_REPLY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
    b'{"access_token": "SECRET-token", "expires_in": "86399", "resource": "%s"}'
)


def new_world() -> World:
    """Return the world whose replies are recorded: three VMs, one event, an empty container.

    Planned maintenance of web-2 may be started, too, by the one that asks.
    """
    world = build_world(
        now=START.timestamp(),
        pools=("app", "admin"),
        ip_pools=("cache",),
        settings=WorldSettings(
            imds_limit=False,
            random_case=False,
            shuffle_members=False,
            operation_latency_s=2.5,
            pool_operation_latency_s=2.5,
        ),
    )
    world.blobs.create_container("account", "lb-drain", START.timestamp())
    world.events.schedule("Reboot", "web-2", event_id="A123BC45-1234-5678-AB90-ABCDEF123456")
    world.maintenance.plan("web-2", down_s=2.5)
    world.roles.assign("web-1", MAINTENANCE, f"/subscriptions/{world.subscription}")
    return world


class Simulated(Service):
    """The simulated Azure as a service in memory, which keeps what it answered."""

    def __init__(self, kind: http_values.Service, world: World, runtime: Runtime) -> None:
        super().__init__()
        self._kind, self._world, self._runtime = kind, world, runtime
        self.replies: list[bytes] = []

    def answer(self, request: Request) -> bytes:
        self.received.append(request)
        url = urlsplit(request.path)
        asked = http_values.Request(
            service=self._kind,
            method=request.method,
            path=unquote(url.path),
            query=tuple(parse_qsl(url.query, keep_blank_values=True)),
            headers=request.headers,
            body=request.body,
            vm="web-1",
        )
        now = self._runtime.clock.now().timestamp()
        reply = api.handle(self._world, FaultBook(), asked, now)
        headers = {"Date": "Sun, 01 Mar 2026 12:00:00 GMT", **reply.headers}
        if request.method != "HEAD":
            headers.pop("Content-Length", None)  # the end of the connection ends the body
        lines = [f"HTTP/1.1 {reply.status} Whatever", *(f"{k}: {v}" for k, v in headers.items())]
        self.replies.append("\r\n".join(lines).encode() + b"\r\n\r\n" + reply.body)
        return self.replies[-1]


SETTINGS = Settings.model_validate(
    {
        "backend_pools": [{"id": new_world().pool_id("app")}],
        "election": {"container_url": f"{BLOB}/account/lb-drain"},
        "azure": {"resource_manager_endpoint": ARM, "imds_endpoint": IMDS},
    }
)


class InMemoryAdapters:
    """One agent's adapters, and who answers them."""

    def __init__(self, services: Mapping[TrafficKind, Service], runtime: Runtime) -> None:
        self.services, self.runtime = services, runtime
        self._open = AsyncExitStack()
        atexit.register(self.runtime.run, self._open.aclose)
        self.azure = runtime.run(self._enter)

    async def _enter(self) -> Azure:
        for package in ("azure.mgmt.compute.aio", "azure.mgmt.network.aio"):
            importlib.import_module(package)  # a leader does it in a thread, which takes real time
        self._waits = RequestWaits(self.runtime.clock)
        opened = open_azure(SETTINGS, self.runtime.clock, {}, session_factory=self._connect)
        with patch.object(session, "RequestWaits", lambda _clock: self._waits):
            return await self._open.enter_async_context(opened)

    def _connect(self, options: SessionOptions) -> aiohttp.ClientSession:
        return self.runtime.session(self.services[options.traffic], **options.arguments())

    def connect(self, traffic: TrafficKind) -> aiohttp.ClientSession:
        """Return a further session to one of the services."""
        return self.runtime.session(self.services[traffic])

    def run(self, act: Callable[["InMemoryAdapters"], Awaitable[T]]) -> T:
        """Do something with the adapters, which remember no wait of an earlier conversation."""
        self._waits.__init__(self.runtime.clock)  # type: ignore[misc]
        return self.runtime.run(lambda: act(self))
