"""The ledger as the closing side of an agent knows it."""

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest

from controller.azure.blob import Content, StateBlob
from controller.core.blob_owner import ANY_OWNER
from controller.core.drain_history import Step
from controller.core.ledger import Entry, Ledger
from controller.core.ledger_recovery import LedgerMemory
from controller.errors import OutcomeUnknown
from controller.storage.ledger_json import encode_ledger
from controller.vm_side.ledger_follower import LedgerFollower
from tests.support.planner_scenario import at, membership, vm_id

ENTRY = Entry(
    vm="web-1",
    vm_id=vm_id("web-1"),
    events=(),
    memberships=(membership("web-1"),),
    recorded_at=at(0),
)
LED = Ledger(entries=(ENTRY,))
NEXT = Ledger(epoch=2)


class SilentBlob:
    """Storage that does not answer."""

    async def read_if_changed(self, etag: str) -> Content | None:
        raise OutcomeUnknown("storage does not answer")


class StoredBlob:
    """Storage that answers; something else can happen before the reply arrives."""

    def __init__(self, body: bytes, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.body, self._meanwhile = body, meanwhile

    async def read_if_changed(self, etag: str) -> Content | None:
        self._meanwhile()
        return Content(body=self.body, etag="new", lease_state="leased", lease_status="locked")


class Clock:
    """A monotonic clock that the test moves."""

    seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


class Leader:
    """Whether this agent leads, and what it has written."""

    def __init__(self) -> None:
        self.leads, self.memory = True, LedgerMemory()
        self.memory.wrote(LED)


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
        owner=ANY_OWNER,
        memory=leader.memory,
        leads=lambda: leader.leads,
        clock=cast("object", clock),  # type: ignore[arg-type]
    )


def following(
    blob: StoredBlob, clock: Clock, memory: LedgerMemory, leads: Callable[[], bool] = lambda: False
) -> LedgerFollower:
    """Return a follower of this blob, of an agent that does not lead by default."""
    return LedgerFollower(
        cast("StateBlob", blob),
        owner=ANY_OWNER,
        memory=memory,
        leads=leads,
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
    leader.leads = False
    clock.seconds += 40
    await follower.refresh()
    assert (follower.ledger, follower.age_s) == (LED, 40)


async def test_an_agent_that_never_led_and_never_read_knows_nothing(
    follower: LedgerFollower, leader: Leader
) -> None:
    """No ledger, of infinite age."""
    leader.leads, leader.memory.latest = False, None
    await follower.refresh()
    assert (follower.ledger, follower.age_s) == (None, float("inf"))


async def test_what_a_leader_wrote_last_is_known_though_the_lease_was_lost_at_once(
    follower: LedgerFollower, leader: Leader
) -> None:
    """A machine that is frozen right after the write has looked at its own ledger before it."""
    await follower.refresh()
    leader.memory.wrote(NEXT)
    leader.leads = False
    await follower.refresh()
    assert follower.ledger == NEXT


async def test_an_agent_that_has_not_opened_the_ledger_yet_goes_by_what_it_has_read(
    clock: Clock,
) -> None:
    """S9: between the lease and the ledger a new leader knows no entry, opens nothing by that."""
    blob = StoredBlob(encode_ledger(LED))
    follower = following(blob, clock, LedgerMemory())
    await follower.refresh()
    assert follower.ledger is not None
    assert follower.ledger.entry("web-1") is not None


async def test_a_read_that_was_overtaken_by_a_write_of_its_own_is_dropped(clock: Clock) -> None:
    """The reply was sent before the write, and arrives after it."""
    memory = LedgerMemory()
    blob = StoredBlob(encode_ledger(Ledger()), meanwhile=lambda: memory.wrote(LED))
    follower = following(blob, clock, memory)
    await follower.refresh()
    assert follower.ledger == LED


async def test_the_silence_of_storage_begins_with_the_first_request_that_failed(
    clock: Clock,
) -> None:
    """S8: an idle agent has not asked for long, and one lost reply is no silence."""
    blob = StoredBlob(encode_ledger(LED))
    follower = following(blob, clock, LedgerMemory())
    await follower.refresh()
    clock.seconds += 600
    assert (follower.age_s, follower.silent_s) == (600, 0)
    blob.body = b"[]"  # no ledger is no answer
    for seconds in (0, 4, 8):
        await follower.refresh()
        assert follower.silent_s == seconds
        clock.seconds += 4
    blob.body = encode_ledger(LED)
    await follower.refresh()
    assert (follower.age_s, follower.silent_s) == (0, 0)


async def test_requests_that_lie_far_apart_show_no_silence(clock: Clock) -> None:
    """S8: one lost reply now and one an hour ago."""
    follower = following(StoredBlob(b"[]"), clock, LedgerMemory())
    await follower.refresh()
    clock.seconds += 3600
    await follower.refresh()
    assert follower.silent_s == 0


async def test_an_agent_that_has_led_since_heard_from_storage(clock: Clock) -> None:
    """S8: what failed before its lease is no silence after it."""
    leader = Leader()
    leader.leads = False
    follower = following(StoredBlob(b"[]"), clock, leader.memory, lambda: leader.leads)
    await follower.refresh()
    leader.leads = True
    assert follower.silent_s == 0
    leader.leads = False
    clock.seconds += 12
    assert follower.silent_s == 0


async def test_what_another_part_of_the_agent_has_read_is_news(clock: Clock) -> None:
    """S8: storage that answers the election and not this reader is not silent."""
    memory = LedgerMemory()
    follower = following(StoredBlob(b"[]"), clock, memory)
    await follower.refresh()
    clock.seconds += 6
    memory.note(LED, "E-1")
    assert (follower.ledger, follower.age_s, follower.silent_s) == (LED, 0, 0)
    assert follower.is_newest("E-1")
    clock.seconds += 6
    assert follower.age_s == 6


async def test_a_read_of_an_older_ledger_takes_nothing_back(clock: Clock, leader: Leader) -> None:
    """S9: a reply from before this agent's own write arrives after it."""
    older = LED.noting(at=at(0), vm="web-1", step=Step.LEADS)
    newer = replace(older, entries=()).noting(at=at(1), vm="web-1", step=Step.RESTORED)
    follower = following(StoredBlob(b"[]"), clock, leader.memory)
    leader.memory.wrote(newer)
    assert follower.ledger == newer
    leader.memory.note(older, "E-1")
    assert follower.ledger == newer
    assert not follower.is_newest("E-1")


async def test_what_it_reads_is_remembered(clock: Clock) -> None:
    """S3: when storage loses the ledger, the agent continues from the newest that it has read."""
    memory = LedgerMemory()
    memory.note(Ledger(epoch=1))
    led = replace(LED, epoch=2)
    follower = following(StoredBlob(encode_ledger(led)), clock, memory)
    await follower.refresh()
    assert (memory.newest, memory.own) == (led, False)
    assert (follower.ledger, follower.is_newest("new")) == (led, True)
