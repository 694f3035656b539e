"""An event loop without a clock of its own: when nothing is ready, time jumps to the next timer.

Several simulated operating-system processes share the loop. What belongs to which is told by a
context variable, which asyncio hands on to every task, callback and timer by itself. Within one
process callbacks keep the order asyncio gives them; between processes the order at one instant
follows from the seed. A process can be killed (nothing of it ever runs again, no `finally`, no
goodbye) and frozen (nothing of it runs for a while, the others go on).

There are no sockets, no threads and no subprocesses: what would need them raises.
"""

import asyncio
import heapq
import random
import weakref
from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, cast

RESOLUTION_S = 1e-9
TURN_S = 1e-12
"""What one turn of the loop takes."""


MOST_STEPS = 1_000_000
"""Callbacks of one history; an ordinary one has ten thousand."""


class DeadlockError(Exception):
    """Nothing is ready and no timer is set, yet somebody waits."""


class RunawayError(Exception):
    """Somebody does something again and again and never waits."""


class Process:
    """One simulated process: what of it runs, and whether it does."""

    def __init__(self, loop: "VirtualLoop", name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self.stopped_s = 0.0
        """How long its monotonic clock has stood still, in seconds."""
        self.context = copy_context()
        self.context.run(_PROCESS.set, self)
        self._loop = loop
        self._held: list[asyncio.Handle] = []
        self._tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self._left: tuple[asyncio.Task[Any], ...] = ()
        """Held here when it dies: as garbage they would run their `finally` in the middle of it."""

    def start(self, main: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run the process' main coroutine."""
        return self._loop.create_task(main, context=self.context)

    def adopt(self, task: "asyncio.Task[Any]") -> None:
        """Take note of a task of this process."""
        self._tasks.add(task)

    @property
    def tasks(self) -> "tuple[asyncio.Task[Any], ...]":
        """The tasks that have not ended."""
        return tuple(task for task in self._tasks if not task.done())

    def hold(self, handle: asyncio.Handle) -> bool:
        """Tell whether the loop must not run this now."""
        held = self.frozen or not self.alive
        if held:
            self._held.append(handle)
        return held

    def kill(self) -> None:
        """Let nothing of it run again."""
        self.alive, self.frozen = False, False
        self._left = self.tasks

    def freeze(self) -> None:
        """Stop running."""
        self.frozen = True

    def thaw(self, frozen_s: float, *, clock_stood_still: bool) -> None:
        """Go on. With a clock that stood still, every timer has as long to go as before."""
        if not self.frozen:
            return
        self.frozen = False
        held, self._held = self._held, []
        if clock_stood_still:
            self.stopped_s += frozen_s
            self._loop.postpone(self, held, frozen_s)
        else:
            self._loop.resume(held)

    def exhume(self) -> None:
        """Let a dead process run its `finally` blocks after all, when that changes nothing more.

        Otherwise they would run as garbage, at any time, with complaints.
        """
        self.alive = True
        for task in self._left:
            task.cancel()
        held, self._held, self._left = self._held, [], ()
        self._loop.resume(held)


_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


def current_process() -> Process | None:
    """Return the process whose code runs now; None for the world around them."""
    return _PROCESS.get()


class VirtualLoop(asyncio.BaseEventLoop):
    """An asyncio event loop on virtual time; `now` is in seconds since the loop was made."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.now = 0.0
        self.steps = 0
        self._seed = seed
        self._clock_resolution = RESOLUTION_S
        self._selector = _Jump(self)
        self.complaints: list[str] = []
        """What asyncio reported that nobody handled."""
        self.set_exception_handler(self._complain)
        self.set_task_factory(cast("Any", _adopted))

    def time(self) -> float:
        return self.now

    def postpone(self, process: Process, held: list[asyncio.Handle], by_s: float) -> None:
        """Give every timer of a process as long to go as it had `by_s` ago."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        for timer in scheduled:
            if _owner(timer) is process:
                timer._when += by_s  # type: ignore[attr-defined]
        for handle in held:
            if isinstance(handle, asyncio.TimerHandle):
                handle._when += by_s  # type: ignore[attr-defined]
                handle._scheduled = True  # type: ignore[attr-defined]
                scheduled.append(handle)
            else:
                self._ready.append(handle)  # type: ignore[attr-defined]
        heapq.heapify(scheduled)

    def resume(self, held: list[asyncio.Handle]) -> None:
        """Run what was held back."""
        self._ready.extend(held)  # type: ignore[attr-defined]

    # What BaseEventLoop asks of its subclasses

    def _process_events(self, _events: object) -> None:
        """Make due timers ready, and bring what is ready into this instant's order."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        ready = self._ready  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._when <= self.now + RESOLUTION_S:  # type: ignore[attr-defined]
            timer = heapq.heappop(scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]
            ready.append(timer)
        self.steps += len(ready)
        if self.steps > MOST_STEPS:
            raise RunawayError(f"more than {MOST_STEPS} callbacks by {self.now:.1f} s")
        groups: dict[Process | None, list[asyncio.Handle]] = {}
        for handle in ready:
            groups.setdefault(_owner(handle), []).append(handle)
        if len(groups) == 1 and None in groups:
            return
        ready.clear()
        order = list(groups)
        if len(order) > 1:
            order.sort(key=lambda process: process.name if process else "")
            random.Random(f"{self._seed} {self.now:.6f}").shuffle(order)
        for process in order:
            for handle in groups[process]:
                if process is None or not process.hold(handle):
                    ready.append(handle)

    def _write_to_self(self) -> None:
        raise RuntimeError("a thread tried to reach the simulated loop")

    def run_in_executor(self, *_args: object) -> Any:
        raise RuntimeError("threads are not simulated")

    def _complain(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.complaints.append(f"{context.get('message')}: {error!r}")


class _Jump:
    """Takes the place of the selector: waiting is moving the clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise DeadlockError("everybody waits and nothing is going to happen")
        # Whoever waits for less than a clock can tell must not wait for ever.
        self._loop.now += TURN_S
        if not self._loop._ready:  # type: ignore[attr-defined]
            timers = self._loop._scheduled  # type: ignore[attr-defined]
            self._loop.now = max(self._loop.now, timers[0]._when)
        return []

    def close(self) -> None:
        """Nothing was opened."""


def _owner(handle: asyncio.Handle) -> Process | None:
    context: Context = handle._context  # type: ignore[attr-defined]
    return context.get(_PROCESS)


def _adopted(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
) -> "asyncio.Task[Any]":
    task = asyncio.Task(coroutine, loop=loop, **options)
    context: Context | None = options.get("context")
    process = context.get(_PROCESS) if context is not None else _PROCESS.get()
    if process is not None:
        process.adopt(task)
    return task
