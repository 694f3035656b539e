"""Taking VMs out: who goes first, what is looked at, what is recorded, and what proves it."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from controller.core.azure_names import fold
from controller.core.ledger import Entry
from controller.core.planning.actions import Phase, ReadLoadBalancer, ReadNic
from controller.core.planning.floors import Floors
from controller.core.planning.mechanism import UNTOUCHED_S
from controller.core.planning.steps import Start, WakeAt
from controller.core.planning.views import FRESH_S
from controller.core.policy import Floor
from controller.core.resources import IpConfiguration, Nic
from tests.support.planner_scenario import (
    API,
    APP,
    BODY,
    FAR,
    LB,
    LB2,
    PlannerScenario,
    acknowledged,
    address,
    at,
    deferred,
    event,
    floor,
    membership,
    nic_id,
    phase,
    pool_key,
    reasons,
    removal,
    vm_id,
    writes,
)
from tests.support.policies import make_policy

SECOND = nic_id("web-1-b")


def two_pools(scene: PlannerScenario, other: str = API) -> None:
    scene.policy = make_policy(pools={APP: Floor(number=1), other: Floor(number=1)})


def second_nic(seen: float, *pools: str, body: object = BODY) -> Nic:
    return Nic(
        nic_id=SECOND,
        vm_id=vm_id("web-1"),
        etag="1",
        observed_at=at(seen),
        body=body,
        ip_configurations=(IpConfiguration(name="ipconfig1", pool_ids=pools),),
    )


def with_second_nic(scene: PlannerScenario, nic: Nic | None) -> dict[str, Any]:
    """Give web-1 a second NIC that was seen like this; None if it never was."""
    scene.vms = {"web-1": {"nic_ids": (nic_id("web-1"), SECOND)}}
    return {"nics": (*scene.observe().nics, *((nic,) if nic else ()))}


def recorded(scene: PlannerScenario) -> list[str]:
    return [entry.vm for entry in scene.ledger.entries]


# --- who goes first ---


def test_whose_removals_fail_comes_last(scene: PlannerScenario) -> None:
    """L2: a pool that refuses removals keeps the only slot from nobody."""
    two_pools(scene, FAR)
    scene.inside = {"web-1": [], "web-2": []}
    scene.ips = {"web-1": "10.0.0.1", "web-2": "10.0.0.2"}
    scene.policy = make_policy(pools={APP: Floor(number=0), FAR: Floor(number=0)})
    scene.addresses = {
        APP: [address("a", "10.0.0.1")],
        FAR: [address("b", "10.0.0.2", pool_id=FAR)],
    }
    scene.events, scene.slots = [event("web-1", "web-2")], 1
    failing = {pool_key(APP, restore=False): 1}
    scene.adopt(attempts=MappingProxyType(failing))
    assert recorded(scene) == ["web-2"]


def test_equals_go_by_name_in_any_spelling(scene: PlannerScenario) -> None:
    """The same world gives the same plan: equally urgent VMs are taken by name, without case."""
    scene.vms = {"web-2": {"name": "WEB-2"}}
    scene.events, scene.slots = [event("web-2", "web-1")], 1
    scene.adopt()
    assert recorded(scene) == ["web-1"]


def test_names_in_capitals_do_not_get_round_the_floor(scene: PlannerScenario) -> None:
    """S2: a VM is one machine in any spelling, leaving, staying and counted."""
    scene.vms = {name: {"name": name.upper()} for name in scene.inside}
    floor(scene, 3)
    assert reasons(scene.plan()) == {"WEB-1": "floor"}
    floor(scene, 2)
    scene.events = [event("web-1", "web-2")]
    planned = scene.adopt()
    assert recorded(scene) == ["WEB-1"]
    assert reasons(planned) == {"WEB-2": "floor"}


def test_a_percentage_counts_every_machine_once(scene: PlannerScenario) -> None:
    """S2: who is recorded and still inside is one member of the full pool, not two."""
    scene.vms = {name: {"name": name.upper()} for name in scene.inside}
    floor(scene, 66, percent=True)
    scene.adopt()
    assert writes(scene.plan()) == [removal()]


@pytest.mark.parametrize(
    "over", [{"gone": True}, {"memberships": (membership("web-4", API),)}], ids=["gone", "other"]
)
def test_a_percentage_is_of_this_pool_as_it_is_when_nothing_is_out(
    scene: PlannerScenario, over: dict[str, Any]
) -> None:
    """S2: a VM that was deleted, or that is out of another pool, is no member of the full pool."""
    fields: dict[str, Any] = {"memberships": (membership("web-4"),), **over}
    scene.ledger = scene.ledger.with_entry(
        Entry(
            vm="web-4", vm_id=vm_id("web-4"), events=(), recorded_at=at(-9), out_at=at(-8), **fields
        )
    )
    floor(scene, 66, percent=True)
    scene.adopt()
    assert recorded(scene) == ["web-1", "web-4"]


def test_a_vm_that_is_out_of_two_pools_belongs_to_each(scene: PlannerScenario) -> None:
    """S2: a percentage of either pool counts it."""
    places = (membership("web-4"), membership("web-4", API, 1))
    scene.ledger = scene.ledger.with_entry(
        Entry(
            vm="web-4",
            vm_id=vm_id("web-4"),
            events=(),
            memberships=places,
            recorded_at=at(-9),
            out_at=at(-8),
        )
    )
    floor(scene, 66, percent=True)
    assert reasons(scene.plan())["web-1"] == "floor"


def test_the_message_of_the_floor(scene: PlannerScenario) -> None:
    """S2: which VM stays in which pool, how many would remain, and how many have to."""
    floor(scene, 3)
    assert scene.plan().holds[0].message == (
        "web-1 stays in pool app: 2 healthy members would remain, and min_in_service requires 3; "
        "its drain starts as soon as enough members are healthy"
    )


def test_a_vm_that_may_leave_has_no_shortage(scene: PlannerScenario) -> None:
    """S2: the answer is empty until the VMs that left before have used up what can be spared."""
    floor(scene, 2)
    evidence = scene.evidence()
    first, second, _ = (evidence.case(vm) for vm in evidence.observed.vms)
    floors = Floors(evidence)
    assert floors.shortage(first, first.inside) == floors.shortage(second, second.inside) == ""
    assert floors.leave(first, first.inside)
    assert floors.shortage(second, ()) == ""
    assert "1 healthy member would remain" in floors.shortage(second, second.inside)


def test_members_are_read_once_in_a_pass(scene: PlannerScenario) -> None:
    """S2: however many VMs the floor holds in one pass, the reads are planned for the first one."""
    floors = Floors(scene.evidence(pools=()))
    read = Start(ReadLoadBalancer(LB))
    assert read in list(floors.read_members())
    assert list(floors.read_members()) == []


def test_what_shows_more_members_is_checked_again(scene: PlannerScenario) -> None:
    """S2: with nothing left to read, the floor is checked again as soon as a view gets old."""
    assert list(Floors(scene.evidence()).read_members()) == [WakeAt(at(FRESH_S))]


# --- looking ---


def test_a_due_vm_is_due_while_its_views_are_read(scene: PlannerScenario) -> None:
    """Status tells that the time has come, before anything can be recorded."""
    scene.nics = {"web-1": {"body": None}}
    assert phase(scene.plan()) is Phase.DRAIN_DUE
    scene.nics = {}
    assert phase(scene.plan()) is Phase.DRAIN_DUE


def test_one_old_pool_is_enough_to_wait(scene: PlannerScenario) -> None:
    """S2: nothing is recorded while any pool that the VM stands in was not seen lately."""
    two_pools(scene, FAR)
    scene.inside = {name: [APP, FAR] for name in scene.inside}
    scene.pools = {FAR: {"observed_at": at(-31)}}
    planned = scene.plan()
    assert (planned.ledger, planned.actions) == (None, (ReadLoadBalancer(LB2),))


def test_a_pool_that_was_never_seen_is_read_first(scene: PlannerScenario) -> None:
    """S2: a NIC that says it is in a pool is no view of that pool."""
    planned = scene.plan(pools=())
    assert (planned.ledger, planned.actions) == (None, (ReadLoadBalancer(LB),))


def test_what_can_be_read_is_read_meanwhile(scene: PlannerScenario) -> None:
    """L2: where the pool of a VM cannot be read, the others are looked at all the same."""
    two_pools(scene, FAR)
    scene.inside["web-1"] = [FAR]
    scene.pools = {name: {"observed_at": at(-31)} for name in (APP, FAR)}
    planned = scene.plan(**deferred(ReadLoadBalancer(LB2).target, until=9))
    assert phase(planned) is Phase.DRAIN_DUE
    assert planned.actions == (ReadLoadBalancer(LB),)


def test_a_vm_that_cannot_be_drained_yet_reports_why(scene: PlannerScenario) -> None:
    """L2: a VM none of whose pools can be read reports that it waits for a read."""
    scene.pools = {APP: {"observed_at": at(-31)}}
    planned = scene.plan(**deferred(ReadLoadBalancer(LB).target, until=9))
    due = planned.phases[0]
    assert (due.vm, due.phase) == ("web-1", Phase.DRAIN_DUE)
    assert due.why == "its pools or NICs cannot be read"


def test_a_due_vm_that_azure_does_not_describe_reports_why(scene: PlannerScenario) -> None:
    """S1: a VM whose NICs are not known is held, with the reason that its hold has."""
    scene.inside["web-1"], scene.nics["web-1"] = [], {"vm_id": ""}
    scene.vms["web-1"] = {"nic_ids": (), "problem": "it came without networkProfile"}
    planned = scene.plan()
    held = planned.phases[0]
    assert (held.vm, held.phase) == ("web-1", Phase.HELD)
    assert held.why == planned.holds[0].message
    assert held.why == (
        "Azure does not describe web-1 in full, so no event for it is acknowledged: "
        "it came without networkProfile"
    )


def test_a_recorded_vm_needs_no_new_view_of_its_nic(scene: PlannerScenario) -> None:
    """S7: the write reads the NIC itself; an old view costs no time."""
    scene.adopt()
    scene.nics = {"web-1": {"observed_at": at(-60), "body": None}}
    scene.pools = {APP: {"observed_at": at(-1)}}
    assert scene.plan().actions == (removal(),)


def test_a_nic_that_was_deleted_is_not_waited_for(scene: PlannerScenario) -> None:
    """L2: what does not exist cannot be in a pool."""
    over = with_second_nic(scene, None)
    assert scene.plan(**over).actions == (ReadNic(SECOND),)
    scene.adopt(**over, missing=frozenset({fold(SECOND)}))
    assert recorded(scene) == ["web-1"]


def test_a_pool_that_was_deleted_is_not_waited_for(scene: PlannerScenario) -> None:
    """L2: a NIC may name a pool longer than it exists."""
    two_pools(scene, FAR)
    scene.inside = {name: [APP, FAR] for name in scene.inside}
    over = {"pools": scene.observe().pools[:1], "missing": frozenset({fold(FAR)})}
    scene.adopt(**over)
    assert recorded(scene) == ["web-1"]


def test_a_nic_that_cannot_be_read_does_not_make_an_old_pool_fresh(scene: PlannerScenario) -> None:
    """S2: what is waited for once is the NIC; the pool's view has to be new all the same."""
    two_pools(scene, FAR)
    scene.inside = {name: [APP, FAR] for name in scene.inside}
    over = with_second_nic(scene, None)
    scene.pools = {FAR: {"observed_at": at(-31)}}
    planned = scene.plan(**over, **deferred(ReadNic(SECOND).target, until=9))
    assert (planned.ledger, planned.actions) == (None, (ReadLoadBalancer(LB2),))


