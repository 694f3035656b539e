"""Deadlines in danger and VMs out for long, derived from plans that the planner made."""

from dataclasses import replace

import pytest

from controller.core.deadlines import DeadlineRisk, deadline_risk, oldest_drain_start
from controller.core.events import EventDocument, EventStatus, ScheduledEvent
from controller.core.ledger import Entry, Ledger
from controller.core.policy import EventAction, Floor
from tests.support.planner_scenario import (
    APP,
    PlannerScenario,
    at,
    event,
    membership,
    started,
    vm_id,
)
from tests.support.policies import make_event_policy, make_policy

FLOOR_OF_ALL = make_policy(pools={APP: Floor(number=3)})


def entry(name: str = "web-1", recorded: float = 0, **fields: object) -> Entry:
    return Entry(
        vm=name,
        vm_id=vm_id(name),
        events=(),
        memberships=(membership(name),),
        recorded_at=at(recorded),
        **fields,  # type: ignore[arg-type]
    )


def risk_in(scene: PlannerScenario, **over: object) -> DeadlineRisk:
    document = EventDocument(incarnation=1, events=tuple(scene.events))
    return deadline_risk(scene.plan(**over), scene.ledger, document, scene.policy, at(scene.now))


def test_nothing_is_at_risk_in_an_idle_set() -> None:
    """No event, no risk, no deadline."""
    assert risk_in(PlannerScenario()) == DeadlineRisk()
    assert (
        deadline_risk(PlannerScenario().plan(), Ledger(), None, make_policy(pools={}), at(0))
        == DeadlineRisk()
    )


@pytest.mark.parametrize(("now", "vms"), [(0, ()), (480, ()), (481, ("web-1",)), (700, ("web-1",))])
def test_a_vm_is_at_risk_two_minutes_before_notbefore(now: float, vms: tuple[str, ...]) -> None:
    """A VM that is due and not out is in danger from two minutes before NotBefore on."""
    scene = PlannerScenario(now=now, events=[event()], policy=FLOOR_OF_ALL)
    assert risk_in(scene) == DeadlineRisk(vms, at(600))


@pytest.mark.parametrize(("now", "vms"), [(560, ()), (571, ("web-1",))])
def test_a_short_lead_time_is_no_danger_by_itself(now: float, vms: tuple[str, ...]) -> None:
    """Of a lead time of a minute half is for an ordinary drain."""
    scene = PlannerScenario(now=now, events=[event()], policy=replace(FLOOR_OF_ALL, lead_time_s=60))
    assert risk_in(scene).vms == vms


def test_a_vm_that_is_out_is_not_at_risk() -> None:
    """What was observed out, or is in no pool, may be hit."""
    ledger = Ledger().with_entry(entry(out_at=at(20)))
    scene = PlannerScenario(now=590, events=[event()], ledger=ledger)
    scene.inside = {"web-1": [], "web-2": [APP], "web-3": [APP]}
    assert risk_in(scene) == DeadlineRisk()
    scene.ledger = Ledger()
    assert risk_in(scene) == DeadlineRisk()


def test_recorded_is_not_out() -> None:
    """A removal that was recorded and not seen yet leaves the VM in danger."""
    scene = PlannerScenario(
        now=590, events=[event()], ledger=Ledger().with_entry(entry(recorded=580))
    )
    assert risk_in(scene).vms == ("web-1",)


@pytest.mark.parametrize("hit", [started(), event(not_before=None)])
def test_an_event_without_a_deadline_is_danger_now(hit: object) -> None:
    """An event that has started, or may at any moment, puts VMs in rotation at risk."""
    scene = PlannerScenario(events=[hit], policy=FLOOR_OF_ALL)  # type: ignore[list-item]
    assert risk_in(scene) == DeadlineRisk(("web-1",), None)


@pytest.mark.parametrize(
    "harmless",
    [
        event(not_before=2000),
        event(event_type="Freeze", duration_s=2, not_before=10),
        event(status=EventStatus.UNKNOWN, not_before=10),
        event("stranger", not_before=10),
    ],
)
def test_what_is_not_due_is_no_risk(harmless: object) -> None:
    """Far events, ignored ones, undocumented states and VMs of others are not ours to fear."""
    assert risk_in(PlannerScenario(events=[harmless])) == DeadlineRisk()  # type: ignore[list-item]


