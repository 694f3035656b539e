"""Which events a leader knows after a pass, and which events were cancelled."""

from dataclasses import replace

import pytest

from controller.core.drain_history import Step
from controller.core.event_record import EventVerdict, Verdict, WatchedEvent, WatchedVm
from controller.core.events import EventDocument, ScheduledEvent
from controller.core.ledger import Entry, EventReference, Ledger
from controller.core.notices.event_notices import follow_events
from controller.core.notices.notice import KnownEvent, Notice, NoticeKind
from controller.core.notices.set_notices import current_notices, ledger_notices
from controller.core.policy import Floor
from tests.support.planner_scenario import (
    APP,
    PlannerScenario,
    at,
    event,
    membership,
    started,
    vm_id,
)
from tests.support.policies import make_policy

POLICY = make_policy(pools={APP: Floor(number=1)})
KNOWN = KnownEvent(
    event_id="E-1", event_type="Reboot", vms=("web-1",), not_before=at(600), begun=False
)
BEGUN = replace(KNOWN, begun=True)


def documents(*polls: list[ScheduledEvent]) -> tuple[EventDocument, ...]:
    return tuple(EventDocument(incarnation=1, events=tuple(events)) for events in polls)


def followed(
    *known: KnownEvent,
    polls: tuple[EventDocument, ...],
    ledger: Ledger | None = None,
    delivered: frozenset[str] = frozenset(),
    now: float = 0,
) -> tuple[KnownEvent, ...]:
    return follow_events(
        known,
        ledger=ledger or Ledger(),
        clean_documents=polls,
        policy=POLICY,
        delivered=delivered,
        now=at(now),
    )


def seen(
    *known: KnownEvent,
    polls: tuple[EventDocument, ...],
    document: EventDocument | None,
    ledger: Ledger | None = None,
) -> tuple[Notice, ...]:
    return current_notices(
        known,
        plan=PlannerScenario().plan(),
        ledger=ledger or Ledger(),
        document=document,
        clean_documents=polls,
        policy=POLICY,
        now=at(5),
    )


def noting(what: str, detail: str) -> Ledger:
    return Ledger().noting(at=at(1), vm="web-1", step=Step(what), detail=detail)


def recorded(reference: EventReference) -> Ledger:
    entry = Entry(
        vm="web-1",
        vm_id=vm_id("web-1"),
        events=(reference,),
        memberships=(membership("web-1"),),
        recorded_at=at(0),
    )
    return Ledger().with_entry(entry)


def test_an_event_is_known_as_in_the_newest_clean_document() -> None:
    """Type, resources and NotBefore are those of the last document, not of the one before."""
    old, new = event("web-1", not_before=300), event("web-1", "web-2", event_type="Redeploy")
    assert followed(polls=documents([old], [new])) == (
        KnownEvent(
            event_id="E-1",
            event_type="Redeploy",
            vms=("web-1", "web-2"),
            not_before=at(600),
            begun=False,
        ),
    )


def test_an_event_stays_known_as_not_begun() -> None:
    """An event that was there before and is still only announced has not begun."""
    assert followed(KNOWN, polls=documents([event()])) == (KNOWN,)


def test_an_event_without_a_deadline_has_not_begun() -> None:
    """Azure may leave NotBefore empty: such an event is announced, and not due."""
    [known] = followed(polls=documents([event(not_before=None)]))
    assert not known.begun


@pytest.mark.parametrize("event_id", ["E-1", "e-1"])
def test_what_has_begun_stays_begun(event_id: str) -> None:
    """A document that shows an event as scheduled again, in any spelling, changes nothing."""
    again = event(event_id=event_id, not_before=None)
    [known] = followed(BEGUN, polls=documents([again]))
    assert known.begun


@pytest.mark.parametrize("event_id", ["E-1", "e-1"])
def test_one_event_in_two_spellings_is_known_once(event_id: str) -> None:
    """An event that is there is not counted among the absent ones as well."""
    [known] = followed(KNOWN, polls=documents([event(event_id=event_id)]))
    assert known.event_id == event_id


def test_an_event_that_policy_ignores_is_not_followed() -> None:
    """A freeze of two seconds that leaves the document is no cancelled maintenance."""
    assert followed(polls=documents([event(event_type="Freeze", duration_s=2)])) == ()


def test_without_a_clean_document_all_stays_as_it_was() -> None:
    """When nothing could be read, nothing is forgotten and nothing learned."""
    assert followed(KNOWN, BEGUN, polls=()) == (KNOWN, BEGUN)


@pytest.mark.parametrize("known", [KNOWN, BEGUN])
def test_one_clean_document_without_an_event_is_not_enough(known: KnownEvent) -> None:
    """An event that is missing from one document stays known, as it was."""
    assert followed(known, polls=documents([])) == (known,)


def test_an_event_that_began_is_forgotten_when_it_is_gone() -> None:
    """It is over, and no notice about it remains."""
    assert followed(BEGUN, polls=documents([], [])) == ()


@pytest.mark.parametrize("detail", ["E-1", "e-1"])
@pytest.mark.parametrize("there", [True, False])
def test_an_acknowledged_event_has_begun(there: bool, detail: str) -> None:
    """From the acknowledgement on it may start, whether or not a document still shows it."""
    polls = documents([event()] if there else [])
    [known] = followed(KNOWN, polls=polls, ledger=noting("acknowledged", detail))
    assert known.begun


def test_the_ledger_notes_other_things_of_an_event_than_its_acknowledgement() -> None:
    """Only an acknowledgement that took place, in a transition or in an entry, begins an event."""
    polls = documents([event()])
    ledgers = (
        noting("forgotten", "E-1"),
        recorded(EventReference(event_id="E-1", event_type="Reboot", not_before=at(600))),
    )
    for ledger in ledgers:
        assert followed(KNOWN, polls=polls, ledger=ledger) == (KNOWN,)


