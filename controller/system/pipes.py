"""Reading a pipe that a child process writes, without blocking the event loop.

The loop of Windows reads pipes only that were opened for overlapped access, which those of
`os.pipe` are not. There a thread reads.
https://docs.python.org/3/library/asyncio-platforms.html#windows
"""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable

READ_BYTES = 65_536


async def read_by_loop(pipe: int, keep: Callable[[bytes], None]) -> None:
    """Pass to `keep` what arrives until every writer has closed the pipe, then close it."""
    stream, loop = asyncio.StreamReader(), asyncio.get_running_loop()
    with os.fdopen(pipe, "rb", buffering=0) as file:
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), file
        )
        try:
            while read := await stream.read(READ_BYTES):
                keep(read)
        finally:
            transport.close()


async def read_by_thread(pipe: int, keep: Callable[[bytes], None]) -> None:
    """Do the same in a thread, which calls `keep` in the loop.

    After a cancellation nothing more is passed on. The thread goes on reading until every writer
    has closed the pipe, so that no writer is blocked. It does not keep the program alive.
    """
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    wanted = True

    def pass_on(read: bytes) -> None:
        if wanted:
            keep(read)

    def work() -> None:
        try:
            while read := os.read(pipe, READ_BYTES):
                _call(loop, pass_on, read)
        except OSError:
            pass  # Windows reports a broken pipe where others report the end
        finally:
            os.close(pipe)
            _call(loop, ended.set)

    threading.Thread(target=work, name="pipe", daemon=True).start()
    try:
        await ended.wait()
    finally:
        wanted = False


def _call(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: object) -> None:
    """Call in the loop; nothing if the loop has ended meanwhile."""
    try:
        loop.call_soon_threadsafe(call, *arguments)
    except RuntimeError:
        return


read_pipe: Callable[[int, Callable[[bytes], None]], Awaitable[None]] = (
    read_by_thread if sys.platform == "win32" else read_by_loop
)
"""The way of the system on which this program runs."""
