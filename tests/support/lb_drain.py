"""Commands for people, run as the person on web-1 starts them, under client traffic."""

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

from controller.simulator.traffic.balancer import Traffic
from controller.simulator.traffic.load import Load
from controller.simulator.traffic.probes import Probe
from tests.support.losses import explanations
from tests.support.patience import PATIENCE_S
from tests.support.process_set import WITHIN_S, ProcessSet

A_ROLL_S = 800.0
LB_DRAIN = (sys.executable, "-m", "controller")


@asynccontextmanager
async def under_load(rig: ProcessSet) -> AsyncIterator[Traffic]:
    """Clients of all kinds ask all the time; no request is lost that an agent could have saved."""
    traffic = Traffic(
        rig.world,
        rig.world.pool_id("app"),
        load=Load(rate_per_s=20, timeout_s=10).accelerated(10),
        probe=Probe(interval_s=0.5, timeout_s=3),
    )
    async with traffic:
        yield traffic
    counts = traffic.counts()
    assert counts.sent > 100
    flows = rig.world.settings.flows_on_remove
    found = explanations(
        rig.world.history, counts.losses, pool_id=rig.world.pool_id("app"), flows=flows
    )
    assert [lost for lost, why in found if not why] == []


class Command:
    """One run of `lb-drain`, as the person on web-1 starts it."""

    def __init__(self, rig: ProcessSet, *arguments: str) -> None:
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


async def printed(config: Path, *arguments: str, code: int = 0) -> str:
    """Run a command without a terminal, as on the VM of this file; return what it prints."""
    process = await asyncio.create_subprocess_exec(
        *LB_DRAIN,
        *arguments,
        "--config",
        str(config),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(),
    )
    async with asyncio.timeout(PATIENCE_S):
        output, _ = await process.communicate()
    text = output.decode()
    assert process.returncode == code, text
    return text


def environment() -> dict[str, str]:
    """The environment of a command, without what could lead it off this host."""
    kept = ("PATH", "HOME", "LANG", "PYTHONPATH", "COVERAGE_PROCESS_START")
    return {name: os.environ[name] for name in kept if name in os.environ}


async def by_hand(rig: ProcessSet, *arguments: str) -> str:
    """Run a command that succeeds; return what it said."""
    command = await Command(rig, *arguments).start()
    code = await command.ended()
    assert code == 0, command.said
    return command.said


def reboots(rig: ProcessSet, done: Path, *, before: str = "") -> str:
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


def most_out_at_once(rig: ProcessSet) -> int:
    """Return how many VMs were out of the pool together."""
    out: set[str] = set()
    most = 0
    for change in rig.changes("member_out", "member_in"):
        vm = str(change.detail["vm"])
        (out.add if change.kind == "member_out" else out.discard)(vm)
        most = max(most, len(out))
    return most


def rolled(rig: ProcessSet) -> dict[str, Any]:
    """Return what the blob beside the ledger says of the roll."""
    blob = rig.world.blobs.find(rig.blob_path.replace(".json", ".requests.json"))
    assert blob is not None
    return dict(json.loads(blob.body)["roll"])
