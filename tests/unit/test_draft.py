"""A plan in the making: ages, proofs, back-off, slots, and whom it is about."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from scene import (
    API,
    APP,
    FAR,
    LB,
    Scene,
    acknowledged,
    address,
    at,
    deferred,
    event,
    membership,
    nic_id,
    phase,
    reasons,
    removal,
    started,
    vm_id,
    writes,
)

from controller.core.actions import (
    ChangeNic,
    Phase,
    ReadLoadBalancer,
    ReadNic,
    pool_key,
)
from controller.core.draft import (
    FRESH_S,
    LOOK_AGAIN_S,
    PREDECESSOR_S,
    Case,
    Draft,
    resource_of,
)
from controller.core.ledger import Entry
from controller.core.model import Deferral, Floor, Policy, PowerState, fold


@pytest.fixture
def scene() -> Scene:
    return Scene(events=[event()])


def draft_of(scene: Scene, **over: Any) -> Draft:
    return Draft(scene.observe(**over), scene.ledger, scene.policy, at(scene.now))


def entry(name: str = "web-1", **fields: Any) -> Entry:
    known: dict[str, Any] = {
        "vm": name,
        "vm_id": vm_id(name),
        "events": (),
        "memberships": (membership(name),),
        "recorded_at": at(0),
    }
    return Entry(**{**known, **fields})


def test_an_address_in_the_ledger_is_its_vms_however_spelled(scene: Scene) -> None:
    """S2: the address that a deleted VM has left in a pool is nobody else's."""
    scene.addresses = {APP: [address("left", "fd00::9")]}
    place = address("left", "fd00:0:0::9")
    scene.ledger = scene.ledger.with_entry(entry("WEB-9", memberships=(place,)))
    assert draft_of(scene).inventory.members(APP) == {*scene.inside, "web-9"}


# --- ages and proofs ---


def test_margins() -> None:
    """Ages that decide whether a view counts, how long a write may take, how rarely one looks."""
    assert (FRESH_S, PREDECESSOR_S, LOOK_AGAIN_S) == (10, 60, 300)


def test_a_view_from_the_future_is_as_good_as_none(scene: Scene) -> None:
    """Clocks differ by up to a second; what claims to be seen later than that was not seen."""
    draft = draft_of(scene)
    assert draft.age_s(at(-5)) == 5
    assert draft.age_s(at(1)) == -1
    assert draft.age_s(at(1.001)) == draft.age_s(None) == float("inf")
    assert draft.proves(at(1), since=at(1))
    assert not draft.proves(at(1.001), since=at(0))
    assert not draft.proves(at(0), since=at(0.001))


def test_views_of_exactly_the_last_age_still_count(scene: Scene) -> None:
    """Ten seconds, for a NIC as for a pool, and not an instant more."""
    scene.nics = {"web-1": {"observed_at": at(-10)}}
    scene.pools = {APP: {"observed_at": at(-10)}}
    assert scene.plan().ledger is not None
    scene.pools = {APP: {"observed_at": at(-10.001)}}
    assert scene.plan().ledger is None
    scene.pools, scene.nics = {}, {"web-1": {"observed_at": at(-10.001)}}
    assert scene.plan().ledger is None


@pytest.mark.parametrize(
    ("sent_s", "ended_s", "settled_s"),
    [
        (70, 70, 70),
        (70, 69.9, 130),
        (70, 90, 90),
        (70, None, 130),
        (None, 50, 50),
        (None, 49.9, 110),
    ],
)
def test_from_when_on_a_view_proves_that_nothing_lands_later(
    scene: Scene, sent_s: float | None, ended_s: float | None, settled_s: float
) -> None:
    """S5: the view that ended our last write, or any a minute after it was sent."""
    key = fold(nic_id("web-1"))
    over: dict[str, Any] = {
        "sent_at": MappingProxyType({} if sent_s is None else {key: at(sent_s)}),
        "ended_at": MappingProxyType({} if ended_s is None else {key: at(ended_s)}),
    }
    scene.now = 100
    draft = draft_of(scene, **over)
    assert draft.settled_at(nic_id("web-1").upper(), since=at(50)) == at(settled_s)


