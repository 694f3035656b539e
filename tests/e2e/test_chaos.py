"""One minute of chaos, and what it is made of: proxies, schedules, explanations."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path

import pytest

from controller.simulator.app.agent_processes import AgentProcesses
from controller.simulator.app.server import SimulatorServer
from controller.simulator.traffic.load import Kind, Loss, Lost
from controller.simulator.traffic.sockets import HOST
from controller.simulator.world.builder import build_world
from controller.simulator.world.history import Change
from tests.e2e.chaos import run
from tests.e2e.schedule import LANES, steps
from tests.support.azurite import HOW_TO_GET_IT, find_azurite
from tests.support.losses import OPEN_AT_REMOVAL, Flows, explanations
from tests.support.process_set import WITHIN_S
from tests.support.proxy import Network, Proxy

SEED = 12
VMS = ("web-1", "web-2", "web-3")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(find_azurite() is None, reason=HOW_TO_GET_IT)
async def test_a_minute_of_chaos(tmp_path: Path) -> None:
    """Whatever goes wrong, no law is broken and no request lost that could have been saved."""
    outcome = await run(tmp_path, seed=SEED, minutes=1)
    print(outcome.page())
    if not outcome.good:
        print((tmp_path / "show.txt").read_text())
    assert outcome.good
    assert all(counts.sent > 0 for counts in outcome.requests.by_kind.values())


async def test_started_twice_at_once(tmp_path: Path) -> None:
    """An agent that two start at the same time, with settings of its own, runs once."""
    world = build_world(now=time.time(), vms=1)
    async with SimulatorServer(world, tmp_path) as server:
        own = {"web-1": {"watch": {"leader_poll_s": 7}}}
        fleet = AgentProcesses(server, tmp_path, own=own)
        async with fleet:
            await fleet.kill("web-1")
            await asyncio.gather(fleet.start("web-1"), fleet.start("web-1"))
            config, process = str(fleet.config("web-1")), fleet.process_id("web-1")
            # Linux shows no arguments of a process for an instant after its start.
            await server.wait_until(lambda: process in _processes_with(config), WITHIN_S)
            assert _processes_with(config) == [process]
            assert "leader_poll_s = 7" in fleet.config("web-1").read_text()


def _processes_with(argument: str) -> list[int]:
    """Return the ids of the processes that have this argument; Linux says so in /proc."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if argument.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


# --- the schedule ---


@pytest.mark.parametrize("lane", LANES)
def test_a_seed_repeats_its_steps(lane: str) -> None:
    """One seed gives the same steps every time, another seed gives others."""
    first, again, other = (list(islice(steps(lane, seed, VMS), 50)) for seed in (1, 1, 2))
    assert first == again != other


# --- the proxy ---


