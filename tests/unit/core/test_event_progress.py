"""What became of a VM in an event, from the journal and from what was read."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.core.drain_history import Step
from controller.core.drain_requests import DRAIN_REQUEST
from controller.core.event_progress import (
    MAX_SEEN_EVENTS,
    SHOWN_WHEN_GONE,
    STEPS,
    SeenEvent,
    SeenEvents,
    is_shown,
    requested_by,
    steps,
    unseen_events,
    was_cancelled,
)
from controller.core.events import EventDocument, EventStatus, ScheduledEvent, SetAside
from controller.core.ledger import Entry, EventReference, Ledger

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
        ledger = ledger.noting(at=at(seconds), vm=vm, step=Step(what), detail=detail)
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


def progress(sighting: SeenEvent, ledger: Ledger, vm: str = "web-2") -> dict[str, object]:
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


def seen(*moments: tuple[float, EventDocument]) -> SeenEvent:
    events = SeenEvents()
    for seconds, each in moments:
        events.record(each, at(seconds))
    return next(known for known in events.known() if known.event.event_id == "E-1")


STARTED = document(event(status=EventStatus.STARTED))


def test_a_whole_maintenance() -> None:
    """Each step has the time at which it was read or written, and NotBefore is remembered."""
    sighting = seen((0, document(event())), (30, STARTED), (31, STARTED), (55, document()))
    assert progress(sighting, journal(*BEFORE, *DRAIN, *RETURN)) == {
        "announced": 0,
        "draining": 5,
        "out": 8,
        "acknowledged": 20,
        "started": 30,
        "gone": 55,
        "restored": 63,
    }
    assert sighting.event.not_before == NOT_BEFORE
    assert tuple(progress(sighting, Ledger())) == STEPS


def test_what_is_still_to_come() -> None:
    """Before anything was done every step but the first is pending, whatever happened earlier."""
    sighting = seen((0, document(event())))
    pending = dict.fromkeys(STEPS, "pending")
    assert progress(sighting, journal(*BEFORE)) == {**pending, "announced": 0}
    assert progress(sighting, journal((5, "recorded", "app"), vm="web-1")) == {
        **pending,
        "announced": 0,
    }


def test_what_did_not_happen() -> None:
    """A cancelled event was never drained for; one that started is not acknowledged."""
    cancelled = seen((0, document(event())), (9, document()))
    assert progress(cancelled, Ledger()) == {
        **dict.fromkeys(STEPS, "skipped"),
        "announced": 0,
        "gone": 9,
    }
    started = progress(seen((0, STARTED)), journal((1, "recorded", "app")))
    assert started["acknowledged"] == "skipped"
    assert (started["out"], started["started"]) == ("pending", 0)


def test_a_vm_that_did_not_come_back() -> None:
    """What ended without a restore shows none; a VM still out is still to be restored."""
    gone = seen((0, document(event())), (55, document()))
    assert (
        progress(gone, journal(*DRAIN, (70, "forgotten", "deleted: app")))["restored"] == "skipped"
    )
    assert progress(gone, journal(*DRAIN))["restored"] == "pending"


def test_a_second_event_of_a_vm_that_is_out() -> None:
    """An event announced while the VM is out shares its episode, but not its acknowledgement."""
    second = SeenEvent(event=event("E-2"), first_seen_at=at(40))
    shown = progress(second, journal(*BEFORE, *DRAIN))
    assert (shown["draining"], shown["out"], shown["acknowledged"]) == (5, 8, "pending")


def test_what_a_standby_reads_late_has_no_time() -> None:
    """No timeline runs backwards: what was read after the leader acted on it is just done."""
    sighting = seen((-6, document()), (9, document(event())), (54, STARTED), (69, document()))
    ledger = journal(*BEFORE, *DRAIN, (50, "restoring", ""), (53, "restored", ""))
    assert progress(sighting, ledger) == {
        "announced": "done",
        "draining": 5,
        "out": 8,
        "acknowledged": 20,
        "started": "done",
        "gone": "done",
        "restored": 53,
    }
    first = seen((9, document(event())))
    assert progress(first, journal(*DRAIN))["announced"] == "done", "no document was read before"


def test_a_second_event_was_announced_when_it_was_read() -> None:
    """Of a VM that was out already the leader did not act on the event before it was announced."""
    sighting = seen((0, document()), (30, document()), (45, document(event())))
    assert progress(sighting, journal(*DRAIN))["announced"] == 45


def test_what_was_cancelled() -> None:
    """Cancelled is what was seen to go before it could begin: not started, acknowledged or due."""
    gone = seen((0, document(event())), (9, document()))
    assert was_cancelled(gone, journal((5, "recorded", "app"), (8, "out", "")))
    assert was_cancelled(gone, journal((8, "acknowledged", "E-2")))
    assert not was_cancelled(gone, journal((8, "acknowledged", "e-1")))
    reference = EventReference(event_id="e-1", event_type="Reboot", acknowledged_at=at(8))
    assert not was_cancelled(gone, Ledger().with_entry(entry(events=(reference,))))
    assert not was_cancelled(seen((0, document(event()))), Ledger())
    assert not was_cancelled(seen((0, document(event())), (5, STARTED), (9, document())), Ledger())
    assert not was_cancelled(seen((0, document(event())), (600, document())), Ledger())
    assert not was_cancelled(seen((0, document(event())), (21, document())), Ledger())
    unknown = document(event(status=EventStatus.UNKNOWN))
    assert not was_cancelled(seen((0, document(event())), (5, unknown), (9, document())), Ledger())


def test_an_event_that_was_over_before_the_next_episode() -> None:
    """A later episode does not belong to an event that was gone before it began."""
    early = seen((0, document(event())), (3, document()))
    assert (
        progress(early, journal((50, "recorded", "app"), (60, "out", "")))["draining"] == "skipped"
    )


def test_the_entry_fills_in_what_the_journal_has_lost() -> None:
    """The journal is bounded; the entry of a VM that is out is not forgotten."""
    references = (EventReference(event_id="e-1", event_type="Reboot", acknowledged_at=at(20)),)
    ledger = Ledger().with_entry(entry(events=references, out_at=at(8)))
    shown = progress(seen((0, document(event()))), ledger)
    assert (shown["draining"], shown["out"], shown["acknowledged"]) == (5, 8, 20)


def test_an_acknowledgement_is_that_of_its_event_in_any_spelling() -> None:
    """Of two events of one entry each has its own acknowledgement, however the ids are spelled."""
    references = (
        EventReference(event_id="e-2", event_type="Freeze", acknowledged_at=at(25)),
        EventReference(event_id="E-1", event_type="Reboot", acknowledged_at=at(20)),
    )
    ledger = Ledger().with_entry(entry(events=references, out_at=at(8)))
    assert progress(seen((0, document(event()))), ledger)["acknowledged"] == 20
    second = SeenEvent(event=event("E-2"), first_seen_at=at(0))
    assert progress(second, ledger)["acknowledged"] == 25


def test_an_event_that_comes_back_was_not_gone() -> None:
    """One document without an event may be a glitch."""
    sighting = seen((0, document(event())), (5, document()), (6, document(event())))
    assert (sighting.gone, sighting.gone_at, sighting.first_seen_at) == (False, None, T0)


def test_sightings_are_bounded() -> None:
    """What is present is never forgotten; of what is gone only the newest."""
    events = SeenEvents()
    for number in range(MAX_SEEN_EVENTS + 10):
        events.record(document(event("kept"), event(f"E-{number}")), at(number))
    known = [each.event.event_id for each in events.known()]
    assert len(known) == MAX_SEEN_EVENTS
    assert "kept" in known
    assert f"E-{MAX_SEEN_EVENTS + 9}" in known
    assert "E-0" not in known
    many = document(*(event(f"N-{number}") for number in range(MAX_SEEN_EVENTS + 5)))
    events.record(many, at(100))
    assert len(events.known()) == MAX_SEEN_EVENTS + 5


def test_events_known_from_the_ledger_alone() -> None:
    """An agent started too late to read an event still shows whom it keeps out."""
    ledger = Ledger().with_entry(entry()).with_entry(entry(vm="web-3", vm_id="/vm/web-3"))
    (found,) = unseen_events(ledger, (), gone=True)
    assert found.event.resources == ("web-2", "web-3")
    assert found.event.not_before == NOT_BEFORE
    shown = progress(found, ledger)
    assert (shown["announced"], shown["draining"], shown["gone"]) == ("done", 5, "done")
    assert (shown["started"], shown["restored"]) == ("skipped", "pending")
    assert unseen_events(ledger, [seen((0, document(event())))], gone=True) == ()


BY_HAND = EventReference(event_id="R-1", event_type=DRAIN_REQUEST)
ASKED = "by ann until 2030-01-01 13:00 UTC: a new disk"


def test_a_request_made_by_hand() -> None:
    """A request is shown as long as its VM is out: it is never announced, begun or gone."""
    out = Ledger().with_entry(entry(events=(BY_HAND,), out_at=at(8)))
    (found,) = unseen_events(out, (), gone=True)
    assert (found.event.event_id, found.event.event_type, found.gone) == ("R-1", "Request", False)
    assert is_shown(found, out, at(10**6))
    lines = ((5, "recorded", "app"), (5, "requested", ASKED), (8, "out", ""))
    assert progress(found, journal(*BEFORE, *lines, onto=out)) == {
        "draining": 5,
        "out": 8,
        "restored": "pending",
    }
    back = journal(*lines, *RETURN[:2], onto=Ledger().with_entry(entry(events=(BY_HAND,))))
    assert progress(found, back) == {"draining": 5, "out": 8, "restored": 63}


def test_a_vm_that_is_out_by_hand_and_because_of_an_event() -> None:
    """Both are shown, each with what belongs to it."""
    events = (REFERENCE, BY_HAND)
    ledger = journal(*DRAIN, onto=Ledger().with_entry(entry(events=events)))
    by_type = {each.event.event_type: each for each in unseen_events(ledger, (), gone=False)}
    assert progress(by_type["Reboot"], ledger)["acknowledged"] == 20
    assert set(progress(by_type["Request"], ledger)) == {"draining", "out", "restored"}


def test_who_asked() -> None:
    """Each request has its own line of the journal, also where a second one followed the first."""
    second = replace(BY_HAND, event_id="R-2")
    before = ((-99, "recorded", "app"), (-99, "requested", "by eve"), (-50, "in service", ""))
    lines = ((5, "requested", ASKED), (6, "requested", "by bob"))
    out = Ledger().with_entry(entry(events=(*entry().events, BY_HAND, second)))
    ledger = journal(*before, *lines, onto=out)
    assert [requested_by(ledger, "WEB-2", each) for each in ("r-1", "R-2")] == [ASKED, "by bob"]
    assert requested_by(ledger, "web-2", "E-1") == requested_by(ledger, "web-3", "R-1") == ""
    shortened = journal(lines[1], onto=out)
    assert [requested_by(shortened, "web-2", each) for each in ("R-1", "R-2")] == ["", "by bob"]
    assert requested_by(journal(*before, onto=out), "web-2", "R-1") == ""


def test_what_is_worth_showing() -> None:
    """What is present, what has just gone, and what keeps a VM out."""
    gone = seen((0, document(event())), (10, document()))
    assert is_shown(seen((0, document(event()))), Ledger(), at(10**6))
    assert is_shown(gone, Ledger(), at(10) + SHOWN_WHEN_GONE)
    assert not is_shown(gone, Ledger(), at(11) + SHOWN_WHEN_GONE)
    assert is_shown(gone, Ledger().with_entry(entry()), at(11) + SHOWN_WHEN_GONE)


def test_what_is_shown_of_an_event_without_times() -> None:
    """A gone event that only the ledger mentions is shown as long as one of its VMs is out."""
    gone = SeenEvent(event=event("E-1", "web-2", "web-9"), first_seen_at=None, gone=True)
    assert not is_shown(gone, Ledger(), at(0))
    assert is_shown(gone, Ledger().with_entry(entry()), at(0))


def test_an_event_of_the_ledger_is_not_gone_before_the_first_document() -> None:
    """An agent that has read no document does not know whether the event is in it."""
    (found,) = unseen_events(Ledger().with_entry(entry()), (), gone=False)
    assert not found.gone


def test_an_event_is_one_event_in_any_spelling() -> None:
    """Azure may change the case of an id between two documents."""
    events = SeenEvents()
    events.record(document(event("E-1")), at(0))
    events.record(document(event("e-1", status=EventStatus.STARTED)), at(9))
    (known,) = events.known()
    assert (known.first_seen_at, known.started_at) == (T0, at(9))
    assert events.started() == {"e-1": at(9)}


def test_only_events_that_started_have_a_start() -> None:
    """An event that is only announced is not among the started ones."""
    events = SeenEvents()
    events.record(document(event("E-1"), event("E-2", status=EventStatus.STARTED)), at(3))
    assert events.started() == {"e-2": at(3)}


def test_the_newest_not_before_counts() -> None:
    """Azure may move NotBefore; the value of the newest document is kept."""
    later = replace(event(), not_before=NOT_BEFORE + timedelta(minutes=5))
    assert seen((0, document(event())), (9, document(later))).event == later


def test_an_event_is_gone_since_the_first_document_without_it() -> None:
    """Later documents without the event do not move that time."""
    assert seen((0, document(event())), (5, document()), (9, document())).gone_at == at(5)


def test_no_event_is_gone_while_an_entry_of_the_document_is_unreadable() -> None:
    """Law S6: the entry that was set aside may be this event."""
    unreadable = EventDocument(incarnation=1, set_aside=(SetAside(problem="no status"),))
    assert not seen((0, document(event())), (5, unreadable)).gone


def test_an_event_that_started_was_not_cancelled() -> None:
    """Also when the newest document shows it as scheduled again."""
    again = seen((0, document(event())), (5, STARTED), (6, document(event())), (9, document()))
    assert not was_cancelled(again, Ledger())


def test_an_event_without_not_before_counts_as_begun() -> None:
    """It may begin at any moment, so it cannot be known to be cancelled."""
    open_end = replace(event(), not_before=None)
    assert not was_cancelled(seen((0, document(open_end)), (9, document())), Ledger())


def test_a_request_beside_an_event_keeps_its_own_line() -> None:
    """Only requests have a line of history, whatever the order of the entry's events."""
    out = Ledger().with_entry(entry(events=(BY_HAND, REFERENCE)))
    ledger = journal((5, "requested", ASKED), onto=out)
    assert requested_by(ledger, "web-2", "R-1") == ASKED
    assert requested_by(ledger, "web-2", "E-1") == ""