def test_who_was_never_seen_is_not_known_to_be_out(scene: PlannerScenario) -> None:
    """S1: an inventory can have holes; a NIC or pool that nobody has looked at is read first."""
    two_pools(scene, FAR)
    scene.inside["web-1"] = []
    rest, pools = scene.observe().nics[1:], scene.observe().pools
    for over, read in (
        ({"nics": rest}, ReadNic(nic_id("web-1"))),
        ({"pools": pools[:1]}, ReadLoadBalancer(LB2)),
        ({"pools": pools[1:]}, ReadLoadBalancer(LB)),
    ):
        planned = scene.plan(**over)
        assert planned.actions == (read,)
        assert phase(planned) is Phase.DRAIN_DUE
        assert planned.phases[0].why == "its pools or NICs were not read yet"
    gone = frozenset({fold(nic_id("web-1")), fold(FAR)})
    planned = scene.plan(nics=rest, pools=pools[:1], missing=gone)
    assert (planned.actions, phase(planned)) == ((), Phase.UNMANAGED)


def test_who_is_recorded_is_draining_until_it_was_seen(scene: PlannerScenario) -> None:
    """S1: for a VM with an entry it is the proof of being out that waits for the view."""
    scene.adopt()
    scene.now, scene.inside["web-1"] = 5, []
    planned = scene.adopt(nics=scene.observe().nics[1:])
    assert (planned.actions, phase(planned)) == ((ReadNic(nic_id("web-1")),), Phase.DRAINING)
    assert scene.entry().out_at is None


