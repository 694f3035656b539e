"""The operator's decisions: which events count, how long to wait, the floors.

Frozen values without defaults: `controller.config.schema` owns every default and builds these.
Names and ids keep Azure's spelling and are compared through `azure_names.fold`; instants are aware
UTC. Standard library only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from controller.core.azure_names import fold
from controller.core.events import EventSource, EventStatus, ScheduledEvent
from controller.core.far_ahead import RETURNS_FOR, DailyWindow, FarAhead


class EventAction(Enum):
    """What to do about events of one type."""

    DRAIN = "drain"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPolicy:
    """How to treat one event type."""

    action: EventAction
    min_duration_s: int
    """Shorter interruptions are ignored; an unknown duration (-1) never is."""
    acknowledge: bool
    """Whether to acknowledge events of this type once their VMs are out of rotation."""


UNKNOWN_EVENT_POLICY = EventPolicy(action=EventAction.DRAIN, min_duration_s=0, acknowledge=False)
"""For an event type that Azure does not document: drain the VMs, but do not acknowledge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """`min_in_service` of one pool: a number of members, or a percentage of the full pool."""

    number: int
    percent: bool = False
    """Whether `number` is a percentage."""
    ignores_other_sets: bool = False
    """Whether machines of other availability sets count, although they may leave at any moment."""

    def members(self, *, full: int) -> int:
        """Return how many members must stay, for a pool that has `full` when nothing is out."""
        return -(-self.number * full // 100) if self.percent else self.number


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The operator's choices."""

    pools: Mapping[str, Floor]
    """Managed pools, in the operator's spelling and order, with their floors."""
    events: Mapping[str, EventPolicy]
    """One policy per event type, keyed by its name as Azure spells it."""
    lead_time_s: float
    """Seconds before NotBefore at which draining starts."""
    connection_drain_s: float
    """Seconds between out of rotation and the acknowledgement, for open connections to end."""
    acknowledge: bool
    """Whether events are acknowledged at all."""
    acknowledge_unmanaged: bool
    """Whether to acknowledge events that also name VMs outside the managed pools."""
    acknowledge_ignored: bool
    """Whether to acknowledge ignored events at once, if all their VMs are managed."""
    restore_settle_s: float
    """Seconds until the health probes find a restored VM; until then the floor ignores it."""

    close: bool
    """Whether VMs are closed by their own agents before they are removed."""
    close_only: bool
    """Whether closing alone takes a VM out: nothing is written to Resource Manager."""
    admin_state: bool
    """Whether VMs stay in their pools, and adminState Down takes them out, where that works."""
    acknowledge_closed: bool
    """Whether a VM that is closed and quiet may be acknowledged while it is in its pools."""
    restore_ready_timeout_s: float
    """Seconds that a restored VM has to become ready, before that is reported."""
    far_ahead: FarAhead
    """When the drain for an event begins whose lead time is not reached."""
    far_ahead_window: DailyWindow | None
    """The window of `FarAhead.WINDOW`; None for the others."""

    def for_type(self, event_type: str) -> EventPolicy:
        """Return the policy for an event type, compared without case."""
        for name, policy in self.events.items():
            if fold(name) == fold(event_type):
                return policy
        return UNKNOWN_EVENT_POLICY

    def impacting(self, event: ScheduledEvent) -> bool:
        """Return whether this event is impacting: whether policy requires to act on it."""
        policy = self.for_type(event.event_type)
        if policy.action is EventAction.IGNORE:
            return False
        return event.duration_s < 0 or event.duration_s >= policy.min_duration_s

    def why_ignored(self, event: ScheduledEvent) -> str:
        """Return why an event requires no drain, and the setting; empty if it does."""
        if self.impacting(event):
            return ""
        section = f"[policy.events.{event.event_type}]"
        of_type = self.for_type(event.event_type)
        if of_type.action is EventAction.IGNORE:
            return f'action = "ignore" in {section}'
        return (
            f"it lasts {event.duration_s} s, min_duration_s = {of_type.min_duration_s} in {section}"
        )

    def drain_at(self, event: ScheduledEvent, now: datetime) -> datetime | None:
        """Return when to start draining, as it is known now; None means at once.

        User events and events without a readable NotBefore do not wait for the lead time: the
        first are wanted now, the second may start at any moment.
        """
        if (
            event.status is not EventStatus.SCHEDULED
            or event.source is EventSource.USER
            or event.not_before is None
            or self.far_ahead is FarAhead.DRAIN
        ):
            return None
        try:
            at = event.not_before - timedelta(seconds=self.lead_time_s)
        except OverflowError:
            return None  # the calendar begins later than that
        window = self.far_ahead_window if self.far_ahead is FarAhead.WINDOW else None
        if window is None:
            return at
        return None if window.contains(now) else min(at, window.next_opening(now))

    def is_due(self, event: ScheduledEvent, now: datetime) -> bool:
        """Return whether the VMs of this event have to be drained now.

        An event with an undocumented status is never due (see `EventStatus.UNKNOWN`).
        """
        if event.status is EventStatus.UNKNOWN or not self.impacting(event):
            return False
        at = self.drain_at(event, now)
        return at is None or at <= now

    def keeps_out(self, event: ScheduledEvent, now: datetime) -> bool:
        """Return whether a VM that is out does not return before this event (law S6).

        It returns only if the drain for the event begins much later.
        """
        if not self.impacting(event):
            return False
        if event.status is EventStatus.UNKNOWN:
            return True
        at = self.drain_at(event, now)
        return at is None or at - now <= RETURNS_FOR
