"""Decides whether this agent's own VM takes new work: closed, opening or open. Laws S8 and S9.

Open by default, closed by proof. A VM closes

- because a durable entry of the ledger names it, or
- because its own event is so near that the VM will be down before a leader could act, while storage
  does not answer (`_closes_alone`).

It opens when the entry is gone or its memberships are back, and also when storage has not answered
for `open_after_s`, unless an own event is still announced before which it does not return (law S6):
an agent that hears nothing must not keep a healthy VM out of service.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from controller.core.azure_names import fold
from controller.core.event_progress import SeenEvent
from controller.core.events import EventDocument, EventStatus, ScheduledEvent
from controller.core.ledger import Entry, Ledger
from controller.core.planning.actions import HoldReason
from controller.core.planning.views import has_settled, keeps_out
from controller.core.policy import Policy
from controller.core.vm_report import VmState

STORAGE_SILENT_S = 10.0
"""Storage that has not answered for this long does not answer: two reads have timed out."""
ANNOUNCED_S = 60.0
"""A document that was read longer ago does not show that an event is still announced."""
CLOSE_ALONE_S = 60.0
"""How long before its own event a VM closes without a record. A leader that can still act has
recorded it by then: the shortest notice that Azure documents is ten minutes."""
DUE_SOON = timedelta(seconds=5)
"""How long before an event is due the record of its drain is waited for."""
OPENS_WITHIN_S = 60.0
"""How long after the end of its event a VM can still be closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What an agent knows about its own VM."""

    vm: str
    peers: tuple[str, ...]
    """The names of the VMs of the set, this one included."""
    ledger: Ledger | None
    """As last read; None before the first read."""
    ledger_age_s: float
    """Seconds since storage last showed the ledger; infinite before."""
    silent_s: float = 0.0
    """For how many seconds storage has answered no request for the ledger."""
    document: EventDocument | None
    document_age_s: float = 0.0
    """Seconds since the document was read."""
    seen: tuple[SeenEvent, ...] = ()
    """The events that this agent has read, also those that are over."""
    closed_alone: bool = False
    """Whether the VM is closed without a record."""
    found: "Wish | None" = None
    """What an earlier run of the agent left in the flag file of this boot."""
    found_age_s: float = 0.0
    """How old that is, in seconds."""
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the VM should be."""

    state: VmState
    drain: datetime | None = None
    """`recorded_at` of the entry; None when the VM closes alone, or without a drain."""
    event: ScheduledEvent | None = None
    """The event because of which it closes; None for a drain request."""
    reason: str = ""
    """The type of the event, or what asks for the drain."""
    announced: bool = False
    """Whether a document read lately announces an event before which the VM does not return."""


OPEN = Wish(state=VmState.OPEN)


def wish(known: Known, policy: Policy, *, open_after_s: float) -> Wish:
    """Return what this VM should be.

    Args:
        known: what the agent knows.
        policy: the operator's choices.
        open_after_s: after how many seconds without news a closed VM opens (law S9).
    """
    entry = known.ledger.entry(known.vm) if known.ledger else None
    own = _next_own_event(known, policy)
    is_read = known.document_age_s <= ANNOUNCED_S
    stays = is_read and any(
        keeps_out(event, entry, policy, known.now) for event in _own_events(known, policy)
    )
    if known.ledger is None and known.found is not None:
        # Before the first read nothing shows that the drain is over.
        lasts = stays or known.found_age_s <= open_after_s
        return replace(known.found, announced=stays) if lasts else OPEN
    if entry is not None and not entry.parked:
        if known.ledger_age_s > open_after_s and not stays:
            return OPEN
        is_back = has_settled(entry, policy, known.now) and not stays
        return replace(_wish_by(entry, own, is_back=is_back), announced=stays)
    if own is not None and is_read and _closes_alone(known, policy, own):
        return Wish(state=VmState.CLOSED, event=own, reason=own.event_type, announced=True)
    return OPEN


