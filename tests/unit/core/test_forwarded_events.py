"""What an agent forwards of the events that only it sees, and what the leader makes of it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from controller.core.events import EventDocument, EventStatus, ScheduledEvent
from controller.core.forwarded_events import (
    MOST_EVENTS,
    STANDS_FOR,
    ForwardedEvent,
    ForwardedEvents,
    events_of,
    forwarded,
    merged,
    to_forward,
)
from controller.errors import ContractViolation
from controller.storage.forwarded_events_store import (
    MAX_BODY_BYTES,
    bounded,
    decode_forwarded,
    encode_forwarded,
    forwarded_blob_name,
)
from tests.support.planner_scenario import at, event

REBOOT = event("web-2", "web-3", event_id="E-1")
OTHER = event("web-2", event_id="E-2")
BLOB = forwarded_blob_name("s/rg/flex.json", "Web-2")


CLEAN = EventDocument(incarnation=2)


def shows(*events: ScheduledEvent) -> EventDocument:
    """Return a document with these events."""
    return EventDocument(incarnation=1, events=events)


def of_web_2(
    before: tuple[ForwardedEvent, ...],
    shown: tuple[ScheduledEvent, ...],
    clean: tuple[EventDocument, ...],
    unrecorded: tuple[ScheduledEvent, ...] = (),
) -> tuple[ForwardedEvent, ...]:
    """Return what the agent of web-2 forwards."""
    return to_forward(before, shown, clean, vm="WEB-2", unrecorded=unrecorded)


def test_an_event_is_forwarded_until_it_is_over() -> None:
    """S6: it is over when neither of two clean documents shows it, each event by itself."""
    first = of_web_2((), (REBOOT, OTHER), (shows(REBOOT, OTHER),))
    assert first == (forwarded(REBOOT, ("web-2",)), forwarded(OTHER, ("web-2",)))
    for clean in ((), (CLEAN,), (shows(REBOOT, OTHER), CLEAN)):
        assert of_web_2(first, (), clean) == first
    assert of_web_2(first, (OTHER,), (shows(OTHER), shows(OTHER))) == first[1:]
    assert of_web_2(first, (), (CLEAN, CLEAN)) == ()


def test_what_other_agents_forward_is_not_forwarded_again() -> None:
    """S6: the document of a leader has it, also when its own agent has read the end."""
    first = of_web_2((), (REBOOT,), (shows(REBOOT),))
    echo = shows(replace(REBOOT, forwarded=True, acknowledgeable=False))
    assert of_web_2(first, (), (echo, echo)) == ()


def test_an_event_is_forwarded_as_it_is_now() -> None:
    """Whatever the case of its id."""
    first = of_web_2((), (REBOOT,), (shows(REBOOT),))
    started = replace(REBOOT, event_id="e-1", status=EventStatus.STARTED, not_before=None)
    [news] = of_web_2(first, (started,), (shows(REBOOT), shows(started)))
    assert news.status == "Started"


def test_an_event_of_another_vm_is_forwarded_if_the_leader_does_not_record_it() -> None:
    """S7: the agent of that VM may have failed. Once forwarded, it stays as any other."""
    third = event("web-3", event_id="E-3")
    both = (REBOOT, third)
    assert of_web_2((), both, ()) == (forwarded(REBOOT, ("web-2",)),)
    lacking = (replace(REBOOT, resources=("WEB-3",)), third)
    first = of_web_2((), both, (), lacking)
    assert [each.vms for each in first] == [("web-2", "web-3"), ("web-3",)]
    assert of_web_2(first, both, (shows(*both), shows(*both))) == first
    found = ForwardedEvents(vm="web-2", at=at(0), events=first)
    assert [each.resources for each in events_of(found, at(0), at(0))] == [
        ("web-2", "web-3"),
        ("web-3",),
    ]


def test_of_events_with_one_id_the_first_counts() -> None:
    """S7: both events affect the VM, and the leader knows them by their id."""
    soon, late = event("web-2", not_before=300), event("web-2", "web-3", not_before=900)
    for shown in ((soon, late), (late, soon)):
        [found] = of_web_2((), shown, ())
        assert found == forwarded(soon, ("web-2",))
    begun = replace(soon, status=EventStatus.STARTED, not_before=None)
    lacking = (replace(late, resources=("web-3",)),)
    [found] = of_web_2((), (begun, late), (), lacking)
    assert (found.status, set(found.vms)) == ("Started", {"web-2", "web-3"})


def test_what_an_older_agent_forwards_is_for_its_own_vm() -> None:
    """The leader does not acknowledge what it does not see; the event counts for a while."""
    found = ForwardedEvents(vm="web-2", at=at(0), events=(forwarded(REBOOT, ()),))
    [seen] = events_of(found, at(0), at(0))
    assert seen == replace(REBOOT, resources=("web-2",), acknowledgeable=False, forwarded=True)
    assert REBOOT.not_before is not None
    assert events_of(found, at(0), REBOOT.not_before + STANDS_FOR - timedelta(seconds=1))
    assert events_of(found, at(0), REBOOT.not_before + STANDS_FOR) == ()


def test_a_started_event_counts_from_when_storage_received_it() -> None:
    """S6: the clock of a VM that has just started can be an hour off."""
    started = replace(REBOOT, status=EventStatus.STARTED, not_before=None)
    found = ForwardedEvents(vm="web-2", at=at(-3600), events=(forwarded(started, ()),))
    assert events_of(found, at(0), at(0) + STANDS_FOR - timedelta(seconds=1))
    assert events_of(found, at(0), at(0) + STANDS_FOR) == ()


def test_one_event_of_several_agents_names_the_vms_of_all() -> None:
    """It is one event, whatever the case of its id."""
    one, two = replace(REBOOT, resources=("web-2",)), replace(REBOOT, resources=("web-3",))
    [event_of_both] = merged((one, replace(two, event_id="e-1")))
    assert event_of_both.resources == ("web-2", "web-3")
    begun = replace(two, status=EventStatus.STARTED, not_before=None)
    for events in ((one, begun), (begun, one)):
        assert [each.status for each in merged(events)] == [EventStatus.STARTED]
    [once] = merged((one, replace(one, resources=("WEB-2",))))
    assert len(once.resources) == 1


def test_the_blob_is_read_as_it_was_written() -> None:
    """With every field, and without events as well."""
    for events in ((forwarded(REBOOT, ("web-2",)), forwarded(OTHER, ())), ()):
        found = ForwardedEvents(vm="web-2", at=at(3), events=events)
        assert decode_forwarded(encode_forwarded(found), BLOB) == found


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"version": "2.0", "vm": "web-2", "at": "2026-01-01T00:00:00+00:00"}',
        encode_forwarded(ForwardedEvents(vm="web-3", at=at(0))),
        b" " * 300_000,
    ],
    ids=["empty", "no object", "a newer format", "another VM", "too large"],
)
def test_what_is_no_list_of_events_is_refused(body: bytes) -> None:
    """S3: an agent cannot speak for another VM."""
    with pytest.raises(ContractViolation):
        decode_forwarded(body, BLOB)


def test_of_very_many_events_those_of_the_own_vm_are_forwarded() -> None:
    """S7: other agents may not know them; then what begins first counts."""
    others = [event("web-3", event_id=f"E-{n}", not_before=n) for n in range(MOST_EVENTS)]
    own = event("web-2", event_id="own", not_before=9000)
    found = of_web_2((), (*others, own), (shows(*others, own),), unrecorded=tuple(others))
    assert [each.event_id for each in found] == ["own", *(f"E-{n}" for n in range(99))]


def test_more_than_a_leader_reads_is_never_written() -> None:
    """S7: a blob that is too large is refused as a whole, with the events of its VM."""
    many = tuple(f"web-{n:060}" for n in range(5000))
    own = forwarded(event("Web-2", event_id="own"), ("Web-2", *many))
    others = tuple(forwarded(event(event_id=f"E-{n}"), many) for n in range(3))
    found = ForwardedEvents(vm="web-2", at=at(0), events=(own, *others))
    with pytest.raises(ContractViolation):
        decode_forwarded(encode_forwarded(found), BLOB)
    body = encode_forwarded(bounded(found))
    assert len(body) <= MAX_BODY_BYTES
    read = decode_forwarded(body, BLOB)
    assert [(each.event_id, each.vms) for each in read.events] == [("own", ("web-2",))]
    small = replace(found, events=(own, others[0]))
    small = replace(small, events=tuple(replace(each, vms=each.vms[:9]) for each in small.events))
    assert bounded(small) == small
