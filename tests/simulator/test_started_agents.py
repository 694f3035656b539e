"""Agents that a user starts by hand freeze with their VMs."""

import asyncio
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from controller.simulator.app.server import SimulatorServer
from controller.simulator.app.started_agents import StartedAgents, agent_processes
from controller.simulator.world.builder import build_world
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
SLEEP = "import time; time.sleep(3600)"


async def started(*arguments: str) -> asyncio.subprocess.Process:
    """Start a process, and wait until Linux shows its arguments."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SLEEP, *arguments)
    shown = Path(f"/proc/{process.pid}/cmdline")
    async with asyncio.timeout(PATIENCE_S):
        while arguments[-1].encode() not in shown.read_bytes():  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.02)
    return process


def stopped(process_id: int) -> bool:
    text = Path(f"/proc/{process_id}/stat").read_text()
    return text.rpartition(") ")[2][0] == "T"


async def until(process_id: int, *, is_stopped: bool) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while stopped(process_id) is not is_stopped:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def test_only_agents_of_the_simulation_are_found(tmp_path: Path) -> None:
    """A process counts when it runs the agent with exactly this configuration."""
    mine = tmp_path / "web-1.toml"
    processes = [
        await started("run", "--config", str(mine)),
        await started("doctor", "--config", str(mine)),
        await started("run", "--config", str(tmp_path / "web-2.toml")),
        await started("run", str(mine)),
    ]
    try:
        assert agent_processes(mine) == [processes[0].pid]
        assert agent_processes(tmp_path / "web-3.toml") == []
    finally:
        for process in processes:
            process.kill()
            await process.wait()


async def test_agent_freezes_with_its_vm(tmp_path: Path) -> None:
    """The agent of a frozen VM is stopped, continues with its VM, and at the end in any case."""
    process = await started("run", "--config", str(tmp_path / "web-1.toml"))
    other = await started("run", "--config", str(tmp_path / "web-2.toml"))
    world = build_world(now=time.time(), vms=2)
    try:
        async with SimulatorServer(world, tmp_path) as server:
            following = asyncio.create_task(StartedAgents(server, tmp_path).follow())
            for state, is_stopped in (("frozen", True), ("running", False), ("frozen", True)):
                world.set_vm_state("web-1", state)  # type: ignore[arg-type]
                await server.notify()
                await until(process.pid, is_stopped=is_stopped)
            assert not stopped(other.pid)
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
            await until(process.pid, is_stopped=False)
    finally:
        for each in (process, other):
            each.kill()
            await each.wait()
