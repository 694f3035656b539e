"""People steer a set under load, with the commands they have: no request is lost."""

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from controller.simulator.access import MAINTENANCE
from controller.simulator.clients import Load
from controller.simulator.traffic import Probe, Traffic

from .conftest import OpenRig
from .rig import WITHIN_S, Rig

FIVE: dict[str, Any] = {"vms": 5, "floor": 3}
A_ROLL_S = 240.0
LB_DRAIN = (sys.executable, "-m", "controller")


@asynccontextmanager
async def under_load(rig: Rig) -> AsyncIterator[Traffic]:
    """Clients ask all the time; in the end every request was answered."""
    traffic = Traffic(
        rig.world,
        rig.world.pool_id("app"),
        load=Load(rate_per_s=20, timeout_s=10),
        probe=Probe(interval_s=0.5, timeout_s=3),
    )
    async with traffic:
        yield traffic
    counts = traffic.counts()
    assert counts.sent > 100
    assert list(counts.losses) == []


class Command:
    """One run of `lb-drain`, as the person on web-1 starts it."""

    def __init__(self, rig: Rig, *arguments: str) -> None:
        self._rig = rig
        self._log = Path(rig.fleet.config("web-1")).with_name(f"{arguments[0]}-{id(self)}.log")
        self._arguments = (*arguments, "--config", str(rig.fleet.config("web-1")))
        self._process: asyncio.subprocess.Process | None = None

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self._log.read_text()

    async def start(self) -> "Command":
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *LB_DRAIN, *self._arguments, stdout=log, stderr=log, env=environment()
            )
        return self

    async def until_said(self, text: str) -> None:
        process = self._process
        assert process is not None
        await self._rig.until(
            f"it says {text!r}",
            lambda: text in self.said or process.returncode is not None,
            within_s=A_ROLL_S,
        )
        assert process.returncode is None, self.said

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self, within_s: float = WITHIN_S) -> int:
        assert self._process is not None
        try:
            async with asyncio.timeout(within_s):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise AssertionError(f"does not end; it said:\n{self.said}") from None


def environment() -> dict[str, str]:
    """The environment of a command, without what could lead it off this host."""
    kept = ("PATH", "HOME", "LANG", "PYTHONPATH", "COVERAGE_PROCESS_START")
    return {name: os.environ[name] for name in kept if name in os.environ}


async def by_hand(rig: Rig, *arguments: str) -> str:
    """Run a command that succeeds; return what it said."""
    command = await Command(rig, *arguments).start()
    code = await command.ended()
    assert code == 0, command.said
    return command.said


def reboots(rig: Rig, done: Path, *, before: str = "") -> str:
    """Return the command that reboots a VM as an operator would, and notes that it did."""
    directory = done.parent
    (directory / "control.url").write_text(rig.server.control_url + "\n")
    simulate = shlex.join((*LB_DRAIN, "simulate", "vm"))
    where = shlex.join(("--directory", str(directory)))
    return (
        f'{before} {simulate} "$ROLL_VM" rebooting {where} >/dev/null && sleep 1 && '
        f'{simulate} "$ROLL_VM" running {where} >/dev/null && '
        f'echo "$ROLL_VM $ROLL_ADDRESS" >> {shlex.quote(str(done))}'
    )


def most_out_at_once(rig: Rig) -> int:
    """Return how many VMs were out of the pool together."""
    out: set[str] = set()
    most = 0
    for change in rig.changes("member_out", "member_in"):
        vm = str(change.detail["vm"])
        (out.add if change.kind == "member_out" else out.discard)(vm)
        most = max(most, len(out))
    return most


def rolled(rig: Rig) -> dict[str, Any]:
    """Return what the blob beside the ledger says of the roll."""
    blob = rig.world.blobs.find(rig.blob_path.replace(".json", ".requests.json"))
    assert blob is not None
    return dict(json.loads(blob.body)["roll"])


async def test_drained_and_put_back(rigged: OpenRig) -> None:
    """A VM that is asked for leaves its pool, empties, and comes back when that is taken back."""
    async with rigged() as rig:
        await rig.leader()
        async with under_load(rig) as traffic:
            said = await by_hand(rig, "drain", "web-2", "--for", "10m", "--wait", "--reason", "x y")
            assert rig.pools_with("web-2") == []
            assert traffic.flows().get("web-2", 0) == 0
            assert "x y" in said
            assert "lb-drain restore web-2" in said
            assert "web-2: in service" in await by_hand(rig, "restore", "web-2", "--wait")
            assert rig.pools_with("web-2")
        await rig.settled()


async def test_rolled_under_load_while_the_leader_dies(rigged: OpenRig, tmp_path: Path) -> None:
    """Five VMs reboot, one at a time and each once, and a leader dies meanwhile."""
    async with rigged(**FIVE) as rig:
        await rig.leader()
        done = tmp_path / "done"
        async with under_load(rig):
            command = Command(rig, "roll", "--command", reboots(rig, done), "--check", "true")
            await command.start()
            await command.until_said("web-3: to be taken out of rotation")
            leader = rig.leading()
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
        await command.until_said("web-3: out and empty")
        command.signal(signal.SIGTERM)
        assert await command.ended() == 143, command.said
        assert "web-3 stays out of rotation" in command.said
        assert rig.pools_with("web-3") == []
        other = await Command(rig, *roll).start()
        assert await other.ended() == 1
        assert "has not ended, with web-3, web-1 left" in other.said
        gate.touch()
        resumed = await Command(rig, *roll, "--resume").start()
        assert await resumed.ended(A_ROLL_S) == 0, resumed.said
        vms = [line.split()[0] for line in done.read_text().splitlines()]
        assert vms == ["web-2", "web-3", "web-1"]
        await rig.settled()


async def test_a_roll_stops_at_the_first_failure(rigged: OpenRig) -> None:
    """The VM at which it failed stays out and is told; giving the roll up puts it back."""
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


async def test_planned_maintenance_under_load(rigged: OpenRig) -> None:
    """A whole set is maintained in its self-service window: each VM once, one at a time."""
    async with rigged() as rig:
        await rig.leader()
        for vm in rig.vms:
            subscription = f"/subscriptions/{rig.world.subscription}"
            rig.world.roles.assign(vm, MAINTENANCE, subscription)
        rig.world.plan_maintenance(*rig.vms, down_s=3)
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
        assert "web-1 is the VM this runs on" in command.said
        table = await by_hand(rig, "maintenance")
        assert table.count(" done ") == 3
        await rig.settled()
