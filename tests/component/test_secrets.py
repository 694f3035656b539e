"""Canaries: tokens that were really issued, and secrets that Azure says back, in all that gets out.

What gets out of an agent is its log, the answers of its server, and the ledger (H2). And where its
tokens come from is not for the environment to say.
"""

import asyncio
import io
import json
import logging
import os
from collections.abc import Iterator

import pytest

from controller.agent.agent import Agent
from controller.observability import logs
from controller.simulator.services.http_values import Service
from tests.support.in_process_set import InProcessSet

CANARY = "c4n4ryC4N4RYc4n4ry"
SAID_BACK = f"denied: Authorization: Bearer {CANARY} for https://a.blob.core.windows.net/c?sv=1&sig={CANARY}"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Collect what an agent with --verbose would print, of every library."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(logs.JsonFormatter())
    root, controller = logging.getLogger(), logging.getLogger("lbdrain")
    levels = root.level, controller.level
    root.addHandler(handler)
    yield text
    root.removeHandler(handler)
    root.setLevel(levels[0])
    controller.setLevel(levels[1])


def answers(agent: Agent) -> str:
    """Return all that the server of an agent answers."""
    source = agent.live_status
    status = json.dumps([source.status(), source.overview()], default=str)
    return f"{status}{source.health()}{source.ready()}{source.metrics().decode()}"


async def test_no_token_gets_out(bench: InProcessSet, log: io.StringIO) -> None:
    """At DEBUG, from the first token to the last restore, none of the issued tokens is shown."""
    tokens: list[str] = []
    sent: list[str] = []

    def note(request: object, reply: object) -> None:
        body = getattr(reply, "body", b"")
        if b"access_token" in body:
            tokens.append(json.loads(body)["access_token"])
        sent.append(str(getattr(request, "headers", {})))

    bench.server.observers.append(note)
    agent = await bench.lead()
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger("lbdrain").setLevel(logging.DEBUG)
    before = bench.inside("web-2")
    await bench.announce("web-2")
    await bench.until("web-2 out", lambda: not bench.inside("web-2"))
    shown = answers(agent) + json.dumps(bench.ledger())
    await bench.until("web-2 back", lambda: bench.inside("web-2") == before)
    await bench.until("all done", lambda: not bench.ledger()["entries"])
    shown += answers(agent) + json.dumps(bench.ledger()) + log.getvalue()
    assert "web-2" in log.getvalue()
    assert tokens
    assert any(token in headers for token in tokens for headers in sent)
    assert [token for token in tokens if token in shown] == []


async def test_what_azure_says_back_while_the_agent_waits(
    bench: InProcessSet, log: io.StringIO
) -> None:
    """An error at the start that repeats a token is reported without it, in every place."""
    body = json.dumps({"error": {"code": "AuthorizationFailed", "message": SAID_BACK}})
    bench.fault(Service.ARM, status=403, body=body)
    agent = bench.start()
    await bench.until("logged", lambda: bench.logged("AuthorizationFailed", "WARNING"))
    assert "AuthorizationFailed" in answers(agent)
    assert CANARY not in log.getvalue() + answers(agent)


async def test_what_azure_says_back_to_a_write(bench: InProcessSet, log: io.StringIO) -> None:
    """A refused write whose error repeats a token leaves it neither in ledger nor in answers."""
    agent = await bench.lead()
    body = json.dumps({"error": {"code": "AuthorizationFailed", "message": SAID_BACK}})
    bench.fault(Service.ARM, method="PUT", status=403, body=body)
    await bench.announce("web-2")
    await bench.until("logged", lambda: bench.logged("AuthorizationFailed"))
    await bench.until("held", lambda: "write_failed" in json.dumps(bench.ledger()))
    shown = answers(agent) + json.dumps(bench.ledger())
    assert CANARY not in log.getvalue() + shown


@pytest.mark.parametrize(
    "variable", ["IDENTITY_ENDPOINT", "MSI_ENDPOINT", "http_proxy", "HTTP_PROXY", "ALL_PROXY"]
)
async def test_nothing_comes_between_the_agent_and_its_identity(
    bench: InProcessSet, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Neither another identity endpoint nor a proxy in the environment gets a request."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as stranger:
        port = stranger.sockets[0].getsockname()[1]
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("IDENTITY_HEADER", "a secret")
        monkeypatch.setenv(variable, f"http://127.0.0.1:{port}/")
        settings = bench.settings(bench.config("web-1"))
        agent = Agent(settings, environ=os.environ, clock=bench.clock)
        running = asyncio.create_task(agent.run())
        await bench.until("web-1 leads", lambda: bench.ledger().get("leader") == "web-1")
        agent.stop()
        await running
    assert asked == []
