"""Waits that Azure asks for: a request is not sent again before its Retry-After has passed.

Several callers send the same request: an inventory, a write that starts from a read, the check that
follows a write. Each has a back-off of its own, and does not know what Azure asked of another one.
All requests to Resource Manager pass here.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from controller.azure.http.error_body import retry_after
from controller.clock import Clock
from controller.core.azure_names import fold
from controller.errors import Throttled

_Key = tuple[str, str]


class RequestWaits:
    """Until when Azure asks to wait before it gets a request again, by method and path.

    Args:
        clock: only its monotonic time is used.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[_Key, float] = {}
        self._turns: WeakValueDictionary[_Key, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, method: str, url: str) -> AsyncGenerator[None]:
        """Wait for the turn of a request; hold it until `heard` was called with the reply.

        GETs of one resource follow each other: of two in flight, the second would not know that the
        first is refused.

        Raises:
            Throttled: Azure asks to wait longer. Nothing was sent.
        """
        key = _key(method, url)
        if method != "GET":
            self._check(key)
            yield
            return
        turn = self._turns.setdefault(key, asyncio.Lock())
        async with turn:
            self._check(key)
            yield

    def heard(self, method: str, url: str, status: int, headers: Mapping[str, str]) -> None:
        """Note what a reply asks for; a status below 400 asks for nothing."""
        if status < 400:
            return
        wait_s = retry_after({name.casefold(): value for name, value in headers.items()})
        if wait_s is not None:
            self._until[_key(method, url)] = self._clock.monotonic() + wait_s

    def _check(self, key: _Key) -> None:
        now = self._clock.monotonic()
        self._until = {each: until for each, until in self._until.items() if until > now}
        left_s = self._until.get(key, now) - now
        if left_s > 0:
            method, path = key
            error = Throttled(
                f"{method} {path.rsplit('/', 1)[-1]} is not sent: Azure asks to wait "
                f"{left_s:.0f} s longer",
                retry_after_s=left_s,
            )
            error.status = 429  # nothing was sent: as if Azure had refused it once more
            raise error


def _key(method: str, url: str) -> _Key:
    return method, fold(urlsplit(url).path)
