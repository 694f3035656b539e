"""Agents of a simulated set: for each VM a configuration, and a process that follows its state.

The agents are the real command, `python -m controller run`, with their own configuration files.
When a VM reboots, its process is killed; when a VM freezes, its process is stopped.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from controller.simulator.app.freezing import CONTINUE, STOP
from controller.simulator.app.server import SimulatorServer

CONTAINER = "lb-drain"
Section = Mapping[str, object]
Overrides = Mapping[str, Section]
"""Configuration values by table and key; they replace the accelerated defaults."""

ACCELERATED: Overrides = {
    "election": {"lease_duration_s": 15, "renew_period_s": 3, "request_timeout_s": 2},
    "policy": {
        "lead_time_s": 900,
        "connection_drain_s": 5,
        "restore_settle_s": 2,
        "close": True,
    },
    "watch": {"standby_poll_s": 1},
    "drain": {"quiet_s": 0.5},
}
"""The shortest lease Azure grants, and drains that fit a demonstration."""
REAL_TIME: Overrides = {}
"""Timing as on Azure."""


def configuration(
    server: SimulatorServer, vm: str, *, overrides: Overrides = ACCELERATED, listen: str = ""
) -> str:
    """Return the configuration file of the agent on `vm`, as TOML."""
    pools = server.world.pool_ids()
    tables: dict[str, dict[str, object]] = {
        "election": {"container_url": server.container_url(CONTAINER)},
        "azure": {
            "resource_manager_endpoint": server.arm_url,
            "imds_endpoint": server.imds_url(vm),
            "ca_file": str(server.ca_file),
        },
        "server": {"listen": listen},
        "drain": {"flag_file": str(server.ca_file.with_name(f"{vm}.draining"))},
    }
    for table, values in overrides.items():
        if table != "backend_pools":
            tables.setdefault(table, {}).update(values)
    floors = overrides.get("backend_pools", {})
    lines: list[str] = []
    for pool_id in pools:
        floor = floors.get(pool_id.rsplit("/", 1)[-1], floors.get("min_in_service", 1))
        lines += ["[[backend_pools]]", f"id = {json.dumps(pool_id)}"]
        lines += [f"min_in_service = {json.dumps(floor)}", ""]
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        lines.append("")
    return "\n".join(lines)


class AgentProcesses:
    """One agent process per VM.

    Args:
        server: the simulated Azure they talk to.
        directory: where configurations and logs go.
        overrides: configuration values by table.
        own: further values for single VMs; they win.
        follow: whether processes stop and start with their VMs.
    """

    def __init__(
        self,
        server: SimulatorServer,
        directory: Path,
        *,
        overrides: Overrides = ACCELERATED,
        own: Mapping[str, Overrides] | None = None,
        follow: bool = True,
    ) -> None:
        self._server, self._directory = server, directory
        self._overrides, self._follow = overrides, follow
        self._own = own or {}
        # The follower of the VMs and a test can start the same agent at the same time.
        self._starting = asyncio.Lock()
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._follower: asyncio.Task[None] | None = None
        self._seen = 0

    async def __aenter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        for vm in self.vms:
            await self.start(vm)
        if self._follow:
            self._seen = len(self._server.world.history)
            self._follower = asyncio.create_task(self._follow_vms(), name="follow VMs")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        for vm in list(self._processes):
            self.signal(vm, CONTINUE)
        await asyncio.gather(*(self.kill(vm) for vm in list(self._processes)))

    @property
    def vms(self) -> tuple[str, ...]:
        """The VMs of the set."""
        return tuple(vm.name for vm in self._server.world.peers())

    def log(self, vm: str) -> Path:
        """Return the log file of the agent of `vm`."""
        return self._directory / f"{vm}.log"

    def config(self, vm: str) -> Path:
        """Return the configuration file of the agent of `vm`."""
        return self._directory / f"{vm}.toml"

    def process_id(self, vm: str) -> int:
        """Return the process id of a running agent; KeyError when there is none."""
        return self._processes[vm].pid

    def running(self, vm: str) -> bool:
        """Return whether the agent of `vm` runs."""
        process = self._processes.get(vm)
        return process is not None and process.returncode is None

    async def start(self, vm: str) -> None:
        """Start the agent of `vm`, unless it runs."""
        async with self._starting:
            if not self.running(vm):
                await self._start(vm)

    async def _start(self, vm: str) -> None:
        overrides = {name: dict(values) for name, values in self._overrides.items()}
        for name, values in self._own.get(vm, {}).items():
            overrides.setdefault(name, {}).update(values)
        text = configuration(self._server, vm, overrides=overrides)
        await asyncio.to_thread(self.config(vm).write_text, text)
        log = await asyncio.to_thread(self.log(vm).open, "ab")
        with log:
            self._processes[vm] = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "controller",
                "run",
                "--config",
                str(self.config(vm)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
            )

    def signal(self, vm: str, number: signal.Signals | None) -> None:
        """Send a signal to the agent of `vm`, if it runs and the system has that signal."""
        if number is not None and self.running(vm):
            self._processes[vm].send_signal(number)

    async def kill(self, vm: str) -> None:
        """Kill the agent of `vm` as a power failure would, even during its start."""
        async with self._starting:
            if self.running(vm):
                self._processes[vm].kill()
            await self.ended(vm)

    async def ended(self, vm: str) -> int:
        """Wait until the agent of `vm` has ended; return its exit code."""
        process = self._processes.get(vm)
        return 0 if process is None else await process.wait()

    async def _follow_vms(self) -> None:
        """Apply every change of a VM to its process."""
        world = self._server.world
        while True:
            await self._server.wait_until(lambda: len(world.history) > self._seen, timeout_s=1e6)
            changes, self._seen = world.history[self._seen :], len(world.history)
            for change in changes:
                if change.subject not in self.vms:
                    continue
                if change.kind == "vm_up":
                    self.signal(change.subject, CONTINUE)
                    await self.start(change.subject)
                elif change.kind in {"vm_down", "vm_state"}:
                    await self._goes_down(change.subject, str(change.detail.get("state", "")))

    async def _goes_down(self, vm: str, state: str) -> None:
        if state == "frozen":
            self.signal(vm, STOP)
        elif state == "running":
            await self.start(vm)
        else:
            await self.kill(vm)


def _environment() -> dict[str, str]:
    """Return an environment that leaves the endpoints to the configuration alone."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "SYSTEMROOT")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": "*",
    }
