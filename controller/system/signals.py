"""The signals that stop the program or make it reload, on every event loop.

`loop.add_signal_handler` exists on Unix only. The loop of Windows raises NotImplementedError, but
wakes up for the signals that Python itself handles.
https://docs.python.org/3/library/asyncio-platforms.html#windows

Windows has SIGINT (^C, which a service wrapper sends to stop a service) and SIGBREAK (Ctrl+Break).
No other process can send SIGTERM there, and SIGHUP does not exist: a reload is a restart.
"""

import asyncio
import signal
from collections.abc import Callable
from types import FrameType

STOP = ("SIGTERM", "SIGINT", "SIGBREAK")
TERMINATE = ("SIGTERM", "SIGBREAK")
"""For a command that ^C already ends with KeyboardInterrupt."""
RELOAD = ("SIGHUP",)
HANGUP = "SIGHUP"
"""Sent to a command whose terminal or SSH session is gone."""


def on_signal(names: tuple[str, ...], callback: Callable[[], object]) -> None:
    """Call `callback` in the running loop whenever a signal arrives.

    Args:
        names: of the signals; one that this system does not have is left out.
        callback: runs as a callback of the loop. It must not raise.
    """
    loop = asyncio.get_running_loop()
    for name in names:
        number = getattr(signal, name, None)
        if number is None:
            continue
        try:
            loop.add_signal_handler(number, callback)
        except NotImplementedError:
            signal.signal(number, _handler(loop, callback))


def on_end(callback: Callable[[], object]) -> None:
    """Call `callback` when a command has to end: it is terminated, or its terminal is gone.

    A hangup that nohup ignores stays ignored.
    """
    on_signal(TERMINATE, callback)
    number = getattr(signal, HANGUP, None)
    if number is not None and signal.getsignal(number) != signal.SIG_IGN:
        on_signal((HANGUP,), callback)


def _handler(
    loop: asyncio.AbstractEventLoop, callback: Callable[[], object]
) -> Callable[[int, FrameType | None], None]:
    """Return a handler of Python; it runs between two instructions of the main thread."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(callback)

    return handle
