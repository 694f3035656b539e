"""A plan in the making: ages, proofs, back-off, slots, and whom it is about."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from controller.core.action_keys import ActionKey
from controller.core.azure_names import fold
from controller.core.drain_history import Step
from controller.core.drain_requests import DrainRequest
from controller.core.ledger import Entry, EventReference
from controller.core.observation import Deferral
from controller.core.planning.actions import Phase, ReadLoadBalancer, ReadNic
from controller.core.planning.evidence import Evidence
from controller.core.planning.mechanism import Proof
from controller.core.planning.plan_builder import PlanBuilder
from controller.core.planning.steps import Change, Forget, Inquiry, PlanStep, Record, Start, WakeAt
from controller.core.planning.views import CHECK_AGAIN_S, FRESH_S, PREDECESSOR_S
from controller.core.planning.vm_case import VmCase
from controller.core.policy import Floor
from controller.core.resources import Membership, PowerState
from tests.support.planner_scenario import (
    API,
    APP,
    FAR,
    LB,
    PlannerScenario,
    acknowledged,
    address,
    at,
    change_nic,
    deferred,
    event,
    membership,
    nic_id,
    phase,
    pool_key,
    reasons,
    removal,
    started,
    vm_id,
    writes,
)
from tests.support.policies import make_policy


def asked(inquiry: Inquiry) -> tuple[bool, list[PlanStep]]:
    """Return the answer to a question, and the steps that it yielded."""
    steps: list[PlanStep] = []
    while True:
        try:
            steps.append(next(inquiry))
        except StopIteration as end:
            return end.value, steps


def evidence_of(scene: PlannerScenario, **over: Any) -> Evidence:
    return scene.evidence(**over)


def entry(name: str = "web-1", **fields: Any) -> Entry:
    known: dict[str, Any] = {
        "vm": name,
        "vm_id": vm_id(name),
        "events": (),
        "memberships": (membership(name),),
        "recorded_at": at(0),
    }
    return Entry(**{**known, **fields})


def test_an_address_in_the_ledger_is_its_vms_however_spelled(scene: PlannerScenario) -> None:
    """S2: the address that a deleted VM has left in a pool is nobody else's."""
    scene.addresses = {APP: [address("left", "fd00::9")]}
    place = address("left", "fd00:0:0::9")
    scene.ledger = scene.ledger.with_entry(entry("WEB-9", memberships=(place,)))
    assert evidence_of(scene).views.membership.members(APP) == {*scene.inside, "web-9"}


# --- ages and proofs ---


def test_margins() -> None:
    """Ages that decide whether a view counts, how long a write may take, how rarely one looks."""
    assert (FRESH_S, PREDECESSOR_S, CHECK_AGAIN_S) == (10, 60, 300)


def test_a_view_from_the_future_is_as_good_as_none(scene: PlannerScenario) -> None:
    """Clocks differ by up to a second; what claims to be seen later than that was not seen."""
    evidence = evidence_of(scene)
    assert evidence.views.age_s(at(-5)) == 5
    assert evidence.views.age_s(at(1)) == -1
    assert evidence.views.age_s(at(1.001)) == evidence.views.age_s(None) == float("inf")
    assert evidence.views.proves(at(1), since=at(1))
    assert not evidence.views.proves(at(1.001), since=at(0))
    assert not evidence.views.proves(at(0), since=at(0.001))


def test_views_of_exactly_the_last_age_still_count(scene: PlannerScenario) -> None:
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
    scene: PlannerScenario, sent_s: float | None, ended_s: float | None, settled_s: float
) -> None:
    """S5: the view that ended our last write, or any a minute after it was sent."""
    key = fold(nic_id("web-1"))
    over: dict[str, Any] = {
        "sent_at": MappingProxyType({} if sent_s is None else {key: at(sent_s)}),
        "ended_at": MappingProxyType({} if ended_s is None else {key: at(ended_s)}),
    }
    scene.now = 100
    evidence = evidence_of(scene, **over)
    assert evidence.views.conclusive_from(nic_id("web-1").upper(), since=at(50)) == at(settled_s)


