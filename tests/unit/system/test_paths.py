"""Default paths: one set for each operating system."""

import tomllib
from pathlib import PurePosixPath, PureWindowsPath

import pytest

from controller.config.loader import DEFAULT_CONFIG
from controller.config.vm_side import Drain
from controller.system.paths import default_paths, windows_paths


def test_linux() -> None:
    """The paths that unit, packages and runbook use."""
    found = default_paths("linux", {"ProgramData": "D:\\Data"})
    assert found.config == PurePosixPath("/etc/lb-drain/config.toml") == DEFAULT_CONFIG
    assert found.flag_file == PurePosixPath("/run/lb-drain/draining")
    assert found.state_directory == PurePosixPath("/var/lib/lb-drain")
    assert found.flag_file_toml == '"/run/lb-drain/draining"'


def test_the_settings_use_them() -> None:
    """The default of `[drain] flag_file` is the path of this system."""
    assert Drain().flag_file == "/run/lb-drain/draining"


@pytest.mark.parametrize(
    ("environ", "data"),
    [({"ProgramData": "D:\\Data"}, "D:\\Data"), ({"ProgramData": ""}, "C:\\ProgramData"),
     ({}, "C:\\ProgramData")],
)  # fmt: skip
def test_windows(environ: dict[str, str], data: str) -> None:
    """Everything is below %ProgramData%, which outlasts a reboot."""
    found = default_paths("win32", environ)
    assert found.config == PureWindowsPath(data, "lb-drain", "config.toml")
    assert found.flag_file == PureWindowsPath(data, "lb-drain", "run", "draining")
    assert found.state_directory == PureWindowsPath(data, "lb-drain", "state")
    assert found.config.is_absolute()


def test_a_path_of_windows_is_valid_toml() -> None:
    """A backslash begins an escape in a TOML text; advice that is copied must parse."""
    found = windows_paths({})
    values = tomllib.loads(f'flag = {found.flag_file_toml}\nhook = [{found.shell_words}, "exit 0"]')
    assert values["flag"] == "C:\\ProgramData\\lb-drain\\run\\draining"
    assert values["hook"][0].endswith("\\powershell.exe")
