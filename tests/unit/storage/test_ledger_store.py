"""What the store of the ledger does when storage refuses a write (law S4)."""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import pytest

from controller.azure.blob import Content
from controller.azure.http.write_guard import WriteGuard
from controller.core.blob_owner import BlobOwner
from controller.core.drain_history import Step
from controller.core.ledger import Entry, Hold, Ledger
from controller.core.ledger_recovery import LedgerMemory
from controller.errors import (
    Conflict,
    ControllerError,
    Denied,
    LeaseLost,
    NotFound,
    NotSent,
    OutcomeUnknown,
    ServiceFault,
    Throttled,
)
from controller.storage.ledger_json import decode_ledger, encode_bounded
from controller.storage.ledger_store import LedgerStore, Written

if TYPE_CHECKING:
    from collections.abc import Callable

    from controller.azure.blob import StateBlob

START = datetime(2026, 6, 1, tzinfo=UTC)
URL = "https://account.blob.core.windows.net/lb-drain/web.json"


class StoredBlob:
    """A blob in memory, whose replies to reads can be lost."""

    url = URL

    def __init__(self) -> None:
        self.body: bytes | None = b""
        self.version, self.writes = 1, 0
        self.answers = True
        self.refusal: ControllerError | None = None
        self.takes_effect = False
        """Whether a write is stored although its reply is the refusal."""
        self.meanwhile: Callable[[], None] = lambda: None
        """What happens before the reply to a read arrives."""

    @property
    def etag(self) -> str:
        return str(self.version)

    async def read(self) -> Content:
        if not self.answers:
            raise OutcomeUnknown("blob read: no answer within the deadline")
        if self.body is None:
            raise NotFound("there is no blob")
        body, etag = self.body, self.etag
        self.meanwhile()
        return Content(body=body, etag=etag, lease_state="leased", lease_status="locked")

    async def write(self, body: bytes, etag: str, lease_id: str, guard: WriteGuard) -> str:
        guard.check()
        assert lease_id == Lease.lease_id
        self.writes += 1
        if self.refusal is not None:
            if self.takes_effect:
                self.store(body)
            raise self.refusal
        if etag != self.etag:
            raise Conflict("the condition is not met")
        self.store(body)
        return self.etag

    def store(self, body: bytes | None) -> None:
        """Let another writer replace or delete the blob."""
        self.body, self.version = body, self.version + 1


class Lease:
    """A lease that, by the clock of its holder, has not expired."""

    lease_id = "L"

    def fence(self) -> None:
        """Every write passes."""


@pytest.fixture
def stored() -> StoredBlob:
    return StoredBlob()


@pytest.fixture
async def store(stored: StoredBlob) -> LedgerStore:
    """The ledger of a leader that has opened it."""
    store = LedgerStore(cast("StateBlob", stored))
    await store.open(Lease(), vm="web-1", now=START)
    return store


async def test_an_opened_ledger_names_the_vms_of_its_set(stored: StoredBlob) -> None:
    """L1: the leader can be deleted before the set is converted, and no other VM be recorded."""
    set_id = "/subscriptions/s/resourcegroups/rg/providers/microsoft.compute/availabilitysets/web"
    owner = BlobOwner(set_id=set_id, vms=("web-1", "web-2"))
    await LedgerStore(cast("StateBlob", stored), owner=owner).open(Lease(), vm="web-1", now=START)
    assert decode_ledger(stored.body or b"").vms == ("web-1", "web-2")


def changed(ledger: Ledger) -> Ledger:
    hold = Hold(subject="web-2", reason="floor", message="it waits", since=START)
    return replace(ledger, holds=(hold,))


@pytest.mark.parametrize("content", [b"", None], ids=["created again", "deleted"])
async def test_after_a_refused_write_nothing_is_written_before_a_read(
    store: LedgerStore, stored: StoredBlob, content: bytes | None
) -> None:
    """The lease goes with a deleted blob: to repeat the write is to write without a lease."""
    wanted = changed(store.ledger)
    stored.store(content)
    stored.answers, sent = False, stored.writes
    for _ in range(3):
        with pytest.raises(OutcomeUnknown):
            await store.write(wanted, Lease())
    assert stored.writes == sent + 1
    stored.answers = True
    with pytest.raises(LeaseLost):
        await store.write(wanted, Lease())
    assert stored.writes == sent + 1


