"""Notices about scheduled events: announced, started, cancelled.

That an event was cancelled shows only by its absence, so the events that were in the document are
kept in the ledger. An agent that leads after a restart knows them from there, and from nowhere
else: it has not read the earlier documents. An event can also have begun and ended while no agent
read the document: its verdict states whether it did.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from controller.core.azure_names import fold
from controller.core.event_record import Verdict
from controller.core.events import (
    CLEAN_DOCUMENTS,
    EventDocument,
    EventStatus,
    ScheduledEvent,
    may_be_same,
)
from controller.core.ledger import Ledger
from controller.core.notices.notice import (
    KnownEvent,
    Notice,
    NoticeKind,
    event_parts,
    notice_id,
    utc_text,
    vm_names,
)
from controller.core.policy import Policy
from controller.core.rehearsals import is_test

MAX_EVENTS = 100
"""How many events are kept in the ledger."""


def follow_events(
    known: tuple[KnownEvent, ...],
    *,
    ledger: Ledger,
    clean_documents: tuple[EventDocument, ...],
    policy: Policy,
    delivered: frozenset[str],
    now: datetime,
) -> tuple[KnownEvent, ...]:
    """Return the known events after this pass.

    As for a restore (law S6), an event is gone when two clean polls lack it. One that was cancelled
    is kept until its notice was delivered.
    """
    if not clean_documents:
        return known
    before = {fold(each.event_id): each for each in known}
    acknowledged_at = ledger.acknowledged_at()

    def acknowledged(event: ScheduledEvent | KnownEvent) -> bool:
        return ledger.acknowledgement_of(event, acknowledged_at) is not None

    def may_have_begun(event: ScheduledEvent) -> bool:
        key = fold(event.event_id)
        return (
            (key in before and before[key].begun)
            or event.status is not EventStatus.SCHEDULED
            or acknowledged(event)
            or (event.not_before is not None and event.not_before <= now)
        )

    present = {
        fold(event.event_id): KnownEvent(
            event_id=event.event_id,
            event_type=event.event_type,
            vms=event.resources,
            not_before=event.not_before,
            begun=may_have_begun(event),
        )
        for event in clean_documents[-1].events
        if policy.impacting(event)
    }
    absent = (
        replace(each, begun=each.begun or acknowledged(each) or _judged_as_begun(each, ledger))
        for key, each in before.items()
        if key not in present
    )
    kept = (
        each
        for each in absent
        if not _is_gone(each, clean_documents)
        or (not each.begun and _cancelled(each, ledger, now).id not in delivered)
    )
    return (*kept, *present.values())[-MAX_EVENTS:]


def announcements(
    events: Iterable[ScheduledEvent], ledger: Ledger, now: datetime, at_risk: Iterable[str] = ()
) -> Iterator[Notice]:
    """Return the notices about the events in the document.

    Args:
        events: the events.
        ledger: with the verdicts on earlier events, whose ids can return.
        now: wall clock, corrected.
        at_risk: VMs in rotation whose maintenance is near or has begun.
    """
    in_rotation = {fold(vm) for vm in at_risk}
    for event in events:
        names, about = vm_names(event.resources), parts_of(event, ledger)
        begins = f", not before {utc_text(event.not_before)}" if event.not_before else ""
        started = event.status is EventStatus.STARTED
        yield Notice(
            kind=NoticeKind.EVENT_ANNOUNCED,
            id=notice_id(NoticeKind.EVENT_ANNOUNCED, *about),
            at=now,
            text=(
                f"{event.event_type} of {names} announced{begins}"
                f"{', it has already started' if started else ''}"
            ),
            vm=names,
            event_id=event.event_id,
            event_type=event.event_type,
            not_before=event.not_before,
            test=is_test(event.event_id),
        )
        if started:
            hit = [vm for vm in event.resources if fold(vm) in in_rotation]
            while_inside = f" while in rotation: {vm_names(hit)}" if hit else ""
            yield Notice(
                kind=NoticeKind.EVENT_STARTED,
                id=notice_id(NoticeKind.EVENT_STARTED, *about),
                at=now,
                text=f"{event.event_type} of {names} has started{while_inside}",
                vm=names,
                event_id=event.event_id,
                event_type=event.event_type,
                problem=bool(hit),
                test=is_test(event.event_id),
            )


def cancellations(
    known: Iterable[KnownEvent],
    clean_documents: tuple[EventDocument, ...],
    ledger: Ledger,
    now: datetime,
) -> Iterator[Notice]:
    """Return the notices about events that are gone and cannot have begun."""
    watched = {fold(each.event_id) for each in ledger.events}
    for event in known:
        undecided = fold(event.event_id) in watched  # its verdict is still to come
        if not event.begun and not undecided and _is_gone(event, clean_documents):
            yield _cancelled(event, ledger, now)


def _judged_as_begun(event: KnownEvent, ledger: Ledger) -> bool:
    return any(
        each.verdict != Verdict.CANCELLED and may_be_same(each, event) for each in ledger.verdicts
    )


def parts_of(event: ScheduledEvent | KnownEvent, ledger: Ledger) -> tuple[str, ...]:
    """Return what identifies an event: its id, and when an earlier one with this id ended."""
    watched = (each for each in ledger.events if fold(each.event_id) == fold(event.event_id))
    known = (each.not_before for each in (event, *watched))  # none in a document once it started
    not_before = next(filter(None, known), None)
    ended = [
        each.at
        for each in ledger.verdicts
        if fold(each.event_id) == fold(event.event_id)
        and None not in {each.not_before, not_before}
        and each.not_before != not_before
    ]
    return event_parts(event.event_id, ended)


def _cancelled(event: KnownEvent, ledger: Ledger, now: datetime) -> Notice:
    names = vm_names(event.vms)
    return Notice(
        kind=NoticeKind.EVENT_CANCELLED,
        id=notice_id(NoticeKind.EVENT_CANCELLED, *parts_of(event, ledger)),
        at=now,
        text=f"{event.event_type} of {names} was cancelled before it started",
        vm=names,
        event_id=event.event_id,
        event_type=event.event_type,
        not_before=event.not_before,
        test=is_test(event.event_id),
    )


def _is_gone(event: KnownEvent, clean_documents: tuple[EventDocument, ...]) -> bool:
    lately = (each.event_id for document in clean_documents for each in document.events)
    return len(clean_documents) >= CLEAN_DOCUMENTS and fold(event.event_id) not in map(fold, lately)