def test_until_when_a_write_may_have_left(scene: Scene) -> None:
    """S5: here by our own account, at a predecessor until this leader took the lease."""
    assert draft_of(scene).last_sent(APP, since=at(5)) == at(5)
    sent = {"sent_at": MappingProxyType({fold(APP): at(20)})}
    assert draft_of(scene, **sent).last_sent(APP.upper(), since=at(5)) == at(20)
    scene.ledger = replace(scene.ledger, leader_since=at(30))
    assert draft_of(scene, **sent).last_sent(APP, since=at(5)) == at(30)
    assert draft_of(scene, **sent).last_sent(APP, since=at(40)) == at(40)


@pytest.mark.parametrize(("now", "late"), [(60, True), (60.001, False)])
def test_how_long_a_removal_may_land_late(scene: Scene, now: float, late: bool) -> None:
    """S5, S3: for a minute it may have been ours, afterwards an operator removed it."""
    scene.now, scene.inside["web-1"] = now, []
    assert draft_of(scene).landed_late(entry(restored_at=at(10))) is late


def test_a_removal_that_was_seen_to_take_effect_cannot_land_again(scene: Scene) -> None:
    """S3: an operator took out whom we had seen out and restored, however lately we wrote."""
    scene.now, scene.inside["web-1"] = 30, []
    sent = {"sent_at": MappingProxyType({fold(nic_id("web-1")): at(20)})}
    back = entry(restoring_at=at(15), restored_at=at(25))
    assert not draft_of(scene, **sent).landed_late(back)
    assert draft_of(scene, **sent).landed_late(replace(back, restoring_at=None))


def test_an_address_that_is_gone_again_may_be_our_late_removal(scene: Scene) -> None:
    """S5: the pool is what an address was written to."""
    gone = address("a", "10.0.0.1")
    assert resource_of(gone) == APP
    back = entry(memberships=(gone,), restored_at=at(10))
    scene.now = 100
    assert not draft_of(scene).landed_late(back)
    sent = {"sent_at": MappingProxyType({fold(APP): at(50)})}
    assert draft_of(scene, **sent).landed_late(back)


def test_what_stands_did_not_land_late(scene: Scene) -> None:
    """S3: only what is gone can have been taken away."""
    assert not draft_of(scene).landed_late(entry(restored_at=at(0)))


# --- back-off ---


def test_failures_are_counted_over_all_memberships(scene: Scene) -> None:
    """L2: a VM counts as failing as often as its worst write; what never failed counts nothing."""
    places = (membership("web-1"), membership("web-2"), address("a", "10.0.0.1"))
    nothing = draft_of(scene)
    assert nothing.attempts((), restore=True) == nothing.attempts(places, restore=True) == 0
    failed = {removal("web-2").key: 3, pool_key(APP, restore=False): 4}
    draft = draft_of(scene, attempts=MappingProxyType(failed))
    assert draft.attempts(places, restore=True) == 3
    assert draft.attempts(places, restore=False) == 4
    assert draft.attempts(places[:1], restore=False) == 0
    waiting = {removal("web-2").key: Deferral(until=at(9), reason="Busy", attempts=5)}
    draft = draft_of(scene, attempts=MappingProxyType(failed), deferred=MappingProxyType(waiting))
    assert draft.attempts(places, restore=False) == 5


def test_a_deferral_ends_at_its_instant(scene: Scene) -> None:
    """What failed is left alone until then and not longer."""
    scene.now = 7
    assert draft_of(scene, **deferred("k", until=7.001)).deferred("k")
    assert not draft_of(scene, **deferred("k", until=7)).deferred("k")
    assert not draft_of(scene).deferred("k")


POOL_READ, NIC_READ = ReadLoadBalancer(LB).target, ReadNic(nic_id("web-1")).target
OLD_POOL = {"pools": {APP: {"observed_at": at(-10.001)}}}
NO_BODY = {"nics": {"web-1": {"body": None}}}
OLD_NIC = {"nics": {"web-1": {"observed_at": at(-10.001)}}}
FRESH: dict[str, Any] = {
    "pools": {APP: {"observed_at": at(-10)}},
    "nics": {"web-1": {"observed_at": at(-10)}},
}


