"""Clients without sockets: what each kind loses in a history."""

from collections.abc import Iterable

import pytest

from controller.simulator.traffic.load import HOLDING, Counts, Kind
from controller.simulator.world.builder import build_world
from controller.simulator.world.history import Change
from controller.simulator.world.world import World
from tests.simulation.clients import losses_of

LASTS_S = 600.0
SEEDS = range(12)
"""Enough clients that some of each kind have a connection to the VM at any time."""
EVERY = frozenset(Kind)


def start() -> World:
    return build_world(now=0.0, vms=2)


def membership(world: World, kind: str, at: float) -> Change:
    pool = world.pool_id("app")
    member = next(each for each in world.members(pool) if each.vm == "web-1")
    detail = {
        "vm": member.vm,
        "ip_configuration": member.ip_configuration,
        "address": member.address,
    }
    return Change(at, kind, pool, detail)


def seen(changes: Iterable[Change], flows: str) -> list[Counts]:
    """What the clients of several seeds see of a history."""
    world = start()
    history = [*changes, Change(LASTS_S, "goodbye", "set")]
    history.insert(-1, Change(LASTS_S - 1, "converged", "set"))
    pool = world.pool_id("app")
    return [losses_of(world, history, pool_id=pool, flows=flows, seed=seed) for seed in SEEDS]


def losing(counted: Iterable[Counts]) -> frozenset[Kind]:
    return frozenset(lost.kind for counts in counted for lost in counts.losses)


def drained(*, closed_at: float | None) -> list[Change]:
    """A VM that is removed at 300, reboots at 330 and is back at 400."""
    world = start()
    closing = [Change(closed_at, "application_closed", "web-1")] if closed_at is not None else []
    opening = [Change(330, "application_opened", "web-1")] if closing else []
    return [
        *closing,
        membership(world, "member_out", 300),
        Change(330, "vm_down", "web-1", {"state": "rebooting"}),
        *opening,
        Change(350, "vm_up", "web-1"),
        membership(world, "member_in", 400),
    ]


def test_nothing_is_lost_where_nothing_happens() -> None:
    """Every kind sends, and every request is answered, by all VMs."""
    for counts in seen([], "drop"):
        assert counts.lost == 0
        assert all(each.sent == each.ok > 50 for each in counts.by_kind.values())
        assert set(counts.ok_by_backend) == {"web-1", "web-2"}


def test_the_same_seed_gives_the_same_losses() -> None:
    """Two evaluations of one history agree."""
    assert seen(drained(closed_at=None), "drop") == seen(drained(closed_at=None), "drop")


@pytest.mark.parametrize(
    ("flows", "kinds"),
    [("drop", {*HOLDING}), ("reset", {*HOLDING}), ("keep", {Kind.PERSISTENT, Kind.STREAM})],
)
def test_a_removal_costs_what_is_open(flows: str, kinds: set[Kind]) -> None:
    """A removal in time costs clients that hold a connection what they send on it."""
    counted = seen(drained(closed_at=None), flows)
    assert kinds <= losing(counted)
    short = [lost for each in counted for lost in each.losses if lost.kind is Kind.SHORT]
    assert all(lost.at <= 300 <= lost.until for lost in short), "only what was under way"


@pytest.mark.parametrize("flows", ["keep", "drop", "reset"])
def test_an_application_that_closes_first_loses_nothing(flows: str) -> None:
    """If the application closes a minute before the removal, no kind loses a request."""
    assert losing(seen(drained(closed_at=240), flows)) == frozenset()


@pytest.mark.parametrize(
    ("state", "kinds"),
    [("rebooting", EVERY), ("frozen", frozenset())],
)
def test_an_outage_in_the_pool(state: str, kinds: frozenset[Kind]) -> None:
    """A reboot in the pool costs every kind; a freeze that is shorter than the patience, none."""
    down_s = 60 if state == "rebooting" else 5
    outage = [
        Change(300, "vm_down", "web-1", {"state": state}),
        Change(300 + down_s, "vm_up", "web-1"),
    ]
    found = losing(seen(outage, "drop"))
    assert found == kinds


def test_without_a_member_everything_is_lost() -> None:
    """Without a VM that answers, requests on new connections are refused."""
    world = build_world(now=0.0, vms=1)
    history = [
        Change(300, "vm_down", "web-1", {"state": "stopped"}),
        Change(600, "converged", "set"),
    ]
    counts = losses_of(world, history, pool_id=world.pool_id("app"), flows="drop", seed=0)
    assert all(each.lost > 20 for kind, each in counts.by_kind.items() if kind is Kind.SHORT)
    late = [lost for lost in counts.losses if lost.at > 310]
    assert {lost.backend for lost in late} <= {None, "web-1"}
