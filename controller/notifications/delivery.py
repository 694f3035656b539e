"""Delivery of single notices through all channels, for a command without a dispatcher."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from controller.azure.http.session import tls_context
from controller.config.notifications import Notification
from controller.core.notices.notice import Notice
from controller.notifications.channel import channel_of, channel_session
from controller.notifications.formats import Origin

Deliver = Callable[[Notice], Awaitable[bool]]
"""Sends a notice; returns whether a channel has accepted it, or none wants it."""


@asynccontextmanager
async def open_delivery(
    settings: tuple[Notification, ...],
    environ: Mapping[str, str],
    *,
    ca_file: str,
    origin: Origin,
) -> AsyncGenerator[Deliver]:
    """Yield a function that sends one notice through every channel that wants it.

    Raises:
        ConfigError: the CA file or the secret of a channel cannot be used.
    """
    tls = tls_context(ca_file)
    channels = [
        channel_of(f"notifications[{n}]", each, environ, tls, count=_ignore, origin=origin)
        for n, each in enumerate(settings)
    ]
    async with channel_session(tls) as session:

        async def deliver(notice: Notice) -> bool:
            wanting = [each for each in channels if each.settings.wants(notice)]
            sent = await asyncio.gather(*(each.deliver(session, notice) for each in wanting))
            return not sent or "delivered" in sent

        yield deliver


def _ignore(_kind: str, _outcome: str) -> None:
    """Count nothing: the command serves no metrics."""
