"""The scheduled events of a ledger, for a reader without a metadata service."""

from dataclasses import replace

from controller.core.event_record import WatchedEvent, WatchedVm
from controller.core.events import EventStatus
from controller.core.ledger import Ledger
from controller.status.recorded_events import recorded_document, recorded_events
from tests.support.planner_scenario import at

WATCHED = WatchedEvent(
    event_id="E-1",
    event_type="Reboot",
    first_seen_at=at(0),
    not_before=at(900),
    vms=(WatchedVm(vm="web-1"), WatchedVm(vm="web-2")),
)


def test_an_announced_event() -> None:
    """With its VMs and its time."""
    (event,) = recorded_document(Ledger(events=(WATCHED,))).events
    assert (event.event_id, event.event_type) == ("E-1", "Reboot")
    assert (event.resources, event.not_before) == (("web-1", "web-2"), at(900))
    assert event.status is EventStatus.SCHEDULED


def test_the_event_of_a_rehearsal_is_never_acknowledged() -> None:
    """No plan that is made from it may show an acknowledgement."""
    found = [
        each.acknowledgeable
        for name in ("E-1", "test-1")
        for each in recorded_document(Ledger(events=(replace(WATCHED, event_id=name),))).events
    ]
    assert found == [True, False]


def test_a_started_event() -> None:
    """It is going on."""
    (event,) = recorded_document(Ledger(events=(replace(WATCHED, started_at=at(9)),))).events
    assert event.status is EventStatus.STARTED


def test_what_requires_no_drain_is_not_planned_from() -> None:
    """An ignored event and one that is gone are shown only."""
    ledger = Ledger(
        events=(replace(WATCHED, ignored="short"), replace(WATCHED, event_id="E-2", gone_at=at(9)))
    )
    assert recorded_document(ledger).events == ()
    shown = recorded_events(ledger)
    assert [(each.event.event_id, each.gone, each.gone_at) for each in shown] == [
        ("E-1", False, None),
        ("E-2", True, at(9)),
    ]
    assert [each.first_seen_at for each in shown] == [at(0), at(0)]
