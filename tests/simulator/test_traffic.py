"""The simulated data plane: real sockets that follow the world."""

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import Literal

import pytest

from controller.simulator.traffic.balancer import Traffic
from controller.simulator.traffic.load import MIXES, Kind, Load, Loss
from controller.simulator.traffic.probes import Probe
from controller.simulator.traffic.sockets import within
from controller.simulator.world.builder import build_world
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.world import World
from tests.support.patience import PATIENCE_S, new_tasks_end

QUIET = Load(rate_per_s=0)
BUSY = Load(
    rate_per_s=100,
    mix={Kind.SHORT: 0.5, Kind.POOLED: 0.5},
    pooled_age_s=(0.1, 0.3),
    pause_s=0.1,
    timeout_s=PATIENCE_S,
)
IMPATIENT = replace(BUSY, timeout_s=0.5)
PROBE = Probe(interval_s=0.05, timeout_s=PATIENCE_S, threshold=2)
"""Finds a VM that is down at once, and never takes a busy machine for one."""
FROZEN_PROBE = replace(PROBE, timeout_s=1)
"""For a VM that does not reply."""
REQUEST = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"

Fate = Literal["keep", "drop", "reset"]


def world_of(vms: int = 2, fate: Fate = "keep") -> World:
    return build_world(now=time.time(), vms=vms, settings=WorldSettings(flows_on_remove=fate))


def traffic_of(world: World, load: Load = QUIET, probe: Probe = PROBE) -> Traffic:
    return Traffic(world, world.pool_id("app"), load=load, probe=probe, service_time_s=0.005)


def nic_of(world: World, vm: str) -> str:
    return world.vm(vm).nic_ids[0]


def remove(world: World, vm: str) -> None:
    world.remove_membership(world.pool_id("app"), nic_of(world, vm))


