"""The ledger as the closing side of an agent knows it."""

from typing import TYPE_CHECKING, cast

import pytest

from controller.azure.blob import Content, StateBlob
from controller.core.ledger import Entry, Ledger
from controller.errors import OutcomeUnknown
from controller.vm_side.ledger_follower import LedgerFollower
from tests.support.planner_scenario import at, membership, vm_id

if TYPE_CHECKING:
    from controller.core.blob_owner import BlobOwner

ENTRY = Entry(
    vm="web-1",
    vm_id=vm_id("web-1"),
    events=(),
    memberships=(membership("web-1"),),
    recorded_at=at(0),
)
LED = Ledger(entries=(ENTRY,))


class SilentBlob:
    """Storage that does not answer."""

    async def read_if_changed(self, etag: str) -> Content | None:
        raise OutcomeUnknown("storage does not answer")


class Clock:
    """A monotonic clock that the test moves."""

    seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


class Leader:
    """Whether this agent leads, and by which ledger."""

    ledger: Ledger | None = LED

    def __call__(self) -> Ledger | None:
        return self.ledger


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def leader() -> Leader:
    return Leader()


@pytest.fixture
def follower(clock: Clock, leader: Leader) -> LedgerFollower:
    return LedgerFollower(
        cast("StateBlob", SilentBlob()),
        owner=cast("BlobOwner", None),
        led=leader,
        clock=cast("object", clock),  # type: ignore[arg-type]
    )


async def test_a_leader_knows_its_own_ledger(follower: LedgerFollower) -> None:
    """It needs no read, and its knowledge is new."""
    await follower.refresh()
    assert (follower.ledger, follower.age_s) == (LED, 0)


async def test_what_an_agent_led_by_is_known_after_the_lease_is_lost(
    follower: LedgerFollower, clock: Clock, leader: Leader
) -> None:
    """S9: a leader that storage cuts off keeps its VM closed until open_after_s is over."""
    await follower.refresh()
    leader.ledger = None
    clock.seconds += 40
    await follower.refresh()
    assert (follower.ledger, follower.age_s) == (LED, 40)


async def test_an_agent_that_never_led_and_never_read_knows_nothing(
    follower: LedgerFollower, leader: Leader
) -> None:
    """No ledger, of infinite age."""
    leader.ledger = None
    await follower.refresh()
    assert (follower.ledger, follower.age_s) == (None, float("inf"))