@pytest.mark.parametrize(
    ("views", "failed", "over", "unreadable"),
    [
        (FRESH, NIC_READ, {}, False),
        (FRESH, POOL_READ, {}, False),
        (OLD_POOL, POOL_READ, {}, True),
        (OLD_POOL, NIC_READ, {}, False),
        (OLD_NIC, NIC_READ, {}, True),
        (OLD_NIC, POOL_READ, {}, False),
        (NO_BODY, NIC_READ, {}, True),
        (NO_BODY, POOL_READ, {}, False),
        ({}, NIC_READ, {"nics": ()}, True),
        ({}, POOL_READ, {"nics": ()}, False),
        ({}, POOL_READ, {"pools": ()}, True),
        ({}, NIC_READ, {"pools": ()}, False),
    ],
)
def test_what_cannot_be_read(
    views: dict[str, Any], failed: str, over: dict[str, Any], unreadable: bool
) -> None:
    """L2: a membership waits for a view that is old, and that reading just now failed to renew."""
    draft = draft_of(Scene(**views), **over, **deferred(failed, until=9))
    assert draft.unreadable(membership("web-1")) is unreadable


@pytest.mark.parametrize(("views", "unreadable"), [(FRESH, False), (OLD_POOL, True)])
def test_an_address_needs_its_pool_only(views: dict[str, Any], unreadable: bool) -> None:
    """L2: no NIC is read for an address."""
    draft = draft_of(Scene(**views), **deferred(POOL_READ, until=9))
    assert draft.unreadable(address("a", "10.0.0.1")) is unreadable


def test_pools_are_refreshed_unless_they_are_gone(scene: Scene) -> None:
    """Every old view of a managed pool is read again; a pool that does not exist is not old."""
    scene.policy = Policy(pools={APP: Floor(), API: Floor(), FAR: Floor()})
    scene.pools = {APP: {"observed_at": at(-10)}, API: {"observed_at": at(-10.001)}}
    draft = draft_of(scene, missing=frozenset({fold(FAR)}))
    assert not draft.refresh_pools()
    assert draft.actions == [ReadLoadBalancer(LB)]
    fresh = draft_of(scene, missing=frozenset({fold(FAR), fold(API)}))
    assert fresh.refresh_pools()
    assert fresh.actions == []
    unseen = draft_of(scene, pools=(), missing=frozenset({fold(FAR), fold(API)}))
    assert not unseen.refresh_pools()


@pytest.mark.parametrize(("age_s", "reads"), [(0.9, False), (1, True), (None, True)])
def test_what_proves_nothing_yet_is_read_every_second(age_s: float | None, reads: bool) -> None:
    """A view that does not prove anything is renewed once a second, not faster."""
    seen = {} if age_s is None else {"observed_at": at(-age_s)}
    scene = Scene(pools={APP: seen}, nics={"web-1": seen})
    over: dict[str, Any] = {"nics": (), "pools": ()} if age_s is None else {}
    draft = draft_of(scene, **over)
    draft.read_nic_again(nic_id("web-1"))
    draft.read_pool_again(APP)
    assert draft.actions == ([ReadNic(nic_id("web-1")), ReadLoadBalancer(LB)] if reads else [])
    assert draft.wakes == [at(1), at(1)]


@pytest.mark.parametrize("every_s", [10, 20])
def test_what_cannot_have_changed_is_read_less_often(every_s: float) -> None:
    """H1: the caller says how often looking again makes sense."""
    scene = Scene(pools={APP: {"observed_at": at(-15)}}, nics={"web-1": {"observed_at": at(-15)}})
    draft = draft_of(scene)
    draft.read_nic_again(nic_id("web-1"), every_s=every_s)
    draft.read_pool_again(APP, every_s=every_s)
    assert len(draft.actions) == (2 if every_s == 10 else 0)
    assert draft.wakes == [at(every_s)] * 2


# --- slots ---


def test_a_slot_is_a_target(scene: Scene) -> None:
    """Writes to one NIC or load balancer share a slot; without slots nothing new begins."""
    scene.slots = 2
    draft = draft_of(scene)
    pools = [address("a", "10.0.0.1"), address("b", "10.0.0.2", pool_id=API)]
    assert draft.claim(pools)
    assert draft.claim([membership("web-1")])
    assert not draft.claim([membership("web-2")])
    assert draft.claim([membership("web-1", API), *pools])


