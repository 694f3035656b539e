"""Delivery of one message by HTTP or SMTP.

No redirect is followed, and no error repeats a URL, because it may be a secret.
"""

import smtplib
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp

from controller.config.notifications import Notification
from controller.notifications.formats import Message, mail, slack_body, teams_body, webhook_body
from controller.notifications.own_threads import in_thread

POST_TIMEOUT_S = 5.0
MAIL_TIMEOUT_S = 30.0
SMTP_STEP_S = 10.0
"""Limit of each SMTP step; some servers delay their greeting by seconds to detect spam."""


class DeliveryFailed(Exception):
    """The receiver did not accept a message. The text contains nothing from the configuration."""

    def __init__(
        self,
        message: str,
        *,
        final: bool = False,
        retry_after_s: float | None = None,
        remedy: str = "",
    ) -> None:
        super().__init__(message)
        self.final, self.retry_after_s = final, retry_after_s
        self.remedy = remedy
        """What to do about it, for the operator who tests a channel."""


class PartlyRefused(DeliveryFailed):
    """Some recipients have the message, and a repetition would reach them again."""


CHECK_URL = "check the URL; if it is old, create a new one at the receiver"
CHECK_REACH = "check the address and port, and whether this VM can reach them (firewall, proxy)"
CHECK_CA = "set ca_file in [azure] to the authority of its certificate, or correct the address"
CHECK_TLS = "check port and encryption: starttls for port 587, tls for port 465"
TRY_AGAIN = "try again later; the problem is at the receiver"
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


_REMEDIES: tuple[tuple[type[Exception], str], ...] = (
    (ssl.SSLCertVerificationError, CHECK_CA),
    (aiohttp.ClientConnectorCertificateError, CHECK_CA),
    (ssl.SSLError, CHECK_TLS),
    (aiohttp.ClientSSLError, CHECK_TLS),
    (aiohttp.InvalidURL, CHECK_URL),
    (smtplib.SMTPException, CHECK_TLS),
    (OSError, CHECK_REACH),
    (aiohttp.ClientError, CHECK_REACH),
)


def remedy_of(error: Exception) -> str:
    """Return what to do about a failed delivery; contains nothing of the error's text."""
    return next((words for kind, words in _REMEDIES if isinstance(error, kind)), TRY_AGAIN)


def _http_remedy(status: int) -> str:
    if 300 <= status < 400:
        return "no redirect is followed: use the URL to which the receiver redirects"
    if status in {401, 403, 404, 405, 410}:
        return CHECK_URL
    if 400 <= status < 500 and status not in {408, 425, 429}:
        return "check that kind is the kind of this receiver, and its settings there"
    return TRY_AGAIN


def _smtp_remedy(code: int) -> str:
    if code in {530, 534, 535, 538}:
        return "check username and password, and whether the server allows this login"
    if code >= 500:
        return "check sender and to: the mail server refuses an address or the message"
    return TRY_AGAIN


def problem_of(error: Exception) -> str:
    """Return in words why a delivery failed; contains nothing of the error's text."""
    return next((words for kind, words in _PROBLEMS if isinstance(error, kind)), "a bug")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Delivers messages to one channel."""

    send: Callable[[aiohttp.ClientSession, Message], Awaitable[str]]
    """Deliver one message and return the reply, or raise `DeliveryFailed`."""
    timeout_s: float
    """Limit of one attempt."""


def sender_of(settings: Notification, environ: Mapping[str, str], tls: ssl.SSLContext) -> Sender:
    """Return the sender of a channel. `tls` is for mail; the session has its own for HTTP.

    Raises:
        ValueError: a secret cannot be read; the message does not repeat it.
    """
    if settings.kind == "email":
        password = _Secret(partial(settings.secret_password, environ))
        return Sender(send=partial(_mail, settings, password, tls), timeout_s=MAIL_TIMEOUT_S)
    body = {"webhook": webhook_body, "slack": slack_body, "teams": teams_body}[settings.kind]
    url = _Secret(partial(settings.secret_url, environ))
    read_url = partial(in_thread, url.read) if settings.url_file else url.known
    return Sender(send=partial(_post, read_url, body), timeout_s=POST_TIMEOUT_S)


class _Secret:
    """A secret of a channel, which an operator can replace in its file while the agent runs.

    Raises:
        ValueError: it cannot be read.
    """

    def __init__(self, read: Callable[[], str]) -> None:
        self._read, self._value = read, read()

    def read(self) -> str:
        """Return it as its file has it now; one that cannot be read stays as it was."""
        with suppress(ValueError):
            self._value = self._read()
        return self._value

    async def known(self) -> str:
        """Return it as it was last read."""
        return self._value


async def _post(
    read_url: Callable[[], Awaitable[str]],
    body: Callable[[Message], dict[str, Any]],
    session: aiohttp.ClientSession,
    message: Message,
) -> str:
    url = await read_url()
    try:
        async with session.post(url, json=body(message), allow_redirects=False) as reply:
            status, after = reply.status, reply.headers.get("Retry-After", "")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise DeliveryFailed(problem_of(error), remedy=remedy_of(error)) from None
    if not 200 <= status < 300:
        raise DeliveryFailed(
            f"status {status}",
            final=400 <= status < 500 and status not in (408, 425, 429),
            retry_after_s=float(after) if after.isdecimal() and len(after) < 6 else None,
            remedy=_http_remedy(status),
        )
    return f"status {status}"


async def _mail(
    settings: Notification,
    password: _Secret,
    tls: ssl.SSLContext,
    _session: aiohttp.ClientSession,
    message: Message,
) -> str:
    await in_thread(lambda: _attempt_mail(settings, password.read(), tls, message))
    return "the mail server accepted it"


def _attempt_mail(
    settings: Notification, password: str, tls: ssl.SSLContext, message: Message
) -> None:
    connect: Callable[..., smtplib.SMTP] = smtplib.SMTP
    if settings.encryption == "tls":
        connect = partial(smtplib.SMTP_SSL, context=tls)
    refused: dict[str, tuple[int, bytes]] | None = None
    """Not None once the server has taken the message, whatever it answers after that."""
    try:
        with connect(settings.host, settings.port, timeout=SMTP_STEP_S) as server:
            if settings.encryption == "starttls":
                server.starttls(context=tls)
            if settings.username:
                server.login(settings.username, password)
            refused = server.send_message(mail(message, sender=settings.sender, to=settings.to))
    except smtplib.SMTPResponseException as error:
        if refused is None:
            raise _refusal([error.smtp_code]) from None
    except smtplib.SMTPRecipientsRefused as error:
        raise _refusal(_codes(error.recipients)) from None
    except (smtplib.SMTPException, OSError, ValueError) as error:
        if refused is None:
            raise DeliveryFailed(problem_of(error), remedy=remedy_of(error)) from None
    if refused:
        codes = _codes(refused)
        raise PartlyRefused(
            f"SMTP status {_listed(codes)} for {len(refused)} of {len(settings.to)} recipients",
            final=True,
            remedy=_smtp_remedy(codes[0]),
        )


def _refusal(codes: list[int]) -> DeliveryFailed:
    return DeliveryFailed(
        f"SMTP status {_listed(codes)}", final=codes[0] >= 500, remedy=_smtp_remedy(codes[0])
    )


def _codes(refused: Mapping[str, tuple[int, bytes]]) -> list[int]:
    return sorted({code for code, _ in refused.values()})


def _listed(codes: list[int]) -> str:
    return ", ".join(map(str, codes))
