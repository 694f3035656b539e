"""Operator commands on a set under load: no new connection reaches a VM that is out."""

import json

import pytest

from controller.simulator.world.access import MAINTENANCE
from tests.e2e.conftest import OpenRig
from tests.support.lb_drain import A_ROLL_S, Command, by_hand, most_out_at_once, under_load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * A_ROLL_S)]


async def test_drained_and_put_back(rigged: OpenRig) -> None:
    """A drained VM leaves its pool, empties, and returns when the drain is withdrawn."""
    async with rigged() as rig:
        await rig.leader()
        async with under_load(rig) as traffic:
            said = await by_hand(rig, "drain", "web-2", "--for", "10m", "--wait", "--reason", "x y")
            assert rig.pools_with("web-2") == []
            await traffic.wait_until(lambda: "web-2" not in traffic.flows())
            assert "x y" in said
            assert "lb-drain restore web-2" in said
            assert "web-2 is in service." in await by_hand(rig, "restore", "web-2", "--wait")
            assert rig.pools_with("web-2")
        await rig.settled()


async def test_planned_maintenance_under_load(rigged: OpenRig) -> None:
    """A whole set is maintained in its self-service window: each VM once, one at a time."""
    async with rigged() as rig:
        await rig.leader()
        for vm in rig.vms:
            subscription = f"/subscriptions/{rig.world.subscription}"
            rig.world.roles.assign(vm, MAINTENANCE, subscription)
        rig.world.maintenance.plan(*rig.vms, down_s=3)
        listed = json.loads(await by_hand(rig, "maintenance", "--json"))["vms"]
        assert {each["vm"]: each["state"] for each in listed} == dict.fromkeys(
            rig.vms, "self_service"
        )
        async with under_load(rig):
            command = await Command(rig, "maintenance", "start", "--all", "--check", "true").start()
            assert await command.ended(A_ROLL_S) == 0, command.said
        begun = [change.subject for change in rig.changes("maintenance_begun")]
        assert begun == ["web-2", "web-3", "web-1"]
        ended = rig.changes("maintenance_ended", result="MaintenanceCompleted")
        assert [change.subject for change in ended] == begun
        assert most_out_at_once(rig) == 1
        assert "This command runs on web-1: this VM is the last one" in command.said
        table = await by_hand(rig, "maintenance")
        assert table.count(" done ") == 3
        await rig.settled()
