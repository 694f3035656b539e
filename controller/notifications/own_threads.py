"""Threads for what can hang at a receiver: names, mail, files with secrets.

The event loop has a few threads, as many as the VM has processors and four more, and resolves the
names of Azure in them. A name server that does not answer takes a thread for half a minute, and
every such thread must end before the process does. Nothing of a notification may take one.
"""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from threading import Thread
from typing import TypeVar

from aiohttp.abc import AbstractResolver, ResolveResult

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Work in a daemon thread: what hangs must not keep the process from ending."""
    ended: Future[T] = Future()

    def run() -> None:
        with suppress(InvalidStateError):  # the attempt is over, nothing waits for the result
            try:
                ended.set_result(work())
            except Exception as error:  # raised where the result is awaited
                ended.set_exception(error)

    Thread(target=run, name="notification", daemon=True).start()
    return await asyncio.wrap_future(ended)


class OwnResolver(AbstractResolver):
    """Resolves names as aiohttp does, in threads of its own: one for each name at a time."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name.

        Raises:
            OSError: it has none.
        """
        flags = socket.AI_ADDRCONFIG
        found = await in_thread(
            lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=flags)
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Close nothing: a thread ends with its name."""
