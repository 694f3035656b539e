"""Telling people for real: a herald, and receivers on sockets."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.clock import SystemClock
from controller.core.actions import Plan
from controller.core.happenings import Kind, told_in
from controller.core.ledger import Ledger
from controller.core.model import EventDocument, EventStatus, Policy, ScheduledEvent
from controller.messages import TITLES
from controller.notify import QUEUE_MOST, Herald
from controller.settings import Settings
from controller.simulator.tls import create_certificates

from .receivers import CANARY, Hook, open_mailbox

POOL = (
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg/providers"
    "/Microsoft.Network/loadBalancers/web/backendAddressPools/app"
)
EMPTY = Plan(ledger=None, actions=(), phases=(), holds=(), wake_at=None)


def settings(*channels: dict[str, object], ca_file: str = "") -> Settings:
    return Settings.model_validate(
        {
            "backend_pools": [{"id": POOL}],
            "election": {"container_url": "https://127.0.0.1/account/lb-drain"},
            "notifications": list(channels),
            "azure": {"ca_file": ca_file},
        }
    )


def event(name: str = "E-1") -> ScheduledEvent:
    return ScheduledEvent(
        event_id=name, event_type="Reboot", status=EventStatus.SCHEDULED, resources=("web-2",)
    )


class Teller:
    """A herald on its own, with the ledger that it marks."""

    def __init__(self, *channels: dict[str, object], ca_file: str = "") -> None:
        self.counts: Counter[str] = Counter()
        self.ended = asyncio.Condition()
        self.ledger = Ledger(epoch=1, leader_since=datetime.now(UTC))
        self._tasks: set[asyncio.Task[None]] = set()
        self.herald = Herald(
            settings(*channels, ca_file=ca_file),
            {},
            SystemClock(),
            policy=Policy(pools={}),
            count=self.count,
            answers=lambda _service, outcome: outcome == "ok",
            wake=lambda: None,
        )

    def count(self, _kind: str, outcome: str) -> None:
        self.counts[outcome] += 1
        self._tasks.add(asyncio.create_task(self.note()))

    async def note(self) -> None:
        async with self.ended:
            self.ended.notify_all()

    def announce(self, *events: ScheduledEvent) -> None:
        """Complete a pass with these events in the document."""
        document = EventDocument(incarnation=1, events=events)
        self.herald.passed(EMPTY, self.ledger, document, (document, document))

    def told(self) -> tuple[str, ...]:
        told = told_in(self.herald.mark(self.ledger))
        return told.ids if told else ()

    async def until_ended(self, count: int = 1) -> None:
        async with asyncio.timeout(20), self.ended:
            await self.ended.wait_for(lambda: self.counts.total() >= count)


@asynccontextmanager
async def telling(*channels: dict[str, object], ca_file: str = "") -> AsyncIterator[Teller]:
    teller = Teller(*channels, ca_file=ca_file)
    async with teller.herald:
        teller.herald.at_home("web-1", "web-as")
        yield teller


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once, and take two tenths of a second for a time-out."""
    monkeypatch.setattr("controller.notify.BACKOFF_S", (0.0, 0.0))
    monkeypatch.setattr("controller.messages._Poster.attempt_s", 0.2)
    monkeypatch.setattr("controller.messages._Mailer.attempt_s", 0.2)


async def test_a_webhook_is_told_once(hook: Hook) -> None:
    """One JSON object with every field; the next pass tells nothing new."""
    async with telling({"kind": "webhook", "url": hook.url}) as teller:
        teller.announce(event())
        await hook.until(lambda: hook.bodies)
        await teller.until_ended()
        teller.announce(event())
        teller.announce(event("E-2"))
        await hook.until(lambda: len(hook.bodies) == 2)
    first, second = hook.bodies
    assert (first["event_id"], second["event_id"]) == ("E-1", "E-2")
    assert set(first) == {
        *("id", "text", "happening", "level", "vm", "event_id", "event_type"),
        *("not_before", "at", "agent", "availability_set"),
    }
    assert first["text"] == "Reboot of web-2 announced"
    assert (first["agent"], first["availability_set"]) == ("web-1", "web-as")


async def test_a_template_writes_the_text(hook: Hook) -> None:
    """The template decides the text, and nothing else."""
    channel = {"kind": "webhook", "url": hook.url, "template": "{level} {{{vm}}}: {happening}"}
    async with telling(channel) as teller:
        teller.announce(event())
        await hook.until(lambda: hook.bodies)
    assert hook.bodies[0]["text"] == "info {web-2}: received"


@pytest.mark.usefixtures("quick")
async def test_an_error_and_then_success(hook: Hook) -> None:
    """A 500 and a 429 are tried again; what was told counts once, and goes into the ledger."""
    hook.script = [500, 429]
    async with telling({"kind": "webhook", "url": hook.url}) as teller:
        teller.announce(event())
        await hook.until(lambda: hook.bodies)
        await teller.until_ended()
        assert len(teller.told()) == 1
    assert hook.requests == 3
    assert teller.counts == {"delivered": 1}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("script", "requests"), [([500] * 9, 3), ([404] * 9, 1), ([302] * 9, 3)])
