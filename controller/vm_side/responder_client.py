"""Asks the probe responder of this VM how many probes it has refused."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

WITHIN_S = 1.0
MAX_HEAD_BYTES = 8192
HEADER = b"lb-drain-refused-probes:"
CLOSED = 503
NONE_REFUSED = 0
"""Of a responder that does not see the flag."""


@dataclass(frozen=True, slots=True)
class ResponderAnswer:
    """What answered."""

    status: int
    """0 if it was no HTTP answer."""
    refused: int | None
    """How many probes got a 503 since the VM closed; None from another program."""


async def ask_responder(host: str, port: int, path: str) -> ResponderAnswer | None:
    """Return what a listener of this VM answers; None without an answer."""
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
    return ResponderAnswer(status=_status(head), refused=_refused(head))


async def refused_probes(host: str, port: int, path: str) -> int | None:
    """Return how many probes got a 503 since the VM closed; None without an answer."""
    answer = await ask_responder(host, port, path)
    if answer is None:
        return None
    return answer.refused if answer.status == CLOSED else NONE_REFUSED


def _status(head: bytes) -> int:
    words = head.split(None, 2)
    known = len(words) > 1 and words[0] == b"HTTP/1.1" and words[1].isdigit()
    return int(words[1][:3]) if known else 0


def _refused(head: bytes) -> int | None:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(HEADER):
            with suppress(ValueError):
                return int(line[len(HEADER) :])
    return None
