"""What a channel is sent, and how: JSON to a webhook, cards to Slack and Teams, mail by SMTP.

Slack takes `text`, which notifications and screen readers show, and `blocks`, of which a header has
at most 150 characters and a section at most 3000 (docs.slack.dev: "Sending messages using incoming
webhooks", "Header block", "Section block"). In `text` the characters & < > are written as entities,
or a name could mention a channel ("Formatting text for app surfaces").

Teams takes, by a workflow that begins with "When a Teams webhook request is received", a message
with Adaptive Cards as attachments, and answers 202 (learn.microsoft.com: "Create incoming webhooks
with Workflows for Microsoft Teams", "Create and send messages"). Older message cards it refuses.

No redirect is followed, and no error repeats a URL: it may be a secret.
"""

import asyncio
import smtplib
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any, Protocol

import aiohttp

from controller.core.happenings import BAD, Happening, Kind
from controller.notify_settings import Notification

SMTP_STEP_S = 10.0
"""Of each step; some servers let everybody wait a few seconds, to tell people from spammers."""
HEADER_MOST, SECTION_MOST, SUBJECT_MOST = 150, 3000, 150
TITLES = {
    Kind.RECEIVED: "Maintenance announced",
    Kind.DRAINED: "Out of rotation",
    Kind.HELD: "Held",
    Kind.AT_RISK: "At risk",
    Kind.ACKNOWLEDGED: "Acknowledged",
    Kind.STARTED: "Maintenance started",
    Kind.RESTORED: "Back in rotation",
    Kind.CANCELLED: "Maintenance cancelled",
    Kind.FAILED: "Failed",
    Kind.OUT_TOO_LONG: "Out for too long",
    Kind.SILENT: "No answer",
    Kind.ANSWERS_AGAIN: "Answers again",
    Kind.NO_LEADER: "No leader",
    Kind.LEADER_AGAIN: "A leader again",
}


