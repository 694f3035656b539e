"""Putting VMs back: what is waited for, what cannot come back, and when it is over."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from controller.core.action_keys import action_key
from controller.core.azure_names import fold
from controller.core.drain_requests import DRAIN_REQUEST
from controller.core.events import EventDocument
from controller.core.ledger import Entry, EventReference
from controller.core.planning.actions import (
    Phase,
    Plan,
    ReadLoadBalancer,
    ReadNic,
    ReadPower,
)
from controller.core.planning.mechanism import removal_over_at
from controller.core.planning.restoration import POWER_AGAIN_S
from controller.core.policy import Floor
from controller.core.resources import IpConfiguration, NicMembership, PoolMember, PowerState
from tests.support.planner_scenario import (
    API,
    APP,
    FAR,
    LB,
    PlannerScenario,
    address,
    at,
    event,
    membership,
    nic_id,
    phase,
    pool_key,
    reasons,
    removal,
    restoral,
    started,
    vm_id,
    writes,
)
from tests.support.policies import make_policy

SECOND = nic_id("web-1-b")


def out_and_over() -> PlannerScenario:
    scene = PlannerScenario(events=[event()])
    scene.take_out()
    scene.now, scene.events = 300, []
    return scene


def entry(**fields: Any) -> Entry:
    known: dict[str, Any] = {
        "vm": "web-1",
        "vm_id": vm_id("web-1"),
        "events": (),
        "memberships": (membership("web-1"),),
        "recorded_at": at(0),
    }
    return Entry(**{**known, **fields})


def holding(record: Entry, *, now: float = 300, **fields: Any) -> PlannerScenario:
    """A set after an event, with this entry in the ledger."""
    scene = PlannerScenario(now=now, **fields)
    scene.ledger = scene.ledger.with_entry(record)
    return scene


def why(planned: Plan, name: str = "web-1") -> str:
    return next(each.why for each in planned.phases if fold(each.vm) == fold(name))


# --- waiting ---


def test_margins() -> None:
    """How often the power state of a VM that stopped is read again."""
    assert POWER_AGAIN_S == 10


def test_who_is_out_without_us_stays_out() -> None:
    """S3: a VM without an entry is in service where it stands, and unmanaged where it does not."""
    scene = PlannerScenario(inside={"web-1": [APP], "web-2": []})
    planned = scene.plan()
    assert (phase(planned, "web-1"), phase(planned, "web-2")) == (Phase.IN_SERVICE, Phase.UNMANAGED)
    assert planned.ledger is None


def test_polls_of_before_a_freeze_announce_nothing() -> None:
    """S6: on an old document nothing is even written ahead."""
    scene = out_and_over()
    planned = scene.plan(document_at=at(269.9))
    assert (planned.ledger, phase(planned)) == (None, Phase.RESTORE_DUE)
    assert why(planned) == "waiting for two clean polls"
    assert scene.plan(document_at=at(270)).ledger is not None


def test_an_event_for_another_vm_does_not_keep_this_one_out() -> None:
    """S6: only an event that names the VM does, in either of the two polls."""
    scene = out_and_over()
    scene.events = [started("web-2", event_id="E-2")]
    scene.inside["web-2"] = [APP]
    assert restoral() in writes(scene.through())


@pytest.mark.parametrize(("seen", "restores"), [(290, True), (289.9, False)])
def test_how_old_a_power_state_may_be(seen: float, restores: bool) -> None:
    """S6: a VM that was seen running ten seconds ago runs."""
    scene = out_and_over()
    scene.vms = {"web-1": {"power_observed_at": at(seen)}}
    planned = scene.plan()
    assert (planned.ledger is not None) is restores
    assert planned.actions == (() if restores else (ReadPower(vm_id("web-1")),))
    assert phase(planned) is (Phase.RESTORING if restores else Phase.RESTORE_DUE)


@pytest.mark.parametrize(("seen", "held"), [(290, True), (289.9, False)])
def test_how_old_a_stop_may_be_to_be_told(seen: float, held: bool) -> None:
    """H1: a VM that was seen stopped ten seconds ago is held; older views are no reason yet."""
    scene = out_and_over()
    scene.vms = {"web-1": {"power": PowerState.NOT_RUNNING, "power_observed_at": at(seen)}}
    planned = scene.plan()
    assert reasons(planned) == ({"web-1": "vm_not_running"} if held else {})
    if held:
        assert planned.holds[0].message == (
            "web-1 stays out: Azure reports that it is not running; "
            "it is restored as soon as it runs"
        )


def test_a_stopped_vm_is_looked_at_when_its_time_comes() -> None:
    """H1: the plan wakes at the next look, counted from the last one."""
    scene = out_and_over()
    scene.vms = {"web-1": {"power": PowerState.NOT_RUNNING, "power_observed_at": at(296)}}
    planned = scene.plan()
    assert (planned.actions, planned.wake_at) == ((), at(306))


def test_a_pending_event_is_told() -> None:
    """A VM stays out while another event for it is announced, and says so."""
    scene = out_and_over()
    scene.events = [event(event_id="E-2", not_before=4500)]
    planned = scene.plan()
    assert planned.holds[0].message == (
        "web-1 stays out: another event for it is announced; "
        "it is restored when no event for it is left, or the next one is far ahead"
    )
    assert phase(planned) is Phase.HELD


def test_restores_go_by_name_whatever_failed_to_be_removed() -> None:
    """L2: only failures of restores put a restore behind others."""
    scene = PlannerScenario(
        inside={"web-1": [], "web-2": []}, ips={"web-1": "10.0.0.1", "web-2": "10.0.0.2"}
    )
    scene.policy = make_policy(pools={APP: Floor(number=0), API: Floor(number=0)})
    scene.addresses = {
        APP: [address("a", "10.0.0.1")],
        API: [address("b", "10.0.0.2", pool_id=API)],
    }
    scene.events = [event("web-1", "web-2")]
    scene.adopt()
    scene.addresses, scene.now = {}, 5
    scene.adopt()
    scene.now, scene.events = 300, []
    scene.through()
    failed = {pool_key(APP, restore=False): 1}
    first = writes(scene.plan(attempts=MappingProxyType(failed)))
    assert [write.key for write in first][:1] == [pool_key(APP, restore=True)]
    failed = {pool_key(APP, restore=True): 1}
    first = writes(scene.plan(attempts=MappingProxyType(failed)))
    assert [write.key for write in first][:1] == [pool_key(API, restore=True)]


# --- while a removal may still land ---


def two_nics(
    now: float, first: list[str], second: list[str]
) -> tuple[PlannerScenario, dict[str, Any]]:
    """Web-1 with two NICs in APP, recorded at 0 and nothing due any more."""
    places = (membership("web-1"), replace(membership("web-1"), nic_id=SECOND))
    scene = holding(entry(memberships=places), now=now)
    scene.inside["web-1"] = first
    scene.vms = {"web-1": {"nic_ids": (nic_id("web-1"), SECOND)}}
    nics = scene.observe().nics
    other = replace(
        nics[0],
        nic_id=SECOND,
        ip_configurations=(IpConfiguration(name="ipconfig1", pool_ids=tuple(second)),),
    )
    return scene, {"nics": (*nics, other)}


def test_a_nic_that_is_still_in_keeps_the_other_one_out() -> None:
    """S5: nothing is put back while the rest of the removal may still land."""
    scene, over = two_nics(30, [], [APP])
    planned = scene.plan(**over)
    assert (planned.ledger, planned.wake_at) == (None, at(60))
    scene, over = two_nics(60, [], [APP])
    assert scene.plan(**over).ledger is not None


def test_a_nic_that_is_out_proves_its_own_removal() -> None:
    """S5: for the NIC that is out no patience is needed, only a view from after the record."""
    scene, over = two_nics(30, [], [])
    assert scene.plan(**over).ledger is not None
    seen = tuple(replace(nic, observed_at=at(-0.1)) for nic in over["nics"] if nic.nic_id == SECOND)
    rest = tuple(nic for nic in over["nics"] if nic.nic_id != SECOND)
    planned = scene.plan(nics=(*rest, *seen))
    assert planned.ledger is None
    assert planned.actions == (ReadNic(SECOND),)


def test_the_end_of_one_nics_removal_says_nothing_against_another() -> None:
    """S5: a NIC that is out needs no patience because another one is in, and settled."""
    scene, over = two_nics(30, [], [APP])
    assert scene.plan(**over, ended_at={fold(SECOND): at(30)}).ledger is not None


def test_nics_are_read_in_the_order_of_their_ids() -> None:
    """The same world gives the same plan."""
    places = tuple(replace(membership("web-1"), nic_id=nic_id(letter)) for letter in "cadb")
    scene = holding(entry(memberships=places))
    scene.pools = {APP: {"observed_at": at(40)}}
    seen = scene.observe().nics[0]
    nics = tuple(replace(seen, nic_id=nic_id(letter), observed_at=at(50)) for letter in "cadb")
    read = tuple(ReadNic(nic_id(letter)) for letter in "abcd")
    assert scene.plan(nics=nics).actions == read


def test_pools_are_read_in_the_order_of_their_ids() -> None:
    """The same for pools."""
    pools = [f"{LB}{letter}/backendAddressPools/p" for letter in "cadb"]
    places = tuple(address(f"a{n}", "10.0.0.1", pool_id=pool) for n, pool in enumerate(pools))
    scene = holding(entry(memberships=places), ips={"web-1": "10.0.0.1"})
    scene.policy = make_policy(pools={pool: Floor(number=1) for pool in pools})
    scene.addresses = {place.pool_id: [place] for place in places}
    scene.pools = {pool: {"observed_at": at(50)} for pool in pools}
    read = [action for action in scene.plan().actions if isinstance(action, ReadLoadBalancer)]
    assert read == [ReadLoadBalancer(f"{LB}{letter}") for letter in "abcd"]


def test_what_was_never_seen_is_not_surely_back() -> None:
    """Observed-in before Forget: without a view of the NIC or pool nothing is over."""
    scene = holding(entry())
    planned = scene.plan(nics=())
    assert planned.ledger is None
    assert ReadNic(nic_id("web-1")) in planned.actions
    place = address("a", "10.0.0.1")
    half = entry(memberships=(membership("web-1"), place))
    scene = holding(half, ips={"web-1": "10.0.0.1"})
    planned = scene.plan(pools=())
    assert planned.ledger is None
    assert ReadLoadBalancer(LB) in planned.actions


@pytest.mark.parametrize(
    ("record", "since"),
    [
        (entry(out_at=at(20)), 20),
        (entry(restoring_at=at(20)), 20),
        (entry(recorded_at=at(0)), 60),
        (entry(recorded_at=at(10), restoring_at=at(5)), 70),
    ],
    ids=["out", "restoring", "recorded", "recorded again"],
)
def test_from_when_on_a_view_shows_a_vm_back(record: Entry, since: float) -> None:
    """Observed-in before Forget: not by a view from before it was out, sent back, or settled."""
    scene = holding(record, now=100, nics={"web-1": {"observed_at": at(since - 0.1)}})
    planned = scene.plan()
    assert (planned.ledger, planned.actions) == (None, (ReadNic(nic_id("web-1")),))
    assert why(planned) == "waiting until no removal can take effect any more"
    scene.nics = {"web-1": {"observed_at": at(since)}}
    planned = scene.adopt()
    assert scene.entry().restored_at == at(100)
    assert (phase(planned), why(planned)) == (Phase.RESTORING, "waiting for the probes")


@pytest.mark.parametrize("pool_seen", [59.9, 60])
def test_from_when_on_a_pool_shows_an_address_back(pool_seen: float) -> None:
    """The same for an address; the instant itself is late enough, and the read is at once."""
    place = address("a", "10.0.0.1")
    scene = holding(entry(memberships=(place,)), now=60, ips={"web-1": "10.0.0.1"})
    scene.inside["web-1"], scene.addresses = [], {APP: [place]}
    scene.pools = {APP: {"observed_at": at(pool_seen)}}
    planned = scene.adopt()
    if pool_seen < 60:
        assert scene.entry().restored_at is None
        scene.pools = {APP: {"observed_at": at(59)}}
        planned = scene.plan()
        assert (planned.actions, planned.wake_at) == ((ReadLoadBalancer(LB),), at(61))
    else:
        assert scene.entry().restored_at == at(60)
        assert planned.actions == ()


def test_a_pool_proves_its_own_addresses_only() -> None:
    """S5: a pool that the VM is out of needs no patience, whatever still stands in another."""
    places = (address("a", "10.0.0.1"), address("a", "10.0.0.1", pool_id=FAR))
    scene = holding(entry(memberships=places), now=30, ips={"web-1": "10.0.0.1"})
    scene.policy = make_policy(pools={APP: Floor(number=0), FAR: Floor(number=0)})
    scene.inside["web-1"], scene.addresses = [], {FAR: [places[1]]}
    ended = {"ended_at": {fold(FAR): at(30)}}
    scene.adopt(**ended)
    assert scene.entry().restoring_at == at(30)


@pytest.mark.parametrize(
    ("inside", "since"),
    [((), 0), ((APP,), 60), ((API,), 60), ((APP, API), 60)],
    ids=["both out", "first in", "second in", "both in"],
)
def test_a_nic_that_is_still_in_one_of_its_pools_needs_a_late_view(
    inside: tuple[str, ...], since: float
) -> None:
    """S5: a removal that has taken effect in one pool of a NIC may still land in the others."""
    record = entry(memberships=(membership("web-1"), membership("web-1", API, 1)))
    scene = holding(record, now=30)
    scene.policy = make_policy(pools={APP: Floor(number=0), API: Floor(number=0)})
    scene.inside["web-1"] = list(inside)
    proofs = list(scene.evidence().proofs_back(record))
    assert [(each.read, each.since) for each in proofs] == [(ReadNic(nic_id("web-1")), at(since))]


@pytest.mark.parametrize(
    ("inside", "since"),
    [((), 0), ((0,), 60), ((1,), 60), ((0, 1), 60)],
    ids=["both out", "first in", "second in", "both in"],
)
def test_a_pool_that_still_lists_one_address_of_a_vm_needs_a_late_view(
    inside: tuple[int, ...], since: float
) -> None:
    """S5: a removal that has taken one address of a VM out may still take out the others."""
    places = (address("a", "10.0.0.1"), address("b", "fd00::1"))
    record = entry(memberships=places)
    scene = holding(record, now=30)
    scene.inside["web-1"], scene.addresses = [], {APP: [places[number] for number in inside]}
    proofs = list(scene.evidence().proofs_back(record))
    assert [(each.read, each.since) for each in proofs] == [(ReadLoadBalancer(LB), at(since))]


def test_a_nic_proves_its_own_memberships_only() -> None:
    """S5: a NIC that is out of all its pools needs no late view, whatever another NIC is in."""
    other = replace(membership("web-1"), nic_id=SECOND)
    record = entry(memberships=(membership("web-1"), other))
    scene = holding(record, now=30)
    scene.pools = {APP: {"observed_at": at(29)}}
    first = scene.observe().nics[0]
    out = IpConfiguration(name="ipconfig1", pool_ids=())
    nics = (first, replace(first, nic_id=SECOND, ip_configurations=(out,)))
    proofs = list(scene.evidence(nics=nics).proofs_back(record))
    assert {each.read: each.since for each in proofs} == {
        ReadNic(nic_id("web-1")): at(60),
        ReadNic(SECOND): at(0),
    }


@pytest.mark.parametrize(
    ("record", "since"),
    [
        (entry(recorded_at=at(1), out_at=at(5)), 5),
        (entry(recorded_at=at(1), restoring_at=at(7)), 7),
        (entry(recorded_at=at(1), out_at=at(5), restoring_at=at(7)), 5),
    ],
    ids=["out", "restoring", "out and restoring"],
)
def test_a_removal_that_has_taken_effect_is_over_when_that_was_seen(
    record: Entry, since: float
) -> None:
    """S5: the instant at which the VM was out counts, else that at which it was sent back."""
    views = holding(record, now=30).evidence().views
    assert removal_over_at(views, record, nic_id("web-1"), out=False) == at(since)
    assert removal_over_at(views, record, nic_id("web-1"), out=True) == at(since)


def test_who_was_seen_out_is_sent_back_on_any_view() -> None:
    """H1: a removal that has taken effect needs no further look before the restore."""
    scene = out_and_over()
    scene.nics = {"web-1": {"observed_at": at(4), "updating": True}}
    assert writes(scene.through()) == [restoral()]


# --- what Azure does not describe ---

UNREADABLE: dict[str, Any] = {"nic_ids": (), "problem": "it came without networkProfile"}


def test_an_unreadable_vm_in_no_pool_is_held() -> None:
    """S1: without its NICs it is not known that a VM is in no pool, so it is not unmanaged."""
    scene = PlannerScenario(vms={"web-1": UNREADABLE}, nics={"web-1": {"vm_id": ""}})
    scene.inside["web-1"] = []
    planned = scene.plan()
    assert (phase(planned), why(planned)) == (Phase.HELD, planned.holds[0].message)
    assert phase(planned, "web-2") is Phase.IN_SERVICE


def test_an_unreadable_vm_that_a_pool_lists_is_in_service() -> None:
    """What is seen of a VM counts, although the rest of it cannot be read."""
    scene = PlannerScenario(vms={"web-1": UNREADABLE})
    planned = scene.plan()
    assert (phase(planned), why(planned)) == (Phase.IN_SERVICE, "")
    assert reasons(planned) == {"web-1": "unreadable_vm"}


def test_an_unreadable_vm_that_was_taken_out_is_restored() -> None:
    """L1: what was recorded is put back, whatever else is not known of the VM."""
    scene = out_and_over()
    scene.vms["web-1"] = UNREADABLE
    planned = scene.through()
    assert (phase(planned), writes(planned)) == (Phase.RESTORING, [restoral()])


def test_a_manual_drain_waits_for_the_requests_and_reports_it() -> None:
    """S6: a new leader that has not read the drain requests yet restores no VM they may name."""
    scene = out_and_over()
    manual = EventReference(event_id="R-1", event_type=DRAIN_REQUEST)
    scene.ledger = scene.ledger.with_entry(replace(scene.entry(), events=(manual,)))
    scene.ledger = replace(scene.ledger, leader_since=at(scene.now - 30))
    planned = scene.plan(requests=None)
    assert (phase(planned), why(planned)) == (Phase.RESTORE_DUE, "waiting for the drain requests")
    assert (writes(planned), planned.wake_at) == ([], at(scene.now + 1))
    scene.ledger = replace(scene.ledger, leader_since=at(scene.now - 30.1))
    assert reasons(scene.plan(requests=None)) == {"web-1": "requests_unread"}


def test_an_announced_event_keeps_its_vm_out_in_any_spelling() -> None:
    """S6: two clean polls are two documents that name the VM in no spelling."""
    scene = out_and_over()
    scene.vms["web-1"] = {"name": "Web-1"}
    named = EventDocument(incarnation=1, events=(started("wEB-1"),))
    free = EventDocument(incarnation=2)
    planned = scene.plan(clean_documents=(named, free))
    assert (writes(planned), why(planned)) == ([], "waiting for two clean polls")
    views = scene.evidence(clean_documents=(named, free)).views
    assert views.announced("WEB-1")
    assert not views.announced("web-2")


# --- what cannot come back ---


def test_a_deleted_vm_is_kept() -> None:
    """S3: the entry stays, with one line of history, and a hold names the way to end it."""
    scene = out_and_over()
    over: dict[str, Any] = {"missing": frozenset({fold(vm_id("web-1"))}), "inventory_period_s": 900}
    planned = scene.adopt(**over)
    assert (scene.ledger.transitions[-1].step, scene.entry().gone) == ("gone", True)
    assert reasons(planned) == {"web-1": "vm_gone"}
    assert why(planned) == (
        "web-1 was deleted while it was out: it is restored if it exists again; "
        "to give it up: lb-drain forget web-1"
    )
    assert scene.plan(**over).ledger is None


def test_who_exists_again_and_stands_is_not_gone() -> None:
    """L1: a VM that was created anew, and put in by somebody, ends its entry."""
    scene = holding(entry(out_at=at(5), gone=True))
    scene.adopt()
    assert (scene.entry().restored_at, scene.entry().gone) == (at(300), False)


def test_who_exists_again_is_told() -> None:
    """The history says that a VM that was gone is back, before it is restored."""
    scene = out_and_over()
    scene.adopt(missing=frozenset({fold(vm_id("web-1"))}))
    planned = scene.adopt()
    assert scene.ledger.transitions[-1].step == "exists again"
    assert phase(planned) is Phase.RESTORE_DUE
    assert writes(scene.through()) == [restoral()]


@pytest.mark.parametrize(
    ("listed", "recorded"), [("IPCONFIG1", "ipconfig1"), ("ipconfig1", "IPCONFIG1")]
)
def test_an_ip_configuration_is_there_in_any_spelling(listed: str, recorded: str) -> None:
    """S3: a place is not lost because Azure spells its name otherwise now."""
    place = replace(membership("web-1"), ip_configuration=recorded)
    scene = holding(entry(memberships=(place,), out_at=at(5)))
    scene.nics = {"web-1": {"ip_configurations": (IpConfiguration(name=listed),)}}
    assert [write.memberships for write in writes(scene.through())] == [(place,)]


@pytest.mark.parametrize(("seen", "lost"), [(-0.1, False), (0, True)])
def test_a_place_is_lost_by_a_view_from_after_the_record(seen: float, lost: bool) -> None:
    """S3: an older view of the NIC does not show that an ipConfiguration was deleted."""
    place = replace(membership("web-1"), ip_configuration="second")
    scene = holding(entry(memberships=(place,), out_at=at(5)))
    scene.nics = {"web-1": {"observed_at": at(seen)}}
    scene.adopt()
    assert (scene.entry().lost == (place,)) is lost


@pytest.mark.parametrize(("now", "recorded"), [("a", "A"), ("A", "a")])
def test_a_name_that_was_given_away_is_lost_in_any_spelling(now: str, recorded: str) -> None:
    """S3: the entry of another address is never overwritten."""
    place = address(recorded, "10.0.0.1")
    scene = holding(entry(memberships=(place,), out_at=at(5)))
    scene.addresses = {APP: [address(now, "10.0.0.77")]}
    scene.adopt()
    assert (scene.entry().memberships, scene.entry().lost) == ((), (place,))


@pytest.mark.parametrize(
    ("now", "recorded"), [("fd00::1", "FD00:0:0::1"), ("FD00:0:0::1", "fd00::1")]
)
def test_its_own_name_is_not_given_away(now: str, recorded: str) -> None:
    """S3: an address that stands under its name, in any spelling, can stay; the other returns."""
    kept, lost = address("a", recorded), address("b", "10.0.0.2", pool_id=FAR)
    scene = holding(entry(memberships=(kept, lost), out_at=at(5)), ips={"web-1": "10.0.0.2"})
    scene.policy = make_policy(pools={APP: Floor(number=1), FAR: Floor(number=1)})
    scene.addresses = {APP: [address("a", now)]}
    assert [write.memberships for write in writes(scene.through())] == [(lost,)]
    assert scene.entry().memberships == (kept, lost)


def test_a_pool_that_lists_nics_gives_no_names_away() -> None:
    """S3: members that are no addresses have no entry name."""
    place = address("a", "10.0.0.1")
    scene = holding(entry(memberships=(place,), out_at=at(5)), ips={"web-1": "10.0.0.1"})
    members = (PoolMember(ip_configuration_id=f"{SECOND}/ipConfigurations/a"),)
    scene.pools = {APP: {"members": members}}
    assert [write.memberships for write in writes(scene.through())] == [(place,)]


def test_a_pool_that_was_not_seen_gives_no_names_away() -> None:
    """S3: what is unknown is not lost."""
    place = address("a", "10.0.0.1")
    scene = holding(entry(memberships=(place,), out_at=at(5)), ips={"web-1": "10.0.0.1"})
    assert [write.memberships for write in writes(scene.through(pools=()))] == [(place,)]


def test_a_nic_that_was_deleted_takes_its_place_along() -> None:
    """S3: a NIC that does not exist cannot be written; the VM's other NIC comes back."""
    places = (membership("web-1"), replace(membership("web-1"), nic_id=SECOND))
    scene = holding(entry(memberships=places, out_at=at(5)))
    scene.inside["web-1"] = []
    over = {"missing": frozenset({fold(SECOND)})}
    assert writes(scene.through(**over)) == [restoral()]
    assert (scene.entry().memberships, scene.entry().lost) == (places[:1], places[1:])


