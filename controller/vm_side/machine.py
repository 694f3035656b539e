"""What the VM's own side does on its machine, behind one interface that a simulation can replace.

Nothing here raises: what does not work is part of the result, so that a drain goes on without it.
"""

import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol

from controller.config.base import socket_address
from controller.config.schema import Settings
from controller.core.vm_report import HookOutcome
from controller.probe.application_check import ApplicationCheck, Readiness
from controller.system.boot_id import boot_id_of
from controller.vm_side.connections import ConnectionCount, count_connections
from controller.vm_side.flag import Flag, FlagStore
from controller.vm_side.hooks import run_command
from controller.vm_side.responder_client import refused_probes
from controller.vm_side.windows_connections import count_by_psutil

Count = Callable[[Sequence[int]], Awaitable[ConnectionCount]]


def counting(platform: str) -> Count:
    """Return how connections are counted on a platform, as `sys.platform` names it."""
    return count_by_psutil if platform == "win32" else count_connections


COUNT = counting(sys.platform)
"""How connections are counted on the system on which this program runs."""


@dataclass(frozen=True, slots=True)
class HookResult:
    """How a hook ended, and what it reported."""

    outcome: HookOutcome
    problem: str = ""
    """Empty for a hook that succeeded."""


class Machine(Protocol):
    """The machine of one agent."""

    @property
    def boot_id(self) -> str:
        """Identifies the boot of the machine; empty if that is not known."""
        ...

    @property
    def probe_port(self) -> int:
        """The port on which the probe responder answers; 0 without one."""
        ...

    def flag(self) -> Flag | None:
        """Return the flag as it is now; None without one."""
        ...

    def set_flag(self, flag: Flag) -> str:
        """Create or replace the flag file; return what did not work."""
        ...

    def renew_flag(self) -> str:
        """Renew the time of the flag file; return what did not work."""
        ...

    def clear_flag(self) -> str:
        """Remove the flag file; return what did not work."""
        ...

    def note_known(self) -> None:
        """Show the responder that this agent has acted on the ledger."""
        ...

    async def connections(self, ports: Sequence[int]) -> ConnectionCount:
        """Count the established connections on local ports."""
        ...

    async def run_hook(
        self, command: Sequence[str], environment: Mapping[str, str], *, timeout_s: float
    ) -> HookResult:
        """Run the command of a hook."""
        ...

    async def refused_probes(self) -> int | None:
        """Return how many probes got a 503 since the VM closed; None if that is not known."""
        ...

    async def readiness(self) -> Readiness:
        """Return whether the application is ready, by its own check."""
        ...


class LocalMachine:
    """The machine that this process runs on."""

    def __init__(self, settings: Settings) -> None:
        self._flags = FlagStore(settings.drain.flag_file)
        self._check = ApplicationCheck(settings.probe.check)
        self._path = settings.probe.path
        listen = settings.probe.listen
        host, self.probe_port = socket_address(listen) if listen else ("", 0)
        self._host = reachable(host)
        self.boot_id = boot_id_of(os.environ)

    def flag(self) -> Flag | None:
        """See `Machine`."""
        return self._flags.read()

    def set_flag(self, flag: Flag) -> str:
        """See `Machine`."""
        return self._flags.write(flag)

    def renew_flag(self) -> str:
        """See `Machine`."""
        return self._flags.renew()

    def clear_flag(self) -> str:
        """See `Machine`."""
        return self._flags.clear()

    def note_known(self) -> None:
        """See `Machine`."""
        self._flags.note_known(self.boot_id)

    async def connections(self, ports: Sequence[int]) -> ConnectionCount:
        """See `Machine`."""
        return await COUNT(ports)

    async def run_hook(
        self, command: Sequence[str], environment: Mapping[str, str], *, timeout_s: float
    ) -> HookResult:
        """See `Machine`."""
        ended = await run_command(command, {**os.environ, **environment}, timeout_s=timeout_s)
        return HookResult(ended.outcome, ended.problem)

    async def refused_probes(self) -> int | None:
        """See `Machine`."""
        if not self.probe_port:
            return None
        return await refused_probes(self._host, self.probe_port, self._path)

    async def readiness(self) -> Readiness:
        """See `Machine`."""
        return await self._check.readiness()


def reachable(host: str) -> str:
    """Return the address at which this machine reaches its own listener on `host`."""
    try:
        unspecified = not host or ip_address(host).is_unspecified
    except ValueError:
        return host
    return "127.0.0.1" if unspecified else host
