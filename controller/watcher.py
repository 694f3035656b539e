"""Watch: poll the event document, keep what is known, say when it changed.

A failed, empty or unparsable poll is no observation: the last good document stays, and the run of
clean polls that a restore needs starts again (law S6). Decides nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from controller.azure.imds import Imds
from controller.clock import Clock, CorrectedClock
from controller.core.model import EventDocument
from controller.errors import ControllerError, Throttled
from controller.logs import log

logger = logging.getLogger(__name__)

CLOCK_TOLERANCE_S = 2.0
"""The `Date` header counts whole seconds; a smaller difference says nothing."""
BELIEVED_AT_ONCE_S = 600.0
"""A correction by more than this needs two polls that agree: one header may be garbled, and would
make every deadline of a week look passed."""
THROTTLED_S = 5.0


class Watcher:
    """Polls IMDS for as long as it runs. One poll at a time, whoever asks."""

    def __init__(
        self, *, imds: Imds, clock: CorrectedClock, leader_poll_s: float, standby_poll_s: float
    ) -> None:
        self._imds, self._clock = imds, clock
        self.clock: Clock = clock
        """Wall time as IMDS has it, and the monotonic clock."""
        self._leader_poll_s, self._standby_poll_s = leader_poll_s, standby_poll_s
        self._leading = False
        self._hurry = asyncio.Event()
        self._polling = asyncio.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._polled_at: float | None = None
        self._claimed_ahead = timedelta()
        self.document: EventDocument | None = None
        self.document_at: datetime | None = None
        self.clean_documents: tuple[EventDocument, ...] = ()
        self.failures = 0

    def on_poll(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every poll, good or bad."""
        self._listeners.append(listener)

    def now(self) -> datetime:
        """Return the wall clock, corrected by what IMDS says the time is."""
        return self._clock.now()

    def age_s(self) -> float:
        """Return seconds since the last good poll; infinite before the first."""
        return (
            float("inf") if self._polled_at is None else self._clock.monotonic() - self._polled_at
        )

    def lead(self, leading: bool) -> None:
        """Poll at the leader's or the standby's pace from now on.

        A new leader starts a new run of clean polls: what a standby saw may be a quarter of a
        minute old.
        """
        if leading and not self._leading:
            self.clean_documents = ()
        self._leading = leading
        self._hurry.set()

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            started = self._clock.monotonic()
            self._hurry.clear()
            pause_s = await self.poll()
            elapsed_s = self._clock.monotonic() - started
            try:
                async with asyncio.timeout(max(0.05, pause_s - elapsed_s)):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    async def look(self, *, no_older_than_s: float) -> None:
        """Make sure that a poll was tried within the last `no_older_than_s` seconds."""
        if self.age_s() > no_older_than_s:
            await self.poll()

    async def poll(self) -> float:
        """Poll once; return after how many seconds the next poll is due."""
        pause_s = self._leader_poll_s if self._leading else self._standby_poll_s
        async with self._polling:
            try:
                poll = await self._imds.poll()
            except ControllerError as error:
                self._failed(error)
                if isinstance(error, Throttled):
                    pause_s = max(pause_s, error.retry_after_s or THROTTLED_S)
                elif self.document is None:
                    pause_s = min(pause_s, THROTTLED_S)
            else:
                if poll.date is not None:
                    self._correct(poll.date)
                self._succeeded(poll.document)
        for listener in self._listeners:
            listener()
        return pause_s

    def _succeeded(self, document: EventDocument) -> None:
        if self.failures:
            log(logger, logging.INFO, "the event document can be read again", event="imds")
        self.failures = 0
        self.document = document
        self.document_at = self.now()
        self._polled_at = self._clock.monotonic()
        self.clean_documents = (*self.clean_documents, document)[-2:]

    def _failed(self, error: ControllerError) -> None:
        self.clean_documents = ()
        self.failures += 1
        if self.failures == 1:
            message = f"the event document could not be read: {error}"
            log(logger, logging.WARNING, message, event="imds", outcome=type(error).__name__)

    def _correct(self, date: datetime) -> None:
        """Follow the clock of IMDS, but not its rounding: small differences change nothing."""
        # The header counts whole seconds and is rounded down: half a second more is the best guess.
        ahead = date + timedelta(seconds=0.5) - self._clock.clock.now()
        agrees = _seconds_between(ahead, self._claimed_ahead) <= CLOCK_TOLERANCE_S
        self._claimed_ahead = ahead
        if _seconds_between(ahead, self._clock.ahead) > BELIEVED_AT_ONCE_S and not agrees:
            return
        off_s = abs(ahead.total_seconds())
        corrected = bool(self._clock.ahead)
        if off_s > CLOCK_TOLERANCE_S and not corrected:
            message = f"this clock is {-ahead.total_seconds():+.0f} s off; deadlines are corrected"
            log(logger, logging.WARNING, message, event="clock")
            self._clock.ahead = ahead
        elif corrected and off_s < CLOCK_TOLERANCE_S / 2:
            self._clock.ahead = timedelta()
        elif corrected and _seconds_between(ahead, self._clock.ahead) > CLOCK_TOLERANCE_S / 2:
            self._clock.ahead = ahead


def _seconds_between(one: timedelta, other: timedelta) -> float:
    return abs((one - other).total_seconds())
