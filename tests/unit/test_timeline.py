"""What became of a VM in an event, from the journal and from what was read."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.core.actions import Phase, VmPhase
from controller.core.ledger import Entry, EventReference, Hold, Ledger
from controller.core.model import REQUEST, EventDocument, EventStatus, ScheduledEvent
from controller.timeline import (
    GONE_SHOWN,
    MOST_SIGHTINGS,
    STEPS,
    Sighting,
    Sightings,
    asked,
    cancelled,
    phase_by,
    steps,
    unseen,
    worth_showing,
)

T0 = datetime(2030, 1, 1, 12, tzinfo=UTC)
NOT_BEFORE = T0 + timedelta(minutes=10)


REFERENCE = EventReference(event_id="E-1", event_type="Reboot", not_before=NOT_BEFORE)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def event(
    event_id: str = "E-1", *vms: str, status: EventStatus = EventStatus.SCHEDULED
) -> ScheduledEvent:
    scheduled = status is EventStatus.SCHEDULED
    return ScheduledEvent(
        event_id=event_id,
        event_type="Reboot",
        status=status,
        resources=vms or ("web-2",),
        not_before=NOT_BEFORE if scheduled else None,
    )


def document(*events: ScheduledEvent) -> EventDocument:
    return EventDocument(incarnation=1, events=events)


def journal(
    *lines: tuple[float, str, str], vm: str = "web-2", onto: Ledger | None = None
) -> Ledger:
    ledger = onto or Ledger()
    for seconds, what, detail in lines:
        ledger = ledger.noting(at=at(seconds), vm=vm, what=what, detail=detail)
    return ledger


def entry(**changes: object) -> Entry:
    given = {
        "vm": "web-2",
        "vm_id": "/vm/web-2",
        "events": (REFERENCE,),
        "memberships": (),
        "recorded_at": at(5),
        **changes,
    }
    return Entry(**given)  # type: ignore[arg-type]


def told(sighting: Sighting, ledger: Ledger, vm: str = "web-2") -> dict[str, object]:
    """Return per step the second in which it was done, or how else it stands."""
    return {
        step.name: (step.at - T0).total_seconds() if step.at else step.state
        for step in steps(sighting, vm, ledger)
    }


DRAIN = ((5, "recorded", "app"), (8, "out", ""), (20, "acknowledged", "E-1"))
RETURN = ((60, "restoring", ""), (63, "restored", ""), (80, "in service", ""))
BEFORE = (
    (-90, "recorded", "app"),
    (-80, "out", ""),
    (-70, "restored", ""),
    (-60, "in service", ""),
)


def seen(*moments: tuple[float, EventDocument]) -> Sighting:
    sightings = Sightings()
    for seconds, each in moments:
        sightings.saw(each, at(seconds))
    return next(known for known in sightings.known() if known.event.event_id == "E-1")


STARTED = document(event(status=EventStatus.STARTED))


def test_a_whole_maintenance() -> None:
    """Each step has the time at which it was read or written, and NotBefore is remembered."""
    sighting = seen((0, document(event())), (30, STARTED), (31, STARTED), (55, document()))
    assert told(sighting, journal(*BEFORE, *DRAIN, *RETURN)) == {
        "announced": 0,
        "draining": 5,
        "out": 8,
        "acknowledged": 20,
        "started": 30,
        "gone": 55,
        "restored": 63,
    }
    assert sighting.event.not_before == NOT_BEFORE
    assert tuple(told(sighting, Ledger())) == STEPS


def test_what_is_still_to_come() -> None:
    """Before anything was done every step but the first is pending, whatever happened earlier."""
    sighting = seen((0, document(event())))
    pending = dict.fromkeys(STEPS, "pending")
    assert told(sighting, journal(*BEFORE)) == {**pending, "announced": 0}
    assert told(sighting, journal((5, "recorded", "app"), vm="web-1")) == {
        **pending,
        "announced": 0,
    }


def test_what_did_not_happen() -> None:
    """A cancelled event was never drained for; one that started is not acknowledged."""
    cancelled = seen((0, document(event())), (9, document()))
    assert told(cancelled, Ledger()) == {
        **dict.fromkeys(STEPS, "skipped"),
        "announced": 0,
        "gone": 9,
    }
    started = told(seen((0, STARTED)), journal((1, "recorded", "app")))
    assert started["acknowledged"] == "skipped"
    assert (started["out"], started["started"]) == ("pending", 0)


def test_a_vm_that_did_not_come_back() -> None:
    """What ended without a restore shows none; a VM still out is still to be restored."""
    gone = seen((0, document(event())), (55, document()))
    assert told(gone, journal(*DRAIN, (70, "forgotten", "deleted: app")))["restored"] == "skipped"
    assert told(gone, journal(*DRAIN))["restored"] == "pending"


def test_a_second_event_of_a_vm_that_is_out() -> None:
    """An event announced while the VM is out shares its outing, but not its acknowledgement."""
    second = Sighting(event=event("E-2"), first_seen_at=at(40))
    shown = told(second, journal(*BEFORE, *DRAIN))
    assert (shown["draining"], shown["out"], shown["acknowledged"]) == (5, 8, "pending")


def test_what_a_standby_reads_late_has_no_time() -> None:
    """No timeline runs backwards: what was read after the leader acted on it is just done."""
    sighting = seen((-6, document()), (9, document(event())), (54, STARTED), (69, document()))
    ledger = journal(*BEFORE, *DRAIN, (50, "restoring", ""), (53, "restored", ""))
    assert told(sighting, ledger) == {
        "announced": "done",
        "draining": 5,
        "out": 8,
        "acknowledged": 20,
        "started": "done",
        "gone": "done",
        "restored": 53,
    }
    first = seen((9, document(event())))
    assert told(first, journal(*DRAIN))["announced"] == "done", "nobody had read before"


def test_a_second_event_was_announced_when_it_was_read() -> None:
    """Of a VM that was out already the leader did not act on the event before it was announced."""
    sighting = seen((0, document()), (30, document()), (45, document(event())))
    assert told(sighting, journal(*DRAIN))["announced"] == 45


def test_what_was_cancelled() -> None:
    """Cancelled is what went before it could begin: not started, not acknowledged, not due."""
    gone = seen((0, document(event())), (9, document()))
    assert cancelled(gone, journal((5, "recorded", "app"), (8, "out", "")))
    assert cancelled(gone, journal((8, "acknowledged", "E-2")))
    assert not cancelled(gone, journal((8, "acknowledged", "e-1")))
    reference = EventReference(event_id="e-1", event_type="Reboot", acknowledged_at=at(8))
    assert not cancelled(gone, Ledger().with_entry(entry(events=(reference,))))
    assert not cancelled(seen((0, document(event()))), Ledger())
    assert not cancelled(seen((0, document(event())), (5, STARTED), (9, document())), Ledger())
    assert not cancelled(seen((0, document(event())), (600, document())), Ledger())
    unknown = document(event(status=EventStatus.UNKNOWN))
    assert not cancelled(seen((0, document(event())), (5, unknown), (9, document())), Ledger())


def test_an_event_that_was_over_before_the_next_outing() -> None:
    """A later outing does not belong to an event that had gone before it began."""
    early = seen((0, document(event())), (3, document()))
    assert told(early, journal((50, "recorded", "app"), (60, "out", "")))["draining"] == "skipped"


def test_the_entry_fills_in_what_the_journal_has_lost() -> None:
    """The journal is bounded; the entry of a VM that is out is not forgotten."""
    references = (EventReference(event_id="e-1", event_type="Reboot", acknowledged_at=at(20)),)
    ledger = Ledger().with_entry(entry(events=references, out_at=at(8)))
    shown = told(seen((0, document(event()))), ledger)
    assert (shown["draining"], shown["out"], shown["acknowledged"]) == (5, 8, 20)


def test_an_event_that_comes_back_was_not_gone() -> None:
    """One document without an event may be a glitch."""
    sighting = seen((0, document(event())), (5, document()), (6, document(event())))
    assert (sighting.gone, sighting.gone_at, sighting.first_seen_at) == (False, None, T0)


def test_sightings_are_bounded() -> None:
    """What is present is never forgotten; of what is gone only the newest."""
    sightings = Sightings()
    for number in range(MOST_SIGHTINGS + 10):
        sightings.saw(document(event("kept"), event(f"E-{number}")), at(number))
    known = [each.event.event_id for each in sightings.known()]
    assert len(known) == MOST_SIGHTINGS
    assert "kept" in known
    assert f"E-{MOST_SIGHTINGS + 9}" in known
    assert "E-0" not in known
    many = document(*(event(f"N-{number}") for number in range(MOST_SIGHTINGS + 5)))
    sightings.saw(many, at(100))
    assert len(sightings.known()) == MOST_SIGHTINGS + 5


def test_events_known_from_the_ledger_alone() -> None:
    """An agent started too late to read an event still shows whom it keeps out."""
    ledger = Ledger().with_entry(entry()).with_entry(entry(vm="web-3", vm_id="/vm/web-3"))
    (found,) = unseen(ledger, (), gone=True)
    assert found.event.resources == ("web-2", "web-3")
    assert found.event.not_before == NOT_BEFORE
    shown = told(found, ledger)
    assert (shown["announced"], shown["draining"], shown["gone"]) == ("done", 5, "done")
    assert (shown["started"], shown["restored"]) == ("skipped", "pending")
    assert unseen(ledger, [seen((0, document(event())))], gone=True) == ()


BY_HAND = EventReference(event_id="R-1", event_type=REQUEST)
ASKED = "by ann until 2030-01-01 13:00 UTC: a new disk"


def test_a_request_made_by_hand() -> None:
    """A request is shown as long as its VM is out: it is never announced, begun or gone."""
    out = Ledger().with_entry(entry(events=(BY_HAND,), out_at=at(8)))
    (found,) = unseen(out, (), gone=True)
    assert (found.event.event_id, found.event.event_type, found.gone) == ("R-1", "Request", False)
    assert worth_showing(found, out, at(10**6))
    lines = ((5, "recorded", "app"), (5, "requested", ASKED), (8, "out", ""))
    assert told(found, journal(*BEFORE, *lines, onto=out)) == {
        "draining": 5,
        "out": 8,
        "restored": "pending",
    }
    back = journal(*lines, *RETURN[:2], onto=Ledger().with_entry(entry(events=(BY_HAND,))))
    assert told(found, back) == {"draining": 5, "out": 8, "restored": 63}


def test_a_vm_that_is_out_by_hand_and_because_of_an_event() -> None:
    """Both are shown, each with what belongs to it."""
    events = (REFERENCE, BY_HAND)
    ledger = journal(*DRAIN, onto=Ledger().with_entry(entry(events=events)))
    by_type = {each.event.event_type: each for each in unseen(ledger, (), gone=False)}
    assert told(by_type["Reboot"], ledger)["acknowledged"] == 20
    assert set(told(by_type["Request"], ledger)) == {"draining", "out", "restored"}


def test_who_asked() -> None:
    """Each request has its own line of the journal, also where a second one followed the first."""
    second = replace(BY_HAND, event_id="R-2")
    before = ((-99, "recorded", "app"), (-99, "requested", "by eve"), (-50, "in service", ""))
    lines = ((5, "requested", ASKED), (6, "requested", "by bob"))
    out = Ledger().with_entry(entry(events=(*entry().events, BY_HAND, second)))
    ledger = journal(*before, *lines, onto=out)
    assert [asked(ledger, "WEB-2", each) for each in ("r-1", "R-2")] == [ASKED, "by bob"]
    assert asked(ledger, "web-2", "E-1") == asked(ledger, "web-3", "R-1") == ""
    shortened = journal(lines[1], onto=out)
    assert [asked(shortened, "web-2", each) for each in ("R-1", "R-2")] == ["", "by bob"]
    assert asked(journal(*before, onto=out), "web-2", "R-1") == ""


def test_what_is_worth_showing() -> None:
    """What is present, what has just gone, and what keeps a VM out."""
    gone = seen((0, document(event())), (10, document()))
    assert worth_showing(seen((0, document(event()))), Ledger(), at(10**6))
    assert worth_showing(gone, Ledger(), at(10) + GONE_SHOWN)
    assert not worth_showing(gone, Ledger(), at(11) + GONE_SHOWN)
    assert worth_showing(gone, Ledger().with_entry(entry()), at(11) + GONE_SHOWN)


@pytest.mark.parametrize(
    ("changes", "phase"),
    [
        ({}, Phase.DRAINING),
        ({"out_at": T0}, Phase.OUT),
        ({"out_at": T0, "events": (replace(REFERENCE, acknowledged_at=T0),)}, Phase.ACKNOWLEDGED),
        ({"restoring_at": T0}, Phase.RESTORING),
        ({"restored_at": T0}, Phase.RESTORING),
    ],
)
def test_an_entry_tells_where_its_vm_is(changes: Mapping[str, Any], phase: Phase) -> None:
    """The phase follows from the entry, and is the same however the VM's name is spelt."""
    ledger = Ledger().with_entry(entry(**changes))
    assert phase_by(ledger, "WEB-2") == VmPhase(vm="WEB-2", phase=phase)


def test_of_whom_the_ledger_says_nothing() -> None:
    """A VM without entry and hold may be in service or unmanaged: that only the leader knows."""
    assert phase_by(Ledger().with_entry(entry()), "web-3") is None


def test_a_hold_is_where_a_vm_stands() -> None:
    """Who is held is shown as held, in rotation or out, and why."""
    hold = Hold(subject="web-2", reason="floor", message="one left", since=T0)
    other = replace(hold, subject="E-1", message="not acknowledged")
    held = VmPhase(vm="WEB-2", phase=Phase.HELD, why="one left")
    assert phase_by(Ledger(holds=(other, hold)), "WEB-2") == held
    assert phase_by(Ledger(holds=(other, hold)).with_entry(entry()), "WEB-2") == held