class FlowClient:
    """One connection through the load balancer, under control of the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self) -> str:
        self.writer.write(REQUEST)
        return await self.answer()

    async def answer(self) -> str:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        return (await self.reader.readexactly(length)).decode()


async def flow_to(traffic: Traffic, vm: str) -> FlowClient:
    """Open connections until the load balancer gives one to `vm`."""
    for _ in range(100):
        flow = FlowClient(*await asyncio.open_connection("127.0.0.1", traffic.port))
        if await flow.ask() == vm:
            return flow
        flow.writer.close()
    pytest.fail(f"no flow was given to {vm}")


async def test_every_member_serves() -> None:
    """Without disturbance nothing is lost, every member answers, and the figures add up."""
    world = world_of(vms=3)
    async with traffic_of(world, BUSY) as traffic:
        await traffic.wait_until(lambda: len(traffic.counts().ok_by_backend) == 3)
    counts = traffic.counts()
    assert counts.lost == 0
    assert counts.sent == counts.ok == sum(counts.ok_by_backend.values())


REBOOTS = 20


def answered(traffic: Traffic, vm: str) -> bool:
    return vm in traffic.counts().ok_by_backend


async def test_removal_before_the_reboot_saves_every_request() -> None:
    """Of two twins that reboot a VM, only the one that takes it out first loses nothing."""
    drained, plain = world_of(), world_of()
    async with traffic_of(drained, BUSY) as careful, traffic_of(plain, BUSY) as careless:
        for traffic in (careful, careless):
            await traffic.wait_until(partial(answered, traffic, "web-1"))
        remove(drained, "web-1")
        await careful.wait_until(lambda: "web-1" not in careful.eligible())
        await careful.wait_until(lambda: "web-1" not in careful.flows())
        for _ in range(REBOOTS):  # a reboot between two requests loses no request
            for world in (drained, plain):
                world.set_vm_state("web-1", "rebooting")
            await careless.wait_until(
                lambda: careless.counts().lost > 0 or "web-1" not in careless.eligible()
            )
            if careless.counts().lost:
                break
            for world in (drained, plain):
                world.set_vm_state("web-1", "running")
            await careless.wait_until(lambda: "web-1" in careless.flows())
        assert careless.counts().lost > 0
        seen = careful.counts().ok
        await careful.wait_until(lambda: careful.counts().ok >= seen + 50)
    assert careful.counts().lost == 0
    lost = careless.counts().losses
    assert {loss.backend for loss in lost} <= {"web-1", None}
    assert len(lost) == careless.counts().lost


async def test_removed_member_gets_no_new_flow() -> None:
    """A member that left the pool is given no new flow, even where its old ones are kept."""
    world = world_of()
    async with traffic_of(world) as traffic:
        remove(world, "web-1")
        assert traffic.eligible() == ("web-2",)
        assert {await (await flow_to(traffic, "web-2")).ask() for _ in range(5)} == {"web-2"}


async def test_kept_flow() -> None:
    """With `keep`, an established flow of a removed member goes on."""
    world = world_of(fate="keep")
    async with traffic_of(world) as traffic:
        flow = await flow_to(traffic, "web-1")
        remove(world, "web-1")
        await traffic.wait_until(lambda: traffic.eligible() == ("web-2",))
        assert await flow.ask() == "web-1"


async def test_dropped_flow() -> None:
    """With `drop`, an established flow of a removed member gets neither answer nor reset."""
    world = world_of(fate="drop")
    async with traffic_of(world) as traffic:
        flow = await flow_to(traffic, "web-1")
        remove(world, "web-1")
        await traffic.next_read()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flow.ask(), 0.2)
        assert traffic.flows() == {"web-1": 1}
        flow.writer.close()


async def test_reset_flow() -> None:
    """With `reset`, an established flow of a removed member is reset."""
    world = world_of(fate="reset")
    async with traffic_of(world) as traffic:
        flow = await flow_to(traffic, "web-1")
        remove(world, "web-1")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(flow.reader.read(), PATIENCE_S)


async def test_joining_member_waits_for_its_first_good_probe() -> None:
    """A member that joins gets flows only once it has answered a probe."""
    world = world_of()
    remove(world, "web-1")
    async with traffic_of(world, probe=FROZEN_PROBE) as traffic:
        world.set_vm_state("web-1", "frozen")
        world.add_membership(world.pool_id("app"), nic_of(world, "web-1"))
        await traffic.next_probe()
        await traffic.next_probe()
        assert "web-1" not in traffic.eligible()
        world.set_vm_state("web-1", "running")
        await traffic.wait_until(lambda: set(traffic.eligible()) == {"web-1", "web-2"})


async def test_freeze_only_delays() -> None:
    """A frozen VM answers nothing, and what it owes it answers when it thaws."""
    world = world_of()
    async with traffic_of(world) as traffic:
        flow = await flow_to(traffic, "web-1")
        world.set_vm_state("web-1", "frozen")
        await traffic.next_read()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flow.ask(), 0.2)
        world.set_vm_state("web-1", "running")
        assert await asyncio.wait_for(flow.answer(), PATIENCE_S) == "web-1"


async def test_reboot_kills_flows_and_probes_notice() -> None:
    """A reboot ends established flows, the probe takes the VM out, and brings it back after."""
    world = world_of()
    async with traffic_of(world) as traffic:
        flow = await flow_to(traffic, "web-1")
        world.set_vm_state("web-1", "rebooting")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(flow.reader.read(), PATIENCE_S)
        await traffic.wait_until(lambda: traffic.eligible() == ("web-2",))
        world.set_vm_state("web-1", "running")
        await traffic.wait_until(lambda: "web-1" in traffic.eligible())
        await flow_to(traffic, "web-1")


async def test_lost_request_names_its_vm() -> None:
    """A request on a connection of its own that a reboot ends is lost to that VM, by name."""
    world = world_of(vms=1)
    load = replace(BUSY, mix=MIXES["short"])
    probe = Probe(interval_s=PATIENCE_S, timeout_s=PATIENCE_S)
    async with Traffic(world, world.pool_id("app"), load=load, probe=probe) as traffic:
        await traffic.wait_until(lambda: traffic.counts().ok > 0)
        world.set_vm_state("web-1", "rebooting")
        await traffic.wait_until(lambda: traffic.counts().lost >= 5)
    assert {loss.backend for loss in traffic.counts().losses} == {"web-1"}


async def test_empty_pool_refuses_everybody() -> None:
    """With no member in rotation every request is lost, and the record says when and why."""
    world = world_of(vms=1)
    remove(world, "web-1")
    before = time.time()
    async with traffic_of(world, BUSY) as traffic:
        await traffic.wait_until(lambda: traffic.counts().lost >= 5)
    counts = traffic.counts()
    assert counts.ok == 0
    assert {loss.reason for loss in counts.losses} <= {Loss.RESET, Loss.CLOSED}
    assert all(loss.backend is None and loss.at >= before for loss in counts.losses)


async def test_timeouts_are_losses() -> None:
    """A request that a frozen VM does not answer in time is lost as a timeout of that VM."""
    world = world_of(vms=1)
    async with traffic_of(world, IMPATIENT) as traffic:
        await traffic.wait_until(lambda: traffic.counts().ok > 5)
        world.set_vm_state("web-1", "frozen")
        timed_out = (Loss.TIMEOUT, "web-1")
        await traffic.wait_until(
            lambda: timed_out in [(x.reason, x.backend) for x in traffic.counts().losses]
        )


async def test_a_stall_of_the_process_is_no_silence() -> None:
    """Time in which neither side can run does not count; silence does."""

    async def answer(after_s: float) -> str:
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251  (the stall)
        await asyncio.sleep(after_s)
        return "answer"

    assert await within(0.2, answer(0.1)) == "answer"
    with pytest.raises(TimeoutError):
        await within(0.2, answer(5))


async def test_nothing_stays_behind() -> None:
    """On exit every task has ended and every port is closed."""
    before = asyncio.all_tasks()
    async with traffic_of(world_of(), BUSY) as traffic:
        await traffic.wait_until(lambda: traffic.counts().ok > 10)
        port = traffic.port
    await new_tasks_end(before)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.parametrize("reading", ["reset", "persist"])
async def test_admin_down_has_two_readings(reading: Literal["reset", "persist"]) -> None:
    """Down gives a member no new flows; its established flows are reset or go on, by the knob."""
    world = world_of(vms=2, fate="drop")
    world.settings.admin_down = reading
    async with traffic_of(world) as traffic:
        flow = await flow_to(traffic, "web-2")
        world.set_admin_state(world.pool_id("app"), "web-2", "Down")
        await traffic.next_read()
        assert traffic.eligible() == ("web-1",)
        if reading == "persist":
            assert await flow.ask() == "web-2"
        else:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await flow.ask()


async def test_admin_up_ignores_the_probe() -> None:
    """A member whose application fails the probe gets no flows, unless its adminState is Up."""
    world = world_of(vms=2)
    async with traffic_of(world) as traffic:
        world.failing_probes.add("web-2")
        await traffic.wait_until(lambda: traffic.eligible() == ("web-1",))
        world.set_admin_state(world.pool_id("app"), "web-2", "Up")
        assert traffic.eligible() == ("web-1", "web-2")


@pytest.mark.parametrize("affinity", [True, False])
async def test_source_affinity(affinity: bool) -> None:
    """With affinity all flows of a client address reach one member; without it they spread."""
    world = world_of(vms=3)
    load_balancer = world.load_balancer_of(world.pool_id("app"))
    assert load_balancer is not None
    [rule] = load_balancer["properties"]["loadBalancingRules"]
    rule["properties"]["loadDistribution"] = "SourceIP" if affinity else "Default"
    async with traffic_of(world) as traffic:
        served: set[str] = set()
        for _ in range(40):
            flow = FlowClient(*await asyncio.open_connection("127.0.0.1", traffic.port))
            served.add(await flow.ask())
            flow.writer.close()
        assert len(served) == (1 if affinity else 3)
        [chosen, *_] = served
        remove(world, chosen)
        await traffic.next_read()
        flow = FlowClient(*await asyncio.open_connection("127.0.0.1", traffic.port))
        assert await flow.ask() != chosen
        flow.writer.close()


async def test_affinity_spreads_client_addresses() -> None:
    """Many client addresses reach all members although each of them has affinity."""
    world = world_of(vms=3)
    load_balancer = world.load_balancer_of(world.pool_id("app"))
    assert load_balancer is not None
    load_balancer["properties"]["loadBalancingRules"][0]["properties"]["loadDistribution"] = (
        "SourceIP"
    )
    load = replace(BUSY, rate_per_s=200, mix=MIXES["short"], addresses=60)
    async with traffic_of(world, load) as traffic:
        await traffic.wait_until(lambda: len(traffic.counts().ok_by_backend) == 3)
        assert traffic.counts().lost == 0
