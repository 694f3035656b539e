"""Lists of Resource Manager under its public name, which leads to a server on loopback here."""

import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from azure.core.credentials import AccessToken, AccessTokenInfo

from controller import errors
from controller.azure.http.arm_client import Arm
from controller.azure.http.arm_reader import ArmReader
from controller.azure.http.call import Caller
from controller.azure.http.request_waits import RequestWaits
from controller.clock import SystemClock
from controller.simulator.app.tls import create_certificates

ENDPOINT = "https://management.azure.com"
PATH = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines"
NEXT = f"{PATH}?api-version=2025-04-01&$skiptoken=2"
Open = Callable[[str], AbstractAsyncContextManager[ArmReader]]


class Loopback(AbstractResolver):
    """Every name is one port on loopback."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host="127.0.0.1",
                port=self._port,
                family=int(family),
                proto=0,
                flags=0,
            )
        ]

    async def close(self) -> None:
        """Hold nothing."""


class Credential:
    """An identity whose token is always the same."""

    async def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        return AccessToken("token", int(time.time()) + 3600)

    async def get_token_info(self, *_scopes: str, **_options: Any) -> AccessTokenInfo:
        return AccessTokenInfo("token", int(time.time()) + 3600)

    async def close(self) -> None:
        """Hold nothing."""

    async def __aenter__(self) -> "Credential":
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Hold nothing."""


async def serve(handler: Callable[[web.Request], Awaitable[web.Response]], at: Path) -> Any:
    """Start a server with TLS; return its runner and port."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    context = create_certificates(at).server_context()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    return runner, runner.addresses[0][1]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Return what opens a reader of a list whose first page has this next link."""

    @asynccontextmanager
    async def reader(link: str) -> AsyncIterator[ArmReader]:
        async def answer(request: web.Request) -> web.Response:
            if "$skiptoken" in request.rel_url.query_string:
                return web.json_response({"value": [{"id": "web-2"}]})
            return web.json_response({"value": [{"id": "web-1"}], "nextLink": link})

        runner, port = await serve(answer, tmp_path)
        connector = aiohttp.TCPConnector(ssl=False, resolver=Loopback(port))
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            arm = Arm(
                endpoint=ENDPOINT,
                scope=f"{ENDPOINT}/.default",
                credential=Credential(),
                session=session,
                waits=RequestWaits(SystemClock()),
            )
            caller = Caller(service="compute", clock=SystemClock(), version=arm.compute_version)
            yield ArmReader(arm, caller)
        await runner.cleanup()

    return reader


@pytest.mark.parametrize(
    "origin", [ENDPOINT, f"{ENDPOINT}:443", "https://Management.Azure.com:443"]
)
async def test_a_next_page_is_read_however_its_link_is_spelled(opened: Open, origin: str) -> None:
    """L2: Compute names the default port in its links (Azure/azure-sdk-for-java#36506)."""
    async with opened(f"{origin}{NEXT}") as reader:
        listing = await reader.listing("vm_list", PATH)
    assert [each["id"] for each in listing.entries] == ["web-1", "web-2"]
    assert (listing.pages, listing.complete) == (2, True)


@pytest.mark.parametrize(
    "origin", [f"{ENDPOINT}:8443", "http://management.azure.com", "https://management.azure.us"]
)
async def test_a_next_page_of_another_service_is_not_read(opened: Open, origin: str) -> None:
    """H2: the token leaves for our service only; what was read before stays."""
    async with opened(f"{origin}{NEXT}") as reader:
        listing = await reader.listing("vm_list", PATH)
    assert [each["id"] for each in listing.entries] == ["web-1"]
    assert isinstance(listing.problem, errors.ControllerError)
