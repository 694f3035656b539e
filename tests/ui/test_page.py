"""The status page in a real browser, before a real agent, before a simulated Azure.

The pictures in deploy/screenshots are made here:
    TEST_PICTURES=deploy/screenshots pytest tests/ui/test_page.py
"""

import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.agent.agent import Agent
from controller.agent.standby_ledger import READ_PERIOD_S
from controller.core.drain_history import Step
from controller.core.drain_requests import DRAIN_REQUEST
from controller.core.ledger import Entry, EventReference, Ledger
from controller.simulator.services.http_values import Service
from controller.status.server import StatusServer
from controller.storage.ledger_json import encode_ledger
from tests.conftest import OpenSet
from tests.support.in_process_set import NEVER_S, QUICK, InProcessSet
from tests.ui.browser import Tab, find_chromium, open_tab

CHROMIUM = find_chromium()
PICTURES = os.environ.get("TEST_PICTURES", "")
DESKTOP, PHONE = (860, 620), (390, 780)
AXE_FILE = Path(
    os.environ.get("AXE_CORE")
    or Path(__file__).parents[2] / ".ci" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
)
"""`npm ci --prefix .ci/axe` installs it. Without it, everything else is tested."""
AXE = AXE_FILE.read_text() if AXE_FILE.exists() else ""
STEP_S = 5.0
"""How long each phase lasts: the page asks every second, so a busy machine sees them all too."""

PHASES = [
    "in service",
    "draining",
    "out",
    "acknowledged",
    "in maintenance",
    "restoring",
    "in service",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium-headless-shell"),
]


@asynccontextmanager
async def page_of(agent: Agent, directory: Path) -> AsyncIterator[Tab]:
    """Serve an agent's page and open it."""
    async with (
        StatusServer("127.0.0.1:0", agent.live_status) as server,
        open_tab(CHROMIUM, directory, server.url) as tab,
    ):
        yield tab


async def picture(tab: Tab, name: str, size: tuple[int, int], scheme: str) -> None:
    """Look at the page on this screen, and keep what is seen where pictures are wanted."""
    await accessible(tab, name)
    await tab.look(width=size[0], height=size[1], scheme=scheme)
    assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    if PICTURES:
        seen = await tab.picture()
        Path(PICTURES, f"{name}.png").write_bytes(seen)  # noqa: ASYNC240 -- for people, not CI


async def accessible(tab: Tab, state: str) -> None:
    """Let axe-core examine the page, on a phone and on a desk, in both colour schemes."""
    if not AXE:
        return
    await tab.evaluate(AXE)
    for size in (DESKTOP, PHONE):
        for scheme in ("light", "dark"):
            await tab.look(width=size[0], height=size[1], scheme=scheme)
            found = await tab.evaluate(RUN_AXE)
            assert found == [], (state, size, scheme)


RUN_AXE = """axe.run(document, {resultTypes: ["violations", "incomplete"]}).then((found) =>
    [...found.violations, ...found.incomplete].map((each) =>
        `${each.id}: ${each.nodes.map((node) => node.html + node.failureSummary).join("; ")}`))"""
"""Undecided results count too: a reader cannot decide them either."""


async def lead(bench: InProcessSet, **options: Any) -> Agent:
    """Start the agents of the whole set; return the leader."""
    agent = await bench.lead("web-1", **options)
    for vm in ("web-2", "web-3"):
        await bench.stand_by(vm, **options)
    return agent


RECORD_PHASES = """
    globalThis.phases = [];
    const note = () => {
        const phase = document.querySelector("#vms tr:nth-child(2) .pill").innerText;
        if (phases.at(-1) !== phase) phases.push(phase);
    };
    new MutationObserver(note).observe(
        document.querySelector("#vms"), {subtree: true, childList: true, characterData: true});
    note();
"""


