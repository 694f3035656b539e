"""A ledger that cannot be reached for a while: which agent tries again, and what it reports."""

import json

import pytest

from controller.simulator.services.http_values import Service
from tests.support.in_process_set import QUICK, InProcessSet


async def test_a_leader_that_cannot_open_the_ledger_leaves_it_to_others(
    bench: InProcessSet,
) -> None:
    """It is reported once, tried five times, and then the lease is given back."""
    bench.fault(Service.BLOB, method="GET", status=503)
    bench.start()
    await bench.until("logged", lambda: bench.logged("the ledger cannot be opened", "WARNING"))
    await bench.until("given back", lambda: bench.logged("released the lease"))
    assert len(bench.logged("the ledger cannot be opened")) == 1
    assert bench.ledger() == {}
    bench.heal()
    bench.clock.ahead_s += 60  # past the quarantine
    await bench.until("leads", lambda: bench.ledger().get("leader") == "web-1")


async def test_a_dry_run_without_a_ledger_says_so_and_goes_on(bench: InProcessSet) -> None:
    """Nothing is written, and what would be done is reported as if nothing were out."""
    bench.fault(Service.BLOB, status=503)
    bench.start(overrides={"policy": {**QUICK["policy"], "dry_run": True}})
    await bench.until("logged", lambda: bench.logged("the ledger could not be read", "WARNING"))
    await bench.announce("web-2")
    await bench.until("said", lambda: bench.logged("would"))
    assert bench.writes() == []
    assert bench.ledger() == {}


async def test_a_ledger_that_cannot_be_written_holds_the_drain(bench: InProcessSet) -> None:
    """S5: nothing is removed until the entry is durable, and it is tried again."""
    await bench.lead()
    bench.fault(Service.BLOB, method="PUT", path_contains="web.json", status=500)
    await bench.announce("web-2")
    await bench.until("logged", lambda: bench.logged("the ledger could not be written"))
    assert bench.writes() == []
    bench.heal()
    await bench.until("web-2 out", lambda: not bench.inside("web-2"))


async def test_the_ledger_of_another_set_is_left_alone(bench: InProcessSet) -> None:
    """K3: two sets with one election.blob_name: nothing is written, and the log names the fix."""
    other = "/subscriptions/s/resourcegroups/rg/providers/microsoft.compute/availabilitysets/db"
    ledger = {
        "version": "1.2",
        "epoch": 7,
        "leader": "db-1",
        "leader_since": None,
        "entries": [],
        "holds": [],
        "transitions": [],
        "set_id": other,
    }
    body = json.dumps(ledger).encode()
    blob = bench.put_ledger(body)
    await bench.announce("web-2")
    bench.start()
    await bench.until("refused", lambda: bench.logged("not the ledger of this set", "ERROR"))
    assert "remove election.blob_name" in bench.logged("not the ledger of this set")[0]
    await bench.until("given back", lambda: bench.logged("released the lease"))
    assert blob.body == body
    assert bench.writes() == []


async def test_a_ledger_names_its_set(bench: InProcessSet) -> None:
    """K3: the first leader puts the id of the set and a digest of its configuration there."""
    await bench.lead()
    assert bench.ledger()["set_id"] == bench.world.availability_set_id.casefold()
    assert len(bench.ledger()["configuration"]) == 16


# --- well-formed and forged (K6) ---

FAR = "8999-12-31T23:59:59+00:00"
ODD = (
    "",
    "x",
    "//",
    "/subscriptions/",
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/networkInterfaces/n",
    "../../x?y=1#z",
    "https://example.net/subscriptions/s",
    "\ud800",
    "a" * 3000,
)
FORGED: dict[str, dict[str, object]] = {
    "not out yet": {},
    "gone": {"gone": True},
    "in the future": {
        "recorded_at": FAR,
        "out_at": FAR,
        "restoring_at": FAR,
        "restored_at": FAR,
        "events": [
            {
                "event_id": "",
                "event_type": "Request",
                "not_before": FAR,
                "acknowledged_at": FAR,
                "until": FAR,
            }
        ],
    },
}


def forged_entries(bench: InProcessSet, **fields: object) -> list[dict[str, object]]:
    """Return entries of VMs in and outside the set, whose ids and names are odd."""
    pool, own = bench.world.pool_ids()[0], bench.world.vm("web-3")
    nic = {"kind": "nic", "pool_id": pool, "ip_configuration": "ipconfig1", "position": 10**18}
    address = {"kind": "address", "pool_id": pool, "name": "x", "body": "{}"}
    memberships = [
        each
        for odd in ODD
        for each in (
            {**nic, "nic_id": odd},
            {**nic, "nic_id": own.nic_ids[0], "pool_id": odd, "ip_configuration": odd},
            {**address, "name": odd, "ip_address": odd, "body": odd},
        )
    ]
    entry = {
        "events": [],
        "recorded_at": "1970-01-01T00:00:00+00:00",
        "out_at": None,
        "restoring_at": None,
        "restored_at": None,
        "gone": False,
        **fields,
    }
    return [
        {**entry, "vm": "web-3", "vm_id": own.resource_id, "memberships": memberships},
        {**entry, "vm": "db-1", "vm_id": "", "memberships": [], "lost": memberships},
        *(
            {**entry, "vm": f"{odd}-{number}", "vm_id": odd, "memberships": memberships[:3]}
            for number, odd in enumerate(ODD)
        ),
    ]


@pytest.mark.parametrize("case", FORGED)
async def test_a_forged_ledger_stops_no_drain(bench: InProcessSet, case: str) -> None:
    """L2: whatever a well-formed ledger contains, a new leader drains and restores its set."""
    ledger = {
        "version": "1.2",
        "epoch": 10**18,
        "leader": "",
        "leader_since": FAR,
        "entries": forged_entries(bench, **FORGED[case]),
        "holds": [{"subject": odd, "reason": odd, "message": odd, "since": FAR} for odd in ODD],
        "transitions": [{"at": FAR, "vm": odd, "what": "out", "detail": odd} for odd in ODD],
        "set_id": bench.world.availability_set_id,
    }
    bench.put_ledger(json.dumps(ledger).encode())
    bench.start()
    await bench.announce("web-2")
    await bench.until("web-2 out", lambda: not bench.inside("web-2"))
    await bench.until("web-2 back", lambda: bench.inside("web-2"))
    assert {write.subject.rsplit("/", 1)[-1] for write in bench.writes()} == {"web-2-nic"}
