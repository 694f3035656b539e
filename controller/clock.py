"""Wall clock and monotonic clock as one injectable value.

Leases count on the monotonic clock, deadlines (`NotBefore`) on the wall clock. Nothing else in the
package reads the time, so a test that supplies a clock owns time altogether.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
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
