"""A rolling run reboots each VM once, one at a time, also after a crash or an interruption."""

import shlex
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import OpenRig
from tests.support.lb_drain import (
    A_ROLL_S,
    Command,
    by_hand,
    most_out_at_once,
    reboots,
    rolled,
    under_load,
)
from tests.support.process_set import SHORT_LEASE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * A_ROLL_S)]


async def test_rolled_under_load_while_the_leader_dies(rigged: OpenRig, tmp_path: Path) -> None:
    """Five VMs reboot, one at a time and each once, and a leader dies meanwhile."""
    async with rigged(vms=5, floor=3, overrides=SHORT_LEASE) as rig:
        await rig.leader()
        done = tmp_path / "done"
        async with under_load(rig):
            command = Command(rig, "roll", "--command", reboots(rig, done), "--check", "true")
            await command.start()
            await command.until_said("web-3: drain requested")
            leader = await rig.leader()
            await rig.fleet.kill(leader)
            await rig.leader(but=leader)
            await rig.fleet.start(leader)
            assert await command.ended(A_ROLL_S) == 0, command.said
        vms = [line.split()[0] for line in done.read_text().splitlines()]
        assert vms == ["web-2", "web-3", "web-4", "web-5", "web-1"]
        assert most_out_at_once(rig) == 1
        assert rolled(rig)["ended_at"]
        await rig.settled()


async def test_a_roll_goes_on_after_it_was_interrupted(rigged: OpenRig, tmp_path: Path) -> None:
    """What was done is not done again; the VM it was interrupted at is."""
    async with rigged() as rig:
        await rig.leader()
        done, gate = tmp_path / "done", tmp_path / "gate"
        slow = f'[ "$ROLL_VM" != web-3 ] || [ -e {shlex.quote(str(gate))} ] || sleep 600;'
        roll = ("roll", "--command", reboots(rig, done, before=slow), "--check", "true")
        command = await Command(rig, *roll).start()
        await command.until_said("web-3: removed from ")
        command.signal(signal.SIGTERM)
        assert await command.ended() == 143, command.said
        assert "web-3 stays out of rotation" in command.said
        assert rig.pools_with("web-3") == []
        other = await Command(rig, *roll).start()
        assert await other.ended() == 1
        assert "has not ended; remaining VMs: web-3, web-1" in other.said
        gate.touch()
        resumed = await Command(rig, *roll, "--resume").start()
        assert await resumed.ended(A_ROLL_S) == 0, resumed.said
        vms = [line.split()[0] for line in done.read_text().splitlines()]
        assert vms == ["web-2", "web-3", "web-1"]
        await rig.settled()


async def test_a_roll_stops_at_the_first_failure(rigged: OpenRig) -> None:
    """The VM at which it failed stays out of rotation; `roll --abandon` restores it."""
    async with rigged() as rig:
        await rig.leader()
        command = await Command(rig, "roll", "--command", 'test "$ROLL_VM" != web-2').start()
        assert await command.ended() == 1
        assert "the command ended with exit code 1" in command.said
        assert rig.pools_with("web-2") == []
        assert not rig.moves("member_out", "web-3")
        assert rolled(rig)["failed"] == "web-2: the command ended with exit code 1"
        assert "not done: web-2, web-3, web-1" in await by_hand(rig, "roll", "--abandon")
        await rig.until_in("web-2")
        await rig.settled()