def test_no_slots_at_all_and_fewer(scene: Scene) -> None:
    """A VM whose NICs need more slots than there are begins while there is one."""
    for slots, begins in ((0, False), (1, True)):
        scene.slots = slots
        both = [membership("web-1"), membership("web-2")]
        draft = draft_of(scene)
        assert draft.claim(both) is begins
        assert not draft.claim([membership("web-3")])


def test_what_is_blocked_takes_no_slot(scene: Scene) -> None:
    """L2: a write that is deferred or under way leaves the only slot to the next one."""
    scene.events = [event("web-1", "web-2")]
    scene.adopt()
    scene.slots = 1
    assert writes(scene.plan()) == [removal("web-1")]
    assert writes(scene.plan(**deferred(removal("web-1").key, until=9))) == [removal("web-2")]
    busy = frozenset({removal("web-1").target})
    assert writes(scene.plan(in_flight=busy)) == [removal("web-2")]


# --- one VM ---


def case(scene: Scene, name: str = "web-1") -> Case:
    draft = draft_of(scene)
    vm = next(vm for vm in draft.subjects if vm.name == name)
    return draft.case(vm, scene.events)


def test_the_earliest_deadline_counts(scene: Scene) -> None:
    """Urgency: the earliest NotBefore, and none where one has begun or does not say."""
    scene.events = [event(not_before=700), event(event_id="E-2", not_before=300)]
    assert case(scene).deadline == at(300)
    scene.events.append(started(event_id="E-3"))
    assert case(scene).deadline is None
    scene.events = []
    assert case(scene).deadline is None


def test_urgency_is_the_earliest_of_a_vms_events(scene: Scene) -> None:
    """S7: the VM with the earliest deadline of all takes the only place that the floor leaves."""
    del scene.inside["web-3"]
    scene.events = [
        event("web-1", event_id="soon", not_before=500),
        event("web-1", event_id="late", not_before=800),
        event("web-2", event_id="between", not_before=600),
    ]
    scene.adopt()
    assert [each.vm for each in scene.ledger.entries] == ["web-1"]


def test_an_event_that_has_begun_is_the_most_urgent(scene: Scene) -> None:
    """S7: a VM for which anything has begun comes before every deadline."""
    del scene.inside["web-3"]
    scene.events = [
        event("web-1", event_id="late", not_before=800),
        started("web-1", event_id="begun"),
        event("web-2", event_id="soon", not_before=60),
    ]
    scene.adopt()
    assert [each.vm for each in scene.ledger.entries] == ["web-1"]


def test_one_started_event_is_maintenance(scene: Scene) -> None:
    """A VM with one event begun and another announced is in maintenance."""
    scene.take_out()
    scene.events = [started(), event(event_id="E-2")]
    assert phase(scene.plan()) is Phase.IN_MAINTENANCE


def test_one_puzzling_event_is_enough(scene: Scene) -> None:
    """S6: an undocumented status next to an event that is announced for later holds the VM."""
    unknown = replace(event(event_id="E-2"), status=type(event().status).UNKNOWN)
    scene.events = [event(not_before=86400), unknown]
    assert reasons(scene.plan()) == {"web-1": "unknown_event_status"}


def test_the_ledger_says_who_is_out(scene: Scene) -> None:
    """A VM that was restored is not recorded any more, though its entry is still there."""
    assert not case(scene).recorded
    scene.ledger = scene.ledger.with_entry(entry())
    assert case(scene).recorded
    scene.ledger = scene.ledger.with_entry(entry(restored_at=at(0)))
    assert not case(scene).recorded


# --- the shape of a plan ---


def test_a_wake_up_lies_ahead(scene: Scene) -> None:
    """An instant that has come is no reason to wake at it."""
    scene.take_out()
    scene.now = 35
    planned = scene.plan()
    assert acknowledged(planned) == ["E-1"]
    assert planned.wake_at == at(335)


def test_a_target_is_planned_once(scene: Scene) -> None:
    """Two reasons to read one NIC are one read."""
    scene.nics = {"web-1": {"body": None}}
    scene.events = [event(), event(event_id="E-2")]
    assert scene.plan().actions == (ReadNic(nic_id("web-1")),)


