"""Leadership: the lease as a table, its validity as arithmetic, and the reasons not to lead.

The blob lease decides which agent leads; this module decides what an agent concludes from each
reply. Two agents may both consider themselves the leader: an agent that was frozen does so when it
runs again. What holds is law S4: such an agent sends no write. Validity is counted on the monotonic
clock from the instant the last successful renewal was *sent*. The monotonic clock of a frozen VM
stands still while its wall clock moves on, so every second that the wall clock gained since then
counts as a second of the term. A wall clock that was set back can hide such a gain: the lease is
suspect until it is renewed.

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

from controller.core.azure_names import fold
from controller.core.controls import HandOver
from controller.core.drain_requests import DrainRequest
from controller.core.events import EventDocument
from controller.core.ledger import Ledger
from controller.core.policy import Policy
from controller.errors import ConfigError, InvariantViolation

MARGIN_S = 2.0
"""Unused at the end of every lease term, in seconds: for scheduling delays and clock drift."""
CLOCK_JUMP_S = 1.0
"""A wall clock that fell this many seconds behind the monotonic clock was set back."""
EVENTS_STALE_S = 30.0
"""A leader that has not read the event document for this long, in seconds, should yield."""
YIELD_AGAIN_S = 60.0
"""How long an agent that cannot read events, or is unable, keeps the lease before it yields again,
in seconds, if no other agent took it. An unable agent doubles it each time."""
MOST_YIELD_AGAIN_S = 600.0
"""The longest interval between two yields of an unable agent, in seconds."""
UNABLE_WAIT_S, RELEASED_WAIT_S = 10.0, 20.0
"""An agent that is unable, or cannot read events, leaves a free lease to others for `yield_s` and
this many seconds more: longer than an agent whose VM is affected takes to find it (7.5 s in a large
set), because that agent can do the work. The one that has just released it waits longest, so that
the others try first: one that was unable may be able again."""

LEASED = "leased"
"""The state of a blob whose lease is held (Microsoft docs, Get Blob Properties,
`x-ms-lease-state`)."""


class LeaseState(Enum):
    """The state of an agent with regard to the lease."""

    STANDBY = "standby"
    LEADER = "leader"
    SUSPECT = "suspect"
    """Held the lease, but it may have expired: no write is sent until it is renewed."""


class LeaseInput(Enum):
    """What can happen to the lease. Without a reply, nothing until the term ends (LAPSED)."""

    ACQUIRED = "acquired"
    HELD = "held"
    RENEWED = "renewed"
    LOST = "lost"
    LAPSED = "lapsed"
    RELEASED = "released"


TRANSITIONS: Mapping[tuple[LeaseState, LeaseInput], LeaseState] = MappingProxyType(
    {
        (LeaseState.STANDBY, LeaseInput.ACQUIRED): LeaseState.LEADER,
        (LeaseState.STANDBY, LeaseInput.HELD): LeaseState.STANDBY,
        (LeaseState.LEADER, LeaseInput.RENEWED): LeaseState.LEADER,
        (LeaseState.LEADER, LeaseInput.LAPSED): LeaseState.SUSPECT,
        (LeaseState.LEADER, LeaseInput.LOST): LeaseState.STANDBY,
        (LeaseState.LEADER, LeaseInput.RELEASED): LeaseState.STANDBY,
        (LeaseState.SUSPECT, LeaseInput.RENEWED): LeaseState.LEADER,
        (LeaseState.SUSPECT, LeaseInput.LOST): LeaseState.STANDBY,
        (LeaseState.SUSPECT, LeaseInput.RELEASED): LeaseState.STANDBY,
    }
)


def next_state(state: LeaseState, happened: LeaseInput) -> LeaseState:
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
    """The time for which one successful acquire or renew is valid."""

    sent_at: float
    """Monotonic seconds when the request was sent."""
    wall_ahead: float
    """Wall clock minus monotonic clock at that instant, in seconds."""
    duration_s: float

    def left_s(self, *, monotonic: float, wall_ahead: float) -> float:
        """Return for how many seconds a write may still be sent.

        Args:
            monotonic: the monotonic clock now.
            wall_ahead: wall clock minus monotonic clock now, in seconds.
        """
        frozen_s = max(0.0, wall_ahead - self.wall_ahead)
        return self.sent_at + self.duration_s - MARGIN_S - monotonic - frozen_s

    def valid(self, *, monotonic: float, wall_ahead: float) -> bool:
        """Return whether this agent certainly still holds the lease (law S4)."""
        set_back = self.wall_ahead - wall_ahead >= CLOCK_JUMP_S
        return not set_back and self.left_s(monotonic=monotonic, wall_ahead=wall_ahead) > 0


def required_duration_s(*, renew_period_s: float, request_timeout_s: float) -> float:
    """Return the shortest lease, in seconds, that outlives a failed renewal and its repeat."""
    return renew_period_s + 2 * request_timeout_s + MARGIN_S


def check_timing(
    *, lease_duration_s: float, renew_period_s: float, request_timeout_s: float
) -> None:
    """Refuse timing under which one failed renewal loses the lease.

    Raises:
        ConfigError: renewing, failing once and renewing again does not fit into the lease.
    """
    required_s = required_duration_s(
        renew_period_s=renew_period_s, request_timeout_s=request_timeout_s
    )
    if required_s > lease_duration_s:
        raise ConfigError(
            f"the lease would expire before a failed renewal is repeated: renew_period_s "
            f"{renew_period_s:g} + 2 x request_timeout_s {request_timeout_s:g} + margin "
            f"{MARGIN_S:g} = {required_s:g}, more than lease_duration_s {lease_duration_s:g}; "
            "raise lease_duration_s (up to 60) or lower the others"
        )


def current_leader(ledger: Ledger, *, lease_state: str) -> str:
    """Return the VM that leads now; empty when there is no leader."""
    return ledger.leader if lease_state == LEASED else ""


# --- reasons not to lead ---


@dataclass(frozen=True, slots=True)
class ReasonsNotToLead:
    """Why another agent should lead; falsy when there is no reason."""

    events: frozenset[str] = frozenset()
    """Folded ids of due events that affect the VM of this agent, and of drain requests for it."""
    begun: frozenset[str] = frozenset()
    """Those of the events that have begun: the VM is about to go down."""
    events_unreadable: bool = False
    """The event document was not read for EVENTS_STALE_S."""
    unable: str = ""
    """What this agent cannot do although it is due, as a clause after "it"; empty if it can."""
    handed_over: str = ""
    """The id of the request by which operators want another agent to lead; empty without one."""

    def __bool__(self) -> bool:
        return bool(self.events_unreadable or self.events or self.unable or self.handed_over)

    @property
    def why(self) -> str:
        """The reason that explains most, as a clause."""
        if self.unable:
            return f"it {self.unable}"
        if self.handed_over:
            return "an operator has requested a hand-over"
        return "its own VM is affected" if self.events else "it cannot read events"


def reasons_not_to_lead(
    *,
    vm: str,
    document: EventDocument | None,
    document_age_s: float,
    policy: Policy,
    now: datetime,
    requests: tuple[DrainRequest, ...] = (),
    unable: str = "",
    hand_over: HandOver | None = None,
) -> ReasonsNotToLead:
    """Return the reasons why the agent on `vm` should not lead."""
    events: set[str] = set()
    begun: set[str] = set()
    for event in document.events if document else ():
        if event.affects(vm) and policy.is_due(event, now):
            events.add(fold(event.event_id))
            if event.has_begun(now):
                begun.add(fold(event.event_id))
    for request in requests:
        if request.covers(vm, now):
            events.add(fold(request.request_id))
    unreadable = document is None or document_age_s > EVENTS_STALE_S
    handed_over = hand_over.request_id if hand_over and hand_over.concerns(vm) else ""
    return ReasonsNotToLead(
        events=frozenset(events),
        begun=frozenset(begun),
        events_unreadable=unreadable,
        unable=unable,
        handed_over=handed_over,
    )


def must_yield(
    current: ReasonsNotToLead,
    *,
    yielded: ReasonsNotToLead,
    yielded_ago_s: float,
    unable_again_s: float = YIELD_AGAIN_S,
) -> bool:
    """Return whether a leader has to release the lease so that another agent can take it.

    Once per event and once per hand-over: if no agent took the lease then, no agent is in a better
    position now. Once more when the event begins: a lease that is not released stays taken after
    its holder is down. A leader that cannot read the events, or is unable, yields repeatedly,
    because its peers may be able to do it again.

    Args:
        current: the reasons now.
        yielded: the reasons for which this agent yielded last.
        yielded_ago_s: seconds since then.
        unable_again_s: see `unable_again_s`.
    """
    if current.events - yielded.events or current.begun - yielded.begun:
        return True
    if current.handed_over and current.handed_over != yielded.handed_over:
        return True
    if current.events_unreadable and (
        not yielded.events_unreadable or yielded_ago_s >= YIELD_AGAIN_S
    ):
        return True
    return bool(current.unable) and (not yielded.unable or yielded_ago_s >= unable_again_s)


def unable_again_s(times: int) -> float:
    """Return how long an unable agent keeps the lease before it yields again, in seconds.

    60, 120, 240, 480, 600, 600, … seconds: while no agent of the set is able, the lease changes
    ever more rarely, and every agent keeps trying.

    Args:
        times: how often it yielded because it was unable, at least once.
    """
    return min(MOST_YIELD_AGAIN_S, YIELD_AGAIN_S * 2.0 ** min(times - 1, 10))


def wait_s(current: ReasonsNotToLead, *, yield_s: float, released: bool = False) -> float:
    """Return for how many seconds an agent leaves a free lease to others.

    An agent without a reason takes it at once. One whose VM is affected comes before one that has
    shown itself unable, or cannot read events: the first can do the work.

    Args:
        current: the reasons of this agent.
        yield_s: see the configuration.
        released: this agent has released the lease, and no other has taken it since.
    """
    if current.unable or current.events_unreadable:
        return yield_s + (RELEASED_WAIT_S if released else UNABLE_WAIT_S)
    if current.handed_over:
        return yield_s + UNABLE_WAIT_S  # the VM that should lead finds it within that time
    return yield_s if current else 0.0


def may_acquire(
    current: ReasonsNotToLead, *, free_for_s: float, yield_s: float, released: bool = False
) -> bool:
    """Return whether to compete for a lease that has been free for this long, in seconds."""
    return free_for_s >= wait_s(current, yield_s=yield_s, released=released)
