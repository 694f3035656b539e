"""Deadlines in danger and VMs out for long, derived from plans that the planner made."""

from dataclasses import replace

import pytest
from scene import APP, Scene, at, event, membership, started, vm_id

from controller.core.ledger import Entry, Ledger
from controller.core.model import (
    EventAction,
    EventDocument,
    EventPolicy,
    EventStatus,
    Floor,
    Policy,
    ScheduledEvent,
)
from controller.core.risk import Risk, oldest_entry, risk

FLOOR_OF_ALL = Policy(pools={APP: Floor(number=3)})


def entry(name: str = "web-1", recorded: float = 0, **fields: object) -> Entry:
    return Entry(
        vm=name,
        vm_id=vm_id(name),
        events=(),
        memberships=(membership(name),),
        recorded_at=at(recorded),
        **fields,  # type: ignore[arg-type]
    )


def risk_in(scene: Scene, **over: object) -> Risk:
    document = EventDocument(incarnation=1, events=tuple(scene.events))
    return risk(scene.plan(**over), scene.ledger, document, scene.policy, at(scene.now))


def test_nothing_is_at_risk_in_an_idle_set() -> None:
    """No event, no risk, no deadline."""
    assert risk_in(Scene()) == Risk()
    assert risk(Scene().plan(), Ledger(), None, Policy(pools={}), at(0)) == Risk()


@pytest.mark.parametrize(("now", "vms"), [(0, ()), (480, ()), (481, ("web-1",)), (700, ("web-1",))])
def test_a_vm_is_at_risk_two_minutes_before_notbefore(now: float, vms: tuple[str, ...]) -> None:
    """A VM that is due and not out is in danger from two minutes before NotBefore on."""
    scene = Scene(now=now, events=[event()], policy=FLOOR_OF_ALL)
    assert risk_in(scene) == Risk(vms, at(600))


@pytest.mark.parametrize(("now", "vms"), [(560, ()), (571, ("web-1",))])
def test_a_short_lead_time_is_no_danger_by_itself(now: float, vms: tuple[str, ...]) -> None:
    """Of a lead time of a minute half is for an ordinary drain."""
    scene = Scene(now=now, events=[event()], policy=replace(FLOOR_OF_ALL, lead_time_s=60))
    assert risk_in(scene).vms == vms


def test_a_vm_that_is_out_is_not_at_risk() -> None:
    """What was observed out, or is in no pool, may be hit."""
    ledger = Ledger().with_entry(entry(out_at=at(20)))
    scene = Scene(now=590, events=[event()], ledger=ledger)
    scene.inside = {"web-1": [], "web-2": [APP], "web-3": [APP]}
    assert risk_in(scene) == Risk()
    scene.ledger = Ledger()
    assert risk_in(scene) == Risk()


def test_recorded_is_not_out() -> None:
    """A removal that was recorded and not seen yet leaves the VM in danger."""
    scene = Scene(now=590, events=[event()], ledger=Ledger().with_entry(entry(recorded=580)))
    assert risk_in(scene).vms == ("web-1",)


@pytest.mark.parametrize("hit", [started(), event(not_before=None)])
def test_an_event_without_a_deadline_is_danger_now(hit: object) -> None:
    """An event that has started, or may at any moment, endangers whoever is still in."""
    scene = Scene(events=[hit], policy=FLOOR_OF_ALL)  # type: ignore[list-item]
    assert risk_in(scene) == Risk(("web-1",), None)


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
    assert risk_in(Scene(events=[harmless])) == Risk()  # type: ignore[list-item]


def test_ignored_types_are_no_risk() -> None:
    """Policy may say that events of a type do not matter."""
    ignore = {"Reboot": EventPolicy(action=EventAction.IGNORE)}
    scene = Scene(events=[event(not_before=10)], policy=replace(FLOOR_OF_ALL, events=ignore))
    assert risk_in(scene) == Risk()


def test_every_vm_counts_once_and_the_earliest_deadline_is_told() -> None:
    """Names are compared without case; two events for one VM make one VM at risk."""
    events = [
        event("web-2", "WEB-1", event_id="a", not_before=100),
        event("web-1", event_id="b", not_before=50),
        event("web-3", event_id="c", not_before=400),
    ]
    assert risk_in(Scene(events=events, policy=FLOOR_OF_ALL)) == Risk(("WEB-1", "web-2"), at(50))


def test_the_deadline_of_what_has_begun_is_none() -> None:
    """NotBefore counts while it lies ahead of an event that has not started, and is known."""
    scene = Scene(events=[event(status=EventStatus.STARTED)], policy=FLOOR_OF_ALL)
    assert risk_in(scene) == Risk(("web-1",), None)
    scene.events = [event(not_before=None), event("web-2", event_id="b", not_before=400)]
    assert risk_in(scene) == Risk(("web-1",), at(400))


@pytest.mark.parametrize(
    "other",
    [event(event_type="Freeze", duration_s=2, not_before=10, event_id="b"), event(not_before=2000)],
    ids=["ignored", "far"],
)
def test_what_is_not_due_sets_no_deadline_for_who_is(other: ScheduledEvent) -> None:
    """Beside an event that has begun, others of the same VM count only when they are due."""
    scene = Scene(events=[started(), other], policy=FLOOR_OF_ALL)
    assert risk_in(scene) == Risk(("web-1",), None)


def test_a_vm_is_due_from_the_very_instant() -> None:
    """Its deadline is told from the lead time before NotBefore on."""
    scene = Scene(events=[event(not_before=900)], policy=FLOOR_OF_ALL)
    assert risk_in(scene) == Risk((), at(900))


def test_who_is_meant_is_told_without_case() -> None:
    """Compute and IMDS spell names differently."""
    scene = Scene(now=590, events=[event()], policy=FLOOR_OF_ALL)
    scene.vms = {"web-1": {"name": "WEB-1"}}
    assert risk_in(scene).vms == ("web-1",)


def test_who_was_never_seen_is_not_known_to_be_out() -> None:
    """A leader that cannot read Azure fears for all, but those that the ledger says are out."""
    ledger = Ledger().with_entry(entry(out_at=at(20))).with_entry(entry("web-2"))
    scene = Scene(now=590, events=[event("web-1", "web-2", "web-3")], ledger=ledger)
    assert risk_in(scene, inventory_at=None) == Risk(("web-2", "web-3"), at(600))


def test_the_oldest_entry() -> None:
    """Deleted VMs and restored ones do not count among those that are out."""
    assert oldest_entry(Ledger()) is None
    ledger = (
        Ledger()
        .with_entry(entry("web-1", 0, gone=True))
        .with_entry(entry("web-2", 5, restored_at=at(50)))
    )
    assert oldest_entry(ledger) is None
    ledger = ledger.with_entry(entry("web-3", 20)).with_entry(entry("web-4", 10))
    assert oldest_entry(ledger) == at(10)