def test_until_when_a_write_may_have_left(scene: PlannerScenario) -> None:
    """S5: here by our own account, at a predecessor until this leader took the lease."""
    assert evidence_of(scene).views.last_sent(APP, since=at(5)) == at(5)
    sent = {"sent_at": MappingProxyType({fold(APP): at(20)})}
    assert evidence_of(scene, **sent).views.last_sent(APP.upper(), since=at(5)) == at(20)
    scene.ledger = replace(scene.ledger, leader_since=at(30))
    assert evidence_of(scene, **sent).views.last_sent(APP, since=at(5)) == at(30)
    assert evidence_of(scene, **sent).views.last_sent(APP, since=at(40)) == at(40)


@pytest.mark.parametrize(("now", "late"), [(60, True), (60.001, False)])
def test_how_long_a_removal_may_land_late(scene: PlannerScenario, now: float, late: bool) -> None:
    """S5, S3: for a minute it may have been ours, afterwards an operator removed it."""
    scene.now, scene.inside["web-1"] = now, []
    assert evidence_of(scene).landed_late(entry(restored_at=at(10))) is late


def test_a_removal_that_was_seen_to_take_effect_cannot_land_again(scene: PlannerScenario) -> None:
    """S3: an operator took out whom we had seen out and restored, however lately we wrote."""
    scene.now, scene.inside["web-1"] = 30, []
    sent = {"sent_at": MappingProxyType({fold(nic_id("web-1")): at(20)})}
    back = entry(restoring_at=at(15), restored_at=at(25))
    assert not evidence_of(scene, **sent).landed_late(back)
    assert evidence_of(scene, **sent).landed_late(replace(back, restoring_at=None))


def test_an_address_that_is_gone_again_may_be_our_late_removal(scene: PlannerScenario) -> None:
    """S5: the pool is what an address was written to."""
    gone = address("a", "10.0.0.1")
    assert evidence_of(scene).resource_of(gone) == APP
    back = entry(memberships=(gone,), restored_at=at(10))
    scene.now = 100
    assert not evidence_of(scene).landed_late(back)
    sent = {"sent_at": MappingProxyType({fold(APP): at(50)})}
    assert evidence_of(scene, **sent).landed_late(back)


def test_what_stands_did_not_land_late(scene: PlannerScenario) -> None:
    """S3: only what is gone can have been taken away."""
    assert not evidence_of(scene).landed_late(entry(restored_at=at(0)))


# --- back-off ---


def test_failures_are_counted_over_all_memberships(scene: PlannerScenario) -> None:
    """L2: a VM counts as failing as often as its worst write; what never failed counts nothing."""
    places = (membership("web-1"), membership("web-2"), address("a", "10.0.0.1"))
    nothing = evidence_of(scene)
    assert nothing.attempts((), restore=True) == nothing.attempts(places, restore=True) == 0
    failed = {removal("web-2").key: 3, pool_key(APP, restore=False): 4}
    evidence = evidence_of(scene, attempts=MappingProxyType(failed))
    assert evidence.attempts(places, restore=True) == 3
    assert evidence.attempts(places, restore=False) == 4
    assert evidence.attempts(places[:1], restore=False) == 0
    waiting = {removal("web-2").key: Deferral(until=at(9), reason="Busy", attempts=5)}
    evidence = evidence_of(
        scene, attempts=MappingProxyType(failed), deferred=MappingProxyType(waiting)
    )
    assert evidence.attempts(places, restore=False) == 5


def test_a_deferral_ends_at_its_instant(scene: PlannerScenario) -> None:
    """What failed is left alone until then and not longer."""
    scene.now = 7
    assert evidence_of(scene, **deferred(KEY, until=7.001)).views.deferred(KEY)
    assert not evidence_of(scene, **deferred(KEY, until=7)).views.deferred(KEY)
    assert not evidence_of(scene).views.deferred(KEY)


