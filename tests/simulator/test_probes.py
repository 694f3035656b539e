"""The health probe of the simulated load balancer, and the VM's part in it."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.simulator.app.flag_files import FlagFiles, flag_file
from controller.simulator.services.rule_health import health
from controller.simulator.traffic.backends import Backend
from controller.simulator.traffic.balancer import Traffic
from controller.simulator.traffic.load import Load
from controller.simulator.traffic.probes import Probe, Prober, Responder
from controller.simulator.traffic.sockets import HOST
from controller.simulator.world.builder import build_world
from controller.simulator.world.world import World
from tests.support.patience import PATIENCE_S

QUIET = Load(rate_per_s=0)
FAST_PROBE = Probe(interval_s=0.02, timeout_s=PATIENCE_S, threshold=1)
VM = "web-1"


def world_of(vms: int = 2) -> World:
    return build_world(now=time.time(), vms=vms)


class Answers:
    """A VM's own responder: it answers the probe with these statuses, the last one for ever."""

    def __init__(self, statuses: Sequence[int]) -> None:
        self.statuses = list(statuses)
        self.asked: list[str] = []

    @asynccontextmanager
    async def serving(self, path: str = "/") -> AsyncIterator[Responder]:
        server = await asyncio.start_server(self._answer, HOST, 0)
        async with server:
            yield Responder(server.sockets[0].getsockname()[1], path)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head.split(b" ")[1].decode())
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        writer.write(f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()


@asynccontextmanager
async def probing(world: World, probe: Probe, **responders: Responder) -> AsyncIterator[Prober]:
    """A prober of one VM, whose rounds the test makes."""
    backend = Backend(VM, service_time_s=0)
    await backend.start()
    named = {vm.replace("_", "-"): responder for vm, responder in responders.items()}
    pool = world.pool_id("app")
    prober = Prober(world, pool, {VM: backend}, probe=lambda: probe, responders=named)
    prober.follow(frozenset({VM}))
    try:
        yield prober
    finally:
        await backend.stop()


async def rounds(prober: Prober, count: int) -> list[bool]:
    """Make rounds of probes; return whether the VM is up after each."""
    found: list[bool] = []
    for _ in range(count):
        await prober.probe_all()
        found.append(prober.up(VM))
    return found


@pytest.mark.parametrize(
    ("threshold", "statuses", "up"),
    [
        (1, [200, 503, 200, 503, 200], [True, False, True, False, True]),
        (2, [200, 503, 200, 503, 503, 200, 200], [True, True, True, True, False, False, True]),
        (3, [503, 200, 503, 503, 200, 503, 503, 503], [False] + [True] * 6 + [False]),
    ],
)
async def test_threshold(threshold: int, statuses: list[int], up: list[bool]) -> None:
    """So many answers in a row change a member; the first good answer is enough to join."""
    answers, world = Answers(statuses), world_of()
    async with (
        answers.serving("/ready") as responder,
        probing(world, Probe(threshold=threshold), web_1=responder) as prober,
    ):
        assert await rounds(prober, len(up)) == up
    assert answers.asked == ["/ready"] * len(up)


async def test_the_health_page_of_a_closed_application() -> None:
    """A closed application fails the probe at its next round, and passes it when it is open."""
    world = world_of()
    async with Traffic(world, world.pool_id("app"), load=QUIET, probe=FAST_PROBE) as traffic:
        world.set_closed(VM, closed=True)
        await traffic.wait_until(lambda: traffic.eligible() == ("web-2",))
        world.set_closed(VM, closed=False)
        await traffic.wait_until(lambda: set(traffic.eligible()) == {VM, "web-2"})
        world.settings.closed_fails_probe = False
        world.set_closed(VM, closed=True)
        await traffic.next_probe()
        assert set(traffic.eligible()) == {VM, "web-2"}


async def test_a_tcp_probe_hears_no_status() -> None:
    """A connection is a good answer to a TCP probe, whatever the responder would answer."""
    answers, world = Answers([503]), world_of()
    async with (
        answers.serving() as responder,
        probing(world, Probe(tcp=True), web_1=responder) as prober,
    ):
        assert await rounds(prober, 2) == [True, True]


async def test_a_responder_that_is_gone() -> None:
    """A VM whose responder does not listen is down, although its web server answers."""
    answers, world = Answers([200]), world_of()
    async with answers.serving() as responder:
        pass
    async with probing(world, Probe(threshold=1), web_1=responder) as prober:
        assert await rounds(prober, 1) == [False]


async def test_a_frozen_member_delays_no_other_one() -> None:
    """The probe of a member that does not answer does not delay the probes of the others."""
    world, probe = world_of(), Probe(interval_s=0.02, timeout_s=PATIENCE_S, threshold=1)
    async with Traffic(world, world.pool_id("app"), load=QUIET, probe=probe) as traffic:
        world.set_vm_state(VM, "frozen")
        await traffic.next_probe()
        world.set_closed("web-2", closed=True)
        await traffic.wait_until(lambda: "web-2" not in traffic.eligible())


@pytest.mark.parametrize("all_up", [True, False])
async def test_no_healthy_backends(all_up: bool) -> None:
    """With AllProbedUp all members get new flows while none is up; otherwise none does."""
    world = world_of()
    if all_up:
        probe_of(world)["noHealthyBackendsBehavior"] = "AllProbedUp"
    async with Traffic(world, world.pool_id("app"), load=QUIET, faster=200) as traffic:
        world.set_closed("web-2", closed=True)
        await traffic.wait_until(lambda: traffic.eligible() == (VM,))
        world.set_closed(VM, closed=True)
        await traffic.next_probe()
        assert set(traffic.eligible()) == ({VM, "web-2"} if all_up else set())


def probe_of(world: World) -> dict[str, Any]:
    probe = world.probe_of(world.pool_id("app"))
    assert probe is not None
    return probe


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"intervalInSeconds": 5, "probeThreshold": 3}, Probe(interval_s=0.5, threshold=3)),
        ({"intervalInSeconds": 1}, Probe(interval_s=0.5, threshold=1)),
        ({}, Probe(interval_s=1.5, threshold=1)),
        (None, Probe(interval_s=1.5, threshold=1)),
        ({"protocol": "Tcp"}, Probe(interval_s=1.5, threshold=1, tcp=True)),
        (
            {"noHealthyBackendsBehavior": "AllProbedUp"},
            Probe(interval_s=1.5, threshold=1, all_probed_up=True),
        ),
    ],
)
def test_the_probe_of_a_rule(body: dict[str, Any] | None, expected: Probe) -> None:
    """A probe follows its resource, is accelerated as a whole, and never below Azure's minimum."""
    found = Probe.of_rule(body, factor=10)
    assert (found.interval_s, found.threshold) == (expected.interval_s, expected.threshold)
    assert (found.tcp, found.all_probed_up) == (expected.tcp, expected.all_probed_up)
    assert found.timeout_s == 2.0
    assert Probe.of_rule(body, factor=1).timeout_s >= 5