def test_history_counts_before_the_entry() -> None:
    """The entry is recorded again when its VM is in a pool again; the drain began earlier."""
    ledger = journal(*DRAIN, onto=Ledger().with_entry(entry(recorded_at=at(30))))
    assert progress(seen((0, document(event()))), ledger)["draining"] == 5


def test_an_entry_for_other_events_fills_in_nothing() -> None:
    """A VM that is out because of other events has no step of this one."""
    other = EventReference(event_id="E-9", event_type="Reboot", acknowledged_at=at(9))
    ledger = Ledger().with_entry(entry(events=(other,), out_at=at(8)))
    assert progress(seen((0, document(event()))), ledger)["draining"] == "pending"
    gone = seen((0, document(event())), (3, document()))
    later = journal((50, "recorded", "app"), onto=ledger)
    assert progress(gone, later)["draining"] == "skipped"


@pytest.mark.parametrize("event_id", ["E-1", "e-1"])
def test_each_event_of_an_entry_has_its_own_acknowledgement(event_id: str) -> None:
    """The time comes from the reference to this event, in any spelling."""
    references = (
        EventReference(event_id="E-0", event_type="Reboot", acknowledged_at=at(10)),
        EventReference(event_id=event_id, event_type="Reboot", acknowledged_at=at(20)),
    )
    ledger = Ledger().with_entry(entry(events=references))
    shown = progress(seen((0, document(event()))), ledger)
    assert (shown["draining"], shown["acknowledged"]) == (5, 20)


