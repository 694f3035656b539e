"""The text of a notification, and its form for a webhook, Slack, Teams and mail.

Slack, Teams and mail get the same plain text: a headline, the text, and the facts one per line.

- Slack: the field `text` ("Sending messages using incoming webhooks" on docs.slack.dev). The
  characters & < > are written as entities, otherwise a name could mention a channel ("Formatting
  text for app surfaces").
- Teams: workflows that start with "When a Teams webhook request is received" accept Adaptive Cards
  only ("Create and send messages" on learn.microsoft.com), so the text is one block of a card.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from controller.core.notices.notice import PROBLEMS, Notice, NoticeKind

MAX_TEXT, MAX_SUBJECT = 3000, 150
MAX_NAMES, MAX_CHAT_TEXT = 200, 2000
"""An event can name hundreds of VMs, in the headline and in the text. Each is cut for itself, so
that a message still has its facts."""
TITLES = {
    NoticeKind.EVENT_ANNOUNCED: "Maintenance announced",
    NoticeKind.VM_DRAINED: "Out of rotation",
    NoticeKind.HELD: "Held",
    NoticeKind.AT_RISK: "At risk",
    NoticeKind.EVENT_ACKNOWLEDGED: "Acknowledged",
    NoticeKind.EVENT_STARTED: "Maintenance started",
    NoticeKind.VM_RESTORED: "Back in rotation",
    NoticeKind.EVENT_CANCELLED: "Maintenance cancelled",
    NoticeKind.EVENT_ENDED: "End reported by Azure",
    NoticeKind.EVENT_HANDLED: "Drained in time",
    NoticeKind.EVENT_LATE: "Drained late",
    NoticeKind.EVENT_HIT: "Hit in rotation",
    NoticeKind.FAILED: "Failed",
    NoticeKind.OUT_TOO_LONG: "Out of rotation for too long",
    NoticeKind.SERVICE_UNREACHABLE: "Service unreachable",
    NoticeKind.SERVICE_RECOVERED: "Service reachable again",
    NoticeKind.NO_LEADER: "No leader",
    NoticeKind.LEADER_RESTORED: "Leader restored",
    NoticeKind.UPDATE_STARTED: "Update of the Hub started",
    NoticeKind.UPDATE_SUCCEEDED: "Update of the Hub succeeded",
    NoticeKind.UPDATE_FAILED: "Update of the Hub failed",
    NoticeKind.UPDATE_CHANGED: "Update of the Hub",
    NoticeKind.UPDATE_UNKNOWN: "Update of the Hub: state unknown",
    NoticeKind.UPDATE_KNOWN: "Update of the Hub: state known again",
    NoticeKind.DIGEST: "Digest",
    NoticeKind.TEST: "Notification",
}
FACTS = {
    "not_before": "NotBefore",
    "event_id": "event",
    "availability_set": "set",
    "resource_group": "resource group",
    "agent": "reported by",
    "runbook_url": "runbook",
}
"""Fields that follow the text, with their names there."""
CHAPTERS = {
    NoticeKind.HELD: "lbdrainhold",
    NoticeKind.AT_RISK: "lbdrainatrisk",
    NoticeKind.EVENT_LATE: "lbdrainlate",
    NoticeKind.EVENT_HIT: "lbdrainhitinrotation",
    NoticeKind.FAILED: "lbdrainarmfailing",
    NoticeKind.OUT_TOO_LONG: "lbdrainvmouttoolong",
    NoticeKind.SERVICE_UNREACHABLE: "troubleshooting",
    NoticeKind.NO_LEADER: "lbdrainnoleader",
    NoticeKind.UPDATE_FAILED: "troubleshooting",
    NoticeKind.UPDATE_UNKNOWN: "troubleshooting",
}
"""The chapters of the runbook about the kinds that may need an action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a notification comes from."""

    agent: str
    """The VM of the agent that sends it."""
    availability_set: str = ""
    resource_group: str = ""
    runbook_url: str = ""
    """The address of the runbook, without a chapter."""

    @property
    def set_label(self) -> str:
        """The set as a headline names it: `web in web-rg`."""
        return " in ".join(filter(None, (self.availability_set, self.resource_group)))

    def link(self, kind: NoticeKind) -> str:
        """Return the address of the chapter about a kind; empty without a runbook."""
        chapter = CHAPTERS.get(kind, "")
        return f"{self.runbook_url}#{chapter}" if self.runbook_url and chapter else self.runbook_url


@dataclass(frozen=True, slots=True)
class Message:
    """A notification as text."""

    title: str
    text: str
    """From the template of the channel, if it has one."""
    fields: Mapping[str, str]
    """Every field that a template may use."""
    id: str
    set_label: str = ""
    """The availability set as the headline names it."""

    @property
    def headline(self) -> str:
        """The title with the VM, if there is one, and the set as soon as it is known."""
        what = ": ".join(filter(None, (self.title, _cut(self.fields["vm"], MAX_NAMES))))
        return f"{what} ({self.set_label})" if self.set_label else what

    @property
    def body(self) -> str:
        """The text and the facts."""
        return "\n".join((self.text, "", *self._facts()))

    def chat(self, *, gap: str) -> str:
        """Return headline, text and facts, for receivers that limit the length of a message."""
        body = "\n".join((_cut(self.text, MAX_CHAT_TEXT), "", *self._facts()))
        return f"{self.headline}{gap}{body}"[:MAX_TEXT]

    def _facts(self) -> Iterator[str]:
        for name, words in FACTS.items():
            if self.fields[name]:
                yield f"{words}: {self.fields[name]}"


def render(notice: Notice, *, template: str, origin: Origin) -> Message:
    """Return a notice as text; one of a rehearsal begins with TEST, wherever people read it."""
    mark = "TEST: " if notice.test else ""
    written = mark + notice.text
    fields = {
        "text": written,
        "happening": notice.kind.value,
        "level": "warning" if notice.kind in PROBLEMS or notice.problem else "info",
        "vm": notice.vm,
        "event_id": notice.event_id,
        "event_type": notice.event_type,
        "not_before": _instant(notice.not_before),
        "at": _instant(notice.at),
        "agent": origin.agent,
        "availability_set": origin.availability_set,
        "resource_group": origin.resource_group,
        "runbook_url": origin.link(notice.kind),
    }
    text = mark + template.format_map({**fields, "text": notice.text}) if template else written
    title = mark + TITLES[notice.kind]
    return Message(title=title, text=text, fields=fields, id=notice.id, set_label=origin.set_label)


def webhook_body(message: Message) -> dict[str, Any]:
    """Return the JSON of a webhook: every field, each one a string."""
    return {"id": message.id, **message.fields, "text": message.text}


def slack_body(message: Message) -> dict[str, Any]:
    """Return the JSON of a Slack webhook."""
    text = message.chat(gap="\n")
    return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}


def teams_body(message: Message) -> dict[str, Any]:
    """Return the JSON of a Teams workflow."""
    text = message.chat(gap="\n\n")
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [{"type": "TextBlock", "text": text, "wrap": True}],
    }
    content_type = "application/vnd.microsoft.card.adaptive"
    return {"type": "message", "attachments": [{"contentType": content_type, "content": card}]}


def mail(message: Message, *, sender: str, to: tuple[str, ...]) -> EmailMessage:
    """Return the mail. A notice has the same Message-ID, whichever agent sends it."""
    letter = EmailMessage()
    letter["From"] = sender
    letter["To"] = ", ".join(to)
    letter["Subject"] = " ".join(f"[lb-drain] {message.headline}".split())[:MAX_SUBJECT]
    letter["Date"] = format_datetime(datetime.fromisoformat(message.fields["at"]))
    letter["Message-ID"] = f"<{message.id}@lb-drain.invalid>"
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content(message.body + "\n")
    return letter


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."


def _instant(instant: datetime | None) -> str:
    return "" if instant is None else instant.astimezone(UTC).isoformat(timespec="seconds")