# --- settling ---


def test_the_probes_are_waited_for() -> None:
    """S2: a restored VM settles for fifteen seconds, and the plan wakes when it has."""
    scene = holding(entry(restoring_at=at(280), restored_at=at(290)))
    planned = scene.plan()
    assert (phase(planned), why(planned)) == (Phase.RESTORING, "waiting for the probes")
    assert (planned.ledger, planned.wake_at) == (None, at(305))
    scene.now = 305
    scene.adopt()
    assert scene.ledger.entries == ()
    assert scene.ledger.transitions[-1].step == "in service"


def test_one_place_that_was_left_meanwhile_is_an_operators() -> None:
    """S3: the history says so where a VM settled without one of its pools."""
    places = (membership("web-1"), membership("web-1", API, 1))
    scene = holding(entry(memberships=places, restoring_at=at(1), restored_at=at(2)))
    scene.adopt()
    line = scene.ledger.transitions[-1]
    assert (line.step, line.detail) == ("forgotten", "taken out by an operator")
    assert phase(scene.plan()) is Phase.IN_SERVICE


def test_a_removal_that_lands_while_settling_is_undone() -> None:
    """S5: the VM is due to be restored once more, and the history says why."""
    scene = holding(entry(restored_at=at(20)), now=30)
    scene.inside["web-1"] = []
    planned = scene.adopt()
    assert phase(planned) is Phase.RESTORE_DUE
    line = scene.ledger.transitions[-1]
    assert (line.step, line.detail) == ("out again", "a removal took effect late")
    assert scene.entry().restored_at is None
    assert writes(scene.through()) == [restoral()]


