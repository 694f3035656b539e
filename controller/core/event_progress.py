"""The progress of one VM through one event, step by step, for people to read. Decides nothing.

A drain request is shown like an event of the type `Request`, which Azure neither announces nor
starts.

There are two sources, and both are incomplete. The ledger's transitions show what the agents did;
they survive a failover. The event documents that this agent read show what Azure did; an agent that
was started later has not read the earlier ones, and leaves those times empty.

Pure: no I/O, no clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from controller.core.azure_names import fold
from controller.core.drain_history import Episode, Step, Transition, episodes
from controller.core.drain_requests import DRAIN_REQUEST
from controller.core.events import EventDocument, EventStatus, ScheduledEvent, may_be_same
from controller.core.forwarded_events import merged
from controller.core.ledger import Entry, Ledger

StepName = Literal["announced", "draining", "out", "acknowledged", "started", "gone", "restored"]
StepState = Literal["done", "pending", "skipped"]
STEPS: tuple[StepName, ...] = get_args(StepName)
MANUAL_STEPS: tuple[StepName, ...] = ("draining", "out", "restored")

AZURE_STEPS: tuple[StepName, ...] = ("started", "gone")
"""Steps of Azure before a VM is restored; their times come from documents."""
SHOWN_WHEN_GONE = timedelta(minutes=15)
"""How long an event is shown that has left the document and keeps no VM out of rotation."""
MAX_SEEN_EVENTS = 50
READ_GAP = timedelta(seconds=20)
"""The longest time between two documents in which an event is not expected to begin and end: a
standby reads one every 15 s."""
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""Before everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressStep:
    """One step; `at` is None if it has not happened, or if its time is not known."""

    name: StepName
    state: StepState
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenEvent:
    """An event as this agent last read it, and when that changed."""

    event: ScheduledEvent
    first_seen_at: datetime | None
    """None if only the ledger mentions it."""
    absent_at: datetime | None = None
    """When the previous document, which lacked it, was read; None if there was none."""
    last_seen_at: datetime | None = None
    """When it was in a document last; None if this agent has not read it."""
    started_at: datetime | None = None
    unstarted_at: datetime | None = None
    """When the last document, in which it had not started, was read; None without one. A
    document that lacks a forwarded event shows nothing: the event may not have been read there."""
    gone: bool = False
    gone_at: datetime | None = None
    """None also if this agent, no leader any more, does not know when a forwarded one was gone."""

    def is_earlier_than(self, event: ScheduledEvent) -> bool:
        """Return whether this one is over, and its id is used again for another event."""
        return self.gone and not may_be_same(self.event, event)

    def left_within(self, seconds: float, now: datetime) -> bool:
        """Return whether it left the document, or was read last, at most so many seconds ago."""
        at = self.gone_at or (self.last_seen_at if self.gone else None)
        return at is not None and now - at <= timedelta(seconds=seconds)

    @property
    def unread_before_start(self) -> datetime | None:
        """Since when this agent read nothing of it before it read the start; None if it did."""
        before, started_at = self.unstarted_at, self.started_at
        if started_at is None:
            return None
        if before is None:
            return LONG_AGO
        return before if started_at - before > READ_GAP else None

    def was_read_until(self, gone_at: datetime) -> bool:
        """Return whether this agent read it shortly before it was gone, and so saw what it did."""
        return self.last_seen_at is not None and gone_at - self.last_seen_at <= READ_GAP


class SeenEvents:
    """Keeps which events were in the documents read, and when they came and went.

    In memory and bounded: the agent that leads next has read the same documents.
    """

    def __init__(self) -> None:
        self._known: dict[str, SeenEvent] = {}
        self._read_at: datetime | None = None

    def record(self, document: EventDocument, now: datetime, *, complete: bool = True) -> None:
        """Record one good document. An event that comes back with its NotBefore was not gone.

        Args:
            document: the document.
            now: when it was read.
            complete: whether it has the events that other agents forward. When the others are gone
                is not known otherwise.
        """
        present = {fold(event.event_id): event for event in merged(document.events)}
        for key, event in present.items():
            known = self._known.pop(key, None)
            if known is None or known.is_earlier_than(event):
                known = SeenEvent(event=event, first_seen_at=now, absent_at=self._read_at)
            starts = event.status is EventStatus.STARTED and known.started_at is None
            unstarted_at = known.last_seen_at if event.forwarded else self._read_at
            # NotBefore is empty once an event has started; the earlier value is kept.
            kept = replace(event, not_before=event.not_before or known.event.not_before)
            self._known[key] = replace(
                known,
                event=kept,
                last_seen_at=now,
                started_at=now if starts else known.started_at,
                unstarted_at=unstarted_at if starts else known.unstarted_at,
                gone=False,
                gone_at=None,
            )
        for key, known in self._known.items():
            if key not in present and not known.gone and not document.set_aside:
                shows_end = complete or not known.event.forwarded
                self._known[key] = replace(known, gone=True, gone_at=now if shows_end else None)
        over = len(self._known) - MAX_SEEN_EVENTS
        for key in [key for key in self._known if key not in present][: max(0, over)]:
            del self._known[key]
        self._read_at = now

    def started(self) -> dict[str, datetime]:
        """Return when events were first read as started, by their folded ids."""
        return {key: each.started_at for key, each in self._known.items() if each.started_at}

    def known(self) -> tuple[SeenEvent, ...]:
        """Return every event that is kept; those in the newest document come last."""
        return tuple(self._known.values())


def unseen_events(
    ledger: Ledger, seen: Iterable[SeenEvent], *, gone: bool
) -> tuple[SeenEvent, ...]:
    """Return the events and requests that keep a VM out and that this agent has never read.

    Such an event is gone if `gone`, which means that this agent has read a document.
    """
    known = {fold(each.event.event_id) for each in seen}
    found: dict[str, SeenEvent] = {}
    for entry in ledger.entries:
        for reference in entry.events:
            key = fold(reference.event_id)
            if key in known:
                continue
            others = found[key].event.resources if key in found else ()
            event = ScheduledEvent(
                event_id=reference.event_id,
                event_type=reference.event_type,
                status=EventStatus.UNKNOWN,
                resources=(*others, entry.vm),
                not_before=reference.not_before,
            )
            over = gone and event.event_type != DRAIN_REQUEST
            found[key] = SeenEvent(event=event, first_seen_at=None, gone=over)
    return tuple(found.values())


def requested_by(ledger: Ledger, vm: str, request_id: str) -> str:
    """Return which operator requested the drain of a VM, and why; empty if history lost it."""
    entry = ledger.entry(vm)
    requests = [
        fold(reference.event_id)
        for reference in (entry.events if entry else ())
        if reference.event_type == DRAIN_REQUEST
    ]
    found = episodes(ledger.transitions, vm)
    lines = found[-1].lines if found else ()
    details = [line.detail for line in lines if line.step == Step.REQUESTED]
    # History has one line for each request, in the same order, and drops the oldest lines.
    newest_first = dict(zip(reversed(requests), reversed(details), strict=False))
    return newest_first.get(fold(request_id), "")


def is_shown(seen: SeenEvent, ledger: Ledger, now: datetime) -> bool:
    """Return whether the status page shows an event."""
    if not seen.gone or (seen.gone_at and now - seen.gone_at <= SHOWN_WHEN_GONE):
        return True
    return any(ledger.entry(vm) is not None for vm in seen.event.resources)


def was_cancelled(seen: SeenEvent, ledger: Ledger) -> bool:
    """Return whether an event left the document before it could begin.

    An event that was acknowledged may have begun and ended between two polls, and any event while
    this agent read no document.
    """
    event = seen.event
    if seen.gone_at is None or seen.started_at is not None:
        return False
    if not seen.was_read_until(seen.gone_at):
        return False
    if event.status is not EventStatus.SCHEDULED or event.not_before is None:
        return False
    acknowledged = ledger.acknowledgement_of(event, ledger.acknowledged_at())
    return seen.gone_at < event.not_before and acknowledged is None


def steps(seen: SeenEvent, vm: str, ledger: Ledger) -> tuple[ProgressStep, ...]:
    """Return the seven steps of one VM through one event, in order; a drain request has three."""
    entry = ledger.entry(vm)
    episode = _episode(seen, vm, entry, ledger.transitions)
    times: dict[StepName, datetime | None] = {
        **dict.fromkeys(STEPS),
        "announced": seen.first_seen_at,
        "started": seen.started_at,
        "gone": seen.gone_at,
    }
    if episode is not None:
        times |= {
            "draining": episode.first(Step.RECORDED),
            "out": episode.last(Step.OUT),
            "acknowledged": episode.last(Step.ACKNOWLEDGED, detail=seen.event.event_id),
            "restored": episode.last(Step.RESTORED),
        }
    if entry is not None and _because_of(entry, seen):
        # History is bounded, and the entry exists as long as the VM is out.
        acknowledged = (
            reference.acknowledged_at
            for reference in entry.events
            if fold(reference.event_id) == fold(seen.event.event_id)
        )
        times["draining"] = times["draining"] or entry.recorded_at
        times["out"] = times["out"] or entry.out_at
        times["acknowledged"] = times["acknowledged"] or next(acknowledged, None)
    _drop_late_times(times, seen)
    over = episode is not None and episode.over
    gone, started = seen.gone, seen.started_at is not None
    happened: dict[StepName, bool] = {"announced": True, "started": started, "gone": gone}
    passed: dict[StepName, bool] = {
        "draining": gone,
        "out": gone,
        "acknowledged": started or gone,  # an event that has started is not acknowledged
        "started": gone,
        "restored": over or (gone and times["draining"] is None),
    }

    def state(name: StepName) -> StepState:
        if times[name] is not None or happened.get(name, False):
            return "done"
        return "skipped" if passed.get(name, False) else "pending"

    names = MANUAL_STEPS if seen.event.event_type == DRAIN_REQUEST else STEPS
    return tuple(ProgressStep(name=name, state=state(name), at=times[name]) for name in names)


def _drop_late_times(times: dict[StepName, datetime | None], seen: SeenEvent) -> None:
    """Remove the time of an event that this agent read only after the leader had acted on it.

    A standby polls less often: it knows that a step happened, not when.
    """
    seen_at, absent_at, restored_at = times["announced"], seen.absent_at, times["restored"]
    acted = [at for at in (times["draining"], times["out"], times["acknowledged"]) if at]
    # What the leader did before the event was announced was because of another event.
    acted = [at for at in acted if absent_at is None or at > absent_at]
    if seen_at and acted and min(acted) < seen_at:
        times["announced"] = None
    for name in AZURE_STEPS:
        at = times[name]
        if at and restored_at and restored_at < at:
            times[name] = None


def _because_of(entry: Entry, seen: SeenEvent) -> bool:
    wanted = fold(seen.event.event_id)
    return any(fold(reference.event_id) == wanted for reference in entry.events)


def _episode(
    seen: SeenEvent, vm: str, entry: Entry | None, transitions: Iterable[Transition]
) -> Episode | None:
    """Return the drain episode that belongs to the event; None if there is none.

    It is the one that acknowledged the event, or that is in progress because of it, or that began
    before the event was gone and did not end before it was announced.
    """
    found = episodes(transitions, vm)
    for episode in reversed(found):
        if episode.last(Step.ACKNOWLEDGED, detail=seen.event.event_id) is not None:
            return episode
    if entry is not None and _because_of(entry, seen):
        return found[-1] if found else None
    for episode in reversed(found):
        since, gone_at = seen.first_seen_at, seen.gone_at
        ended = episode.over and since is not None and episode.lines[-1].at < since
        began_later = gone_at is not None and episode.lines[0].at > gone_at
        if not ended and not began_later:
            return episode
    return None
