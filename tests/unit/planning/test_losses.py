"""What is absent: kept as lost, reported, checked now and then, restored when it exists again."""

from dataclasses import replace
from typing import Any

import pytest

from controller.core.azure_names import fold
from controller.core.drain_requests import ForgetRequest
from controller.core.ledger import Entry, Hold
from controller.core.planning.actions import HoldReason, Phase, Read, ReadNic, ReadPower
from controller.core.planning.losses import CHECK_S
from controller.core.planning.write_log import WriteLog
from controller.core.policy import Floor
from controller.core.resources import Membership, PowerState
from controller.core.vm_phase import phase_by
from tests.support.planner_scenario import (
    API,
    APP,
    PlannerScenario,
    acknowledged,
    address,
    at,
    event,
    membership,
    nic_id,
    phase,
    reasons,
    removal,
    restoral,
    vm_id,
    writes,
)
from tests.support.policies import make_policy

NO_NIC: dict[str, Any] = {"missing": frozenset({fold(nic_id("web-1"))}), "nics": ()}
NO_API: dict[str, Any] = {"missing": frozenset({fold(API)})}


def lost_entry(*lost: Membership, **fields: Any) -> Entry:
    known: dict[str, Any] = {
        "vm": "web-1",
        "vm_id": vm_id("web-1"),
        "events": (),
        "memberships": (),
        "lost": lost or (membership("web-1"),),
        "recorded_at": at(0),
    }
    return Entry(**{**known, **fields})


def parked(*lost: Membership, **fields: Any) -> PlannerScenario:
    """A set in which a VM has nothing left but lost memberships."""
    scene = PlannerScenario(now=1000, **fields)
    scene.inside["web-1"] = []
    scene.ledger = scene.ledger.with_entry(lost_entry(*lost))
    return scene


def two_pools() -> PlannerScenario:
    """A VM that is out of two pools; its event is over."""
    scene = PlannerScenario(policy=make_policy(pools={APP: Floor(number=1), API: Floor(number=1)}))
    scene.inside = {name: [APP, API] for name in scene.inside}
    scene.events = [event()]
    scene.take_out()
    scene.now, scene.events = 300, []
    return scene


def forget(entry: Entry, **fields: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "vm": entry.vm,
        "recorded_at": entry.recorded_at,
        "by": "ann",
        "at": at(0),
    }
    return {"forgets": (ForgetRequest(**{**known, **fields}),)}


def step(scene: PlannerScenario) -> tuple[str, str]:
    line = scene.ledger.transitions[-1]
    return line.step, line.detail


# --- kept ---


def test_nothing_that_is_absent_is_forgotten() -> None:
    """S3: an entry of which nothing can be restored stays for ever, and says so in the ledger."""
    scene = parked()
    for seconds in (1000, 10_000, 10_000_000):
        scene.now = seconds
        planned = scene.adopt(**NO_NIC)
        assert (writes(planned), reasons(planned)) == ([], {"web-1": "lost"})
        assert scene.entry().lost == (membership("web-1"),)
    (hold,) = scene.ledger.holds
    assert hold.since == at(1000)
    assert "lb-drain forget web-1" in hold.message
    found = phase_by(scene.ledger, "web-1")
    assert found is not None
    assert found.phase is Phase.HELD


def test_what_is_lost_does_not_hold_the_rest_of_its_vm() -> None:
    """L2: the VM comes back to its other pool, serves, and counts for the floor."""
    scene = two_pools()
    scene.adopt(**NO_API)
    assert (scene.entry().memberships, scene.entry().lost) == (
        (membership("web-1"),),
        (membership("web-1", API, 1),),
    )
    assert writes(scene.through(**NO_API)) == [restoral()]
    scene.inside["web-1"] = [APP]
    scene.now = 310
    scene.through(**NO_API)
    scene.now = 330
    planned = scene.through(**NO_API)
    assert step(scene) == ("in service", "")
    assert scene.entry().parked
    assert reasons(planned) == {"web-1": "lost"}
    assert phase(planned) is Phase.IN_SERVICE
    assert not scene.evidence(**NO_API).unhealthy


def test_a_vm_with_a_loss_is_drained_again_and_keeps_the_loss() -> None:
    """S1, S3: the next event takes it out of what it is in, and is acknowledged."""
    scene = parked(membership("web-1", API, 1))
    scene.inside["web-1"] = [APP]
    scene.events = [event(not_before=1600)]
    scene.adopt(**NO_API)
    assert writes(scene.plan(**NO_API)) == [removal()]
    scene.inside["web-1"], scene.now = [], 1005
    scene.adopt(**NO_API)
    assert (scene.entry().out_at, scene.entry().lost) == (at(1005), (membership("web-1", API, 1),))
    found = phase_by(scene.ledger, "web-1")
    assert found is not None
    assert found.phase is Phase.OUT  # the loss does not hide where the VM is
    scene.now = 1040
    assert acknowledged(scene.plan(**NO_API)) == ["E-1"]