async def test_giving_up(
    hook: Hook, script: list[int], requests: int, caplog: pytest.LogCaptureFixture
) -> None:
    """After three attempts, or one that was refused, that is that; the log shows no secret."""
    hook.script = script
    hook.headers = {"Location": hook.url}
    async with telling({"kind": "webhook", "url": hook.url}) as teller:
        teller.announce(event())
        await teller.until_ended()
        assert len(teller.told()) == 1
    assert (hook.requests, hook.bodies) == (requests, [])
    assert teller.counts == {"failed": 1}
    [record] = [each for each in caplog.records if each.name == "controller.notify"]
    assert record.getMessage() == (
        f"notifications[0] (webhook) was not told that received happened: status {script[0]}"
    )
    assert CANARY not in caplog.text


@pytest.mark.usefixtures("quick")
async def test_a_receiver_that_hangs_or_is_not_there(
    hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    """Time-outs and refused connections are failures, told without the URL."""
    hook.hanging.clear()
    nowhere = "http://127.0.0.1:1/" + CANARY
    async with telling(
        {"kind": "webhook", "url": hook.url}, {"kind": "slack", "url": nowhere}
    ) as teller:
        teller.announce(event())
        await teller.until_ended(2)
    assert teller.counts == {"failed": 2}
    assert "no reply within 0.2 s" in caplog.text
    assert "ClientConnectorError" in caplog.text
    assert CANARY not in caplog.text


async def test_nobody_waits_for_a_receiver_that_hangs(hook: Hook) -> None:
    """A pass and a stop are quick, and of a full queue the oldest is given up."""
    hook.hanging.clear()
    teller = Teller({"kind": "webhook", "url": hook.url})
    async with teller.herald:
        teller.announce(event())
        await hook.until(lambda: hook.requests)
        events = [event(f"N-{n}") for n in range(QUEUE_MOST + 10)]
        began = time.monotonic()
        teller.announce(*events)
        passed_s = time.monotonic() - began
        assert len(teller.told()) == 10
        assert teller.counts == {"dropped": 10}
        began = time.monotonic()
    stopped_s = time.monotonic() - began
    assert passed_s < 0.5
    assert stopped_s < 1.0
    assert hook.bodies == []


async def test_who_ceases_to_lead_leaves_the_rest_to_the_successor(hook: Hook) -> None:
    """What waits in the queue is dropped, and told by the next leader from the ledger."""
    hook.hanging.clear()
    async with telling({"kind": "webhook", "url": hook.url}) as teller:
        teller.announce(event("E-1"), event("E-2"))
        await hook.until(lambda: hook.requests)
        teller.herald.stand_by()
        hook.hanging.set()
        await teller.until_ended()
        ledger = teller.herald.mark(teller.ledger)
    assert [body["event_id"] for body in hook.bodies] == ["E-1"]
    async with telling({"kind": "webhook", "url": hook.url}) as successor:
        successor.ledger = replace(ledger, epoch=2)
        successor.announce(event("E-1"), event("E-2"))
        await successor.until_ended()
    assert [body["event_id"] for body in hook.bodies] == ["E-1", "E-2"]


async def test_a_set_that_begins_to_notify_tells_no_old_stories(hook: Hook) -> None:
    """What the ledger says of the past was told by nobody, and is not told now."""
    now = datetime.now(UTC)
    async with telling({"kind": "webhook", "url": hook.url}) as teller:
        teller.ledger = teller.ledger.noting(at=now, vm="web-1", what="out")
        teller.announce()
        teller.ledger = teller.ledger.noting(at=now, vm="web-1", what="restored")
        teller.announce()
        await teller.until_ended()
    assert hook.told() == ["restored"]


async def test_silence_is_told_and_its_end(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent tells its own alarms once, and their end, whether it leads or not."""
    monkeypatch.setattr("controller.core.happenings.SILENT_S", 0.0)
    async with telling({"kind": "webhook", "url": hook.url}) as teller:
        for outcome in ("ok", "not_sent", "not_sent", "cancelled", "not_sent", "not_sent", "ok"):
            teller.herald.requested("imds", outcome)
        for seconds_ago in (59.0, 61.0, 62.0, 1.0):
            teller.herald.leader_seen(seconds_ago)
        teller.herald.stand_by()
        await teller.until_ended(4)
    assert hook.told() == ["silent", "answers_again", "no_leader", "leader_again"]
    assert hook.bodies[0]["text"] == (
        "the instance metadata service does not answer, as web-1 sees it"
    )


async def test_slack_is_sent_blocks(hook: Hook) -> None:
    """The golden shape of a Slack message: a fallback text, and three blocks of plain text."""
    channel = {"kind": "slack", "url": hook.url, "template": "<!channel> {text} & more"}
    async with telling(channel) as teller:
        teller.announce(event())
        await hook.until(lambda: hook.bodies)
    assert hook.bodies == [
        {
            "text": "Maintenance announced: &lt;!channel&gt; Reboot of web-2 announced &amp; more",
            "blocks": [
                {
                    "type": "header",
                    "text": {"type": "plain_text", "text": "Maintenance announced: web-2"},
                },
                {
                    "type": "section",
                    "text": {
                        "type": "plain_text",
                        "text": "<!channel> Reboot of web-2 announced & more",
                    },
                },
                {
                    "type": "context",
                    "elements": [
                        {"type": "plain_text", "text": "event: E-1"},
                        {"type": "plain_text", "text": "availability set: web-as"},
                        {"type": "plain_text", "text": "told by: web-1"},
                    ],
                },
            ],
        }
    ]


async def test_teams_is_sent_an_adaptive_card(hook: Hook) -> None:
    """The golden shape of a Teams message: one Adaptive Card in an attachment; 202 is success."""
    hook.script = [202]
    async with telling({"kind": "teams", "url": hook.url, "on": ["received"]}) as teller:
        teller.announce(event())
        await hook.until(lambda: hook.bodies)
        await teller.until_ended()
    assert teller.counts == {"delivered": 1}
    [body] = hook.bodies
    [attachment] = body["attachments"]
    assert body["type"] == "message"
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert attachment["content"] == {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            {
                "type": "TextBlock",
                "text": "Maintenance announced: web-2",
                "weight": "Bolder",
                "size": "Medium",
                "color": "Default",
                "wrap": True,
            },
            {"type": "TextBlock", "text": "Reboot of web-2 announced", "wrap": True},
            {
                "type": "FactSet",
                "facts": [
                    {"title": "event", "value": "E-1"},
                    {"title": "availability set", "value": "web-as"},
                    {"title": "told by", "value": "web-1"},
                ],
            },
        ],
    }


def mail_to(port: int) -> dict[str, object]:
    return {
        "kind": "email",
        "host": "127.0.0.1",
        "port": port,
        "encryption": "none",
        "sender": "lb-drain@example.com",
        "to": ["a@example.com", "b@example.com"],
    }


@pytest.mark.usefixtures("quick")
async def test_mail_is_sent() -> None:
    """A mail arrives with its subject, its recipients and an id that stays the same."""
    async with open_mailbox() as box, telling(mail_to(box.port)) as teller:
        box.script = ["451 later"]
        teller.announce(event())
        await teller.until_ended()
    [letter] = box.mails
    assert teller.counts == {"delivered": 1}
    assert letter["Subject"] == "[lb-drain] Maintenance announced: web-2"
    assert (letter["From"], letter["To"]) == (
        "lb-drain@example.com",
        "a@example.com, b@example.com",
    )
    assert letter["Message-ID"] == f"<{teller.told()[0]}@lb-drain.invalid>"
    assert letter["Auto-Submitted"] == "auto-generated"
    assert letter.get_content().splitlines()[:3] == ["Reboot of web-2 announced", "", "event: E-1"]
    assert box.recipients == ["a@example.com", "b@example.com"] * 2


@pytest.mark.usefixtures("quick")
async def test_mail_that_is_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    """A refusal is final, a server that says nothing is tried three times."""
    async with open_mailbox() as box, telling(mail_to(box.port)) as teller:
        box.script = ["554 no"]
        teller.announce(event())
        await teller.until_ended()
        assert box.connections == 1
        box.greets.clear()
        teller.announce(event(), event("E-2"))
        await teller.until_ended(2)
        assert box.connections == 4
    assert teller.counts == {"failed": 2}
    assert "SMTP status 554" in caplog.text
    assert "no reply within 0.2 s" in caplog.text


def with_login(port: int) -> dict[str, object]:
    """A channel that logs in, as every one does that says nothing of encryption."""
    given = {"encryption": "starttls", "username": "me", "password": CANARY}
    return {**mail_to(port), **given}


async def test_a_password_goes_out_over_tls(tmp_path: Path) -> None:
    """With STARTTLS and an authority that the configuration names, login and mail arrive."""
    certificates = create_certificates(tmp_path)
    async with (
        open_mailbox(certificates.server_context()) as box,
        telling(with_login(box.port), ca_file=str(certificates.ca_file)) as teller,
    ):
        teller.announce(event())
        await teller.until_ended()
    assert teller.counts == {"delivered": 1}
    assert box.logins == [f"\0me\0{CANARY}"]
    assert len(box.mails) == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("offers_tls", "error"),
    [(True, "SSLCertVerificationError"), (False, "SMTPNotSupportedError")],
)
async def test_a_password_never_goes_out_without_tls(
    tmp_path: Path, offers_tls: bool, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a server without STARTTLS nor one that nobody vouches for gets to see it."""
    tls = create_certificates(tmp_path).server_context() if offers_tls else None
    async with open_mailbox(tls) as box, telling(with_login(box.port)) as teller:
        teller.announce(event())
        await teller.until_ended()
    assert teller.counts == {"failed": 1}
    assert box.logins == box.recipients == []
    assert error in caplog.text
    assert CANARY not in caplog.text


def test_every_kind_has_a_title() -> None:
    """No happening goes out without a title."""
    assert set(TITLES) == set(Kind)
