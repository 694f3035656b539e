"""Leadership: the whole table, the arithmetic of a term, and who should not lead."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.core.controls import HandOver
from controller.core.events import EventDocument, EventStatus, ScheduledEvent
from controller.core.lease import (
    CLOCK_JUMP_S,
    EVENTS_STALE_S,
    MARGIN_S,
    MOST_YIELD_AGAIN_S,
    YIELD_AGAIN_S,
    LeaseInput,
    LeaseState,
    ReasonsNotToLead,
    Term,
    check_timing,
    may_acquire,
    must_yield,
    next_state,
    reasons_not_to_lead,
    unable_again_s,
    wait_s,
)
from controller.core.policy import Floor
from controller.errors import ConfigError, InvariantViolation
from tests.support.policies import make_policy

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
POLICY = make_policy(pools={"p": Floor(number=1)})
TABLE = {
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


@pytest.mark.parametrize("happened", LeaseInput)
@pytest.mark.parametrize("state", LeaseState)
def test_the_whole_table(state: LeaseState, happened: LeaseInput) -> None:
    """Every pair leads to the state in the table, or is a bug that stops the agent."""
    if (state, happened) in TABLE:
        assert next_state(state, happened) is TABLE[state, happened]
    else:
        with pytest.raises(InvariantViolation, match=f"{state.value}.*{happened.value}"):
            next_state(state, happened)


def test_the_words_of_the_table() -> None:
    """Status and logs show these words."""
    assert [state.value for state in LeaseState] == ["standby", "leader", "suspect"]
    assert [happened.value for happened in LeaseInput] == [
        "acquired",
        "held",
        "renewed",
        "lost",
        "lapsed",
        "released",
    ]


def test_margins() -> None:
    """S4: what is left unused of a lease, what counts as a freeze, and how long blindness lasts."""
    assert (MARGIN_S, CLOCK_JUMP_S) == (2, 1)
    assert (EVENTS_STALE_S, YIELD_AGAIN_S, MOST_YIELD_AGAIN_S) == (30, 60, 600)


def test_term_ends_a_margin_early() -> None:
    """S4: validity is counted from when the renewal was sent, less a margin."""
    term = Term(sent_at=100, wall_ahead=5, duration_s=30)
    assert term.left_s(monotonic=100, wall_ahead=5) == 30 - MARGIN_S
    assert term.valid(monotonic=100, wall_ahead=5)
    assert term.valid(monotonic=127.9, wall_ahead=5)
    assert not term.valid(monotonic=128, wall_ahead=5)
    assert not term.valid(monotonic=1000, wall_ahead=5)


@pytest.mark.parametrize(
    ("jump", "left_s"), [(0, 27), (0.9, 26.1), (26.9, 0.1), (27, 0), (86_400, -86_373)]
)
def test_what_the_wall_clock_gains_counts_as_time_of_the_term(jump: float, left_s: float) -> None:
    """S4: the VM may have been frozen for as long as its wall clock moved on alone."""
    term = Term(sent_at=100, wall_ahead=5, duration_s=30)
    assert term.left_s(monotonic=101, wall_ahead=5 + jump) == pytest.approx(left_s)
    assert term.valid(monotonic=101, wall_ahead=5 + jump) is (left_s > 0)


@pytest.mark.parametrize(("jump", "valid"), [(-0.9, True), (-CLOCK_JUMP_S, False), (-9, False)])
def test_a_clock_that_is_set_back_makes_the_lease_suspect(jump: float, valid: bool) -> None:
    """S4: a clock that is set back can hide that the VM was frozen; it adds nothing to the term."""
    term = Term(sent_at=100, wall_ahead=5, duration_s=30)
    assert term.valid(monotonic=101, wall_ahead=5 + jump) is valid
    assert term.left_s(monotonic=101, wall_ahead=5 + jump) == 27


def test_timing_law() -> None:
    """Renewing, failing once and renewing again must fit into the lease."""
    check_timing(lease_duration_s=30, renew_period_s=8, request_timeout_s=4)
    check_timing(lease_duration_s=18, renew_period_s=8, request_timeout_s=4)
    with pytest.raises(ConfigError, match=r"= 18, more than lease_duration_s 17\.9"):
        check_timing(lease_duration_s=17.9, renew_period_s=8, request_timeout_s=4)


def handicapped(*events: ScheduledEvent, age_s: float = 0, vm: str = "web-1") -> ReasonsNotToLead:
    document = EventDocument(incarnation=1, events=events)
    return reasons_not_to_lead(
        vm=vm, document=document, document_age_s=age_s, policy=POLICY, now=T0
    )


def event(**fields: Any) -> ScheduledEvent:
    known: dict[str, Any] = {
        "event_id": "E-1",
        "event_type": "Reboot",
        "status": EventStatus.SCHEDULED,
        "resources": ("WEB-1",),
        "not_before": T0 + timedelta(seconds=600),
    }
    return ScheduledEvent(**{**known, **fields})


def test_own_due_event_is_a_handicap() -> None:
    """An agent whose VM will be hit soon should not lead; others are not concerned."""
    assert handicapped(event()) == ReasonsNotToLead(events=frozenset({"e-1"}))
    assert not handicapped(event(), vm="web-2")
    assert not handicapped()
    assert not handicapped(event(not_before=T0 + timedelta(seconds=901)))
    assert handicapped(event(not_before=T0 + timedelta(seconds=900)))
    assert handicapped(event(status=EventStatus.STARTED, not_before=None))
    assert not handicapped(event(event_type="Freeze", duration_s=1))


def test_an_event_that_no_agent_drains_is_no_reason_to_yield() -> None:
    """The planner writes nothing because of an undocumented status; the leader keeps the lease."""
    unknown = event(status=EventStatus.UNKNOWN)
    assert not POLICY.is_due(unknown, T0)
    assert not handicapped(unknown)


def test_blindness_is_a_handicap() -> None:
    """An agent that cannot read the event document should not lead."""
    assert not handicapped(age_s=EVENTS_STALE_S).events_unreadable
    assert handicapped(age_s=EVENTS_STALE_S + 0.1).events_unreadable
    unseen = reasons_not_to_lead(vm="web-1", document=None, document_age_s=0, policy=POLICY, now=T0)
    assert unseen == ReasonsNotToLead(events_unreadable=True)


def test_yield_once_per_event() -> None:
    """A leader offers the lease once per event that hits it, and keeps it if no agent took it."""
    none, one = ReasonsNotToLead(), ReasonsNotToLead(frozenset({"a"}))
    two = ReasonsNotToLead(frozenset({"a", "b"}))
    assert not must_yield(none, yielded=none, yielded_ago_s=1e9)
    assert must_yield(one, yielded=none, yielded_ago_s=0)
    assert not must_yield(one, yielded=one, yielded_ago_s=1e9)
    assert must_yield(two, yielded=one, yielded_ago_s=0)
    assert not must_yield(one, yielded=two, yielded_ago_s=0)


def test_a_leader_yields_once_more_when_its_event_begins() -> None:
    """S7: a lease that it does not release stays taken after its VM is down."""
    due = handicapped(event())
    begun = handicapped(event(status=EventStatus.STARTED, not_before=None))
    assert begun == replace(due, begun=frozenset({"e-1"}))
    assert must_yield(begun, yielded=due, yielded_ago_s=0)
    assert not must_yield(begun, yielded=begun, yielded_ago_s=1e9)


def test_a_blind_leader_offers_the_lease_again_and_again() -> None:
    """Its peers may have regained their sight."""
    blind = ReasonsNotToLead(events_unreadable=True)
    assert must_yield(blind, yielded=ReasonsNotToLead(), yielded_ago_s=0)
    assert not must_yield(blind, yielded=blind, yielded_ago_s=YIELD_AGAIN_S - 1)
    assert must_yield(blind, yielded=blind, yielded_ago_s=YIELD_AGAIN_S)


HANDED_OVER = ReasonsNotToLead(handed_over="H-1")


def test_yield_once_per_hand_over() -> None:
    """A leader that got the lease back keeps it, until another hand-over is requested."""
    assert must_yield(HANDED_OVER, yielded=ReasonsNotToLead(), yielded_ago_s=0)
    assert not must_yield(HANDED_OVER, yielded=HANDED_OVER, yielded_ago_s=1e9)
    again = ReasonsNotToLead(handed_over="H-2")
    assert must_yield(again, yielded=HANDED_OVER, yielded_ago_s=0)
    assert not must_yield(ReasonsNotToLead(), yielded=HANDED_OVER, yielded_ago_s=1e9)


def test_a_hand_over_is_a_reason_not_to_lead() -> None:
    """For every agent that it concerns, and for no other one."""
    hand_over = HandOver(
        request_id="H-1", leader="web-1", vm="web-2", by="ann", reason="", at=T0, until=T0
    )
    found = {
        vm: reasons_not_to_lead(
            vm=vm,
            document=EventDocument(incarnation=1, events=()),
            document_age_s=0,
            policy=POLICY,
            now=T0,
            hand_over=hand_over,
        )
        for vm in ("web-1", "web-2", "web-3")
    }
    none = ReasonsNotToLead()
    assert found == {"web-1": HANDED_OVER, "web-2": none, "web-3": HANDED_OVER}
    assert HANDED_OVER
    assert not none


def test_the_handicapped_wait() -> None:
    """Unaffected peers have `yield_s` to take a free lease; then every agent may."""
    affected = ReasonsNotToLead(frozenset({"a"}))
    assert may_acquire(ReasonsNotToLead(), free_for_s=0, yield_s=5)
    assert not may_acquire(affected, free_for_s=4.9, yield_s=5)
    assert may_acquire(affected, free_for_s=5, yield_s=5)
    assert not may_acquire(ReasonsNotToLead(events_unreadable=True), free_for_s=0, yield_s=5)


UNABLE = ReasonsNotToLead(unable="cannot write")
BLIND = ReasonsNotToLead(events_unreadable=True)


@pytest.mark.parametrize(
    ("reasons", "waits_s"),
    [
        (ReasonsNotToLead(), 0),
        (ReasonsNotToLead(frozenset({"a"})), 5),
        (BLIND, 15),
        (UNABLE, 15),
        (ReasonsNotToLead(frozenset({"a"}), events_unreadable=True, unable="cannot write"), 15),
        (ReasonsNotToLead(frozenset({"a"}), handed_over="H-1"), 15),
    ],
)
def test_an_able_victim_comes_before_an_unable_peer(
    reasons: ReasonsNotToLead, waits_s: float
) -> None:
    """S7: who takes a free lease first: the able, then the affected, then those that failed."""
    assert wait_s(reasons, yield_s=5) == waits_s
    assert may_acquire(reasons, free_for_s=waits_s, yield_s=5)
    assert not may_acquire(reasons, free_for_s=waits_s - 0.1, yield_s=5)


def test_an_unable_agent_waits_also_when_victims_do_not() -> None:
    """`yield_s` may be 0 or long; the difference between agents stays the same."""
    assert wait_s(UNABLE, yield_s=0) == 10
    assert wait_s(UNABLE, yield_s=60) == 70
    assert wait_s(UNABLE, yield_s=60, released=True) == 80


def test_whoever_released_the_lease_tries_last() -> None:
    """L2: in a set in which no agent is able, every agent gets its turn."""
    assert wait_s(UNABLE, yield_s=5, released=True) == 25
    assert not may_acquire(UNABLE, free_for_s=24.9, yield_s=5, released=True)
    assert may_acquire(UNABLE, free_for_s=25, yield_s=5, released=True)
    affected = ReasonsNotToLead(frozenset({"a"}))
    assert wait_s(affected, yield_s=5, released=True) == 5
    assert wait_s(ReasonsNotToLead(), yield_s=5, released=True) == 0


def test_a_blind_leader_leaves_the_lease_to_any_agent_that_reads_events() -> None:
    """S7: only such an agent sees the next event, whatever it could not do a while ago."""
    longest_look_s = 7.5
    for peer in (UNABLE, ReasonsNotToLead(frozenset({"a"}))):
        assert longest_look_s + wait_s(peer, yield_s=5) < wait_s(BLIND, yield_s=5, released=True)


def test_an_unable_leader_offers_the_lease_ever_more_rarely() -> None:
    """While no agent is able each keeps trying, and the lease does not change all the time."""
    assert must_yield(UNABLE, yielded=ReasonsNotToLead(), yielded_ago_s=0)
    assert must_yield(UNABLE, yielded=ReasonsNotToLead(frozenset({"a"})), yielded_ago_s=0)
    for again_s in (60, 120):
        for ago_s in (again_s - 1, again_s):
            yields = must_yield(UNABLE, yielded=UNABLE, yielded_ago_s=ago_s, unable_again_s=again_s)
            assert yields is (ago_s == again_s)
    assert [unable_again_s(times) for times in (1, 2, 3, 4, 5, 99)] == [60, 120, 240, 480, 600, 600]


@pytest.mark.parametrize(
    ("reasons", "why"),
    [
        (UNABLE, "it cannot write"),
        (ReasonsNotToLead(events_unreadable=True), "it cannot read events"),
        (ReasonsNotToLead(frozenset({"a"}), events_unreadable=True), "its own VM is affected"),
        (ReasonsNotToLead(frozenset({"a"}), unable="cannot write"), "it cannot write"),
        (
            ReasonsNotToLead(frozenset({"a"}), handed_over="H-1"),
            "an operator has requested a hand-over",
        ),
    ],
)
def test_a_reason_is_a_clause_of_the_log_line(reasons: ReasonsNotToLead, why: str) -> None:
    """The line of a handover states the reason that explains most."""
    assert reasons
    assert reasons.why == why


def test_inability_is_a_reason_not_to_lead() -> None:
    """What the agent cannot do although it is due is passed on as it is."""
    reasons = reasons_not_to_lead(
        vm="web-1",
        document=EventDocument(incarnation=1, events=()),
        document_age_s=0,
        policy=POLICY,
        now=T0,
        unable="cannot write",
    )
    assert reasons == UNABLE
