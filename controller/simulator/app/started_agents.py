"""Agents that a user starts for a simulated set, found by their command line.

A frozen VM does not run, so its agent is stopped (SIGSTOP) and goes on when the VM does. To the
agent its clocks have then jumped, as on Azure. Only processes of the same user are found, only
those that run the agent with the configuration that the simulation wrote, and only on Linux.
"""

import asyncio
import os
import signal
from itertools import pairwise
from pathlib import Path

from controller.simulator.app.freezing import CONTINUE, STOP
from controller.simulator.app.server import SimulatorServer

PROCESSES = Path("/proc")


def agent_processes(configuration: Path) -> list[int]:
    """Return the ids of the processes that run the agent with this configuration file."""
    found: list[int] = []
    user = getattr(os, "getuid", None)
    for entry in PROCESSES.glob("[0-9]*") if user and PROCESSES.is_dir() else ():
        try:
            own = user is not None and entry.stat().st_uid == user()
            arguments = (entry / "cmdline").read_bytes().split(b"\0") if own else []
        except OSError:
            continue  # it has ended
        if _runs_agent([os.fsdecode(each) for each in arguments], configuration):
            found.append(int(entry.name))
    return found


def _runs_agent(arguments: list[str], configuration: Path) -> bool:
    """Return whether a command line is `... run ... --config FILE`."""
    if "run" not in arguments:
        return False
    named = [following for each, following in pairwise(arguments) if each == "--config"]
    return any(Path(each).is_absolute() and Path(each) == configuration for each in named)


class StartedAgents:
    """Stops and continues the agents of a simulation with their VMs."""

    def __init__(self, server: SimulatorServer, directory: Path) -> None:
        self._server, self._directory = server, directory
        self._seen = len(server.world.history)
        self._stopped: set[int] = set()

    async def follow(self) -> None:
        """Follow the VMs until cancelled; then continue all agents."""
        world = self._server.world
        try:
            while True:
                await self._server.wait_until(
                    lambda: len(world.history) > self._seen, timeout_s=1e6
                )
                changes, self._seen = world.history[self._seen :], len(world.history)
                for vm in {change.subject for change in changes if change.kind.startswith("vm_")}:
                    found = world.find_vm(vm)
                    frozen = found is not None and found.state == "frozen"
                    await asyncio.to_thread(self._apply, vm, frozen=frozen)
        finally:
            for process_id in self._stopped:
                _send(process_id, CONTINUE)

    def _apply(self, vm: str, *, frozen: bool) -> None:
        for process_id in agent_processes(self._directory / f"{vm}.toml"):
            if frozen:
                self._stopped.add(process_id)
                _send(process_id, STOP)
            elif process_id in self._stopped:
                self._stopped.discard(process_id)
                _send(process_id, CONTINUE)


def _send(process_id: int, number: signal.Signals | None) -> None:
    if number is None:
        return
    try:
        os.kill(process_id, number)
    except ProcessLookupError:
        return
