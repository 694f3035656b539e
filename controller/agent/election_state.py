"""What one agent knows about the lease: its state, its term, and what it decided lately.

`core.lease` decides what an input does to the state. A lease counts as held only as long as the
last successful acquire or renew allows, counted from when that request was sent (law S4).
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from controller.clock import Clock
from controller.core.lease import (
    LeaseInput,
    LeaseState,
    ReasonsNotToLead,
    Term,
    must_yield,
    next_state,
    unable_again_s,
)
from controller.errors import ControllerError
from controller.observability.logs import log

logger = logging.getLogger("lbdrain.election")

QUARANTINE_S = 30.0
"""How long an agent that cannot read the ledger stays out of the election."""
CLOCK_JUMPS = "cannot rely on its clock, which keeps jumping: check the time service of this VM"
JUMPS, JUMPS_WITHIN_S = 5, 60.0
"""A clock that made the lease suspect this often within this many seconds keeps jumping."""
FEW_YIELDS_AFTER_S = 1200.0
"""After this many seconds without a yield an unable agent counts its yields from one again."""


class ElectionState:
    """The lease as this agent knows it.

    Args:
        clock: wall and monotonic clock.
        lease_duration_s: how long a successful acquire or renew is good for.
    """

    def __init__(self, clock: Clock, *, lease_duration_s: int) -> None:
        self._clock, self._lease_duration_s = clock, lease_duration_s
        self._listeners: list[Callable[[], None]] = []
        self._yielded, self._yielded_at = ReasonsNotToLead(), float("-inf")
        self._unable_yields = 0
        self._jumped_at: tuple[float, ...] = ()
        self._quarantined_until = float("-inf")
        self._free_since: float | None = None
        self._looked_free = False
        """An acquire was refused although the lease looked free, and no agent has taken it since:
        others may have been refused as well."""
        self.released_last = False
        """This agent has released the lease, and no other has taken it since."""
        self._failing = False
        self.value = LeaseState.STANDBY
        self.term: Term | None = None
        self.tenures = 0
        """How often this agent has become leader."""
        self.renewed_at = float("-inf")
        """When the last successful acquire or renew was sent; monotonic seconds."""
        self.leader_seen_at = clock.monotonic()
        """When the lease was last known to be held; before that, when this agent began to read it.
        Monotonic seconds."""

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change of state."""
        self._listeners.append(listener)

    # --- the term ---

    def new_term(self) -> Term:
        """Return the term of a request that is sent now."""
        return Term(
            sent_at=self._clock.monotonic(),
            wall_ahead=self._wall_ahead(),
            duration_s=self._lease_duration_s,
        )

    def is_valid(self) -> bool:
        """Return whether the lease is certainly still held."""
        return self.term is not None and self.term.valid(
            monotonic=self._clock.monotonic(), wall_ahead=self._wall_ahead()
        )

    @property
    def leading(self) -> bool:
        """Whether a write may leave now."""
        return self.value is LeaseState.LEADER and self.is_valid()

    @property
    def left_s(self) -> float | None:
        """How many seconds a write may leave without another renewal; None without a lease."""
        if self.term is None:
            return None
        return self.term.left_s(monotonic=self._clock.monotonic(), wall_ahead=self._wall_ahead())

    def _wall_ahead(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()

    def with_clock(self, reasons: ReasonsNotToLead) -> ReasonsNotToLead:
        """Return the reasons not to lead, and a clock that keeps making the lease suspect."""
        since = self._clock.monotonic() - JUMPS_WITHIN_S
        if reasons.unable or sum(at > since for at in self._jumped_at) < JUMPS:
            return reasons
        return replace(reasons, unable=CLOCK_JUMPS)

    # --- inputs ---

    def apply(self, happened: LeaseInput, why: str = "") -> None:
        """Apply an input to the state, and report a change."""
        before, self.value = self.value, next_state(self.value, happened)
        if self.value is not before:
            message = f"{self.value.value}: {why}" if why else self.value.value
            level = logging.WARNING if self.value is LeaseState.SUSPECT else logging.INFO
            log(logger, level, message, event="lease_changed", outcome=happened.value)
            for listener in self._listeners:
                listener()

    def apply_unless_lost(self, happened: LeaseInput, why: str = "") -> None:
        """Apply a reply, unless storage has refused a write while the reply was on its way."""
        if self.value is not LeaseState.STANDBY:
            self.apply(happened, why)

    def lapsed(self) -> None:
        """The lease could have expired."""
        term, now = self.term, self._clock.monotonic()
        if term is not None and term.left_s(monotonic=now, wall_ahead=term.wall_ahead) > 0:
            self._jumped_at = (*self._jumped_at, now)[-JUMPS:]
        self.apply(LeaseInput.LAPSED, "the lease could have expired: no writes until renewed")

    def acquired(self, term: Term, reasons: ReasonsNotToLead) -> None:
        """The lease was acquired by the request that began this term.

        For these reasons it was left to other agents until now, which is as good as a yield, if
        they could have acquired it.
        """
        self.recovered()
        if reasons and not self._looked_free:
            self._yielded, self._yielded_at = reasons, self._clock.monotonic()
        self._free_since, self._looked_free = None, False
        self._extend(term)
        self.tenures += 1
        self.apply(LeaseInput.ACQUIRED, "acquired the lease")

    def renewed(self, term: Term) -> None:
        """The lease was renewed by the request that began this term."""
        self.recovered()
        self._extend(term)
        self.apply_unless_lost(LeaseInput.RENEWED)

    def _extend(self, term: Term) -> None:
        self.term = term
        self.renewed_at = self.leader_seen_at = term.sent_at

    def released(self, why: str) -> None:
        """The lease was released, or a release was tried."""
        self.released_last = True
        self._free_since = self._clock.monotonic()
        self.apply_unless_lost(LeaseInput.RELEASED, why)

    def leader_seen(self) -> None:
        """According to storage, an agent holds the lease."""
        self.leader_seen_at = self._clock.monotonic()

    def not_free(self, *, refused: bool = False) -> None:
        """Another agent holds the lease: forget since when it was free.

        Args:
            refused: an acquire shows it; the lease looked free.
        """
        self.released_last, self._looked_free = False, refused
        self._free_since = None
        if refused:
            self.leader_seen()
            self.apply(LeaseInput.HELD)

    def free_for_s(self) -> float:
        """Return how many seconds the lease has been known to be free; the first call starts it."""
        now = self._clock.monotonic()
        if self._free_since is None:
            self._free_since = now
        return now - self._free_since

    # --- yielding and quarantine ---

    def must_yield(self, present: ReasonsNotToLead) -> bool:
        """Return whether the agent must release the lease now, so that a peer can take it."""
        yielded_ago_s = self._clock.monotonic() - self._yielded_at
        return must_yield(
            present,
            yielded=self._yielded,
            yielded_ago_s=yielded_ago_s,
            unable_again_s=unable_again_s(max(1, self._unable_yields)),
        )

    def yielded(self, reasons: ReasonsNotToLead) -> None:
        """The lease is released for these reasons."""
        now = self._clock.monotonic()
        if now - self._yielded_at > FEW_YIELDS_AFTER_S:
            self._unable_yields = 0
        self._unable_yields += bool(reasons.unable)
        self._yielded, self._yielded_at = reasons, now
        message = f"this agent releases the lease to another agent: {reasons.why}"
        level = logging.WARNING if reasons.unable else logging.INFO
        log(logger, level, message, event="lease_yielded")

    @property
    def yielded_in_vain(self) -> bool:
        """Whether this agent leads although it yielded lately because it was unable."""
        ago_s = self._clock.monotonic() - self._yielded_at
        lately = ago_s < FEW_YIELDS_AFTER_S and bool(self._yielded.unable)
        return lately and self.value is not LeaseState.STANDBY

    def quarantine(self, for_s: float = QUARANTINE_S) -> None:
        """Stay out of the election for a while."""
        self._quarantined_until = self._clock.monotonic() + for_s

    @property
    def quarantined(self) -> bool:
        """Whether this agent stays out of the election."""
        return self._clock.monotonic() < self._quarantined_until

    # --- storage ---

    def failed(self, error: ControllerError) -> None:
        """Report that the lease cannot be reached, once."""
        if not self._failing:
            self._failing = True
            message = f"the lease cannot be reached: {error}"
            log(logger, logging.WARNING, message, event="lease_unreachable", outcome=error.word())

    def recovered(self) -> None:
        """Report that the lease can be reached again, once."""
        if self._failing:
            self._failing = False
            log(logger, logging.INFO, "the lease can be reached again", event="lease_reachable")
