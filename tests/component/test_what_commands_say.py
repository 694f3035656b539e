"""What commands of operators say about what stays, what is replaced, and what cannot be done."""

import asyncio
import signal
from pathlib import Path

import pytest

from controller.core.controls import Decision
from controller.core.event_record import WatchedEvent
from controller.errors import NotDone
from controller.operator.controls import announced, decide, pause
from controller.operator.drain_client import connect
from controller.operator.event_rehearsal import EventRehearsal
from controller.operator.overrides import override
from tests.component.conftest import OpenClient
from tests.component.test_controls import run
from tests.component.test_lost_replies import put_ledger
from tests.component.test_lost_terminal import command, ended
from tests.component.test_manual_drain import blob
from tests.support.in_process_set import QUICK, InProcessSet
from tests.support.lb_drain import printed


async def test_a_timeout_does_not_hide_what_cannot_be_drained(
    bench: InProcessSet, clients: OpenClient
) -> None:
    """One request is withdrawn during the wait: it does not stay in effect."""
    drain = ("drain", "web-2", "web-3", "--wait", "--timeout", "6s")
    waiting = asyncio.create_task(run(bench, *drain, code=124))
    await bench.until("requested", lambda: blob(bench).get("requests"))
    async with clients() as eve:
        await eve.restore("web-3")
    said = await waiting
    assert "the drain request for web-3 was withdrawn by" in said
    assert "not drained when --timeout ended the wait: web-2. The requests stay" in said


async def test_the_wait_for_what_is_forgotten_ends(bench: InProcessSet) -> None:
    """Without a leader nothing is forgotten; the request stays in effect."""
    put_ledger(bench, lost=True)
    wait = ("--yes", "--wait", "--timeout", "2s")
    said = await run(bench, "forget", "web-2", *wait, code=124)
    assert "web-2 is not forgotten when --timeout ended the wait. The request stays" in said


async def test_an_interrupted_wait_says_what_stays(bench: InProcessSet, tmp_path: Path) -> None:
    """The drain is shown when it is requested, also in a file; ^C shows how to end it."""
    out = tmp_path / "out"
    drain = await command(bench, "drain", "web-2", "--wait", stdout=out)
    await bench.until("requested", lambda: "Drain of web-2 requested" in out.read_text())
    drain.send_signal(signal.SIGINT)
    assert await ended(drain) == 130
    assert "The requests stay in effect. To end it now: lb-drain restore web-2" in out.read_text()


async def test_a_vm_that_cannot_be_restored_hides_no_other(bench: InProcessSet) -> None:
    """The wait goes on for the VMs behind it."""
    put_ledger(bench, lost=True)
    said = await run(bench, "restore", "web-2", "web-3", "--wait", code=1)
    assert "web-3 is not drained." in said
    assert "web-2 is not restored to app" in said


async def test_what_another_operator_has_set_is_not_replaced_unseen(
    bench: InProcessSet, clients: OpenClient, reported: list[str]
) -> None:
    """A pause, a decision and a setting have one value, and its author reads whose it ended."""
    settings = bench.settings(bench.config("web-1"))
    async with clients() as client:
        event = WatchedEvent(event_id="E-1", event_type="Reboot", first_seen_at=client.now())
        for client.requester in ("ann", "bob", "bob"):
            await pause(client, for_s=600, reason="migration")
            await decide(client, event, Decision.HOLD, for_s=600, reason="batch job")
            await override(client, settings, "lead_time_s=600", pool="", for_s=600, reason="")
    replaced = [line.partition(" until ")[0] for line in reported]
    assert replaced == [
        "This replaces: removals are paused by ann",
        "This replaces: event E-1 is not acknowledged, decided by ann",
        "This replaces: lead_time_s=600, set by ann",
    ]


async def test_a_test_event_is_not_decided_about(bench: InProcessSet, clients: OpenClient) -> None:
    """Azure does not know it, so the leader never acknowledges it."""
    await bench.lead("web-1")
    async with clients() as client, clients() as other:
        rehearsal = EventRehearsal(client, event_type="Reboot", notice_s=600, lasts_s=10)
        rehearsing = asyncio.create_task(rehearsal.run(("web-2",)))
        await bench.until("watched", lambda: bench.ledger().get("events"))
        with pytest.raises(NotDone, match="is a test, which Azure does not know"):
            await announced(other, "test-", Decision.ACKNOWLEDGE)
        rehearsing.cancel()
        await asyncio.gather(rehearsing, return_exceptions=True)


async def test_nothing_is_acknowledged_in_a_dry_run(bench: InProcessSet) -> None:
    """The command does not promise what no agent does."""
    config = bench.config("web-1", {**QUICK, "policy": {**QUICK["policy"], "dry_run": True}})
    assert "nothing is requested" in await printed(config, "acknowledge", "AAAA", code=1)


async def test_a_requester_with_an_unprintable_name_knows_its_own_requests(
    bench: InProcessSet,
) -> None:
    """The blob has the name in printable form."""
    settings = bench.settings(bench.config("web-1"))
    environ = {"SUDO_USER": "an\u200bn"}
    async with connect(
        settings, environ=environ, clock=bench.clock, report=lambda _: None
    ) as client:
        await client.drain("web-2", for_s=600, reason="")
        await client.drain("web-2", for_s=900, reason="")
        assert len((await client.restore("web-2")).withdrawn) == 2
