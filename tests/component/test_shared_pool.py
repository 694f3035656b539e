"""A leader whose pool has a machine of another availability set, over the blob of the pool."""

import json
from typing import Any

from controller.core.shared_pools import PoolShare, PoolShares
from controller.simulator.app.agent_processes import CONTAINER
from controller.simulator.app.server import ACCOUNT
from controller.simulator.world.blob_store import Blob
from controller.simulator.world.bodies import key
from controller.storage.shared_pool_json import MAX_SHARES, decode_shares, encode_shares
from controller.storage.shared_pool_store import shared_pool_blob_name
from tests.conftest import OpenSet
from tests.support.in_process_set import InProcessSet

OTHER_SET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/availabilitySets/other"


def blob_name(bench: InProcessSet) -> str:
    """Return the name of the blob of the pool."""
    return shared_pool_blob_name(bench.world.pool_ids()[0])


def stored(bench: InProcessSet) -> dict[str, Any]:
    """Return the share of the leader's set; empty while there is none."""
    blobs = bench.world.blobs.containers[ACCOUNT, CONTAINER].blobs
    blob = blobs.get(blob_name(bench))
    shares = json.loads(blob.body)["shares"] if blob else []
    return next((s for s in shares if "other" not in s["availability_set_id"]), {})


def state(bench: InProcessSet, body: bytes) -> None:
    """Write the blob as another set, or another client, does."""
    bench.server.container_url(CONTAINER)
    store, now = bench.world.blobs, bench.clock.epoch()
    store.containers[ACCOUNT, CONTAINER].blobs[blob_name(bench)] = Blob(
        body=body,
        etag=store.next_etag(),
        created_at=now,
        modified_at=now,
        content_type="application/json",
        metadata={},
    )


def others(bench: InProcessSet, *, out: bool) -> bytes:
    """Return what the set of the other machine states."""
    nic = key(bench.world.vm("other-1").nic_ids[0])
    share = PoolShare(
        availability_set_id=OTHER_SET,
        members=(nic,),
        out=(nic,) if out else (),
        written_at=bench.clock.now(),
    )
    return encode_shares(PoolShares(pool_id=bench.world.pool_ids()[0], shares=(share,)))


def full(bench: InProcessSet) -> bytes:
    """Return what as many other sets state as a blob has room for."""
    share = json.loads(others(bench, out=False))
    one = share["shares"][0]
    sets = [one | {"availability_set_id": f"{OTHER_SET}-{n}"} for n in range(MAX_SHARES)]
    return json.dumps(share | {"shares": sets}).encode()


def holds(bench: InProcessSet) -> list[str]:
    """Return the reasons of the holds in the ledger."""
    return [hold["reason"] for hold in bench.ledger().get("holds", [])]


async def test_a_statement_precedes_the_removal(open_set: OpenSet) -> None:
    """S2: what leaves is stated before it leaves, and withdrawn after it is back."""
    async with open_set(vms=1, foreign_vms=1) as bench:
        state(bench, others(bench, out=False))
        stated_at_write: list[list[str]] = []

        def note(request: Any, _reply: object) -> None:
            if request.method == "PUT" and "networkinterfaces" in request.path.casefold():
                stated_at_write.append(stored(bench).get("out", []))

        bench.server.observers.append(note)
        await bench.lead()
        event = bench.world.events.schedule("Reboot", "web-1", notice_s=600)
        await bench.server.notify()
        await bench.until("web-1 is out", lambda: not bench.inside())
        assert stated_at_write[0] == [key(bench.world.vm("web-1").nic_ids[0])]
        bench.world.events.cancel(event.event_id)
        await bench.server.notify()
        await bench.until("web-1 is back", bench.inside)
        await bench.until("the statement is withdrawn", lambda: stored(bench)["out"] == [])


async def test_what_another_set_takes_out_does_not_count(open_set: OpenSet) -> None:
    """S2: the last member stays while another set states that its machine leaves."""
    async with open_set(vms=1, foreign_vms=1) as bench:
        state(bench, others(bench, out=True))
        await bench.lead()
        bench.world.events.schedule("Reboot", "web-1", notice_s=600)
        await bench.server.notify()
        await bench.until("the floor holds web-1", lambda: "floor" in holds(bench))
        state(bench, others(bench, out=False))
        bench.clock.ahead_s += 11
        await bench.until("web-1 is out", lambda: not bench.inside())


async def test_another_client_wrote_the_blob(open_set: OpenSet) -> None:
    """S2: content that states nothing lets nothing leave, is reported, and is not replaced."""
    async with open_set(vms=3, foreign_vms=1) as bench:
        state(bench, b"not shares")
        await bench.lead()
        bench.world.events.schedule("Reboot", "web-1", notice_s=600)
        await bench.server.notify()
        await bench.until("it is reported", lambda: "shared_pool" in holds(bench))
        blobs = bench.world.blobs.containers[ACCOUNT, CONTAINER].blobs
        assert (blobs[blob_name(bench)].body, bench.inside("web-1")) == (
            b"not shares",
            list(bench.world.pool_ids()),
        )
        del blobs[blob_name(bench)]
        bench.clock.ahead_s += 20
        await bench.until("web-1 is out", lambda: not bench.inside())


async def test_a_set_too_many_does_not_make_the_blob_unreadable(open_set: OpenSet) -> None:
    """S2, L2: its own drain is held, with the fix; the sets that state something go on."""
    async with open_set(vms=1, foreign_vms=1) as bench:
        state(bench, full(bench))
        await bench.lead()
        bench.world.events.schedule("Reboot", "web-1", notice_s=600)
        await bench.server.notify()
        await bench.until("web-1 is held", lambda: "shared_pool" in holds(bench))
        assert bench.inside()
        blob = bench.world.blobs.containers[ACCOUNT, CONTAINER].blobs[blob_name(bench)]
        assert len(decode_shares(blob.body, bench.world.pool_ids()[0]).shares) == MAX_SHARES
        messages = [hold["message"] for hold in bench.ledger()["holds"]]
        assert any("has no room for this set" in each and "Delete it" in each for each in messages)
        state(bench, others(bench, out=False))
        await bench.until("web-1 is out", lambda: not bench.inside())