KEY = ReadNic("k").key
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
    views: dict[str, Any], failed: ActionKey, over: dict[str, Any], unreadable: bool
) -> None:
    """L2: a membership waits for a view that is old, and that reading just now failed to renew."""
    evidence = evidence_of(PlannerScenario(**views), **over, **deferred(failed, until=9))
    assert evidence.unreadable(membership("web-1")) is unreadable


@pytest.mark.parametrize(("views", "unreadable"), [(FRESH, False), (OLD_POOL, True)])
def test_an_address_needs_its_pool_only(views: dict[str, Any], unreadable: bool) -> None:
    """L2: no NIC is read for an address."""
    evidence = evidence_of(PlannerScenario(**views), **deferred(POOL_READ, until=9))
    assert evidence.unreadable(address("a", "10.0.0.1")) is unreadable


def test_pools_are_refreshed_unless_they_are_gone(scene: PlannerScenario) -> None:
    """Every old view of a managed pool is read again; a pool that does not exist is not old."""
    scene.policy = make_policy(
        pools={APP: Floor(number=1), API: Floor(number=1), FAR: Floor(number=1)}
    )
    scene.pools = {APP: {"observed_at": at(-10)}, API: {"observed_at": at(-10.001)}}
    evidence = evidence_of(scene, missing=frozenset({fold(FAR)}))
    assert asked(evidence.refresh_pools()) == (False, [Start(ReadLoadBalancer(LB))])
    fresh = evidence_of(scene, missing=frozenset({fold(FAR), fold(API)}))
    assert asked(fresh.refresh_pools()) == (True, [])
    unseen = evidence_of(scene, pools=(), missing=frozenset({fold(FAR), fold(API)}))
    assert not asked(unseen.refresh_pools())[0]


@pytest.mark.parametrize(("age_s", "reads"), [(0.9, False), (1, True), (None, True)])
def test_what_proves_nothing_yet_is_read_every_second(age_s: float | None, reads: bool) -> None:
    """A view that does not prove anything is renewed once a second, not faster."""
    read = ReadNic(nic_id("web-1"))
    seen_at = None if age_s is None else at(-age_s)
    proof = Proof(since=at(0), seen_at=seen_at, read=read)
    steps = list(evidence_of(PlannerScenario()).read_again(proof))
    assert steps == [*([Start(read)] if reads else []), WakeAt(at(1))]


@pytest.mark.parametrize("every_s", [10, 20])
def test_what_cannot_have_changed_is_read_less_often(every_s: float) -> None:
    """H1: the caller says how often looking again makes sense."""
    read = ReadLoadBalancer(LB)
    proof = Proof(since=at(0), seen_at=at(-15), read=read)
    steps = list(evidence_of(PlannerScenario()).read_again(proof, every_s=every_s))
    assert steps == [*([Start(read)] if every_s == 10 else []), WakeAt(at(every_s))]


# --- slots ---


def recorded(scene: PlannerScenario, *claims: list[Membership]) -> list[str]:
    """Record one VM after the other, each with a claim, and return those that were."""
    builder = PlanBuilder(evidence_of(scene))
    for number, claim in enumerate(claims, start=1):
        new = entry(f"new-{number}")
        builder.add([Record(entry=new, step=Step.RECORDED, claims=tuple(claim))])
    planned = builder.result().ledger
    return [each.vm for each in planned.entries] if planned else []


def test_a_slot_is_a_target(scene: PlannerScenario) -> None:
    """Writes to one NIC or load balancer share a slot; without slots nothing new begins."""
    scene.slots = 2
    pools: list[Membership] = [address("a", "10.0.0.1"), address("b", "10.0.0.2", pool_id=API)]
    claims: list[list[Membership]] = [
        pools,
        [membership("web-1")],
        [membership("web-2")],
        [membership("web-1", API), *pools],
    ]
    assert recorded(scene, *claims) == ["new-1", "new-2", "new-4"]


def test_no_slots_at_all_and_fewer(scene: PlannerScenario) -> None:
    """A VM whose NICs need more slots than there are begins while there is one."""
    for slots, begins in ((0, []), (1, ["new-1"])):
        scene.slots = slots
        both: list[Membership] = [membership("web-1"), membership("web-2")]
        assert recorded(scene, both, [membership("web-3")]) == begins


