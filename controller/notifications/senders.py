"""Delivery of one message by HTTP or SMTP.

No redirect is followed, and no error repeats a URL, because it may be a secret.
"""

import asyncio
import smtplib
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Any

import aiohttp

from controller.config.notifications import Notification
from controller.notifications.formats import Message, mail, slack_body, teams_body, webhook_body

POST_TIMEOUT_S = 5.0
MAIL_TIMEOUT_S = 30.0
SMTP_STEP_S = 10.0
"""Limit of each SMTP step; some servers delay their greeting by seconds to detect spam."""


class DeliveryFailed(Exception):
    """The receiver did not accept a message. The text contains nothing from the configuration."""

    def __init__(
        self, message: str, *, final: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.final, self.retry_after_s = final, retry_after_s


_PROBLEMS: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "the receiver does not answer in time"),
    (ssl.SSLCertVerificationError, "the certificate of the receiver is not trusted"),
    (aiohttp.ClientConnectorCertificateError, "the certificate of the receiver is not trusted"),
    (ssl.SSLError, "no secure connection to the receiver"),
    (aiohttp.ClientConnectorDNSError, "the name of the receiver cannot be resolved"),
    (aiohttp.ClientSSLError, "no secure connection to the receiver"),
    (aiohttp.ClientConnectorError, "the receiver cannot be reached"),
    (aiohttp.InvalidURL, "the URL cannot be used"),
    (aiohttp.ClientError, "the connection to the receiver broke"),
    (smtplib.SMTPNotSupportedError, "the mail server offers no STARTTLS, or no login"),
    (smtplib.SMTPException, "the mail server does not follow the protocol"),
    (socket.gaierror, "the name of the receiver cannot be resolved"),
    (ConnectionRefusedError, "the receiver cannot be reached"),
    (OSError, "the connection to the receiver broke"),
)
"""What people read for an error; its own text may repeat a URL."""


def problem_of(error: Exception) -> str:
    """Return in words why a delivery failed; contains nothing of the error's text."""
    return next((words for kind, words in _PROBLEMS if isinstance(error, kind)), "a bug")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Delivers messages to one channel."""

    send: Callable[[aiohttp.ClientSession, Message], Awaitable[None]]
    """Deliver one message, or raise `DeliveryFailed`."""
    timeout_s: float
    """Limit of one attempt."""


def sender_of(settings: Notification, environ: Mapping[str, str], tls: ssl.SSLContext) -> Sender:
    """Return the sender of a channel. `tls` is for mail; the session has its own for HTTP.

    Raises:
        ValueError: a secret cannot be read; the message does not repeat it.
    """
    if settings.kind == "email":
        send = partial(_mail, settings, settings.secret_password(environ), tls)
        return Sender(send=send, timeout_s=MAIL_TIMEOUT_S)
    body = {"webhook": webhook_body, "slack": slack_body, "teams": teams_body}[settings.kind]
    return Sender(send=partial(_post, settings.secret_url(environ), body), timeout_s=POST_TIMEOUT_S)


async def _post(
    url: str,
    body: Callable[[Message], dict[str, Any]],
    session: aiohttp.ClientSession,
    message: Message,
) -> None:
    try:
        async with session.post(url, json=body(message), allow_redirects=False) as reply:
            status, after = reply.status, reply.headers.get("Retry-After", "")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise DeliveryFailed(problem_of(error)) from None
    if not 200 <= status < 300:
        raise DeliveryFailed(
            f"status {status}",
            final=400 <= status < 500 and status not in (408, 425, 429),
            retry_after_s=float(after) if after.isdecimal() and len(after) < 6 else None,
        )


async def _mail(
    settings: Notification,
    password: str,
    tls: ssl.SSLContext,
    _session: aiohttp.ClientSession,
    message: Message,
) -> None:
    """Send in a daemon thread: a server that hangs must not keep the process from ending."""
    ended: Future[None] = Future()

    def work() -> None:
        with suppress(InvalidStateError):  # the attempt is over, nothing waits for the result
            try:
                _attempt_mail(settings, password, tls, message)
            except Exception as error:  # raised where the result is awaited
                ended.set_exception(error)
            else:
                ended.set_result(None)

    Thread(target=work, name="mail", daemon=True).start()
    await asyncio.wrap_future(ended)


def _attempt_mail(
    settings: Notification, password: str, tls: ssl.SSLContext, message: Message
) -> None:
    connect: Callable[..., smtplib.SMTP] = smtplib.SMTP
    if settings.encryption == "tls":
        connect = partial(smtplib.SMTP_SSL, context=tls)
    try:
        with connect(settings.host, settings.port, timeout=SMTP_STEP_S) as server:
            if settings.encryption == "starttls":
                server.starttls(context=tls)
            if settings.username:
                server.login(settings.username, password)
            server.send_message(mail(message, sender=settings.sender, to=settings.to))
    except smtplib.SMTPResponseException as error:
        status, final = str(error.smtp_code), error.smtp_code >= 500
    except smtplib.SMTPRecipientsRefused as error:
        codes = sorted({code for code, _ in error.recipients.values()})
        status, final = ", ".join(map(str, codes)), codes[0] >= 500
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise DeliveryFailed(problem_of(error)) from None
    else:
        return
    raise DeliveryFailed(f"SMTP status {status}", final=final)