@asynccontextmanager
async def _proxied_echo() -> AsyncIterator[tuple[Proxy, list[bytes]]]:
    """A service that says back each line, behind a proxy; yields also the lines that it got."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            got.append(line)
            writer.write(line)
        writer.close()

    service = await asyncio.start_server(serve, HOST, 0)
    proxy = Proxy(service.sockets[0].getsockname()[1])
    await proxy.start()
    async with service:
        try:
            yield proxy, got
        finally:
            await proxy.stop()


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not holds():  # noqa: ASYNC110 - the proxy notifies nobody
            await asyncio.sleep(0.01)


async def _nothing_arrives(reader: asyncio.StreamReader) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readline(), 0.2)


async def test_a_stall_delivers_late() -> None:
    """What is sent during a stall arrives after it, in order, and the answers come back."""
    async with _proxied_echo() as (proxy, got):
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"before\n")
        assert await reader.readline() == b"before\n"
        proxy.become(Network.STALLED)
        writer.write(b"one\ntwo\n")
        await _nothing_arrives(reader)
        assert got == [b"before\n"]
        proxy.become(Network.CLEAR)
        assert [await reader.readline() for _ in range(2)] == [b"one\n", b"two\n"]
        writer.close()


async def test_a_stall_delivers_what_the_dead_have_said() -> None:
    """What a client sent before it died arrives after the stall, on a new connection as well."""
    async with _proxied_echo() as (proxy, got):
        proxy.become(Network.STALLED)
        _, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"last words\n")
        writer.close()
        await writer.wait_closed()
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"hello\n")
        await _nothing_arrives(reader)
        assert got == []
        proxy.become(Network.CLEAR)
        assert await reader.readline() == b"hello\n"
        await _until(lambda: sorted(got) == [b"hello\n", b"last words\n"])
        writer.close()


async def test_a_deaf_network_loses_replies_only() -> None:
    """Requests arrive, replies do not, and when it is over the connection is reset."""
    async with _proxied_echo() as (proxy, got):
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        proxy.become(Network.DEAF)
        writer.write(b"request\n")
        await _until(lambda: got == [b"request\n"])
        await _nothing_arrives(reader)
        proxy.become(Network.CLEAR)
        with pytest.raises(ConnectionResetError):
            await reader.readline()


async def test_a_refused_connection_is_reset() -> None:
    """Connections that stand are reset, and so are new ones until it is over."""
    async with _proxied_echo() as (proxy, got):
        standing, _ = await asyncio.open_connection(HOST, proxy.port)
        proxy.become(Network.REFUSED)
        with pytest.raises(ConnectionResetError):
            await standing.readline()
        new, _ = await asyncio.open_connection(HOST, proxy.port)
        with pytest.raises(ConnectionResetError):
            await new.readline()
        proxy.become(Network.CLEAR)
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"again\n")
        assert await reader.readline() == b"again\n"
        assert got == [b"again\n"]
        writer.close()


# --- the explanations ---


def _maintenance(*, started_first: bool) -> list[Change]:
    event = {"event_type": "Reboot", "resources": "web-1"}
    return [
        Change(1, "event_published", "E", event | {"started_first": started_first}),
        Change(10, "event_started", "E", event),
        Change(11, "vm_down", "web-1", {"state": "rebooting"}),
        Change(15, "vm_up", "web-1"),
        Change(20, "event_gone", "E", event),
        Change(30, "vm_down", "web-2", {"state": "rebooting"}),
        Change(35, "vm_up", "web-2"),
    ]


@pytest.mark.parametrize(
    ("at", "vm", "started_first", "why"),
    [
        (12, "web-1", True, "event E appeared already Started"),
        (12, "web-1", False, ""),
        (10, "web-1", True, "event E appeared already Started"),
        (7, "web-1", True, ""),
        (18, "web-1", True, ""),
        (12, "web-2", True, ""),
        (32, "web-2", False, "the VM failed, and no event said that it would"),
        (32, None, False, ""),
    ],
)
def test_only_what_nobody_could_know_explains_a_loss(
    at: float, vm: str | None, started_first: bool, why: str
) -> None:
    """A loss is explained by an outage without notice of its own VM while it was under way."""
    history = _maintenance(started_first=started_first)
    assert _reason(history, vm, at=at, until=at + 2) == why


def _reason(
    history: list[Change],
    vm: str | None,
    *,
    at: float,
    until: float,
    connected_at: float | None = None,
    flows: Flows = "drop",
) -> str:
    """Why a request to a VM could not be saved."""
    lost = Lost(
        kind=Kind.PERSISTENT,
        at=at,
        until=until,
        connected_at=at if connected_at is None else connected_at,
        reason=Loss.RESET,
        backend=vm,
    )
    ((_, why),) = explanations(history, [lost], pool_id="pool", flows=flows)
    return why


def _drained(*, out: float, back: float, state: str = "rebooting") -> list[Change]:
    """A maintenance of web-1 from 10 to 20, announced at 1; out of the pool meanwhile."""
    event = {"resources": "web-1", "started_first": False}
    changes = [
        Change(1, "event_published", "E", event),
        Change(out, "member_out", "Pool", {"vm": "web-1"}),
        Change(9, "event_started", "E", event),
        Change(10, "vm_down", "web-1", {"state": state}),
        Change(20, "vm_up", "web-1"),
        Change(21, "event_gone", "E", event),
        Change(back, "member_in", "Pool", {"vm": "web-1"}),
    ]
    return sorted(changes, key=lambda change: change.at)


@pytest.mark.parametrize(
    ("connected_at", "at", "out", "flows", "saved_by_closing_only"),
    [
        (0, 6, 5, "drop", True),
        (0, 4, 5, "drop", True),
        (0, 24, 5, "drop", True),
        (0, 10.5, 5, "keep", True),
        (0, 24, 5, "keep", True),
        (0, 6, 5, "keep", False),  # nothing has hit it
        (7, 10.5, 5, "drop", False),  # a new flow to a VM that is out
        (0, 10.5, 15, "drop", False),  # removed too late
        (0, 10.5, 15, "keep", False),
        (26, 27, 5, "drop", False),  # restored, and lost for no reason
    ],
)
def test_a_removal_in_time_costs_open_connections_only(
    connected_at: float, at: float, out: float, flows: Flows, saved_by_closing_only: bool
) -> None:
    """A loss is explained if its connection was open when its VM left the pool before it went."""
    history = _drained(out=out, back=25)
    why = _reason(history, "web-1", at=at, until=at + 1.5, connected_at=connected_at, flows=flows)
    assert why == (OPEN_AT_REMOVAL if saved_by_closing_only else "")
    assert _reason(history, "web-2", at=at, until=at + 1.5, connected_at=connected_at) == ""


def test_a_freeze_without_notice_does_not_explain_what_comes_later() -> None:
    """A connection survives a freeze: only what was under way is explained by it."""
    history = [
        Change(10, "vm_down", "web-1", {"state": "frozen"}),
        Change(15, "vm_up", "web-1"),
    ]
    assert _reason(history, "web-1", at=11, until=13, connected_at=0) != ""
    assert _reason(history, "web-1", at=30, until=32, connected_at=0) == ""
