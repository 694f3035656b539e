"""adminState against the simulated Azure over sockets: as a mechanism, and put back after a NIC."""

import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from controller.core.drain_history import Step
from controller.core.ledger import Ledger
from controller.core.planning.views import FRESH_S
from controller.simulator.services.faults import Effect
from controller.simulator.services.http_values import Reply, Request
from controller.simulator.world.bodies import Json, key
from controller.storage.ledger_json import decode_ledger, encode_ledger
from tests.component.test_reconciler import BACK_OFF_S, MAINTENANCE_S, Leader, leading

ALL = ["web-1", "web-2", "web-3"]
STATES = {"policy": {"mechanism": "admin-state"}, "world_settings": {"nic_pool_admin_state": True}}
REFUSED = {"policy": {"mechanism": "admin-state"}}
POOL_PUT: dict[str, Any] = {"method": "PUT", "path_contains": "backendAddressPools"}


def draining(
    directory: Path, *pools: str, refused: bool = False
) -> AbstractAsyncContextManager[Leader]:
    """Lead a set whose VMs leave by adminState; NIC-based pools take it unless `refused`."""
    return leading(directory, *pools, **(REFUSED if refused else STATES))


def state(leader: Leader, pool: str, vm: str) -> str:
    """Return the adminState of a VM in a pool, as the load balancer has programmed it."""
    members = leader.world.members(leader.world.pool_id(pool))
    return next(member.admin_state for member in members if member.vm == vm)


def members(leader: Leader, pool: str) -> list[str]:
    return sorted(member.vm for member in leader.world.members(leader.world.pool_id(pool)))


def puts(leader: Leader) -> list[str]:
    """Return the writes to Resource Manager, once each; the ledger is in `web.json`."""
    written = [each for each in leader.asked.elements() if each.startswith("PUT ")]
    return [each for each in written if each != "PUT web.json"]


def steps(leader: Leader) -> list[Step | str]:
    return [line.step for line in leader.reconciler.ledger.transitions]


def durable(leader: Leader) -> Ledger:
    return decode_ledger(encode_ledger(leader.reconciler.ledger))


async def operator_sets(leader: Leader, pool: str, vm: str, wanted: Any) -> None:
    """Set the adminState of a VM, and let the views from before it become too old to record on."""
    leader.world.set_admin_state(leader.world.pool_id(pool), vm, wanted)
    await leader.after(FRESH_S + 1)


def first_read(leader: Leader, pool: str, change: Any) -> None:
    """Let another client write right after the first read of a pool on its own."""
    path, done = leader.world.pool_id(pool).casefold(), list[bool]()

    def see(request: Request, _reply: Reply) -> None:
        if request.method == "GET" and request.path.casefold() == path and not done:
            done.append(True)
            change()

    leader.server.observers.append(see)


# --- the mechanism -------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["app", "cache"])
@pytest.mark.parametrize("before", ["None", "Up"])
async def test_vms_leave_and_come_back_without_moving(
    tmp_path: Path, pool: str, before: Any
) -> None:
    """Down by a PUT of the pool, and what they had before comes back; no NIC is written."""
    async with draining(tmp_path, pool) as leader:
        await operator_sets(leader, pool, "web-2", before)
        event_id = await leader.announce("web-2", "web-3")
        await leader.round()
        assert leader.inside(pool) == ["web-1"]
        assert members(leader, pool) == ALL
        assert set(puts(leader)) == {f"PUT {pool}"}
        assert durable(leader).entries == leader.reconciler.ledger.entries
        await leader.after(30)
        assert steps(leader)[-2:] == [Step.ACKNOWLEDGED, Step.ACKNOWLEDGED]
        await leader.maintain(event_id)
        assert leader.inside(pool) == ALL
        assert [state(leader, pool, vm) for vm in ALL] == ["None", before, "None"]
        assert set(puts(leader)) == {f"PUT {pool}"}


async def test_every_pool_of_a_vm_is_written(tmp_path: Path) -> None:
    """A VM is out when it is Down in each of its pools, of either kind."""
    async with draining(tmp_path, "app", "admin", "cache") as leader:
        event_id = await leader.announce("web-2")
        await leader.round()
        await leader.after(BACK_OFF_S)
        assert [leader.inside(pool) for pool in ("app", "admin", "cache")] == [
            ["web-1", "web-3"]
        ] * 3
        await leader.maintain(event_id)
        assert [leader.inside(pool) for pool in ("app", "admin", "cache")] == [ALL] * 3
        assert sorted(set(puts(leader))) == ["PUT admin", "PUT app", "PUT cache"]