# --- recording ---


def test_every_place_is_recorded_once_before_it_is_left(scene: PlannerScenario) -> None:
    """S5: a membership that comes up after the record is recorded before anything is written."""
    two_pools(scene)
    scene.inside["web-2"] = [APP, API]
    scene.adopt()
    scene.now, scene.inside["web-1"] = 3, [APP, API]
    assert writes(scene.adopt()) == []
    assert scene.entry().memberships == (membership("web-1"), membership("web-1", API, 1))
    assert scene.entry().recorded_at == at(3)
    assert writes(scene.plan()) == [removal("web-1", APP, API)]


def test_a_second_event_is_noted_while_the_removal_is_sent(scene: PlannerScenario) -> None:
    """An entry names every event because of which its VM is out."""
    scene.adopt()
    scene.now = 1
    late = event(event_id="E-2", event_type="Freeze", not_before=700)
    scene.events.append(late)
    planned = scene.adopt()
    assert writes(planned) == [removal()]
    assert planned.ledger is not None
    references = [(e.event_id, e.event_type, e.not_before) for e in scene.entry().events]
    assert references == [("E-1", "Reboot", at(600)), ("E-2", "Freeze", at(700))]
    assert scene.entry().recorded_at == at(0)
    assert scene.plan().ledger is None


