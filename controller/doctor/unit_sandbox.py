"""What the unit of the agent forbids and sets: a person who runs the doctor as root may do more.

The unit runs the agent and its hooks as a user of their own who owns no file, hides directories,
and leaves few writable. `systemctl show` has the values in force, drop-ins included.
"""

import asyncio
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from controller.doctor.unit_environment import parse_environment

UNIT = "lb-drain"
BOOTED = Path("/run/systemd/system")
WITHIN_S = 5.0
YES = ("yes", "tmpfs")
PROPERTIES = (
    "LoadState",
    "DynamicUser",
    "User",
    "Group",
    "SupplementaryGroups",
    "ProtectSystem",
    "ProtectHome",
    "PrivateTmp",
    "ReadWritePaths",
    "RuntimeDirectory",
    "StateDirectory",
    "Environment",
)
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
PRIVATE = (Path("/", "tmp"), Path("/var", "tmp"))


@dataclass(frozen=True, slots=True)
class UnitSandbox:
    """The properties of the unit, by name."""

    properties: Mapping[str, str]

    def why_not_run(self, program: Path) -> str:
        """Return why the unit cannot run a program that exists; empty if it can."""
        if folder := self._hidden(program):
            return f"is in {folder}, which the unit of the agent does not see"
        mode = program.stat().st_mode
        if self._is_dynamic and not mode & stat.S_IXOTH:
            return "can be executed only by its owner or group, and the agent is another user"
        return ""

    def why_not_write(self, folder: Path) -> str:
        """Return why the unit cannot create a file that others see in a directory."""
        if hidden := self._hidden(folder):
            return f"the unit of the agent has another {hidden} than other programs"
        if folder in self._own:
            return ""
        writable = {Path(each.lstrip("-+")) for each in self._words("ReadWritePaths")}
        inside = any(folder.is_relative_to(each) for each in (*self._own, *writable))
        if self.properties.get("ProtectSystem") == "strict" and not inside:
            return f"the unit of the agent cannot write to {folder}"
        mode = folder.stat().st_mode
        if self._is_dynamic and not mode & stat.S_IWOTH:
            return f"only owner and group can write to {folder}, and the agent is another user"
        return ""

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that the unit sets, those of drop-ins included."""
        return parse_environment(self.properties.get("Environment", ""))

    @property
    def _is_dynamic(self) -> bool:
        """Whether it is a user who owns nothing and is in no group that an operator chose."""
        one = self.properties.get
        return one("DynamicUser") == "yes" and not (one("Group") or one("SupplementaryGroups"))

    @property
    def _own(self) -> tuple[Path, ...]:
        """The directories that systemd creates for the unit."""
        kinds = (("RuntimeDirectory", "/run"), ("StateDirectory", "/var/lib"))
        return tuple(Path(base, each) for kind, base in kinds for each in self._words(kind))

    def _hidden(self, path: Path) -> str:
        """Return the directory above a path that the unit does not share with other programs."""
        hidden: tuple[Path, ...] = HOMES if self.properties.get("ProtectHome") in YES else ()
        hidden += PRIVATE if self.properties.get("PrivateTmp") in YES else ()
        return next((str(each) for each in hidden if path.is_relative_to(each)), "")

    def _words(self, name: str) -> list[str]:
        return self.properties.get(name, "").split()


def parse_properties(text: str) -> UnitSandbox | None:
    """Return what `systemctl show` prints; None if there is no such unit."""
    pairs = (line.partition("=") for line in text.splitlines())
    properties = {name: value for name, _, value in pairs}
    return UnitSandbox(properties) if properties.get("LoadState") == "loaded" else None


async def read_unit_sandbox(*, within_s: float = WITHIN_S) -> UnitSandbox | None:
    """Return what the unit forbids and sets; None without systemd, or without the unit."""
    program = _systemctl()
    if program is None:
        return None
    try:
        process = await asyncio.create_subprocess_exec(
            *(program, "show", UNIT, f"--property={','.join(PROPERTIES)}"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(within_s):
            out, _ = await process.communicate()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return None
    return parse_properties(out.decode(errors="replace"))


def _systemctl() -> str | None:
    return shutil.which("systemctl") if BOOTED.is_dir() else None
