"""Events that Azure announces days ahead, such as a predicted hardware failure.

Pure: standard library only, no I/O, no clock.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

MINUTES_A_DAY = 1440
RETURNS_FOR = timedelta(hours=1)
"""A VM that is out returns to rotation between two maintenances if the drain for the next one
begins later than this."""


class FarAhead(Enum):
    """When the drain for an event begins whose lead time is not reached; the operator's choice."""

    WAIT = "wait"
    """When its lead time is reached."""
    DRAIN = "drain"
    """At once."""
    WINDOW = "window"
    """In the next daily window, or when its lead time is reached if that is earlier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyWindow:
    """A part of each day, in minutes after midnight UTC. It may contain midnight."""

    start_min: int
    end_min: int

    def contains(self, at: datetime) -> bool:
        """Return whether an instant is in the window; its end is not."""
        length_min = (self.end_min - self.start_min) % MINUTES_A_DAY
        return self._since_opening(at) < timedelta(minutes=length_min)

    def next_opening(self, at: datetime) -> datetime:
        """Return when the window opens next, after an instant."""
        return at - self._since_opening(at) + timedelta(days=1)

    def _since_opening(self, at: datetime) -> timedelta:
        """Return how long before an instant the window last opened."""
        moment = at.astimezone(UTC)
        midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        return (moment - midnight - timedelta(minutes=self.start_min)) % timedelta(days=1)
