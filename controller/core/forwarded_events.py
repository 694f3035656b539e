"""Events that agents forward to the leader, each agent in a blob of its own.

Only in a scale set, whose instances may have more than one event document (`event_coverage`). An
agent forwards every event of its own VM, because the next leader may have another document than
the present one. It forwards an event of another VM only if the leader does not record it: the agent
of that VM may have failed. A leader adds the events that its own documents have never shown. So the
VM is drained before the event and stays out as long as it is forwarded. No agent acknowledges it,
so it begins at its NotBefore.

An agent that ends with its VM withdraws nothing: the VM is in its maintenance. Nor does the agent
of a VM that lost its way to storage when it was removed. So what is forwarded counts for a while,
and a VM that does not run is not restored (law S6).

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from controller.core.azure_names import fold
from controller.core.events import (
    CLEAN_DOCUMENTS,
    EventDocument,
    EventSource,
    EventStatus,
    ScheduledEvent,
)
from controller.core.resources import NOTHING_EXTRA, Extra

MINOR = 1
"""The minor version of the format that this agent writes."""
STANDS_FOR = timedelta(minutes=15)
"""How long a forwarded event counts after its NotBefore, or after it was forwarded last. The agent
of a VM that restarts has time to forward it again."""
RENEWED_S = 300.0
"""How often an agent forwards an event again, though nothing has changed."""
STATUSES = {each.value: each for each in EventStatus}
SOURCES = {each.value: each for each in EventSource}
MOST_EVENTS = 100
"""How many events of one VM are forwarded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardedEvent:
    """One event of the VM."""

    event_id: str
    event_type: str
    status: str
    source: str
    not_before: datetime | None = None
    duration_s: int = -1
    vms: tuple[str, ...] = ()
    """Which VMs it is forwarded for; empty in the first format: the VM of the agent."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardedEvents:
    """What the agent of one VM forwards."""

    vm: str
    at: datetime
    events: tuple[ForwardedEvent, ...] = ()
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)


def forwarded(event: ScheduledEvent, vms: tuple[str, ...]) -> ForwardedEvent:
    """Return an event as it is forwarded for some of its VMs."""
    return ForwardedEvent(
        event_id=event.event_id,
        event_type=event.event_type,
        status=event.status.value,
        source=event.source.value,
        not_before=event.not_before,
        duration_s=event.duration_s,
        vms=vms,
    )


def to_forward(
    before: tuple[ForwardedEvent, ...],
    shown: Iterable[ScheduledEvent],
    clean: Sequence[EventDocument],
    *,
    vm: str,
    unrecorded: Iterable[ScheduledEvent],
) -> tuple[ForwardedEvent, ...]:
    """Return what an agent has to forward now.

    What was forwarded stays until neither of two clean documents shows it (law S6). Of events with
    one id, what begins first counts, for the VMs of all. Of very many events, those of the VM of
    the agent come first, which no other agent may know, then what begins first.

    Args:
        before: what it has forwarded.
        shown: the events in its newest document that require a drain.
        clean: the last clean documents, at most two.
        vm: the VM of the agent.
        unrecorded: what the leader does not record, with the VMs.
    """
    wanted = {(fold(each.event_id), fold(name)) for each in before for name in each.vms}
    wanted |= {(fold(each.event_id), fold(name)) for each in unrecorded for name in each.resources}
    # The document of a leader also has what other agents forward.
    present = {fold(e.event_id) for each in clean for e in each.events if not e.forwarded}
    events = {
        key: each
        for each in before
        if (key := fold(each.event_id)) in present or len(clean) < CLEAN_DOCUMENTS
    }
    newest: dict[str, ScheduledEvent] = {}
    for event in shown:
        key = fold(event.event_id)
        mine = {fold(vm)} | {name for of, name in wanted if of == key}
        if vms := tuple(name for name in event.resources if fold(name) in mine):
            alike = [each for each in (newest.get(key), replace(event, resources=vms)) if each]
            [newest[key]] = merged(sorted(alike, key=_begins_at, reverse=True))
    events |= {key: forwarded(each, each.resources) for key, each in newest.items()}
    ordered = sorted(
        events.values(),
        key=lambda each: (fold(vm) not in map(fold, each.vms), _begins_at(each)),
    )
    return tuple(ordered[:MOST_EVENTS])


def _begins_at(event: ScheduledEvent | ForwardedEvent) -> datetime:
    return event.not_before or datetime.min.replace(tzinfo=UTC)


def events_of(
    found: ForwardedEvents, written_at: datetime, now: datetime
) -> tuple[ScheduledEvent, ...]:
    """Return the events that an agent has forwarded for its VM, and that still count.

    Args:
        found: what it forwards.
        written_at: when, by the clock of storage: that of the VM may be wrong.
        now: wall clock, corrected.
    """
    return tuple(
        ScheduledEvent(
            event_id=each.event_id,
            event_type=each.event_type,
            status=STATUSES.get(each.status, EventStatus.UNKNOWN),
            resources=each.vms or (found.vm,),
            not_before=each.not_before,
            duration_s=each.duration_s,
            source=SOURCES.get(each.source, EventSource.UNKNOWN),
            acknowledgeable=False,
            forwarded=True,
        )
        for each in found.events[:MOST_EVENTS]
        if now < max(each.not_before or written_at, written_at) + STANDS_FOR
    )


def merged(events: Iterable[ScheduledEvent]) -> tuple[ScheduledEvent, ...]:
    """Return the events with one entry for each id, which names the VMs of all.

    An event has started if one agent has read that: the others may have failed before.
    """
    found: dict[str, ScheduledEvent] = {}
    for event in events:
        known = found.get(fold(event.event_id))
        names = (*known.resources, *event.resources) if known else event.resources
        resources = {fold(name): name for name in names}
        newer = known if known and known.status is EventStatus.STARTED else event
        found[fold(event.event_id)] = replace(newer, resources=tuple(resources.values()))
    return tuple(found.values())
