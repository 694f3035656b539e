"""A client of drain requests that several files of tests use."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import pytest

from controller.config.loader import load
from controller.operator.drain_client import DrainClient, connect
from tests.support.in_process_set import InProcessSet

OpenClient = Callable[[], AbstractAsyncContextManager[DrainClient]]


@pytest.fixture
def reported() -> list[str]:
    """Return what the client reports to its user."""
    return []


@pytest.fixture
def clients(
    bench: InProcessSet, reported: list[str], monkeypatch: pytest.MonkeyPatch
) -> OpenClient:
    """Return a function that connects on web-1 with short intervals."""
    monkeypatch.setattr("controller.operator.drain_client.LEDGER_INTERVAL_S", 0.05)
    monkeypatch.setattr("controller.operator.request_client.WRITE_RETRY_S", 0.05)
    bench.tuning = replace(bench.tuning, drain_requests_poll_s=0.1)
    path = bench.config("web-1")
    bench.settings(path)

    @asynccontextmanager
    async def opened() -> AsyncIterator[DrainClient]:
        settings = load(path, {}).settings
        async with connect(
            settings, environ={}, clock=bench.clock, report=reported.append
        ) as client:
            yield client

    return opened