def test_a_restore_is_written_ahead_of_being_sent() -> None:
    """S1: the pass that notes the restore sends nothing; the entry is not out any more."""
    scene = out_and_over()
    planned = scene.adopt()
    assert planned.actions == ()
    assert (scene.entry().restoring_at, scene.entry().out_at) == (at(300), None)
    scene.now = 310
    assert writes(scene.adopt()) == [restoral()]
    assert scene.entry().restoring_at == at(300), "since when a restore may have been sent"


@pytest.mark.parametrize(("restoring_s", "steps"), [(150, ()), (100, ("partly restored",))])
def test_what_has_settled_is_no_longer_recorded(restoring_s: float, steps: tuple[str, ...]) -> None:
    """S3: one pool refuses the VM; what is back elsewhere may be removed by an operator."""
    places = (membership("web-1"), membership("web-1", API, 1))
    both = make_policy(pools={APP: Floor(number=1), API: Floor(number=1)})
    scene = holding(entry(memberships=places, restoring_at=at(restoring_s)), now=200, policy=both)
    scene.inside["web-1"] = [APP]
    scene.adopt()
    assert tuple(line.step for line in scene.ledger.transitions) == steps
    left = places[len(steps) :]
    assert scene.entry().memberships == left
    scene.inside["web-1"] = []
    scene.adopt()
    assert [each.memberships for each in writes(scene.through())] == [left]