def test_a_lost_membership_that_an_operator_restored_is_recorded_once() -> None:
    """S3: what is in rotation again is not lost any more when the VM is drained the next time."""
    scene = parked()
    scene.inside["web-1"], scene.events = [APP], [event(not_before=1600)]
    scene.adopt()
    assert (scene.entry().memberships, scene.entry().lost) == ((membership("web-1"),), ())


def test_an_entry_with_nothing_at_all_ends() -> None:
    """An entry without any membership records nothing, and is no reason to hold anything."""
    scene = parked()
    scene.ledger = scene.ledger.with_entry(replace(scene.entry(), lost=()))
    scene.adopt()
    assert scene.ledger.entries == ()


# --- found ---


def test_what_exists_again_is_restored() -> None:
    """L1, S5: recorded before the write is sent, like every restore."""
    scene = parked()
    assert writes(scene.adopt()) == []
    assert step(scene) == ("place exists again", "app")
    entry = scene.entry()
    assert (entry.memberships, entry.lost) == ((membership("web-1"),), ())
    assert (entry.restoring_at, entry.removed) == (at(1000), True)
    assert writes(scene.through()) == [restoral()]
    scene.inside["web-1"], scene.now = [APP], 1005
    scene.through()
    scene.now = 1030
    scene.through()
    assert scene.ledger.entries == ()


@pytest.mark.parametrize(
    "over",
    [
        NO_NIC,
        {"absent": frozenset({fold(nic_id("web-1"))})},
        {"absent": frozenset({fold(APP)})},
        {"missing": frozenset({fold(APP)})},
        {"nics": ()},
        {"pools": ()},
        {"clean_documents": ()},
    ],
    ids=["no NIC", "NIC absent", "pool absent", "no pool", "NIC unseen", "pool unseen", "polls"],
)
def test_it_stays_lost_until_its_place_is_seen(over: dict[str, Any]) -> None:
    """S3, S6: unknown is not present, and a restore needs two clean polls as ever."""
    scene = parked()
    scene.through(**over)
    assert scene.entry().lost == (membership("web-1"),)


def test_it_stays_lost_while_its_vm_does_not_run() -> None:
    """S6: a VM that is stopped is not restored."""
    scene = parked()
    scene.vms = {"web-1": {"power": PowerState.NOT_RUNNING}}
    planned = scene.through()
    assert scene.entry().lost == (membership("web-1"),)
    assert {hold.reason for hold in planned.holds} == {"lost", "vm_not_running"}


def test_it_stays_lost_while_an_event_is_announced() -> None:
    """S6: an event for the VM comes first."""
    scene = parked(events=[event(not_before=4500)])
    scene.adopt()
    assert scene.entry().lost == (membership("web-1"),)


def test_what_was_restored_is_not_wanted_again_with_what_is_found() -> None:
    """S3: while one pool settles, an operator removes the VM from it, and the other pool exists
    again: the VM returns to that one alone."""
    scene = two_pools()
    scene.adopt(**NO_API)
    scene.through(**NO_API)
    scene.inside["web-1"], scene.now = [APP], 310
    scene.through(**NO_API)
    assert scene.entry().restored_at == at(310)
    scene.inside["web-1"], scene.now = [], 315
    wanted = {m.pool_id for change in writes(scene.through()) for m in change.memberships}
    scene.now = 330
    wanted |= {m.pool_id for change in writes(scene.through()) for m in change.memberships}
    assert wanted == {API}
    scene.inside["web-1"], scene.now = [API], 335
    scene.through()
    scene.now = 360
    scene.through()
    assert scene.ledger.entries == ()


def test_a_name_that_is_free_again_is_a_place_again() -> None:
    """S3: an address waits until the entry name that it had is not used by another one."""
    mine = address("a", "10.0.0.1")
    scene = parked(mine, ips={"web-1": "10.0.0.1"})
    scene.addresses = {APP: [address("A", "10.0.0.77")]}
    scene.through()
    assert scene.entry().lost == (mine,)
    scene.addresses = {}
    (write,) = writes(scene.through())
    assert (write.memberships, write.restore) == ((mine,), True)


def test_what_was_lost_and_found_was_not_removed_by_an_operator() -> None:
    """S3: the same leader recorded it, lost it and found it; it was its own removal."""
    scene = two_pools()
    log = WriteLog()
    before = scene.ledger
    scene.adopt(**NO_API)
    log.recorded(before, scene.ledger)
    before = scene.ledger
    scene.through()
    assert scene.entry().holds(membership("web-1", API, 1).key)
    log.recorded(before, scene.ledger)
    assert not log.unsent


# --- checked ---


