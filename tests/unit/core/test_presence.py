"""Evidence that a thing exists, from the replies of Azure."""

from datetime import UTC, datetime, timedelta

import pytest

from controller.core.presence import (
    LASTING,
    ONE_REPLY,
    UNKNOWN,
    AbsenceProof,
    Existence,
    Presence,
    Source,
)

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def absent(*seconds: float, presence: Presence = UNKNOWN) -> Presence:
    """Return what is proven after replies without the thing at these instants."""
    for each in seconds:
        presence = presence.after(Existence.ABSENT, at=at(each), source=Source.READ)
    return presence


def test_nothing_is_known_before_the_first_reply() -> None:
    """Without a reply a thing is neither present nor absent, and no proof holds."""
    assert (UNKNOWN.existence, UNKNOWN.lasts_s, UNKNOWN.replies) == (Existence.UNKNOWN, 0.0, 0)
    assert not ONE_REPLY.holds(UNKNOWN)
    assert not LASTING.holds(UNKNOWN)
    assert not AbsenceProof(replies=0).holds(UNKNOWN)


def test_replies_that_agree_add_up() -> None:
    """Evidence holds since when, until when, how often and by which kinds of replies."""
    found = absent(0, 3).after(Existence.ABSENT, at=at(7), source=Source.LIST)
    assert found == Presence(
        existence=Existence.ABSENT,
        since=at(0),
        seen_at=at(7),
        replies=3,
        sources=frozenset({Source.READ, Source.LIST}),
    )
    assert found.lasts_s == 7


def test_a_reply_that_differs_begins_again() -> None:
    """One reply that shows the thing ends the proof of its absence, and the other way round."""
    seen = absent(0, 300).after(Existence.PRESENT, at=at(301), source=Source.LIST)
    assert seen == Presence(
        existence=Existence.PRESENT,
        since=at(301),
        seen_at=at(301),
        replies=1,
        sources=frozenset({Source.LIST}),
    )
    again = absent(302, presence=seen)
    assert (again.since, again.replies) == (at(302), 1)
    assert not LASTING.holds(again)


def test_an_older_reply_changes_nothing() -> None:
    """A reply that arrives late and is older than the newest one is no evidence."""
    seen = UNKNOWN.after(Existence.PRESENT, at=at(10), source=Source.READ)
    assert absent(9, presence=seen) == seen
    assert absent(10, presence=seen).existence is Existence.ABSENT


@pytest.mark.parametrize(
    ("instants", "proofs"),
    [
        ((0,), {ONE_REPLY}),
        ((0, 119.9), {ONE_REPLY}),
        ((0, 120), {ONE_REPLY, LASTING}),
        ((0, 60, 500), {ONE_REPLY, LASTING}),
    ],
)
def test_each_step_names_its_proof(instants: tuple[float, ...], proofs: set[AbsenceProof]) -> None:
    """One reply changes an order; only a lasting absence lets the rest go on without a thing."""
    found = absent(*instants)
    assert {proof for proof in (ONE_REPLY, LASTING) if proof.holds(found)} == proofs


def test_presence_is_never_absence() -> None:
    """However long a thing was seen, that proves no absence."""
    seen = UNKNOWN.after(Existence.PRESENT, at=at(0), source=Source.READ)
    seen = seen.after(Existence.PRESENT, at=at(900), source=Source.READ)
    assert not ONE_REPLY.holds(seen)
    assert not LASTING.holds(seen)
