"""A plan in the making: what it says of VMs, what it holds, and since when."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from controller.core.action_keys import action_key
from controller.core.azure_names import fold
from controller.core.drain_history import Step
from controller.core.ledger import Entry, Hold
from controller.core.observation import Deferral
from controller.core.planning.actions import (
    Acknowledge,
    HoldReason,
    Phase,
    ReadInventory,
    ReadPower,
)
from controller.core.planning.removal import drop
from controller.core.planning.steps import Forget
from controller.core.policy import Floor
from controller.core.resources import PowerState
from tests.support.planner_scenario import (
    API,
    APP,
    FAR,
    LB,
    PlannerScenario,
    acknowledged,
    address,
    at,
    deferred,
    event,
    floor,
    membership,
    nic_id,
    nic_key,
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


def entry(name: str = "web-1", **fields: Any) -> Entry:
    known: dict[str, Any] = {
        "vm": name,
        "vm_id": vm_id(name),
        "events": (),
        "memberships": (membership(name),),
        "recorded_at": at(0),
    }
    return Entry(**{**known, **fields})


# --- saying ---


def test_phases_come_by_vm_in_any_spelling(scene: PlannerScenario) -> None:
    """Status lists VMs by name, whatever was found out about them first."""
    scene.vms = {"web-2": {"name": "WEB-2"}}
    scene.events = [event("web-3")]
    assert [each.vm for each in scene.plan().phases] == ["web-1", "WEB-2", "web-3"]


def test_a_phase_says_why(scene: PlannerScenario) -> None:
    """Who looks at a VM that is held reads the reason there too."""
    floor(scene, 3)
    planned = scene.plan()
    held = next(each for each in planned.phases if each.vm == "web-1")
    assert (held.phase, held.why) == (Phase.HELD, planned.holds[0].message)
    others = {each.why for each in planned.phases if each.vm != "web-1"}
    assert others == {""}


def history(scene: PlannerScenario) -> list[tuple[str, str]]:
    return [(line.step, line.detail) for line in scene.ledger.transitions]


def test_the_history_of_a_maintenance(scene: PlannerScenario) -> None:
    """`lb-drain status` tells what happened, in these words."""
    scene.policy = make_policy(pools={APP: Floor(number=1), API: Floor(number=1)})
    scene.inside = {name: [APP, API] for name in scene.inside}
    scene.take_out()
    scene.now = 60
    scene.adopt(acknowledged=MappingProxyType({"e-1": at(60)}))
    scene.now, scene.events = 300, []
    scene.through()
    scene.inside["web-1"] = [APP, API]
    scene.adopt()
    scene.now = 400
    scene.adopt()
    assert history(scene) == [
        ("recorded", "api, app"),
        ("out", ""),
        ("acknowledged", "E-1"),
        ("restoring", ""),
        ("restored", ""),
        ("in service", ""),
    ]
    assert [(line.at, line.vm) for line in scene.ledger.transitions[-2:]] == [
        (at(300), "web-1"),
        (at(400), "web-1"),
    ]


def test_a_membership_that_is_lost_is_named(scene: PlannerScenario) -> None:
    """The history names the pools that were lost, in order, and no others."""
    scene.policy = make_policy(
        pools={APP: Floor(number=1), API: Floor(number=1), FAR: Floor(number=1)}
    )
    scene.inside = {name: [APP, API, FAR] for name in scene.inside}
    scene.take_out()
    scene.now, scene.events = 300, []
    scene.adopt(missing=frozenset({fold(FAR), fold(API)}))
    assert history(scene)[-1] == ("membership lost", "api, far")
    planned = scene.adopt(missing=frozenset({fold(APP)}))
    assert history(scene)[-1] == ("membership lost", "app")
    assert phase(planned) is Phase.RESTORE_DUE


def test_dropped_pools_are_named_in_order(scene: PlannerScenario) -> None:
    """The history reads the same on every run."""
    places = tuple(membership("web-1", f"{LB}/backendAddressPools/{name}") for name in "cadbe")
    evidence = scene.evidence()
    case = evidence.case(evidence.views.tracked_vms[0])
    lost = frozenset(place.key for place in places)
    steps = list(drop(case, entry(memberships=places), lost, "deleted"))
    assert steps[0] == Forget(vm="web-1", step=Step.FORGOTTEN, detail="deleted: a, b, c, d, e")


def test_of_two_failures_of_one_pool_the_restore_is_told(scene: PlannerScenario) -> None:
    """A hold has one message, and it does not depend on which write failed first."""
    scene.events = []
    scene.ledger = replace(scene.ledger, entries=(entry(memberships=(address("a", "10.0.0.1"),)),))
    failed = {
        pool_key(APP, restore=restore): Deferral(
            until=at(9), reason="Denied", message=f"restore {restore}"
        )
        for restore in (True, False)
    }
    planned = scene.plan(deferred=MappingProxyType(failed))
    assert [(hold.subject, hold.message) for hold in planned.holds] == [("app", "restore True")]


@pytest.mark.parametrize("restore", [False, True])
def test_a_failed_write_holds_while_an_entry_wants_it(
    scene: PlannerScenario, restore: bool
) -> None:
    """H1: a hold ends with its back-off, or with the last entry that its write could be for."""
    scene.events, scene.now = [], 8.9
    scene.ledger = replace(scene.ledger, entries=(entry(memberships=(address("a", "10.0.0.1"),)),))
    failed = MappingProxyType(
        {
            pool_key(APP, restore=restore): Deferral(
                until=at(9), reason="Denied", message="forbidden"
            )
        }
    )
    planned = scene.plan(deferred=failed)
    assert [(hold.subject, hold.message) for hold in planned.holds] == [("app", "forbidden")]
    assert planned.wake_at == at(9)
    scene.now = 9
    assert scene.plan(deferred=failed).holds == ()
    scene.now, scene.ledger = 8, replace(scene.ledger, entries=())
    planned = scene.plan(deferred=failed)
    assert (planned.holds, planned.wake_at) == ((), at(308))


def test_a_failed_write_to_a_nic_holds_while_an_entry_wants_it(scene: PlannerScenario) -> None:
    """H1: as for a pool, and nobody wakes for what nobody wants."""
    scene.events, scene.now = [], 8
    scene.ledger = replace(scene.ledger, entries=(entry(),))
    refused = Deferral(until=at(9), reason="Denied", message="forbidden")
    failed = MappingProxyType({nic_key("web-1"): refused})
    assert [hold.message for hold in scene.plan(deferred=failed).holds] == ["forbidden"]
    scene.ledger = replace(scene.ledger, entries=())
    planned = scene.plan(deferred=failed)
    assert (planned.holds, planned.wake_at) == ((), at(308))


def test_what_the_inventory_could_not_read_is_held_until_it_reads_it_again(
    scene: PlannerScenario,
) -> None:
    """H1: the inventory has its own schedule, so the hold outlasts the back-off of the read."""
    scene.events, scene.now = [], 8
    key, why = action_key("read", f"{nic_id('web-1')}?get"), "read web-1-nic: forbidden"
    waiting = {key: Deferral(until=at(9), reason="Denied", message=why)}
    held = [scene.plan(deferred=waiting, unread={key: why}).holds]
    scene.now = 200
    held += [scene.plan(deferred=waiting, unread={key: why}).holds]
    held += [scene.plan(unread={key: why}).holds]
    assert [[(each.subject, each.message) for each in holds] for holds in held] == [
        [("web-1-nic", why)]
    ] * 3
    assert scene.plan().holds == ()


def test_whoever_is_forgotten_stands_where_it_stands(scene: PlannerScenario) -> None:
    """A VM whose entry ends is in service if it stands in a pool, and unmanaged if not."""
    restored = entry(restoring_at=at(1), restored_at=at(2))
    scene.ledger = scene.ledger.with_entry(restored)
    scene.now, scene.events = 20, []
    assert phase(scene.plan()) is Phase.IN_SERVICE
    scene.inside["web-1"] = []
    assert phase(scene.plan()) is Phase.UNMANAGED


# --- holding ---


def test_a_hold_is_known_by_subject_and_reason(scene: PlannerScenario) -> None:
    """Since when something is held is looked up for it, not for whatever is held longest."""
    scene.ledger = replace(
        scene.ledger,
        holds=(
            Hold(subject="web-0", reason="floor", message="", since=at(-900)),
            Hold(subject="web-1", reason="floor", message="", since=at(-100)),
        ),
    )
    views = scene.evidence().views
    assert views.held_since("web-1", HoldReason.FLOOR) == at(-100)
    assert views.held_since("web-1", HoldReason.VM_GONE) is None
    assert views.held_since("web-2", HoldReason.FLOOR) is None


@pytest.mark.parametrize(
    ("held_s", "again_s"), [(None, 60), (0, 60), (240, 60), (241, 60.25), (1200, 300), (9999, 300)]
)
def test_what_is_held_for_long_is_looked_at_less_often(
    scene: PlannerScenario, held_s: float | None, again_s: float
) -> None:
    """H1: a quarter of the time it has lasted, from the first interval up to five minutes."""
    if held_s is not None:
        hold = Hold(subject="x", reason="vm_gone", message="", since=at(-held_s))
        scene.ledger = replace(scene.ledger, holds=(hold,))
    assert scene.evidence().views.again_s("x", HoldReason.VM_GONE, first_s=60) == again_s


def test_a_failed_acknowledgement_is_held_while_it_is_tried_again(scene: PlannerScenario) -> None:
    """H1: the hold of what failed stays while it is planned and while it is under way."""
    scene.take_out()
    scene.now = 60
    key = Acknowledge("E-1").key
    assert reasons(scene.adopt(**deferred(key, until=61, message="400"))) == {
        "e-1": "not_acknowledged"
    }
    scene.now = 62
    again = scene.adopt()
    assert acknowledged(again) == ["E-1"]
    assert (reasons(again), again.holds[0].since) == ({"e-1": "not_acknowledged"}, at(60))
    busy = scene.adopt(in_flight=frozenset({key}))
    assert (reasons(busy), busy.holds[0].since) == ({"e-1": "not_acknowledged"}, at(60))
    scene.events = [started()]
    assert reasons(scene.adopt()) == {}


def test_what_is_deferred_without_a_message_is_not_held(scene: PlannerScenario) -> None:
    """H1: ordinary back-off is no news; the plan only wakes when it ends."""
    scene.adopt()
    planned = scene.plan(**deferred(removal().key, until=3))
    assert (planned.holds, planned.wake_at, planned.ledger) == ((), at(3), None)


def test_an_inventory_that_waits_without_a_message_is_not_held(scene: PlannerScenario) -> None:
    """H1: ordinary back-off of the inventory is not reported; the plan wakes when it ends."""
    scene.events = []
    planned = scene.plan(**deferred(ReadInventory().key, until=3))
    assert (planned.holds, planned.wake_at) == ((), at(3))


def test_the_hold_of_an_inventory_lasts_while_it_is_read_again(scene: PlannerScenario) -> None:
    """H1: the hold keeps its instant and its text until an inventory succeeds."""
    scene.events = []
    refused = deferred(ReadInventory().key, until=9, message=f"{ReadInventory()}: forbidden")
    held = scene.adopt(**refused).holds
    assert [(hold.subject, hold.reason, hold.message) for hold in held] == [
        ("inventory", "inventory_unread", "the VMs of the set cannot be read: forbidden")
    ]
    scene.now = 10
    tried = scene.plan(inventory_at=at(-900))
    assert (tried.actions, tried.holds, tried.ledger) == ((ReadInventory(),), held, None)
    busy = scene.plan(inventory_at=at(-900), in_flight=frozenset({ReadInventory().key}))
    assert (busy.actions, busy.holds, busy.ledger) == ((), held, None)
    assert scene.plan().holds == ()


def test_the_hold_of_an_unread_set_lasts_until_it_is_read(scene: PlannerScenario) -> None:
    """H1: its back-off is over long before the next inventory; the hold does not come and go."""
    scene.events = []
    held = scene.adopt(set_problem="forbidden").holds
    assert [(hold.subject, hold.reason) for hold in held] == [("inventory", "inventory_unread")]
    scene.now = 10
    waiting = scene.plan(set_problem="forbidden, in other words")
    assert (waiting.holds, waiting.ledger) == (held, None)
    assert scene.plan().holds == ()


def test_a_failure_that_is_over_is_not_held_again(scene: PlannerScenario) -> None:
    """A deferral that has ended neither holds nor wakes."""
    scene.now = 7
    scene.events = []
    planned = scene.plan(**deferred(removal().key, until=7, message="denied"))
    assert (planned.holds, planned.wake_at) == ((), at(307))


def test_holds_are_sorted(scene: PlannerScenario) -> None:
    """The ledger does not change because the same holds were found in another order."""
    del scene.inside["web-3"]
    floor(scene, 2)
    scene.events = [event("web-2", not_before=300), event("web-1", event_id="E-2")]
    assert [hold.subject for hold in scene.adopt().holds] == ["web-1", "web-2"]
    assert scene.plan().ledger is None


def test_a_hold_keeps_its_first_message_and_instant(scene: PlannerScenario) -> None:
    """H1: a hold that lasts is the same hold, though its message would now read otherwise."""
    floor(scene, 3)
    first = scene.adopt().holds
    scene.now = 5
    scene.inside["web-4"] = []
    assert scene.adopt().holds == first


def test_a_restore_that_waits_is_held_by_its_name(scene: PlannerScenario) -> None:
    """A failed restore of a NIC is held under the NIC's name."""
    scene.take_out()
    scene.now, scene.events = 300, []
    scene.through()
    planned = scene.adopt(**deferred(restoral().key, until=305, message="denied"))
    assert reasons(planned) == {"web-1-nic": "write_failed"}
    scene.now = 306
    again = scene.adopt()
    assert (writes(again), reasons(again)) == ([restoral()], {"web-1-nic": "write_failed"})


def test_a_stopped_vm_is_looked_at_by_its_own_hold(scene: PlannerScenario) -> None:
    """H1: how often one VM is looked at does not depend on how long another has been held."""
    scene.take_out()
    scene.now, scene.events = 9000, []
    scene.ledger = replace(
        scene.ledger,
        holds=(Hold(subject="a", reason="vm_not_running", message="", since=at(300)),),
    )
    scene.vms = {"web-1": {"power": PowerState.NOT_RUNNING, "power_observed_at": at(8990)}}
    assert ReadPower(vm_id("web-1")) in scene.plan().actions