def test_absent_things_are_checked_one_at_a_time() -> None:
    """H1: one read in ten minutes, however much is absent; the longest unchecked comes first."""
    scene = PlannerScenario(now=5000)
    for name in ("web-1", "web-2"):
        entry = lost_entry(membership(name), vm=name, vm_id=vm_id(name))
        scene.ledger = scene.ledger.with_entry(entry)
    gone = lost_entry(vm="web-9", vm_id=vm_id("web-9"), gone=True, memberships=(membership("z"),))
    scene.ledger = scene.ledger.with_entry(replace(gone, lost=()))
    over: dict[str, Any] = {"missing": frozenset({fold(vm_id("web-9"))}), "nics": ()}
    scene.inside = {}
    nics = [ReadNic(nic_id("web-1")), ReadNic(nic_id("web-2"))]
    reads: list[Read] = [*nics, ReadPower(vm_id("web-9"))]
    scene.adopt(**over)
    scene.now = 5000 + CHECK_S
    read_at = {read.target: at(0) for read in reads}
    for _ in range(6):
        (action,) = scene.plan(read_at=read_at, **over).actions
        assert read_at[action.target] == min(read_at.values())
        read_at[action.target] = at(scene.now)
        planned = scene.plan(read_at=read_at, **over)
        assert (planned.actions, planned.wake_at) == ((), at(scene.now + 300))
        scene.now += CHECK_S


def test_what_was_just_lost_is_not_checked_at_once() -> None:
    """H1: it was checked a moment ago."""
    scene = parked()
    scene.adopt(**NO_NIC)
    assert scene.plan(**NO_NIC).actions == ()


# --- given up ---


def test_an_operator_gives_up_what_is_lost() -> None:
    """The entry ends with a line of history that names the operator; nothing is written."""
    scene = parked()
    planned = scene.adopt(**NO_NIC, **forget(scene.entry()))
    assert (scene.ledger.entries, writes(planned)) == ((), [])
    assert step(scene) == ("forgotten", "given up by ann")
    assert reasons(scene.adopt(**NO_NIC)) == {}


def test_what_can_be_restored_is_not_given_up() -> None:
    """S3: only the lost memberships leave the entry."""
    scene = two_pools()
    scene.adopt(**NO_API)
    scene.adopt(**NO_API, **forget(scene.entry()))
    assert (scene.entry().memberships, scene.entry().lost) == ((membership("web-1"),), ())
    assert step(scene) == ("membership dropped", "api, given up by ann")


def test_a_deleted_vm_is_given_up() -> None:
    """The entry of a deleted VM ends on request, and only then."""
    scene = two_pools()
    over = {"missing": frozenset({fold(vm_id("web-1"))})}
    scene.adopt(**over)
    assert scene.entry().gone
    scene.adopt(**over, **forget(scene.entry(), vm="WEB-1"))
    assert scene.ledger.entries == ()


@pytest.mark.parametrize("other", [{"vm": "web-2"}, {"recorded_at": at(0.5)}])
def test_a_request_is_about_the_entry_that_the_operator_saw(other: dict[str, Any]) -> None:
    """S3: another VM, and a later drain of the same VM, are not affected."""
    scene = parked()
    scene.adopt(**NO_NIC, **forget(scene.entry(), **other))
    assert scene.entry().lost == (membership("web-1"),)


def test_nothing_is_given_up_that_is_not_absent() -> None:
    """S3: a request for a VM that is out, and can be restored, drops nothing."""
    scene = two_pools()
    before = scene.entry().memberships
    scene.adopt(**forget(scene.entry()))
    assert scene.entry().memberships == before


@pytest.mark.parametrize(
    "forged",
    [
        {"gone": True},
        {"lost": (membership("web-1"),), "memberships": (membership("web-1", API, 1),)},
        {"lost": (membership("web-1"), membership("web-1", API, 1)), "memberships": ()},
    ],
    ids=["gone", "one lost", "all lost"],
)
def test_a_forged_loss_is_not_given_up(forged: dict[str, Any]) -> None:
    """K6, S3: whatever entry and request say, what this leader finds in its place is restored."""
    scene = two_pools()
    removed = (membership("web-1"), membership("web-1", API, 1))
    assert scene.entry().memberships == removed
    scene.ledger = scene.ledger.with_entry(replace(scene.entry(), **forged))
    scene.adopt(**forget(scene.entry()))
    entry = scene.entry()
    assert {m.key for m in (*entry.memberships, *entry.lost)} == {m.key for m in removed}


def test_a_forged_hold_does_not_make_a_vm_foreign() -> None:
    """K6, S3: an entry whose VM is in the set is restored, whatever the ledger holds."""
    scene = two_pools()
    hold = Hold(subject="web-1", reason=HoldReason.NOT_IN_SET.value, message="m", since=at(1))
    scene.ledger = replace(scene.ledger, holds=(hold,))
    scene.adopt(**forget(scene.entry()))
    assert len(scene.entry().memberships) == 2
