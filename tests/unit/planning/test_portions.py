"""Which memberships go into one write after refusals."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import pytest

from controller.core.action_keys import ActionKey
from controller.core.ledger import Entry, EventReference, Ledger
from controller.core.planning import portions
from controller.core.planning.actions import key_alone
from controller.core.planning.address_pool import AddressPool
from controller.core.planning.nic_pool import NicPool
from controller.core.resources import Membership, PoolKind
from tests.support.planner_scenario import (
    API,
    APP,
    FAR,
    PlannerScenario,
    address,
    at,
    change_nic,
    change_pool,
    membership,
    nic_key,
    pool_key,
    vm_id,
    writes,
)

POOLS = [membership("web-1", APP), membership("web-1", API, 1), membership("web-1", FAR, 2)]
ADDRESSES = [address(f"web-{n}", f"10.0.0.{n}") for n in range(1, 9)]
RESTORE_APP = pool_key(APP, restore=True)


def alone(each: Membership, *, restore: bool = True) -> ActionKey:
    """Return the key of the write of one membership."""
    method = NicPool() if "address" not in each.key else AddressPool()
    return key_alone(method, each, restore=restore)


def planned(
    items: list[Membership], refused: Mapping[ActionKey, int], *, restore: bool = True
) -> list[tuple[tuple[Membership, ...], bool]]:
    """Return the memberships of each write, and whether it is kept by itself."""
    method = NicPool() if "address" not in items[0].key else AddressPool()
    found = portions.writes(method, items, restore=restore, refusals=lambda k: refused.get(k, 0))
    return [(each.memberships, each.alone) for each in found]


@pytest.mark.parametrize("times", [0, 1])
def test_one_write_for_all(times: int) -> None:
    """All memberships of a resource share one write until it was refused twice."""
    assert planned([*POOLS], {nic_key("web-1"): times}) == [(tuple(POOLS), False)]


@pytest.mark.parametrize(("times", "size"), [(2, 4), (3, 2), (4, 1), (5, 1), (99, 1)])
def test_a_refused_write_is_halved(times: int, size: int) -> None:
    """Every further refusal halves the write, down to one membership with its own back-off."""
    first, *rest = planned([*ADDRESSES], {RESTORE_APP: times})
    assert first == (tuple(ADDRESSES[:size]), size == 1)
    assert rest == []


def test_what_was_refused_alone_is_sent_alone() -> None:
    """A membership that was refused alone is left out of the write of the others."""
    refused = {alone(POOLS[1]): 3}
    assert planned([*POOLS], refused) == [((POOLS[0], POOLS[2]), False), ((POOLS[1],), True)]


def test_all_were_refused_alone() -> None:
    """When every one was refused, each is tried alone, the one refused least first."""
    refused = {alone(POOLS[0]): 3, alone(POOLS[1]): 1, alone(POOLS[2]): 2}
    assert [each for each, _ in planned([*POOLS], refused)] == [
        (POOLS[1],),
        (POOLS[2],),
        (POOLS[0],),
    ]


def test_the_only_membership_keeps_its_key() -> None:
    """A resource with one membership has one back-off, however often it is refused."""
    assert planned([POOLS[0]], {nic_key("web-1"): 9}) == [((POOLS[0],), False)]


def test_keys_that_a_success_ends() -> None:
    """A success ends the failures of the whole write and of what it contained."""
    write = change_nic(*POOLS[:2], restore=True)
    assert set(write.proven_keys) == {nic_key("web-1"), alone(POOLS[0]), alone(POOLS[1])}


def test_directions_of_a_pool_are_apart() -> None:
    """A refused restore of one address does not split removals from the same pool."""
    refused = {alone(ADDRESSES[0]): 3}
    assert planned([*ADDRESSES], refused, restore=False) == [(tuple(ADDRESSES), False)]


def test_addresses_of_several_vms() -> None:
    """L2: one address that cannot be written does not keep the other VMs out of the pool."""

    def out(name: str, ip: str) -> Entry:
        return Entry(
            vm=name,
            vm_id=vm_id(name),
            events=(EventReference(event_id="E", event_type="Reboot"),),
            memberships=(address(name, ip),),
            recorded_at=at(-60),
            restoring_at=at(-40),
        )

    scene = PlannerScenario(
        inside={"web-1": [], "web-2": [], "web-3": []},
        ips={"web-1": "10.0.0.4", "web-2": "10.0.0.5", "web-3": "10.0.0.6"},
        addresses={APP: [address("web-3", "10.0.0.6")]},
        pools={APP: {"kind": PoolKind.ADDRESS}},
        ledger=Ledger(
            epoch=2,
            leader="web-3",
            leader_since=at(-9000),
            entries=(out("web-1", "10.0.0.4"), out("web-2", "10.0.0.5")),
        ),
    )
    both = change_pool(address("web-1", "10.0.0.4"), address("web-2", "10.0.0.5"), restore=True)
    assert writes(scene.plan(attempts={RESTORE_APP: 1})) == [both]
    tried = writes(scene.plan(attempts={RESTORE_APP: 2}))[0]
    assert str(tried) == "restore 10.0.0.4 (app)"
    bad = alone(address("web-1", "10.0.0.4"))
    waits = MappingProxyType({bad: 1, RESTORE_APP: 2})
    assert str(writes(scene.plan(attempts=waits))[0]) == "restore 10.0.0.5 (app)"


def test_conflicts_and_throttling_split_nothing() -> None:
    """What does not depend on the content of a write leaves it whole."""
    scene = PlannerScenario(inside={"web-1": [APP, API], "web-2": [APP], "web-3": [APP]})
    assert (
        scene.evidence(
            attempts={nic_key("web-1"): 7}, excused={nic_key("web-1"): 6}
        ).views.refusals(nic_key("web-1"))
        == 1
    )


def test_what_is_alone_has_its_own_back_off() -> None:
    """The key of a write that is kept by itself is not that of the whole resource."""
    write = change_nic(POOLS[0], restore=True)
    assert write.key == nic_key("web-1")
    assert replace(write, alone=True).key == alone(POOLS[0]) != nic_key("web-1")
