"""What Azure announces, from the ordinary to the odd, and what the set makes of it."""

import pytest

from tests.e2e.conftest import OpenRig
from tests.support.process_set import NOTICE_S

pytestmark = pytest.mark.slow


async def test_reboot(rigged: OpenRig) -> None:
    """A VM leaves before NotBefore, the event is acknowledged, and the VM comes back."""
    async with rigged() as rig:
        leader = await rig.leader()
        victim = rig.others(leader)[0]
        event = await rig.schedule("Reboot", victim)
        await rig.until_event("event_gone", event)
        await rig.settled()
        assert rig.moves("member_out", victim)[0].at < event.not_before
        assert rig.of_event("event_acknowledged", event)
        assert rig.changes("vm_up")
        assert len(rig.writes(victim)) == 2
        assert rig.leading() == leader


async def test_the_leader_is_the_victim(rigged: OpenRig) -> None:
    """A leader that is to be rebooted hands over first, and another agent takes it out."""
    async with rigged() as rig:
        victim = await rig.leader()
        event = await rig.schedule("Reboot", victim)
        successor = await rig.leader(but=victim)
        await rig.until_event("event_gone", event)
        await rig.settled()
        assert rig.changes("lease_release", by=victim)
        assert {write.detail["by"] for write in rig.writes(victim)} == {successor}
        assert rig.moves("member_out", victim)[0].at < event.not_before
        assert rig.of_event("event_acknowledged", event)


async def test_the_whole_set_one_by_one(rigged: OpenRig) -> None:
    """Every VM of the set is taken through its reboot, whoever leads at the time."""
    async with rigged() as rig:
        await rig.leader()
        events = []
        for vm in rig.vms:
            events.append(await rig.schedule("Reboot", vm))
            await rig.until_event("event_gone", events[-1])
        await rig.settled()
        for vm, event in zip(rig.vms, events, strict=True):
            assert rig.moves("member_out", vm)[0].at < event.not_before
            assert rig.of_event("event_acknowledged", event)
            assert len(rig.writes(vm)) == 2


async def test_cancelled(rigged: OpenRig) -> None:
    """A VM comes back although its event was taken back and never started."""
    async with rigged(settings={"ack_starts_event_after_s": None}) as rig:
        victim = rig.others(await rig.leader())[0]
        event = await rig.schedule("Redeploy", victim)
        await rig.until_event("event_acknowledged", event)
        await rig.edit(lambda world: world.events.cancel(event.event_id))
        await rig.until_in(victim)
        await rig.settled()
        assert not rig.of_event("event_started", event)
        assert len(rig.writes(victim)) == 2


async def test_started_without_notice(rigged: OpenRig) -> None:
    """A VM whose event appears as Started is taken out at once, and nothing is acknowledged."""
    async with rigged() as rig:
        victim = rig.others(await rig.leader())[0]
        event = await rig.schedule("Reboot", victim, started_first=True, started_s=600)
        await rig.until_out(victim)
        await rig.edit(lambda world: world.events.complete(event.event_id))
        await rig.until_event("event_gone", event)
        await rig.settled()
        assert rig.moves("member_out", victim)[0].at < rig.of_event("event_gone", event)[0].at
        assert not rig.of_event("event_acknowledged", event)


async def test_the_second_waits_for_the_first(rigged: OpenRig) -> None:
    """When the floor lets only one VM leave, the second leaves once the first is back."""
    async with rigged(floor=2) as rig:
        first, second = rig.others(await rig.leader())
        before = await rig.schedule("Reboot", first)
        after = await rig.schedule("Reboot", second, notice_s=2 * NOTICE_S)
        await rig.until_event("event_gone", before)
        await rig.until_event("event_gone", after)
        await rig.settled()
        assert rig.moves("member_in", first)[0].at < rig.moves("member_out", second)[0].at
        assert rig.moves("member_out", second)[0].at < after.not_before
        assert rig.of_event("event_acknowledged", after)
        assert len(rig.writes(first)) == len(rig.writes(second)) == 2


