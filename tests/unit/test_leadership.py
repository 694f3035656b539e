"""Leadership: the whole table, the arithmetic of a term, and who should not lead."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.core.leadership import (
    BLIND_AFTER_S,
    BLIND_AGAIN_S,
    JUMP_S,
    MARGIN_S,
    Handicap,
    Input,
    State,
    Term,
    check_timing,
    handicap,
    may_acquire,
    must_yield,
    step,
)
from controller.core.model import EventDocument, EventStatus, Floor, Policy, ScheduledEvent
from controller.errors import ConfigError, InvariantViolation

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
POLICY = Policy(pools={"p": Floor()})
TABLE = {
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


@pytest.mark.parametrize("happened", Input)
@pytest.mark.parametrize("state", State)
def test_the_whole_table(state: State, happened: Input) -> None:
    """Every pair either leads where the table says, or is a bug that stops the agent."""
    if (state, happened) in TABLE:
        assert step(state, happened) is TABLE[state, happened]
    else:
        with pytest.raises(InvariantViolation, match=f"{state.value}.*{happened.value}"):
            step(state, happened)


def test_the_words_of_the_table() -> None:
    """Status and logs show these words."""
    assert [state.value for state in State] == ["standby", "leader", "suspect"]
    assert [happened.value for happened in Input] == [
        "acquired",
        "held",
        "renewed",
        "lost",
        "lapsed",
        "released",
    ]


def test_margins() -> None:
    """S4: what is left unused of a lease, what counts as a freeze, and how long blindness lasts."""
    assert (MARGIN_S, JUMP_S) == (2, 1)
    assert (BLIND_AFTER_S, BLIND_AGAIN_S) == (30, 60)


def test_term_ends_a_margin_early() -> None:
    """S4: validity is counted from when the renewal was sent, less a margin."""
    term = Term(sent_at=100, wall_ahead=5, duration_s=30)
    assert term.ends_at == 130 - MARGIN_S
    assert term.valid(monotonic=100, wall_ahead=5)
    assert term.valid(monotonic=127.9, wall_ahead=5)
    assert not term.valid(monotonic=128, wall_ahead=5)
    assert not term.valid(monotonic=1000, wall_ahead=5)


@pytest.mark.parametrize(
    ("jump", "valid"), [(0.9, True), (-0.9, True), (JUMP_S, False), (-9, False)]
)
def test_a_jump_makes_the_lease_suspect(jump: float, valid: bool) -> None:
    """S4: a wall clock that moved against the monotonic clock means that the VM was frozen."""
    term = Term(sent_at=100, wall_ahead=5, duration_s=30)
    assert term.valid(monotonic=101, wall_ahead=5 + jump) is valid


def test_timing_law() -> None:
    """Renewing, failing once and renewing again must fit into the lease."""
    check_timing(lease_duration_s=30, renew_period_s=8, timeout_s=4)
    check_timing(lease_duration_s=18, renew_period_s=8, timeout_s=4)
    with pytest.raises(ConfigError, match=r"is 18 s .* which is 17\.9 s"):
        check_timing(lease_duration_s=17.9, renew_period_s=8, timeout_s=4)


def handicapped(*events: ScheduledEvent, age_s: float = 0, vm: str = "web-1") -> Handicap:
    document = EventDocument(incarnation=1, events=events)
    return handicap(vm=vm, document=document, document_age_s=age_s, policy=POLICY, now=T0)


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
    assert handicapped(event()) == Handicap(events=frozenset({"e-1"}))
    assert not handicapped(event(), vm="web-2")
    assert not handicapped()
    assert not handicapped(event(not_before=T0 + timedelta(seconds=901)))
    assert handicapped(event(not_before=T0 + timedelta(seconds=900)))
    assert handicapped(event(status=EventStatus.STARTED, not_before=None))
    assert not handicapped(event(event_type="Freeze", duration_s=1))


def test_blindness_is_a_handicap() -> None:
    """An agent that cannot read the event document should not lead."""
    assert not handicapped(age_s=BLIND_AFTER_S).blind
    assert handicapped(age_s=BLIND_AFTER_S + 0.1).blind
    unseen = handicap(vm="web-1", document=None, document_age_s=0, policy=POLICY, now=T0)
    assert unseen == Handicap(blind=True)


def test_yield_once_per_event() -> None:
    """A leader offers the lease once per event that hits it, and keeps it if nobody took it."""
    none, one = Handicap(), Handicap(frozenset({"a"}))
    two = Handicap(frozenset({"a", "b"}))
    assert not must_yield(none, yielded=none, yielded_ago_s=1e9)
    assert must_yield(one, yielded=none, yielded_ago_s=0)
    assert not must_yield(one, yielded=one, yielded_ago_s=1e9)
    assert must_yield(two, yielded=one, yielded_ago_s=0)
    assert not must_yield(one, yielded=two, yielded_ago_s=0)


def test_a_blind_leader_offers_the_lease_again_and_again() -> None:
    """Its peers may have regained their sight."""
    blind = Handicap(blind=True)
    assert must_yield(blind, yielded=Handicap(), yielded_ago_s=0)
    assert not must_yield(blind, yielded=blind, yielded_ago_s=BLIND_AGAIN_S - 1)
    assert must_yield(blind, yielded=blind, yielded_ago_s=BLIND_AGAIN_S)


def test_the_handicapped_wait() -> None:
    """Unaffected peers have `yield_s` to take a free lease; then anybody may."""
    affected = Handicap(frozenset({"a"}))
    assert may_acquire(Handicap(), free_for_s=0, yield_s=5)
    assert not may_acquire(affected, free_for_s=4.9, yield_s=5)
    assert may_acquire(affected, free_for_s=5, yield_s=5)
    assert not may_acquire(Handicap(blind=True), free_for_s=0, yield_s=5)
