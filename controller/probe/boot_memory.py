"""Remembers over a reboot that the VM was closed, until its agent has read the ledger (law S9).

The flag file is in /run, which is empty after a reboot, and the entry may still name the VM. The
responder keeps an empty file in a directory of its own that outlasts a reboot; its time is when the
flag last counted. After a reboot it closes the VM for `UP_AT_MOST_S` at most. The file `.known`
beside the flag file, by which the agent shows that it has decided in this boot, ends that earlier.
A flag file in a directory that outlasts a reboot leaves one of an earlier boot, which ends nothing.
"""

import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from controller.system.boot_id import MAX_CHARS, is_other_boot
from controller.system.uptime import up_s

UP_AT_MOST_S = 300.0
"""A machine that has been up for longer is open without a flag: its agent does not start."""
NOTE_EVERY_S = 60.0
KNOWN = ".known"
"""What the agent adds to the name of the flag file, once it has acted on the ledger. The file has
the id of the boot in it; one without an id counts for this boot."""


class BootMemory:
    """The memory in `directory`; empty for none. Nothing raises.

    Args:
        directory: where the file is.
        flag_file: the flag file of the agent.
        keep_s: seconds after which it no longer counts.
        boot_id: identifies this boot of the machine; empty if that is not known.
    """

    def __init__(self, directory: str, *, flag_file: str, keep_s: float, boot_id: str) -> None:
        self._path = Path(directory, "closed") if directory else None
        self._known, self._keep_s, self._boot_id = flag_file + KNOWN, keep_s, boot_id
        self._noted_at = float("-inf")
        self._may_exist = True

    def counts(self) -> bool:
        """Return whether the VM was closed in an earlier boot, and its agent has not decided."""
        since_boot_s = up_s()
        if self._path is None or since_boot_s > UP_AT_MOST_S:
            return False
        try:
            found = os.stat(self._path)
            age_s = time.time() - found.st_mtime
            of_earlier_boot = stat.S_ISREG(found.st_mode) and since_boot_s < age_s <= self._keep_s
            return of_earlier_boot and not self.agent_knows()
        except (OSError, ValueError):
            return False

    def agent_knows(self) -> bool:
        """Return whether the agent has shown in this boot that it acts on the ledger."""
        try:
            with open(self._known, encoding="ascii", errors="replace") as file:
                boot_id = file.read(MAX_CHARS + 1).strip()
        except (OSError, ValueError):
            return os.path.exists(self._known)
        return not is_other_boot(boot_id, self._boot_id)

    def note(self) -> None:
        """Remember that the VM is closed now."""
        now_s = time.monotonic()
        if self._path is None or now_s - self._noted_at < NOTE_EVERY_S:
            return
        self._noted_at, self._may_exist = now_s, True
        with suppress(OSError, ValueError):
            self._path.touch()

    def forget(self) -> None:
        """The VM is open."""
        if self._path is None or not self._may_exist:
            return
        self._noted_at, self._may_exist = float("-inf"), False
        with suppress(OSError, ValueError):
            self._path.unlink(missing_ok=True)