async def test_an_event_that_the_floor_forbids_is_not_acknowledged(rigged: OpenRig) -> None:
    """While one of its VMs has to stay, an event for two is not acknowledged."""
    async with rigged(floor=2) as rig:
        leader = await rig.leader()
        victims = rig.others(leader)
        event = await rig.schedule("Reboot", *victims, notice_s=20)
        await rig.until_event("event_gone", event)
        await rig.settled()
        started = rig.of_event("event_started", event)[0]
        left = [vm for vm in victims if rig.moves("member_out", vm)]
        assert len(left) == 1
        assert rig.moves("member_out", left[0])[0].at < started.at
        assert not rig.of_event("event_acknowledged", event)
        assert "min_in_service requires 2" in rig.log(leader)


async def test_one_event_for_two(rigged: OpenRig) -> None:
    """An event for two VMs is acknowledged once, after both of them are out."""
    async with rigged() as rig:
        victims = rig.others(await rig.leader())
        event = await rig.schedule("Reboot", *victims)
        await rig.until_event("event_gone", event)
        await rig.settled()
        acknowledged = rig.of_event("event_acknowledged", event)[0]
        assert all(rig.moves("member_out", vm)[0].at < acknowledged.at for vm in victims)


async def test_ids_change_between_states(rigged: OpenRig) -> None:
    """An event that gets another id when it starts is still one maintenance."""
    settings = {
        "event_ids_change": True,
        "incarnation_jumps": True,
        "not_before_format": "iso8601",
    }
    async with rigged(settings=settings) as rig:
        victim = rig.others(await rig.leader())[0]
        event = await rig.schedule("Reboot", victim.upper())
        announced = event.event_id
        await rig.until_event("event_gone", event)
        await rig.settled()
        assert event.event_id != announced
        assert [change.subject for change in rig.changes("event_acknowledged")] == [announced]
        assert len(rig.writes(victim)) == 2


async def test_freeze_of_the_leader(rigged: OpenRig) -> None:
    """A leader that is frozen in its own maintenance wakes up as a standby and writes nothing."""
    async with rigged() as rig:
        victim = await rig.leader()
        event = await rig.schedule("Freeze", victim, duration_s=9, impact_s=2, started_s=3)
        await rig.until_event("event_started", event)
        mark = rig.mark()
        await rig.until_event("event_gone", event)
        await rig.settled()
        assert rig.changes("vm_down", state="frozen")
        assert rig.moves("member_out", victim)[0].at < event.not_before
        assert not rig.changes("write", "blob_written", since=mark, by=victim)


async def test_short_freeze_is_ignored(rigged: OpenRig) -> None:
    """A freeze shorter than policy cares about moves no VM and is not acknowledged."""
    async with rigged() as rig:
        leader = await rig.leader()
        event = await rig.schedule("Freeze", rig.others(leader)[0], duration_s=3, notice_s=3)
        await rig.until_event("event_gone", event)
        polls = rig.polls(leader)
        await rig.until("three more polls", lambda: rig.polls(leader) > polls + 3)
        await rig.settled()
        assert not rig.changes("write")
        assert not rig.of_event("event_acknowledged", event)


async def test_what_an_operator_removed_stays_out(rigged: OpenRig) -> None:
    """A membership that an operator removed before the event is never added back."""
    async with rigged(pools=("app", "api")) as rig:
        leader = await rig.leader()
        removed, trimmed = rig.others(leader)
        app, api = rig.world.pool_id("app"), rig.world.pool_id("api")
        await rig.until(
            "the first inventory", lambda: rig.world.request_counts["arm", leader, "GET"] > 5
        )
        await rig.edit(lambda world: world.remove_membership(app, rig.nic_id(removed)))
        await rig.edit(lambda world: world.remove_membership(api, rig.nic_id(removed)))
        await rig.edit(lambda world: world.remove_membership(api, rig.nic_id(trimmed)))
        rig.accept_bodies()
        alone = await rig.schedule("Reboot", removed, notice_s=6)
        both = await rig.schedule("Reboot", trimmed)
        await rig.until_event("event_gone", both)
        await rig.until_event("event_gone", alone)
        await rig.until("back in the one pool", lambda: rig.pools_with(trimmed) == [app])
        polls = rig.polls(leader)
        await rig.until("three more polls", lambda: rig.polls(leader) > polls + 3)
        await rig.settled()
        assert rig.of_event("event_acknowledged", both)
        assert not rig.of_event("event_acknowledged", alone)
        assert not rig.writes(removed)
        assert not rig.moves("member_in", removed)
