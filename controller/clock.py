"""Wall clock and monotonic clock as one injectable value.

Leases count on the monotonic clock, deadlines (`NotBefore`) on the wall clock. Nothing else in the
package reads the time, so a test that supplies a clock owns time altogether.
"""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """The two clocks an agent needs."""

    def now(self) -> datetime:
        """Return the wall clock, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds of a clock that never goes back."""
        ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The clocks of the operating system."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass(slots=True)
class CorrectedClock:
    """A clock whose wall time is set right by `ahead`, as a trusted source has it.

    Views, deadlines and event documents are all stamped by this one: two clocks that differ by a
    few seconds would make every view look stale, or come from the future.
    """

    clock: Clock
    ahead: timedelta = field(default_factory=timedelta)

    def now(self) -> datetime:
        return self.clock.now() + self.ahead

    def monotonic(self) -> float:
        return self.clock.monotonic()
