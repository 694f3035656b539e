"""Blob content that is forged, huge or garbage, and clocks that were wrong: agents go on."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from controller.simulator.world.history import Change
from tests.simulation.runner import EPOCH, Simulation
from tests.simulation.scenario import Act, ClockError, Scenario, Storm

POLICY: Mapping[str, object] = {"connection_drain_s": 2, "restore_settle_s": 3}
EVENT = Act(
    60.0,
    "event",
    {"event_type": "Reboot", "vms": ("web-2",), "notice_s": 300.0, "started_s": 10.0},
)
HUGE = "\U0001f4a3" * 100_000


def play(at_s: float, change: Callable[[Simulation], None], **fields: Any) -> Simulation:
    """Change a blob at an instant; web-2 has an event later."""
    known: dict[str, Any] = {
        "seed": 6,
        "policy": POLICY,
        "acts": (EVENT,),
        "calm_at_s": 65.0,
        "patience_s": 10.0,
        "converge_within_s": 600.0,
        "idle_s": 1.0,
    }
    simulation = Simulation(Scenario(**{**known, **fields}))
    simulation.loop.call_at(at_s, lambda: change(simulation))
    return simulation


def put(simulation: Simulation, path: str, body: bytes) -> None:
    """Write a blob as an identity with rights on the container does, past every lease."""
    blob = simulation.world.blobs.find(path)
    assert blob is not None
    blob.body, blob.etag = body, simulation.world.blobs.next_etag()


def forge(simulation: Simulation, **fields: object) -> None:
    """Change fields of the ledger."""
    document = simulation.stage.ledger() | fields
    put(simulation, simulation.stage.blob_path, json.dumps(document).encode())


def moves(history: tuple[Change, ...]) -> list[tuple[str, str]]:
    return [
        (each.kind, str(each.detail["vm"]))
        for each in history
        if each.kind in {"member_out", "member_in"}
    ]


DRAINED = [("member_out", "web-2"), ("member_in", "web-2")]


def entry(simulation: Simulation, **fields: object) -> dict[str, Any]:
    """Return a forged entry of web-3, which is in its pool, by what the container shows."""
    vm = simulation.world.vm("web-3")
    membership = {
        "kind": "nic",
        "pool_id": simulation.world.pool_ids()[0],
        "nic_id": vm.nic_ids[0],
        "ip_configuration": "ipconfig1",
        "position": 0,
    }
    return {
        "vm": "web-3",
        "vm_id": vm.resource_id,
        "events": [],
        "memberships": [membership],
        "recorded_at": "2026-05-28T20:26:00+00:00",
        "out_at": "2026-05-28T20:26:10+00:00",
        "restoring_at": None,
        "restored_at": None,
        "gone": False,
        **fields,
    }


def test_a_forged_entry_moves_no_other_machine() -> None:
    """S3: neither another set's VM, nor a pool that is not configured, nor another VM's NIC."""

    def change(simulation: Simulation) -> None:
        genuine = entry(simulation)
        (membership,) = genuine["memberships"]
        other = simulation.world.vm("web-1").nic_ids[0]
        unmanaged = f"{membership['pool_id']}-unmanaged"
        entries = [
            genuine | {"vm": "db-1", "vm_id": "/subscriptions/s/vm/db-1"},
            genuine
            | {
                "memberships": [
                    membership | {"pool_id": unmanaged},
                    membership | {"nic_id": other},
                    {
                        "kind": "address",
                        "pool_id": membership["pool_id"],
                        "name": "x",
                        "ip_address": "10.66.6.6",
                        "body": "{}",
                    },
                ]
            },
        ]
        forge(simulation, entries=entries)

    # The leader is stopped, so that its successor reads what was forged.
    simulation = play(
        40.0,
        change,
        acts=(Act(40.5, "crash", {"vm": "web-1", "restart_s": 20.0}), EVENT),
        vms=4,
    )
    history = simulation.run().history
    assert moves(history) == DRAINED
    assert all(
        "10.66.6.6" not in json.dumps(pool) for pool in simulation.world.load_balancers.values()
    )


@pytest.mark.parametrize(
    "body",
    [
        b"\x00\xff garbage",
        b"{}",
        b"[" * 100_000,
        json.dumps({"version": "1.1", "requests": HUGE, "roll": None}).encode(),
        json.dumps(
            {
                "version": "1.1",
                "roll": None,
                "requests": [
                    {
                        "request_id": f"r-{number}",
                        "vm": f"vm-{number}",
                        "reason": HUGE[:20],
                        "by": "eve",
                        "at": "2026-05-28T20:26:00+00:00",
                        "until": "2026-05-28T20:28:00+00:00",
                        "ended_at": None,
                        "ended_by": "",
                    }
                    for number in range(200)
                ],
            }
        ).encode(),
    ],
    ids=["no text", "an object", "deep", "a text", "too many"],
)
def test_requests_of_any_content_change_nothing_for_events(body: bytes) -> None:
    """L2: an event is handled whatever stands in the blob of the drain requests."""
    simulation = play(
        40.0,
        lambda it: put(it, it.stage.blob_path.replace(".json", ".requests.json"), body),
    )
    played = simulation.run()
    assert moves(played.history) == DRAINED
    blob = simulation.world.blobs.find(simulation.stage.blob_path)
    assert blob is not None
    assert len(blob.body) < 100_000


REFUSED = Storm("arm 409", 50.0, 300.0)
"""From here on Azure refuses the removal of web-2, whose entry is durable."""
RENEWED_S = 8.0 + 1.0
"""After so long a leader has renewed its lease."""
PASS_S = 10.0 + 1.0
"""After so long an idle leader has made another pass."""


@pytest.mark.parametrize("body", [b"\x00\xff garbage", b"[]", b"{}"])
def test_a_removal_is_not_repeated_while_its_entry_is_gone(body: bytes) -> None:
    """S5: a leader with nothing to record sees by its renewals that the ledger was replaced."""
    simulation = play(
        100.0,
        lambda it: put(it, it.stage.blob_path, body),
        storms=(REFUSED,),
        calm_at_s=300.0,
        converge_within_s=20.0,
    )
    history = simulation.run().history
    ledger = next(
        each.at
        for each in history
        if each.kind == "blob_written" and each.at > EPOCH + 100.0
        if '"vm": "web-2"' in str(each.detail["body"])
    )
    writes = [
        each.at - EPOCH
        for each in history
        if each.kind == "sent" and each.detail["service"] == "arm"
        if each.detail["method"] == "PUT"
    ]
    assert any(60.0 < at < 100.0 for at in writes)
    assert any(at > ledger - EPOCH for at in writes)
    assert not any(100.0 + RENEWED_S < at < ledger - EPOCH for at in writes)
    assert ledger - EPOCH < 100.0 + RENEWED_S + PASS_S


def test_an_idle_leader_replaces_a_ledger_that_is_none() -> None:
    """L1: a ledger that nothing changes for hours is not found unusable by the next event only."""
    simulation = play(40.0, lambda it: put(it, it.stage.blob_path, b"garbage"), acts=())
    reports = [
        each.at - EPOCH
        for each in simulation.run().history
        if each.kind == "log" and "another writer changed the ledger" in str(each.detail["message"])
    ]
    assert len(reports) == 1
    assert 40.0 < reports[0] < 40.0 + RENEWED_S + PASS_S


def test_a_ledger_that_is_written_again_costs_no_tenure() -> None:
    """L1: the same content under another ETag, as after a copy, is read, and the leader goes on."""

    def copy(simulation: Simulation) -> None:
        blob = simulation.world.blobs.find(simulation.stage.blob_path)
        assert blob is not None
        put(simulation, simulation.stage.blob_path, blob.body)

    simulation = play(100.0, copy)
    history = simulation.run().history
    assert moves(history) == DRAINED
    assert [each.kind for each in history].count("lease_acquire") == 1


def test_clocks_an_hour_ahead_cost_no_hour() -> None:
    """S7, L1: what the first leader recorded with a wrong clock is not waited for."""
    simulation = Simulation(
        Scenario(
            seed=5,
            pools=(),
            ip_pools=("internal",),
            policy=POLICY,
            clocks={f"web-{number}": ClockError(3600.0) for number in (1, 2, 3)},
            acts=(EVENT,),
            calm_at_s=65.0,
            patience_s=400.0,
            converge_within_s=300.0,
            idle_s=1.0,
        )
    )
    history = simulation.run().history
    kinds = [each.kind for each in history]
    assert "event_acknowledged" in kinds
    assert "converged" in kinds
    assert moves(history) == DRAINED


# --- a VM is out, and another writer changes its entry (S3, S5) ---

LONG_EVENT = Act(
    60.0,
    "event",
    {"event_type": "Reboot", "vms": ("web-2",), "notice_s": 300.0, "started_s": 40.0},
)
Entries = list[dict[str, Any]]


def _renamed(entries: Entries) -> Entries:
    """Another VM claims the same membership: the case of a drawn world that lost it."""
    return [*entries, *({**each, "vm": "stranger-1"} for each in entries)]


def _without_memberships(entries: Entries) -> Entries:
    return [{**each, "memberships": []} for each in entries]


def _elsewhere(entries: Entries) -> Entries:
    return [
        {
            **each,
            "memberships": [{**m, "ip_configuration": "ipconfig9"} for m in each["memberships"]],
        }
        for each in entries
    ]


def _restored(entries: Entries) -> Entries:
    return [{**each, "restored_at": each["out_at"]} for each in entries]


def _of_another_vm(entries: Entries) -> Entries:
    return [{**each, "vm_id": f"{each['vm_id']}-other"} for each in entries]


FORGERIES: dict[str, Callable[[Entries], Entries]] = {
    "claimed by another": _renamed,
    "removed": lambda _: [],
    "another epoch": lambda _: [],
    "without memberships": _without_memberships,
    "another place": _elsewhere,
    "restored": _restored,
    "of another VM": _of_another_vm,
}


@pytest.mark.parametrize("crash", [False, True], ids=["same leader", "new leader"])
@pytest.mark.parametrize("how", FORGERIES)
def test_what_was_removed_is_restored_whatever_the_ledger_is_made_to_say(
    how: str, crash: bool
) -> None:
    """S3, S5: agents that know what was removed restore it, before and after a failover."""

    def change(simulation: Simulation) -> None:
        entries = simulation.stage.ledger()["entries"]
        assert [(each["vm"], bool(each["out_at"])) for each in entries] == [("web-2", True)]
        epoch = simulation.stage.ledger()["epoch"]
        later = 1000 if how == "another epoch" else 0
        forge(simulation, entries=FORGERIES[how](entries), epoch=epoch + later)

    leaves = Act(85.5, "crash", {"vm": "web-1", "restart_s": 20.0})
    acts = (LONG_EVENT, leaves) if crash else (LONG_EVENT,)
    simulation = play(85.0, change, acts=acts, calm_at_s=90.0)
    history = simulation.run().history
    assert moves(history) == DRAINED
    assert "converged" in {each.kind for each in history}
