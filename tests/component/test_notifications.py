"""The notification dispatcher with receivers on real sockets."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controller.config.in_force import ConfigurationInForce
from controller.config.schema import Settings
from controller.core.azure_names import SetName
from controller.core.drain_history import Step
from controller.core.events import EventDocument, EventStatus, ScheduledEvent
from controller.core.leader_absence import LeaderAbsence
from controller.core.ledger import Ledger
from controller.core.notices.notice import DeliveredNotices, NoticeKind
from controller.core.planning.actions import Plan
from controller.errors import ConfigError
from controller.notifications.channel import MAX_QUEUED
from controller.notifications.dispatcher import NotificationDispatcher
from controller.notifications.formats import TITLES
from controller.simulator.app.tls import create_certificates
from controller.storage.annotations import LedgerAnnotations
from controller.storage.notices_json import load_delivered, load_polls, with_delivered
from tests.support.clocks import StoppedClock
from tests.support.patience import PATIENCE_S, wait_for
from tests.support.receivers import CANARY, Hook, open_hook, open_mailbox

POOL = (
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg/providers"
    "/Microsoft.Network/loadBalancers/web/backendAddressPools/app"
)
NOW = datetime(2030, 1, 2, 12, tzinfo=UTC)
"""In the middle of a day and of a week: digests are of whole ones."""
EMPTY = Plan(ledger=None, actions=(), phases=(), holds=(), wake_at=None)


def settings(*channels: Mapping[str, object], ca_file: str = "") -> Settings:
    return Settings.model_validate(
        {
            "backend_pools": [{"id": POOL}],
            "election": {"container_url": "https://127.0.0.1/account/lb-drain"},
            "notifications": [dict(each) for each in channels],
            "azure": {"ca_file": ca_file},
        }
    )


def event(name: str = "E-1") -> ScheduledEvent:
    return ScheduledEvent(
        event_id=name, event_type="Reboot", status=EventStatus.SCHEDULED, resources=("web-2",)
    )


class Harness:
    """A dispatcher alone, with the ledger that it annotates."""

    def __init__(self, *channels: Mapping[str, object], ca_file: str = "") -> None:
        self.counts: Counter[str] = Counter()
        self.ended = asyncio.Condition()
        self.ledger = Ledger(epoch=1, leader_since=NOW)
        self._tasks: set[asyncio.Task[None]] = set()
        self.annotations = LedgerAnnotations()
        self.configuration = ConfigurationInForce(settings(*channels, ca_file=ca_file))
        self.dispatcher = NotificationDispatcher(
            self.configuration,
            {},
            StoppedClock(NOW.timestamp()),
            count=self.count,
            answers=lambda _service, outcome: outcome == "ok",
            annotate=self.annotations.queue,
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
        self.dispatcher.passed(EMPTY, self.ledger, document, (document, document), ())

    def delivered(self) -> tuple[str, ...]:
        delivered = load_delivered(self.annotations.merged_into(self.ledger))
        return delivered.ids if delivered else ()

    async def until_ended(self, count: int = 1) -> None:
        what = f"{count} ended deliveries"
        await wait_for(
            self.ended, what, lambda: self.counts.total() >= count, seen=lambda: self.counts
        )


@asynccontextmanager
async def dispatching(*channels: Mapping[str, object], ca_file: str = "") -> AsyncIterator[Harness]:
    harness = Harness(*channels, ca_file=ca_file)
    async with harness.dispatcher:
        harness.dispatcher.identify("web-1", SetName(name="web-as", resource_group="web-rg"))
        yield harness


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once."""
    monkeypatch.setattr("controller.notifications.channel.BACKOFF_S", (0.0, 0.0))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    """Time out after two tenths of a second, for receivers that never reply."""
    monkeypatch.setattr("controller.notifications.senders.POST_TIMEOUT_S", 0.2)
    monkeypatch.setattr("controller.notifications.senders.MAIL_TIMEOUT_S", 0.2)


