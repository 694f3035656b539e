"""The planner, scenario by scenario: what it does about one observation and one ledger."""

from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest

from controller.core.action_keys import ActionKey
from controller.core.azure_names import fold
from controller.core.drain_requests import DrainRequest, ForgetRequest
from controller.core.event_record import Place, WatchedEvent, WatchedVm
from controller.core.events import EventDocument, EventSource, EventStatus, SetAside
from controller.core.ledger import Entry, Hold, Ledger
from controller.core.observation import Deferral, Observation
from controller.core.planning.actions import (
    Acknowledge,
    Phase,
    ReadInventory,
    ReadLoadBalancer,
    ReadNic,
    ReadPower,
)
from controller.core.planning.planner import UNREAD_VM_S, plan
from controller.core.policy import EventAction, Floor
from controller.core.resources import IpConfiguration, Nic, NicMembership, PoolMember, PowerState
from tests.support.planner_scenario import (
    API,
    APP,
    BODY,
    FAR,
    LB,
    LB2,
    T0,
    PlannerScenario,
    acknowledged,
    address,
    at,
    change_nic,
    change_pool,
    deferred,
    event,
    floor,
    ip_id,
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
from tests.support.policies import make_event_policy, make_policy


@pytest.fixture
def scene() -> PlannerScenario:
    """The same set without an event."""
    return PlannerScenario()


# --- the ordering rule, step by step ---


def test_one_maintenance_step_by_step(scene: PlannerScenario) -> None:
    """Record, remove, out, acknowledge, restore, settle, forget: in this order (ordering rule)."""
    scene.events = [event()]
    recorded = scene.adopt()
    assert recorded.actions == ()
    assert scene.entry().memberships == (membership("web-1"),)
    assert scene.entry().events[0].event_id == "E-1"

    scene.now = 1
    removing = scene.adopt()
    assert writes(removing) == [removal()]
    assert phase(removing) is Phase.DRAINING
    assert acknowledged(removing) == []

    scene.now, scene.inside["web-1"] = 10, []
    out = scene.adopt()
    assert out.actions == ()
    assert scene.entry().out_at == at(10)
    assert phase(out) is Phase.OUT
    assert out.wake_at is not None

    scene.now = 39.9
    assert acknowledged(scene.adopt()) == []
    scene.now = 40
    assert acknowledged(scene.adopt()) == ["E-1"]
    noted = scene.adopt(acknowledged=MappingProxyType({"e-1": at(40)}))
    assert scene.entry().events[0].acknowledged_at == at(40)
    assert phase(noted) is Phase.ACKNOWLEDGED

    scene.now, scene.events = 60, [started()]
    during = scene.adopt()
    assert during.actions == ()
    assert phase(during) is Phase.IN_MAINTENANCE

    scene.now, scene.events = 300, []
    announced = scene.adopt()
    assert announced.actions == ()
    assert (scene.entry().out_at, scene.entry().restoring_at) == (None, at(300))
    restoring = scene.adopt()
    assert writes(restoring) == [restoral()]
    assert phase(restoring) is Phase.RESTORING

    scene.now, scene.inside["web-1"] = 310, [APP]
    back = scene.adopt()
    assert back.actions == ()
    assert scene.entry().restored_at == at(310)
    assert back.wake_at is not None

    scene.now = 324
    assert scene.adopt().wake_at == at(325)
    scene.now = 325
    assert phase(scene.adopt()) is Phase.IN_SERVICE
    assert scene.ledger.entries == ()
    assert scene.plan().ledger is None


def test_removal_needs_a_durable_entry(scene: PlannerScenario) -> None:
    """S5: no removal is planned while the ledger that records it is not durable."""
    scene.events = [event()]
    for _ in range(3):
        assert writes(scene.plan()) == []
    scene.adopt()
    assert writes(scene.plan()) == [removal()]


def test_acknowledgement_needs_a_durable_out(scene: PlannerScenario) -> None:
    """S1: the pass that observes a VM out does not acknowledge, even with no drain to wait for."""
    scene.policy = replace(scene.policy, connection_drain_s=0)
    scene.events = [event()]
    scene.adopt()
    scene.now, scene.inside["web-1"] = 5, []
    planned = scene.plan()
    assert planned.ledger is not None
    assert acknowledged(planned) == []
    scene.adopt()
    assert acknowledged(scene.plan()) == ["E-1"]


def test_idle_set_plans_nothing(scene: PlannerScenario) -> None:
    """H1: without events and entries there is no write, no ledger and one inventory a period."""
    planned = scene.plan()
    assert (planned.ledger, planned.actions, planned.holds) == (None, (), ())
    assert planned.wake_at == at(300)
    assert scene.plan(inventory_at=at(-300)).actions == (ReadInventory(),)


def test_empty_observation_does_nothing() -> None:
    """A world that was not looked at is looked at, and nothing is said of it."""
    policy = make_policy(pools={APP: Floor(number=1)})
    entry = Entry(
        vm="web-1", vm_id=vm_id("web-1"), events=(), memberships=(membership("web-1"),),
        recorded_at=at(-900), out_at=at(-890),
    )  # fmt: skip
    ledger = Ledger(entries=(entry,))
    blank = plan(Observation(document=None), ledger, policy, T0)
    assert (blank.ledger, blank.actions) == (None, (ReadInventory(),))
    blind = plan(Observation(document=None, inventory_at=T0), ledger, policy, T0)
    assert (blind.ledger, blind.actions) == (None, ())
    unseen = plan(Observation(document=EventDocument(incarnation=1)), ledger, policy, T0)
    assert (unseen.ledger, unseen.actions) == (None, (ReadInventory(),))
    assert blank.phases == blind.phases == unseen.phases == ()


UNREAD = "read the inventory: compute availability_set_get: the managed identity lacks x on y"
WAITING = {ReadInventory().key: Deferral(until=at(30), reason="Denied", message=UNREAD, attempts=1)}


def test_a_set_that_cannot_be_read_is_held() -> None:
    """A set whose inventory is refused is held with the reason; entries and other holds stay."""
    entry = Entry(
        vm="web-1", vm_id=vm_id("web-1"), events=(), memberships=(membership("web-1"),),
        recorded_at=at(-900), out_at=at(-890),
    )  # fmt: skip
    other = Hold(subject="web-1", reason="vm_not_running", message="stays out", since=at(-60))
    ledger = Ledger(entries=(entry,), holds=(other,))
    observed = Observation(document=EventDocument(incarnation=1), deferred=WAITING)
    held = plan(observed, ledger, make_policy(pools={APP: Floor(number=1)}), T0)
    assert held.ledger is not None
    assert (held.ledger.entries, held.ledger.holds) == ((entry,), held.holds)
    added, kept = held.holds
    assert (added.reason, added.since, kept) == ("inventory_unread", T0, other)
    assert added.message == (
        "the VMs of the set cannot be read: compute availability_set_get: the managed identity "
        "lacks x on y"
    )
    assert (held.actions, held.phases, held.wake_at) == ((), (), at(30))


def test_an_unread_set_is_recorded_once() -> None:
    """H1: while the read is tried again and fails again, the ledger does not change."""
    policy = make_policy(pools={APP: Floor(number=1)})
    observed = Observation(document=EventDocument(incarnation=1), deferred=WAITING)
    first = plan(observed, Ledger(), policy, T0)
    assert first.ledger is not None
    tried = plan(Observation(document=None), first.ledger, policy, at(30))
    assert (tried.ledger, tried.actions, tried.holds) == (None, (ReadInventory(),), first.holds)
    later = Deferral(until=at(90), reason="Denied", message=f"{UNREAD} (request 2)", attempts=2)
    again = Observation(document=None, deferred={ReadInventory().key: later})
    failed = plan(again, first.ledger, policy, at(31))
    assert (failed.ledger, failed.actions, failed.holds) == (None, (), first.holds)


def test_the_hold_of_an_unread_set_ends_when_it_is_read(scene: PlannerScenario) -> None:
    """The hold is dropped by the first pass with an inventory, with or without a document."""
    observed = Observation(document=None, deferred=WAITING)
    held = plan(observed, Ledger(), make_policy(pools={APP: Floor(number=1)}), T0)
    assert held.ledger is not None
    read = plan(Observation(document=None, inventory_at=T0), held.ledger, make_policy(pools={}), T0)
    assert read.ledger is not None
    assert read.ledger.holds == read.holds == ()
    scene.ledger = replace(scene.ledger, holds=held.holds)
    planned = scene.plan()
    assert planned.ledger is not None
    assert planned.ledger.holds == planned.holds == ()


def test_an_inventory_ends_only_the_hold_of_the_unread_set() -> None:
    """H1: every other hold stays in the ledger until a whole pass has judged its reason."""
    policy = make_policy(pools={APP: Floor(number=1)})
    held = plan(Observation(document=None, deferred=WAITING), Ledger(), policy, T0)
    others = (
        Hold(subject="app", reason="write_failed", message="denied", since=at(-90)),
        Hold(subject="web-1", reason="vm_not_running", message="stays out", since=at(-60)),
    )
    ledger = Ledger(holds=(others[0], *held.holds, others[1]))
    read = plan(Observation(document=None, inventory_at=T0), ledger, policy, T0)
    assert read.ledger is not None
    assert read.ledger.holds == read.holds == others
    again = plan(Observation(document=None, inventory_at=T0), read.ledger, policy, T0)
    assert (again.ledger, again.holds) == (None, others)


def test_an_unread_set_whose_read_waits_without_a_message_is_not_held() -> None:
    """H1: ordinary back-off of the inventory is not reported; the plan wakes when it ends."""
    waits = {ReadInventory().key: Deferral(until=at(30), reason="Throttled", attempts=1)}
    policy = make_policy(pools={APP: Floor(number=1)})
    planned = plan(Observation(document=None, deferred=waits), Ledger(), policy, T0)
    assert (planned.ledger, planned.holds, planned.actions) == (None, (), ())
    assert planned.wake_at == at(30)


def test_a_set_that_is_not_read_again_is_held_too(scene: PlannerScenario) -> None:
    """An inventory that is known and cannot be read again is held for the same reason."""
    planned = scene.plan(deferred=WAITING)
    assert [hold.reason for hold in planned.holds] == ["inventory_unread"]


# --- when ---


def test_lead_time(scene: PlannerScenario) -> None:
    """A drain starts at NotBefore minus the lead time, not before (S7)."""
    scene.events = [event(not_before=1000)]
    early = scene.plan()
    assert early.ledger is None
    assert early.wake_at == at(100)
    scene.now = 100
    assert scene.plan().ledger is not None


def test_notice_of_a_week(scene: PlannerScenario) -> None:
    """Degraded hardware announced seven days ahead keeps the VM in service until the lead time."""
    scene.events = [event(not_before=7 * 86400)]
    assert scene.plan().actions == ()
    assert phase(scene.plan()) is Phase.IN_SERVICE
    scene.now = 7 * 86400 - 900
    assert scene.plan().ledger is not None


@pytest.mark.parametrize("fields", [{"source": EventSource.USER}, {"not_before": None}])
def test_drains_at_once(scene: PlannerScenario, fields: dict[str, Any]) -> None:
    """User events, and events that do not say when, do not wait for the lead time."""
    scene.events = [event(**{"not_before": 7 * 86400, **fields})]
    scene.take_out()
    scene.now += 30
    assert acknowledged(scene.plan()) == ["E-1"]


def test_started_without_scheduled(scene: PlannerScenario) -> None:
    """A host failure appears as Started: removed at once, never acknowledged (S1)."""
    scene.events = [started()]
    scene.take_out()
    scene.now += 3600
    planned = scene.plan()
    assert acknowledged(planned) == []
    assert phase(planned) is Phase.IN_MAINTENANCE


def test_connection_drain_ends_before_not_before(scene: PlannerScenario) -> None:
    """The connection drain is cut short so that the acknowledgement precedes NotBefore."""
    scene.events = [event(not_before=20)]
    scene.take_out()
    scene.now = 16
    assert scene.adopt().wake_at == at(18)
    scene.now = 17.9
    assert acknowledged(scene.adopt()) == []
    scene.now = 18
    assert acknowledged(scene.adopt()) == ["E-1"]


def test_no_acknowledgement_after_not_before(scene: PlannerScenario) -> None:
    """S1: an event whose NotBefore has passed may have started and is not acknowledged."""
    scene.events = [event(not_before=600)]
    scene.take_out()
    scene.now = 599.9
    assert acknowledged(scene.plan()) == ["E-1"]
    scene.now = 600
    assert acknowledged(scene.plan()) == []


def test_no_acknowledgement_on_an_old_document(scene: PlannerScenario) -> None:
    """S1: a document that was not read lately does not tell whether the event has started."""
    scene.events = [event()]
    scene.take_out()
    scene.now = 60
    assert acknowledged(scene.plan(document_at=at(29))) == []
    assert acknowledged(scene.plan(document_at=at(30))) == ["E-1"]


# --- which ---


@pytest.mark.parametrize(
    ("event_type", "duration_s", "acts"),
    [
        ("Freeze", 4, False),
        ("freeze", 0, False),
        ("Freeze", 5, True),
        ("Freeze", -1, True),
        ("Reboot", 0, True),
        ("Terminate", 0, True),
        ("Inspection", 0, True),
    ],
)
def test_policy_by_type_and_duration(
    scene: PlannerScenario, event_type: str, duration_s: int, acts: bool
) -> None:
    """A Freeze of 0 to 4 s is ignored, -1 counts as long, everything else is acted on."""
    scene.events = [event(event_type=event_type, duration_s=duration_s)]
    assert (scene.plan().ledger is not None) is acts


@pytest.mark.parametrize("event_type", ["Inspection", "Preempt", "Terminate"])
def test_drained_but_not_agreed_to(scene: PlannerScenario, event_type: str) -> None:
    """Deletions and types nobody knows are drained for and not acknowledged."""
    scene.events = [event(event_type=event_type)]
    scene.take_out()
    scene.now = 120
    assert acknowledged(scene.plan()) == []


def test_acknowledging_can_be_turned_off(scene: PlannerScenario) -> None:
    """`acknowledge = false` leaves every event to its NotBefore."""
    scene.policy = replace(scene.policy, acknowledge=False)
    scene.events = [event()]
    scene.take_out()
    scene.now = 120
    assert acknowledged(scene.plan()) == []


def test_ignored_events(scene: PlannerScenario) -> None:
    """An ignored event is acknowledged at once only if policy says so and every VM is ours."""
    quick = event("WEB-1", event_type="Freeze", duration_s=2)
    scene.events = [quick]
    assert scene.plan().actions == ()
    scene.policy = replace(scene.policy, acknowledge_ignored=True)
    assert scene.plan().actions == (Acknowledge("E-1"),)
    scene.events = [replace(quick, resources=("web-1", "stranger"))]
    assert scene.plan().actions == ()
    scene.events = [replace(quick, resources=())]
    assert scene.plan().actions == ()
    scene.events = [replace(quick, status=EventStatus.STARTED, not_before=None)]
    assert scene.plan().actions == ()


def test_type_that_the_operator_ignores(scene: PlannerScenario) -> None:
    """`action = "ignore"` leaves the VMs in."""
    events = {
        **make_policy(pools={}).events,
        "Reboot": make_event_policy(action=EventAction.IGNORE),
    }
    scene.policy = replace(scene.policy, events=events)
    scene.events = [started()]
    assert scene.plan().ledger is None


def test_unknown_status(scene: PlannerScenario) -> None:
    """An undocumented status: nothing is written because of it, and nothing restored (S6)."""
    scene.events = [event(status=EventStatus.UNKNOWN)]
    planned = scene.plan()
    assert planned.actions == ()
    assert reasons(planned) == {"web-1": "unknown_event_status"}
    scene.events = [event()]
    scene.take_out()
    scene.now, scene.events = 100, [event(status=EventStatus.UNKNOWN)]
    planned = scene.adopt()
    assert planned.actions == ()
    assert phase(planned) is Phase.HELD


# --- resources ---


def test_event_with_two_vms_waits_for_both(scene: PlannerScenario) -> None:
    """S1: one acknowledgement releases all Resources, so it waits until every one is out."""
    scene.events = [event("web-1", "web-2")]
    scene.adopt()
    assert writes(scene.plan()) == [removal("web-1"), removal("web-2")]
    scene.now, scene.inside["web-1"] = 5, []
    scene.adopt()
    scene.now = 60
    assert acknowledged(scene.adopt()) == []
    scene.inside["web-2"] = []
    scene.adopt()
    scene.now = 90
    assert acknowledged(scene.adopt()) == ["E-1"]


def test_unmanaged_resource(scene: PlannerScenario) -> None:
    """S1: a name that is in no managed pool blocks, unless the operator says it needs nothing."""
    scene.events = [event("web-1", "db-1")]
    scene.take_out()
    scene.now = 60
    planned = scene.adopt()
    assert acknowledged(planned) == []
    assert reasons(planned) == {"E-1": "unmanaged_resource"}
    scene.policy = replace(scene.policy, acknowledge_unmanaged=True)
    assert acknowledged(scene.plan()) == ["E-1"]
    old = scene.plan(inventory_at=at(0))
    assert acknowledged(old) == []
    assert ReadInventory() in old.actions
    assert scene.plan(inventory_at=at(1)).wake_at == at(61)


def test_peer_outside_the_pools_is_unmanaged(scene: PlannerScenario) -> None:
    """A peer in no managed pool is never written, and needs `acknowledge_unmanaged`."""
    scene.inside["web-1"] = []
    scene.events = [event()]
    planned = scene.plan()
    assert writes(planned) == []
    assert planned.ledger is not None
    assert planned.ledger.entries == ()
    assert phase(planned) is Phase.UNMANAGED
    assert reasons(planned) == {"E-1": "unmanaged_resource"}
    scene.policy = replace(scene.policy, acknowledge_unmanaged=True)
    assert acknowledged(scene.plan()) == ["E-1"]
    old = {APP: {"observed_at": at(-31)}}
    scene.pools = old
    assert acknowledged(scene.plan()) == []


@pytest.mark.parametrize(
    ("hole", "read", "lost"),
    [
        ("nics", ReadNic(nic_id("web-1")), nic_id("web-1")),
        ("pools", ReadLoadBalancer(LB2), FAR),
    ],
    ids=["nic", "pool"],
)
def test_vm_that_nobody_could_see_is_not_unmanaged(
    scene: PlannerScenario, hole: str, read: ReadNic | ReadLoadBalancer, lost: str
) -> None:
    """S1: what an inventory could not read is read before anything is taken for unmanaged."""
    pools = {APP: Floor(number=1), FAR: Floor(number=1)}
    scene.policy = replace(scene.policy, pools=pools, acknowledge_unmanaged=True)
    scene.inside["web-1"] = []
    scene.events = [event()]
    seen = scene.observe()
    kept = {"nics": seen.nics[1:], "pools": seen.pools[:1]}[hole]
    planned = scene.plan(**{hole: kept})
    assert planned.actions == (read,)
    assert phase(planned) is Phase.DRAIN_DUE
    gone = scene.plan(**{hole: kept}, missing=frozenset({fold(lost)}))
    assert (acknowledged(gone), phase(gone)) == (["E-1"], Phase.UNMANAGED)


def test_event_of_a_vm_outside_costs_no_reads(scene: PlannerScenario) -> None:
    """H1: while a VM is out nothing is read for it; the periodic inventory shows who came in."""
    scene.inside["web-1"] = []
    scene.events = [event()]
    scene.pools = {APP: {"observed_at": at(-31)}}
    assert scene.plan().actions == ()


def test_case_never_matters(scene: PlannerScenario) -> None:
    """Names and ids that differ only in case, or by the old leading underscore, are the same."""
    scene.events = [event("_WEB-1", event_id="e-1")]
    scene.pools = {APP: {"pool_id": APP.upper()}}
    scene.policy = replace(scene.policy, pools={APP.swapcase(): Floor(number=1)})
    scene.pools = {APP.swapcase(): {"members": (
        PoolMember(ip_configuration_id=ip_id("WEB-1").upper()),
        PoolMember(ip_configuration_id=ip_id("web-2").upper()),
    )}}  # fmt: skip
    scene.adopt()
    assert writes(scene.plan()) == [removal()]
    scene.inside["web-1"] = []
    scene.pools[APP.swapcase()]["members"] = ()
    scene.now = 5
    scene.vms["web-1"] = {"name": "Web-1", "vm_id": vm_id("web-1").upper()}
    scene.adopt()
    scene.now, scene.events = 40, [event("WEB-1", event_id="E-1")]
    assert acknowledged(scene.adopt()) == ["E-1"]
    assert len(scene.entry().events) == 1
    scene.now, scene.events = 300, []
    assert writes(scene.through()) == [restoral()]


def test_event_id_that_changes(scene: PlannerScenario) -> None:
    """An emulator that gives an event a new id with every status changes nothing else."""
    scene.events = [event()]
    scene.take_out()
    scene.now, scene.events = 60, [started(event_id="E-2")]
    assert scene.adopt().actions == ()
    assert [each.event_id for each in scene.entry().events] == ["E-1", "E-2"]
    scene.now, scene.events = 300, []
    assert writes(scene.through()) == [restoral()]


def test_one_event_twice_in_a_document(scene: PlannerScenario) -> None:
    """An event that the document lists twice is one reference in the ledger."""
    scene.events = [event(), event(event_id="e-1")]
    scene.adopt()
    assert len(scene.entry().events) == 1


def test_overlapping_events(scene: PlannerScenario) -> None:
    """A VM with several events stays out until none is left, without a write in between."""
    scene.events = [event(), event(event_id="E-2", not_before=1400)]
    scene.take_out()
    scene.now, scene.events = 200, [event(event_id="E-2", not_before=1400)]
    held = scene.adopt()
    assert writes(held) == []
    assert reasons(held) == {"web-1": "event_pending"}
    scene.now = 500
    assert writes(scene.adopt()) == []
    assert acknowledged(scene.adopt()) == ["E-2"]
    scene.now, scene.events = 1500, []
    assert writes(scene.through()) == [restoral()]


def test_event_that_is_not_due_is_not_acknowledged(scene: PlannerScenario) -> None:
    """An event of next week is not called up early because its VM happens to be out."""
    scene.events = [event(), event(event_id="E-2", not_before=86400)]
    scene.take_out()
    scene.now = 60
    assert acknowledged(scene.plan()) == ["E-1"]


# --- the floor ---


@pytest.mark.parametrize(
    ("number", "percent", "allowed"),
    [(0, False, True), (2, False, True), (3, False, False), (66, True, True), (67, True, False)],
)
def test_floor(scene: PlannerScenario, number: int, percent: bool, allowed: bool) -> None:
    """S2: of three members one may go if the floor, a percentage rounded up, leaves room."""
    floor(scene, number, percent=percent)
    scene.events = [event()]
    planned = scene.adopt()
    assert (scene.ledger.entry("web-1") is not None) is allowed
    assert reasons(planned) == ({} if allowed else {"web-1": "floor"})


def test_floor_percentage_counts_what_is_out(scene: PlannerScenario) -> None:
    """S2: a percentage is of the full pool: what we took out, and failed NICs, belong to it."""
    scene.inside["web-4"] = [APP]
    floor(scene, 50, percent=True)
    scene.events = [event("web-1", "web-2", "web-3")]
    scene.adopt()
    assert [entry.vm for entry in scene.ledger.entries] == ["web-1", "web-2"]
    scene.inside["web-1"] = scene.inside["web-2"] = []
    scene.now = 5
    scene.adopt()
    assert [entry.vm for entry in scene.ledger.entries] == ["web-1", "web-2"]
    scene = PlannerScenario(nics={"web-3": {"failed": True}}, events=[event()])
    floor(scene, 50, percent=True)
    assert reasons(scene.plan()) == {"web-1": "floor"}


def test_floor_one_of_two(scene: PlannerScenario) -> None:
    """S2: when both members are due the more urgent one goes, the other holds, then follows."""
    del scene.inside["web-3"]
    scene.events = [
        event("web-1", event_id="late", not_before=600),
        event("web-2", event_id="soon", not_before=500),
    ]
    planned = scene.adopt()
    assert [entry.vm for entry in scene.ledger.entries] == ["web-2"]
    assert reasons(planned) == {"web-1": "floor"}
    since = planned.holds[0].since
    scene.now, scene.inside["web-2"] = 5, []
    later = scene.adopt()
    assert (reasons(later), later.holds[0].since) == ({"web-1": "floor"}, since)
    scene.now, scene.events = 300, [event("web-1", event_id="late", not_before=600)]
    scene.inside["web-2"] = [APP]
    assert reasons(scene.adopt()) == {"web-1": "floor"}, "web-2 settles: not counted yet"
    scene.now = 314
    assert reasons(scene.adopt()) == {"web-1": "floor"}
    scene.now = 315
    scene.adopt()
    assert scene.ledger.entry("web-1") is not None


@pytest.mark.parametrize(
    ("not_before", "forwarded", "held"), [(-1, True, True), (1, True, False), (-1, False, False)]
)
def test_the_floor_does_not_count_a_vm_whose_forwarded_event_is_due(
    scene: PlannerScenario, not_before: float, *, forwarded: bool, held: bool
) -> None:
    """S2: the agent that would forward its start ends with its VM."""
    scene.policy = replace(scene.policy, pools={APP: Floor(number=1), API: Floor(number=1)})
    scene.inside = {"web-1": [APP], "web-2": [APP, API]}
    other = event("web-2", event_id="E-2", not_before=not_before, forwarded=forwarded)
    scene.events = [event("web-1", not_before=30), other]
    assert ("web-1" in reasons(scene.plan())) is held


def test_floor_does_not_count_a_started_vm_that_is_held(scene: PlannerScenario) -> None:
    """S2: a VM whose event has started does not serve, even if another floor keeps it in."""
    scene.policy = replace(scene.policy, pools={APP: Floor(number=1), API: Floor(number=1)})
    scene.inside = {"web-1": [APP], "web-2": [APP, API]}
    scene.events = [event("web-1"), started("web-2", event_id="E-2")]
    assert reasons(scene.plan()) == {"web-1": "floor", "web-2": "floor"}


def test_started_is_more_urgent_than_scheduled(scene: PlannerScenario) -> None:
    """Urgency: an event that has begun comes before one that has a deadline."""
    del scene.inside["web-3"]
    scene.events = [event("web-1", not_before=60), started("web-2", event_id="E-2")]
    scene.adopt()
    assert [entry.vm for entry in scene.ledger.entries] == ["web-2"]


def test_recorded_removal_respects_the_floor(scene: PlannerScenario) -> None:
    """S2: the floor is looked at again before the write, not only before the record."""
    del scene.inside["web-3"]
    scene.events = [event()]
    scene.adopt()
    scene.now, scene.vms = 1, {"web-2": {"power": PowerState.NOT_RUNNING}}
    planned = scene.adopt()
    assert writes(planned) == []
    assert reasons(planned) == {"web-1": "floor"}
    scene.vms = {}
    assert writes(scene.adopt()) == [removal()]


@pytest.mark.parametrize(
    "trouble",
    [
        {"vms": {"web-2": {"power": PowerState.NOT_RUNNING}}},
        {"vms": {"web-2": {"power": PowerState.GONE}}},
        {"nics": {"web-2": {"failed": True}}},
    ],
)
def test_floor_counts_healthy_members_only(trouble: dict[str, Any]) -> None:
    """S2: a stopped VM, and one with a failed NIC, are in the pool but serve nobody."""
    scene = PlannerScenario(inside={"web-1": [APP], "web-2": [APP]}, events=[event()], **trouble)
    assert reasons(scene.plan()) == {"web-1": "floor"}


def test_floor_does_not_count_a_vm_in_maintenance(scene: PlannerScenario) -> None:
    """S2: a VM whose event has started does not serve, whether or not it left the pool."""
    del scene.inside["web-3"]
    scene.events = [event("web-1"), started("web-2", event_id="E-2")]
    scene.ledger = Ledger()
    scene.adopt()
    assert scene.ledger.entry("web-1") is None


def test_floor_counts_foreign_members_as_machines(scene: PlannerScenario) -> None:
    """S2: on request members that are not ours serve too, each NIC or address once."""

    def floor(scene: PlannerScenario, number: int) -> None:
        pools = {APP: Floor(number=number, ignores_other_sets=True)}
        scene.policy = replace(scene.policy, pools=pools)

    scene.inside = {"web-1": [APP]}
    scene.events = [event()]
    floor(scene, 1)
    scene.strangers = [f"{nic_id('x')}/ipConfigurations/a", f"{nic_id('x')}/ipConfigurations/b"]
    assert reasons(scene.plan()) == {}
    floor(scene, 2)
    assert reasons(scene.plan()) == {"web-1": "floor"}
    scene.addresses = {APP: [address("foreign", "10.9.9.9")]}
    assert reasons(scene.plan()) == {}


def test_floor_of_every_pool(scene: PlannerScenario) -> None:
    """S2: one pool without room keeps the VM in all of them; a pool it is not in is no matter."""
    scene.policy = replace(scene.policy, pools={APP: Floor(number=1), API: Floor(number=2)})
    scene.inside = {"web-1": [APP, API], "web-2": [APP, API], "web-3": [APP]}
    scene.events = [event()]
    assert reasons(scene.plan()) == {"web-1": "floor"}
    scene.events = [event("web-3")]
    assert reasons(scene.plan()) == {}


def test_a_floor_hold_looks_for_nics_that_nobody_has_seen(scene: PlannerScenario) -> None:
    """S2: whose addresses serve cannot be told while a NIC of the set was never read."""
    floor(scene, 3)
    scene.events = [event()]
    seen = tuple(nic for nic in scene.observe().nics if nic.nic_id != nic_id("web-2"))
    planned = scene.plan(nics=seen)
    assert reasons(planned) == {"web-1": "floor"}
    assert planned.actions == (ReadNic(nic_id("web-2")),)


def test_floor_hold_looks_again(scene: PlannerScenario) -> None:
    """S2: a held removal is tried again when the pool's view is old, and when time passes."""
    floor(scene, 3)
    scene.events = [event()]
    assert scene.plan().wake_at == at(10)
    scene.pools = {APP: {"observed_at": at(-11)}}
    assert ReadLoadBalancer(LB) in scene.plan().actions


# --- views ---


@pytest.mark.parametrize("seen", [-10.5, 2, None])
def test_nic_view_must_be_fresh_and_whole(scene: PlannerScenario, seen: float | None) -> None:
    """Nothing is recorded from a NIC view that is old, from the future, or from a list."""
    scene.events = [event()]
    scene.nics = {"web-1": {"body": None} if seen is None else {"observed_at": at(seen)}}
    planned = scene.plan()
    assert planned.ledger is None
    assert planned.actions == (ReadNic(nic_id("web-1")),)


@pytest.mark.parametrize("seen", [-31, 2])
def test_pool_view_must_be_fresh(scene: PlannerScenario, seen: float) -> None:
    """S2: neither record nor write is planned from a pool view that is old or from the future."""
    scene.events = [event()]
    scene.pools = {APP: {"observed_at": at(seen)}}
    assert scene.plan().ledger is None
    assert scene.plan().actions == (ReadLoadBalancer(LB),)
    scene.pools = {}
    scene.adopt()
    scene.pools = {APP: {"observed_at": at(seen)}}
    assert writes(scene.plan()) == []


@pytest.mark.parametrize(
    "view", [{"observed_at": at(-1)}, {"observed_at": at(60)}, {"updating": True}]
)
def test_out_needs_a_view_newer_than_the_record(
    scene: PlannerScenario, view: dict[str, Any]
) -> None:
    """S1: a view from before the record, the future, or an operation's middle proves nothing."""
    scene.events = [event()]
    scene.adopt()
    scene.now, scene.inside["web-1"] = 5, []
    scene.pools = {APP: {"observed_at": at(-2)}}
    scene.nics = {"web-1": view}
    planned = scene.adopt()
    assert scene.entry().out_at is None
    assert phase(planned) is Phase.DRAINING
    assert planned.wake_at == at(6)


def test_not_out_on_the_word_of_a_failed_write(scene: PlannerScenario) -> None:
    """S1: a Failed NIC whose body says out is written again, and proves nothing until it is not."""
    scene.events = [event()]
    scene.adopt()
    scene.now, scene.inside["web-1"], scene.nics = 5, [], {"web-1": {"failed": True}}
    planned = scene.adopt()
    assert writes(planned) == [removal()]
    assert phase(planned) is Phase.DRAINING
    assert scene.entry().out_at is None
    scene.now, scene.nics = 9, {}
    assert writes(scene.adopt()) == []
    assert scene.entry().out_at == at(9)
    scene.now, scene.nics = 39, {"web-1": {"failed": True}}
    assert acknowledged(scene.adopt()) == ["E-1"], "what fails later was out before"


def test_not_back_on_the_word_of_a_failed_write(scene: PlannerScenario) -> None:
    """S5: a Failed NIC whose body says in is written again; the entry stays until it is not."""
    scene.events = [event()]
    scene.take_out()
    scene.now, scene.events = 300, []
    assert writes(scene.through()) == [restoral()]
    scene.now, scene.inside["web-1"] = 310, [APP]
    scene.nics = {"web-1": {"failed": True}}
    assert writes(scene.adopt()) == [restoral()]
    assert scene.entry().restored_at is None
    scene.now, scene.nics = 320, {}
    assert writes(scene.adopt()) == []
    assert scene.entry().restored_at == at(320)


def test_addresses_of_a_failed_pool_are_written_again() -> None:
    """S1, S5: what a Failed pool lists, or does not list, is neither back nor out."""
    scene = ip_scene()
    standing, failed = scene.addresses[APP], {APP: {"failed": True}}
    scene.events = [event()]
    scene.adopt()
    scene.now, scene.addresses[APP], scene.pools = 5, standing[1:], failed
    removals = writes(scene.adopt())
    assert removals == [change_pool(standing[0], restore=False)]
    assert scene.entry().out_at is None
    scene.now, scene.pools = 9, {}
    scene.adopt(ended_at={fold(APP): at(9)})
    assert scene.entry().out_at == at(9)
    scene.now, scene.events = 300, []
    scene.through()
    scene.now, scene.addresses[APP], scene.pools = 310, standing, failed
    restorals = writes(scene.adopt())
    assert restorals == [change_pool(standing[0], restore=True)]
    assert scene.entry().restored_at is None


def test_out_is_not_proven_while_the_write_is_under_way(scene: PlannerScenario) -> None:
    """S1: a view from the middle of our own write is not the end of it."""
    scene.events = [event()]
    scene.adopt()
    scene.now, scene.inside["web-1"] = 5, []
    busy = frozenset({removal().target})
    scene.adopt(in_flight=busy)
    assert scene.entry().out_at is None
    scene.adopt()
    assert scene.entry().out_at == at(5)


def test_out_needs_every_pool_seen(scene: PlannerScenario) -> None:
    """S1: a managed pool that could not be read is no evidence of being out of it."""
    scene.policy = replace(scene.policy, pools={APP: Floor(number=1), FAR: Floor(number=1)})
    scene.events = [event()]
    scene.adopt()
    scene.now, scene.inside["web-1"] = 5, []
    only_app = scene.observe().pools[:1]
    scene.adopt(pools=only_app)
    assert scene.entry().out_at is None
    scene.adopt(pools=only_app, missing=frozenset({fold(FAR)}))
    assert scene.entry().out_at == at(5)


def test_former_peer_is_still_in_its_pool(scene: PlannerScenario) -> None:
    """S1: a VM that vanishes from the set's list is not thereby out of the pool."""
    scene.events = [event()]
    scene.adopt()
    scene.now, scene.nics = 5, {"web-1": {"vm_id": ""}}
    rest = tuple(vm for vm in scene.observe().vms if vm.name != "web-1")
    planned = scene.adopt(vms=rest)
    assert writes(planned) == [removal()]
    assert scene.entry().out_at is None


def test_a_vm_that_is_not_in_the_set_is_not_restored(scene: PlannerScenario) -> None:
    """S3, S6: the ledger alone is no proof that a VM is ours; another set may have written it."""
    scene.events = [event()]
    scene.take_out()
    scene.now, scene.events = 300, []
    rest = tuple(vm for vm in scene.observe().vms if vm.name != "web-1")
    former = tuple(vm for vm in scene.observe().vms if vm.name == "web-1")
    former = (replace(former[0], nic_ids=()),)
    planned = scene.through(vms=rest, former=former)
    assert (writes(planned), reasons(planned)) == ([], {"web-1": "not_in_set"})
    entry = scene.entry()
    request = ForgetRequest(vm="web-1", recorded_at=entry.recorded_at, by="ann", at=at(0))
    scene.adopt(vms=rest, former=former, forgets=(request,))
    assert scene.ledger.entries == ()


def test_a_vm_of_another_id_is_not_restored(scene: PlannerScenario) -> None:
    """S3: a VM of another resource group is another one, in spite of its name."""
    scene.events = [event()]
    scene.take_out()
    scene.now, scene.events = 300, []
    other = replace(scene.entry(), vm_id=f"{vm_id('web-1')}-elsewhere")
    scene.ledger = scene.ledger.with_entry(other)
    planned = scene.through()
    assert (writes(planned), reasons(planned)) == ([], {"web-1": "not_in_set"})


@pytest.mark.parametrize(("guid", "restored"), [("", True), ("G-1", True), ("g-2", False)])
def test_a_vm_of_a_set_that_does_not_exist_any_more(
    scene: PlannerScenario, guid: str, restored: bool
) -> None:
    """L1: a VM that left the set while it was out, because that was converted, comes back."""
    scene.vms = {"web-1": {"guid": "g-1"}}
    scene.events = [event()]
    scene.take_out()
    scene.now, scene.events = 300, []
    rest = tuple(vm for vm in scene.observe().vms if vm.name != "web-1")
    assert scene.plan(vms=rest).actions == (ReadPower(vm_id("web-1")),)
    former = tuple(vm for vm in scene.observe().vms if vm.name == "web-1")
    former = (replace(former[0], nic_ids=(), guid=guid),)
    scene.ledger = replace(scene.ledger, set_id="/set")
    over: dict[str, Any] = {"vms": rest, "former": former, "missing": frozenset({"/set"})}
    planned = scene.through(**over)
    assert len(writes(planned)) == restored
    if restored:
        scene.inside["web-1"] = [APP]
        scene.adopt(**over)
        assert scene.entry().restored_at == at(300)


# --- operators ---


def test_removed_by_an_operator_before_us(scene: PlannerScenario) -> None:
    """S3: what was gone before we wrote is not ours, and is never added."""
    scene.policy = replace(scene.policy, pools={APP: Floor(number=1), API: Floor(number=1)})
    scene.inside = {name: [APP, API] for name in scene.inside}
    scene.events = [event()]
    scene.adopt()
    scene.now, scene.inside["web-1"] = 5, []
    never = frozenset({membership("web-1", API).key})
    scene.adopt(unsent=never)
    assert scene.entry().memberships == (membership("web-1"),)
    assert scene.entry().out_at is None, "the trimmed entry is durable first"
    scene.adopt(unsent=never)
    assert scene.entry().out_at == at(5)
    scene.now, scene.events = 300, []
    assert writes(scene.through()) == [restoral()]


@pytest.mark.parametrize("over", [False, True])
def test_nothing_of_the_entry_is_ours(scene: PlannerScenario, over: bool) -> None:
    """S3: an entry of which nothing is ours is forgotten, during and after the event."""
    scene.events = [event()]
    scene.adopt()
    scene.now, scene.inside["web-1"] = 5, []
    scene.events = [] if over else scene.events
    planned = scene.adopt(unsent=frozenset({membership("web-1").key}))
    assert acknowledged(planned) == []
    assert writes(planned) == []
    assert scene.ledger.entries == ()


def test_what_was_never_sent_and_stands_is_ours_to_keep(scene: PlannerScenario) -> None:
    """S3: an entry whose removal was never sent ends like any other when the VM stands."""
    scene.events = [event()]
    scene.adopt()
    scene.now, scene.events = 60, []
    scene.through(unsent=frozenset({membership("web-1").key}))
    assert scene.entry().restored_at == at(60)


def test_put_back_by_an_operator_afterwards(scene: PlannerScenario) -> None:
    """S3: if an operator has put the VM back already, there is nothing to write."""
    scene.events = [event()]
    scene.take_out()
    scene.now, scene.events, scene.inside["web-1"] = 300, [], [APP]
    assert writes(scene.adopt()) == []
    assert scene.entry().restored_at == at(300)


def test_put_back_by_an_operator_during_the_event(scene: PlannerScenario) -> None:
    """S1: a VM that stands in its pool again is removed again, and empties once more."""
    scene.events = [event()]
    scene.take_out()
    scene.now, scene.inside["web-1"] = 60, [APP]
    again = scene.adopt()
    assert acknowledged(again) == []
    assert writes(again) == [], "what is sent again is recorded again (S5)"
    assert (scene.entry().out_at, scene.entry().recorded_at) == (None, at(60))
    assert writes(scene.adopt()) == [removal()]
    scene.now, scene.inside["web-1"] = 65, []
    scene.adopt()
    scene.now = 94
    assert acknowledged(scene.adopt()) == []
    scene.now = 95
    assert acknowledged(scene.adopt()) == ["E-1"]


def test_put_into_another_pool_during_the_event(scene: PlannerScenario) -> None:
    """S5: a new membership is recorded next to the old ones before it is removed."""
    scene.policy = replace(scene.policy, pools={APP: Floor(number=1), API: Floor(number=1)})
    scene.inside["web-2"] = [APP, API]
    scene.events = [event()]
    scene.take_out()
    scene.now, scene.inside["web-1"] = 60, [API]
    assert writes(scene.adopt()) == []
    assert {m.pool_id for m in scene.entry().memberships} == {APP, API}
    assert writes(scene.adopt()) == [removal("web-1", API)]


def test_taken_out_by_an_operator_after_we_put_it_back(scene: PlannerScenario) -> None:
    """S3: what somebody removes after the restore is not ours to add at the next event."""
    scene.events = [event()]
    scene.take_out()
    scene.now, scene.events, scene.inside["web-1"] = 300, [], [APP]
    scene.adopt()
    scene.now, scene.inside["web-1"], scene.events = 305, [], [event(event_id="E-2")]
    scene.adopt()
    assert scene.ledger.entries == ()


def test_next_event_while_settling(scene: PlannerScenario) -> None:
    """Back to back events: a VM that was just restored is recorded anew, as it stands now."""
    scene.policy = replace(scene.policy, pools={APP: Floor(number=1), API: Floor(number=1)})
    scene.inside = {name: [APP, API] for name in scene.inside}
    scene.events = [event()]
    scene.take_out()
    scene.now, scene.events, scene.inside["web-1"] = 300, [], [APP, API]
    scene.adopt()
    scene.now, scene.inside["web-1"], scene.events = 305, [API], [event(event_id="E-2")]
    scene.adopt()
    assert [m.pool_id for m in scene.entry().memberships] == [API]
    assert [each.event_id for each in scene.entry().events] == ["E-2"]
    assert (scene.entry().restored_at, scene.entry().recorded_at) == (None, at(305))


# --- restoring ---


def out_and_over(now: float = 300) -> PlannerScenario:
    scene = PlannerScenario(events=[event()])
    scene.take_out()
    scene.now, scene.events = now, []
    return scene


def test_two_clean_polls() -> None:
    """S6: one document without the event may be a glitch; a failed poll starts the count anew."""
    scene = out_and_over()
    gone = EventDocument(incarnation=2)
    there = EventDocument(incarnation=1, events=(started(),))
    for polls in ((), (gone,), (there, gone), (gone, there)):
        planned = scene.plan(clean_documents=polls)
        assert planned.actions == ()
        assert phase(planned) is Phase.RESTORE_DUE
        assert planned.wake_at == at(301)
    assert writes(scene.through(clean_documents=(gone, gone))) == [restoral()]


@pytest.mark.parametrize("vms", [(), ("web-1",), ("web-2",)])
def test_no_restore_while_an_event_is_set_aside(vms: tuple[str, ...]) -> None:
    """S6: what cannot be read may be the event because of which a VM is out; a hold reports it."""
    scene = out_and_over()
    aside = SetAside(problem="an event is 5, not an object", vms=vms)
    planned = scene.plan(document=EventDocument(incarnation=3, set_aside=(aside,)))
    assert planned.actions == ()
    assert phase(planned) is Phase.HELD
    held = {hold.subject: hold for hold in planned.holds}
    assert held["event document"].reason == "unreadable_event"
    assert "an event is 5" in held["event document"].message
    assert held["web-1"].reason == "unreadable_event"
    assert writes(scene.through()) == [restoral()]


@pytest.mark.parametrize(
    ("problems", "reported"),
    [(("one",), "one"), (("one", "two"), "one (and 1 more)"),
     (("one", "two", "three"), "one (and 2 more)")],
)  # fmt: skip
def test_the_hold_of_unreadable_events_names_the_first_problem(
    scene: PlannerScenario, problems: tuple[str, ...], reported: str
) -> None:
    """S6: one hold reports the first problem, and how many there are besides."""
    aside = tuple(SetAside(problem=problem) for problem in problems)
    scene.events = []
    planned = scene.plan(document=EventDocument(incarnation=3, set_aside=aside))
    assert [(hold.subject, hold.reason, hold.message) for hold in planned.holds] == [
        (
            "event document",
            "unreadable_event",
            f"an event cannot be read, and no VM is restored until it can be: {reported}",
        )
    ]


def test_a_vm_that_an_odd_event_names_is_threatened(scene: PlannerScenario) -> None:
    """The VMs of an event that cannot be read are held; a flawless event is acted on."""
    scene.events = [event()]
    aside = SetAside(problem="EventType is 1, not text", event_id="E-9", vms=("WEB-2",))
    document = EventDocument(incarnation=3, events=tuple(scene.events), set_aside=(aside,))
    planned = scene.adopt(document=document)
    assert phase(planned, "web-2") is Phase.HELD
    assert reasons(planned) == {"event document": "unreadable_event", "web-2": "unreadable_event"}
    assert writes(scene.plan(document=document)) == [removal()]


def test_an_event_that_may_share_its_id_is_not_acknowledged(scene: PlannerScenario) -> None:
    """S1: the VM is taken out, and the event is not released."""
    scene.events = [replace(event(), acknowledgeable=False)]
    scene.take_out()
    scene.now = 100
    assert acknowledged(scene.adopt()) == []
    scene.events = [event()]
    assert acknowledged(scene.plan()) == ["E-1"]


@pytest.mark.parametrize("status", [EventStatus.SCHEDULED, EventStatus.STARTED])
def test_a_vm_without_a_usable_body_is_not_unmanaged(
    scene: PlannerScenario, status: EventStatus
) -> None:
    """S1: nothing is known of its NICs, so its event is not acknowledged, and a hold names it."""
    scene.policy = replace(scene.policy, acknowledge_unmanaged=True)
    scene.inside["web-3"], scene.nics["web-3"] = [], {"vm_id": ""}
    scene.vms["web-3"] = {"nic_ids": (), "problem": "it came without networkProfile"}
    scene.events = [event("web-3", status=status)]
    planned = scene.adopt()
    assert acknowledged(planned) == []
    assert phase(planned, "web-3") is Phase.HELD
    assert reasons(planned) == {"web-3": "unreadable_vm"}
    assert "networkProfile" in planned.holds[0].message
    scene.events = [event()]
    scene.adopt()
    assert writes(scene.plan()) == [removal()]


def test_a_vm_without_a_usable_body_is_drained_by_the_nics_last_seen(
    scene: PlannerScenario,
) -> None:
    """S7: the VM is taken out of the pools it is known to be in; S1: that proves no more."""
    scene.vms["web-1"] = {"problem": "it came without networkProfile"}
    scene.events = [event()]
    scene.adopt()
    assert writes(scene.plan()) == [removal()]
    scene.take_out()
    scene.now = 100
    assert acknowledged(scene.adopt()) == []
    scene.vms.clear()
    assert acknowledged(scene.plan()) == ["E-1"]


@pytest.mark.parametrize(
    ("named", "notice_s", "problem", "read"),
    [
        ("WEB-3", 600, "it came without networkProfile", True),
        ("web-3", 86_400, "it came without networkProfile", False),
        ("web-2", 600, "it came without networkProfile", False),
        ("web-3", 600, "", False),
    ],
)
def test_an_unread_vm_that_has_to_leave_is_read_every_half_minute(
    scene: PlannerScenario, named: str, notice_s: float, problem: str, read: bool
) -> None:
    """S7: it can be readable again at any time; H1: only its own due event is a reason."""
    scene.vms["web-3"] = {"problem": problem}
    scene.events = [event(named, not_before=notice_s)]
    scene.adopt()
    scene.now = 31
    assert (ReadInventory() in scene.plan(inventory_at=at(1)).actions) is read
    assert ReadInventory() not in scene.plan(inventory_at=at(2)).actions


def test_an_unread_vm_that_has_to_leave_on_request_is_read_every_half_minute(
    scene: PlannerScenario,
) -> None:
    """A person waits for it; when the request is over nobody does."""
    scene.vms["web-3"], scene.events = {"problem": "it came without networkProfile"}, []
    asked = DrainRequest(request_id="R", vm="WEB-3", reason="", by="ann", at=at(0), until=at(90))
    for now, read in ((31, True), (91, False)):
        scene.now = now
        planned = scene.plan(inventory_at=at(now - 30), requests=(asked,))
        assert (ReadInventory() in planned.actions) is read


def test_old_polls_are_no_evidence() -> None:
    """S6: two clean polls from before the VM of the agent was frozen do not restore anything."""
    scene = out_and_over()
    assert writes(scene.plan(document_at=at(269))) == []
    assert writes(scene.through(document_at=at(270))) == [restoral()]


def test_ignored_event_does_not_block_the_restore() -> None:
    """S6 speaks of impacting events only."""
    scene = out_and_over()
    scene.events = [event(event_type="Freeze", duration_s=1)]
    assert writes(scene.through()) == [restoral()]


@pytest.mark.parametrize("power", [PowerState.NOT_RUNNING, PowerState.UNKNOWN])
def test_vm_must_run(power: PowerState) -> None:
    """S6: a VM that Compute does not call running stays out, loudly, and is asked for again."""
    scene = out_and_over()
    scene.vms = {"web-1": {"power": power}}
    planned = scene.plan()
    assert planned.actions == ()
    assert reasons(planned) == {"web-1": "vm_not_running"}
    assert planned.wake_at == at(310)
    scene.vms["web-1"]["power_observed_at"] = at(290)
    assert scene.plan().actions == (ReadPower(vm_id("web-1")),)


@pytest.mark.parametrize("seen", [None, 289, 302])
def test_power_must_be_known_lately(seen: float | None) -> None:
    """S6: a power state that is unknown, old or from the future is read again first."""
    scene = out_and_over()
    scene.vms = {"web-1": {"power_observed_at": None if seen is None else at(seen)}}
    assert scene.plan().actions == (ReadPower(vm_id("web-1")),)


def test_cancelled_before_anything_was_written(scene: PlannerScenario) -> None:
    """A recorded VM whose event vanishes is forgotten once no late write can remove it."""
    scene.events = [event()]
    scene.adopt()
    scene.now, scene.events = 10, []
    planned = scene.adopt()
    assert (writes(planned), planned.wake_at) == ([], at(60))
    scene.now = 59
    scene.adopt()
    assert scene.entry().restored_at is None
    scene.now = 60
    scene.nics = {"web-1": {"observed_at": at(59)}}
    assert scene.adopt().actions == (ReadNic(nic_id("web-1")),)
    scene.nics = {}
    scene.adopt()
    assert scene.entry().restored_at == at(60)


def test_verified_view_needs_no_patience(scene: PlannerScenario) -> None:
    """A view that ended our own write tells at once that the VM is back."""
    scene.events = [event()]
    scene.take_out()
    scene.now, scene.events, scene.inside["web-1"] = 20, [], [APP]
    scene.adopt(ended_at={fold(nic_id("web-1")): at(20)})
    assert scene.entry().restored_at == at(20)


@pytest.mark.parametrize("over", [{"in_flight": frozenset({removal().target})}, {}])
def test_not_back_while_something_is_under_way(over: dict[str, Any]) -> None:
    """Observed-in before Forget: an operation that has not ended may take the VM away again."""
    scene = out_and_over()
    scene.inside["web-1"] = [APP]
    scene.nics = {} if over else {"web-1": {"updating": True}}
    scene.adopt(**over)
    assert scene.entry().restored_at is None


def test_cancelled_event(scene: PlannerScenario) -> None:
    """A cancelled event looks like a finished one: the VM comes back."""
    scene.events = [event()]
    scene.take_out()
    scene.now, scene.events = 40, []
    assert writes(scene.through()) == [restoral()]


def test_recorded_but_inside_with_another_event_ahead(scene: PlannerScenario) -> None:
    """An entry of which everything stands ends, though another event is announced for later."""
    scene.events = [event(), event(event_id="E-2", not_before=86400)]
    scene.adopt()
    scene.now, scene.events = 60, scene.events[1:]
    scene.adopt()
    assert scene.entry().restored_at == at(60)


def test_gone_vm_is_kept_visible() -> None:
    """A deleted VM's entry is kept and said so; nothing is written, nobody is blocked."""
    scene = out_and_over()
    missing = frozenset({fold(vm_id("web-1")), fold(nic_id("web-1"))})
    scene.events = [event("web-2", event_id="E-2", not_before=900)]
    planned = scene.adopt(missing=missing)
    assert writes(planned) == []
    assert scene.entry().gone
    assert scene.entry().memberships == (membership("web-1"),)
    assert reasons(planned) == {"web-1": "vm_gone"}
    assert scene.ledger.entry("web-2") is not None
    scene.events = []
    scene.adopt()
    assert not scene.entry().gone
    assert writes(scene.through()) == [restoral()]


def test_a_vm_that_is_not_found_for_a_moment_is_not_deleted() -> None:
    """A power state of `gone` alone holds the VM; its absence is confirmed by minutes."""
    scene = out_and_over()
    scene.vms = {"web-1": {"power": PowerState.GONE}}
    assert reasons(scene.adopt()) == {"web-1": "vm_not_running"}


def test_gone_vm_does_not_block_the_acknowledgement(scene: PlannerScenario) -> None:
    """L2: a VM that is deleted during its event is out, and the event goes on."""
    scene.events = [event("web-1", "web-2")]
    scene.adopt()
    scene.now, scene.inside["web-1"], scene.inside["web-2"] = 5, [], []
    missing = frozenset({fold(vm_id("web-1")), fold(nic_id("web-1"))})
    nics = tuple(nic for nic in scene.observe().nics if nic.nic_id != nic_id("web-1"))
    scene.adopt(missing=missing, nics=nics)
    scene.now = 35
    nics = tuple(nic for nic in scene.observe().nics if nic.nic_id != nic_id("web-1"))
    assert acknowledged(scene.plan(missing=missing, nics=nics)) == ["E-1"]


@pytest.mark.parametrize("lost", [API, "ipConfiguration"])
def test_a_place_that_is_absent_is_kept_as_lost(lost: str) -> None:
    """A membership of a deleted pool or ipConfiguration is lost; the others come back."""
    scene = PlannerScenario(policy=make_policy(pools={APP: Floor(number=1), API: Floor(number=1)}))
    scene.inside = {name: [APP, API] for name in scene.inside}
    scene.events = [event()]
    scene.take_out()
    scene.now, scene.events = 300, []
    missing = frozenset({fold(API)}) if lost == API else frozenset[str]()
    if lost != API:
        other = replace(membership("web-1", API), ip_configuration="ipconfig2")
        entry = replace(scene.entry(), memberships=(membership("web-1"), other))
        scene.ledger = scene.ledger.with_entry(entry)
    dropped = scene.adopt(missing=missing)
    assert writes(dropped) == []
    assert scene.entry().memberships == (membership("web-1"),)
    assert len(scene.entry().lost) == 1
    assert scene.ledger.transitions[-1].step == "membership lost"
    assert writes(scene.through(missing=missing)) == [restoral()]


def test_a_nic_that_is_absent_ends_nothing() -> None:
    """An entry of which nothing can come back now is kept, with a line of history."""
    scene = out_and_over()
    scene.adopt(missing=frozenset({fold(nic_id("web-1"))}), nics=())
    assert (scene.entry().memberships, scene.entry().lost) == ((), (membership("web-1"),))
    assert scene.ledger.transitions[-1].detail == "app"


def test_pool_that_is_not_managed_any_more(scene: PlannerScenario) -> None:
    """S3: no write leaves the configured pools; it comes back when the pool is configured again."""
    scene.events = [event()]
    scene.take_out()
    scene.now, scene.events = 300, []
    scene.policy = replace(scene.policy, pools={API: Floor(number=1)})
    planned = scene.through()
    assert (writes(planned), reasons(planned)) == ([], {"web-1": "lost"})
    assert "app (the pool is not in [[backend_pools]])" in planned.holds[0].message
    scene.policy = replace(scene.policy, pools={APP: Floor(number=1)})
    assert writes(scene.through()) == [restoral()]


def test_pool_that_only_the_ledger_knows_is_not_drained(scene: PlannerScenario) -> None:
    """S3: no VM is removed from a pool that is not managed any more."""
    scene.events = [event("web-1", event_id="E-1")]
    scene.take_out()
    scene.policy = replace(scene.policy, pools={API: Floor(number=1)})
    scene.events = [event("web-2", event_id="E-2")]
    assert phase(scene.adopt(), "web-2") is Phase.UNMANAGED
    assert scene.ledger.entry("web-2") is None


# --- kinds of membership ---


def ip_scene() -> PlannerScenario:
    scene = PlannerScenario(
        inside={f"web-{n}": [] for n in (1, 2, 3)},
        ips={"web-1": "10.0.0.1", "web-2": "10.0.0.2", "web-3": "fd00:0:0::3"},
    )
    scene.addresses = {
        APP: [
            address("a", "10.0.0.1"),
            address("b", "10.0.0.2", pool_id=APP.upper()),
            address("c", "fd00::3"),
        ]
    }
    return scene


def test_addresses_share_one_write_per_pool() -> None:
    """One PUT per IP-based pool covers all affected addresses, whatever their spelling."""
    scene = ip_scene()
    standing = scene.addresses[APP]
    scene.events = [event("web-1", "web-2")]
    scene.adopt()
    removed = writes(scene.plan())
    assert removed == [change_pool(standing[0], standing[1], restore=False)]
    scene.addresses[APP] = standing[2:]
    scene.now = 5
    assert writes(scene.adopt(ended_at={fold(APP): at(5)})) == []
    scene.now = 35
    assert acknowledged(scene.adopt()) == ["E-1"]
    scene.now, scene.events = 300, []
    restored = writes(scene.through())
    assert restored == [change_pool(standing[0], standing[1], restore=True)]
    scene.addresses[APP] = standing
    scene.adopt(ended_at={fold(APP): at(300)})
    assert [entry.restored_at for entry in scene.ledger.entries] == [at(300), at(300)]


def test_address_out_needs_a_newer_pool_view() -> None:
    """S1: a pool view from before the record does not prove that an address is out of it."""
    scene = ip_scene()
    scene.events = [event()]
    scene.adopt()
    scene.now, scene.addresses[APP] = 5, scene.addresses[APP][1:]
    scene.pools = {APP: {"observed_at": at(-1)}}
    assert ReadLoadBalancer(LB) in scene.adopt(ended_at={fold(APP): at(0)}).actions
    assert scene.entry().out_at is None


@pytest.mark.parametrize(("ended_s", "out_s"), [(5, 5), (None, 60)])
def test_address_is_out_when_its_removal_has_ended(ended_s: float | None, out_s: float) -> None:
    """S1: a pool lists an address no more before the removal has taken effect."""
    scene = ip_scene()
    scene.events = [event()]
    scene.adopt()
    scene.addresses[APP] = scene.addresses[APP][1:]
    over: dict[str, Any] = {} if ended_s is None else {"ended_at": {fold(APP): at(ended_s)}}
    for scene.now in (5, out_s - 0.1, out_s):
        scene.through(**over)
    assert scene.entry().out_at == at(out_s)


@pytest.mark.parametrize(("ended_s", "back_s"), [(310, 310), (None, 360)])
def test_address_is_back_when_its_restore_has_ended(ended_s: float | None, back_s: float) -> None:
    """Observed-in before Forget: a pool lists an address before the restore has taken effect."""
    scene = ip_scene()
    standing = scene.addresses[APP]
    scene.events = [event()]
    scene.adopt()
    scene.now, scene.addresses[APP] = 60, standing[1:]
    scene.adopt()
    scene.now, scene.events = 300, []
    assert len(writes(scene.through())) == 1
    scene.addresses[APP] = standing
    over: dict[str, Any] = {} if ended_s is None else {"ended_at": {fold(APP): at(ended_s)}}
    for scene.now in (310, back_s - 0.1, back_s):
        scene.through(**over)
    assert scene.entry().restored_at == at(back_s)


def test_address_back_needs_a_late_pool_view() -> None:
    """A pool view that a predecessor's write may still undo does not end the entry."""
    scene = ip_scene()
    scene.events = [event()]
    scene.adopt()
    scene.now, scene.events = 30, []
    assert scene.adopt().wake_at == at(60)
    assert scene.entry().restored_at is None
    scene.now, scene.pools = 61, {APP: {"observed_at": at(59)}}
    assert scene.adopt().actions == (ReadLoadBalancer(LB),)
    scene.pools = {APP: {"observed_at": at(60)}}
    scene.adopt()
    assert scene.entry().restored_at == at(61)


def test_an_address_that_an_operator_put_back_is_back_at_once() -> None:
    """While it was out no restore of ours was sent that its pool could show too early."""
    scene = ip_scene()
    standing = scene.addresses[APP]
    scene.events = [event()]
    scene.adopt()
    scene.now, scene.addresses[APP] = 5, standing[1:]
    scene.adopt(ended_at={fold(APP): at(5)})
    scene.now, scene.addresses[APP], scene.events = 20, standing, []
    scene.through()
    assert scene.entry().restored_at == at(20)


def test_recorded_again_an_address_is_back_when_no_removal_can_come() -> None:
    """S5: a restore from before the new record says nothing of the removal after it."""
    scene = ip_scene()
    scene.events = [event()]
    scene.adopt()
    again = replace(scene.entry(), recorded_at=at(50), restoring_at=at(10))
    scene.ledger = scene.ledger.with_entry(again)
    scene.events = []
    for scene.now in (70, 109.9):
        scene.through()
    assert scene.entry().restored_at is None
    scene.now = 110
    scene.through()
    assert scene.entry().restored_at == at(110)


def test_out_again_needs_a_view_from_after_the_new_record() -> None:
    """S1: the end of a restore from before the record does not make an older view prove it."""
    scene = ip_scene()
    scene.events = [event()]
    scene.adopt()
    again = replace(scene.entry(), recorded_at=at(50), restoring_at=at(10))
    scene.ledger = scene.ledger.with_entry(again)
    scene.now, scene.addresses[APP] = 51, scene.addresses[APP][1:]
    over = {"ended_at": {fold(APP): at(12)}}
    scene.pools = {APP: {"observed_at": at(49)}}
    scene.through(**over)
    assert scene.entry().out_at is None
    scene.pools = {}
    scene.through(**over)
    assert scene.entry().out_at == at(51)


def test_address_whose_name_was_given_away() -> None:
    """S3: an entry name that now belongs to another address is not overwritten."""
    scene = ip_scene()
    scene.events = [event()]
    standing = scene.addresses[APP]
    scene.adopt()
    scene.now, scene.addresses[APP] = 5, standing[1:]
    scene.adopt()
    scene.now, scene.events = 300, []
    scene.addresses[APP] = [*standing[1:], address("A", "10.0.0.77")]
    scene.adopt()
    assert (scene.entry().memberships, scene.entry().lost) == ((), (standing[0],))


def test_ipv6_address_is_matched_in_any_spelling() -> None:
    """Two spellings of one IPv6 address are one member."""
    scene = ip_scene()
    scene.events = [event("web-3")]
    scene.adopt()
    assert scene.entry("web-3").memberships == (address("c", "fd00::3"),)


def test_several_nics_and_pools(scene: PlannerScenario) -> None:
    """One write per NIC covers all its pools, and all of a VM's NICs are drained."""
    scene.policy = replace(scene.policy, pools={APP: Floor(number=1), FAR: Floor(number=1)})
    second = nic_id("web-1-b")
    extra = Nic(
        nic_id=second, vm_id="", etag="1", observed_at=T0, body=BODY,
        ip_configurations=(
            IpConfiguration(name="v4", pool_ids=(API, FAR)),
            IpConfiguration(name="v6", pool_ids=(FAR,)),
        ),
    )  # fmt: skip
    scene.inside["web-2"] = [APP, FAR]
    scene.vms = {"web-1": {"nic_ids": (nic_id("web-1"), second)}}
    scene.events = [event()]
    scene.pools = {FAR: {"observed_at": at(-1)}}
    nics = (*scene.observe().nics, extra)
    scene.adopt(nics=nics)
    assert writes(scene.plan(nics=nics)) == [
        change_nic(
            NicMembership(pool_id=FAR, nic_id=second, ip_configuration="v4", position=1),
            NicMembership(pool_id=FAR, nic_id=second, ip_configuration="v6", position=0),
            restore=False,
        ),
        removal(),
    ]


# --- targets, slots, failures ---


def test_deferred_and_running_targets_are_left_alone(scene: PlannerScenario) -> None:
    """A target that failed waits, one that is under way is not started twice, others go on."""
    scene.events = [event("web-1", "web-2")]
    scene.adopt()
    waiting = scene.plan(**deferred(removal().target, until=7))
    assert writes(waiting) == [removal("web-2")]
    assert waiting.wake_at == at(7)
    assert writes(scene.plan(in_flight=frozenset({removal().target}))) == [removal("web-2")]
    assert len(writes(scene.plan(**deferred(removal().target, until=0)))) == 2


def test_failed_write_is_held_until_it_succeeds(scene: PlannerScenario) -> None:
    """A hold keeps its instant while the write is tried again, and ends with success."""
    scene.events = [event()]
    scene.adopt()
    target = removal().target
    failed = scene.adopt(**deferred(target, until=7, message="denied"))
    assert reasons(failed) == {"web-1-nic": "write_failed"}
    scene.now = 8
    assert scene.adopt().holds[0].since == at(0), "due again"
    assert scene.adopt(in_flight=frozenset({target})).holds[0].since == at(0)
    scene.inside["web-1"] = []
    assert scene.adopt().holds == ()


def test_failed_acknowledgement_is_held(scene: PlannerScenario) -> None:
    """An acknowledgement that fails is said so under the event's id."""
    planned = scene.plan(**deferred(Acknowledge("E-1").key, until=7, message="400"))
    assert reasons(planned) == {"e-1": "not_acknowledged"}
    assert planned.holds[0].message == "400"


def test_write_slots(scene: PlannerScenario) -> None:
    """No more VMs are recorded, and no more writes planned, than may start now."""
    scene.slots = 1
    scene.events = [event("web-1", "web-2")]
    scene.adopt()
    assert [entry.vm for entry in scene.ledger.entries] == ["web-1"]
    assert writes(scene.plan()) == [removal()]
    scene.slots = 0
    assert writes(scene.plan()) == []


def test_slots_prefer_removals(scene: PlannerScenario) -> None:
    """S7: with one slot a removal that is due goes before a restore."""
    scene.events = [event("web-1")]
    scene.take_out()
    scene.events = [event("web-2", event_id="E-2")]
    scene.now = 100
    scene.adopt()
    scene.slots = 1
    assert writes(scene.plan()) == [removal("web-2")]


def test_bad_nic_does_not_block_others(scene: PlannerScenario) -> None:
    """L2: a VM whose NIC cannot be read or written leaves the others their way out."""
    scene.events = [event("web-1"), event("web-2", event_id="E-2")]
    scene.nics = {"web-1": {"observed_at": at(-20)}}
    stuck = deferred(ReadNic(nic_id("web-1")).target, until=9, message="404")
    scene.adopt(**stuck)
    assert [entry.vm for entry in scene.ledger.entries] == ["web-2"]
    assert writes(scene.plan(**stuck)) == [removal("web-2")]


def test_bad_nic_does_not_block_the_vms_other_nic(scene: PlannerScenario) -> None:
    """L2: a second NIC that cannot be read does not keep the first one in."""
    scene.vms = {"web-1": {"nic_ids": (nic_id("web-1"), nic_id("bad"))}}
    scene.events = [event()]
    assert ReadNic(nic_id("bad")) in scene.plan().actions
    stuck = deferred(ReadNic(nic_id("bad")).target, until=9)
    scene.adopt(**stuck)
    assert writes(scene.plan(**stuck)) == [removal()]
    scene.now, scene.inside["web-1"] = 1, []
    scene.adopt(**stuck)
    assert scene.entry().out_at is None


def test_bad_pool_does_not_block_others(scene: PlannerScenario) -> None:
    """L2: a load balancer that cannot be read keeps nobody in the pools of another."""
    scene.policy = replace(scene.policy, pools={APP: Floor(number=1), FAR: Floor(number=1)})
    scene.inside = {name: [APP, FAR] for name in scene.inside}
    scene.pools = {FAR: {"observed_at": at(-60)}}
    scene.events = [event()]
    stuck = deferred(ReadLoadBalancer(LB2).target, until=9, message="403")
    scene.adopt(**stuck)
    assert writes(scene.plan(**stuck)) == [removal()]
    scene.inside["web-1"] = [FAR]
    planned = scene.adopt(**stuck)
    assert writes(planned) == []
    assert phase(planned) is Phase.DRAIN_DUE
    scene.pools = {}
    scene.adopt()
    assert {m.pool_id for m in scene.entry().memberships} == {APP, FAR}


def test_holds_end_with_their_reason(scene: PlannerScenario) -> None:
    """A hold that no longer applies leaves the ledger."""
    floor(scene, 3)
    scene.events = [event()]
    assert reasons(scene.adopt()) == {"web-1": "floor"}
    assert scene.plan().ledger is None
    scene.events = []
    assert scene.adopt().holds == ()


def test_plan_is_a_function_of_its_arguments(scene: PlannerScenario) -> None:
    """Level triggered: the same observation and ledger give the same plan."""
    scene.events = [event("web-1", "web-2")]
    first, second = scene.plan(), scene.plan()
    assert first == second


# --- writes whose end nobody saw ---


def restore_under_way() -> PlannerScenario:
    """A VM whose restore may have been sent at 300, and a second event for it at 305."""
    scene = out_and_over()
    assert writes(scene.through()) == [restoral()]
    scene.now, scene.events = 305, [event(event_id="E-2", not_before=1100)]
    return scene


def test_no_acknowledgement_while_a_restore_may_land() -> None:
    """S1: a VM that our own restore may put back is not out, whatever the newest views say."""
    scene = restore_under_way()
    busy = frozenset({restoral().target})
    assert acknowledged(scene.through(in_flight=busy)) == []
    assert scene.entry().out_at is None
    scene.now = 359
    planned = scene.through(sent_at=MappingProxyType({fold(nic_id("web-1")): at(301)}))
    assert (acknowledged(planned), planned.wake_at) == ([], at(361))
    scene.now = 361
    scene.through(sent_at=MappingProxyType({fold(nic_id("web-1")): at(301)}))
    assert (scene.entry().out_at, scene.entry().restoring_at) == (at(361), None)
    scene.now = 391
    assert acknowledged(scene.through()) == ["E-2"]


def test_no_acknowledgement_while_a_predecessors_restore_may_land() -> None:
    """S1: a new leader waits for what its predecessor may have sent until it lost the lease."""
    scene = restore_under_way()
    scene.ledger = replace(scene.ledger, leader_since=at(330))
    scene.now = 389
    scene.through()
    assert scene.entry().out_at is None
    scene.now = 390
    scene.through()
    assert scene.entry().out_at == at(390)


def test_view_that_ended_our_write_needs_no_patience_for_out() -> None:
    """S1: the view at the end of a write of ours proves that no earlier restore is left."""
    scene = restore_under_way()
    scene.inside["web-1"] = [APP]
    assert writes(scene.through()) == [removal()]
    assert scene.entry().restoring_at == at(300)
    scene.now, scene.inside["web-1"] = 310, []
    over = {"ended_at": {fold(nic_id("web-1")): at(310)}}
    scene.through(**over, in_flight=frozenset({removal().target}))
    assert scene.entry().out_at is None
    scene.through(**over)
    assert (scene.entry().out_at, scene.entry().restoring_at) == (at(310), None)


def test_acknowledgement_waits_for_any_write_of_ours(scene: PlannerScenario) -> None:
    """S1: nothing is acknowledged while a write to the VM's NIC is under way."""
    scene.events = [event()]
    scene.take_out()
    scene.now = 60
    assert acknowledged(scene.plan(in_flight=frozenset({restoral().target}))) == []
    assert acknowledged(scene.plan()) == ["E-1"]


def test_restore_seen_by_a_successor_ends_at_once() -> None:
    """A removal that was observed out cannot land again: who sees the VM back need not wait."""
    scene = restore_under_way()
    scene.ledger = replace(scene.ledger, leader_since=at(304))
    scene.events, scene.inside["web-1"] = [], [APP]
    assert scene.through().actions == ()
    assert scene.entry().restored_at == at(305)


def test_event_after_a_restore_costs_few_reads_while_it_waits() -> None:
    """H1: until a restore can have landed the NIC is looked at now and then, not every second."""
    scene = restore_under_way()
    scene.nics = {"web-1": {"observed_at": at(300)}}
    assert scene.through().actions == ()
    scene.now = 311
    assert scene.through().actions == (ReadNic(nic_id("web-1")),)


def test_removal_sent_late_is_waited_for(scene: PlannerScenario) -> None:
    """S5: a removal that was throttled and sent late may land late; the entry waits for it."""
    scene.events = [event()]
    scene.adopt()
    scene.now, scene.events = 80, []
    late = {"sent_at": MappingProxyType({fold(nic_id("web-1")): at(78)})}
    planned = scene.through(**late)
    assert (scene.entry().restored_at, planned.wake_at) == (None, at(138))
    scene.through(**late, ended_at={fold(nic_id("web-1")): at(70)})
    assert scene.entry().restored_at is None, "that view ended an earlier write"
    scene.now, scene.inside["web-1"] = 100, []
    assert writes(scene.through(**late)) == [restoral()]


def test_removal_of_a_predecessor_is_waited_for(scene: PlannerScenario) -> None:
    """S5: a predecessor may have sent the removal until this leader took the lease."""
    scene.events = [event()]
    scene.adopt()
    scene.ledger = replace(scene.ledger, leader_since=at(50))
    scene.now, scene.events = 109, []
    assert scene.through().wake_at == at(110)
    assert scene.entry().restored_at is None
    scene.now = 110
    scene.through()
    assert scene.entry().restored_at == at(110)


@pytest.mark.parametrize("due", [False, True])
def test_removal_that_undoes_a_restore_is_ours(scene: PlannerScenario, due: bool) -> None:
    """S5: what our own late removal takes away after "restored" is not taken for an operator's."""
    scene.events = [event()]
    scene.adopt()
    scene.now, scene.events = 20, []
    sent = {"sent_at": MappingProxyType({fold(nic_id("web-1")): at(10)})}
    scene.through(**sent, ended_at={fold(nic_id("web-1")): at(20)})
    assert scene.entry().restored_at == at(20)
    scene.now, scene.inside["web-1"] = 30, []
    scene.events = [event(event_id="E-2")] if due else []
    scene.adopt(**sent)
    assert scene.entry().restored_at is None
    scene.events = []
    assert writes(scene.through(**sent)) == [restoral()]


def test_removal_by_an_operator_while_settling() -> None:
    """S3: once our removal was seen out and undone, who is out again was taken out by others."""
    scene = out_and_over()
    assert writes(scene.through()) == [restoral()]
    scene.now, scene.inside["web-1"] = 305, [APP]
    scene.through()
    scene.now, scene.inside["web-1"] = 320, []
    scene.through()
    assert scene.ledger.entries == ()
    assert scene.ledger.transitions[-1].detail == "taken out by an operator"


def test_first_instants_of_the_calendar(scene: PlannerScenario) -> None:
    """S7: a NotBefore so early that no lead time precedes it means at once."""
    early = datetime.min.replace(tzinfo=UTC)
    scene.events = [replace(event(), not_before=early)]
    assert scene.policy.drain_at(scene.events[0], at(0)) is None
    assert scene.plan().ledger is not None


def test_failed_first_inventory_waits() -> None:
    """H1: an agent whose first inventory failed does not try again before its time."""
    blank, policy = Observation(document=None), make_policy(pools={APP: Floor(number=1)})
    waiting = replace(blank, **deferred(ReadInventory().key, until=7, message="403"))
    planned = plan(waiting, Ledger(), policy, T0)
    assert (planned.actions, planned.wake_at) == ((), at(7))
    assert plan(waiting, Ledger(), policy, at(7)).actions == (ReadInventory(),)


# --- fairness ---


def two_address_pools() -> PlannerScenario:
    """Web-1 is out of APP and its event over; web-2 has to leave API; one load balancer."""
    scene = PlannerScenario(
        inside={"web-1": [], "web-2": []},
        ips={"web-1": "10.0.0.1", "web-2": "10.0.0.2"},
        policy=make_policy(pools={APP: Floor(number=0), API: Floor(number=0)}),
    )
    scene.addresses = {
        APP: [address("a", "10.0.0.1")],
        API: [address("b", "10.0.0.2", pool_id=API)],
    }
    scene.events = [event()]
    scene.take_out_addresses(APP)
    scene.now, scene.events = 300, [event("web-2", event_id="E-2")]
    scene.through()
    return scene


def pool_write(scene: PlannerScenario, **over: Any) -> ActionKey:
    found = writes(scene.through(**over))
    assert len(found) == 1, "one load balancer takes one write at a time"
    return found[0].key


def test_failing_pool_does_not_block_its_load_balancer() -> None:
    """L2: back-off is per pool and direction; the other pool of the load balancer goes on."""
    scene = two_address_pools()
    remove, restore = pool_key(API, restore=False), pool_key(APP, restore=True)
    assert pool_write(scene) == remove, "S7: removals first"
    assert pool_write(scene, **deferred(remove, until=400)) == restore
    assert pool_write(scene, attempts=MappingProxyType({remove: 1})) == restore
    assert pool_write(scene, attempts=MappingProxyType({remove: 1, restore: 1})) == remove
    busy = frozenset({writes(scene.plan())[0].target})
    assert writes(scene.plan(in_flight=busy)) == []


def test_a_removal_that_waits_for_a_read_keeps_its_load_balancer() -> None:
    """S7: a restore would occupy it, and the view would be old again when that ends."""
    scene = two_address_pools()
    scene.pools = {API: {"observed_at": at(280)}}
    planned = scene.plan()
    assert writes(planned) == []
    (read,) = planned.actions
    assert isinstance(read, ReadLoadBalancer)
    assert writes(scene.plan(in_flight=frozenset({read.target}))) == []
    failed = deferred(read.key, until=400)
    assert pool_write(scene, **failed) == pool_key(APP, restore=True), "L2: nothing to wait for"


@pytest.mark.parametrize(("slots", "restored"), [(1, []), (2, ["web-1"])])
def test_a_removal_that_waits_for_a_read_keeps_a_slot(
    scene: PlannerScenario, slots: int, restored: list[str]
) -> None:
    """S7: a restore would take the only one; another one is left for it (L2)."""
    scene.events = [event()]
    scene.take_out()
    scene.now, scene.events = 300, [event("web-2", event_id="E-2")]
    scene.through()
    scene.now, scene.slots = 320, slots
    scene.pools = {APP: {"observed_at": at(300)}}
    assert writes(scene.through()) == [restoral(name) for name in restored]


def test_hold_of_a_pool_lasts_while_it_is_tried_again() -> None:
    """A failed pool write is held under the pool's name until it succeeds."""
    scene = two_address_pools()
    remove = pool_key(API, restore=False)
    assert reasons(scene.adopt(**deferred(remove, until=400, message="no"))) == {
        "api": "write_failed"
    }
    scene.now = 310
    scene.adopt(attempts=MappingProxyType({remove: 1}))
    busy = frozenset({writes(scene.plan())[0].target})
    assert scene.adopt(in_flight=busy).holds[0].since == at(300)


def test_hanging_removal_does_not_keep_the_only_slot(scene: PlannerScenario) -> None:
    """L2, S7: of equally urgent removals the one that failed least comes first."""
    scene.events = [event("web-1", "web-2")]
    scene.adopt()
    scene.slots = 1
    assert writes(scene.plan()) == [removal("web-1")]
    failed = MappingProxyType({removal("web-1").key: 1})
    assert writes(scene.plan(attempts=failed)) == [removal("web-2")]
    worse = Deferral(until=at(0), reason="Timeout", attempts=2)
    over = {"deferred": MappingProxyType({removal("web-2").key: worse})}
    assert writes(scene.plan(attempts=failed, **over)) == [removal("web-1")]


def test_hanging_restore_does_not_keep_the_only_slot(scene: PlannerScenario) -> None:
    """L2: of the restores the one that failed least comes first."""
    scene.events = [event("web-1", "web-2")]
    scene.adopt()
    scene.now, scene.inside["web-1"], scene.inside["web-2"] = 5, [], []
    scene.adopt()
    scene.now, scene.events, scene.slots = 300, [], 1
    assert writes(scene.through()) == [restoral("web-1")]
    failed = MappingProxyType({restoral("web-1").key: 1})
    assert writes(scene.through(attempts=failed)) == [restoral("web-2")]


# --- holds that last ---


def test_hold_of_a_stopped_vm_does_not_come_and_go() -> None:
    """H1: while a stopped VM is looked at again, and that ever less often, its hold stays."""
    scene = out_and_over()
    scene.vms = {"web-1": {"power": PowerState.NOT_RUNNING}}
    assert reasons(scene.through()) == {"web-1": "vm_not_running"}
    reading = ReadPower(vm_id("web-1"))
    looks = [(310, 300, True), (400, 376, False), (400, 375, True), (9000, 8701, False)]
    for now, seen, again in (*looks, (9000, 8700, True)):
        scene.now, scene.vms["web-1"]["power_observed_at"] = now, at(seen)
        planned = scene.plan()
        assert planned.ledger is None
        assert planned.actions == ((reading,) if again else ())
        flying = scene.plan(in_flight=frozenset({reading.target}))
        assert (flying.ledger, reasons(flying)) == (None, {"web-1": "vm_not_running"})
    scene.vms = {"web-1": {"power_observed_at": at(8980)}}
    assert (scene.plan().ledger, scene.plan().actions) == (None, (reading,))
    scene.vms = {}
    assert writes(scene.through()) == [restoral()]
    assert scene.ledger.holds == ()


def test_vm_is_not_held_on_an_old_view() -> None:
    """H1: what was known of a VM before its maintenance ended is no reason to warn."""
    scene = out_and_over()
    scene.vms = {"web-1": {"power": PowerState.NOT_RUNNING, "power_observed_at": at(280)}}
    planned = scene.plan()
    assert (reasons(planned), planned.actions) == ({}, (ReadPower(vm_id("web-1")),))


def test_hold_of_a_stranger_does_not_come_and_go(scene: PlannerScenario) -> None:
    """H1: while the set is looked at again for a name nobody knows, the hold stays."""
    scene.events = [event("db-1", not_before=4000)]
    scene.now = 3100
    assert reasons(scene.plan(inventory_at=at(3040))) == {}
    assert reasons(scene.adopt()) == {"E-1": "unmanaged_resource"}
    for now, seen, again in ((3160, 3100, True), (3500, 3401, False), (3500, 3400, True)):
        scene.now = now
        planned = scene.plan(inventory_at=at(seen))
        assert planned.ledger is None
        assert planned.actions == ((ReadInventory(),) if again else ())


@pytest.mark.parametrize("place", [Place.UNKNOWN, Place.JUDGED, Place.UNMANAGED])
def test_what_a_verdict_waits_for_is_read(scene: PlannerScenario, place: str) -> None:
    """L1: the event is over, and nothing else asks for a VM whose NIC was never seen."""
    watched = WatchedVm(vm="WEB-1", place=place)
    over = WatchedEvent(
        event_id="E-1", event_type="Reboot", first_seen_at=at(0), gone_at=at(5), vms=(watched,)
    )
    scene.events, scene.ledger = [], replace(scene.ledger, events=(over,))
    found = scene.plan(nics=scene.observe().nics[1:]).actions
    assert (ReadNic(nic_id("web-1")) in found) is (place == Place.UNKNOWN)
    scene.now = 100
    seen = scene.plan(inventory_at=at(100 - UNREAD_VM_S)).actions
    assert (ReadInventory() in seen) is (place == Place.UNKNOWN)