async def test_a_whole_drain(open_set: OpenSet, tmp_path: Path) -> None:
    """Every phase of a drain is shown, the page reads only from its agent, and nothing fails."""
    settings = {"operation_latency_s": STEP_S, "ack_starts_event_after_s": STEP_S}
    async with open_set(settings=settings) as bench:
        policy = {"connection_drain_s": STEP_S, "restore_settle_s": STEP_S, "close": False}
        agent = await lead(bench, overrides={"policy": policy})
        async with page_of(agent, tmp_path) as tab:
            await tab.until("in service", "#vms tr:last-child .pill")
            await tab.until("No event is announced.", "#events")
            await picture(tab, "idle", DESKTOP, "light")
            await tab.evaluate(RECORD_PHASES)
            await bench.announce("web-2", started_s=2 * STEP_S, impact_s=STEP_S)
            await tab.until("draining", "#vms .pill")
            await tab.until("web-2: draining.", "#changes")
            await tab.until("draining", "#events [aria-current=step]")
            await tab.until("acknowledged", "#vms .pill")
            await tab.until("acknowledged", "#events [aria-current=step]")
            assert "out of web-lb/app" in await tab.text("#vms tr:nth-child(2)")
            await picture(tab, "out", PHONE, "light")
            await tab.until("drained", "#past summary .pill")
            await tab.open("#past details")
            await tab.until("restored", "#past li.done:last-child")
            await tab.until("in service", "#history")
            await accessible(tab, "past event, open")
            assert "out of rotation" in await tab.text("#history"), "words, not stored text"
            await tab.until("in service", "#vms tr:nth-child(2) .pill")
            phases = await tab.evaluate("phases")
            steps = await tab.evaluate("[...document.querySelectorAll('.steps li')].length")
            done = await tab.evaluate("[...document.querySelectorAll('.steps li.done')].length")
    assert [phase for phase in phases if phase in PHASES] == PHASES
    assert (steps, done) == (7, 7)
    assert tab.complaints == []
    assert {url.removeprefix(tab.url) for url in tab.asked_for} == {
        "/",
        "/api/v1/overview",
    }


async def test_the_page_of_a_dry_run(bench: InProcessSet, tmp_path: Path) -> None:
    """Nothing is written, so nothing is said to be draining: a dry run shows what it would do."""
    agent = bench.start(overrides={"policy": {"dry_run": True}})
    async with page_of(agent, tmp_path) as tab:
        await tab.until("in service", "#vms tr:last-child .pill")
        await tab.until("Dry run. This agent writes nothing", "#notes")
        await bench.announce("web-2", notice_s=2000)
        await tab.until("drain would start in", "#events")
        await bench.announce("web-3")
        await tab.until("would drain", "#vms tr:last-child .pill")
        await tab.until("1 would drain", "#tiles")
        await tab.until("web-3: would drain.", "#changes")
    assert bench.writes() == []
    assert tab.complaints == []


async def test_who_is_out_by_hand(bench: InProcessSet, tmp_path: Path) -> None:
    """A request has a section of its own, which is there only if there is one, and no countdown."""
    now = bench.clock.now()
    entry = Entry(
        vm="web-2",
        vm_id="/vm/web-2",
        events=(EventReference(event_id="R-1", event_type=DRAIN_REQUEST),),
        memberships=(),
        recorded_at=now - timedelta(seconds=9),
        out_at=now,
    )
    detail = "by <b>ann</b> until 13:00 UTC: a new disk"
    ledger = Ledger().noting(at=entry.recorded_at, vm="web-2", step=Step.REQUESTED, detail=detail)
    bench.put_ledger(encode_ledger(ledger.with_entry(entry)))
    agent = bench.start(overrides={"policy": {"dry_run": True}})
    async with page_of(agent, tmp_path) as tab:
        await tab.until("Request for web-2", "#requested h3")
        await tab.until("Manual", "#requested .pill")
        await tab.until(detail, "#requested .facts")
        await tab.until("out", "#requested [aria-current=step]")
        assert await tab.evaluate("[...document.querySelectorAll('.steps li')].length") == 3
        await tab.until("No event is announced.", "#events")
        await tab.until("none", "#tiles div:nth-child(3)")
        for width, scheme in ((860, "dark"), (320, "light")):
            await tab.look(width=width, height=900, scheme=scheme)
            assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        bench.put_ledger(encode_ledger(ledger))
        await tab.evaluate(HIDDEN)
    assert tab.complaints == []


HIDDEN = """new Promise((done) => {
    const section = document.getElementById("s-requested");
    const look = () => section.hidden && done(true);
    new MutationObserver(look).observe(section, {attributes: true});
    look();
})"""


async def test_what_is_held_and_text_from_azure(bench: InProcessSet, tmp_path: Path) -> None:
    """A hold is shown with its reason, and what looks like HTML is shown as the text it is."""
    agent = await bench.lead()
    name, kind = "<script>alert(1)</script>", "<img src=x onerror=alert(2)>"
    event = {
        "EventId": "1 & <b>2</b>",
        "EventType": "Reboot",
        "ResourceType": "VirtualMachine",
        "Resources": ["web-2", name],
        "EventStatus": "Scheduled",
        "NotBefore": (bench.clock.now() + timedelta(minutes=9)).strftime(
            "%a, %d %b %Y %H:%M:%S GMT"
        ),
        "DurationInSeconds": -1,
        "EventSource": "Platform",
    }
    bench.document(
        {"DocumentIncarnation": 1, "Events": [event, {**event, "EventId": "2", "EventType": kind}]}
    )
    async with page_of(agent, tmp_path) as tab:
        await tab.until("unmanaged resource", "#problems")
        for part in ("#problems", "#events h3", "#events h4"):
            await tab.until(name, part)
        await tab.until(f"Reboot of web-2, {name}", "#events h3")
        await tab.until(f"{kind} of web-2, {name}", "#events h3")
        await tab.until("1 & <b>2</b>", "#events")
        assert await tab.evaluate("document.querySelectorAll('img, b, script').length") == 1
    assert tab.complaints == []


