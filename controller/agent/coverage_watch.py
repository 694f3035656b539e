"""Finds and reports events that this agent's document shows, and that the leader does not know.

Only in a scale set: its instances may have more than one event document (`core.event_coverage`).
"""

import logging
from collections.abc import Callable

from controller.agent.present_set import PresentSet
from controller.clock import Clock
from controller.core.azure_names import SetKind, fold
from controller.core.event_coverage import unrecorded
from controller.core.events import EventDocument, ScheduledEvent
from controller.core.ledger import Ledger
from controller.core.policy import Policy
from controller.observability.logs import log

logger = logging.getLogger("lbdrain.agent")

FORWARDED_AFTER_S = 45.0
"""How long an event of another VM may be unknown to the leader before this agent forwards it."""
UNKNOWN_FOR_S = 120.0
"""How long an event may be unknown to the leader: it reads its document every second and forwarded
events every 15 s, and this agent reads the ledger when that has changed, but not more often than
every 10 seconds."""


class CoverageWatch:
    """Compares each document with the ledger while this agent is a standby.

    Args:
        vm: the VM of this agent.
        present_set: the set.
        clock: the monotonic clock.
        policy: returns the policy in force.
        ledger: returns the ledger as a standby has last read it; None before that, and as a leader.
        document: returns the newest event document; None before the first.
    """

    def __init__(
        self,
        *,
        vm: str,
        present_set: PresentSet,
        clock: Clock,
        policy: Callable[[], Policy],
        ledger: Callable[[], Ledger | None],
        document: Callable[[], EventDocument | None],
    ) -> None:
        self._vm, self._set, self._clock, self._policy = vm, present_set, clock, policy
        self._ledger, self._document = ledger, document
        self._since: dict[str, float] = {}
        """When an event was first seen to be unknown to the leader, by folded id."""
        self._reported: set[str] = set()
        self.unknown: tuple[ScheduledEvent, ...] = ()
        """The events to forward, with the VMs for which the leader lacks them."""
        self.problem = ""
        """What the leader does not know; empty if it knows everything."""

    def is_in_scale_set(self) -> bool:
        """Return whether events are forwarded here.

        Only a leader reads which set Azure has made of this one, and records it. A standby believes
        its ledger for what it forwards alone: an agent that leads works with what Azure states.
        """
        ledger = self._ledger()
        recorded = ledger.present_set_id if ledger is not None else ""
        return SetKind.SCALE_SET in {self._set.kind, SetKind.of(recorded)}

    def polled(self) -> None:
        """Compare again; called after every poll."""
        ledger, document = self._ledger(), self._document()
        if ledger is None or document is None or not self.is_in_scale_set():
            self._since, self.unknown, self.problem = {}, (), ""
            return
        found = {fold(e.event_id): e for e in unrecorded(document, ledger, self._policy())}
        now = self._clock.monotonic()
        self._since = {key: self._since.get(key, now) for key in found}
        self.unknown = tuple(
            found[key] for key, at in self._since.items() if now - at >= FORWARDED_AFTER_S
        )
        late = [found[key] for key, since in self._since.items() if now - since >= UNKNOWN_FOR_S]
        self.problem = "; ".join(self._message(event, ledger.leader) for event in late[:3])
        for event in late:
            if fold(event.event_id) not in self._reported:
                self._reported.add(fold(event.event_id))
                message = self._message(event, ledger.leader)
                log(logger, logging.ERROR, message, event="event_not_covered", vm=self._vm)
        self._reported &= set(found)

    def _message(self, event: ScheduledEvent, leader: str) -> str:
        names = " ".join(event.resources)
        return (
            f"the event document of {self._vm} shows the {event.event_type} {event.event_id} of "
            f"{names}, and the leader {leader or 'of the set'} does not know it: no VM is drained "
            f"for it. Drain them on request: lb-drain drain {names}"
        )