def test_a_rehearsal_is_no_risk() -> None:
    """No alarm is raised because of an event that only agents see, and the next event counts."""
    scene = PlannerScenario(now=500, events=[event(event_id="test-1")], policy=FLOOR_OF_ALL)
    assert risk_in(scene) == DeadlineRisk()
    scene.events.append(event(event_id="E-2"))
    assert risk_in(scene) == DeadlineRisk(("web-1",), at(600))


def test_ignored_types_are_no_risk() -> None:
    """An event that policy ignores puts no VM at risk."""
    ignore = {"Reboot": make_event_policy(action=EventAction.IGNORE)}
    scene = PlannerScenario(
        events=[event(not_before=10)], policy=replace(FLOOR_OF_ALL, events=ignore)
    )
    assert risk_in(scene) == DeadlineRisk()


def test_every_vm_counts_once_with_the_earliest_deadline() -> None:
    """Names are compared without case; two events for one VM make one VM at risk."""
    events = [
        event("web-2", "WEB-1", event_id="a", not_before=100),
        event("web-1", event_id="b", not_before=50),
        event("web-3", event_id="c", not_before=400),
    ]
    assert risk_in(PlannerScenario(events=events, policy=FLOOR_OF_ALL)) == DeadlineRisk(
        ("WEB-1", "web-2"), at(50)
    )


def test_the_deadline_of_what_has_begun_is_none() -> None:
    """NotBefore counts while it lies ahead of an event that has not started, and is known."""
    scene = PlannerScenario(events=[event(status=EventStatus.STARTED)], policy=FLOOR_OF_ALL)
    assert risk_in(scene) == DeadlineRisk(("web-1",), None)
    scene.events = [event(not_before=None), event("web-2", event_id="b", not_before=400)]
    assert risk_in(scene) == DeadlineRisk(("web-1",), at(400))


@pytest.mark.parametrize(
    "other",
    [event(event_type="Freeze", duration_s=2, not_before=10, event_id="b"), event(not_before=2000)],
    ids=["ignored", "far"],
)
def test_what_is_not_due_sets_no_deadline_for_who_is(other: ScheduledEvent) -> None:
    """Beside an event that has begun, others of the same VM count only when they are due."""
    scene = PlannerScenario(events=[started(), other], policy=FLOOR_OF_ALL)
    assert risk_in(scene) == DeadlineRisk(("web-1",), None)


def test_a_vm_is_due_from_the_very_instant() -> None:
    """Its deadline counts from the lead time before NotBefore on."""
    scene = PlannerScenario(events=[event(not_before=900)], policy=FLOOR_OF_ALL)
    assert risk_in(scene) == DeadlineRisk((), at(900))


def test_vm_names_are_compared_without_case() -> None:
    """Compute and IMDS spell names differently."""
    scene = PlannerScenario(now=590, events=[event()], policy=FLOOR_OF_ALL)
    scene.vms = {"web-1": {"name": "WEB-1"}}
    assert risk_in(scene).vms == ("web-1",)


def test_who_was_never_seen_is_not_known_to_be_out() -> None:
    """A leader that cannot read Azure counts every VM that the ledger does not record as out."""
    ledger = Ledger().with_entry(entry(out_at=at(20))).with_entry(entry("web-2"))
    scene = PlannerScenario(now=590, events=[event("web-1", "web-2", "web-3")], ledger=ledger)
    assert risk_in(scene, inventory_at=None) == DeadlineRisk(("web-2", "web-3"), at(600))


def test_the_oldest_entry() -> None:
    """Deleted VMs and restored ones do not count among those that are out."""
    assert oldest_drain_start(Ledger()) is None
    ledger = (
        Ledger()
        .with_entry(entry("web-1", 0, gone=True))
        .with_entry(entry("web-2", 5, restored_at=at(50)))
    )
    assert oldest_drain_start(ledger) is None
    ledger = ledger.with_entry(entry("web-3", 20)).with_entry(entry("web-4", 10))
    assert oldest_drain_start(ledger) == at(10)
