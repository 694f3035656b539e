"""Sockets of the simulator: on loopback only, and reset for real."""

import asyncio
import socket
import struct
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")

HOST = "127.0.0.1"
SLICE_S = 0.1
MOST_STALLS = 100
"""So many stalls during one wait; then the time counts in any case."""
_LINGER_ZERO = struct.pack("ii", 1, 0)


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def reset(transport: asyncio.BaseTransport) -> None:
    """Close with a TCP reset. A plain `abort()` would send a FIN."""
    if isinstance(transport, asyncio.Transport) and not transport.is_closing():
        peer: socket.socket | None = transport.get_extra_info("socket")
        if peer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        transport.abort()


async def within(timeout_s: float, work: Coroutine[object, None, T]) -> T:
    """Return the result of `work`; raise TimeoutError if it takes longer.

    Both sides are in this process, so a stall of the process is no silence of the other side. Time
    is counted in slices, and a slice that takes much longer than it should does not count.
    """
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    left_s, stalls = timeout_s, 0
    try:
        while left_s > 0:
            slice_s, started = min(left_s, SLICE_S), loop.time()
            await asyncio.wait({task}, timeout=slice_s)
            if task.done():
                return task.result()
            if loop.time() - started > slice_s + SLICE_S / 2 and stalls < MOST_STALLS:
                stalls += 1
            else:
                left_s -= slice_s
        raise TimeoutError
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