def test_what_is_blocked_takes_no_slot(scene: PlannerScenario) -> None:
    """L2: a write that is deferred or under way leaves the only slot to the next one."""
    scene.events = [event("web-1", "web-2")]
    scene.adopt()
    scene.slots = 1
    assert writes(scene.plan()) == [removal("web-1")]
    assert writes(scene.plan(**deferred(removal("web-1").key, until=9))) == [removal("web-2")]
    busy = frozenset({removal("web-1").target})
    assert writes(scene.plan(in_flight=busy)) == [removal("web-2")]


def test_what_claims_nothing_is_recorded_without_a_slot(scene: PlannerScenario) -> None:
    """S1: what was observed is recorded at once; only a record that precedes a write needs one."""
    scene.slots = 0
    assert recorded(scene, [], [membership("web-1")], []) == ["new-1", "new-3"]


def test_a_record_without_a_slot_leaves_no_line_in_the_history(scene: PlannerScenario) -> None:
    """H1: a VM that waits for a write slot changes nothing in the ledger."""
    scene.slots = 0
    builder = PlanBuilder(evidence_of(scene))
    place = membership("web-1")
    builder.add([Record(entry=entry(), step=Step.RECORDED, detail="app", claims=(place,))])
    assert builder.result().ledger is None


def test_a_target_that_was_claimed_is_written_without_another_slot(scene: PlannerScenario) -> None:
    """L2: a record and the write of the same NIC take one slot in a pass."""
    scene.slots = 1
    builder = PlanBuilder(evidence_of(scene))
    place = membership("web-1")
    builder.add([Record(entry=entry(), step=Step.RECORDED, claims=(place,))])
    builder.add([Change(memberships=(place,), restore=False)])
    builder.add([Change(memberships=(membership("web-2"),), restore=False)])
    assert builder.result().actions == (removal("web-1"),)


def test_the_last_step_for_an_entry_counts_in_any_spelling(scene: PlannerScenario) -> None:
    """S6: the entry of a VM is one entry, however each step spells the name."""
    new, lower, upper = (
        Record(entry=entry("WEB-9")),
        Forget(vm="web-9", step=Step.FORGOTTEN),
        Forget(vm="WEB-9", step=Step.FORGOTTEN),
    )
    for steps, kept in (((new, lower, new), True), ((upper, new, upper), False)):
        builder = PlanBuilder(evidence_of(scene))
        builder.add(steps)
        planned = builder.result().ledger
        assert planned is not None
        assert (planned.entry("web-9") is not None) is kept


# --- drain requests in the history ---


def request(request_id: str, vm: str = "web-1", reason: str = "") -> DrainRequest:
    return DrainRequest(
        request_id=request_id, vm=vm, reason=reason, by=f"by-{request_id}", at=at(0), until=at(3600)
    )


def for_request(request_id: str) -> EventReference:
    return EventReference(event_id=request_id, event_type="Manual")


def noted_requests(scene: PlannerScenario, new: Entry | None, *requests: DrainRequest) -> list[str]:
    """Return the lines about drain requests that a pass with this record adds to the history."""
    builder = PlanBuilder(evidence_of(scene, requests=requests))
    builder.add([Record(entry=new)] if new else [])
    planned = builder.result().ledger or scene.ledger
    lines = [line for line in planned.transitions if line.step == Step.REQUESTED.value]
    return [f"{line.vm} {line.detail}" for line in lines]


def test_a_request_is_noted_when_it_enters_an_entry(scene: PlannerScenario) -> None:
    """The history names the operator and the reason of the request, and no other request."""
    new = entry(events=(for_request("R-1"),))
    other = request("R-2", "web-2", "not this one")
    assert noted_requests(scene, new, request("R-1", reason="disk"), other) == [
        "web-1 by by-R-1: disk"
    ]
    assert noted_requests(scene, new, other, request("R-1")) == ["web-1 by by-R-1"]
    assert noted_requests(scene, new, other) == []
    assert noted_requests(scene, new) == []


