"""Where files are by default.

Linux: https://refspecs.linuxfoundation.org/FHS_3.0/fhs-3.0.html. Windows: data of all users, which
outlasts a reboot, is below %ProgramData%.
https://learn.microsoft.com/en-us/windows/win32/shell/knownfolderid
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath

WINDOWS_DATA = "C:\\ProgramData"
"""If the environment does not name the directory."""
POWERSHELL = "C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\powershell.exe"
"""Windows PowerShell 5.1, which is part of every Windows Server."""


@dataclass(frozen=True, slots=True)
class DefaultPaths:
    """The default paths of one operating system."""

    config: PurePath
    """The configuration file."""
    flag_file: PurePath
    """The flag file; its directory belongs to the agent."""
    state_directory: PurePath
    """What outlasts a reboot."""
    shell_words: str
    """The first words of a hook that needs a shell, as items of a TOML list."""

    @property
    def flag_file_toml(self) -> str:
        """The path of the flag file as TOML writes it."""
        return json.dumps(str(self.flag_file))


def linux_paths() -> DefaultPaths:
    """Return the paths on Linux, where /run is empty after a reboot."""
    return DefaultPaths(
        config=Path("/etc/lb-drain/config.toml"),
        flag_file=Path("/run/lb-drain/draining"),
        state_directory=Path("/var/lib/lb-drain"),
        shell_words='"/bin/sh", "-c"',
    )


def windows_paths(environ: Mapping[str, str]) -> DefaultPaths:
    """Return the paths on Windows.

    The flag file outlasts a reboot there. The VM then stays closed until its agent has read the
    ledger, and at most as long as the flag counts.
    """
    data = PureWindowsPath(environ.get("ProgramData") or WINDOWS_DATA) / "lb-drain"
    return DefaultPaths(
        config=data / "config.toml",
        flag_file=data / "run" / "draining",
        state_directory=data / "state",
        shell_words=f'{json.dumps(POWERSHELL)}, "-Command"',
    )


def default_paths(platform: str, environ: Mapping[str, str]) -> DefaultPaths:
    """Return the default paths of a platform, as `sys.platform` names it."""
    return windows_paths(environ) if platform == "win32" else linux_paths()


DEFAULTS = default_paths(sys.platform, os.environ)
"""The paths of the system on which this program runs."""
