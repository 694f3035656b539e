"""Poll the event document, keep what is known, and report every poll.

A failed, empty or unparsable poll is not an observation: the last good document stays. A restore
needs consecutive clean polls (law S6); a failed poll, or a document with an event that was set
aside, starts their count again. A known event that may be the one set aside stays known. This
module makes no decision.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from controller.azure.imds import Imds
from controller.clock import Clock, CorrectedClock
from controller.core.azure_names import fold
from controller.core.event_progress import SeenEvents
from controller.core.events import CLEAN_DOCUMENTS, EventDocument, ScheduledEvent
from controller.errors import ControllerError, Throttled
from controller.observability.logs import log

logger = logging.getLogger("lbdrain.events")

CLOCK_TOLERANCE_S = 2.0
"""The `Date` header counts whole seconds; a smaller difference means nothing."""
CORRECTED_AT_ONCE_S = 600.0
"""A larger correction needs two polls that agree: because of a single wrong header, the deadlines
of many days would seem to have passed."""
THROTTLED_S = 5.0
"""Wait after a throttled poll without Retry-After, in seconds; also the longest wait for the first
document."""
MOST_SHOWN = 1000
"""How many ids of events are remembered."""
MOST_PROBLEMS = 100
"""How many reported problems are remembered, so that each is logged once."""


def _none_added(now: datetime) -> tuple[ScheduledEvent, ...]:  # noqa: ARG001 -- as the real one
    return ()


class EventWatcher:
    """Polls IMDS while it runs. One poll at a time, from any caller.

    Args:
        imds: the metadata service.
        clock: the wall clock to correct.
        leader_poll_s, standby_poll_s: seconds between two polls.
        added: returns the events that are added to each document: those of rehearsals, and those
            that other agents forward, except what the documents of this agent have shown.
        complete: returns whether these are known; a document without them is not clean.
    """

    def __init__(
        self,
        *,
        imds: Imds,
        clock: CorrectedClock,
        leader_poll_s: float,
        standby_poll_s: float,
        added: Callable[[datetime], tuple[ScheduledEvent, ...]] = _none_added,
        complete: Callable[[], bool] = lambda: True,
    ) -> None:
        self._imds, self._clock = imds, clock
        self._added, self._complete = added, complete
        self.clock: Clock = clock
        """The wall clock, corrected by IMDS, and the monotonic clock."""
        self._leader_poll_s, self._standby_poll_s = leader_poll_s, standby_poll_s
        self._leading = False
        self._hurry = asyncio.Event()
        self._polling = asyncio.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._polled_at: float | None = None
        self._claimed_ahead = timedelta()
        self.document: EventDocument | None = None
        self.document_at: datetime | None = None
        self.is_complete = True
        """Whether the newest document holds what other agents forward (`complete`)."""
        self.clean_documents: tuple[EventDocument, ...] = ()
        self.failures = 0
        self.seen_events = SeenEvents()
        """The events in the documents that were read, and when they came and went."""
        self._reported: tuple[str, ...] = ()
        self._shown: dict[str, None] = {}
        """The folded ids of the events that the metadata service has shown, newest last."""

    def on_poll(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every poll, good or bad."""
        self._listeners.append(listener)

    def now(self) -> datetime:
        """Return the wall clock, corrected by the time that IMDS reports."""
        return self._clock.now()

    def age_s(self) -> float:
        """Return seconds since the last good poll; infinite before the first."""
        return (
            float("inf") if self._polled_at is None else self._clock.monotonic() - self._polled_at
        )

    def lead(self, leading: bool) -> None:
        """Poll at the interval of the leader or of a standby from now on.

        A new leader counts its clean polls from zero: the document of a standby may be 15 seconds
        old.
        """
        if leading and not self._leading:
            self.clean_documents, self.is_complete = (), self._complete()
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

    def adopt(self, document: EventDocument) -> None:
        """Use a document that another agent has read, on a machine without a metadata service."""
        self.document, self.document_at = document, self.now()
        self.clean_documents = (document, document)

    async def refresh(self, *, no_older_than_s: float) -> None:
        """Poll, unless the last good poll is at most `no_older_than_s` seconds old."""
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
            log(logger, logging.INFO, "scheduled events can be read again", event="events_readable")
        self.failures = 0
        self._report(document)
        self._remember(document)
        document = self._with_added(self._with_known(document))
        self.document = document
        self.document_at = self.now()
        self._polled_at = self._clock.monotonic()
        complete = self.is_complete = self._complete()
        # What other agents forward is read by a leader only.
        self.seen_events.record(document, self.document_at, complete=complete and self._leading)
        clean = not document.set_aside and complete
        self.clean_documents = (*self.clean_documents, document)[-CLEAN_DOCUMENTS:] if clean else ()

    def _remember(self, document: EventDocument) -> None:
        """Remember which events the metadata service has shown."""
        for key in (fold(event.event_id) for event in document.events):
            self._shown.pop(key, None)
            self._shown[key] = None
        for key in list(self._shown)[:-MOST_SHOWN]:
            del self._shown[key]

    def _with_known(self, document: EventDocument) -> EventDocument:
        """Keep the events of the last document that may be among those set aside now (law S6).

        An entry whose id cannot be read may be any event that the metadata service has shown. No
        event that is kept is acknowledged: its present state at the platform is not known.
        """
        if self.document is None or not document.set_aside:
            return document
        present = {fold(event.event_id) for event in document.events}
        unreadable = {fold(each.event_id) for each in document.set_aside}
        kept = tuple(
            replace(event, acknowledgeable=False)
            for event in self.document.events
            if (name := fold(event.event_id)) not in present and name in self._shown
            if "" in unreadable or name in unreadable
        )
        return replace(document, events=(*document.events, *kept))

    def _with_added(self, document: EventDocument) -> EventDocument:
        """Add what other sources show. The metadata service decides about an event it has shown."""
        added = tuple(
            event for event in self._added(self.now()) if fold(event.event_id) not in self._shown
        )
        return replace(document, events=(*document.events, *added)) if added else document

    def _report(self, document: EventDocument) -> None:
        """Log every entry that is set aside, once per problem."""
        for problem in dict.fromkeys(each.problem for each in document.set_aside):
            if problem not in self._reported:
                message = f"an event is set aside, the others are used: {problem}"
                log(logger, logging.WARNING, message, event="event_set_aside")
                self._reported = (*self._reported, problem)[-MOST_PROBLEMS:]

    def _failed(self, error: ControllerError) -> None:
        self.clean_documents = ()
        self.failures += 1
        if self.failures == 1:
            message = f"the event document could not be read: {error}"
            log(logger, logging.WARNING, message, event="events_unreadable", outcome=error.word())

    def _correct(self, date: datetime) -> None:
        """Correct the wall clock by the time of IMDS; ignore differences that rounding explains."""
        # The header is rounded down to whole seconds: half a second more is the best estimate.
        ahead = date + timedelta(seconds=0.5) - self._clock.clock.now()
        agrees = _seconds_between(ahead, self._claimed_ahead) <= CLOCK_TOLERANCE_S
        self._claimed_ahead = ahead
        if _seconds_between(ahead, self._clock.ahead) > CORRECTED_AT_ONCE_S and not agrees:
            return
        off_s = abs(ahead.total_seconds())
        corrected = bool(self._clock.ahead)
        if off_s > CLOCK_TOLERANCE_S and not corrected:
            message = f"this clock is {-ahead.total_seconds():+.0f} s off; deadlines are corrected"
            log(logger, logging.WARNING, message, event="clock_corrected")
            self._clock.ahead = ahead
        elif corrected and off_s < CLOCK_TOLERANCE_S / 2:
            self._clock.ahead = timedelta()
        elif corrected and _seconds_between(ahead, self._clock.ahead) > CLOCK_TOLERANCE_S / 2:
            self._clock.ahead = ahead


def _seconds_between(one: timedelta, other: timedelta) -> float:
    return abs((one - other).total_seconds())