def test_a_request_that_an_entry_names_already_is_not_noted_again(scene: PlannerScenario) -> None:
    """H1: each request has one line in the history, also when another one joins it."""
    first, both = (for_request("R-1"),), (for_request("R-1"), for_request("R-2"))
    requests = (request("R-1"), request("R-2"))
    scene.ledger = scene.ledger.with_entry(entry(events=first))
    assert noted_requests(scene, None, *requests) == []
    assert noted_requests(scene, entry(events=both), *requests) == ["web-1 by by-R-2"]


# --- one VM ---


def case(scene: PlannerScenario, name: str = "web-1") -> VmCase:
    evidence = evidence_of(scene)
    vm = next(vm for vm in evidence.views.tracked_vms if vm.name == name)
    return evidence.case(vm)


def test_the_earliest_deadline_counts(scene: PlannerScenario) -> None:
    """Urgency: the earliest NotBefore, and none where one has begun or does not say."""
    scene.events = [event(not_before=700), event(event_id="E-2", not_before=300)]
    assert case(scene).deadline == at(300)
    scene.events.append(started(event_id="E-3"))
    assert case(scene).deadline is None
    scene.events = []
    assert case(scene).deadline is None


def test_urgency_is_the_earliest_of_a_vms_events(scene: PlannerScenario) -> None:
    """S7: the VM with the earliest deadline of all takes the only place that the floor leaves."""
    del scene.inside["web-3"]
    scene.events = [
        event("web-1", event_id="soon", not_before=500),
        event("web-1", event_id="late", not_before=800),
        event("web-2", event_id="between", not_before=600),
    ]
    scene.adopt()
    assert [each.vm for each in scene.ledger.entries] == ["web-1"]


def test_an_event_that_has_begun_is_the_most_urgent(scene: PlannerScenario) -> None:
    """S7: a VM for which anything has begun comes before every deadline."""
    del scene.inside["web-3"]
    scene.events = [
        event("web-1", event_id="late", not_before=800),
        started("web-1", event_id="begun"),
        event("web-2", event_id="soon", not_before=60),
    ]
    scene.adopt()
    assert [each.vm for each in scene.ledger.entries] == ["web-1"]


def test_one_started_event_is_maintenance(scene: PlannerScenario) -> None:
    """A VM with one event begun and another announced is in maintenance."""
    scene.take_out()
    scene.events = [started(), event(event_id="E-2")]
    assert phase(scene.plan()) is Phase.IN_MAINTENANCE


def test_one_event_with_an_unknown_status_is_enough(scene: PlannerScenario) -> None:
    """S6: an undocumented status next to an event that is announced for later holds the VM."""
    unknown = replace(event(event_id="E-2"), status=type(event().status).UNKNOWN)
    scene.events = [event(not_before=86400), unknown]
    assert reasons(scene.plan()) == {"web-1": "unknown_event_status"}


def test_the_ledger_says_who_is_out(scene: PlannerScenario) -> None:
    """A VM that was restored is not recorded any more, though its entry is still there."""
    assert not case(scene).recorded
    scene.ledger = scene.ledger.with_entry(entry())
    assert case(scene).recorded
    scene.ledger = scene.ledger.with_entry(entry(restored_at=at(0)))
    assert not case(scene).recorded


# --- the shape of a plan ---


def test_a_wake_up_lies_ahead(scene: PlannerScenario) -> None:
    """An instant that has come is no reason to wake at it."""
    scene.take_out()
    scene.now = 35
    planned = scene.plan()
    assert acknowledged(planned) == ["E-1"]
    assert planned.wake_at == at(50)


def test_a_target_is_planned_once(scene: PlannerScenario) -> None:
    """Two reasons to read one NIC are one read."""
    scene.nics = {"web-1": {"body": None}}
    scene.events = [event(), event(event_id="E-2")]
    assert scene.plan().actions == (ReadNic(nic_id("web-1")),)


