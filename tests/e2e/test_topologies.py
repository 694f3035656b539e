"""Sets and networks of every shape: what is taken out is what is put back."""

import pytest

from tests.e2e.conftest import OpenRig
from tests.support.process_set import ProcessSet

pytestmark = pytest.mark.slow


async def _one_reboot(rig: ProcessSet) -> None:
    """Take one VM through a reboot; the laws do the rest."""
    victim = rig.others(await rig.leader())[0]
    event = await rig.schedule("Reboot", victim)
    await rig.until_event("event_gone", event)
    await rig.settled()
    outs = rig.moves("member_out", victim)
    assert {change.subject for change in outs} == set(rig.world.pool_ids())
    assert all(change.at < event.not_before for change in outs)
    assert rig.of_event("event_acknowledged", event)


async def test_ip_based_pool(rigged: OpenRig) -> None:
    """A VM that is an address in a pool leaves it and comes back as the same entry."""
    async with rigged(pools=(), ip_pools=("ip",)) as rig:
        await _one_reboot(rig)
        assert len(rig.changes("write")) == 2


async def test_both_kinds_of_pools(rigged: OpenRig) -> None:
    """A VM leaves NIC-based and IP-based pools, each the way its kind asks for."""
    async with rigged(ip_pools=("ip", "ip2")) as rig:
        await _one_reboot(rig)


async def test_several_nics_and_ipv6(rigged: OpenRig) -> None:
    """Every ipConfiguration of every NIC of the VM leaves, and comes back to its own pools."""
    async with rigged(nics_per_vm=2, ipv6=True, pools=("app", "api")) as rig:
        await _one_reboot(rig)
        assert len(rig.changes("write")) == 4


async def test_network_in_another_resource_group(rigged: OpenRig) -> None:
    """NICs and load balancers may lie in another resource group than the VMs."""
    async with rigged(network_group="net-rg", foreign_vms=1) as rig:
        await _one_reboot(rig)


async def test_serial_writes(rigged: OpenRig) -> None:
    """Where Azure takes one NIC write of a set at a time, four NICs leave one after another."""
    settings = {"conflict_mode": "serial", "busy_status": 409}
    async with rigged(settings=settings, nics_per_vm=2) as rig:
        victims = rig.others(await rig.leader())
        event = await rig.schedule("Reboot", *victims)
        await rig.until_event("event_gone", event)
        await rig.settled()
        assert rig.of_event("event_acknowledged", event)
        assert len(rig.changes("write")) == 8
        running: set[str] = set()
        for change in rig.changes("write", "operation_ended"):
            if change.kind == "write":
                assert not running
                running.add(str(change.detail["operation"]))
            else:
                running.discard(change.subject)
