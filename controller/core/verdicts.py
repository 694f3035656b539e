"""What becomes of scheduled events: which are watched, what happened to them, and the verdicts.

Level triggered, like the planner: a pass derives everything from the event document, the ledger,
the views and the events that this agent has read. What the ledger does not know yet is added to it,
so a new leader continues where its predecessor stopped, and an event that came and went while no
agent led still gets its verdict.

- An event began when it was read as started, when it was acknowledged, or when its NotBefore passed
  before it left the document. It may have begun when it left while this agent did not read it: any
  VM of the set can approve an event. Otherwise it was cancelled.
- As for a restore (law S6), an event is gone when two clean polls lack it.
- An event may name a VM later than others, and is watched for that VM from then on: each agent
  forwards it for its own VM (`forwarded_events`).
- A verdict is final when the event is gone, or after its start as soon as the outcome is known: a
  VM that is out stays out for `CONFIRM_S` first, because a change by another client shows late.
- An event that returns with the same NotBefore was not gone: old documents hid it. The verdicts on
  its end are withdrawn. A forwarded event withdraws no verdict that states when it began: it may be
  a copy that an agent left behind.
- What kept a VM in rotation is noted until the event begins. What happens later is not the cause.

Decides nothing: no write to a NIC, a pool or an event depends on it.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from controller.core.azure_names import fold
from controller.core.cut_connections import also_cut, cut_by_removal, cut_by_start
from controller.core.drain_history import Step
from controller.core.event_progress import SeenEvent
from controller.core.event_record import (
    MAX_VERDICTS,
    MAX_WATCHED_VMS,
    MAX_WHY,
    MISSED,
    EventVerdict,
    Place,
    Verdict,
    WatchedEvent,
    WatchedVm,
    event_label,
)
from controller.core.events import (
    CLEAN_DOCUMENTS,
    EventDocument,
    EventStatus,
    ScheduledEvent,
)
from controller.core.forwarded_events import merged
from controller.core.ledger import MAX_TRANSITIONS, Hold, Ledger
from controller.core.ledger_changes import new_transitions
from controller.core.observation import Observation
from controller.core.planning.actions import Plan
from controller.core.planning.evidence import Evidence
from controller.core.planning.mechanism import Mechanisms
from controller.core.planning.mechanisms import MECHANISMS
from controller.core.policy import Policy
from controller.core.rehearsals import is_test
from controller.core.verdict_rules import (
    MISSED_WITHIN_S,
    announced_detail,
    cause,
    closed_since,
    final,
    is_missed,
    is_over_for,
    is_withdrawn,
    may_begin_at,
    named_now,
    obstacle,
    unjudged,
    was_out,
)

PUT_BACK = "another client put it back into a pool"
NOT_READ = "it left the document while the leader did not read it, and may have begun"


def with_events(
    planned: Plan,
    observed: Observation,
    durable: Ledger,
    policy: Policy,
    now: datetime,
    *,
    seen: Iterable[SeenEvent],
    mechanisms: Mechanisms = MECHANISMS,
    as_recorded: bool = False,
) -> Plan:
    """Return a plan whose ledger has the events and verdicts as they are now.

    Args:
        planned: what the planner decided.
        observed, durable, policy, now, mechanisms: what it decided from.
        seen: the events that this agent has read.
        as_recorded: believe the ledger that a VM is out, whatever the pools show; for a dry run.
    """
    document = observed.document
    lately = [each for each in seen if each.left_within(MISSED_WITHIN_S, now)]
    if document is None or not (document.events or durable.events or lately):
        return planned  # an idle set has nothing to follow (law H1)
    ledger = durable if planned.ledger is None else planned.ledger
    evidence = Evidence(observed, durable, policy, now, mechanisms)
    followed = _Pass(ledger, evidence, (*seen,), planned.holds, as_recorded=as_recorded).result()
    if followed == ledger:
        return planned
    # What Azure did comes first in the history: the agents acted because of it.
    of_planner, of_azure = new_transitions(durable, ledger), new_transitions(ledger, followed)
    history = (*durable.transitions, *of_azure, *of_planner)[-MAX_TRANSITIONS:]
    return replace(planned, ledger=replace(followed, transitions=history))


def ends_soon(ledger: Ledger, document: EventDocument | None) -> bool:
    """Return whether an event left the document and its verdict waits for another poll."""
    present = {fold(each.event_id) for each in document.events} if document else set[str]()
    return any(fold(each.event_id) not in present for each in ledger.events)


def _was_put_back(ledger: Ledger, vm: WatchedVm, place: Place) -> bool:
    """Return whether another client has put a VM back; the leader can have restored it between two
    maintenances."""
    if place is not Place.IN_ROTATION or vm.place != Place.OUT:
        return False
    entry = ledger.entry(vm.vm)
    if entry is None or entry.over:
        return False
    return entry.out_at is not None or entry.closed_at is None


class _Pass:
    """The events of one pass."""

    def __init__(
        self,
        ledger: Ledger,
        evidence: Evidence,
        seen: Iterable[SeenEvent],
        holds: tuple[Hold, ...],
        *,
        as_recorded: bool,
    ) -> None:
        self._ledger, self._evidence, self._holds = ledger, evidence, holds
        self._as_recorded = as_recorded
        self._now, self._observed = evidence.now, evidence.observed
        self._seen = {fold(each.event.event_id): each for each in seen}
        document = self._observed.document
        shown = merged(document.events if document else ())
        self._shown = {fold(each.event_id): each for each in shown}
        self._clean = [
            {fold(event.event_id) for event in document.events}
            for document in self._observed.clean_documents
        ]
        self._acknowledged_at = ledger.acknowledged_at(self._observed.acknowledged)
        self._lines: list[tuple[datetime, WatchedEvent, Step, str]] = []
        self._verdicts: list[EventVerdict] = []
        self._returned: list[ScheduledEvent] = []
        """Events of the document, for VMs for which the ledger does not watch them (any more)."""

    def result(self) -> Ledger:
        """Return the ledger after this pass."""
        watched = [self._after(each) for each in self._watched()]
        kept = tuple(event for event in watched if not (event.gone_at and event.judged))
        ledger = self._ledger
        for at, event, step, detail in self._lines:
            names = ", ".join(each.vm for each in event.vms)
            ledger = ledger.noting(at=at, vm=names, step=step, detail=detail)
        if kept != ledger.events or self._verdicts:
            valid = (each for each in ledger.verdicts if not is_withdrawn(each, self._returned))
            verdicts = (*valid, *self._verdicts)[-MAX_VERDICTS:]
            ledger = replace(ledger, events=kept, verdicts=verdicts)
        return ledger

    # --- which events ---

    def _watched(self) -> Iterator[WatchedEvent]:
        """Yield what the ledger watches, then what is new, as far as there is room."""
        known = {fold(each.event_id) for each in self._ledger.events}
        room = MAX_WATCHED_VMS - sum(len(each.vms) for each in self._ledger.events)
        present = {key: unjudged(each, self._ledger.verdicts) for key, each in self._shown.items()}
        for each in self._ledger.events:
            again = present.get(fold(each.event_id))
            new = named_now(each, again, room, self._now)
            if again is not None and new:
                room -= len(new)
                self._returned.append(replace(again, resources=tuple(vm.vm for vm in new)))
                later = replace(each, vms=new)
                self._note(self._now, later, Step.ANNOUNCED, announced_detail(later))
            yield replace(each, vms=(*each.vms, *new))
        missed = [
            each.event
            for key, each in self._seen.items()
            if self._is_gone(key) and is_missed(each, self._ledger.verdicts, self._now)
        ]
        for event in (*present.values(), *missed):
            key = fold(event.event_id)
            if key in known or not 0 < len(event.resources) <= room:
                continue
            known.add(key)
            room -= len(event.resources)
            if key in present:
                self._returned.append(event)
            yield self._announced(event)

    def _announced(self, event: ScheduledEvent) -> WatchedEvent:
        seen = self._seen.get(fold(event.event_id))
        first = seen.first_seen_at if seen and seen.first_seen_at else self._now
        watched = WatchedEvent(
            event_id=event.event_id,
            event_type=event.event_type,
            first_seen_at=min(first, self._now),
            watched_at=self._now,
            not_before=event.not_before,
            ignored=self._evidence.policy.why_ignored(event),
            vms=tuple(WatchedVm(vm=n) for n in {fold(n): n for n in event.resources}.values()),
        )
        self._note(watched.first_seen_at, watched, Step.ANNOUNCED, announced_detail(watched))
        return watched

    # --- what happened to them ---

    def _after(self, event: WatchedEvent) -> WatchedEvent:
        """Return a watched event after this pass; note what happened, and the verdicts."""
        key = fold(event.event_id)
        present = self._shown.get(key)
        if present is not None:
            event = replace(
                event,
                not_before=present.not_before or event.not_before,
                ignored=self._evidence.policy.why_ignored(present),
                not_acknowledgeable="" if is_test(event.event_id) else present.not_acknowledgeable,
                gone_at=None,
            )
        event = self._started(event, present)
        if present is None and event.gone_at is None and self._is_gone(key):
            event = self._gone(event)
        placed = [self._placed(event, vm, present) for vm in event.vms]
        vms = tuple(self._judged(event, vm) for vm in placed)
        return replace(event, vms=vms)

    def _started(self, event: WatchedEvent, present: ScheduledEvent | None) -> WatchedEvent:
        if event.started_at is not None:
            return event
        seen = self._seen.get(fold(event.event_id))
        at = seen.started_at if seen else None
        if at is None and present is not None and present.status is EventStatus.STARTED:
            at = self._now
        if at is None:
            return event
        begun = replace(event, started_at=min(at, self._now))
        begun, detail = cut_by_start(begun, self._ledger, self._observed)
        self._note(min(at, self._now), begun, Step.STARTED, detail)
        return begun

    def _gone(self, event: WatchedEvent) -> WatchedEvent:
        seen = self._seen.get(fold(event.event_id))
        at = min(seen.gone_at, self._now) if seen and seen.gone_at else self._now
        gone = replace(event, gone_at=at)
        begun = self._begun(gone) or self._unread_since(gone)
        self._note(at, gone, Step.COMPLETED if begun else Step.CANCELLED, "")
        return gone

    def _is_gone(self, key: str) -> bool:
        return len(self._clean) >= CLEAN_DOCUMENTS and all(key not in each for each in self._clean)

    def _begun(self, event: WatchedEvent) -> bool:
        """Return whether an event began, or may have begun and ended between two polls."""
        if event.started_at is not None or self._acknowledgement(event) is not None:
            return True
        at, until = event.not_before, event.gone_at or self._now
        return at is not None and at <= until

    def _acknowledgement(self, event: WatchedEvent) -> datetime | None:
        return self._ledger.acknowledgement_of(event, self._acknowledged_at)

    def _unread_since(self, event: WatchedEvent) -> datetime | None:
        """Return since when this agent did not read an event that left; None if it saw its end."""
        if event.gone_at is None or self._begun(event):
            return None
        seen = self._seen.get(fold(event.event_id))
        if seen and seen.was_read_until(event.gone_at):
            return None
        # The predecessor read the event while it recorded what the ledger has.
        read_at = (seen.last_seen_at if seen else None, self._ledger.leader_since)
        return max((each for each in read_at if each), default=event.first_seen_at)

    def _note(self, at: datetime, event: WatchedEvent, step: Step, detail: str) -> None:
        self._lines.append((at, event, step, event_label(event) + detail))

    # --- where the VMs are ---

    def _placed(
        self, event: WatchedEvent, vm: WatchedVm, present: ScheduledEvent | None
    ) -> WatchedVm:
        """Return a VM of an event where it is now; after the event, only if that was not known."""
        over = is_over_for(vm, event, present, self._ledger.entry(vm.vm))
        if vm.place == Place.JUDGED or (over and vm.place != Place.UNKNOWN):
            return vm
        place, out_at = self._place(event, vm.vm)
        since = vm.out_at if vm.place == Place.OUT else None
        # A recovered entry is older than the place, and does not show that the VM is back.
        unseen = since and place is Place.IN_ROTATION and not self._is_inside(vm.vm)
        if unseen or place is Place.UNKNOWN:
            return vm
        if since and out_at:
            out_at = min(since, out_at)
        why = vm.why
        if _was_put_back(self._ledger, vm, place):
            why = PUT_BACK
        elif place is Place.IN_ROTATION and self._explains(event, why):
            why = obstacle(vm.vm, self._holds)
        return replace(vm, place=place, out_at=out_at, why=why[:MAX_WHY])

    def _explains(self, event: WatchedEvent, known: str) -> bool:
        """Return whether what is in the way now explains that a VM was in rotation."""
        begins, leads_since = event.begins_at, self._ledger.leader_since
        if begins is None or begins > self._now:
            return True
        return not known and (leads_since is None or leads_since <= begins)

    def _place(self, event: WatchedEvent, name: str) -> tuple[Place, datetime | None]:
        """Return where a VM is, and since when it is out."""
        evidence, closes = self._evidence, self._evidence.policy.close_only
        opened_by = evidence.views.restarts.get(fold(name), ()) if closes else ()
        if out_at := was_out(event, name, self._ledger.transitions, opened_by):
            return Place.OUT, out_at
        entry, vm = self._ledger.entry(name), evidence.views.vm(name)
        inside = self._is_inside(name)
        if entry is not None and entry.restored_at is None:
            seen_out = (self._as_recorded or not inside) and not closes
            closed = closed_since(event, entry, evidence.views.restarts, self._now)
            since = (entry.out_at if seen_out else None) or closed
            return (Place.OUT, since) if since else (Place.IN_ROTATION, None)
        if inside:
            return Place.IN_ROTATION, None
        if self._observed.inventory_at is None or (vm is not None and vm.problem):
            return Place.UNKNOWN, None
        hidden = vm is not None and any(
            True for each in evidence.mechanisms for _ in each.unseen(evidence.views, vm)
        )
        return (Place.UNKNOWN if hidden else Place.UNMANAGED), None

    def _is_inside(self, name: str) -> bool:
        """Return whether a VM is in a managed pool."""
        vm = self._evidence.views.vm(name)
        return vm is not None and bool(self._evidence.inside(vm))

    # --- verdicts ---

    def _judged(self, event: WatchedEvent, vm: WatchedVm) -> WatchedVm:
        """Return the VM; as judged, with its verdict noted, if that is final."""
        if vm.place == Place.JUDGED:
            return vm
        unread_since = self._unread_since(event)
        begun = self._begun(event) or unread_since is not None
        begins = unread_since or may_begin_at(event, self._seen, self._acknowledgement(event))
        verdict = final(event, vm, self._now, begun=begun, begins=begins)
        if verdict is None:
            return vm
        why = event.ignored if verdict is Verdict.IGNORED else ""
        if verdict in MISSED:
            missed = vm.why or NOT_READ
            why = missed if unread_since else cause(event, vm, self._ledger.leader_since, begins)
        if verdict in MISSED or verdict is Verdict.DRAINED:
            why = also_cut(why, cut_by_removal(vm, self._ledger))
        self._verdicts.append(
            EventVerdict(
                at=self._now,
                vm=vm.vm,
                event_id=event.event_id,
                event_type=event.event_type,
                verdict=verdict,
                not_before=event.not_before,
                started_at=event.started_at,
                out_at=vm.out_at,
                why=why,
            )
        )
        return replace(vm, place=Place.JUDGED)
