"""Since when a VM is in its state, counted on the monotonic clock.

The wall clock can be wrong for a few seconds and is corrected then. An instant that was taken
meanwhile would lie ahead for as long as the clock was wrong, or in the past.
"""

from datetime import datetime, timedelta

from controller.clock import Clock

WRONG_BY_S = 2.0
"""By how many seconds an instant is wrong at least when it is corrected. A wall clock that runs at
its own rate is no reason."""


class StateTime:
    """When a state began.

    Args:
        clock: wall clock, corrected, and monotonic clock.
        since: when the present state began, as an earlier run of the agent has noted it.
    """

    def __init__(self, clock: Clock, since: datetime) -> None:
        self._clock, self._since = clock, since
        self._began_s: float | None = None
        """None for a state that began before this run."""

    @property
    def age_s(self) -> float:
        """For how many seconds the state has lasted."""
        if self._began_s is None:
            return max(0.0, (self._clock.now() - self._since).total_seconds())
        return self._clock.monotonic() - self._began_s

    def begin(self) -> None:
        """Another state begins now."""
        self._since, self._began_s = self._clock.now(), self._clock.monotonic()

    def since(self) -> datetime:
        """Return when the state began, by the wall clock as it is now."""
        since = self._clock.now() - timedelta(seconds=self.age_s)
        if self._began_s is None:
            return min(since, self._since)  # the clock is not corrected yet
        if abs((since - self._since).total_seconds()) >= WRONG_BY_S:
            self._since = since
        return self._since
