"""The mix of clients, what each kind loses, and an application that closes before it is removed."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal
from unittest.mock import MagicMock

import pytest

from controller.simulator.traffic.balancer import Traffic
from controller.simulator.traffic.connection import Connection
from controller.simulator.traffic.load import HOLDING, MIXES, Counts, Kind, KindCounts, Load, Loss
from controller.simulator.traffic.messages import CLOSE_LINE
from controller.simulator.traffic.probes import Probe
from controller.simulator.world.builder import build_world
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.world import World
from tests.support.patience import PATIENCE_S, new_tasks_end

Fate = Literal["keep", "drop", "reset"]
FAST_PROBE = Probe(interval_s=0.05, timeout_s=PATIENCE_S, threshold=2)
EVEN: Mapping[Kind, float] = dict.fromkeys(Kind, 1 / len(Kind))
ALL_KINDS = Load(rate_per_s=120, mix=EVEN, pause_s=0.3, timeout_s=PATIENCE_S).accelerated(50)


def only(kind: Kind, *, timeout_s: float = 0.5) -> Load:
    load = Load(rate_per_s=60, mix={kind: 1.0}, pause_s=0.3, timeout_s=timeout_s)
    return load.accelerated(50)


def world_of(fate: Fate = "drop", **settings: Any) -> World:
    knobs = WorldSettings(flows_on_remove=fate, **settings)
    return build_world(now=time.time(), vms=2, settings=knobs)


@asynccontextmanager
async def running(world: World, load: Load) -> AsyncIterator[Traffic]:
    """The data plane, once both VMs have answered."""
    pool = world.pool_id("app")
    async with Traffic(
        world, pool, load=load, probe=FAST_PROBE, service_time_s=0.005, follow_every_s=0.01
    ) as traffic:
        await traffic.wait_until(lambda: len(traffic.counts().ok_by_backend) == 2)
        yield traffic


def remove(world: World, vm: str) -> None:
    world.remove_membership(world.pool_id("app"), world.vm(vm).nic_ids[0])


def answered(traffic: Traffic, at_least: int) -> bool:
    return all(counts.ok >= at_least for counts in traffic.counts().by_kind.values())


def lost(traffic: Traffic, at_least: int = 1) -> bool:
    return traffic.counts().lost >= at_least


async def test_every_kind_is_answered() -> None:
    """Without disturbance no kind loses a request, and the totals are those of the kinds."""
    async with running(world_of(), ALL_KINDS) as traffic:
        await traffic.wait_until(partial(answered, traffic, 5))
    counts = traffic.counts()
    assert set(counts.by_kind) == set(Kind)
    assert [each.lost for each in counts.by_kind.values()] == [0] * len(Kind)
    assert counts.sent == counts.ok == sum(each.sent for each in counts.by_kind.values())


@pytest.mark.parametrize("kind", HOLDING)
@pytest.mark.parametrize("fate", ["drop", "reset"])
async def test_what_a_removal_costs(kind: Kind, fate: Fate) -> None:
    """A client that holds a connection loses the request that it sends on it after the removal."""
    world = world_of(fate)
    load = replace(only(kind), pooled_age_s=(60, 120))
    async with running(world, load) as traffic:
        before = time.time()
        remove(world, "web-1")
        await traffic.wait_until(partial(lost, traffic))
    losses = traffic.counts().losses
    assert {(each.kind, each.backend) for each in losses} == {(kind, "web-1")}
    assert all(each.connected_at <= before <= each.until for each in losses)
    reasons = {Loss.TIMEOUT} if fate == "drop" else {Loss.RESET, Loss.CLOSED}
    assert {each.reason for each in losses} <= reasons


@pytest.mark.parametrize("kind", [Kind.SLOW, Kind.UPLOAD])
async def test_what_is_under_way_is_lost(kind: Kind) -> None:
    """A slow answer or an upload that is under way at the removal is lost where flows drop."""
    world = world_of("drop")
    load = replace(only(kind), slow_s=0.5, upload_s=0.5)
    async with running(world, load) as traffic:
        await traffic.wait_until(lambda: traffic.flows().get("web-1", 0) > 5)
        remove(world, "web-1")
        await traffic.wait_until(partial(lost, traffic))
    assert {(each.kind, each.reason) for each in traffic.counts().losses} == {(kind, Loss.TIMEOUT)}


@pytest.mark.parametrize("fate", ["keep", "drop", "reset"])
async def test_closed_before_the_removal(fate: Fate) -> None:
    """No kind loses a request if the application closes, and its VM is removed when it is quiet.

    Not when the VM is rebooted then, and not when it is opened again.
    """
    world = world_of(fate)
    async with running(world, ALL_KINDS) as traffic:
        await traffic.wait_until(partial(answered, traffic, 2))
        world.set_closed("web-1", closed=True)
        await traffic.wait_until(lambda: traffic.eligible() == ("web-2",))
        await traffic.wait_until(lambda: "web-1" not in traffic.flows())
        remove(world, "web-1")
        await traffic.next_read()
        world.set_vm_state("web-1", "rebooting")
        await traffic.next_read()
        world.set_vm_state("web-1", "running")
        world.add_membership(world.pool_id("app"), world.vm("web-1").nic_ids[0])
        await traffic.wait_until(lambda: "web-1" in traffic.flows())
    counts = traffic.counts()
    assert counts.losses == ()
    assert counts.lost == 0


@pytest.mark.parametrize("taken", [True, False])
def test_a_stream_that_ends_just_before_its_next_message_is_not_used(*, taken: bool) -> None:
    """No request is lost: the client sees the end, or sends first and ends the stream then."""
    transport = MagicMock()
    connection = Connection(set(), gives_up_at=0.0)
    connection.connection_made(transport)
    connection._streams = True
    assert not taken or connection.take()
    connection.data_received(CLOSE_LINE + b"\n")
    assert transport.close.called is not taken
    assert not connection.take()


async def test_a_web_server_that_does_not_end_streams() -> None:
    """A closed web server whose application does not take part keeps its streams, and only them."""
    world = world_of("drop", closed_ends_streams=False)
    load = Load(
        rate_per_s=200, mix={Kind.PERSISTENT: 0.5, Kind.STREAM: 0.5}, pause_s=0.3, timeout_s=5.0
    )
    async with running(world, load) as traffic:
        streams = Load.rate_of(load, Kind.STREAM) * load.pause_s
        world.set_closed("web-1", closed=True)
        await traffic.wait_until(lambda: traffic.eligible() == ("web-2",))
        await traffic.next_probe()
        sent = traffic.counts().sent
        await traffic.wait_until(lambda: traffic.counts().sent > sent + 400)
        assert 0 < traffic.flows().get("web-1", 0) <= streams
        remove(world, "web-1")
        await traffic.wait_until(partial(lost, traffic))
    assert {each.kind for each in traffic.counts().losses} == {Kind.STREAM}


async def test_a_closed_application_goes_on_answering() -> None:
    """The only VM of a pool closes, and its established connections are answered a last time."""
    world = world_of(closed_fails_probe=False)
    remove(world, "web-2")
    load, pool = only(Kind.PERSISTENT, timeout_s=PATIENCE_S), world.pool_id("app")
    async with Traffic(world, pool, load=load, probe=FAST_PROBE) as traffic:
        world.set_closed("web-1", closed=True)
        await traffic.next_read()
        await traffic.wait_until(lambda: traffic.counts().ok > 20)
    assert traffic.counts().lost == 0


async def test_a_connection_that_ended_without_a_word() -> None:
    """A request on a connection that the other side ended between two requests is lost."""
    world = world_of("reset")
    load = only(Kind.PERSISTENT)
    clients = round(load.rate_per_s * load.pause_s)
    async with running(world, load) as traffic:
        await traffic.wait_until(lambda: sum(traffic.flows().values()) == clients)
        held = traffic.flows()["web-1"]
        remove(world, "web-1")
        await traffic.wait_until(lambda: "web-1" not in traffic.flows())
        await traffic.wait_until(partial(lost, traffic, held))
        await traffic.wait_until(lambda: traffic.flows().get("web-2") == clients)
    assert traffic.counts().lost == held


async def test_pooled_connections_are_given_up() -> None:
    """The client of a pooled connection gives it up at its age, that of a persistent one never."""
    world = world_of()
    for kind, renewed in ((Kind.POOLED, True), (Kind.PERSISTENT, False)):
        load = Load(rate_per_s=50, mix={kind: 1.0}, pause_s=0.02, pooled_age_s=(0.01, 0.05))
        async with Traffic(world, world.pool_id("app"), load=load, probe=FAST_PROBE) as traffic:
            await traffic.wait_until(lambda at=traffic: at.counts().ok > 8)  # type: ignore[misc]
            connections = traffic.connections
        assert (connections > 1) is renewed
        assert traffic.counts().lost == 0


def test_acceleration() -> None:
    """A faster load has younger connections and shorter answers; clients wait as long as before."""
    load = Load(timeout_s=2).accelerated(10)
    assert load.pooled_age_s == (0.5, 12.0)
    assert (load.slow_s, load.upload_s, load.timeout_s) == (1.0, 1.0, 2)
    assert load.patience_s(Kind.SLOW) == load.patience_s(Kind.UPLOAD) == 3.0
    assert load.patience_s(Kind.SHORT) == 2.0


@pytest.mark.parametrize("name", MIXES)
def test_shares_of_a_mix(name: str) -> None:
    """The shares of every mix add up to one."""
    assert sum(MIXES[name].values()) == pytest.approx(1)


def test_the_counts_as_json() -> None:
    """The object has the totals and the figures of each kind."""
    counts = Counts(
        by_kind={Kind.SHORT: KindCounts(sent=7, ok=6, lost=1), Kind.STREAM: KindCounts(sent=2)}
    )
    assert counts.as_json() == {
        "sent": 9,
        "lost": 1,
        "by_kind": {"short": {"sent": 7, "lost": 1}, "stream": {"sent": 2, "lost": 0}},
    }


async def test_stopping_waits_for_what_is_under_way() -> None:
    """In the end every request was answered or lost, and no task or connection is left."""
    before = asyncio.all_tasks()
    async with running(world_of(), ALL_KINDS) as traffic:
        await traffic.wait_until(partial(answered, traffic, 1))
    counts = traffic.counts()
    assert counts.sent == counts.ok + counts.lost
    await new_tasks_end(before)