def test_events_are_known_by_id_in_any_spelling(scene: PlannerScenario) -> None:
    """An event whose id comes back in another case is the same event."""
    scene.take_out()
    scene.events = [event(event_id="e-1")]
    scene.adopt()
    assert [each.event_id for each in scene.entry().events] == ["E-1"]


def test_recorded_again_because_somebody_put_it_back(scene: PlannerScenario) -> None:
    """S5: the second removal has a record of its own, and the history says why."""
    scene.take_out()
    scene.now, scene.inside["web-1"] = 60, [APP]
    scene.adopt()
    line = scene.ledger.transitions[-1]
    assert (line.at, line.step, line.detail) == (at(60), "put back", "app")


def test_what_a_newer_version_wrote_outlives_the_next_event(scene: PlannerScenario) -> None:
    """An entry that is recorded anew keeps what it does not know, and when a restore was sent."""
    scene.take_out()
    scene.now, scene.events = 300, []
    scene.through()
    scene.ledger = scene.ledger.with_entry(replace(scene.entry(), extra={"news": 1}))
    scene.inside["web-1"] = [APP]
    scene.adopt()
    assert scene.entry().restored_at == at(300)
    scene.now, scene.events = 305, [event(event_id="E-2", not_before=900)]
    scene.adopt()
    again = scene.entry()
    assert (again.restored_at, again.recorded_at, again.restoring_at) == (None, at(305), at(300))
    assert again.extra == {"news": 1}
    assert [each.event_id for each in again.events] == ["E-2"]