async def test_an_event_that_is_cancelled(bench: InProcessSet, tmp_path: Path) -> None:
    """An event that disappears before it starts is shown as cancelled, not as over."""
    agent = await bench.lead(overrides={"policy": {"acknowledge": False}})
    async with page_of(agent, tmp_path) as tab:
        event = await bench.announce("web-2")
        await tab.until("out", "#vms tr:nth-child(2) .pill")
        bench.world.events.cancel(event)
        await bench.server.notify()
        await tab.until("cancelled", "#past summary .pill")
        await tab.open("#past details")
        await tab.until("cancelled", "#past li.done .name")
        await tab.until("restored", "#past li.done:last-child")
        await tab.until("none", "#tiles div:nth-child(3)")
    assert tab.complaints == []


async def test_what_the_floor_holds(open_set: OpenSet, tmp_path: Path) -> None:
    """A VM that must stay because of the floor is shown as held, with the reason."""
    async with open_set() as bench:
        agent = await lead(bench, overrides={"backend_pools": {"min_in_service": 2}})
        async with page_of(agent, tmp_path) as tab:
            await tab.until("in service", "#vms tr:last-child .pill")
            await bench.announce("web-2", started_s=60)
            await tab.until("in maintenance", "#vms tr:nth-child(2) .pill")
            await bench.announce("web-3", notice_s=300)
            await tab.until("web-3 is held in rotation", "#problems")
            await tab.until("NotBefore in", "#problems .deadline")
            await tab.until("problem: web-3 is held in rotation", "#changes")
            await tab.until("held", "#vms tr:nth-child(3) .pill")
            await tab.until("1 out, 1 held", "#tiles")
            await picture(tab, "held", DESKTOP, "light")
    assert tab.complaints == []


async def test_a_vm_that_is_hit_in_rotation(open_set: OpenSet, tmp_path: Path) -> None:
    """The verdict is red at the top, with its event and in its list, and states the reason."""
    async with open_set() as bench:
        agent = await lead(bench, overrides={"backend_pools": {"min_in_service": 3}})
        async with page_of(agent, tmp_path) as tab:
            await tab.until("in service", "#vms tr:last-child .pill")
            await bench.announce("web-2", notice_s=2, started_s=4, impact_s=3)
            await tab.until("web-2 is in rotation, and its Reboot has started", "#problems")
            await tab.until("web-2 was hit in rotation: Reboot", "#problems")
            await tab.until("web-2 stays in pool app: 2 healthy members", "#problems")
            await tab.until("hit in rotation", "#past .pill.bad")
            await picture(tab, "hit", DESKTOP, "light")
    assert tab.complaints == []


async def test_a_write_that_azure_denies(bench: InProcessSet, tmp_path: Path) -> None:
    """A write that fails is shown as a hold with the error of Azure, and counted."""
    agent = await lead(bench)
    action, nic = "Microsoft.Network/networkInterfaces/write", "/subscriptions/s/web-2-nic"
    message = f"does not have authorization to perform action '{action}' over scope '{nic}'"
    body = json.dumps({"error": {"code": "AuthorizationFailed", "message": message}})
    async with page_of(agent, tmp_path) as tab:
        await tab.until("in service", "#vms tr:last-child .pill")
        bench.fault(Service.ARM, method="PUT", status=403, body=body)
        await bench.announce("web-2")
        await tab.until("cannot be written: Azure refuses it", "#problems")
        await tab.until(f"lacks {action} on {nic}", "#problems")
        await tab.open("#requests-folded")
        await tab.until("denied", "#requests")
        await tab.open("#requests-folded", False)
        await picture(tab, "denied", DESKTOP, "dark")
    assert tab.complaints == []