@pytest.mark.parametrize("what", ["under way", "adminState"])
def test_what_may_still_change_stays_recorded(what: str) -> None:
    """S3, S5: while a write has not ended, and until the adminState is back as well."""
    state = "Up" if what == "adminState" else ""
    places = (replace(membership("web-1"), admin_state=state), membership("web-1", API, 1))
    both = make_policy(pools={APP: Floor(number=1), API: Floor(number=1)})
    scene = holding(entry(memberships=places, restoring_at=at(100)), now=200, policy=both)
    scene.inside["web-1"] = [APP]
    busy = frozenset({action_key("write", nic_id("web-1"))} if what == "under way" else ())
    scene.adopt(in_flight=busy)
    assert scene.entry().memberships == places


def test_only_what_is_out_is_put_back() -> None:
    """S3: a membership that somebody has put back already is not written again."""
    scene = PlannerScenario(
        events=[event()], policy=make_policy(pools={APP: Floor(number=1), API: Floor(number=1)})
    )
    scene.inside = {name: [APP, API] for name in scene.inside}
    scene.take_out()
    scene.now, scene.events, scene.inside["web-1"] = 300, [], [API]
    assert [write.memberships for write in writes(scene.through())] == [(membership("web-1"),)]


def test_a_pool_that_is_not_shown_comes_last() -> None:
    """L2: a pool that seems to be deleted must not keep the VM out of the others."""
    scene = PlannerScenario(
        events=[event()], policy=make_policy(pools={APP: Floor(number=1), API: Floor(number=1)})
    )
    scene.inside = {name: [APP, API] for name in scene.inside}
    scene.take_out()
    scene.now, scene.events = 300, []
    absent = frozenset({fold(APP)})
    planned = scene.through(absent=absent)
    assert [[m.pool_id for m in write.memberships] for write in writes(planned)] == [[API]]
    scene.inside["web-1"] = [API]
    planned = scene.through(absent=absent)
    assert [[m.pool_id for m in write.memberships] for write in writes(planned)] == [[APP]]