async def test_a_webhook_receives_a_notice_once(hook: Hook) -> None:
    """One JSON object with every field; the next pass sends nothing again."""
    async with dispatching({"kind": "webhook", "url": hook.url}) as harness:
        harness.announce(event())
        await hook.until(lambda: hook.bodies)
        await harness.until_ended()
        harness.announce(event())
        harness.announce(event("E-2"))
        await hook.until(lambda: len(hook.bodies) == 2)
    first, second = hook.bodies
    assert (first["event_id"], second["event_id"]) == ("E-1", "E-2")
    assert set(first) == {
        *("id", "text", "happening", "level", "vm", "event_id", "event_type"),
        *("not_before", "at", "agent", "availability_set", "resource_group", "runbook_url"),
    }
    assert first["text"] == "Reboot of web-2 announced"
    assert (first["agent"], first["availability_set"]) == ("web-1", "web-as")


async def test_other_channels_take_the_place_of_the_old_ones(hook: Hook) -> None:
    """After a reload the new channel sends what comes next; nothing that was delivered again."""
    old = {"kind": "webhook", "url": hook.url, "template": "old {vm}"}
    new = {**old, "template": "new {vm}"}
    async with dispatching(old) as harness:
        harness.announce(event())
        await harness.until_ended()
        await harness.dispatcher.reopen(settings(new))
        harness.announce(event())
        harness.announce(event(), event("E-2"))
        await hook.until(lambda: len(hook.bodies) == 2)
        await harness.dispatcher.reopen(settings())
        harness.announce(event("E-3"))
    assert [each["text"] for each in hook.bodies] == ["old web-2", "new web-2"]
    assert hook.bodies[1]["agent"] == "web-1"


async def test_a_channel_whose_secret_is_missing_ends_no_other(hook: Hook) -> None:
    """A reload that cannot open a channel raises, and the old channels go on."""
    old = {"kind": "webhook", "url": hook.url}
    async with dispatching(old) as harness:
        with pytest.raises(ConfigError, match=r"notifications\[1\]"):
            await harness.dispatcher.reopen(
                settings(old, {"kind": "slack", "url_env": "NO_SUCH_VARIABLE"})
            )
        harness.announce(event())
        await hook.until(lambda: hook.bodies)


@pytest.mark.parametrize("between", ["", "a file that is missing for a moment"])
async def test_a_url_that_was_rotated_is_used_at_once(
    hook: Hook, tmp_path: Path, between: str
) -> None:
    """Neither a restart nor a reload is needed; a file that cannot be read changes nothing."""
    file = tmp_path / "url"
    file.write_text(f"{hook.url}?old\n")
    async with dispatching({"kind": "webhook", "url_file": str(file)}) as harness:
        harness.announce(event())
        await harness.until_ended()
        if between:
            file.unlink()
        else:
            file.write_text(f"{hook.url}?new\n")
        harness.announce(event(), event("E-2"))
        await harness.until_ended(2)
    assert hook.queries == ["old", "old" if between else "new"]
    assert harness.counts == {"delivered": 2}


async def test_a_ca_file_that_became_unusable_ends_no_channel(hook: Hook, tmp_path: Path) -> None:
    """A reload while the file is replaced is refused; an error of TLS would end the agent."""
    ca_file, old = create_certificates(tmp_path).ca_file, {"kind": "webhook", "url": hook.url}
    async with dispatching(old, ca_file=str(ca_file)) as harness:
        for broken in (lambda: ca_file.write_text("half"), ca_file.unlink):
            broken()
            with pytest.raises(ConfigError, match="ca_file"):
                await harness.dispatcher.reopen(settings({**old, "template": "new {vm}"}))
        harness.announce(event())
        await hook.until(lambda: hook.bodies)
    assert hook.bodies[0]["text"] == "Reboot of web-2 announced"


async def test_what_waits_in_a_queue_survives_a_reload(hook: Hook) -> None:
    """Notices that the old channel did not send leave by the new one."""
    old = {"kind": "webhook", "url": hook.url}
    async with dispatching(old) as harness:
        harness.announce(event())
        harness.dispatcher.leader_missing(True)
        await harness.dispatcher.reopen(settings({**old, "template": "new {happening}"}))
        harness.announce(event())
        await hook.until(lambda: len(hook.bodies) == 2)
    assert {each["text"] for each in hook.bodies} == {"new no_leader", "new received"}


