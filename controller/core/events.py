"""Scheduled events as one poll of the metadata service returned them.

Frozen values. Names and ids keep Azure's spelling and are compared through `azure_names.fold`;
instants are aware UTC. Standard library only.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from controller.core.azure_names import fold

EVENT_TYPES = ("Freeze", "Reboot", "Redeploy", "Preempt", "Terminate")
"""The event types that Azure documents (Scheduled Events, event properties), in its spelling."""


class EventStatus(Enum):
    """The status of an event. There is no "completed": a finished event leaves the document."""

    SCHEDULED = "Scheduled"
    STARTED = "Started"
    UNKNOWN = "Unknown"
    """A status Azure does not document: nothing is written because of it, and nothing restored."""


class EventSource(Enum):
    """What caused the event: the platform, or a user."""

    PLATFORM = "Platform"
    USER = "User"
    UNKNOWN = "Unknown"


class HasEventId(Protocol):
    """What states the id of an event, and the NotBefore by which it was known."""

    @property
    def event_id(self) -> str:
        """As Azure spells it. Ids can be used again."""
        ...

    @property
    def not_before(self) -> datetime | None:
        """None while it is not known."""
        ...


def may_be_same(one: HasEventId, other: HasEventId) -> bool:
    """Return whether two records can be about one event: they agree in its id and NotBefore."""
    if fold(one.event_id) != fold(other.event_id):
        return False
    return None in {one.not_before, other.not_before} or one.not_before == other.not_before


CLEAN_DOCUMENTS = 2
"""How many clean documents in a row show that an event is over (law S6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledEvent:
    """One entry of the event document (Microsoft docs, Scheduled Events, event properties)."""

    event_id: str
    event_type: str
    """One of EVENT_TYPES, or a type that Azure does not document yet."""
    status: EventStatus
    resources: tuple[str, ...]
    """Names of the affected VMs, as Azure spells them."""
    not_before: datetime | None = None
    """Earliest start; None once started, or when the field is empty or unreadable."""
    duration_s: int = -1
    """Expected interruption; -1 is unknown and counts as long."""
    source: EventSource = EventSource.UNKNOWN
    acknowledgeable: bool = True
    """False when its id may name another event too, or its newest form cannot be read (law S1)."""
    forwarded: bool = False
    """Known from other agents alone: the document of the leader does not show it."""

    @property
    def not_acknowledgeable(self) -> str:
        """Why no agent can acknowledge it; empty if one can."""
        if self.acknowledgeable:
            return ""
        if self.forwarded:
            return "the event document of the leader does not show it"
        return "another event may have its id, or its newest form cannot be read"

    def has_begun(self, now: datetime) -> bool:
        """Return whether it has started. A forwarded one starts at its NotBefore, which can end the
        agent that would forward that."""
        due = self.not_before is not None and self.not_before <= now
        return self.status is EventStatus.STARTED or (self.forwarded and due)

    def affects(self, vm: str) -> bool:
        """Return whether `vm` is among the resources."""
        return any(fold(name) == fold(vm) for name in self.resources)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """One entry of the event document that cannot be used as an event."""

    problem: str
    event_id: str = ""
    """Empty when it cannot be read."""
    vms: tuple[str, ...] = ()
    """The names among its resources that can be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDocument:
    """What one successful poll of the scheduled-events endpoint returned."""

    incarnation: int | None
    events: tuple[ScheduledEvent, ...] = ()
    set_aside: tuple[SetAside, ...] = ()
    """Entries that cannot be read. While there are any, no event counts as gone (law S6)."""
