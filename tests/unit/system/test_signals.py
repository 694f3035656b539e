"""Signals on every event loop: the loop's own way, and that of Python where the loop has none."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from controller.system.signals import RELOAD, STOP, TERMINATE, on_signal

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@pytest.fixture(autouse=True)
def _handlers_are_restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def loop_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loop refuse signal handlers, as the one of Windows does."""

    def refuse(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", refuse)


async def arrives(number: signal.Signals, names: tuple[str, ...]) -> bool:
    """Send a signal to this process; return whether the callback runs."""
    seen = asyncio.Event()
    on_signal(names, seen.set)
    os.kill(os.getpid(), number)
    async with asyncio.timeout(60):
        await seen.wait()
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_by_the_loop(number: signal.Signals) -> None:
    """On Linux the handler is one of the loop."""
    assert await arrives(number, STOP)
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(each)


@pytest.mark.usefixtures("loop_of_windows")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_without_the_loop(number: signal.Signals) -> None:
    """Where the loop takes no handlers, one of Python wakes it."""
    assert await arrives(number, STOP)


@pytest.mark.usefixtures("loop_of_windows")
async def test_ctrl_break_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGBREAK exists on Windows only; another signal stands for it here."""
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    assert await arrives(signal.SIGUSR1, STOP)
    assert await arrives(signal.SIGUSR1, TERMINATE)


@pytest.mark.usefixtures("loop_of_windows")
async def test_a_signal_that_does_not_exist_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no SIGHUP: nothing is registered, and nothing fails."""
    monkeypatch.delattr(signal, "SIGHUP")
    registered: list[int] = []
    monkeypatch.setattr(signal, "signal", lambda number, _: registered.append(number))
    on_signal(RELOAD, lambda: None)
    assert registered == []
    on_signal(STOP, lambda: None)
    assert registered == [signal.SIGTERM, signal.SIGINT]


@pytest.mark.usefixtures("loop_of_windows")
def test_a_signal_after_the_end_of_the_loop_is_ignored() -> None:
    """A second ^C during the exit raises nothing."""

    async def register() -> None:
        on_signal(("SIGUSR1",), lambda: None)

    asyncio.run(register())
    os.kill(os.getpid(), signal.SIGUSR1)
