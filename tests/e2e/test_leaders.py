"""Leaders that die, sleep, lose their way or are asked to leave, in the middle of the work."""

import signal

import pytest

from controller.simulator.services.faults import Effect
from controller.simulator.services.http_values import Service
from tests.e2e.conftest import OpenRig
from tests.support.process_set import SHORT_LEASE, WITHIN_S

pytestmark = pytest.mark.slow

LEASE_RUNS_OUT_S = WITHIN_S + 20
WRITE_S = 20.0
"""Longer than an agent takes to end, on a busy machine too."""
AT_ONCE = 60
"""Every read of an inventory, each in the ways that it has."""
HAMMERING_PER_S = 3.0
"""Refused requests of agents that back off: each asks in several ways, and waits in between."""


async def test_killed_between_record_and_removal(rigged: OpenRig) -> None:
    """What a dead leader recorded and never removed, its successor removes and restores."""
    async with rigged(overrides=SHORT_LEASE) as rig:
        leader = await rig.leader()
        victim, successor = rig.others(leader)
        # The ledger write arrives, its reply does not: the removal is never sent.
        rig.fault(Service.BLOB, Effect.HANG_AFTER, vm=leader, method="PUT")
        event = await rig.schedule("Reboot", victim, notice_s=200)
        await rig.until("the record", lambda: rig.entry(victim) is not None)
        await rig.fleet.kill(leader)
        assert not rig.writes(victim)
        await rig.until_event("event_gone", event, within_s=LEASE_RUNS_OUT_S)
        await rig.settled()
        assert {write.detail["by"] for write in rig.writes(victim)} <= {victim, successor}
        assert rig.moves("member_out", victim)[0].at < event.not_before
        assert rig.of_event("event_acknowledged", event)


async def test_killed_after_the_removal(rigged: OpenRig) -> None:
    """A VM that a dead leader took out is acknowledged and restored by its successor."""
    async with rigged(overrides=SHORT_LEASE, settings={"operation_latency_s": 2}) as rig:
        leader = await rig.leader()
        victim = rig.others(leader)[0]
        event = await rig.schedule("Reboot", victim, notice_s=200)
        await rig.until("the removal", lambda: bool(rig.writes(victim)))
        await rig.fleet.kill(leader)
        assert rig.pools_with(victim)
        await rig.until_event("event_gone", event, within_s=LEASE_RUNS_OUT_S)
        await rig.settled()
        first, last = rig.writes(victim)
        assert first.detail["by"] == leader != last.detail["by"]
        assert rig.of_event("event_acknowledged", event)


async def test_stopped_past_its_lease(rigged: OpenRig) -> None:
    """A leader that slept past its lease, a removal on its lips, writes nothing when it wakes."""
    async with rigged(overrides=SHORT_LEASE) as rig:
        leader = await rig.leader()
        victim, third = rig.others(leader)
        later = (("retry-after", "5"),)
        rig.fault(Service.ARM, Effect.REPLY, method="PUT", status=429, headers=later, times=1)
        event = await rig.schedule("Reboot", victim, notice_s=200)
        await rig.until("the throttled removal", lambda: bool(rig.changes("fault", by="PUT")))
        rig.stop(leader)
        # Nothing but its own clock tells the sleeper that it is too late: its removal is recorded
        # and due, storage is silent, and the NIC is as it was, since no successor gets at it.
        rig.fault(Service.BLOB, Effect.HANG, vm=leader)
        rig.fault(Service.ARM, Effect.RESET_BEFORE, vm=victim)
        rig.fault(Service.ARM, Effect.RESET_BEFORE, vm=third)
        successor = await rig.leader(but=leader)
        mark = rig.mark()
        rig.resume(leader)
        await rig.until_logged(leader, "the lease could have expired")
        await rig.until("two renewals", lambda: len(rig.changes("fault", effect="hang")) >= 2)
        assert not rig.writes(victim)
        refused = rig.changes("fault", effect="reset_before")
        lasted_s = refused[-1].at - refused[0].at
        assert len(refused) < AT_ONCE + HAMMERING_PER_S * lasted_s
        rig.heal()
        await rig.until_logged(leader, "standby")
        await rig.until_event("event_gone", event)
        await rig.settled()
        ours = ("write", "blob_written", "event_acknowledged", "lease_acquire")
        assert not rig.changes(*ours, since=mark, by=leader)
        # A victim that leads passes the lease on.
        assert rig.of_event("event_acknowledged", event)[0].detail["by"] in {successor, third}


async def test_storage_out_of_the_leaders_reach(rigged: OpenRig) -> None:
    """A leader without storage writes nothing to the network; when its lease ends another does."""
    async with rigged(overrides=SHORT_LEASE) as rig:
        leader = await rig.leader()
        victim = rig.others(leader)[0]
        rig.fault(Service.BLOB, Effect.RESET_BEFORE, vm=leader)
        event = await rig.schedule("Reboot", victim, notice_s=200)
        await rig.leader(but=leader)
        await rig.until_event("event_acknowledged", event)
        rig.heal()
        await rig.until_event("event_gone", event)
        await rig.settled()
        assert not rig.changes("write", "event_acknowledged", by=leader)
        assert rig.moves("member_out", victim)[0].at < event.not_before


async def test_terminated_during_a_drain(rigged: OpenRig) -> None:
    """SIGTERM ends a leader during its write, its lease released, and its successor finishes."""
    async with rigged(settings={"operation_latency_s": WRITE_S}) as rig:
        leader = await rig.leader()
        victim = rig.others(leader)[0]
        event = await rig.schedule("Reboot", victim)
        await rig.until("the removal", lambda: bool(rig.writes(victim)))
        rig.fleet.signal(leader, signal.SIGTERM)
        code = await rig.fleet.ended(leader)
        assert code == 0
        assert rig.world.writes.in_flight, "it waited for the end of its write"
        assert rig.changes("lease_release", by=leader)
        await rig.until_event("event_gone", event)
        await rig.settled()
        assert rig.moves("member_out", victim)[0].at < event.not_before
        assert rig.of_event("event_acknowledged", event)


async def test_blind_leader(rigged: OpenRig) -> None:
    """A leader whose IMDS hangs gives way, and an event it cannot see is dealt with in time."""
    async with rigged(overrides={"watch": {"timeout_s": 3}}) as rig:
        leader = await rig.leader()
        victim = rig.others(leader)[0]
        rig.fault(Service.IMDS, Effect.HANG, vm=leader, path_contains="scheduledevents")
        event = await rig.schedule("Reboot", victim, notice_s=200)
        await rig.leader(but=leader)
        await rig.until_event("event_gone", event, within_s=LEASE_RUNS_OUT_S)
        await rig.settled()
        assert rig.changes("lease_release", by=leader)
        assert not rig.changes("write", by=leader)
        assert rig.moves("member_out", victim)[0].at < event.not_before
