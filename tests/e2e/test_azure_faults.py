"""Azure on a bad day: throttling, conflicts, operations that come to nothing, missing rights."""

from itertools import pairwise

import pytest

from controller.simulator.services.faults import Effect
from controller.simulator.services.http_values import Service
from tests.e2e.conftest import OpenRig
from tests.support.held_replies import held_replies

pytestmark = pytest.mark.slow

EACH = 3
RETRY_AFTER_S = 2.0
NO_EVENTS = '{"DocumentIncarnation": 99, "Events": []}'
NIC_WRITE = "Microsoft.Network/networkInterfaces/write"


async def test_imds_fails_during_the_maintenance(rigged: OpenRig) -> None:
    """No failed, empty or unanswered poll brings a VM back, nor does one without the event."""
    async with rigged(overrides={"watch": {"timeout_s": 3}}) as rig:
        leader = await rig.leader()
        victim = rig.others(leader)[0]
        event = await rig.schedule("Reboot", victim, started_s=300)
        await rig.until(f"{victim} up again", lambda: bool(rig.changes("vm_up")))
        where = {"vm": leader, "method": "GET", "path_contains": "scheduledevents"}
        rig.fault(Service.IMDS, Effect.REPLY, status=200, body=NO_EVENTS, times=1, **where)
        rig.fault(Service.IMDS, Effect.REPLY, status=500, times=EACH, **where)
        rig.fault(Service.IMDS, Effect.EMPTY_200, times=EACH, **where)
        rig.fault(Service.IMDS, Effect.HANG, times=EACH, **where)
        rig.fault(Service.IMDS, Effect.REPLY, status=410, **where)
        await rig.until(
            "polls treated with all of them",
            lambda: len(rig.changes("fault", effect="hang")) >= EACH,
        )
        assert len(rig.changes("fault", effect="reply")) >= 1 + EACH
        assert len(rig.changes("fault", effect="empty_200")) == EACH
        # The event ends while the leader cannot see it: that is no reason either.
        await rig.edit(lambda world: world.events.complete(event.event_id))
        unseen = len(rig.changes("fault", effect="reply"))
        await rig.until(
            "polls that fail after the end",
            lambda: len(rig.changes("fault", effect="reply")) >= unseen + EACH,
        )
        assert not rig.moves("member_in", victim)
        rig.heal()
        await rig.settled()
        assert len(rig.writes(victim)) == 2


async def test_throttled(rigged: OpenRig) -> None:
    """Under 429 the agents wait as long as Azure asks, and still finish in time."""
    async with rigged() as rig:
        leader = await rig.leader()
        victim = rig.others(leader)[0]
        rig.fault(
            Service.ARM,
            Effect.REPLY,
            method="PUT",
            status=429,
            headers=(("retry-after", f"{RETRY_AFTER_S:g}"),),
            body='{"error":{"code":"SubscriptionRequestsThrottled","message":"Slow down."}}',
            times=3,
        )
        rig.fault(
            Service.ARM,
            Effect.REPLY,
            method="GET",
            status=429,
            headers=(("retry-after", "1"),),
            times=2,
        )
        event = await rig.schedule("Reboot", victim)
        await rig.until_event("event_gone", event)
        await rig.settled()
        tries = [change.at for change in rig.changes("fault", by="PUT")] + [
            rig.writes(victim)[0].at
        ]
        gaps = [after - before for before, after in pairwise(tries)]
        assert len(gaps) == 3
        assert min(gaps) >= RETRY_AFTER_S - 0.05
        assert rig.moves("member_out", victim)[0].at < event.not_before
        assert rig.of_event("event_acknowledged", event)


async def test_tags_edited_between_read_and_write(rigged: OpenRig) -> None:
    """An editor's tags, set between our read and our write of the NIC, survive it."""
    async with rigged() as rig:
        leader = await rig.leader()
        victim = rig.others(leader)[0]
        nic_id = rig.nic_id(victim)

        def recorded() -> bool:
            return rig.entry(victim) is not None

        # The NIC has been read when the ledger is written.
        with held_replies(rig.server, rig.blob_path, recorded):
            event = await rig.schedule("Reboot", victim)
            await rig.until("the record", recorded)
            await rig.edit(lambda world: world.edit_tags(nic_id, {"edited": "meanwhile"}))
        rig.expected[nic_id]["tags"] = {"edited": "meanwhile"}
        await rig.until_event("event_gone", event)
        await rig.settled()
        assert "412" in rig.log(leader)
        assert rig.moves("member_out", victim)[0].at < event.not_before