async def test_an_agent_that_goes_away(bench: InProcessSet, tmp_path: Path) -> None:
    """The page shows its age when the agent does not answer, and is live again when it does."""
    agent = await lead(bench)
    server = StatusServer("127.0.0.1:0", agent.live_status)
    await server.__aenter__()
    async with open_tab(CHROMIUM, tmp_path, server.url) as tab:
        await tab.until("in service", "#vms tr:last-child .pill")
        await server.__aexit__(None, None, None)
        await tab.until("The agent does not answer.", "#alerts")
        await tab.until("The agent does not answer.", "#changes")
        await tab.until("no answer for ", "#pulse")
        assert "in service" in await tab.text("#vms"), "what was known stays"
        await picture(tab, "away", PHONE, "dark")
        async with StatusServer(tab.url.removeprefix("http://"), agent.live_status):
            await tab.until("live", "#pulse")
            assert await tab.text("#alerts") == ""
    assert all("ERR_CONNECTION_REFUSED" in complaint for complaint in tab.complaints)


async def test_an_agent_that_does_not_run(bench: InProcessSet, tmp_path: Path) -> None:
    """A VM without an agent is named in the list, and at the top with a link to the runbook."""
    agent = await bench.lead(overrides={"links": {"runbook_url": "https://wiki.example/lb"}})
    await bench.stand_by("web-2")
    async with page_of(agent, tmp_path) as tab:
        await tab.until("An agent does not run", "#problems")
        await tab.until("web-3: never seen", "#problems")
        link = await tab.evaluate("document.querySelector('#problems a').href")
        assert link == "https://wiki.example/lb#lbdrainagentdown"
        await tab.until("agent not running", "#vms tr:last-child th .bad-text")
        await tab.until("standby", "#vms tr:nth-child(2) th")
    assert tab.complaints == []


async def test_a_vm_that_closes(open_set: OpenSet, tmp_path: Path) -> None:
    """While a VM closes, the page shows its side: since when, and the connections that are left."""
    async with open_set() as bench:
        policy = {**QUICK["policy"], "close": True, "connection_drain_s": 60}
        watch = {**QUICK["watch"], "standby_poll_s": 0.5}
        agent = await lead(bench, overrides={"policy": policy, "watch": watch})
        async with page_of(agent, tmp_path) as tab:
            await tab.until("in service", "#vms tr:last-child .pill")
            await bench.announce("web-2", notice_s=300)
            await tab.until("closed since", "#vms tr:nth-child(2) .note")
            await picture(tab, "closing", PHONE, "dark")
    assert tab.complaints == []


async def test_storage_that_does_not_answer(bench: InProcessSet, tmp_path: Path) -> None:
    """A standby that cannot read the ledger says so at the top, and keeps showing the rest."""
    await bench.lead("web-1")
    await bench.stand_by("web-2")
    standby = await bench.stand_by("web-3")
    async with page_of(standby, tmp_path) as tab:
        await tab.until("in service", "#vms tr:last-child .pill")
        await tab.until("No problem is known.", "#problems")
        bench.fault(Service.BLOB, status=503)
        await tab.until("Requests to storage fail", "#problems")
        assert "in service" in await tab.text("#vms tr:last-child")
        await picture(tab, "storage", DESKTOP, "light")
        bench.heal()
        await tab.until("No problem is known.", "#problems")
    assert tab.complaints == []


async def test_the_page_of_a_standby(bench: InProcessSet, tmp_path: Path) -> None:
    """A standby shows what its leader shows, and how to reach the page of the leader."""
    leader = await bench.lead("web-1")
    await bench.stand_by("web-2")
    standby = await bench.stand_by("web-3")
    event = await bench.announce("web-2", started_s=NEVER_S)
    await bench.until("acknowledged", lambda: 'acknowledged_at": "' in json.dumps(bench.ledger()))
    began, reads = time.monotonic(), blob_reads(standby)
    async with page_of(standby, tmp_path) as tab:
        await tab.until("standby on web-3, set web, resource group", "#whoami")
        await tab.until("standby, as of", "#pulse")
        await tab.until("web-1", "#tiles div:first-child")
        await tab.until("in maintenance", "#vms tr:nth-child(2) .pill")
        assert "out of web-lb/app" in await tab.text("#vms tr:nth-child(2)")
        assert "in web-lb/app" in await tab.text("#vms tr:nth-child(1)")
        assert "in service" in await tab.text("#vms tr:nth-child(1)")
        port = standby_port(tab)
        await tab.until(f"ssh -N -L {port + 1}:127.0.0.1:{port} web-1", "#notes code")
        await tab.until("event acknowledged", "#history")
        await tab.until("Reboot of web-2", "#events")
        await tab.until("standby, as of 4 s ago", "#pulse")
        await picture(tab, "standby", DESKTOP, "light")
        assert shown_vms(standby) == shown_vms(leader)
        bench.world.events.complete(event)
        await bench.server.notify()
        await tab.until("in service", "#vms tr:nth-child(2) .pill")
        await tab.until("drained", "#past .pill")
        assert shown_vms(standby) == shown_vms(leader)
    limit = 1 + (time.monotonic() - began) // READ_PERIOD_S
    blobs = 3 + 3  # ledger, drain requests, controls, and the presence of each agent
    assert blob_reads(standby) - reads <= blobs * limit
    assert tab.complaints == []


