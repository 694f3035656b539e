"""Reading a pipe to its end: by the event loop, and by a thread where the loop cannot."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable

import pytest

from controller.system.pipes import read_by_loop, read_by_thread, read_pipe

Read = Callable[[int, Callable[[bytes], None]], Awaitable[None]]
BOTH = pytest.mark.parametrize("read", [read_by_loop, read_by_thread])


def test_linux_reads_by_the_loop() -> None:
    """No thread is needed."""
    assert read_pipe is read_by_loop


def is_open(pipe: int) -> bool:
    """Return whether a descriptor is open."""
    try:
        os.fstat(pipe)
    except OSError:
        return False
    return True


@BOTH
async def test_everything_is_read(read: Read) -> None:
    """More than a pipe holds arrives whole, in order, and the pipe is closed then."""
    output, writer = os.pipe()
    sent = b"".join(b"%08d" % number for number in range(100_000))
    thread = threading.Thread(target=write_all, args=(writer, sent))
    thread.start()
    got = bytearray()
    async with asyncio.timeout(60):
        await read(output, got.extend)
    thread.join()
    assert bytes(got) == sent
    assert not is_open(output)


def write_all(writer: int, data: bytes) -> None:
    """Write everything, however little the pipe takes at once, and close the pipe."""
    while data:
        data = data[os.write(writer, data[:65_536]) :]
    os.close(writer)


@BOTH
async def test_a_pipe_without_output_ends(read: Read) -> None:
    """A command that prints nothing."""
    output, writer = os.pipe()
    os.close(writer)
    got = bytearray()
    async with asyncio.timeout(60):
        await read(output, got.extend)
    assert not got


@BOTH
async def test_a_writer_that_stays_is_left(read: Read) -> None:
    """After a cancellation nothing arrives any more, and nothing waits for the writer."""
    output, writer = os.pipe()
    got, some = bytearray(), asyncio.Event()

    def keep(data: bytes) -> None:
        got.extend(data)
        some.set()

    reading = asyncio.ensure_future(read(output, keep))
    os.write(writer, b"first")
    async with asyncio.timeout(60):
        await some.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    if read is read_by_thread:
        os.write(writer, b"second")  # it is read by the thread and dropped
    os.close(writer)
    for thread in [each for each in threading.enumerate() if each.name == "pipe"]:
        await asyncio.to_thread(thread.join)
    await asyncio.sleep(0)
    assert bytes(got) == b"first"


def test_a_thread_outlives_its_loop() -> None:
    """The end of the program does not wait for a command that keeps the pipe open."""
    output, writer = os.pipe()

    async def read_and_leave() -> None:
        reading = asyncio.ensure_future(read_by_thread(output, lambda _: None))
        await asyncio.sleep(0)
        reading.cancel()

    asyncio.run(read_and_leave())
    (thread,) = (each for each in threading.enumerate() if each.name == "pipe")
    assert thread.daemon
    os.write(writer, b"late")
    os.close(writer)
    thread.join(timeout=60)
    assert not thread.is_alive()