def test_a_target_in_flight_is_not_started_again(scene: Scene) -> None:
    """A read that is under way is not planned, whatever asks for it."""
    scene.nics = {"web-1": {"body": None}}
    flying = frozenset({ReadNic(nic_id("web-1")).target})
    assert scene.plan(in_flight=flying).actions == ()


def test_writes_of_one_nic_are_one(scene: Scene) -> None:
    """One PUT per NIC covers all its pools, also where ids differ in case."""
    scene.policy = Policy(pools={APP: Floor(), API: Floor()})
    scene.inside = {name: [APP, API] for name in scene.inside}
    draft = draft_of(scene)
    both = [membership("web-1"), replace(membership("web-1", API, 1), nic_id=nic_id("WEB-1"))]
    draft.change(both, restore=True)
    assert draft.actions == [
        ChangeNic(nic_id=nic_id("web-1"), memberships=tuple(both), restore=True)
    ]


def test_any_write_under_way_counts(scene: Scene) -> None:
    """S1: a VM is not settled while a write to any of its NICs or pools has not ended."""
    draft = draft_of(scene, in_flight=frozenset({removal("web-2").target}))
    assert draft.under_way([membership("web-1"), membership("web-2")])
    assert not draft.under_way([membership("web-1")])
    assert not draft.under_way([])


def test_addresses_of_one_pool_are_one_write_in_each_direction(scene: Scene) -> None:
    """Removals and restores of one pool are two writes; spellings of one pool are not."""
    draft = draft_of(scene)
    a, b = address("a", "10.0.0.1"), address("b", "10.0.0.2", pool_id=APP.upper())
    draft.change([a], restore=True)
    draft.change([b], restore=True)
    draft.change([address("c", "10.0.0.3")], restore=False)
    assert draft.actions == []
    draft.change_pools()
    assert [str(action) for action in draft.actions] == [
        "remove 10.0.0.3 (app)",
        "restore 10.0.0.1, 10.0.0.2 (app)",
    ]


# --- who does not serve ---


def test_who_is_not_counted_on(scene: Scene) -> None:
    """S2: stopped, gone, recorded, just restored, or named by an event that has begun."""
    scene.inside = {f"web-{n}": [APP] for n in range(1, 9)}
    scene.vms = {
        "web-1": {"power": PowerState.NOT_RUNNING, "name": "WEB-1"},
        "web-2": {"power": PowerState.GONE},
        "web-3": {"power": PowerState.UNKNOWN},
    }
    for each in (
        entry("WEB-4"),
        entry("web-5", restored_at=at(-14.9)),
        entry("web-6", restored_at=at(-15)),
    ):
        scene.ledger = scene.ledger.with_entry(each)
    scene.events = [
        started("WEB-7"),
        started("web-8", event_id="E-2", event_type="Freeze", duration_s=1),
        event("web-3", event_id="E-3"),
    ]
    assert draft_of(scene).unhealthy() == {"web-1", "web-2", "web-4", "web-5", "web-7"}
    assert "web-7" not in draft_of(scene, document=None).unhealthy()


# --- whom it is about ---


def test_vms_that_only_the_ledger_knows(scene: Scene) -> None:
    """L1: a VM that left the set keeps its NICs: those it has, and those that were recorded."""
    other = replace(membership("web-1"), nic_id=nic_id("second").upper())
    scene.ledger = scene.ledger.with_entry(
        entry("WEB-1", memberships=(membership("web-1"), other))
    ).with_entry(entry("old", memberships=(membership("old"),)))
    subjects = {vm.name: vm for vm in draft_of(scene).subjects}
    assert list(subjects) == ["old", "web-1", "web-2", "web-3"]
    assert subjects["web-1"].nic_ids == (nic_id("web-1"), nic_id("second").upper())
    assert subjects["old"].nic_ids == (nic_id("old"),)
    assert subjects["old"].vm_id == vm_id("old")
    assert subjects["old"].power is PowerState.UNKNOWN


def test_a_peer_counts_before_its_former_self(scene: Scene) -> None:
    """A VM that came back to the set is seen as the set lists it now."""
    former = replace(scene.observe().vms[0], power=PowerState.GONE, name="WEB-1")
    subjects = draft_of(scene, former=(former,)).subjects
    assert [(vm.name, vm.power) for vm in subjects if fold(vm.name) == "web-1"] == [
        ("web-1", PowerState.RUNNING)
    ]