async def test_a_step_that_nobody_here_saw_says_so(bench: InProcessSet, tmp_path: Path) -> None:
    """An agent that starts after the drain knows that a step is done, and not since when."""
    await bench.lead("web-1")
    await bench.announce("web-2", started_s=NEVER_S)
    await bench.until("started", lambda: '"started"' in json.dumps(bench.ledger()["transitions"]))
    late = await bench.stand_by("web-3")
    async with page_of(late, tmp_path) as tab:
        await tab.until("not seen", "#events .steps li.done .at")
        assert "after it was done" in await tab.evaluate(
            "document.querySelector('#events .steps li.done .at [title]').title"
        )
    assert tab.complaints == []


def standby_port(tab: Tab) -> int:
    return int(tab.url.rpartition(":")[2])


def shown_vms(agent: Agent) -> list[tuple[str, str | None, object]]:
    return [(vm["vm"], vm["phase"], vm["pools"]) for vm in agent.live_status.overview()["vms"]]


async def test_times_are_local_until_utc_is_asked_for(bench: InProcessSet, tmp_path: Path) -> None:
    """The zone of the browser is named, and one key press shows UTC."""
    agent = await bench.lead()
    async with page_of(agent, tmp_path) as tab:
        await tab.call("Emulation.setTimezoneOverride", timezoneId="Asia/Kathmandu")
        await tab.until("UTC+05:45", "#zone-note")
        local = await tab.text("#history time")
        await tab.evaluate("document.getElementById('zone').focus()")
        await tab.press("Enter")
        await tab.until("UTC", "#zone")
        utc = await tab.text("#history time")
        shown = await tab.evaluate("document.querySelector('#history time').dateTime")
        assert utc[-8:] == shown[11:19]
        assert minutes(local) - minutes(utc) in {345, 345 - 24 * 60}
    assert tab.complaints == []


def minutes(text: str) -> int:
    hours, minute, _ = text[-8:].split(":")
    return int(hours) * 60 + int(minute)


def blob_reads(agent: Agent) -> int:
    return sum(
        each["ok"]
        for each in agent.live_status.overview()["requests"]
        if (each["service"], each["operation"]) == ("blob", "read")
    )


async def test_keyboard_and_screen_reader(bench: InProcessSet, tmp_path: Path) -> None:
    """The page has landmarks, headings and headers; Tab reaches everything; focus is never lost."""
    agent = await bench.lead()
    async with page_of(agent, tmp_path) as tab:
        await tab.until("in service", "#vms tr:last-child .pill")
        await tab.look(width=320, height=600)
        assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        reached = []
        for _ in range(8):
            await tab.press("Tab")
            reached.append(
                await tab.evaluate(
                    "document.activeElement.dataset.stop ?? document.activeElement.innerText"
                )
            )
        assert reached == [
            "Skip to the content",
            "requests",
            "local",
            "JSON",
            "status",
            "metrics",
            "health",
            "readiness",
        ]
        tree = (await tab.call("Accessibility.getFullAXTree"))["nodes"]
        seen: dict[str, list[str]] = {}
        for node in tree:
            role = node.get("role", {}).get("value")
            seen.setdefault(role, []).append(node.get("name", {}).get("value", ""))
        assert {"banner", "main", "navigation", "contentinfo", "status"} <= seen.keys()
        assert seen["heading"] == [
            "lb-drain",
            "Problems",
            "Summary",
            "VMs",
            "Scheduled events",
            "History",
            "Requests to Azure",
        ]
        assert {"VM", "Phase", "Pools"} <= set(seen["columnheader"])
        assert [each.split()[0] for each in seen["rowheader"][:3]] == ["web-1", "web-2", "web-3"]
        await tab.evaluate("document.querySelector('[data-stop]').focus()")
        assert await tab.evaluate(NEXT_CHANGE)
        assert await tab.evaluate("document.activeElement.dataset.stop") == "requests"


NEXT_CHANGE = """new Promise((done) => new MutationObserver(() => done(true)).observe(
    document.getElementById("tiles"), {subtree: true, childList: true, characterData: true}))"""