def test_a_second_record_has_no_second_slot(scene: PlannerScenario) -> None:
    """No more VMs are recorded than writes may start: the rest waits for its turn."""
    scene.slots = 0
    assert scene.plan().ledger is None


# --- proving ---


def test_margins() -> None:
    """How old a view may be, at the record, of what the VM was not in."""
    assert UNTOUCHED_S == 60


@pytest.mark.parametrize(("seen", "proven"), [(-60, True), (-60.001, False)])
def test_a_nic_that_was_in_no_pool_need_not_be_read_again(
    scene: PlannerScenario, seen: float, proven: bool
) -> None:
    """H1: what nothing was removed from may have been seen up to a minute before the record."""
    over = with_second_nic(scene, None)
    scene.adopt(**over, missing=frozenset({fold(SECOND)}))
    scene.now, scene.inside["web-1"] = 5, []
    planned = scene.adopt(**with_second_nic(scene, second_nic(seen)))
    assert (scene.entry().out_at is not None) is proven
    assert planned.actions == (() if proven else (ReadNic(SECOND),))


@pytest.mark.parametrize(("seen", "proven"), [(-60, True), (-60.001, False)])
def test_a_pool_that_it_was_not_in_need_not_be_read_again(
    scene: PlannerScenario, seen: float, proven: bool
) -> None:
    """H1: the same for a pool."""
    two_pools(scene, FAR)
    scene.adopt()
    scene.now, scene.inside["web-1"] = 5, []
    scene.pools = {FAR: {"observed_at": at(seen)}}
    planned = scene.adopt()
    assert (scene.entry().out_at is not None) is proven
    assert planned.actions == (() if proven else (ReadLoadBalancer(LB2),))


def addressed(scene: PlannerScenario) -> None:
    """Put web-1 into APP by its address, and record it."""
    scene.inside = {"web-1": [], "web-2": []}
    scene.ips = {"web-1": "10.0.0.1", "web-2": "10.0.0.2"}
    scene.addresses = {APP: [address("a", "10.0.0.1"), address("b", "10.0.0.2")]}
    scene.adopt()
    scene.addresses = {APP: scene.addresses[APP][1:]}


@pytest.mark.parametrize(("seen", "reads"), [(-10, True), (-0.5, False)])
def test_views_from_before_the_record_are_renewed(
    scene: PlannerScenario, seen: float, reads: bool
) -> None:
    """S1: in the very instant of the record nothing is proven yet; a look a second is enough."""
    addressed(scene)
    scene.pools = {APP: {"observed_at": at(seen)}}
    scene.nics = {"web-1": {"observed_at": at(-70)}}
    planned = scene.plan()
    both = (
        (ReadNic(nic_id("web-1")), ReadLoadBalancer(LB)) if reads else (ReadNic(nic_id("web-1")),)
    )
    assert (planned.actions, planned.wake_at) == (both, at(1))
    assert phase(planned) is Phase.DRAINING


def test_a_nic_seen_before_its_record_is_renewed_at_once(scene: PlannerScenario) -> None:
    """S1: the same for a NIC."""
    scene.adopt()
    scene.inside["web-1"] = []
    scene.nics = {"web-1": {"observed_at": at(-5)}}
    scene.pools = {APP: {"observed_at": at(-4)}}
    assert scene.plan().actions == (ReadNic(nic_id("web-1")),)


def restoring(scene: PlannerScenario, sent: float) -> dict[str, Any]:
    """Let an address be out at 305 while a restore that left at `sent` may still land."""
    addressed(scene)
    scene.now = 5
    scene.adopt()
    scene.now, scene.events = 300, []
    scene.through()
    assert scene.entry().restoring_at == at(300)
    scene.now, scene.events = 305, [event(event_id="E-2", not_before=1100)]
    return {"sent_at": MappingProxyType({fold(APP): at(sent)})}


