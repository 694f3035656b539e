"""What a test run prints about itself, and fixtures of tests that run agents in their process."""

import logging
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from controller.observability import logs
from tests.support.in_process_set import InProcessSet, open_in_process_set
from tests.support.journal_socket import Receiver
from tests.support.receivers import CANARY, Hook, open_hook
from tests.support.reports import encodable

SELECTIONS = {
    "not slow": "the quick tests; the slow ones run with -m 'slow and not campaign'",
    "slow and not campaign": "the slow tests; the quick ones run with -m 'not slow'",
    "campaign": "the histories of past faults that CI does not play",
    "": "the full suite: quick tests, slow tests and the campaign",
}

# Examples are the same in every run and have no time limit: a run on a busy machine fails
# for what was changed and for nothing else. `python -m tests.fuzz` looks for new examples.
settings.register_profile(
    "same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")

OpenSet = Callable[..., AbstractAsyncContextManager[InProcessSet]]


def pytest_report_header(config: pytest.Config) -> str:
    """Return which part of the suite runs."""
    chosen = str(config.getoption("-m"))
    return f"selection: {SELECTIONS.get(chosen, chosen)}"


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, dict[str, Any] | None, Any]:
    """Make what a worker of pytest-xdist sends encodable."""
    return encodable((yield))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests of each folder ran, and how long they took."""
    tests, took_s = Counter[str](), defaultdict[str, float](float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                folder = Path(report.location[0]).parent.as_posix()
                tests[folder] += report.when == "call"
                took_s[folder] += report.duration
    terminalreporter.section("tests by folder")
    for folder in sorted(tests):
        terminalreporter.write_line(f"{tests[folder]:>6} {took_s[folder]:>8.1f} s  {folder}")


LOGGERS = ("", "azure", "azure.identity", "azure.mgmt", "azure.storage")
"""The root logger, whose level commands set, and those of the SDK."""


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    """Give loggers their levels back: commands and adapters set them for a whole process."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [each.level for each in loggers]
    yield
    for each, level in zip(loggers, before, strict=True):
        each.setLevel(level)


@pytest.fixture
def open_set(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> OpenSet:
    """Return what serves a set; nothing in the environment leads anywhere else."""
    for name in ("HTTPS_PROXY", "https_proxy", "IDENTITY_ENDPOINT", "MSI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9")
    return partial(open_in_process_set, tmp_path, caplog)


@pytest.fixture
async def bench(open_set: OpenSet) -> AsyncIterator[InProcessSet]:
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
