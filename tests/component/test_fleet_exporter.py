"""The exporter of the fleet: its series, its health, and the command that serves it."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.core.fleet import SetSummary, in_order_of_attention, summarise, unreadable
from controller.fleet.exporter import STALE_PERIODS, FleetExporter
from controller.fleet.fleet_metrics import LABEL_CHARACTERS, FleetMetrics
from controller.fleet.reader import ContainerResult, Fleet
from tests.support.clocks import StoppedClock
from tests.support.simulated_fleet import (
    SUBSCRIPTION,
    SimulatedSet,
    at_risk,
    hit,
    idle,
    without_leader,
)

NOW = datetime(2030, 1, 2, 12, tzinfo=UTC)
URL = "https://account.blob.core.windows.net/lb-drain"
EVERY_S = 30.0


def row(found: SimulatedSet) -> SetSummary:
    return summarise(
        found.ledger,
        lease_state="leased" if found.led else "available",
        container_url=URL,
        blob=found.blob,
        written_at=NOW,
        now=NOW,
    )


def fleet(rows: Sequence[SetSummary], *, problem: str = "") -> Fleet:
    result = ContainerResult(url=URL, problem=problem)
    return Fleet(at=NOW, sets=in_order_of_attention(rows), containers=(result,), took_s=0.5)


def series(metrics: bytes, name: str) -> dict[str, float]:
    """Return the values of a metric by the name of the set, or by the values of all labels."""
    return {
        sample.labels.get("set", ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics.decode())
        for sample in family.samples
        if sample.name == f"lbdrain_{name}"
    }


def rendered(rows: Sequence[SetSummary], **options: str) -> bytes:
    metrics = FleetMetrics()
    metrics.show(fleet(rows, **options))
    return metrics.render()


def test_every_set_has_its_series() -> None:
    """Attention, leader, VMs, holds and times by set, resource group and subscription."""
    states = (idle, at_risk, without_leader, hit)
    found = rendered([row(make(make.__name__, "rg", NOW)) for make in states])
    assert series(found, "fleet_set_attention") == {
        "idle": 0,
        "at_risk": 3,
        "without_leader": 3,
        "hit": 2,
    }
    assert series(found, "fleet_set_leader")["without_leader"] == 0
    assert series(found, "fleet_set_leader")["idle"] == 1
    assert series(found, "fleet_set_vms_out")["without_leader"] == 1
    assert series(found, "fleet_set_vms_at_risk")["at_risk"] == 1
    assert series(found, "fleet_set_holds")["at_risk"] == 1
    soon = NOW.timestamp() + 60
    assert series(found, "fleet_set_next_not_before_timestamp_seconds")["at_risk"] == soon
    missed = series(found, "fleet_set_last_missed_timestamp_seconds")
    assert (missed["hit"], missed["idle"]) == (NOW.timestamp() - 7200, 0)
    written = series(found, "fleet_set_last_written_timestamp_seconds")
    assert set(written.values()) == {NOW.timestamp()}
    assert series(found, "fleet_container_listed") == {URL: 1}
    assert series(found, "fleet_last_read_timestamp_seconds") == {"": NOW.timestamp()}
    assert series(found, "fleet_read_duration_seconds") == {"": 0.5}
    assert list(series(found, "build_info").values()) == [1]
    text = f'set_leader{{resource_group="rg",set="idle",subscription="{SUBSCRIPTION}"}} 1.0'
    assert text in found.decode()


def test_agents_are_counted_by_state() -> None:
    """Running and silent are two series of one set."""
    found = replace(row(idle("web", "rg", NOW)), agents_seen=("a", "b"), agents_silent=("c",))
    text = rendered([found]).decode()
    assert f'subscription="{SUBSCRIPTION}"}} 2.0' in text
    states = {
        sample.labels["state"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "lbdrain_fleet_set_agents"
    }
    assert states == {"running": 2, "silent": 1}


def test_two_rows_of_one_name_make_one_series() -> None:
    """Prometheus refuses a scrape with a series twice; the more urgent row is exposed."""
    rows = [row(idle("web", "rg", NOW)), row(at_risk("web", "rg", NOW))]
    assert series(rendered(rows), "fleet_set_attention") == {"web": 3}


def test_a_name_that_could_break_the_format_is_escaped_and_cut() -> None:
    """Anything can be the name of a blob, or in a ledger."""
    ledger = replace(idle("w", "g", NOW).ledger, set_id='/x/\ud800\n"' + "a" * 500)
    rows = [
        unreadable("why", container_url=URL, blob='a"\n\x1b', written_at=None),
        row(SimulatedSet(name="w", group="g", ledger=ledger)),
    ]
    found = series(rendered(rows), "fleet_set_readable")
    assert sorted(found.values()) == [0, 1]
    assert max(map(len, found)) <= LABEL_CHARACTERS


def test_before_the_first_reading_there_is_only_the_version() -> None:
    """No series says that there is no set."""
    assert b"lbdrain_fleet" not in FleetMetrics().render()


class Readings:
    """A reader whose readings are given."""

    def __init__(self) -> None:
        self.next = fleet([])

    async def read(self) -> Fleet:
        return self.next


async def test_health_follows_the_readings(caplog: pytest.LogCaptureFixture) -> None:
    """None yet, one that is too old, and a container that cannot be listed are failures."""
    caplog.set_level("INFO", logger="lbdrain")
    readings, clock = Readings(), StoppedClock(NOW.timestamp())
    exporter = FleetExporter(readings, clock=clock, every_s=EVERY_S)  # type: ignore[arg-type]
    assert exporter.health() == (False, "no reading has ended yet")
    await exporter.read()
    assert exporter.health() == (True, "0 sets")
    clock.move(STALE_PERIODS * EVERY_S)
    assert exporter.health()[0]
    clock.move(1)
    assert exporter.health() == (False, "the last reading ended 91 s ago")
    readings.next = fleet([], problem="403")
    await exporter.read()
    await exporter.read()
    assert exporter.health() == (False, f"cannot be listed: {URL}")
    readings.next = fleet([])
    await exporter.read()
    assert exporter.health()[0]
    messages = [each.getMessage() for each in caplog.records]
    assert messages == [f"{URL} cannot be listed: 403", f"{URL} is listed again"]


async def test_the_server_answers_from_the_newest_reading() -> None:
    """Metrics, health and JSON; before the first reading the JSON is not there."""
    exporter = FleetExporter(Readings(), clock=StoppedClock(NOW.timestamp()), every_s=EVERY_S)  # type: ignore[arg-type]
    async with exporter.server("127.0.0.1:0") as server, aiohttp.ClientSession() as session:
        async with session.get(f"{server.url}/api/v1/fleet") as reply:
            assert reply.status == 503
        await exporter.read()
        async with session.get(f"{server.url}/api/v1/fleet") as reply:
            assert (await reply.json())["version"] == 1
        async with session.get(f"{server.url}/metrics") as reply:
            assert "lbdrain_fleet_container_listed" in await reply.text()
            assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        async with session.get(f"{server.url}/healthz") as reply:
            assert (reply.status, await reply.text()) == (200, "0 sets\n")


async def test_the_command_serves_until_it_is_ended() -> None:
    """A container that cannot be reached does not end it; SIGTERM does, with exit code 0."""
    connection = (
        "DefaultEndpointsProtocol=http;AccountName=account;AccountKey=dW51c2Vk;"
        "BlobEndpoint=http://127.0.0.1:1/account"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "controller", "fleet", "--every", "2s"),
        *("--container-url", "http://127.0.0.1:1/account/lb-drain", "--listen", "127.0.0.1:0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"AZURE_STORAGE_CONNECTION_STRING": connection},
    )
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().split()[-1]
        assert url.startswith("http://127.0.0.1:")
        found: dict[str, float] = {}
        async with aiohttp.ClientSession() as session:
            while not found:
                async with session.get(url) as reply:
                    found = series(await reply.read(), "fleet_container_listed")
        assert list(found.values()) == [0]
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert b"cannot be listed" in errors
