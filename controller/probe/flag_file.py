"""Reads the flag file of the agent: while it exists, the VM is closed.

The agent renews the time of the file while it has news from storage, and while an event of its VM
is announced. A flag that has become old belongs to an agent that is dead or cut off from storage,
and does not count (law S9). The directory of the file belongs to the service of the agent: while
that restarts, the directory is missing, and then it is empty until the agent has read the ledger.
The VM stays closed meanwhile.
After a reboot it stays closed until the agent has read the ledger, for minutes (`boot_memory`).
"""

import json
import os
import stat
import time
from dataclasses import dataclass
from typing import cast

from controller.probe.boot_memory import BootMemory
from controller.system.boot_id import is_other_boot

MAX_BYTES = 4096
CLOCK_STEP_S = 60.0
"""A flag whose time lies further ahead than that was renewed before the clock was set back."""
RESTART_S = 30.0
"""A VM that was closed stays so while its agent restarts, that many seconds at most."""


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag that counts."""

    reason: str
    """One line, such as "Reboot"; empty if the file does not state one."""
    boot_id: str = ""
    """Identifies the boot in which the agent wrote it; empty if the file does not state one."""


class FlagFile:
    """The flag file at `path`; the time of its last renewal is judged on the wall clock.

    Args:
        path: of the file; empty without one, and then the VM is always open.
        open_after_s: seconds after its last renewal at which it no longer counts.
        state_directory: a directory that outlasts a reboot; empty without one.
        boot_id: identifies this boot of the machine; empty if that is not known.
    """

    def __init__(
        self, path: str, *, open_after_s: float, state_directory: str = "", boot_id: str = ""
    ) -> None:
        self._path, self._open_after_s, self._boot_id = path, open_after_s, boot_id
        self._memory = BootMemory(
            state_directory, flag_file=path, keep_s=open_after_s, boot_id=boot_id
        )
        self._read: tuple[int, Flag] | None = None
        self._seen_at = float("-inf")
        """When the flag last counted, in monotonic seconds."""
        self._agent_seen = False
        """Whether an agent has shown in this boot that it acts on the ledger."""

    def current(self) -> Flag | None:
        """Return the flag, or None if the VM is open. Never raises."""
        if not self._path:
            return None
        flag = self._by_file()
        if flag is not None:
            # The agent removes the flag of an earlier boot when it starts. The memory of that boot
            # has to count until the agent has read the ledger.
            if not is_other_boot(flag.boot_id, self._boot_id):
                self._memory.note()
        elif self._memory.counts():
            flag = Flag("")
        else:
            self._memory.forget()
        return flag

    def _by_file(self) -> Flag | None:
        try:
            found = os.stat(self._path)
        except (OSError, ValueError):
            return self._while_restarting()
        age_s = time.time() - found.st_mtime
        if not stat.S_ISREG(found.st_mode) or not -CLOCK_STEP_S <= age_s <= self._open_after_s:
            return None
        if self._read is None or self._read[0] != found.st_mtime_ns:
            self._read = found.st_mtime_ns, self._content()
        self._seen_at = time.monotonic()
        self._agent_seen = self._agent_seen or self._memory.agent_knows()
        return self._read[1]

    def _while_restarting(self) -> Flag | None:
        """Return the last flag if its agent restarts; a file that was removed alone is no flag."""
        recent = time.monotonic() - self._seen_at <= RESTART_S
        starting = self._agent_seen and not self._memory.agent_knows()
        removed = os.path.isdir(os.path.dirname(self._path)) and not starting
        if self._read is None or not recent or removed:
            self._seen_at = float("-inf")
            return None
        return self._read[1]

    def _content(self) -> Flag:
        try:
            with open(self._path, "rb") as file:
                document: object = json.loads(file.read(MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            return Flag("")
        if not isinstance(document, dict):
            return Flag("")
        values = cast("dict[str, object]", document)
        return Flag(_line(values.get("event_type")), _line(values.get("boot_id")))


def _line(value: object) -> str:
    return value[:64] if isinstance(value, str) and value.isprintable() else ""
