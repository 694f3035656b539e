"""The platform's side of Scheduled Events: announcements, starts, and impacts on VMs.

Life cycle (Microsoft docs, Scheduled Events): Scheduled until acknowledged or NotBefore, then
Started with an empty NotBefore, then gone from the document. There is no completed status.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from enum import Enum
from typing import Protocol

from controller.simulator.world.bodies import Json, guid
from controller.simulator.world.scheduler import Scheduler, Timer
from controller.simulator.world.settings import WorldSettings


class EventState(Enum):
    """State of an event. Only Scheduled and Started are visible to VMs."""

    PLANNED = "Planned"
    SCHEDULED = "Scheduled"
    STARTED = "Started"
    GONE = "Gone"


IMPACTS = {
    "Freeze": "frozen",
    "Reboot": "rebooting",
    "Redeploy": "rebooting",
    "Preempt": "deallocated",
    "Terminate": "deleted",
}
"""What an event type does to a VM, unless the event has its own impact."""


@dataclass(slots=True, kw_only=True)
class SimEvent:
    """One scheduled event and what it will do."""

    event_id: str
    event_type: str
    source: str
    description: str
    resources: tuple[str, ...]
    duration_s: int
    impact: str
    """The state VMs fall into: frozen, rebooting, deallocated, deleted, or "" for none."""
    impacts: tuple[tuple[float, float], ...]
    """(delay after start, length) of every interruption, in seconds."""
    started_s: float
    not_before: float
    state: EventState = EventState.PLANNED
    acknowledged_by: list[str] = field(default_factory=list[str])
    started_at: float | None = None
    timers: list[Timer] = field(default_factory=list[Timer])
    start_timer: Timer | None = None
    on_impact_end: Callable[[], None] | None = None
    """Called when the VMs are back, and when the event leaves the document."""
    states: list[tuple[float, str, str]] = field(default_factory=list[tuple[float, str, str]])
    """When it got which status, and its id then. The last one states how it ended."""


class Host(Protocol):
    """What events need from their world."""

    scheduler: Scheduler
    settings: WorldSettings
    random: random.Random

    def record(self, kind: str, subject: str, **detail: object) -> None: ...
    def begin_impact(self, vm: str, cause: str, state: str) -> None: ...
    def end_impact(self, vm: str, cause: str) -> None: ...


class EventBoard:
    """All events of the availability set. Each VM of the set sees all its events."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.events: list[SimEvent] = []
        self.incarnation = 1

    def find(self, event_id: str) -> SimEvent | None:
        """Return the visible event with that id."""
        wanted = event_id.casefold()
        visible = (EventState.SCHEDULED, EventState.STARTED)
        return next(
            (e for e in self.events if e.event_id.casefold() == wanted and e.state in visible), None
        )

    def schedule(
        self,
        event_type: str,
        *resources: str,
        source: str = "Platform",
        notice_s: float = 900.0,
        duration_s: int = -1,
        impact_s: float = 30.0,
        impact_delay_s: float = 1.0,
        started_s: float = 300.0,
        started_first: bool = False,
        cancel_after_s: float | None = None,
        auto_approve_after_s: float | None = None,
        late_impact: tuple[float, float] | None = None,
        impact: str | None = None,
        description: str = "Host server is undergoing maintenance.",
        at: float | None = None,
        event_id: str | None = None,
    ) -> SimEvent:
        """Announce maintenance of `resources` (VM names), now or `at` an instant; return the event.

        The event starts at NotBefore, `notice_s` ahead, or earlier once acknowledged, and stays
        Started for `started_s`. Its VMs go down `impact_delay_s` after the start for `impact_s`,
        and once more for a `late_impact` (delay, length). `duration_s` is only what the document
        claims. `impact` replaces that of the type; "" is none. `auto_approve_after_s`: Azure acks.
        """
        now = self._host.scheduler.now
        published_at = now if at is None else at
        first = (0.0 if started_first else impact_delay_s, impact_s)
        event = SimEvent(
            event_id=event_id or guid(self._host.random).upper(),
            event_type=event_type,
            source=source,
            description=description,
            resources=resources,
            duration_s=duration_s,
            impact=IMPACTS[event_type] if impact is None else impact,
            impacts=(first,) if late_impact is None else (first, late_impact),
            started_s=started_s,
            # The document has whole seconds; rounding up keeps the promise of the notice.
            not_before=math.ceil(published_at + notice_s),
        )
        self.events.append(event)

        def publish() -> None:
            self._publish(event, started_first=started_first)
            if cancel_after_s is not None:
                self._after(event, cancel_after_s, lambda: self.cancel(event.event_id))
            if auto_approve_after_s is not None:
                self._after(
                    event,
                    auto_approve_after_s,
                    lambda: self.acknowledge(event.event_id, "platform policy"),
                )

        if published_at <= now:
            publish()
        else:
            event.timers.append(self._host.scheduler.at(published_at, publish))
        return event

    def acknowledge(self, event_id: str, by: str) -> bool:
        """Release an event for all its resources; False if no such event is in the document."""
        event = self.find(event_id)
        if event is None:
            return False
        self._record("event_acknowledged", event, by=by, first=not event.acknowledged_by)
        wait = self._host.settings.ack_starts_event_after_s
        first = not event.acknowledged_by
        event.acknowledged_by.append(by)
        if first and event.state is EventState.SCHEDULED and wait is not None:
            self._start_at(event, min(event.not_before, self._host.scheduler.now + wait))
        return True

    def cancel(self, event_id: str) -> None:
        """Cancel a Scheduled event: it leaves the document and never starts."""
        event = self.find(event_id)
        if event is not None and event.state is EventState.SCHEDULED:
            self._leave(event, "event_cancelled")

    def complete(self, event_id: str) -> None:
        """End an event now; its VMs come back if they were still down."""
        event = self.find(event_id)
        if event is not None:
            self._leave(event, "event_gone")

    def document(self) -> list[Json]:
        """Return the `Events` array as every VM of the set sees it."""
        visible = (EventState.SCHEDULED, EventState.STARTED)
        return [self._entry(event) for event in self.events if event.state in visible]

    def _entry(self, event: SimEvent) -> Json:
        scheduled = event.state is EventState.SCHEDULED
        return {
            "EventId": event.event_id,
            "EventStatus": event.state.value,
            "EventType": event.event_type,
            "ResourceType": "VirtualMachine",
            "Resources": list(event.resources),
            "NotBefore": self._spell(event.not_before) if scheduled else "",
            "Description": event.description,
            "EventSource": event.source,
            "DurationInSeconds": event.duration_s,
        }

    def rows(self, delay_s: float) -> list[tuple[SimEvent, Json]]:
        """Return every event of at least that age with its fields as they were then.

        Ended events are kept (Microsoft docs, Scheduled Events in Azure Resource Graph, preview).
        """
        found: list[tuple[SimEvent, Json]] = []
        for event in self.events:
            known = [each for each in event.states if each[0] <= self._host.scheduler.now - delay_s]
            if known:
                _, status, event_id = known[-1]
                scheduled = status == "Scheduled"
                fields = self._entry(event) | {"EventId": event_id, "EventStatus": status}
                fields["NotBefore"] = self._spell(event.not_before) if scheduled else ""
                found.append((event, fields))
        return found

    def _spell(self, instant: float) -> str:
        if self._host.settings.not_before_format == "rfc1123":
            return formatdate(instant, usegmt=True)
        return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _publish(self, event: SimEvent, *, started_first: bool) -> None:
        event.state = EventState.SCHEDULED
        self._enter(event, "Scheduled")
        self._changed()
        self._record(
            "event_published",
            event,
            not_before=event.not_before,
            started_first=started_first,
            source=event.source,
            duration_s=event.duration_s,
        )
        if started_first:
            self._start(event)
        else:
            self._start_at(event, event.not_before)

    def _start_at(self, event: SimEvent, when: float) -> None:
        if event.start_timer is not None:
            event.start_timer.cancel()
        event.start_timer = self._host.scheduler.at(when, lambda: self._start(event))

    def _start(self, event: SimEvent) -> None:
        if event.state is not EventState.SCHEDULED:
            return
        event.state = EventState.STARTED
        event.started_at = self._host.scheduler.now
        was = event.event_id
        if self._host.settings.event_ids_change:
            event.event_id = guid(self._host.random).upper()
        self._enter(event, "Started")
        self._changed()
        self._record("event_started", event, was=was)
        for delay, length in event.impacts if event.impact else ():
            self._after(event, delay, lambda: self._impact(event, begin=True))
            if event.impact in ("frozen", "rebooting"):
                self._after(event, delay + length, lambda: self._impact(event, begin=False))
        self._after(event, event.started_s, lambda: self.complete(event.event_id))

    def _impact(self, event: SimEvent, *, begin: bool) -> None:
        cause = f"event {id(event)}"
        for vm in event.resources:
            if begin:
                self._host.begin_impact(vm, cause, event.impact)
            else:
                self._host.end_impact(vm, cause)
        if not begin and event.on_impact_end is not None:
            event.on_impact_end()

    def _leave(self, event: SimEvent, kind: str) -> None:
        for timer in (*event.timers, *([event.start_timer] if event.start_timer else [])):
            timer.cancel()
        if event.state is EventState.STARTED or event.on_impact_end is not None:
            self._impact(event, begin=False)
        event.state = EventState.GONE
        self._enter(event, "Canceled" if kind == "event_cancelled" else "Completed")
        self._changed()
        self._record(kind, event)

    def _after(self, event: SimEvent, delay_s: float, action: Callable[[], object]) -> None:
        def run() -> None:
            action()

        event.timers.append(self._host.scheduler.at(self._host.scheduler.now + delay_s, run))

    def _enter(self, event: SimEvent, status: str) -> None:
        event.states.append((self._host.scheduler.now, status, event.event_id))

    def _changed(self) -> None:
        jumps = self._host.settings.incarnation_jumps
        self.incarnation += self._host.random.randint(1, 3) if jumps else 1

    def _record(self, kind: str, event: SimEvent, **detail: object) -> None:
        self._host.record(
            kind,
            event.event_id,
            event_type=event.event_type,
            resources=",".join(event.resources),
            **detail,
        )