async def test_what_is_being_sent_survives_a_reload(
    hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old receiver does not answer. No pass derives what one agent reports a second time."""
    monkeypatch.setattr("controller.notifications.dispatcher.END_WITHIN_S", 0.0)
    old = {"kind": "webhook", "url": hook.url}
    hook.hanging.clear()
    async with dispatching(old) as harness:
        harness.dispatcher.leader_missing(True)
        await hook.until(lambda: hook.requests)
        async with open_hook() as other:
            await harness.dispatcher.reopen(settings({**old, "url": other.url}))
            await other.until(lambda: other.bodies)
    assert other.kinds() == ["no_leader"]


async def test_a_channel_that_stays_gets_nothing_twice_at_a_reload(hook: Hook) -> None:
    """The URL of a channel that hangs is corrected: the other one has sent all that it had."""
    stays = {"kind": "webhook", "url": hook.url}
    async with open_hook() as hangs, open_hook() as corrected:
        hangs.hanging.clear()
        async with dispatching(stays, {**stays, "url": hangs.url}) as harness:
            harness.announce(event("E-1"), event("E-2"))
            harness.dispatcher.leader_missing(True)
            await harness.until_ended(3)
            await harness.dispatcher.reopen(settings(stays, {**stays, "url": corrected.url}))
            harness.announce(event("E-1"), event("E-2"))
            await harness.until_ended(6)
            assert len(harness.delivered()) == 2
            harness.announce(event("E-1"), event("E-2"))
    assert hook.kinds() == corrected.kinds() == ["received", "received", "no_leader"]
    assert harness.counts == {"delivered": 6}


async def test_what_an_agent_reports_is_queued_once_for_each_channel_after_a_reload(
    hook: Hook,
) -> None:
    """Two channels had it, which is no reason to send it twice."""
    old = {"kind": "webhook", "url": hook.url}
    async with dispatching({**old, "template": "a"}, {**old, "template": "b"}) as harness:
        harness.dispatcher.leader_missing(True)
        await harness.dispatcher.reopen(settings({**old, "template": "new"}))
        await hook.until(lambda: hook.bodies)
        await harness.until_ended()
    assert [each["text"] for each in hook.bodies] == ["new"]


async def test_a_template_writes_the_text(hook: Hook) -> None:
    """The template decides the text, and nothing else."""
    channel = {"kind": "webhook", "url": hook.url, "template": "{level} {{{vm}}}: {happening}"}
    async with dispatching(channel) as harness:
        harness.announce(event())
        await hook.until(lambda: hook.bodies)
    assert hook.bodies[0]["text"] == "info {web-2}: received"


@pytest.mark.usefixtures("quick")
async def test_an_error_and_then_success(hook: Hook) -> None:
    """A 500 and a 429 are retried; the delivery counts once, and goes into the ledger."""
    hook.script = [500, 429]
    async with dispatching({"kind": "webhook", "url": hook.url}) as harness:
        harness.announce(event())
        await hook.until(lambda: hook.bodies)
        await harness.until_ended()
        assert len(harness.delivered()) == 1
    assert hook.requests == 3
    assert harness.counts == {"delivered": 1}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("script", "requests"), [([500] * 9, 3), ([404] * 9, 1), ([302] * 9, 3)])
async def test_giving_up(
    hook: Hook, script: list[int], requests: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Three attempts, or one that is refused, and no more; the log shows no secret."""
    hook.script = script
    hook.headers = {"Location": hook.url}
    async with dispatching({"kind": "webhook", "url": hook.url}) as harness:
        harness.announce(event())
        await harness.until_ended()
        assert len(harness.delivered()) == 1
    assert (hook.requests, hook.bodies) == (requests, [])
    assert harness.counts == {"failed": 1}
    [record] = [each for each in caplog.records if each.name == "lbdrain.notifications"]
    assert record.getMessage() == (
        "notifications[0] (webhook): the notification received was not delivered: "
        f"status {script[0]}"
    )
    assert CANARY not in caplog.text


async def test_a_digest_is_sent_once_to_the_channels_that_want_it(hook: Hook) -> None:
    """A leader that is elected late sends the last digest; its successor does not repeat it."""
    wanting = {"kind": "webhook", "url": hook.url, "on": ["failed"], "digest": "weekly"}
    async with dispatching(wanting, {"kind": "webhook", "url": hook.url}) as harness:
        harness.ledger = with_delivered(harness.ledger, DeliveredNotices())
        harness.announce()
        await harness.until_ended()
        harness.announce()
        ledger = replace(harness.annotations.merged_into(harness.ledger), epoch=2)
    assert hook.kinds() == ["digest"]
    assert "no scheduled event" in hook.bodies[0]["text"]
    assert "polls of scheduled events from" in hook.bodies[0]["text"]
    async with dispatching(wanting) as successor:
        successor.ledger = ledger
        successor.announce()
        successor.announce(event())
    assert hook.kinds() == ["digest"]


async def test_a_set_that_begins_to_notify_sends_no_digest_of_the_past(hook: Hook) -> None:
    """The first digest is that of the first whole period."""
    async with dispatching({"kind": "webhook", "url": hook.url, "digest": "daily"}) as harness:
        harness.announce(event())
        await harness.until_ended()
    assert hook.kinds() == ["received"]


async def test_the_leader_counts_polls_for_its_digest(
    hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the leader counts, and only now and then the ledger is written for it."""
    async with dispatching({"kind": "webhook", "url": hook.url, "digest": "daily"}) as harness:
        harness.dispatcher.polled(succeeded=True)
        harness.announce()
        for succeeded in (True, True, False):
            harness.dispatcher.polled(succeeded=succeeded)
        harness.announce()
        assert "polls" not in harness.annotations.merged_into(harness.ledger).extra
        monkeypatch.setattr("controller.notifications.dispatcher.KEEP_S", 0.0)
        harness.announce()
        harness.dispatcher.stand_by()
        harness.dispatcher.polled(succeeded=True)
        kept = load_polls(harness.annotations.merged_into(harness.ledger))
    assert [(each.succeeded, each.failed) for each in kept.days.values()] == [(2, 1)]


@pytest.mark.usefixtures("impatient")
async def test_a_receiver_that_hangs_or_is_not_there(
    hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    """Timeouts and refused connections are failures, and are logged without the URL."""
    hook.hanging.clear()
    nowhere = "http://127.0.0.1:1/" + CANARY
    async with dispatching(
        {"kind": "webhook", "url": hook.url}, {"kind": "slack", "url": nowhere}
    ) as harness:
        harness.announce(event())
        await harness.until_ended(2)
    assert harness.counts == {"failed": 2}
    assert "no reply within 0.2 s" in caplog.text
    assert "the receiver cannot be reached" in caplog.text
    assert CANARY not in caplog.text


async def test_names_that_hang_take_no_thread_of_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of Azure are resolved in the threads of the event loop, which are few on a small VM."""
    loop, answered, lock = asyncio.get_running_loop(), threading.Event(), threading.Lock()
    asked: set[str] = set()
    changed = asyncio.Condition()
    resolve = socket.getaddrinfo

    async def note() -> None:
        async with changed:
            changed.notify_all()

    def hang(host: str, *arguments: Any, **options: Any) -> Any:
        if host.endswith(".invalid"):
            with lock:
                asked.add(host)
            asyncio.run_coroutine_threadsafe(note(), loop)
            answered.wait(PATIENCE_S)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    loop.set_default_executor(ThreadPoolExecutor(2))
    channels = [{"kind": "webhook", "url": f"https://hook-{n}.invalid/"} for n in range(4)]
    async with dispatching(*channels) as harness:
        harness.announce(event())
        try:
            await wait_for(changed, "names", lambda: len(asked) >= 2, seen=lambda: asked)
            async with asyncio.timeout(PATIENCE_S / 10):
                assert await loop.getaddrinfo("127.0.0.1", 443)
        finally:
            answered.set()


async def test_a_name_is_resolved(hook: Hook) -> None:
    """A receiver that has IPv4 and IPv6 addresses gets the message at one of them."""
    url = hook.url.replace("127.0.0.1", "localhost")
    async with dispatching({"kind": "webhook", "url": url}) as harness:
        harness.announce(event())
        await harness.until_ended()
    assert harness.counts == {"delivered": 1}


@pytest.mark.usefixtures("quick")
async def test_a_name_without_an_address(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log states it in words, and not the name."""

    def none(*_arguments: Any, **_options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", none)
    async with dispatching({"kind": "webhook", "url": f"https://{CANARY}.invalid/"}) as harness:
        harness.announce(event())
        await harness.until_ended()
    assert "the name of the receiver cannot be resolved" in caplog.text
    assert CANARY not in caplog.text


async def test_nothing_waits_for_a_receiver_that_hangs(
    hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a pass nor a stop waits for a reply, and a full queue drops its oldest notices."""
    monkeypatch.setattr("controller.notifications.senders.POST_TIMEOUT_S", 10 * PATIENCE_S)
    hook.hanging.clear()
    harness = Harness({"kind": "webhook", "url": hook.url})
    async with asyncio.timeout(PATIENCE_S), harness.dispatcher:
        harness.announce(event())
        await hook.until(lambda: hook.requests)
        events = [event(f"N-{n}") for n in range(MAX_QUEUED + 10)]
        harness.announce(*events)
        assert len(harness.delivered()) == 10
        assert harness.counts == {"dropped": 10}
    assert hook.bodies == []


async def test_the_next_leader_sends_what_is_queued(hook: Hook) -> None:
    """Queued notices are dropped, and the next leader derives and sends them."""
    hook.hanging.clear()
    async with dispatching({"kind": "webhook", "url": hook.url}) as harness:
        harness.announce(event("E-1"), event("E-2"))
        await hook.until(lambda: hook.requests)
        harness.dispatcher.stand_by()
        hook.hanging.set()
        await harness.until_ended()
        ledger = harness.annotations.merged_into(harness.ledger)
    assert [body["event_id"] for body in hook.bodies] == ["E-1"]
    async with dispatching({"kind": "webhook", "url": hook.url}) as successor:
        successor.ledger = replace(ledger, epoch=2)
        successor.announce(event("E-1"), event("E-2"))
        await successor.until_ended()
    assert [body["event_id"] for body in hook.bodies] == ["E-1", "E-2"]


async def test_a_set_that_begins_to_notify_sends_nothing_of_the_past(hook: Hook) -> None:
    """Past transitions in the ledger were not sent, and are not sent now."""
    async with dispatching({"kind": "webhook", "url": hook.url}) as harness:
        harness.ledger = harness.ledger.noting(at=NOW, vm="web-1", step=Step.OUT)
        harness.announce()
        harness.ledger = harness.ledger.noting(at=NOW, vm="web-1", step=Step.RESTORED)
        harness.announce()
        await harness.until_ended()
    assert hook.kinds() == ["restored"]


async def test_channels_that_come_back_send_nothing_of_the_time_without_them(hook: Hook) -> None:
    """The leader had a record of what was delivered before that."""
    channel = {"kind": "webhook", "url": hook.url}
    async with dispatching(channel) as harness:
        harness.announce()
        for channels, step in (((), Step.OUT), ((channel,), Step.RESTORED)):
            await harness.dispatcher.reopen(settings(*channels))
            harness.configuration.reload(settings(*channels))
            harness.announce()
            harness.ledger = harness.annotations.merged_into(harness.ledger)
            harness.ledger = harness.ledger.noting(at=NOW, vm="web-1", step=step)
            harness.announce()
        await harness.until_ended()
    assert hook.kinds() == ["restored"]


async def test_an_outage_and_its_end_are_sent(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every agent sends its own alarms once, and their end, leader or not."""
    monkeypatch.setattr("controller.core.notices.agent_notices.OUTAGE_S", 0.0)
    async with dispatching({"kind": "webhook", "url": hook.url}) as harness:
        for outcome in ("ok", "not_sent", "not_sent", "cancelled", "not_sent", "not_sent", "ok"):
            harness.dispatcher.request_ended("imds", outcome)
        absence = LeaderAbsence(lease_duration_s=30)
        for seconds_ago in (59.0, 61.0, 62.0, 1.0):
            before, absence = absence, absence.after(seconds_ago)
            if absence is not before:
                harness.dispatcher.leader_missing(absence.missing)
        harness.dispatcher.stand_by()
        await harness.until_ended(4)
    assert hook.kinds() == ["silent", "answers_again", "no_leader", "leader_again"]
    assert hook.bodies[0]["text"] == (
        "the instance metadata service does not respond (reported by web-1)"
    )


async def test_the_end_of_an_outage_is_sent_by_an_agent_that_was_a_standby_meanwhile(
    hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby does not call Resource Manager; its alarm would last for ever. What was no outage
    yet is forgotten."""
    monkeypatch.setattr("controller.core.notices.agent_notices.OUTAGE_S", 0.0)
    async with dispatching({"kind": "webhook", "url": hook.url}) as harness:
        for service, outcomes in (
            ("network", ("not_sent", "not_sent", "not_sent", "stand by", "not_sent", "ok")),
            ("compute", ("not_sent", "not_sent", "stand by", "not_sent", "ok")),
        ):
            for outcome in outcomes:
                if outcome == "stand by":
                    harness.dispatcher.stand_by()
                else:
                    harness.dispatcher.request_ended(service, outcome)
        await harness.until_ended(2)
    assert [(each["happening"], "network" in each["text"]) for each in hook.bodies] == [
        ("silent", True),
        ("answers_again", True),
    ]


async def test_slack_is_sent_text(hook: Hook) -> None:
    """The golden shape of a Slack message: one text in which no name can mention a channel."""
    channel = {"kind": "slack", "url": hook.url, "template": "<!channel> {text} & more"}
    async with dispatching(channel) as harness:
        harness.announce(event())
        await hook.until(lambda: hook.bodies)
    lines = (
        "Maintenance announced: web-2 (web-as in web-rg)",
        "&lt;!channel&gt; Reboot of web-2 announced &amp; more",
        "",
        "event: E-1",
        "set: web-as",
        "resource group: web-rg",
        "reported by: web-1",
    )
    assert hook.bodies == [{"text": "\n".join(lines)}]


async def test_teams_is_sent_an_adaptive_card(hook: Hook) -> None:
    """The golden shape of a Teams message: one Adaptive Card in an attachment; 202 is success."""
    hook.script = [202]
    async with dispatching({"kind": "teams", "url": hook.url, "on": ["received"]}) as harness:
        harness.announce(event())
        await hook.until(lambda: hook.bodies)
        await harness.until_ended()
    assert harness.counts == {"delivered": 1}
    [body] = hook.bodies
    [attachment] = body["attachments"]
    assert body["type"] == "message"
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    lines = (
        "Maintenance announced: web-2 (web-as in web-rg)",
        "",
        "Reboot of web-2 announced",
        "",
        "event: E-1",
        "set: web-as",
        "resource group: web-rg",
        "reported by: web-1",
    )
    assert attachment["content"] == {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [{"type": "TextBlock", "text": "\n".join(lines), "wrap": True}],
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
    async with open_mailbox() as box, dispatching(mail_to(box.port)) as harness:
        box.script = ["451 later"]
        harness.announce(event())
        await harness.until_ended()
    [letter] = box.mails
    assert harness.counts == {"delivered": 1}
    assert letter["Subject"] == "[lb-drain] Maintenance announced: web-2 (web-as in web-rg)"
    assert (letter["From"], letter["To"]) == (
        "lb-drain@example.com",
        "a@example.com, b@example.com",
    )
    assert letter["Message-ID"] == f"<{harness.delivered()[0]}@lb-drain.invalid>"
    assert letter["Auto-Submitted"] == "auto-generated"
    assert letter.get_content().splitlines()[:3] == ["Reboot of web-2 announced", "", "event: E-1"]
    assert box.recipients == ["a@example.com", "b@example.com"] * 2


@pytest.mark.usefixtures("quick")
async def test_mail_that_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """A refusal is final."""
    async with open_mailbox() as box, dispatching(mail_to(box.port)) as harness:
        box.script = ["554 no"]
        harness.announce(event())
        await harness.until_ended()
    assert (box.connections, harness.counts) == (1, {"failed": 1})
    assert "SMTP status 554" in caplog.text


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("answer", ["550 unknown", "450 later"])
async def test_mail_that_is_refused_for_one_recipient(
    answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says that one has not got it; the other one gets it once."""
    async with open_mailbox() as box, dispatching(mail_to(box.port)) as harness:
        box.refused = {"b@example.com": answer}
        harness.announce(event())
        await harness.until_ended()
    assert (len(box.mails), harness.counts) == (1, {"delivered": 1})
    [record] = [each for each in caplog.records if each.name == "lbdrain.notifications"]
    assert record.getMessage() == (
        "notifications[0] (email): the notification received was not delivered to every "
        f"recipient: SMTP status {answer[:3]} for 1 of 2 recipients"
    )


@pytest.mark.usefixtures("quick")
async def test_mail_that_was_accepted_is_not_sent_again() -> None:
    """What a server says when the connection ends changes nothing about the mail it has taken."""
    async with open_mailbox() as box, dispatching(mail_to(box.port)) as harness:
        box.farewell = "421 closing"
        harness.announce(event())
        await harness.until_ended()
    assert (len(box.mails), harness.counts) == (1, {"delivered": 1})


@pytest.mark.usefixtures("impatient")
async def test_mail_to_a_server_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """A mail server that does not respond is tried three times."""
    async with open_mailbox() as box, dispatching(mail_to(box.port)) as harness:
        box.greets.clear()
        harness.announce(event())
        await harness.until_ended()
    assert (box.connections, harness.counts) == (3, {"failed": 1})
    assert "no reply within 0.2 s" in caplog.text


def with_login(port: int) -> dict[str, object]:
    """A channel that logs in, with the default encryption."""
    given = {"encryption": "starttls", "username": "me", "password": CANARY}
    return {**mail_to(port), **given}


async def test_a_password_goes_out_over_tls(tmp_path: Path) -> None:
    """With STARTTLS and an authority that the configuration names, login and mail arrive."""
    certificates = create_certificates(tmp_path)
    async with (
        open_mailbox(certificates.server_context()) as box,
        dispatching(with_login(box.port), ca_file=str(certificates.ca_file)) as harness,
    ):
        harness.announce(event())
        await harness.until_ended()
    assert harness.counts == {"delivered": 1}
    assert box.logins == [f"\0me\0{CANARY}"]
    assert len(box.mails) == 1


async def test_a_password_that_was_rotated_is_used_at_once(tmp_path: Path) -> None:
    """The next message logs in with it."""
    certificates, file = create_certificates(tmp_path), tmp_path / "password"
    file.write_text("old")
    async with open_mailbox(certificates.server_context()) as box:
        channel = {**with_login(box.port), "password_file": str(file)}
        del channel["password"]
        async with dispatching(channel, ca_file=str(certificates.ca_file)) as harness:
            harness.announce(event())
            await harness.until_ended()
            file.write_text("new")
            harness.announce(event(), event("E-2"))
            await harness.until_ended(2)
    assert box.logins == ["\0me\0old", "\0me\0new"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("offers_tls", "error"),
    [(True, "certificate of the receiver is not trusted"), (False, "offers no STARTTLS")],
)
async def test_a_password_never_goes_out_without_tls(
    tmp_path: Path, offers_tls: bool, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A server without STARTTLS, or with an unknown certificate, does not receive it."""
    tls = create_certificates(tmp_path).server_context() if offers_tls else None
    async with open_mailbox(tls) as box, dispatching(with_login(box.port)) as harness:
        harness.announce(event())
        await harness.until_ended()
    assert harness.counts == {"failed": 1}
    assert box.logins == box.recipients == []
    assert error in caplog.text
    assert CANARY not in caplog.text


def test_every_kind_has_a_title() -> None:
    """No notice is sent without a title."""
    assert set(TITLES) == set(NoticeKind)