class Undelivered(Exception):
    """The receiver did not take a message. Its text repeats nothing that was configured."""

    def __init__(
        self, message: str, *, final: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.final, self.retry_after_s = final, retry_after_s


@dataclass(frozen=True, slots=True)
class Message:
    """A happening in words."""

    title: str
    text: str
    """By the template, if there is one."""
    fields: Mapping[str, str]
    """Everything that a template may name."""
    id: str


def render(happening: Happening, *, template: str, agent: str, availability_set: str) -> Message:
    """Return a happening in words."""
    fields = {
        "text": happening.text,
        "happening": happening.kind.value,
        "level": "warning" if happening.kind in BAD else "info",
        "vm": happening.vm,
        "event_id": happening.event_id,
        "event_type": happening.event_type,
        "not_before": _instant(happening.not_before),
        "at": _instant(happening.at),
        "agent": agent,
        "availability_set": availability_set,
    }
    text = template.format_map(fields) if template else happening.text
    return Message(title=TITLES[happening.kind], text=text, fields=fields, id=happening.id)


def webhook_body(message: Message) -> dict[str, Any]:
    """Return what a generic webhook is sent: every field, all of them texts."""
    return {"id": message.id, **message.fields, "text": message.text}


def slack_body(message: Message) -> dict[str, Any]:
    """Return what a Slack webhook is sent."""
    escaped = message.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {
        "text": f"{message.title}: {escaped}"[:SECTION_MOST],
        "blocks": [
            {"type": "header", "text": _plain(_headline(message)[:HEADER_MOST])},
            {"type": "section", "text": _plain(message.text[:SECTION_MOST] or message.title)},
            {
                "type": "context",
                "elements": [_plain(f"{name}: {said}") for name, said in _facts(message)],
            },
        ],
    }


def teams_body(message: Message) -> dict[str, Any]:
    """Return what a Teams workflow is sent."""
    colour = "Attention" if message.fields["level"] == "warning" else "Default"
    return {
        "type": "message",
        "attachments": [
            {
                "contentType": "application/vnd.microsoft.card.adaptive",
                "contentUrl": None,
                "content": {
                    "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                    "type": "AdaptiveCard",
                    "version": "1.4",
                    "body": [
                        {
                            "type": "TextBlock",
                            "text": _headline(message),
                            "weight": "Bolder",
                            "size": "Medium",
                            "color": colour,
                            "wrap": True,
                        },
                        {"type": "TextBlock", "text": message.text, "wrap": True},
                        {
                            "type": "FactSet",
                            "facts": [
                                {"title": name, "value": said} for name, said in _facts(message)
                            ],
                        },
                    ],
                },
            }
        ],
    }


def mail(message: Message, *, sender: str, to: tuple[str, ...]) -> EmailMessage:
    """Return the mail. The same happening has the same Message-ID, whoever tells it."""
    letter = EmailMessage()
    letter["From"] = sender
    letter["To"] = ", ".join(to)
    subject = f"[lb-drain] {_headline(message)}"
    letter["Subject"] = " ".join(subject.split())[:SUBJECT_MOST]
    letter["Date"] = format_datetime(datetime.fromisoformat(message.fields["at"]))
    letter["Message-ID"] = f"<{message.id}@lb-drain.invalid>"
    letter["Auto-Submitted"] = "auto-generated"
    facts = "".join(f"{name}: {said}\n" for name, said in _facts(message))
    letter.set_content(f"{message.text}\n\n{facts}")
    return letter


# --- sending ---


class Sender(Protocol):
    """Delivers messages to one channel."""

    attempt_s: float
    """How long one attempt may take."""

    async def send(self, session: aiohttp.ClientSession, message: Message, /) -> None:
        """Deliver one message.

        Raises:
            Undelivered: the receiver did not take it.
        """
        ...


def sender_of(settings: Notification, environ: Mapping[str, str], tls: ssl.SSLContext) -> Sender:
    """Return the sender of a channel; `tls` is for mail, a session for the others has its own.

    Raises:
        ValueError: a secret cannot be had; the message does not repeat it.
    """
    if settings.kind == "email":
        return _Mailer(settings, settings.secret_password(environ), tls)
    bodies: dict[str, Callable[[Message], dict[str, Any]]] = {
        "webhook": webhook_body,
        "slack": slack_body,
        "teams": teams_body,
    }
    return _Poster(settings.secret_url(environ), bodies[settings.kind])


class _Poster:
    attempt_s = 5.0

    def __init__(self, url: str, body: Callable[[Message], dict[str, Any]]) -> None:
        self._url, self._body = url, body

    async def send(self, session: aiohttp.ClientSession, message: Message, /) -> None:
        try:
            async with session.post(
                self._url, json=self._body(message), allow_redirects=False
            ) as reply:
                status, after = reply.status, reply.headers.get("Retry-After", "")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Undelivered(type(error).__name__) from None
        if not 200 <= status < 300:
            raise Undelivered(
                f"status {status}",
                final=400 <= status < 500 and status not in (408, 425, 429),
                retry_after_s=float(after) if after.isdecimal() and len(after) < 6 else None,
            )


class _Mailer:
    attempt_s = 30.0

    def __init__(self, settings: Notification, password: str, tls: ssl.SSLContext) -> None:
        self._settings, self._password, self._tls = settings, password, tls

    async def send(self, _session: aiohttp.ClientSession, message: Message, /) -> None:
        """Send in a thread of its own: one that hangs must not keep the process from ending."""
        letter = mail(message, sender=self._settings.sender, to=self._settings.to)
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Undelivered | None] = loop.create_future()

        def settle(failure: Undelivered | None) -> None:
            if not ended.done():
                ended.set_result(failure)

        def work() -> None:
            failure = self._attempt(letter)
            with suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits
                loop.call_soon_threadsafe(settle, failure)

        threading.Thread(target=work, name="mail", daemon=True).start()
        failure = await ended
        if failure is not None:
            raise failure

    def _attempt(self, letter: EmailMessage) -> Undelivered | None:
        try:
            self._send(letter)
        except smtplib.SMTPResponseException as error:
            return Undelivered(f"SMTP status {error.smtp_code}", final=error.smtp_code >= 500)
        except smtplib.SMTPRecipientsRefused as error:
            codes = {code for code, _ in error.recipients.values()}
            said = ", ".join(str(code) for code in sorted(codes))
            return Undelivered(f"SMTP status {said}", final=min(codes) >= 500)
        except (smtplib.SMTPException, OSError, ValueError) as error:
            return Undelivered(type(error).__name__)
        return None

    def _send(self, letter: EmailMessage) -> None:
        settings = self._settings
        with self._connect() as server:
            if settings.encryption == "starttls":
                server.starttls(context=self._tls)
            if settings.username:
                server.login(settings.username, self._password)
            server.send_message(letter)

    def _connect(self) -> smtplib.SMTP:
        host, port = self._settings.host, self._settings.port
        if self._settings.encryption == "tls":
            return smtplib.SMTP_SSL(host, port, timeout=SMTP_STEP_S, context=self._tls)
        return smtplib.SMTP(host, port, timeout=SMTP_STEP_S)


# --- words ---


def _instant(instant: datetime | None) -> str:
    return "" if instant is None else instant.astimezone(UTC).isoformat(timespec="seconds")


def _headline(message: Message) -> str:
    vm = message.fields["vm"]
    return f"{message.title}: {vm}" if vm else message.title


def _facts(message: Message) -> list[tuple[str, str]]:
    names = {
        "not_before": "NotBefore",
        "event_id": "event",
        "availability_set": "availability set",
        "agent": "told by",
    }
    said = [(words, message.fields[name]) for name, words in names.items()]
    return [(words, value) for words, value in said if value] or [("at", message.fields["at"])]


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text}
