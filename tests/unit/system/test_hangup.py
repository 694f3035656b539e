"""A command whose terminal is gone ends, unless nohup has started it."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from controller.system.signals import on_end

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Put the handlers back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("ignored", [True, False])
async def test_a_hangup_ends_a_command_unless_it_is_ignored(ignored: bool) -> None:
    """SIGTERM ends it in any case."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    arrived: list[str] = []
    ended = asyncio.Event()

    def note() -> None:
        arrived.append("ended")
        ended.set()

    on_end(note)
    os.kill(os.getpid(), signal.SIGHUP)
    if not ignored:
        await ended.wait()
        ended.clear()
    os.kill(os.getpid(), signal.SIGTERM)
    await ended.wait()
    assert arrived == ["ended"] * (1 if ignored else 2)
