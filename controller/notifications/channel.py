"""One notification channel: its queue, and the worker that delivers.

Each attempt has a deadline and each notice few attempts. A full queue drops its oldest notice. A
failure is counted and logged, and the next notice has its turn. Logs name the channel, the kind of
error and a status only, because URLs and passwords are secrets.
"""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from controller.config.notifications import Notification
from controller.core.notices.notice import Notice
from controller.errors import ConfigError
from controller.notifications.formats import Origin, render
from controller.notifications.own_threads import OwnResolver
from controller.notifications.senders import (
    DeliveryFailed,
    PartlyRefused,
    Sender,
    problem_of,
    sender_of,
)
from controller.observability.logs import log
from controller.observability.metrics import NotifyOutcome

logger = logging.getLogger("lbdrain.notifications")

MAX_QUEUED = 100
ATTEMPTS = 3
BACKOFF_S = (1.0, 5.0)
MAX_RETRY_AFTER_S = 30.0
"""The longest Retry-After of a receiver that is honoured in full."""


@dataclass(slots=True)
class QueuedNotice:
    """A notice on its way to its channels."""

    notice: Notice
    of_set: bool
    """Whether it is about the set, and the leader sends it, or about the agent itself."""
    pending: int
    """Number of channels that have neither delivered it nor given up."""
    on_done: Callable[[str], None]

    def channel_done(self) -> None:
        """Note that one channel has delivered it or given up."""
        self.pending -= 1
        if not self.pending:
            self.on_done(self.notice.id)


@dataclass(slots=True, kw_only=True)
class Channel:
    """One channel with its queue."""

    name: str
    """For logs; contains nothing from the configuration but the kind."""
    settings: Notification
    sender: Sender
    count: Callable[[str, NotifyOutcome], None]
    origin: Origin = field(default_factory=lambda: Origin(agent=""))
    _queue: deque[QueuedNotice] = field(default_factory=deque[QueuedNotice])
    _current: QueuedNotice | None = None
    """The notice that is being delivered."""
    _filled: asyncio.Event = field(default_factory=asyncio.Event)
    _closed: bool = False

    def put(self, queued: QueuedNotice) -> None:
        """Add a notice to the queue; drop the oldest one if the queue is full."""
        if len(self._queue) >= MAX_QUEUED:
            dropped = self._queue.popleft()
            self.count(self.settings.kind, "dropped")
            dropped.channel_done()
        self._queue.append(queued)
        self._filled.set()

    def left(self) -> tuple[QueuedNotice, ...]:
        """Return the notices that it has neither delivered nor given up."""
        return (*filter(None, (self._current,)), *self._queue)

    def discard_of_set(self) -> Iterator[str]:
        """Drop the notices that the next leader sends; yield their ids."""
        yield from (queued.notice.id for queued in self._queue if queued.of_set)
        self._queue = deque(queued for queued in self._queue if not queued.of_set)

    def close(self) -> None:
        """End the worker after the current message; what is queued stays `left`."""
        self._closed = True
        self._filled.set()

    async def work(self, session: aiohttp.ClientSession) -> None:
        """Deliver until closed."""
        while not self._closed:
            if not self._queue:
                self._filled.clear()
                await self._filled.wait()
                continue
            queued = self._current = self._queue.popleft()
            self.count(self.settings.kind, await self.deliver(session, queued.notice))
            self._current = None
            queued.channel_done()

    async def deliver(self, session: aiohttp.ClientSession, notice: Notice) -> NotifyOutcome:
        """Send one notice, in several attempts; a failure is logged."""
        problem = ""
        for attempt in range(ATTEMPTS):
            retry_after_s = 0.0
            try:
                await self._send(session, notice)
            except PartlyRefused as error:
                self._log(notice, f"was not delivered to every recipient: {error}")
                return "delivered"
            except DeliveryFailed as error:
                problem, retry_after_s = str(error), error.retry_after_s or 0.0
                if error.final:
                    break
            except TimeoutError:
                problem = f"no reply within {self.sender.timeout_s:g} s"
            except Exception as error:  # whatever it is, the next notice has its turn
                problem = problem_of(error)
            else:
                return "delivered"
            if attempt < ATTEMPTS - 1:
                await asyncio.sleep(min(MAX_RETRY_AFTER_S, max(BACKOFF_S[attempt], retry_after_s)))
        self._log(notice, f"was not delivered: {problem}")
        return "failed"

    def _log(self, notice: Notice, how: str) -> None:
        message = f"{self.name}: the notification {notice.kind.value} {how}"
        log(logger, logging.WARNING, message, event="notification_failed")

    async def _send(self, session: aiohttp.ClientSession, notice: Notice) -> None:
        message = render(notice, template=self.settings.template, origin=self.origin)
        async with asyncio.timeout(self.sender.timeout_s):
            await self.sender.send(session, message)


@dataclass(frozen=True, slots=True)
class LeftNotice:
    """A notice that channels which are closed have not delivered."""

    queued: QueuedNotice
    ended: tuple[Notification, ...]
    """The channels that have delivered it or given up."""


def left_in(channels: Sequence[Channel]) -> tuple[LeftNotice, ...]:
    """Return what closed channels have not delivered, each notice once, oldest first."""
    left = {id(channel): {each.notice.id: each for each in channel.left()} for channel in channels}
    found = {ident: each for notices in left.values() for ident, each in notices.items()}
    return tuple(
        LeftNotice(
            queued=each,
            ended=tuple(
                channel.settings
                for channel in channels
                if channel.settings.wants(each.notice) and ident not in left[id(channel)]
            ),
        )
        for ident, each in found.items()
    )


def channel_of(
    table: str,
    settings: Notification,
    environ: Mapping[str, str],
    tls: ssl.SSLContext,
    *,
    count: Callable[[str, NotifyOutcome], None],
    origin: Origin,
) -> Channel:
    """Return the channel that the table `table` of the configuration describes.

    Raises:
        ConfigError: its secret cannot be read.
    """
    try:
        sender = sender_of(settings, environ, tls)
    except ValueError as error:
        raise ConfigError(f"{table}: {error}") from None
    name = f"{table} ({settings.kind})"
    return Channel(name=name, settings=settings, sender=sender, count=count, origin=origin)


def channel_session(tls: ssl.SSLContext) -> aiohttp.ClientSession:
    """Return a session for channels: chat services are on the internet, maybe behind a proxy."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls, resolver=OwnResolver()),
        trust_env=True,
        cookie_jar=aiohttp.DummyCookieJar(),
    )