def test_nothing_of_an_operators_removal_comes_back() -> None:
    """S3: what was gone before we wrote is dropped after the event as well, with its name."""
    scene = out_and_over()
    never: frozenset[Any] = frozenset({membership("web-1").key})
    scene.adopt(unsent=never)
    assert scene.ledger.entries == ()
    assert scene.ledger.transitions[-1].detail == "removed by an operator: app"


def test_a_removal_under_way_is_not_undone_yet() -> None:
    """Observed-in before Forget: while our own removal is under way nothing is back."""
    scene = holding(entry(), now=100)
    busy = frozenset({removal().target})
    assert scene.plan(in_flight=busy).ledger is None
    assert scene.plan().ledger is not None


def test_positions_are_those_of_the_record() -> None:
    """S3: the restore names the place in the list that the record names."""
    place = NicMembership(
        pool_id=APP, nic_id=nic_id("web-1"), ip_configuration="ipconfig1", position=3
    )
    scene = holding(entry(memberships=(place,), out_at=at(5)))
    scene.inside["web-1"] = []
    assert [write.memberships for write in writes(scene.through())] == [(place,)]


def test_a_failed_nic_that_we_never_wrote_needs_no_restore() -> None:
    """S3: a VM that was recorded and not removed stands where it stood, whatever failed since."""
    scene = holding(entry(), now=100, nics={"web-1": {"failed": True}})
    assert writes(scene.adopt()) == []
    assert scene.entry().restored_at == at(100)
