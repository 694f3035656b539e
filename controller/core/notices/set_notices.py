"""Notices of the whole set, which its leader sends. Derived on every pass, like the phases.

Level triggered: a pass derives every notice that the state gives cause for, never what changed. An
id is the same for every agent, and the ledger keeps the ids of the notices that were delivered. So
a new leader neither repeats a notice nor loses one.

Nothing here decides anything: no write to ARM or IMDS depends on it.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from controller.core.azure_names import fold
from controller.core.deadlines import deadline_risk
from controller.core.drain_history import Step, Transition, connections_cut
from controller.core.drain_requests import DrainRequest
from controller.core.event_record import EventVerdict, Verdict, lead_text, verdict_text
from controller.core.events import EventDocument, ScheduledEvent
from controller.core.ledger import Entry, Hold, Ledger
from controller.core.notices.event_notices import announcements, cancellations, parts_of
from controller.core.notices.notice import (
    KnownEvent,
    Notice,
    NoticeKind,
    event_parts,
    notice_id,
    utc_text,
)
from controller.core.planning.actions import HoldReason, Plan
from controller.core.policy import Policy
from controller.core.rehearsals import is_test, only_tests

MIN_HOLD_S = 10.0
"""How long a hold or a failing write lasts before its notice, in seconds: most end earlier."""
MAX_OUT_S = 3600.0
"""How long a VM may be out of rotation, in seconds; the alert rule uses the same value."""
FAILURES = frozenset(
    {
        HoldReason.WRITE_FAILED.value,
        HoldReason.NOT_ACKNOWLEDGED.value,
        HoldReason.INVENTORY_UNREAD.value,
        HoldReason.NO_ABLE_AGENT.value,
        HoldReason.EVENT_UNSEEN.value,
    }
)

NOTED = frozenset({HoldReason.VM_GONE.value, HoldReason.LOST.value})
"""The transition that begins such a hold has a notice of its own."""


def current_notices(
    known: tuple[KnownEvent, ...],
    *,
    plan: Plan,
    ledger: Ledger,
    document: EventDocument | None,
    clean_documents: tuple[EventDocument, ...],
    policy: Policy,
    now: datetime,
    requests: Iterable[DrainRequest] = (),
) -> tuple[Notice, ...]:
    """Return every notice that the state gives cause for, delivered or not."""
    events = [event for event in document.events if policy.impacting(event)] if document else []
    at_risk = _at_risk(plan, ledger, document, policy, now)
    found = (
        *announcements(events, ledger, now, at_risk),
        *ledger_notices(ledger),
        *_hold_notices(plan, ledger, now, _Wanted(events, requests, ledger, now)),
        *_risk_notices(at_risk, events, ledger, now),
        *_long_drain_notices(ledger, now),
        *cancellations(known, clean_documents, ledger, now),
    )
    return tuple({each.id: each for each in found}.values())


def ledger_notices(ledger: Ledger) -> tuple[Notice, ...]:
    """Return the notices about the transitions, the verdicts and the entries of the ledger.

    One pass over a large set may note more transitions than the ledger keeps; the entries remain.
    """
    noted = (line for entry in ledger.entries for line in _transitions_of(entry))
    entries = {fold(entry.vm): entry for entry in ledger.entries}
    notices = (
        _transition_notice(line, entries.get(fold(line.vm)), ledger)
        for line in (*ledger.transitions, *noted)
    )
    found: dict[str, Notice] = {}
    for each in (*notices, *map(_verdict_notice, ledger.verdicts)):
        if each is not None:
            found.setdefault(each.id, each)  # the line of the history has the detail
    return tuple(found.values())


VERDICTS: Mapping[str, NoticeKind] = MappingProxyType(
    {
        Verdict.DRAINED: NoticeKind.EVENT_HANDLED,
        Verdict.LATE: NoticeKind.EVENT_LATE,
        Verdict.HIT_IN_ROTATION: NoticeKind.EVENT_HIT,
    }
)
"""The verdicts that have a notice; nothing was to be done for the others."""


def _verdict_notice(found: EventVerdict) -> Notice | None:
    kind = VERDICTS.get(found.verdict)
    if kind is None:
        return None
    instant = found.at.astimezone(UTC).isoformat()
    return Notice(
        kind=kind,
        id=notice_id(kind, found.event_id, found.vm, instant),
        at=found.at,
        text=f"{found.event_type} of {found.vm}: {verdict_text(found)}",
        vm=found.vm,
        event_id=found.event_id,
        event_type=found.event_type,
        not_before=found.not_before,
        test=is_test(found.event_id),
    )


def _transitions_of(entry: Entry) -> Iterator[Transition]:
    """Return the transitions that led to the state of an entry, as far as notices need them."""
    if entry.out_at is not None:
        yield Transition(at=entry.out_at, vm=entry.vm, step=Step.OUT)
    for event in entry.events:
        if event.acknowledged_at is not None:
            at, detail = event.acknowledged_at, event.event_id
            yield Transition(at=at, vm=entry.vm, step=Step.ACKNOWLEDGED, detail=detail)
    if entry.restored_at is not None:
        yield Transition(at=entry.restored_at, vm=entry.vm, step=Step.RESTORED)


def _transition_notice(line: Transition, entry: Entry | None, ledger: Ledger) -> Notice | None:
    deadlines = [each.not_before for each in entry.events if each.not_before] if entry else []
    not_before = min(deadlines, default=None)
    instant = line.at.astimezone(UTC).isoformat()
    event_id = ""
    key: tuple[str, ...] = (line.vm, instant, line.detail)
    match line.step:
        case Step.OUT:
            lead = f", {lead_text(line.at, not_before)}" if not_before else ""
            cut = f", {line.detail}" if connections_cut(line.detail) else ""
            key = (line.vm, instant, "")  # the entry does not have the detail
            kind, text = NoticeKind.VM_DRAINED, f"{line.vm} is out of rotation{lead}{cut}"
        case Step.ACKNOWLEDGED:
            # An acknowledgement is noted for every VM of the event, and is one notice.
            event_id = line.detail
            judged = (each for each in ledger.verdicts if fold(each.event_id) == fold(event_id))
            key = event_parts(event_id, (each.at for each in judged if each.at < line.at))
            kind = NoticeKind.EVENT_ACKNOWLEDGED
            text = f"event {line.detail} is acknowledged: it may start"
        case Step.RESTORED:
            kind = NoticeKind.VM_RESTORED
            text = f"{line.vm} is back in rotation, in every pool that it was removed from"
        case Step.GONE:
            kind, text = NoticeKind.FAILED, f"{line.vm} was deleted while it was out of rotation"
        case Step.FORGOTTEN:
            kind, text = NoticeKind.FAILED, f"{line.vm} is not restored: {line.detail}"
        case Step.MEMBERSHIP_DROPPED:
            kind = NoticeKind.FAILED
            text = f"{line.vm} is not restored to every pool: {line.detail}"
        case Step.END_REPORTED:
            kind = NoticeKind.EVENT_ENDED
            text = f"Azure reports the end of {line.detail.replace(': ', ', ')} ({line.vm})"
        case Step.MEMBERSHIP_LOST:
            kind = NoticeKind.FAILED
            text = f"{line.vm} cannot be restored to every pool now: {line.detail}"
        case _:
            return None
    return Notice(
        kind=kind,
        id=notice_id(kind, *key),
        at=line.at,
        text=text,
        vm=line.vm,
        event_id=event_id,
        not_before=not_before,
        test=entry is not None and only_tests(entry.events),
    )


class _Wanted:
    """Why VMs should be out of rotation: the events in the document and the requests in force."""

    def __init__(
        self,
        events: Iterable[ScheduledEvent],
        requests: Iterable[DrainRequest],
        ledger: Ledger,
        now: datetime,
    ) -> None:
        self._events, self._ledger = tuple(events), ledger
        self._requests = tuple(each for each in requests if each.is_active(now))

    def for_tests(self, hold: Hold) -> bool:
        """Return whether a hold concerns rehearsals alone.

        After a rehearsal it does not: a VM that cannot be restored is a problem of the set.
        """
        vms = hold.vms or (hold.subject,)
        return is_test(hold.subject) or all(map(self._for_tests, vms))

    def _for_tests(self, vm: str) -> bool:
        ids = [each.event_id for each in self._events if each.affects(vm)]
        ids += [each.request_id for each in self._requests if fold(each.vm) == fold(vm)]
        entry = self._ledger.entry(vm)
        before = [each.event_id for each in entry.events] if entry else []
        return bool(ids) and all(map(is_test, (*ids, *before)))


def _hold_notices(plan: Plan, ledger: Ledger, now: datetime, wanted: _Wanted) -> Iterator[Notice]:
    names = {fold(each.vm): each.vm for each in plan.phases}
    for hold in ledger.holds:
        lasted_s = (now - hold.since).total_seconds()
        if lasted_s < MIN_HOLD_S or hold.reason in NOTED:
            continue
        kind = NoticeKind.FAILED if hold.reason in FAILURES else NoticeKind.HELD
        yield Notice(
            kind=kind,
            id=notice_id(kind, hold.subject, hold.reason, hold.since.astimezone(UTC).isoformat()),
            at=hold.since,
            text=hold.message,
            vm=names.get(fold(hold.subject), ""),
            test=wanted.for_tests(hold),
        )


def _at_risk(
    plan: Plan, ledger: Ledger, document: EventDocument | None, policy: Policy, now: datetime
) -> tuple[str, ...]:
    since = ledger.leader_since
    if not plan.phases and since is not None and (now - since).total_seconds() < MIN_HOLD_S:
        return ()  # a new leader has not read the set yet
    return deadline_risk(plan, ledger, document, policy, now).vms


def _risk_notices(
    vms: Iterable[str], events: list[ScheduledEvent], ledger: Ledger, now: datetime
) -> Iterator[Notice]:
    for vm in vms:  # each is a resource of one of the events
        mine = sorted((each for each in events if each.affects(vm)), key=lambda e: fold(e.event_id))
        deadlines = [each.not_before for each in mine if each.not_before]
        not_before = min(deadlines, default=None)
        parts = (part for each in mine for part in parts_of(each, ledger))
        begins = (
            f"may begin at {utc_text(not_before)}"
            if not_before and not_before > now
            else "may have begun"
        )
        yield Notice(
            kind=NoticeKind.AT_RISK,
            id=notice_id(NoticeKind.AT_RISK, vm, *parts),
            at=now,
            text=f"{vm} is still in rotation and its maintenance {begins}",
            vm=vm,
            event_id=mine[0].event_id,
            event_type=mine[0].event_type,
            not_before=not_before,
        )


def _long_drain(entry: Entry) -> str:
    """Return since when a VM is out of rotation; one that was not observed out is not."""
    if entry.out_at is not None:
        return f"{entry.vm} has been out of rotation since {utc_text(entry.out_at)}"
    return f"{entry.vm} is still in a pool, and its drain began at {utc_text(entry.recorded_at)}"


def _long_drain_notices(ledger: Ledger, now: datetime) -> Iterator[Notice]:
    for entry in ledger.entries:
        out_s = (now - entry.recorded_at).total_seconds()
        if entry.gone or entry.over or out_s < MAX_OUT_S:
            continue
        since = entry.recorded_at.astimezone(UTC).isoformat()
        yield Notice(
            kind=NoticeKind.OUT_TOO_LONG,
            id=notice_id(NoticeKind.OUT_TOO_LONG, entry.vm, since),
            at=now,
            text=_long_drain(entry),
            vm=entry.vm,
        )
