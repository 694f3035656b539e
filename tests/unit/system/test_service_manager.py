"""The commands that messages name: those of systemd, and those of Windows."""

from dataclasses import fields

import pytest

from controller.system.service_manager import MANAGER, SYSTEMD, WINDOWS

LINUX_WORDS = ("systemctl", "journalctl", "chmod", "ReadWritePaths", "root", "unit")


def test_linux_uses_systemd() -> None:
    """The choice on this system."""
    assert MANAGER is SYSTEMD
    assert MANAGER.enable == "systemctl enable --now lb-drain"
    assert "ReadWritePaths=/srv/flags" in MANAGER.allow_writing("/srv/flags")
    assert MANAGER.allow_running("/opt/a b").startswith("chmod a+rx '/opt/a b'")


@pytest.mark.parametrize("name", [each.name for each in fields(WINDOWS)])
def test_no_command_of_windows_needs_linux(name: str) -> None:
    """Each is there, and none is a command of Linux."""
    text = str(getattr(WINDOWS, name))
    assert text
    assert not [word for word in LINUX_WORDS if word in text]


def test_advice_of_windows_names_the_account() -> None:
    """By its identifier, which is the same in every language."""
    for text in (WINDOWS.allow_writing("C:\\flags"), WINDOWS.allow_running("C:\\a b\\c.exe")):
        assert "icacls 'C:\\" in text
        assert "*S-1-5-19:" in text
        assert not [word for word in LINUX_WORDS if word in text]
