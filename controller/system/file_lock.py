"""A lock on an open file, which ends with the process: `flock`, or `locking` on Windows.

https://docs.python.org/3/library/msvcrt.html#msvcrt.locking
"""

import importlib
from types import ModuleType


def lock(descriptor: int) -> None:
    """Lock a file that is open for writing; a system that has neither call locks nothing.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the file system has no locks.
    """
    if unix := _module("fcntl"):
        unix.flock(descriptor, unix.LOCK_EX | unix.LOCK_NB)
    elif windows := _module("msvcrt"):
        try:
            windows.locking(descriptor, windows.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(error.errno, error.strerror) from None


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
