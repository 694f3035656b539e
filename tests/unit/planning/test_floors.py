"""The floors: what counts as serving, and what a manual drain leaves to announced events (S2)."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.core.drain_requests import DrainRequest
from controller.core.events import EventStatus
from controller.core.ledger import Ledger
from controller.core.planning.actions import HoldReason, Phase, Plan
from controller.core.policy import Floor
from controller.core.resources import PoolKind, PoolMember
from tests.support.planner_scenario import (
    API,
    APP,
    PlannerScenario,
    acknowledged,
    address,
    at,
    event,
    floor,
    ip_id,
    phase,
    reasons,
    removal,
    started,
    writes,
)
from tests.support.policies import make_policy

HOUR = 3600.0


def asked(vm: str = "web-1", *, until: float = 1800) -> dict[str, Any]:
    """Return the observation of a drain request for a VM."""
    request = DrainRequest(
        request_id="R", vm=vm, reason="", by="ann", at=at(0), until=at(0) + timedelta(seconds=until)
    )
    return {"requests": (request,)}


def message(scene: PlannerScenario, **over: Any) -> str:
    """Return why a VM is held at the floor; empty if none is."""
    holds = scene.plan(**over).holds
    return next((h.message for h in holds if h.reason == HoldReason.FLOOR.value), "")


# --- a forced drain ------------------------------------------------------------------------------


def forced(vm: str = "web-1") -> dict[str, Any]:
    """Return the observation of a forced drain request for a VM."""
    (request,) = asked(vm)["requests"]
    return {"requests": (replace(request, forced=True, reason="last minutes"),)}


def why(planned: Plan, vm: str = "web-1") -> str:
    """Return what the plan reports about the phase of a VM."""
    return next(each.why for each in planned.phases if each.vm == vm)


def test_a_forced_drain_suspends_the_floor_for_its_vm(scene: PlannerScenario) -> None:
    """S2 is suspended: the VM is recorded and removed; plan and history state by whom and why."""
    scene.events = []
    floor(scene, 3)
    assert message(scene, **asked())
    first = scene.adopt(**forced())
    assert reasons(first) == {}
    assert why(first) == "below min_in_service, forced by ann: last minutes"
    assert [(each.step, each.detail) for each in scene.ledger.transitions] == [
        ("requested", "forced, by ann: last minutes"),
        ("recorded", f"app; {why(first)}"),
    ]
    second = scene.adopt(**forced())
    assert writes(second) == [removal()]
    assert why(second) == why(first)


def test_a_forced_drain_of_an_event_takes_its_vm_out_in_time(scene: PlannerScenario) -> None:
    """S7: it lifts the hold of a VM whose event is due, and the event is acknowledged."""
    floor(scene, 3)
    assert message(scene)
    scene.adopt(**forced())
    scene.inside["web-1"] = []
    for _ in range(2):
        scene.now += 31
        planned = scene.adopt(**forced())
    assert acknowledged(planned) == ["E-1"]
    assert why(planned) == "drain forced by ann: last minutes"


def test_a_forced_drain_suspends_the_floor_for_no_other_vm(scene: PlannerScenario) -> None:
    """S2 holds for every other VM, for which the forced one counts as out."""
    scene.events = [event("web-2")]
    floor(scene, 2)
    assert message(scene, **forced()) == ""
    other = {"requests": (*forced("web-1")["requests"], *asked("web-3")["requests"])}
    scene.events = []
    floor(scene, 3)
    assert reasons(scene.plan(**other)) == {"web-3": "floor"}


def test_a_forced_drain_that_the_floor_allows_is_an_ordinary_one(scene: PlannerScenario) -> None:
    """Nothing is suspended where enough members stay; history has the pools alone."""
    scene.events = []
    scene.adopt(**forced())
    assert scene.ledger.transitions[-1].detail == "app"


def test_a_forced_drain_needs_no_room_of_an_event(two: PlannerScenario) -> None:
    """It is not held for an announced event of another VM, as an ordinary request is."""
    assert message(two, **asked())
    assert message(two, **forced()) == ""


def test_a_forced_request_that_is_lost_is_an_ordinary_one(scene: PlannerScenario) -> None:
    """The ledger alone suspends nothing: a VM that was put back is held at the floor."""
    scene.events = []
    floor(scene, 3)
    scene.adopt(**forced())
    assert message(scene, requests=())


# --- what Azure announces goes first -------------------------------------------------------------


@pytest.fixture
def two() -> PlannerScenario:
    """Two VMs of which one has to serve, and a reboot of web-2 that is not due yet."""
    scene = PlannerScenario(inside={"web-1": [APP], "web-2": [APP]})
    scene.events = [event("web-2", not_before=960)]
    return scene


def test_a_manual_drain_leaves_room_for_an_announced_event(two: PlannerScenario) -> None:
    """S2, S7: a request waits while an event that begins before its end needs the room."""
    planned = two.through(**asked())
    assert writes(planned) == []
    assert two.ledger.entries == ()
    assert phase(planned) is Phase.HELD
    assert message(two, **asked()) == (
        "web-1 stays in pool app: event E-1 (Reboot of web-2, not before 2026-01-05 12:16 UTC) "
        "needs the room, since min_in_service requires 1; its drain starts when that event is over"
    )
    two.now = 60
    assert writes(two.through(**asked())) == [removal("web-2")]
    two.inside["web-2"], two.events = [], []
    two.now = 300
    two.ledger = replace(two.ledger, entries=())
    two.inside["web-2"] = [APP]
    assert writes(two.through(**asked())) == [removal("web-1")]


@pytest.mark.parametrize(
    ("until", "not_before", "granted"),
    [
        (1800, 960, False),
        (1800, 1800 + 899, False),
        (1800, 1800 + 900, True),
        (1800, 7 * 24 * HOUR, True),
        (365 * 24 * HOUR, 7 * 24 * HOUR, False),
    ],
    ids=["soon", "due before the end", "due at the end", "far ahead", "without end"],
)
def test_a_request_that_ends_before_an_event_is_due_takes_no_room(
    two: PlannerScenario, until: float, not_before: float, granted: bool
) -> None:
    """A request is granted against every event whose drain begins before the request ends."""
    two.events = [event("web-2", not_before=not_before)]
    planned = two.through(**asked(until=until))
    assert writes(planned) == ([removal("web-1")] if granted else [])


def test_an_event_for_the_same_vm_needs_no_room(two: PlannerScenario) -> None:
    """A VM that is out on request is out for its event as well."""
    two.events = [event("web-1", not_before=960)]
    assert writes(two.through(**asked())) == [removal("web-1")]


def test_all_announced_events_need_room_together(two: PlannerScenario) -> None:
    """S2: two events may begin at the same time; the message names the first."""
    two.inside = {f"web-{n}": [APP] for n in (1, 2, 3)}
    two.events = [
        event("web-3", event_id="E-2", not_before=1200),
        event("web-2", not_before=1000),
    ]
    assert "event E-1 (Reboot of web-2" in message(two, **asked())
    two.events = two.events[:1]
    assert writes(two.through(**asked())) == [removal("web-1")]


def test_one_event_for_several_vms_needs_room_for_all(two: PlannerScenario) -> None:
    """S2: an event affects all its VMs at once, in any spelling of their names."""
    two.inside = {f"web-{n}": [APP] for n in (1, 2, 3)}
    two.events = [event("WEB-2", "web-3", not_before=1000)]
    assert "event E-1 (Reboot of WEB-2, web-3," in message(two, **asked())


def test_only_pools_that_the_request_touches_count(two: PlannerScenario) -> None:
    """An event for a VM of another pool needs none of the room."""
    two.policy = make_policy(pools={APP: Floor(number=0), API: Floor(number=1)})
    two.inside = {"web-1": [APP], "web-2": [API], "web-3": [API]}
    assert writes(two.through(**asked())) == [removal("web-1")]


@pytest.mark.parametrize(
    "unrelated",
    [
        event("db-1", not_before=960),
        event("web-2", not_before=960, event_type="Freeze", duration_s=0),
    ],
    ids=["no VM of the pool", "policy ignores it"],
)
def test_an_event_that_takes_nothing_out_needs_no_room(
    two: PlannerScenario, unrelated: Any
) -> None:
    """Only impacting events for members of the pool count."""
    two.events = [unrelated]
    assert writes(two.through(**asked())) == [removal("web-1")]


def test_a_shortage_that_was_there_before_is_reported_as_such(two: PlannerScenario) -> None:
    """Where even the request alone would break the floor, no event is blamed."""
    floor(two, 2)
    assert "1 healthy member would remain" in message(two, **asked())


def test_an_event_without_not_before_needs_room_at_once(two: PlannerScenario) -> None:
    """An event that may start at any moment is drained first, and then keeps the room."""
    two.events = [event("web-2", not_before=None)]
    assert writes(two.through(**asked())) == [removal("web-2")]
    two.events = [event("web-2", not_before=None, status=EventStatus.UNKNOWN)]
    two.inside, two.ledger = {"web-1": [APP], "web-2": [APP]}, Ledger()
    assert "web-2, at any time" in message(two, **asked())


def test_a_started_event_has_taken_its_room(two: PlannerScenario) -> None:
    """A VM under maintenance does not serve, so the floor itself counts without it."""
    two.inside = {f"web-{n}": [APP] for n in (1, 2, 3)}
    two.events = [started("web-2")]
    assert writes(two.through(**asked())) == [removal("web-2"), removal("web-1")]


def test_a_request_that_was_granted_is_not_taken_back(two: PlannerScenario) -> None:
    """An event that is announced after the drain began does not put a VM back into rotation."""
    announced, two.events = two.events, []
    assert writes(two.through(**asked())) == [removal("web-1")]
    two.events = announced
    assert writes(two.through(**asked())) == [removal("web-1")]


def test_a_vm_that_is_put_back_under_repair_leaves_again(two: PlannerScenario) -> None:
    """A request that was granted takes no new room when its VM was put back."""
    announced, two.events = two.events, []
    two.through(**asked())
    two.inside["web-1"], two.now = [], 5
    two.through(**asked())
    two.events, two.inside["web-1"], two.now = announced, [APP], 50
    assert writes(two.through(**asked())) == [removal("web-1")]


# --- adminState ----------------------------------------------------------------------------------


def down(scene: PlannerScenario, *vms: str) -> None:
    """Let the members of these VMs in APP have adminState Down."""
    scene.pools[APP] = {
        "members": tuple(
            PoolMember(ip_configuration_id=ip_id(name).upper(), admin_down=name in vms)
            for name in scene.inside
        )
    }


def test_a_member_that_is_down_does_not_count(scene: PlannerScenario) -> None:
    """S2: Azure sends no new connections to a member whose adminState is Down."""
    floor(scene, 2)
    down(scene, "web-3")
    assert "1 healthy member would remain" in message(scene)
    down(scene)
    assert writes(scene.through()) == [removal()]


def test_a_member_that_is_down_may_leave(scene: PlannerScenario) -> None:
    """S2: a VM that does not serve takes nothing away when it leaves."""
    floor(scene, 2)
    down(scene, "web-1")
    assert [each.restore for each in writes(scene.through())] == [False]


def test_a_percentage_counts_members_that_are_down_in_full(scene: PlannerScenario) -> None:
    """S2: a member that is Down for a while does not lower what a percentage requires."""
    scene.inside = {f"web-{n}": [APP] for n in range(1, 5)}
    floor(scene, 50, percent=True)
    down(scene, "web-3", "web-4")
    assert "1 healthy member would remain, and min_in_service requires 2" in message(scene)


def test_another_membership_that_is_up_serves(scene: PlannerScenario) -> None:
    """A VM with two members in a pool serves by the one that is not Down."""
    floor(scene, 2)
    rows = [PoolMember(ip_configuration_id=ip_id(name)) for name in scene.inside]
    second = ip_id("web-3").replace("ipconfig1", "ipconfig2")
    rows += [PoolMember(ip_configuration_id=second, admin_down=True)]
    scene.pools[APP] = {"members": tuple(rows), "observed_at": at(1)}
    scene.now = 1
    assert message(scene) == ""


@pytest.mark.parametrize("state", [False, True])
def test_addresses_and_other_machines_that_are_down_do_not_count(
    scene: PlannerScenario, state: bool
) -> None:
    """S2: the same holds for addresses, whether of a VM or of a machine outside of the set."""
    scene.policy = make_policy(pools={APP: Floor(number=2, ignores_other_sets=True)})
    scene.inside = {"web-1": [], "web-2": []}
    scene.ips = {"web-1": "10.0.0.1", "web-2": "10.0.0.2"}
    mine, peer, other = (address(f"a{n}", f"10.0.0.{n}") for n in (1, 2, 9))
    for stopped in (peer, other):
        scene.pools[APP] = {
            "kind": PoolKind.ADDRESS,
            "members": tuple(
                PoolMember(address=each, admin_down=state and each is stopped)
                for each in (mine, peer, other)
            ),
        }
        assert bool(message(scene)) is state
    strange = [PoolMember(ip_configuration_id=ip_id("db-1"), admin_down=state)]
    rows = [PoolMember(ip_configuration_id=ip_id(name)) for name in ("web-1", "web-2")]
    scene.pools[APP] = {"members": (*rows, *strange)}
    scene.inside = {"web-1": [APP], "web-2": [APP]}
    assert bool(message(scene)) is state


# --- a new leader of a scale set -----------------------------------------------------------------

WAITING = "waiting until it is known which events other agents forward"


def test_a_new_leader_counts_when_it_knows_what_other_agents_forward(
    scene: PlannerScenario,
) -> None:
    """S2: the maintenance of a VM can have begun in a document that only its own agent sees."""
    floor(scene, 2)
    unknown = scene.plan(is_complete=False, tenure_at=at(0))
    assert why(unknown) == WAITING
    assert unknown.ledger is None
    scene.events.append(event("web-2", event_id="OTHER", status=EventStatus.STARTED))
    assert "1 healthy member would remain" in message(scene, tenure_at=at(0))


def test_a_new_leader_waits_a_few_seconds_for_what_other_agents_forward(
    scene: PlannerScenario,
) -> None:
    """S7: storage that does not answer keeps no VM in rotation."""
    floor(scene, 1)
    began: dict[str, Any] = {"is_complete": False, "tenure_at": at(0)}
    assert scene.plan(**began).wake_at == at(5)
    scene.now = 5
    assert why(scene.plan(**began)) != WAITING
    assert scene.plan(**began).ledger is not None
