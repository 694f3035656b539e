"""Simulated time: callbacks at instants, run in order. No real clock anywhere."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True, order=True)
class Timer:
    """One callback due at `at`. Equal instants run in the order in which they were set."""

    at: float
    order: int
    action: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        """Make sure the callback never runs; harmless if it already has."""
        self.cancelled = True


class Scheduler:
    """The time of a world. It moves forward only, and only through `advance`."""

    def __init__(self, now: float) -> None:
        self.now = now
        self._timers: list[Timer] = []
        self._order = 0

    def at(self, when: float, action: Callable[[], None]) -> Timer:
        """Run `action` at `when`, or at the next advance if that has passed already."""
        self._order += 1
        timer = Timer(max(when, self.now), self._order, action)
        heapq.heappush(self._timers, timer)
        return timer

    def next(self) -> float | None:
        """Return when the next timer is due; None without one."""
        while self._timers and self._timers[0].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0].at if self._timers else None

    def advance(self, now: float) -> None:
        """Run every timer due up to `now`, each at its own instant, then set the time to `now`."""
        while (due := self.next()) is not None and due <= now:
            timer = heapq.heappop(self._timers)
            self.now = max(self.now, timer.at)
            timer.action()
        self.now = max(self.now, now)