@pytest.mark.parametrize("outcome", ["canceled", "no_effect"])
async def test_operation_that_comes_to_nothing(rigged: OpenRig, outcome: str) -> None:
    """A removal that Azure cancels, or only claims to have done, is done again."""
    async with rigged() as rig:
        victim = rig.others(await rig.leader())[0]
        rig.fault(
            Service.ARM, Effect.OPERATION, method="PUT", operation=outcome, delay_s=0.5, times=1
        )
        event = await rig.schedule("Reboot", victim)
        await rig.until_event("event_gone", event)
        await rig.settled()
        assert len(rig.writes(victim)) == 3
        assert rig.moves("member_out", victim)[0].at < event.not_before
        assert rig.of_event("event_acknowledged", event)


async def test_failed_writes_that_look_done(rigged: OpenRig) -> None:
    """A NIC that shows what a failed write asked for is neither out nor back on the word of it."""
    async with rigged(settings={"failed_write_keeps_body": True}) as rig:
        victim = rig.others(await rig.leader())[0]
        rig.fault(Service.ARM, Effect.OPERATION, method="PUT", delay_s=0.5, times=1)
        event = await rig.schedule("Reboot", victim)
        await rig.until_event("event_acknowledged", event)
        assert not rig.pools_with(victim)
        rig.fault(Service.ARM, Effect.OPERATION, method="PUT", delay_s=0.5, times=1)
        await rig.until_event("event_gone", event)
        await rig.settled()
        assert rig.pools_with(victim)
        assert len(rig.writes(victim)) == 4


async def test_a_failing_nic_blocks_nobody_else(rigged: OpenRig) -> None:
    """While the NIC of one VM ends in Failed, the drain of another VM is not held up."""
    async with rigged(vms=4) as rig:
        failing, healthy, _ = rig.others(await rig.leader())
        await rig.edit(lambda world: world.fail_nic(rig.nic_id(failing)))
        rig.fault(
            Service.ARM,
            Effect.OPERATION,
            method="PUT",
            path_contains=f"/{failing}-nic",
            operation="failed",
            times=3,
        )
        stuck = await rig.schedule("Reboot", failing)
        smooth = await rig.schedule("Reboot", healthy)
        await rig.until_event("event_acknowledged", smooth)
        assert not rig.of_event("event_acknowledged", stuck)
        await rig.until_event("event_gone", stuck)
        await rig.until_event("event_gone", smooth)
        await rig.settled()
        out = rig.moves("member_out", failing)[0]
        assert rig.of_event("event_acknowledged", smooth)[0].at < out.at < stuck.not_before


async def test_permission_taken_away(rigged: OpenRig) -> None:
    """A missing right is logged with action and scope, and once granted the work is done."""
    async with rigged() as rig:
        leader = await rig.leader()
        victim = rig.others(leader)[0]
        await rig.permit(NIC_WRITE, granted=False)
        event = await rig.schedule("Reboot", victim)
        await rig.until_logged(leader, f"lacks {NIC_WRITE} on {rig.nic_id(victim)}")
        assert not rig.of_event("event_acknowledged", event)
        await rig.permit(NIC_WRITE, granted=True)
        await rig.until_event("event_gone", event)
        await rig.settled()
        assert rig.of_event("event_acknowledged", event)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"version": "1.0", "entries": [', "the ledger is not JSON"),
        (b'{"version": "2.0", "epoch": 7, "leader": "web-9"}', "the ledger blob has version 2.0"),
    ],
    ids=["corrupt", "newer"],
)
async def test_unreadable_ledger(rigged: OpenRig, body: bytes, why: str) -> None:
    """With a ledger they cannot read, agents touch neither it nor Azure, and say so loudly."""
    async with rigged(prepare=lambda rig: rig.put_ledger(body)) as rig:
        rig.restores_all = False
        event = await rig.schedule("Reboot", rig.vms[0], notice_s=6)
        await rig.until_event("event_started", event)
        await rig.until(
            "an error in the log of an agent", lambda: any(why in rig.log(vm) for vm in rig.vms)
        )
        await rig.until_event("event_gone", event)
        assert any('"level": "ERROR"' in rig.log(vm) for vm in rig.vms)
        assert "Nothing is written until it is resolved" in "".join(map(rig.log, rig.vms))
        assert not rig.changes("write", "event_acknowledged")
        written = {change.subject for change in rig.changes("blob_written")}
        assert rig.blob_path not in written
        blob = rig.world.blobs.find(rig.blob_path)
        assert blob is not None
        assert blob.body == body