async def test_the_health_of_a_rule_is_what_probes_found() -> None:
    """Rule health shows a closed member as down only after the probes have noticed."""
    world = world_of()
    load_balancer = world.load_balancer_of(world.pool_id("app"))
    assert load_balancer is not None
    [rule] = load_balancer["properties"]["loadBalancingRules"]

    def reasons() -> set[str]:
        entries = health(world, load_balancer, rule)["loadBalancerBackendAddresses"]
        return {entry["reason"] for entry in entries}

    slow, fast = Probe(interval_s=60), FAST_PROBE
    for probe, expected in (
        (slow, {"Up_Probe_Success"}),
        (fast, {"Up_Probe_Success", "Down_Probe_HttpStatusCodeError"}),
    ):
        world.set_closed(VM, closed=False)
        async with Traffic(world, world.pool_id("app"), load=QUIET, probe=probe) as traffic:
            world.set_closed(VM, closed=True)
            await traffic.next_read()
            if probe is fast:
                await traffic.next_probe()
            assert reasons() == expected


def test_a_flag_file_closes_an_application(tmp_path: Path) -> None:
    """The application of a VM is closed while its flag file exists, and each change is recorded."""
    world = world_of()
    files, path = FlagFiles(world, tmp_path), flag_file(tmp_path, VM)
    files.read()
    assert not world.closed(VM)
    path.touch()
    files.read()
    files.read()
    assert (world.closed(VM), world.closed("web-2")) == (True, False)
    path.unlink()
    files.read()
    assert not world.closed(VM)
    recorded = world.changes("application_closed", "application_opened")
    assert [(change.kind, change.subject) for change in recorded] == [
        ("application_closed", VM),
        ("application_opened", VM),
    ]


def test_a_reboot_empties_run(tmp_path: Path) -> None:
    """A reboot removes the flag file and opens the application; a freeze does neither."""
    world = world_of()
    files, path = FlagFiles(world, tmp_path), flag_file(tmp_path, VM)
    path.touch()
    files.read()
    world.begin_impact(VM, "maintenance", "frozen")
    path.unlink()
    files.read()
    assert world.closed(VM), "a frozen VM notices nothing"
    path.touch()
    world.end_impact(VM, "maintenance")
    files.read()
    assert world.closed(VM)
    world.begin_impact(VM, "maintenance", "rebooting")
    files.read()
    assert not path.exists()
    world.end_impact(VM, "maintenance")
    files.read()
    assert not world.closed(VM)


async def test_flag_files_of_an_earlier_simulation_are_removed(tmp_path: Path) -> None:
    """A simulation begins with open applications, also in a directory that was used before."""
    world, path = world_of(), flag_file(tmp_path, VM)
    path.touch()
    following = asyncio.create_task(FlagFiles(world, tmp_path).follow())
    await asyncio.sleep(0)
    assert not path.exists()
    assert not world.closed(VM)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