async def test_a_refusal_is_met_once(tmp_path: Path) -> None:
    """A NIC-based pool that refuses is asked once; then its VMs are removed, in this tenure."""
    async with draining(tmp_path, "app", "cache", refused=True) as leader:
        event_id = await leader.announce("web-2")
        await leader.round()
        await leader.after(BACK_OFF_S)
        assert members(leader, "app") == ["web-1", "web-3"]
        assert members(leader, "cache") == ALL
        assert leader.inside("cache") == ["web-1", "web-3"]
        await leader.maintain(event_id)
        other = await leader.announce("web-3")
        await leader.round()
        assert members(leader, "app") == ["web-1", "web-2"]
        await leader.maintain(other)
        assert leader.asked["PUT app"] == 1
        assert (members(leader, "app"), members(leader, "cache")) == (ALL, ALL)


@pytest.mark.parametrize("code", ["ModificationOfNICIpConfigBackendPoolNotSupported", ""])
async def test_a_refusal_in_the_middle(tmp_path: Path, code: str) -> None:
    """An operation that fails: at once with the code of a refusal, else after a second try."""
    async with draining(tmp_path, "app") as leader:
        body = f'{{"error":{{"code":"{code}","message":"no"}}}}' if code else ""
        if code:
            leader.fault(**POOL_PUT, status=400, body=body)
        else:
            leader.fault(Effect.OPERATION, **POOL_PUT, operation="failed")
        event_id = await leader.announce("web-2")
        await leader.round()
        for _ in range(3):
            await leader.after(3 * BACK_OFF_S)
        assert members(leader, "app") == ["web-1", "web-3"]
        assert leader.asked["PUT app"] == (1 if code else 2)
        leader.server.faults.clear()
        await leader.maintain(event_id)
        assert members(leader, "app") == ALL
        assert leader.inside("app") == ALL


async def test_success_without_effect(tmp_path: Path) -> None:
    """S1: what Azure reports as done and does not show is not out; then the VM is removed."""
    async with draining(tmp_path, "app") as leader:
        leader.fault(Effect.OPERATION, **POOL_PUT, operation="no_effect")
        await leader.announce("web-2")
        await leader.round()
        (entry,) = leader.reconciler.ledger.entries
        assert entry.out_at is None
        for _ in range(3):
            await leader.after(3 * BACK_OFF_S)
        assert members(leader, "app") == ["web-1", "web-3"]


@pytest.mark.parametrize("pool", ["app", "cache"])
@pytest.mark.parametrize("change", ["adds", "removes", "sets a state"])
async def test_another_writer_between_read_and_write(
    tmp_path: Path, pool: str, change: str
) -> None:
    """If-Match: nothing that another client writes meanwhile is undone; the write is made again."""
    async with draining(tmp_path, pool) as leader:
        world, pool_id = leader.world, leader.world.pool_id(pool)
        if change == "adds":
            leader.operator_removes("web-3", pool)

        def edit() -> None:
            if change == "sets a state":
                world.set_admin_state(pool_id, "web-3", "Up")
            elif change == "removes":
                leader.operator_removes("web-3", pool)
            elif pool == "app":
                world.add_membership(pool_id, world.vm("web-3").nic_ids[0])
            else:
                found = world.find_pool(pool_id)
                assert found is not None
                listed = found["properties"]["loadBalancerBackendAddresses"]
                mine = {**listed[0], "name": "web-3"}
                address = next(ip for ip, vm in world.address_owners().items() if vm == "web-3")
                mine["properties"] = {**mine["properties"], "ipAddress": address}
                world.set_addresses(pool_id, [*listed, mine])

        first_read(leader, pool, edit)
        event_id = await leader.announce("web-2")
        await leader.round()
        await leader.after(BACK_OFF_S)
        wanted = ["web-1"] if change == "removes" else ["web-1", "web-3"]
        assert leader.inside(pool) == wanted
        assert leader.asked[f"PUT {pool}"] == 2
        await leader.maintain(event_id)
        assert leader.inside(pool) == sorted([*wanted, "web-2"])
        if change == "sets a state":
            assert state(leader, pool, "web-3") == "Up"


async def test_a_pool_without_its_list_is_never_written(tmp_path: Path) -> None:
    """A list that lacks members would evict them: no PUT leaves, and the VM is removed."""
    async with draining(tmp_path, "app") as leader:
        pool_id = leader.world.pool_id("app")
        found = leader.world.find_pool(pool_id)
        assert found is not None
        listed = [{"id": each.ip_configuration} for each in leader.world.members(pool_id)]
        properties = {"backendIPConfigurations": listed, "loadBalancerBackendAddresses": []}
        body = json.dumps({"id": pool_id, "etag": 'W/"1"', "properties": properties})
        leader.fault(method="GET", path_ends="/backendAddressPools/app", status=200, body=body)
        await leader.announce("web-2")
        await leader.round()
        await leader.after(BACK_OFF_S)
        assert leader.asked["PUT app"] == 0
        assert members(leader, "app") == ["web-1", "web-3"]


