"""Asks the probe responder of this VM how many probes it has refused."""

import asyncio
from contextlib import suppress

WITHIN_S = 1.0
MAX_HEAD_BYTES = 8192
HEADER = b"lb-drain-refused-probes:"


async def refused_probes(host: str, port: int, path: str) -> int | None:
    """Return how many probes got a 503 since the VM closed; None without an answer."""
    try:
        async with asyncio.timeout(WITHIN_S):
            reader, writer = await asyncio.open_connection(host, port, limit=MAX_HEAD_BYTES)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("ascii"))
                head = await reader.readuntil(b"\r\n\r\n")
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    if not head.startswith(b"HTTP/1.1 503 "):
        return 0  # the responder does not see the flag, so no probe was refused
    for line in head.lower().split(b"\r\n"):
        if line.startswith(HEADER):
            with suppress(ValueError):
                return int(line[len(HEADER) :])
    return None