def test_steps_at_the_same_instant_keep_their_times() -> None:
    """Only a step that was read after the leader acted on it loses its time."""
    prompt = seen((5, document(event())))
    assert progress(prompt, journal(*DRAIN))["announced"] == 5
    unrelated = seen((5, document()), (45, document(event())))
    assert progress(unrelated, journal((5, "recorded", "app")))["announced"] == 45
    together = seen((0, document(event())), (63, STARTED))
    assert progress(together, journal(*DRAIN, *RETURN[:2]))["started"] == 63


def test_the_episode_that_acknowledged_the_event() -> None:
    """It counts before a later episode that acknowledged another event."""
    later = ((100, "recorded", "app"), (110, "out", ""), (120, "acknowledged", "E-2"))
    shown = progress(seen((0, document(event()))), journal(*DRAIN, *RETURN, *later))
    assert (shown["draining"], shown["acknowledged"]) == (5, 20)


def test_the_episode_in_progress_because_of_the_event() -> None:
    """It counts although the rest of its history begins after the event was gone."""
    gone = seen((0, document(event())), (30, document()))
    others = (EventReference(event_id="E-0", event_type="Reboot"), REFERENCE)
    out = Ledger().with_entry(entry(events=others))
    assert progress(gone, journal(*RETURN[:2], onto=out))["restored"] == 63


