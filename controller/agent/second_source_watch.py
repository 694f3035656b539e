"""Asks Azure Resource Graph about scheduled events while this agent leads.

One query a minute while an event is announced or its end may follow, one in ten minutes otherwise;
none before the time at which Azure allows the next one. A failed query changes nothing but what is
reported about it: nothing waits for an answer.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from controller.agent.present_set import PresentSet
from controller.azure.resource_graph import ResourceGraph
from controller.clock import Clock
from controller.core.event_progress import SeenEvent
from controller.core.events import EventDocument
from controller.core.ledger import Ledger
from controller.core.second_source import SecondSource, asked_about, is_busy, unpublished
from controller.errors import ControllerError, retry_after_of
from controller.observability.logs import log

logger = logging.getLogger("lbdrain.events")

CHECK_S = 5.0
"""How often the agent looks whether a query is due."""
BUSY_PERIOD_S = 60.0
"""Between two queries while an event is announced, or its end may follow."""
IDLE_PERIOD_S = 600.0
"""Between two queries otherwise."""


class SecondSourceWatch:
    """Keeps what Resource Graph last answered; `run` is a task.

    Args:
        client: of Resource Graph.
        present_set: the set that the VMs are in now.
        vm_ids: returns the ids of its VMs.
        clock: the corrected clock.
        leading: returns whether this agent leads.
        ledger, document: return what the agent knows; they decide what is asked, and how often.
        seen: returns the events that this agent has read.
        changed: called when an answer has changed what is known.
    """

    def __init__(
        self,
        client: ResourceGraph,
        *,
        present_set: PresentSet,
        vm_ids: Callable[[], Iterable[str]],
        clock: Clock,
        leading: Callable[[], bool],
        ledger: Callable[[], Ledger],
        document: Callable[[], EventDocument | None],
        seen: Callable[[], Iterable[SeenEvent]],
        changed: Callable[[], None],
    ) -> None:
        self._client, self._set, self._vm_ids = client, present_set, vm_ids
        self._clock, self._leading, self._changed = clock, leading, changed
        self._ledger, self._document, self._seen = ledger, document, seen
        self._asked_at: float | None = None
        self._not_before = 0.0
        self._led, self._reported = False, ""
        self._unpublished: tuple[str, ...] = ()
        self.known = SecondSource()

    async def run(self) -> None:
        """Ask when it is due, until cancelled."""
        while True:
            await self.turn()
            await asyncio.sleep(CHECK_S)

    async def turn(self) -> None:
        """Ask once if that is due. A new leader knows nothing: what it knew before is old."""
        leading = self._leading()
        if leading and not self._led:
            self.known = SecondSource()
        self._led = leading
        if leading and self._is_due():
            await self._ask()

    def _is_due(self) -> bool:
        now = self._clock.monotonic()
        if now < self._not_before:
            return False
        busy = is_busy(self._ledger(), self._document(), self._clock.now())
        period_s = BUSY_PERIOD_S if busy else IDLE_PERIOD_S
        return self._asked_at is None or now - self._asked_at >= period_s

    async def _ask(self) -> None:
        self._asked_at = self._clock.monotonic()
        before = self.known
        try:
            found = await self._client.scheduled_events(
                self._set.set_id, self._vm_ids(), asked_about(self._ledger(), self._document())
            )
        except ControllerError as error:
            self._failed(error)
        else:
            self._wait(found.wait_s)
            self._reported = ""
            self.known = before.answered(found.reply, self._clock.now())
            if self.known.set_aside and self.known.set_aside != before.set_aside:
                message = f"Resource Graph: a row is set aside: {self.known.set_aside[0]}"
                log(logger, logging.WARNING, message, event="event_set_aside")
            self._compare()
            if self.known.events != before.events:
                self._changed()

    def _compare(self) -> None:
        """Log, once for each event, that Resource Graph lacks what agents have read for long."""
        now, before = self._clock.now(), self._unpublished
        self._unpublished = unpublished(self.known, self._document(), self._seen(), now)
        for event_id in self._unpublished:
            if event_id not in before:
                message = (
                    f"event {event_id} is announced, and Resource Graph does not show it: the set "
                    "does not publish its events there, or late; lb-drain doctor finds out"
                )
                log(
                    logger,
                    logging.INFO,
                    message,
                    event="event_unpublished",
                    event_id=event_id,
                )

    def _failed(self, error: ControllerError) -> None:
        self._wait(retry_after_of(error))
        self.known = self.known.failed(str(error))
        if error.word() != self._reported:
            self._reported = error.word()
            message = f"Resource Graph could not be asked about scheduled events: {error}"
            log(
                logger,
                logging.WARNING,
                message,
                event="azure_request_failed",
                outcome=error.word(),
            )

    def _wait(self, wait_s: float | None) -> None:
        if wait_s is not None:
            self._not_before = self._clock.monotonic() + wait_s
