"""The view of the agent on this VM, over loopback."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from controller.cli.local_agent import PATH, agent_overview
from controller.errors import ContractViolation, NotDone
from controller.status.overview import overview
from tests.unit.status.test_overview import leader


@asynccontextmanager
async def answering(text: str, status: int = 200) -> AsyncIterator[str]:
    """Serve one answer on loopback; yield the address."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(text=text, status=status)

    application = web.Application()
    application.router.add_get(PATH, handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_the_agent_answers_with_its_overview() -> None:
    """As the page gets it."""
    shown = overview(leader())
    async with answering(json.dumps(shown)) as listen:
        assert await agent_overview(listen) == shown


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("<html>a web server</html>", 200),
        ("[" * 100_000, 200),
        ("{}", 200),
        ('{"version": 9}', 200),
        ("not found", 404),
        ("\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), 200),
    ],
)
async def test_another_server_is_no_agent(text: str, status: int) -> None:
    """The port may belong to anything."""
    async with answering(text, status) as listen:
        with pytest.raises(ContractViolation):
            await agent_overview(listen)


async def test_no_agent_runs() -> None:
    """The first error is then the one to show."""
    async with answering("") as listen:
        pass
    with pytest.raises(NotDone):
        await agent_overview(listen)