def test_a_target_in_flight_is_not_started_again(scene: PlannerScenario) -> None:
    """A read that is under way is not planned, whatever asks for it."""
    scene.nics = {"web-1": {"body": None}}
    flying = frozenset({ReadNic(nic_id("web-1")).target})
    assert scene.plan(in_flight=flying).actions == ()


def test_writes_of_one_nic_are_one(scene: PlannerScenario) -> None:
    """One PUT per NIC covers all its pools, also where ids differ in case."""
    scene.policy = make_policy(pools={APP: Floor(number=1), API: Floor(number=1)})
    scene.inside = {name: [APP, API] for name in scene.inside}
    both = (membership("web-1"), replace(membership("web-1", API, 1), nic_id=nic_id("WEB-1")))
    builder = PlanBuilder(evidence_of(scene))
    builder.add([Change(memberships=both, restore=True)])
    assert builder.result().actions == (change_nic(*both, restore=True),)


def test_any_write_under_way_counts(scene: PlannerScenario) -> None:
    """S1: a VM is not settled while a write to any of its NICs or pools has not ended."""
    evidence = evidence_of(scene, in_flight=frozenset({removal("web-2").target}))
    assert evidence.under_way([membership("web-1"), membership("web-2")])
    assert not evidence.under_way([membership("web-1")])
    assert not evidence.under_way([])


def test_addresses_of_one_pool_are_one_write_in_each_direction(scene: PlannerScenario) -> None:
    """Removals and restores of one pool are two writes; spellings of one pool are not."""
    a, b = address("a", "10.0.0.1"), address("b", "10.0.0.2", pool_id=APP.upper())
    builder = PlanBuilder(evidence_of(scene))
    for place, restore in ((a, True), (b, True), (address("c", "10.0.0.3"), False)):
        builder.add([Change(memberships=(place,), restore=restore)])
    assert builder.result().actions == ()
    builder.add_shared_writes()
    # Both write the same load balancer, which takes one write at a time.
    assert [str(action) for action in builder.result().actions] == ["remove 10.0.0.3 (app)"]
    busy = PlanBuilder(evidence_of(scene, **deferred(pool_key(APP, restore=False), until=9)))
    for place, restore in ((a, True), (b, True), (address("c", "10.0.0.3"), False)):
        busy.add([Change(memberships=(place,), restore=restore)])
    busy.add_shared_writes()
    assert [str(action) for action in busy.result().actions] == ["restore 10.0.0.1, 10.0.0.2 (app)"]


# --- who does not serve ---


def test_who_is_not_counted_on(scene: PlannerScenario) -> None:
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
    assert evidence_of(scene).unhealthy == {"web-1", "web-2", "web-4", "web-5", "web-7"}
    assert "web-7" not in evidence_of(scene, document=None).unhealthy


# --- whom it is about ---


def test_vms_that_only_the_ledger_knows(scene: PlannerScenario) -> None:
    """L1: a VM that left the set keeps its NICs: those it has, and those that were recorded."""
    other = replace(membership("web-1"), nic_id=nic_id("second").upper())
    scene.ledger = scene.ledger.with_entry(
        entry("WEB-1", memberships=(membership("web-1"), other))
    ).with_entry(entry("old", memberships=(membership("old"),)))
    subjects = {vm.name: vm for vm in evidence_of(scene).views.tracked_vms}
    assert list(subjects) == ["old", "web-1", "web-2", "web-3"]
    assert subjects["web-1"].nic_ids == (nic_id("web-1"), nic_id("second").upper())
    assert subjects["old"].nic_ids == (nic_id("old"),)
    assert subjects["old"].vm_id == vm_id("old")
    assert subjects["old"].power is PowerState.UNKNOWN


def test_a_peer_counts_before_its_former_self(scene: PlannerScenario) -> None:
    """A VM that came back to the set is seen as the set lists it now."""
    former = replace(scene.observe().vms[0], power=PowerState.GONE, name="WEB-1")
    subjects = evidence_of(scene, former=(former,)).views.tracked_vms
    assert [(vm.name, vm.power) for vm in subjects if fold(vm.name) == "web-1"] == [
        ("web-1", PowerState.RUNNING)
    ]
