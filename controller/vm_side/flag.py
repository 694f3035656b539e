"""The flag file: it exists while the VM is closed, with one line of JSON.

Web servers, health pages and the probe responder look at it (`controller.probe.flag_file`).
"""

import contextlib
import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from controller.probe.boot_memory import KNOWN

MAX_BYTES = 4096
MODE = 0o644
"""Every user of the machine may read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """The content of a flag file."""

    since: datetime
    """Since when the VM is closed."""
    event_type: str = ""
    not_before: datetime | None = None
    drain: datetime | None = None
    """`recorded_at` of the entry because of which it closed."""
    boot_id: str = ""
    renewed_at: datetime
    """When the agent that wrote it last had news, by the clock of the machine."""
    age_s: float = field(default=0.0, compare=False)
    """How many seconds before it was read that was. The clock of the machine can be wrong, so its
    instants are not compared with those of a corrected clock."""
    ahead_s: float = field(default=0.0, compare=False)
    """How many seconds after it was read that was: the clock was set back."""


class FlagStore:
    """The flag file at `path`; an empty path is no file. Nothing raises."""

    def __init__(self, path: str) -> None:
        self._path, self._is_known = Path(path) if path else None, False
        self._must_age = False
        """It could not be removed: it is not renewed, so that it stops to count (law S9)."""
        self._last: Flag | None = None
        """What the file has to hold, as it was written or read last."""

    def read(self) -> Flag | None:
        """Return the flag; None without one, or if an operator wrote it."""
        if self._path is None:
            return None
        try:
            with self._path.open("rb") as file:
                document: object = json.loads(file.read(MAX_BYTES))
                renewed_at = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
            values = cast("dict[str, object]", document if isinstance(document, dict) else {})
            age_s = (datetime.now(UTC) - renewed_at).total_seconds()
            found = Flag(
                since=datetime.fromisoformat(str(values["since"])).astimezone(UTC),
                event_type=str(values.get("event_type") or ""),
                not_before=_instant(values.get("not_before")),
                drain=_instant(values.get("drain")),
                boot_id=str(values.get("boot_id") or ""),
                renewed_at=renewed_at,
                age_s=max(0.0, age_s),
                ahead_s=max(0.0, -age_s),
            )
        except (OSError, ValueError, KeyError, OverflowError, RecursionError):
            return None
        self._last = found
        return found

    def write(self, flag: Flag) -> str:
        """Create or replace the file in one step; return what did not work, empty if nothing."""
        if self._path is None:
            return ""
        values = {
            "since": flag.since.isoformat(),
            "event_type": flag.event_type,
            "not_before": flag.not_before.isoformat() if flag.not_before else None,
            "drain": flag.drain.isoformat() if flag.drain else None,
            "boot_id": flag.boot_id,
        }
        try:
            _replace(self._path, json.dumps(values) + "\n")
        except OSError as error:
            return self._problem("cannot be written", error)
        self._must_age, self._last = False, flag
        return ""

    def renew(self) -> str:
        """Set the time of the file to now, or write it again; return what did not work."""
        if self._path is None or self._must_age:
            return ""
        try:
            os.utime(self._path)
        except FileNotFoundError:
            problem = self.write(self._last) if self._last else ""
            return problem or (
                f"the flag file {self._path} was gone and is written again: another program has "
                "removed it, and the application took new work"
            )
        except OSError as error:
            return self._problem("cannot be renewed", error)
        return ""

    def clear(self) -> str:
        """Remove the file; return what did not work."""
        if self._path is None:
            return ""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            self._must_age = True
            return self._problem("cannot be removed", error)
        self._last = None
        return ""

    def note_known(self, boot_id: str) -> None:
        """Show that the flag file is as the ledger asks; before, an earlier boot may count.

        The directory can outlast a reboot, so the file has the id of the boot in it.
        """
        if self._path is not None and not self._is_known:
            with contextlib.suppress(OSError):
                _replace(self._path.with_name(self._path.name + KNOWN), boot_id + "\n")
                self._is_known = True

    def _problem(self, what: str, error: OSError) -> str:
        return (
            f"the flag file {self._path} {what} ({error.strerror}): correct [drain] flag_file "
            "or the permissions of its directory"
        )


def _replace(path: Path, text: str) -> None:
    """Create or replace a file in one step, with its directory. Raises OSError."""
    beside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        beside.write_text(text, encoding="ascii", errors="replace")
        beside.chmod(MODE)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def _instant(value: object) -> datetime | None:
    return datetime.fromisoformat(value).astimezone(UTC) if isinstance(value, str) else None
