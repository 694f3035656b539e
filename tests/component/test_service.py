"""The agent as a service: what systemd hears of it, and what its status page says."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.agent.agent import Agent
from controller.azure.http.request_labels import OPERATIONS
from controller.simulator.services.faults import Effect
from controller.simulator.services.http_values import Service
from controller.status.server import StatusServer
from tests.support.in_process_set import InProcessSet


class Systemd:
    """Receives what a service tells its manager."""

    def __init__(self, sock: socket.socket, address: str) -> None:
        self._sock = sock
        self.environ = {"NOTIFY_SOCKET": address}
        self._heard: list[str] = []

    def read(self) -> None:
        """Take what has arrived; the queue of a socket is short."""
        with suppress(BlockingIOError):
            while True:
                self._heard.append(self._sock.recv(4096).decode())

    def heard(self, begin: str = "") -> list[str]:
        """Return every message so far that begins like this."""
        self.read()
        return [message for message in self._heard if message.startswith(begin)]


@pytest.fixture
async def systemd(tmp_path: Path) -> AsyncIterator[Systemd]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(str(tmp_path / "notify"))
        manager = Systemd(sock, str(tmp_path / "notify"))
        asyncio.get_running_loop().add_reader(sock, manager.read)
        yield manager
        asyncio.get_running_loop().remove_reader(sock)


async def test_systemd_hears_of_every_stage(bench: InProcessSet, systemd: Systemd) -> None:
    """READY comes once and at home, WATCHDOG with every pass, STATUS changes, STOPPING ends it."""
    bench.fault(Service.IMDS, path_contains="identity", status=500)
    bench.start(environ=systemd.environ)
    await bench.until("waiting", lambda: systemd.heard("STATUS=waiting for Azure"))
    assert systemd.heard("READY") == systemd.heard("WATCHDOG") == []
    bench.heal()
    await bench.until("ready", lambda: systemd.heard("READY=1"))
    await bench.until("leads", lambda: "STATUS=leader; all in service" in systemd.heard())
    await bench.announce("web-2")
    await bench.until("out", lambda: "STATUS=leader; out of rotation: web-2" in systemd.heard())
    assert len(systemd.heard("WATCHDOG=1")) >= len(systemd.heard("STATUS=leader"))
    assert systemd.heard("STOPPING") == []
    await bench.close()
    assert systemd.heard("READY") == ["READY=1"]
    assert systemd.heard()[-1] == "STOPPING=1"


async def test_a_stop_while_waiting_for_azure(bench: InProcessSet, systemd: Systemd) -> None:
    """An agent that never got anywhere stops at once, and says so."""
    bench.fault(Service.ARM, status=503)
    bench.start(environ=systemd.environ)
    await bench.until("waiting", lambda: systemd.heard("STATUS=waiting for Azure"))
    await bench.close()
    assert systemd.heard("READY") == []
    assert systemd.heard()[-1] == "STOPPING=1"


async def test_a_standby_feeds_the_watchdog_too(bench: InProcessSet, systemd: Systemd) -> None:
    """Passes without office count: a standby must not be killed."""
    await bench.lead("web-1")
    bench.start("web-2", environ=systemd.environ)
    await bench.until("fed", lambda: systemd.heard("WATCHDOG=1"))
    await bench.until("logged", lambda: "STATUS=standby" in systemd.heard())


REFUSED = json.dumps(
    {
        "error": {
            "code": "AuthorizationFailed",
            "message": "The client 'c' with object id 'o' does not have authorization to perform "
            "action 'Microsoft.Compute/availabilitySets/read' over scope '/s' or the scope is "
            "invalid.",
        }
    }
)


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (403, REFUSED, "lacks Microsoft.Compute/availabilitySets/read on /s"),
        (503, "", "503"),
        (404, "", "404"),
    ],
)
async def test_a_leader_that_cannot_read_its_set_is_not_ready(
    bench: InProcessSet, status: int, body: str, why: str
) -> None:
    """Without an inventory a leader is not ready, says why and holds; a standby stays ready."""
    # The agent finds its VM, its set and its load balancer at the start; then nothing answers.
    bench.fault(Service.ARM, path_contains="/resourceGroups/", after=3, status=status, body=body)
    agent = await bench.lead()
    await bench.until("held", lambda: bench.ledger().get("holds"))
    (hold,) = bench.ledger()["holds"]
    assert (hold["subject"], hold["reason"]) == ("inventory", "inventory_unread")
    assert why in hold["message"]
    await bench.sees("not ready", agent.live_status.ready, (False, hold["message"]))
    assert agent.live_status.health() == (True, f"leader; {hold['message']}")
    shown = agent.live_status.overview()
    assert shown["agent"]["headline"] == f"leader; {hold['message']}"
    assert [each["reason"] for each in shown["holds"]] == ["inventory_unread"]
    bench.heal()
    await bench.stand_by("web-2")
    bench.clock.ahead_s += 5
    await bench.sees("ready", agent.live_status.ready, (True, "leader; all in service"))
    await bench.until("over", lambda: not bench.ledger()["holds"])


async def test_the_status_page_of_a_leader(bench: InProcessSet) -> None:
    """Health, readiness, status and metrics of a real agent, before, during and after a drain."""
    bench.fault(Service.IMDS, path_contains="identity", status=500)
    agent = bench.start()
    async with (
        StatusServer("127.0.0.1:0", agent.live_status) as server,
        aiohttp.ClientSession(server.url) as client,
    ):

        async def get(path: str) -> tuple[int, str]:
            async with client.get(path) as reply:
                return reply.status, await reply.text()

        await bench.until("waiting", lambda: "waiting for Azure" in agent.live_status.ready()[1])
        assert (await get("/readyz"))[0] == 503
        status, text = await get("/healthz")
        assert (status, "waiting for Azure" in text) == (200, True)
        assert "state" in (await get("/status"))[1]
        bench.heal()
        await bench.until(
            "leads", lambda: agent.live_status.health()[1] == "leader; all in service"
        )
        assert await get("/readyz") == (200, "leader; all in service\n")
        event = await bench.announce("web-2")
        await bench.until("out", lambda: acknowledged(bench))
        async with client.get("/status") as reply:
            shown: dict[str, Any] = await reply.json()
        assert shown["vm"] == "web-1"
        assert shown["leading"] is True
        assert shown["epoch"] == 1
        assert event in [each["event_id"] for each in shown["events"]] or not shown["events"]
        assert [each["vm"] for each in shown["vms"]] == ["web-1", "web-2", "web-3"]
        await bench.until("back", lambda: not bench.ledger()["entries"])
        status, text = await get("/metrics")
    assert status == 200
    values = samples(text)
    assert values["lbdrain_leader", ""] == 1
    assert values["lbdrain_leader_seen_timestamp_seconds", ""] > 0
    assert values["lbdrain_vms_at_risk", ""] == 0
    assert values["lbdrain_drains_total", "in_time Reboot"] == 1
    assert values["lbdrain_members_expected", "web-lb/app"] == 3
    assert values["lbdrain_drain_lead_seconds_count", ""] == 1
    assert ("lbdrain_azure_requests_total", "nic_put ok network") in values
    for name, labels in values:
        if name.startswith("lbdrain_azure_request"):
            assert "other" not in labels.split(), (name, labels)
            assert set(labels.split()) & {each for known in OPERATIONS.values() for each in known}


def acknowledged(bench: InProcessSet) -> bool:
    entries = bench.ledger().get("entries")
    return bool(entries and entries[0]["events"][0]["acknowledged_at"])


def samples(text: str) -> dict[tuple[str, str], float]:
    """Return every sample by its name and its label values, in the order of the label names."""
    return {
        (each.name, " ".join(each.labels[name] for name in sorted(each.labels) if name != "le")): (
            each.value
        )
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


async def test_the_metrics_of_a_leader_that_ceases_to_lead(bench: InProcessSet) -> None:
    """What only a leader knows is not shown by one whose lease could have expired."""
    agent = await bench.lead()
    members = ("lbdrain_members_expected", "web-lb/app")
    name = "lbdrain_azure_consecutive_failures"
    failures = [(name, f"{operation} blob") for operation in OPERATIONS["blob"]]

    def shown() -> dict[tuple[str, str], float]:
        return samples(agent.live_status.metrics().decode())

    await bench.until("known", lambda: members in shown())
    bench.fault(Service.BLOB, status=503)
    bench.outlast_the_lease()
    await bench.until("failing", lambda: any(shown()[each] for each in failures))
    await bench.sees(
        "silent", lambda: (members in shown(), shown()["lbdrain_leader", ""]), (False, 0)
    )


async def test_a_standby_that_cannot_read_the_ledger(bench: InProcessSet) -> None:
    """A standby says why it has no newer look at the ledger, and keeps what it had."""
    await bench.lead("web-1")
    standby = await bench.stand_by("web-2")
    await bench.until("looked", lambda: standby.live_status.overview()["ledger"]["as_of"])
    bench.fault(Service.BLOB, method="GET", status=503)
    await bench.until("failed", lambda: standby.live_status.overview()["ledger"]["problem"])
    shown = standby.live_status.overview()
    assert "blob read: 503" in shown["ledger"]["problem"]
    assert (shown["agent"]["role"], shown["lease"]["leader"]) == ("standby", "web-1")
    assert [each["what"] for each in shown["history"]] == ["leads"]


async def test_the_first_answer_of_a_standby(bench: InProcessSet) -> None:
    """Who asks once gets what the ledger tells; who asks while storage hangs gets an answer too."""
    await bench.lead("web-1")
    standby = await bench.stand_by("web-2")
    async with (
        StatusServer("127.0.0.1:0", standby.live_status) as server,
        aiohttp.ClientSession(server.url) as client,
    ):

        async def ask() -> dict[str, Any]:
            async with client.get("/api/v1/overview") as reply:
                return dict(await reply.json())

        assert (await ask())["lease"]["leader"] == "web-1"
    bench.fault(Service.BLOB, Effect.HANG, method="GET")
    late = await bench.stand_by("web-3")
    async with (
        StatusServer("127.0.0.1:0", late.live_status) as server,
        aiohttp.ClientSession(server.url) as client,
    ):
        assert (await ask())["ledger"] == {"as_of": None, "problem": ""}


async def test_the_overview_of_an_agent_that_lost_the_lease(bench: InProcessSet) -> None:
    """What an agent knew while it led is not shown as if it still led."""
    agent = await bench.lead()
    await bench.until("planned", lambda: len(phases(agent)) == 3)
    assert agent.live_status.overview()["lease"]["valid_for_s"]
    bench.fault(Service.BLOB, status=503)
    bench.outlast_the_lease()
    shown = agent.live_status.overview()  # before any of its tasks has noticed
    assert (shown["agent"]["role"], shown["agent"]["healthy"]) == ("suspect", False)
    assert (shown["lease"]["valid_for_s"], phases(agent)) == (None, [])
    await bench.until("noticed", lambda: bench.logged("the lease could have expired"))
    assert agent.live_status.overview()["agent"]["role"] == "suspect"


async def test_readiness_agrees_with_health(bench: InProcessSet) -> None:
    """A leader cut off from storage is neither healthy nor ready, and is both when it is back."""
    agent = await bench.lead()
    await bench.sees("ready", agent.live_status.ready, (True, "leader; all in service"))
    bench.fault(Service.BLOB, status=503)
    bench.outlast_the_lease()
    assert agent.live_status.ready() == agent.live_status.health()
    assert agent.live_status.ready() == (False, "the lease could have expired and is not renewed")
    bench.heal()
    await bench.until(
        "back",
        lambda: (
            agent.live_status.ready() == agent.live_status.health() and agent.live_status.ready()[0]
        ),
    )


async def test_the_overview_of_a_dry_run(bench: InProcessSet) -> None:
    """A dry run leads nobody, and shows what it would do as phases."""
    agent = bench.start(overrides={"policy": {"dry_run": True}})
    await bench.until("planned", lambda: len(phases(agent)) == 3)
    shown = agent.live_status.overview()
    assert (shown["agent"]["role"], shown["lease"]["leader"]) == ("dry run", None)


async def test_a_dry_run_states_when_it_has_read_the_ledger(bench: InProcessSet) -> None:
    """What it last read stays as old as it is while storage does not answer."""
    bench.fault(Service.BLOB, status=503)
    agent = bench.start(overrides={"policy": {"dry_run": True}})
    await bench.until("planned", lambda: len(phases(agent)) == 3)
    assert agent.live_status.overview()["ledger"]["as_of"] is None
    bench.heal()
    bench.clock.ahead_s += 120
    await bench.announce("web-2")
    await bench.until("read", lambda: bool(agent.live_status.overview()["ledger"]["as_of"]))
    bench.fault(Service.BLOB, status=503)
    await bench.until("failed", lambda: bench.logged("the ledger could not be read", "WARNING"))
    before = agent.live_status.overview()
    bench.clock.ahead_s += 300
    shown = agent.live_status.overview()
    assert shown["at"] > before["at"]
    assert shown["ledger"]["as_of"] == before["ledger"]["as_of"]


def phases(agent: Agent) -> list[str]:
    return [vm["phase"] for vm in agent.live_status.overview()["vms"] if vm["phase"]]


async def test_no_name_of_a_vm_or_event_is_a_label(bench: InProcessSet) -> None:
    """Labels are closed lists: however many VMs and events there are, the series stay the same."""
    agent = await bench.lead()
    event = await bench.announce("web-2")
    await bench.until("out", lambda: not bench.inside("web-2"))
    text = agent.live_status.metrics().decode()
    assert event not in text
    assert re.search(r'"[^"]*web-[123][^"]*"', text) is None


async def test_a_leader_that_cannot_renew_is_not_healthy(bench: InProcessSet) -> None:
    """A lease that could have expired is bad health until it is renewed."""
    agent = await bench.lead()
    bench.fault(Service.BLOB, status=503)
    bench.outlast_the_lease()
    assert agent.live_status.health() == (False, "the lease could have expired and is not renewed")
    bench.heal()
    await bench.until("healthy", lambda: agent.live_status.health()[0])
