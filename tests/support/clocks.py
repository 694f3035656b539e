"""Clocks that a test moves; `Clock` of `controller.clock` by structure."""

import time
from datetime import UTC, datetime


class StoppedClock:
    """A wall clock and a monotonic clock that stand still until the test moves them.

    Azure's clock is `azure()`: it moves with the monotonic clock and is always right.
    """

    def __init__(self, start: float | None = None) -> None:
        self._start = time.time() if start is None else start
        self.passed_s = 0.0
        """How far both clocks have moved."""
        self.wall_error_s = 0.0
        """How far the wall clock is ahead of Azure's."""

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.passed_s += seconds

    def azure(self) -> float:
        """Return the true time, in seconds since 1970."""
        return self._start + self.passed_s

    def now(self) -> datetime:
        """Return what the wall clock shows."""
        return datetime.fromtimestamp(self.azure() + self.wall_error_s, UTC)

    def monotonic(self) -> float:
        """Return the monotonic clock."""
        return 1000 + self.passed_s


class ShiftedClock:
    """The clocks of the operating system, both moved by the same `ahead_s`."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def epoch(self) -> float:
        """Return the wall clock in seconds since 1970."""
        return time.time() + self.ahead_s

    def now(self) -> datetime:
        """Return the wall clock."""
        return datetime.fromtimestamp(self.epoch(), UTC)

    def monotonic(self) -> float:
        """Return the monotonic clock."""
        return time.monotonic() + self.ahead_s