@pytest.mark.parametrize(
    ("gone_s", "lines", "draining"),
    [
        (None, ((5, "recorded", "app"), *RETURN), 5),  # ended after the event was announced
        (None, ((-9, "recorded", "app"), (-1, "out", ""), (5, "in service", "")), -9),
        (None, ((-9, "recorded", "app"), (0, "in service", "")), -9),  # at the same instant
        (None, ((-9, "recorded", "app"), (-1, "in service", "")), "pending"),  # before
        (30, ((5, "recorded", "app"), (40, "out", "")), 5),  # began before the event was gone
        (30, ((30, "recorded", "app"), (40, "out", "")), 30),  # at the same instant
        (30, ((31, "recorded", "app"), (40, "out", "")), "skipped"),  # after
    ],
)
def test_the_episode_of_an_event_that_nothing_else_names(
    gone_s: float | None, lines: tuple[tuple[float, str, str], ...], draining: object
) -> None:
    """It began before the event was gone and did not end before the event was announced."""
    gone = () if gone_s is None else ((gone_s, document()),)
    found = seen((0, document(event())), *gone)
    assert progress(found, journal(*lines))["draining"] == draining


def test_the_episode_of_an_event_that_was_never_read() -> None:
    """Without a first time no episode ended before it."""
    unread = SeenEvent(event=event(), first_seen_at=None, gone=True)
    assert progress(unread, journal((5, "recorded", "app"), *RETURN))["draining"] == 5


def test_how_long_and_how_many_events_are_kept() -> None:
    """A gone event is shown for 15 minutes, and 50 events are kept."""
    assert timedelta(minutes=15) == SHOWN_WHEN_GONE
    assert MAX_SEEN_EVENTS == 50


@pytest.mark.parametrize("not_before", [NOT_BEFORE, NOT_BEFORE + timedelta(hours=1), None])
def test_an_event_that_returns_was_not_gone(not_before: datetime | None) -> None:
    """V1: unless it has another NotBefore: then its id is used again for another event."""
    returned = replace(event(), not_before=not_before)
    sighting = seen(
        (0, document(event())), (30, STARTED), (40, document()), (60, document(returned))
    )
    again = not_before not in (NOT_BEFORE, None)
    assert (sighting.started_at, sighting.first_seen_at) == (
        (None, at(60)) if again else (at(30), at(0))
    )