def test_an_event_has_begun_at_its_deadline_or_when_it_starts() -> None:
    """Azure may start it from NotBefore on."""
    polls = documents([event()])
    assert [followed(polls=polls, now=now)[0].begun for now in (599, 600)] == [False, True]
    assert followed(polls=documents([started()]))[0].begun


def test_a_cancelled_event_is_described_like_the_one_announced() -> None:
    """Receivers that group by event find VM, id, type and deadline in the message."""
    [notice] = seen(KNOWN, polls=documents([], []), document=EventDocument(incarnation=1))
    assert (notice.kind, notice.vm, notice.event_id) == (NoticeKind.EVENT_CANCELLED, "web-1", "E-1")
    assert (notice.event_type, notice.not_before, notice.at) == ("Reboot", at(600), at(5))


def judged(verdict: Verdict, not_before: float = 600) -> Ledger:
    found = EventVerdict(
        at=at(700),
        vm="web-1",
        event_id="e-1",
        event_type="Reboot",
        verdict=verdict,
        not_before=at(not_before),
    )
    return Ledger(verdicts=(found,))


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_notice_of_a_cancellation_says_what_the_verdict_says(verdict: Verdict) -> None:
    """No agent may have read the document while the event began and ended: a VM that was hit in
    rotation was reported as cancelled as well."""
    ledger, polls = judged(verdict), documents([], [])
    known = followed(KNOWN, polls=polls, ledger=ledger, now=700)
    kinds = {each.kind for each in seen(*known, polls=polls, document=polls[0], ledger=ledger)}
    assert (NoticeKind.EVENT_CANCELLED in kinds) is (verdict is Verdict.CANCELLED)


def test_the_verdict_on_an_earlier_event_with_the_id_says_nothing() -> None:
    """Azure uses an id again: it is another event if its NotBefore differs."""
    polls = documents([], [])
    known = followed(KNOWN, polls=polls, ledger=judged(Verdict.DRAINED, not_before=0))
    assert known == (KNOWN,)


def test_a_second_event_with_the_id_of_an_earlier_one_has_notices_of_its_own() -> None:
    """Azure uses an id again. All notices about the second event counted as delivered."""
    first, none = documents([event()])[0], documents([], [])
    second = documents([event(not_before=9000)])[0]
    begun = replace(started(), not_before=None)
    earlier = judged(Verdict.CANCELLED)
    watched = WatchedEvent(
        event_id="e-1", event_type="Reboot", first_seen_at=at(800), not_before=at(9000)
    )
    later = replace(KNOWN, not_before=at(9000))
    ids = [
        {each.id for each in seen(*known, polls=polls, document=document, ledger=ledger)}
        for known, polls, document, ledger in (
            ((KNOWN,), (), first, Ledger()),
            ((KNOWN,), none, none[0], earlier),
            ((), (), documents([begun])[0], Ledger()),
            ((later,), (), second, replace(earlier, events=(watched,))),
            ((later,), none, none[0], earlier),
            ((), (), documents([begun])[0], replace(earlier, events=(watched,))),
        )
    ]
    assert all(ids)
    of_first, of_second = set().union(*ids[:3]), set().union(*ids[3:])
    assert not of_first & of_second
    assert ids[3] <= ids[5]  # announced is one notice, with and without NotBefore


def test_a_second_acknowledgement_of_an_id_is_a_notice_of_its_own() -> None:
    """Between the two, the first event has got its verdict."""
    ledger = noting("acknowledged", "E-1")
    first = {each.id for each in ledger_notices(ledger)}
    ledger = replace(ledger, verdicts=judged(Verdict.UNMANAGED).verdicts)
    assert {each.id for each in ledger_notices(ledger)} == first
    ledger = ledger.noting(at=at(900), vm="web-1", step=Step.ACKNOWLEDGED, detail="E-1")
    assert len({each.id for each in ledger_notices(ledger)}) == 2


def test_a_cancellation_waits_for_the_verdict() -> None:
    """As long as the ledger watches an event that is gone, nothing is said about its end."""
    watched = WatchedEvent(
        event_id="e-1",
        event_type="Reboot",
        first_seen_at=at(0),
        not_before=at(600),
        vms=(WatchedVm(vm="web-1"),),
    )
    polls = documents([], [])
    found = seen(KNOWN, polls=polls, document=polls[0], ledger=Ledger(events=(watched,)))
    assert found == ()


def test_an_event_that_began_is_not_cancelled() -> None:
    """Gone, it is over."""
    assert seen(BEGUN, polls=documents([], []), document=EventDocument(incarnation=1)) == ()


def test_before_the_first_document() -> None:
    """An agent that has not read a document yet has no notices about events."""
    assert seen(polls=(), document=None) == ()


def test_an_event_is_received_and_started_with_its_fields() -> None:
    """Both notices name VM, id and type, and the deadline while there is one."""
    [received] = seen(polls=(), document=documents([event("web-1", "web-2")])[0])
    assert (received.vm, received.event_id) == ("web-1, web-2", "E-1")
    assert (received.event_type, received.not_before) == ("Reboot", at(600))
    without_vms = replace(started(), resources=())
    _, notice = seen(polls=(), document=documents([without_vms])[0])
    assert (notice.kind, notice.vm, notice.event_id) == (NoticeKind.EVENT_STARTED, "no VM", "E-1")
    assert (notice.event_type, notice.text) == ("Reboot", "Reboot of no VM has started")