def waits_for_record(
    document: EventDocument | None, vm: str, policy: Policy, now: datetime
) -> bool:
    """Return whether an event of a VM is due, so that its record in the ledger will come."""
    return any(
        event.affects(vm) and policy.is_due(event, now + DUE_SOON)
        for event in (document.events if document else ())
    )


def _wish_by(entry: Entry, own: ScheduledEvent | None, *, is_back: bool) -> Wish:
    """Return what a durable entry asks for.

    A restore that one pool refuses can last: the VM opens for the pools that it is back in (law
    L2).
    """
    opens = entry.restored_at is not None or is_back
    state = VmState.OPENING if opens else VmState.CLOSED
    reason = own.event_type if own else next((e.event_type for e in entry.events), "")
    return Wish(state=state, drain=entry.recorded_at, event=own, reason=reason)


def _next_own_event(known: Known, policy: Policy) -> ScheduledEvent | None:
    """Return the impacting event of this VM that comes first; one that has started comes first."""
    events = _own_events(known, policy)
    return min(events, key=lambda event: _starts_at(event, known.now), default=None)


def _own_events(known: Known, policy: Policy) -> Iterator[ScheduledEvent]:
    for event in known.document.events if known.document else ():
        if event.affects(known.vm) and policy.impacting(event):
            yield event


def _starts_at(event: ScheduledEvent, now: datetime) -> datetime:
    return now if event.status is EventStatus.STARTED else event.not_before or now


def _is_held(ledger: Ledger, vm: str, reason: HoldReason) -> bool:
    """Return whether the drain of this VM was held for a reason, by the ledger."""
    return any(
        hold.reason == reason.value and fold(hold.subject) == fold(vm) for hold in ledger.holds
    )


def _closes_alone(known: Known, policy: Policy, own: ScheduledEvent) -> bool:
    """Return whether this VM closes without a record: law S8.

    No leader can record it while storage does not answer. The VM will be down in a moment, so
    closing costs nothing but the time until then. Of several VMs with near events all close, or
    none if a floor does not allow that: an order among them would change with every event that
    starts or appears, and a VM that has closed does not show to the others. Nor does a VM show that
    has opened again since its event.
    A VM whose drain is paused stays open. One that has closed alone stays closed when storage
    answers again, until a leader records it: it would open for seconds just before its event. It
    opens if the leader holds the drain.
    An agent that has read no ledger cannot know which VMs are out, and closes nothing.
    """
    near = known.now + timedelta(seconds=CLOSE_ALONE_S)
    if (
        known.ledger is None
        or _is_held(known.ledger, known.vm, HoldReason.PAUSED)
        or (known.silent_s <= STORAGE_SILENT_S and not _waits_closed(known, known.ledger))
        or _starts_at(own, known.now) > near
    ):
        return False
    leaving = {
        fold(name)
        for event in (*_near(known, near), *_over_lately(known))
        if policy.impacting(event)
        for name in event.resources
    }
    # One that was restored may not be open yet: its entry is kept until its agent reports so.
    out = {fold(entry.vm) for entry in known.ledger.entries}
    staying = len({fold(peer) for peer in known.peers} - out - leaving)
    full = len(known.peers)
    return all(staying >= floor.members(full=full) for floor in policy.pools.values())


def _waits_closed(known: Known, ledger: Ledger) -> bool:
    """Return whether the VM has closed alone, and the leader may still record it."""
    return known.closed_alone and not _is_held(ledger, known.vm, HoldReason.FLOOR)


def _near(known: Known, until: datetime) -> Iterator[ScheduledEvent]:
    for event in known.document.events if known.document else ():
        if _starts_at(event, known.now) <= until:
            yield event


def _over_lately(known: Known) -> Iterator[ScheduledEvent]:
    """Yield the events that ended since storage answered, or shortly before."""
    for each in known.seen:
        if each.left_within(known.silent_s + OPENS_WITHIN_S, known.now):
            yield each.event
