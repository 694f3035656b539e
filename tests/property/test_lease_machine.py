"""Two agents, one lease: never two valid terms at once, whatever happens to clocks and replies."""

from dataclasses import dataclass
from itertools import combinations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controller.core.lease import LeaseInput, LeaseState, Term, next_state

DURATION_S = 30.0
AGENTS = st.integers(0, 1)


@dataclass
class Lease:
    """The storage service: one lease, by its own true clock."""

    holder: int | None = None
    until: float = 0.0

    def acquire(self, agent: int, now: float) -> bool:
        if self.holder not in (None, agent) and now < self.until:
            return False
        self.holder, self.until = agent, now + DURATION_S
        return True

    def renew(self, agent: int, now: float) -> bool:
        # An expired lease can still be renewed as long as nobody else has taken it.
        if self.holder != agent:
            return False
        self.until = now + DURATION_S
        return True

    def release(self, agent: int) -> None:
        if self.holder == agent:
            self.holder, self.until = None, 0.0


@dataclass
class Agent:
    """What one agent believes, by its own clocks."""

    monotonic_behind: float
    """A frozen VM's monotonic clock stands still; its wall clock is set right afterwards."""
    state: LeaseState = LeaseState.STANDBY
    term: Term | None = None
    sent_at: float | None = None
    """True instant at which a request whose reply is still out was sent."""
    asked: Term | None = None

    def valid(self, now: float) -> bool:
        term, monotonic = self.term, now - self.monotonic_behind
        return (
            self.state is LeaseState.LEADER
            and term is not None
            and term.valid(monotonic=monotonic, wall_ahead=now - monotonic)
        )


class TwoAgents(RuleBasedStateMachine):
    """Requests and replies are apart, so that anything can happen between them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.lease = Lease()
        self.agents = [Agent(monotonic_behind=0.0), Agent(monotonic_behind=500.0)]
        self.outcome: dict[int, bool] = {}

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 8.0, 14.0, 27.9, 28.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(agent=AGENTS, seconds=st.sampled_from([1.5, 29.0, 60.0]))
    def frozen(self, agent: int, seconds: float) -> None:
        self.now += seconds
        self.agents[agent].monotonic_behind += seconds

    @rule(agent=AGENTS)
    def send(self, agent: int) -> None:
        """An acquire by a standby, a renewal by whoever leads or may."""
        me = self.agents[agent]
        monotonic = self.now - me.monotonic_behind
        me.asked = Term(sent_at=monotonic, wall_ahead=self.now - monotonic, duration_s=DURATION_S)
        self.outcome.pop(agent, None)

    @precondition(lambda self: any(each.asked for each in self.agents))
    @rule(agent=AGENTS)
    def arrive(self, agent: int) -> None:
        """The request reaches the service; the reply is still out."""
        me = self.agents[agent]
        if me.asked is None or agent in self.outcome:
            return
        if me.state is LeaseState.STANDBY:
            self.outcome[agent] = self.lease.acquire(agent, self.now)
        else:
            self.outcome[agent] = self.lease.renew(agent, self.now)

    @rule(agent=AGENTS, lost=st.booleans())
    def reply(self, agent: int, lost: bool) -> None:
        me, granted = self.agents[agent], self.outcome.pop(agent, None)
        if me.asked is None or granted is None:
            return
        asked, me.asked = me.asked, None
        if lost:
            return
        standby = me.state is LeaseState.STANDBY
        if granted:
            me.state = next_state(me.state, LeaseInput.ACQUIRED if standby else LeaseInput.RENEWED)
            me.term = asked
        else:
            me.state = next_state(me.state, LeaseInput.HELD if standby else LeaseInput.LOST)
            me.term = None if not standby else me.term

    @rule(agent=AGENTS)
    def look(self, agent: int) -> None:
        """An agent that sees its term end stops, until a renewal says otherwise."""
        me = self.agents[agent]
        if me.state is LeaseState.LEADER and not me.valid(self.now):
            me.state = next_state(me.state, LeaseInput.LAPSED)

    @rule(agent=AGENTS)
    def resign(self, agent: int) -> None:
        me = self.agents[agent]
        if me.state is not LeaseState.STANDBY:
            me.state, me.term, me.asked = next_state(me.state, LeaseInput.RELEASED), None, None
            self.outcome.pop(agent, None)
            self.lease.release(agent)

    @invariant()
    def one_leader(self) -> None:
        """S4: at no instant do two agents hold a valid term."""
        for one, other in combinations(self.agents, 2):
            assert not (one.valid(self.now) and other.valid(self.now))

    @invariant()
    def a_valid_term_is_a_held_lease(self) -> None:
        """S4: whoever may write holds the lease as storage counts it, with the margin left."""
        for number, agent in enumerate(self.agents):
            if agent.valid(self.now):
                assert self.lease.holder == number
                assert self.now < self.lease.until - 1.9


TwoAgents.TestCase.settings = settings(max_examples=80, stateful_step_count=40)
TestTwoAgents = TwoAgents.TestCase
