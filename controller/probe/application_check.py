"""Asks the application's own check whether it is ready, at most once a second for all probes."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

CHECK_TIMEOUT_S = 4.0
"""Shorter than the shortest interval of Azure's probes, 5 s, so that every probe gets an answer."""
CHECK_EVERY_S = 1.0
"""A result is used for that long, however many probes arrive."""
MAX_HEAD_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the application is ready, and one line that states why."""

    ready: bool
    reason: str
    status: int = 0
    """The status code of the answer; 0 without one."""


NO_CHECK = Readiness(ready=True, reason="open; no check is configured")


class ApplicationCheck:
    """The check at `url`: an http:// URL that must answer 200, or a tcp:// port that accepts."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._running: asyncio.Task[Readiness] | None = None
        self._begun = float("-inf")

    async def readiness(self) -> Readiness:
        """Return the result of a check that began at most `CHECK_EVERY_S` ago. Never raises."""
        if not self._url:
            return NO_CHECK
        running = self._running
        old = time.monotonic() - self._begun >= CHECK_EVERY_S
        if running is None or (running.done() and old):
            self._begun = time.monotonic()
            self._running = running = asyncio.create_task(self._check())
        return await asyncio.shield(running)

    async def _check(self) -> Readiness:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                return await self._ask()
        except TimeoutError:
            return Readiness(False, f"{self._url} did not answer within {CHECK_TIMEOUT_S:g} s")
        except ConnectionRefusedError:
            return Readiness(False, f"{self._url} refuses connections")
        except OSError as error:
            return Readiness(False, f"{self._url}: {error.strerror or type(error).__name__}")
        except (ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return Readiness(False, f"{self._url} did not answer with HTTP")

    async def _ask(self) -> Readiness:
        url = urlsplit(self._url)
        port = url.port or 80
        reader, writer = await asyncio.open_connection(url.hostname, port, limit=MAX_HEAD_BYTES)
        try:
            if url.scheme == "tcp":
                return Readiness(True, f"open; {self._url} accepts connections")
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            writer.write(
                f"GET {target} HTTP/1.1\r\nHost: {url.netloc}\r\n"
                "User-Agent: lb-drain-probe\r\nConnection: close\r\n\r\n".encode("ascii")
            )
            await writer.drain()
            status = _status(await reader.readuntil(b"\r\n"))
            return Readiness(status == 200, f"{self._url} answers {status}", status)
        finally:
            writer.close()
            with suppress(OSError):
                writer.transport.abort()


def _status(line: bytes) -> int:
    """Return the status code of an HTTP status line. Raises ValueError if it is none."""
    version, code = line.split(None, 2)[:2]
    if not version.startswith(b"HTTP/1.") or len(code) != 3 or not code.isdigit():
        raise ValueError("not an HTTP status line")
    return int(code)
