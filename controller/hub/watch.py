"""Polls a Hub, reports what is news, and asks the second path. It owns no decision.

The memory is written before a notice is sent and after: a crash between the two repeats a notice
and loses none. A notice that no channel accepts is sent again after the next poll. Receivers that
do not answer must not hold up the polls, so what is left after `DELIVER_S` waits for the next one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from controller.clock import Clock
from controller.config.update_watch import UpdateWatch
from controller.core.hub_updates import HubUpdates
from controller.core.hub_watch import (
    Memory,
    News,
    Outcome,
    after_answer,
    after_failure,
    after_poll,
    outcome,
    run_ended,
    should_ask,
)
from controller.core.notices.notice import PROBLEMS, Notice
from controller.errors import ControllerError, InvariantViolation
from controller.hub.memory_file import load, save
from controller.hub.privileged_endpoint import ask
from controller.observability.logs import log

logger = logging.getLogger("lbdrain.hub")

LAST_POLLS = 12
"""How many polls follow the end of a run at most, while no channel accepts a notice."""
DELIVER_S = 60.0
"""For how long one report begins deliveries; one to a receiver that hangs takes 21 s."""


class Watch:
    """One watch of one Hub.

    Args:
        settings: the Hub, the limits and the second path.
        read: polls once; raises a ControllerError if that fails.
        deliver: sends a notice; returns whether a channel has accepted it, or there is none.
        clock: both clocks.
    """

    def __init__(
        self,
        settings: UpdateWatch,
        *,
        read: Callable[[], Awaitable[HubUpdates]],
        deliver: Callable[[Notice], Awaitable[bool]],
        clock: Clock,
    ) -> None:
        self._settings, self._read, self._deliver = settings, read, deliver
        self._clock = clock
        self._file = Path(settings.state_file)
        self._memory, problem = load(self._file)
        if problem:
            log(logger, logging.WARNING, problem)
        self._stored = self._memory
        self.unsaved = ""
        """Why the memory could not be written; empty if it was."""

    @property
    def outcome(self) -> Outcome:
        """What the newest run came to."""
        return outcome(self._memory)

    async def run(self) -> None:
        """Poll until the newest run ends, and a few times more until a channel has accepted that.

        What is left then is sent when the command is started again.
        """
        polls_left: int | None = None
        while True:
            before, started = self._memory, self._clock.monotonic()
            await self.poll()
            if run_ended(before, self._memory):
                polls_left = LAST_POLLS
            if polls_left is not None:
                if not (self._memory.undelivered and polls_left):
                    return
                polls_left -= 1
            lasted_s = self._clock.monotonic() - started
            await asyncio.sleep(max(0.0, self._settings.poll_s - lasted_s))

    async def poll(self) -> None:
        """Poll once, report what is news, and ask the privileged endpoints if that is due."""
        settings = self._settings
        problem = ""
        try:
            async with asyncio.timeout(settings.timeout_s):
                seen = await self._read()
        except TimeoutError:
            problem = f"no complete answer of {settings.endpoint} within {settings.timeout_s:g} s"
        except InvariantViolation:
            raise
        except ControllerError as error:
            problem = str(error)
        else:
            await self._report(
                after_poll(self._memory, seen, self._clock.now(), long_run_s=settings.long_run_s)
            )
            return
        await self._failed(problem)

    async def _failed(self, problem: str) -> None:
        settings = self._settings
        news = after_failure(
            self._memory, problem, self._clock.now(), alarm_after=settings.failed_polls
        )
        if not self._memory.alarmed:  # after that, only changes are news
            count = f"{news[0].failed_polls} in a row, the alarm is after {settings.failed_polls}"
            log(logger, logging.WARNING, f"the poll has failed ({count}): {problem}")
        await self._report(news)
        if settings.command and should_ask(self._memory, settings.failed_polls):
            answer = await ask(settings)
            await self._report(
                after_answer(
                    self._memory,
                    answer.endpoint,
                    answer.status,
                    answer.problems,
                    self._clock.now(),
                )
            )

    async def _report(self, news: News) -> None:
        memory, notices = news
        for notice in notices:
            alarming = notice.problem or notice.kind in PROBLEMS
            level = logging.WARNING if alarming else logging.INFO
            log(
                logger,
                level,
                notice.text,
                event="hub_update_changed",
                outcome=notice.kind.value,
            )
        left = [*memory.undelivered, *notices]
        self._keep(tuple(left), memory)
        until = self._clock.monotonic() + DELIVER_S
        for notice in tuple(left):
            if self._clock.monotonic() >= until:
                return
            if await self._deliver(notice):
                left.remove(notice)
                self._keep(tuple(left), memory)

    def _keep(self, notices: tuple[Notice, ...], memory: Memory) -> None:
        self._memory = memory.keeping(notices)
        if self._memory == self._stored:
            return
        problem = save(self._file, self._memory)
        if not problem:
            self._stored = self._memory
        elif problem != self.unsaved:
            log(logger, logging.ERROR, problem)
        self.unsaved = problem
