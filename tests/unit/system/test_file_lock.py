"""A lock on a file: one holder at a time, by the call that the system has."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from controller.system.file_lock import lock


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a file as a process of its own would."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class Msvcrt(ModuleType):
    """The `msvcrt` of Windows: `locking` raises PermissionError if the bytes are locked."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        super().__init__("msvcrt")
        self.held: set[tuple[int, int]] = set()

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        found = os.fstat(descriptor)
        if (mode, count) != (2, 1) or (found.st_dev, found.st_ino) in self.held:
            raise PermissionError(errno.EACCES, "Permission denied")
        self.held.add((found.st_dev, found.st_ino))


@pytest.fixture(params=["fcntl", "msvcrt"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the system have one of the calls."""
    if request.param == "msvcrt":
        monkeypatch.setitem(sys.modules, "fcntl", None)
        monkeypatch.setitem(sys.modules, "msvcrt", Msvcrt())
    return str(request.param)


@pytest.mark.usefixtures("system")
def test_one_holder_at_a_time(tmp_path: Path) -> None:
    """A second one is refused at once; another file is another lock."""
    with opened(tmp_path / "a") as first, opened(tmp_path / "a") as second:
        lock(first)
        with pytest.raises(BlockingIOError):
            lock(second)
        with opened(tmp_path / "b") as other:
            lock(other)


def test_a_closed_file_is_free(tmp_path: Path) -> None:
    """The lock ends with the file, and so with the process."""
    with opened(tmp_path / "a") as first:
        lock(first)
    with opened(tmp_path / "a") as second:
        lock(second)


def test_without_either_call_nothing_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command goes on: two timers at once are rare, and report twice at worst."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", None)
    with opened(tmp_path / "a") as first, opened(tmp_path / "a") as second:
        lock(first)
        lock(second)