async def test_a_refused_write_shows_another_writer(store: LedgerStore, stored: StoredBlob) -> None:
    """No other write may leave until the blob is read, whatever the last renewal showed."""
    wanted, seen = changed(store.ledger), store.etag
    assert not store.shows_another_writer(seen)
    stored.store(encode_bounded(replace(changed(store.ledger), set_id="another"))[1])
    stored.answers = False
    with pytest.raises(OutcomeUnknown):
        await store.write(wanted, Lease())
    assert store.shows_another_writer(seen)
    assert store.shows_another_writer("")
    stored.answers = True
    assert await store.write(wanted, Lease()) is Written.REPLACED
    assert store.ledger == wanted
    assert not store.shows_another_writer(store.etag)


@pytest.mark.parametrize("error", [NotSent("no route"), Throttled("503"), Denied("403")], ids=str)
async def test_a_write_that_did_not_take_effect_hides_no_other_writer(
    store: LedgerStore, stored: StoredBlob, error: ControllerError
) -> None:
    """S5: the leader may have nothing to write for hours after it, and would notice nothing."""
    stored.refusal = error
    with pytest.raises(type(error)):
        await store.write(changed(store.ledger), Lease())
    assert not store.shows_another_writer(store.etag)
    stored.store(b"")
    assert store.shows_another_writer(stored.etag)


@pytest.mark.parametrize("error", [ServiceFault("500"), OutcomeUnknown("reset")], ids=str)
@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
async def test_a_write_of_its_own_whose_reply_was_lost_is_no_other_writer(
    store: LedgerStore, stored: StoredBlob, error: ControllerError, *, read: bool
) -> None:
    """The operator would look for the program that has changed the blob."""
    first, second = drained(store.ledger), changed(drained(store.ledger))
    stored.refusal, stored.takes_effect, stored.answers = error, True, read
    with suppress(ControllerError):
        await store.write(first, Lease())
    stored.refusal, stored.answers = None, True
    while (written := await store.write(second, Lease())) is Written.UNKNOWN:
        assert store.ledger == first
    assert written is Written.DURABLE
    assert store.ledger == second


async def test_a_write_that_never_has_an_effect_fails(
    store: LedgerStore, stored: StoredBlob
) -> None:
    """S7: the lease goes to an agent whose writes arrive; one lost reply is routine."""
    stored.refusal = OutcomeUnknown("no answer")
    for _ in range(3):
        assert await store.write(changed(store.ledger), Lease()) is Written.UNKNOWN
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                await store.write(changed(store.ledger), Lease())
        stored.refusal = None
        assert await store.write(changed(store.ledger), Lease()) is Written.DURABLE
        stored.refusal = OutcomeUnknown("no answer")


def drained(ledger: Ledger) -> Ledger:
    """Return the ledger with web-2 recorded."""
    entry = Entry(vm="web-2", vm_id="/web-2", events=(), memberships=(), recorded_at=START)
    return ledger.with_entry(entry).noting(at=START, vm="web-2", step=Step.RECORDED)


@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "as it was"])
async def test_entries_are_lost_if_the_ledger_lacks_what_was_read_before(
    store: LedgerStore, stored: StoredBlob, *, replaced: bool
) -> None:
    """L1: the agent that remembers them may lead next."""
    memory, old = LedgerMemory(), store.ledger
    memory.note(drained(old))
    stored.store(encode_bounded(old if replaced else drained(old))[1])
    standby = LedgerStore(cast("StateBlob", stored), memory=memory)
    await standby.read()
    assert standby.has_lost_entries is replaced


async def test_a_reply_that_was_overtaken_shows_no_lost_entries(
    store: LedgerStore, stored: StoredBlob
) -> None:
    """S4: another part of the agent has read a newer ledger meanwhile; the leader is healthy."""
    memory, old = LedgerMemory(), store.ledger
    memory.note(old)
    standby = LedgerStore(cast("StateBlob", stored), memory=memory)
    stored.meanwhile = lambda: memory.note(drained(old))
    await standby.read()
    assert not standby.has_lost_entries
    assert memory.newest == drained(old)