async def test_a_reply_without_the_list_proves_nothing(tmp_path: Path) -> None:
    """The reply to the PUT has no addresses: the pool is read, and that counts."""
    async with draining(tmp_path, "cache") as leader:
        pool_id = leader.world.pool_id("cache")
        body = json.dumps({"id": pool_id, "properties": {"provisioningState": "Succeeded"}})
        leader.fault(Effect.GARBAGE, **POOL_PUT, body=body, times=1)
        event_id = await leader.announce("web-2")
        await leader.round()
        await leader.after(BACK_OFF_S)
        assert leader.inside("cache") == ["web-1", "web-3"]
        assert members(leader, "cache") == ALL
        await leader.maintain(event_id)
        assert leader.inside("cache") == ALL


async def test_a_client_that_sets_it_up_meanwhile(tmp_path: Path) -> None:
    """S1, S3: while the event is announced the VM is set Down again, and gets their choice back."""
    async with draining(tmp_path, "cache") as leader:
        event_id = await leader.announce("web-2")
        await leader.round()
        leader.world.set_admin_state(leader.world.pool_id("cache"), "web-2", "Up")
        await leader.after(16)
        assert leader.inside("cache") == ["web-1", "web-3"]
        assert Step.PUT_BACK in steps(leader)
        await leader.maintain(event_id)
        assert state(leader, "cache", "web-2") == "Up"


async def test_a_member_that_vanished_is_reported(tmp_path: Path) -> None:
    """S3: what another client removed while it was Down is never added."""
    async with draining(tmp_path, "app") as leader:
        event_id = await leader.announce("web-2")
        await leader.round()
        leader.operator_removes("web-2", "app")
        await leader.after(MAINTENANCE_S)
        leader.world.events.cancel(event_id)
        for _ in range(3):
            await leader.after(MAINTENANCE_S)
        assert members(leader, "app") == ["web-1", "web-3"]
        (held,) = leader.reconciler.ledger.holds
        assert (held.subject, held.reason) == ("web-2", "lost")


# --- what a NIC loses ----------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["Down", "Up"])
async def test_a_removed_nic_gets_its_state_back(tmp_path: Path, before: Any) -> None:
    """S3: the same pool, with the adminState that an operator had set there."""
    async with leading(
        tmp_path, "app", "admin", world_settings={"nic_pool_admin_state": True}
    ) as leader:
        await operator_sets(leader, "app", "web-2", before)
        event_id = await leader.announce("web-2")
        await leader.round()
        assert members(leader, "app") == ["web-1", "web-3"]
        await leader.maintain(event_id)
        assert [state(leader, pool, "web-2") for pool in ("app", "admin")] == [before, "None"]
        assert leader.asked["PUT app"] == 1


@pytest.mark.parametrize("why", ["azure", "role"])
async def test_a_state_that_cannot_be_put_back_is_reported(tmp_path: Path, why: str) -> None:
    """S3, L1: the VM is in its pools, and a hold says what is not as it was."""
    accepts = {"nic_pool_admin_state": why == "role"}
    async with leading(tmp_path, "app", "admin", world_settings=accepts) as leader:
        if why == "role":
            leader.world.roles.revoke(
                "web-1", "Microsoft.Network/loadBalancers/backendAddressPools/write"
            )
        await operator_sets(leader, "app", "web-2", "Down")
        event_id = await leader.announce("web-2")
        await leader.round()
        await leader.after(MAINTENANCE_S)
        leader.world.events.cancel(event_id)
        for _ in range(4):
            await leader.after(MAINTENANCE_S)
        assert (members(leader, "app"), members(leader, "admin")) == (ALL, ALL)
        (held,) = leader.reconciler.ledger.holds
        assert (held.subject, held.reason) == ("web-2", "lost")
        reason = "the pool refuses adminState" if why == "azure" else "the role may not write"
        assert f"without its adminState Down: {reason}" in held.message
        assert leader.asked["PUT app"] == 1, "not asked again and again"
        await operator_sets(leader, "app", "web-2", "Down")
        for _ in range(4):
            await leader.after(3 * MAINTENANCE_S)
        assert leader.recorded() == []


@pytest.mark.parametrize("before", ["Down", "Up", "None"])
async def test_a_removed_address_keeps_its_state(tmp_path: Path, before: Any) -> None:
    """S3: the entry of an IP-based pool comes back as it was, adminState included."""
    async with leading(tmp_path, "cache") as leader:
        await operator_sets(leader, "cache", "web-2", before)
        event_id = await leader.announce("web-2")
        await leader.round()
        assert members(leader, "cache") == ["web-1", "web-3"]
        await leader.maintain(event_id)
        assert state(leader, "cache", "web-2") == before
        assert _entries(leader)["web-2"].get("adminState") == before


def _entries(leader: Leader) -> dict[str, Json]:
    pool = leader.world.find_pool(leader.world.pool_id("cache"))
    assert pool is not None
    owners = {key(ip): vm for ip, vm in leader.world.address_owners().items()}
    return {
        owners[key(entry["properties"]["ipAddress"])]: entry["properties"]
        for entry in pool["properties"]["loadBalancerBackendAddresses"]
    }