def test_a_restore_that_may_land_is_waited_for_without_reading(scene: PlannerScenario) -> None:
    """S1, H1: until then the pool is looked at now and then, and the plan wakes at the instant."""
    sent = restoring(scene, 250)
    scene.pools = {APP: {"observed_at": at(296)}}
    planned = scene.through(**sent)
    assert (planned.actions, planned.wake_at) == ((), at(315))
    scene.pools = {APP: {"observed_at": at(295)}}
    assert scene.through(**sent).actions == (ReadLoadBalancer(LB),)
    scene.pools, scene.now = {APP: {"observed_at": at(352)}}, 355
    assert scene.through(**sent).wake_at == at(360)
    assert scene.entry().out_at is None
    scene.pools, scene.now = {APP: {"observed_at": at(359.5)}}, 360
    planned = scene.through(**sent)
    assert (planned.actions, planned.wake_at) == ((), at(361))
    scene.pools = {}
    scene.through(**sent)
    assert (scene.entry().out_at, scene.entry().restoring_at) == (at(360), None)


def test_a_late_removal_of_ours_is_a_drain_of_the_next_event(scene: PlannerScenario) -> None:
    """S5: what our removal took away after the restore counts for every event that is due."""
    scene.adopt()
    scene.now, scene.events = 20, []
    sent = {"sent_at": MappingProxyType({fold(nic_id("web-1")): at(10)})}
    scene.through(**sent, ended_at={fold(nic_id("web-1")): at(20)})
    scene.now, scene.inside["web-1"] = 30, []
    scene.events = [event(event_id="E-2")]
    planned = scene.adopt(**sent)
    assert phase(planned) is Phase.DRAINING
    assert [each.event_id for each in scene.entry().events] == ["E-1", "E-2"]
    assert scene.ledger.transitions[-1].step == "out again"


def test_every_acknowledged_event_of_a_vm_is_noted(scene: PlannerScenario) -> None:
    """The entry keeps when each of its events was acknowledged, and keeps the first instant."""
    scene.events = [event(), event(event_id="E-2")]
    scene.take_out()
    scene.now = 60
    assert acknowledged(scene.plan()) == ["E-1", "E-2"]
    reported = {"e-1": at(60), "e-2": at(61)}
    scene.adopt(acknowledged=MappingProxyType(reported))
    assert [each.acknowledged_at for each in scene.entry().events] == [at(60), at(61)]
    scene.adopt(acknowledged=MappingProxyType({"e-1": at(70)}))
    assert [each.acknowledged_at for each in scene.entry().events] == [at(60), at(61)]


def test_an_acknowledged_event_that_has_left_is_no_phase(scene: PlannerScenario) -> None:
    """A VM whose acknowledged event is over, and that waits for another one, is out."""
    scene.take_out()
    scene.now = 60
    scene.adopt(acknowledged=MappingProxyType({"e-1": at(60)}))
    scene.events = [event(event_id="E-2", not_before=900)]
    assert phase(scene.adopt()) is Phase.OUT
    scene.events = [event(event_id="E-2", not_before=900), event(event_id="e-1")]
    assert phase(scene.plan()) is Phase.ACKNOWLEDGED


def test_what_fails_after_it_was_seen_out_is_not_written_again(scene: PlannerScenario) -> None:
    """H1: a VM that was out before its NIC failed needs no second removal."""
    scene.take_out()
    scene.now, scene.nics = 39, {"web-1": {"failed": True}}
    assert (writes(scene.plan()), acknowledged(scene.plan())) == ([], ["E-1"])


def test_what_an_operator_takes_out_meanwhile_is_dropped_at_once(scene: PlannerScenario) -> None:
    """Law S3: a successor could not tell, so it is not left until the VM is out everywhere."""
    two_pools(scene)
    scene.inside["web-2"] = [APP, API]
    scene.inside["web-1"] = [APP, API]
    scene.adopt()
    gone = membership("web-1", API, 1).key
    scene.inside["web-1"] = [APP]
    planned = scene.adopt(unsent=frozenset({gone, membership("web-1").key}))
    assert [m.pool_id for m in scene.entry().memberships] == [APP]
    assert scene.ledger.transitions[-1].detail == "removed by an operator: api"
    assert writes(planned) == []
    assert writes(scene.plan(unsent=frozenset({membership("web-1").key}))) == [removal("web-1")]
