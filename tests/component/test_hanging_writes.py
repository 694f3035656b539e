"""A leader whose NIC stays Updating: the removal or restore is sent again, and its end decides."""

import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.core.planning.hung_operations import HUNG_S
from tests.component.test_reconciler import Leader, leading

READ, WRITE = "GET web-2-nic", "PUT web-2-nic"


@pytest.fixture
async def leader(tmp_path: Path) -> AsyncIterator[Leader]:
    """Lead a set in which a second write of a NIC ends the first."""
    async with leading(tmp_path, "app", world_settings={"nic_put_conflict": "supersede"}) as opened:
        yield opened


def hang(leader: Leader) -> None:
    """The next write of the NIC is accepted; its operation does not end, and is not followed."""
    leader.world.writes.plan(leader.world.vm("web-2").nic_ids[0], "no_effect", math.inf)
    leader.fault(method="GET", path_contains="/operations/", status=503)


def holds(leader: Leader) -> list[str]:
    """Return the reasons of the holds in the ledger."""
    return [hold.reason for hold in leader.reconciler.ledger.holds]


async def minutes(leader: Leader, seconds: float, *, every_s: float = 5) -> None:
    """Let time pass in small steps, with passes."""
    for _ in range(math.ceil(seconds / every_s)):
        await leader.after(every_s)


async def test_a_removal_that_hangs_is_sent_again(leader: Leader) -> None:
    """S1: after some minutes another PUT takes the VM out; until then it is not acknowledged."""
    hang(leader)
    await leader.announce("web-2")
    await leader.round()
    await minutes(leader, HUNG_S - 10)
    assert (leader.asked[WRITE], holds(leader)) == (1, [])
    assert "web-2" in leader.inside("app")
    leader.server.faults.clear()
    await minutes(leader, 40)
    assert leader.asked[WRITE] == 2
    assert "web-2" not in leader.inside("app")
    assert leader.reconciler.ledger.entries[0].out_at is not None
    assert holds(leader) == []


async def test_after_its_event_the_vm_comes_back(leader: Leader) -> None:
    """L1: a removal that hung for longer than the event does not keep the VM out for ever."""
    hang(leader)
    event_id = await leader.announce("web-2")
    await leader.round()
    await minutes(leader, 60)
    leader.world.events.cancel(event_id)
    leader.server.faults.clear()
    await minutes(leader, HUNG_S)
    assert leader.asked[WRITE] == 2
    await minutes(leader, 120)
    assert (leader.recorded(), holds(leader)) == ([], [])
    assert "web-2" in leader.inside("app")


async def test_a_restore_that_hangs_is_sent_again(leader: Leader) -> None:
    """S5: the entry stays until the NIC is not Updating, and another PUT ends that."""
    event_id = await leader.announce("web-2")
    await leader.round()
    hang(leader)
    leader.world.events.cancel(event_id)
    await minutes(leader, HUNG_S - 10)
    assert (leader.asked[WRITE], leader.recorded()) == (2, ["web-2"])
    leader.server.faults.clear()
    await minutes(leader, 120)
    assert (leader.asked[WRITE], leader.recorded(), holds(leader)) == (3, [], [])
    assert "web-2" in leader.inside("app")


async def test_while_azure_refuses_the_write_an_operator_sees_why(tmp_path: Path) -> None:
    """H1: an operation of another client hangs: few requests, a hold, and S1 holds."""
    async with leading(tmp_path, "app") as leader:
        hang(leader)
        await leader.announce("web-2")
        await leader.round()
        await minutes(leader, 2 * HUNG_S)
        assert (leader.asked[WRITE], holds(leader)) == (2, ["nic_updating"])
        assert leader.reconciler.ledger.entries[0].out_at is None
        leader.asked.clear()
        await minutes(leader, 1800, every_s=10)  # the event begins and ends meanwhile
        assert "nic_updating" in holds(leader)
        assert leader.asked[WRITE] <= 1800 / HUNG_S + 1
        assert leader.asked[READ] <= 1800 / 30 + 2 * leader.asked[WRITE]
        leader.world.writes.release(leader.world.vm("web-2").nic_ids[0])
        leader.server.faults.clear()
        await minutes(leader, 300, every_s=10)
        assert (leader.recorded(), holds(leader)) == ([], [])


async def test_the_operation_of_another_client_hangs_before_a_restore(tmp_path: Path) -> None:
    """L2: refusals make the writes of other VMs wait, so they become few."""
    async with leading(tmp_path, "app") as leader:
        event_id = await leader.announce("web-2")
        await leader.round()
        nic_id = leader.world.vm("web-2").nic_ids[0]
        leader.world.writes.stick(nic_id)
        leader.world.events.cancel(event_id)
        await minutes(leader, HUNG_S + 60)
        assert "nic_updating" in holds(leader)
        leader.asked.clear()
        await minutes(leader, 600)
        assert 1 <= leader.asked[WRITE] <= 600 / HUNG_S + 1
        assert leader.asked[READ] <= 600 / 30 + 2 * leader.asked[WRITE]
        leader.world.writes.release(nic_id)
        await minutes(leader, 180)
        assert (leader.recorded(), holds(leader)) == ([], [])
        assert "web-2" in leader.inside("app")
