"""Trial of the notification channels: one message marked TEST for each, and its reply.

A trial sends once, without the retries of a real notification, so that the first reply is seen. It
ignores `on`. No result contains anything secret of the configuration.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import aiohttp

from controller.azure.http.session import tls_context
from controller.config.notifications import Notification
from controller.config.schema import Settings
from controller.core.notices.notice import Notice, NoticeKind, notice_id
from controller.notifications.channel import channel_session
from controller.notifications.formats import Message, Origin, render
from controller.notifications.senders import (
    CHECK_REACH,
    DeliveryFailed,
    problem_of,
    remedy_of,
    sender_of,
)

TEXT = "this is a test of the notifications of lb-drain; nothing has happened"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """How the trial of one channel ended."""

    delivered: bool
    reply: str
    """What the receiver answered, or why there is no answer."""
    remedy: str = ""
    """What to do about a failure."""


async def try_channels(
    settings: Settings, environ: Mapping[str, str], *, now: datetime
) -> tuple[TrialResult, ...]:
    """Send one message through each channel at the same time; return how each ended.

    Raises:
        ConfigError: the CA file cannot be used.
    """
    tls = tls_context(settings.azure.ca_file)
    notice = Notice(
        kind=NoticeKind.TEST,
        id=notice_id(NoticeKind.TEST, now.isoformat()),
        at=now,
        text=TEXT,
        test=True,
    )
    async with channel_session(tls) as session:
        origin = Origin(agent=socket.gethostname(), runbook_url=settings.links.runbook_url)
        trials = (
            _try(each, environ, tls, session, render(notice, template=each.template, origin=origin))
            for each in settings.notifications
        )
        return tuple(await asyncio.gather(*trials))


async def _try(
    settings: Notification,
    environ: Mapping[str, str],
    tls: ssl.SSLContext,
    session: aiohttp.ClientSession,
    message: Message,
) -> TrialResult:
    try:
        sender = sender_of(settings, environ, tls)
    except ValueError as error:
        remedy = "run this command as the user that can read it, or correct the key"
        return TrialResult(delivered=False, reply=str(error), remedy=remedy)
    try:
        async with asyncio.timeout(sender.timeout_s):
            reply = await sender.send(session, message)
    except DeliveryFailed as error:
        reply, remedy = str(error), error.remedy
    except TimeoutError:
        reply, remedy = f"no reply within {sender.timeout_s:g} s", CHECK_REACH
    except Exception as error:  # the other channels have their turn
        reply, remedy = problem_of(error), remedy_of(error)
    else:
        return TrialResult(delivered=True, reply=reply)
    return TrialResult(delivered=False, reply=reply, remedy=remedy)
