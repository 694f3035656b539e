"""Starting, stopping and replacing processes, together with everything that they have started.

Linux: a process group, and signals to it. Windows: a console group, which Ctrl+Break asks to end,
and `taskkill /T`, which ends a process with its children. Ctrl+Break reaches a group on the same
console only; a service wrapper has one. A process that does not react is ended after a grace time
in any case.
https://learn.microsoft.com/en-us/windows/console/generateconsolectrlevent
https://learn.microsoft.com/en-us/windows-server/administration/windows-commands/taskkill
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

KILL_WITHIN_S = 5.0
"""How long `taskkill` is waited for."""
NEW_GROUP = 0x200
"""CREATE_NEW_PROCESS_GROUP.
https://learn.microsoft.com/en-us/windows/win32/procthread/process-creation-flags"""


class Groups(Protocol):
    """A way to stop a process with everything that it has started. Nothing raises."""

    options: Mapping[str, Any]
    """Arguments of `asyncio.create_subprocess_exec` with which it gets a group of its own."""

    def ask_to_end(self, process: asyncio.subprocess.Process) -> None:
        """Ask the group to end."""
        ...

    async def kill(self, process: asyncio.subprocess.Process) -> None:
        """End the group at once."""
        ...


class PosixGroups:
    """Process groups, and signals to them."""

    options: Mapping[str, Any] = MappingProxyType({"start_new_session": True})

    def ask_to_end(self, process: asyncio.subprocess.Process) -> None:
        """See `Groups`."""
        self._send(process, "SIGTERM")

    async def kill(self, process: asyncio.subprocess.Process) -> None:
        """See `Groups`. Sends before it awaits anything."""
        self._send(process, "SIGKILL")

    def _send(self, process: asyncio.subprocess.Process, name: str) -> None:
        send = getattr(os, "killpg", None)
        if send is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                send(process.pid, getattr(signal, name))


class WindowsGroups:
    """Console groups, and the program `taskkill`.

    Args:
        taskkill: its path.
    """

    options: Mapping[str, Any] = MappingProxyType({"creationflags": NEW_GROUP})

    def __init__(self, taskkill: Path) -> None:
        self._taskkill = taskkill

    def ask_to_end(self, process: asyncio.subprocess.Process) -> None:
        """See `Groups`."""
        number = getattr(signal, "CTRL_BREAK_EVENT", None)
        if number is not None:
            # A process without a console cannot be asked; it is ended later.
            with contextlib.suppress(OSError, ValueError):
                process.send_signal(number)

    async def kill(self, process: asyncio.subprocess.Process) -> None:
        """See `Groups`. A `taskkill` that is missing, fails or hangs leaves the children alone."""
        try:
            async with asyncio.timeout(KILL_WITHIN_S):
                helper = await asyncio.create_subprocess_exec(
                    *(str(self._taskkill), "/T", "/F", "/PID", str(process.pid)),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                )
                await _ended(helper)
        except (OSError, TimeoutError):
            pass
        with contextlib.suppress(OSError):
            process.kill()


async def _ended(helper: asyncio.subprocess.Process) -> None:
    try:
        await helper.wait()
    finally:
        if helper.returncode is None:
            with contextlib.suppress(OSError):
                helper.kill()


def taskkill_of(environ: Mapping[str, str]) -> Path:
    """Return the path of `taskkill`, which does not depend on PATH."""
    return Path(environ.get("SystemRoot") or "C:\\Windows", "System32", "taskkill.exe")


GROUPS: Groups = (
    WindowsGroups(taskkill_of(os.environ)) if sys.platform == "win32" else PosixGroups()
)
"""The groups of the system on which this program runs."""

REPLACES_ITSELF = sys.platform != "win32"
"""Whether `os.execv` keeps the process. On Windows it starts another one and ends this one, which
the service wrapper takes for the end of the service."""
