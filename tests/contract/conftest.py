"""The fixtures of tests that run adapters or agents in their own process."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

from controller import logs

from .in_process import Bench, open_bench
from .journal_socket import Receiver
from .receivers import CANARY, Hook, open_hook

OpenBench = Callable[..., AbstractAsyncContextManager[Bench]]


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    """Give the SDK's loggers their levels back: the adapters set them for a whole process."""
    loggers = [logging.getLogger(name) for name in ("azure", "azure.identity")]
    before = [each.level for each in loggers]
    yield
    for each, level in zip(loggers, before, strict=True):
        each.setLevel(level)


@pytest.fixture
def open_set(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> OpenBench:
    """Return what serves a set; nothing in the environment leads anywhere else."""
    for name in ("HTTPS_PROXY", "https_proxy", "IDENTITY_ENDPOINT", "MSI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9")
    monkeypatch.setattr("controller.agent.START_AGAIN_S", 0.2)
    monkeypatch.setattr("controller.home.ASK_AGAIN_S", 0.1)
    return partial(open_bench, tmp_path, caplog)


@pytest.fixture
async def bench(open_set: OpenBench) -> AsyncIterator[Bench]:
    """Serve the ordinary set of three."""
    async with open_set() as opened:
        yield opened


@pytest.fixture
async def hook(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hook]:
    """A receiver of notifications, whose URL is a secret and which no proxy stands before."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with open_hook(f"/{CANARY}") as opened:
        yield opened


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Everything that is logged goes here, and at every level."""
    receiver = Receiver(tmp_path / "socket")
    receiver.open()
    monkeypatch.setenv("JOURNAL_STREAM", receiver.name)
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    logs.setup(logging.DEBUG, receiver.stream, journal=receiver.path)
    yield receiver
    for handler in [each for each in root.handlers if each not in before]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    receiver.close()
