"""Leadership: the lease as a table, its validity as arithmetic, and who should not lead.

The blob lease decides who leads; this module decides what an agent makes of each answer. What it
does not promise: that two agents never both believe to lead. A frozen agent may wake up in that
belief. The promise is law S4: no write leaves it, because validity is counted on the monotonic
clock from the instant the last successful renewal was *sent*, and a jump between the wall clock and
the monotonic clock (the VM was frozen) makes the lease suspect until it is renewed.

    STANDBY --ACQUIRED--> LEADER --RENEWED--> LEADER
                          LEADER --LAPSED---> SUSPECT --RENEWED--> LEADER
                          LEADER, SUSPECT --LOST-----> STANDBY
                          LEADER, SUSPECT --RELEASED-> STANDBY

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from types import MappingProxyType

from controller.core.model import EventDocument, Policy, Request, fold
from controller.errors import ConfigError, InvariantViolation

MARGIN_S = 2.0
"""Left unused at the end of every lease term: scheduling delays, and clocks that run unevenly."""
JUMP_S = 1.0
"""A wall clock that moved this much against the monotonic clock means a freeze or a step."""
BLIND_AFTER_S = 30.0
"""A leader that has not read the event document for so long should let another try."""
BLIND_AGAIN_S = 60.0
"""How long a blind agent that nobody relieved keeps the lease before it offers it again."""


class State(Enum):
    """What an agent is with regard to the lease."""

    STANDBY = "standby"
    LEADER = "leader"
    SUSPECT = "suspect"
    """Held the lease, but it could have expired: no write leaves until it is renewed."""


class Input(Enum):
    """What can happen to the lease. No answer is no input: only time (LAPSED) tells then."""

    ACQUIRED = "acquired"
    HELD = "held"
    RENEWED = "renewed"
    LOST = "lost"
    LAPSED = "lapsed"
    RELEASED = "released"


TRANSITIONS: Mapping[tuple[State, Input], State] = MappingProxyType(
    {
        (State.STANDBY, Input.ACQUIRED): State.LEADER,
        (State.STANDBY, Input.HELD): State.STANDBY,
        (State.LEADER, Input.RENEWED): State.LEADER,
        (State.LEADER, Input.LAPSED): State.SUSPECT,
        (State.LEADER, Input.LOST): State.STANDBY,
        (State.LEADER, Input.RELEASED): State.STANDBY,
        (State.SUSPECT, Input.RENEWED): State.LEADER,
        (State.SUSPECT, Input.LOST): State.STANDBY,
        (State.SUSPECT, Input.RELEASED): State.STANDBY,
    }
)


def step(state: State, happened: Input) -> State:
    """Return the state after `happened`.

    Raises:
        InvariantViolation: the table has no such transition; nothing changes.
    """
    try:
        return TRANSITIONS[state, happened]
    except KeyError:
        raise InvariantViolation(f"a {state.value} cannot see its lease {happened.value}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """The time for which one successful acquire or renew is good."""

    sent_at: float
    """Monotonic seconds when the request was sent."""
    wall_ahead: float
    """Wall clock minus monotonic clock at that instant, in seconds."""
    duration_s: float

    @property
    def ends_at(self) -> float:
        """Monotonic instant after which nothing may be sent any more."""
        return self.sent_at + self.duration_s - MARGIN_S

    def valid(self, *, monotonic: float, wall_ahead: float) -> bool:
        """Tell whether the lease is certainly still ours (law S4)."""
        return monotonic < self.ends_at and abs(wall_ahead - self.wall_ahead) < JUMP_S


def check_timing(*, lease_duration_s: float, renew_period_s: float, timeout_s: float) -> None:
    """Refuse timing under which one failed renewal costs the lease.

    Raises:
        ConfigError: renewing, failing once and renewing again does not fit into the lease.
    """
    needed = renew_period_s + 2 * timeout_s + MARGIN_S
    if needed > lease_duration_s:
        raise ConfigError(
            f"renew_period_s + 2 * request_timeout_s + {MARGIN_S:g} is {needed:g} s and must fit "
            f"into lease_duration_s, which is {lease_duration_s:g} s: one slow renewal would lose "
            "the lease. Raise lease_duration_s (15 to 60) or lower the others."
        )


# --- who should not lead ---


@dataclass(frozen=True, slots=True)
class Handicap:
    """Why others should lead rather than this agent; falsy when there is no reason."""

    events: frozenset[str] = frozenset()
    """Folded ids of due events that will hit this very VM, and of requests for it."""
    blind: bool = False
    """The event document could not be read for a while."""

    def __bool__(self) -> bool:
        return self.blind or bool(self.events)


def handicap(
    *,
    vm: str,
    document: EventDocument | None,
    document_age_s: float,
    policy: Policy,
    now: datetime,
    requests: tuple[Request, ...] = (),
) -> Handicap:
    """Return what speaks against leadership of the agent on `vm`."""
    events: set[str] = set()
    for event in document.events if document else ():
        if event.affects(vm) and policy.impacting(event):
            due = policy.drain_at(event)
            if due is None or due <= now:
                events.add(fold(event.event_id))
    for request in requests:
        if request.wants(vm, now):
            events.add(fold(request.request_id))
    blind = document is None or document_age_s > BLIND_AFTER_S
    return Handicap(frozenset(events), blind)


def must_yield(present: Handicap, *, yielded: Handicap, yielded_ago_s: float) -> bool:
    """Tell whether a leader has to release the lease for others to take.

    Once per event: if nobody took the lease then, nobody is better placed now. A blind leader
    offers it again and again, because its peers may have regained their sight.
    """
    if present.events - yielded.events:
        return True
    return present.blind and (not yielded.blind or yielded_ago_s >= BLIND_AGAIN_S)


def may_acquire(present: Handicap, *, free_for_s: float, yield_s: float) -> bool:
    """Tell whether to compete for a lease that has been free for so long."""
    return not present or free_for_s >= yield_s
