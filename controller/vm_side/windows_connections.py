"""Counts the established TCP connections on local ports on Windows, by psutil.

`netstat` would need no library, but it translates the state of a connection into the language of
the system, lists connections that are long closed, and is a process for every count. psutil
asks the kernel (GetExtendedTcpTable), which numbers the states.
https://learn.microsoft.com/en-us/windows/win32/api/iphlpapi/nf-iphlpapi-getextendedtcptable

What counts is what counts on Linux (`controller.vm_side.connections`).
"""

import asyncio
import importlib
from collections.abc import Iterable, Sequence
from typing import Protocol, cast

from controller.probe.settings import plain_address
from controller.vm_side.connections import MAX_LINES, ConnectionCount, is_probe_address

ESTABLISHED = "ESTABLISHED"
"""`psutil.CONN_ESTABLISHED`, in every language."""

COUNT_WITHIN_S = 5.0


class Psutil(Protocol):
    """What is used of psutil."""

    def net_connections(self, kind: str) -> Sequence[object]:
        """Return the connections; each has `laddr` and `raddr`, (address, port), and `status`."""
        ...


class PsutilCounter:
    """Counts in a thread: a busy server has 100,000 connections. One count runs at a time."""

    def __init__(self) -> None:
        self._counting: asyncio.Future[ConnectionCount] | None = None

    async def __call__(self, ports: Sequence[int]) -> ConnectionCount:
        """Count the established connections on these local ports. Never raises."""
        if self._counting is not None and not self._counting.done():
            return _uncounted("the count before this one has not ended")
        work = asyncio.to_thread(_count, frozenset(ports))
        self._counting = asyncio.ensure_future(work)
        try:
            ended, _ = await asyncio.wait({self._counting}, timeout=COUNT_WITHIN_S)
        except asyncio.CancelledError:
            self._counting.cancel()
            raise
        if not ended:
            return _uncounted(f"Windows does not list them within {COUNT_WITHIN_S:g} s")
        return self._counting.result()


count_by_psutil = PsutilCounter()


def _count(ports: frozenset[int]) -> ConnectionCount:
    try:
        psutil = cast("Psutil", importlib.import_module("psutil"))
    except (ImportError, OSError) as error:  # not installed; a DLL is missing
        return _uncounted(f"psutil does not load ({error}); install it in the environment")
    try:
        rows = psutil.net_connections(kind="tcp")
        return ConnectionCount(sum(1 for row in rows[:MAX_LINES] if _counts(row, ports)))
    except Exception as error:  # psutil.Error is no OSError
        return _uncounted(f"Windows does not list them ({error})")


def _uncounted(why: str) -> ConnectionCount:
    return ConnectionCount(0, f"connections cannot be counted: {why}")


def _counts(row: object, ports: Iterable[int]) -> bool:
    """Return whether a connection is established, on one of the ports, and no probe."""
    local, remote = getattr(row, "laddr", None), getattr(row, "raddr", None)
    if getattr(row, "status", "") != ESTABLISHED or not local or not remote:
        return False
    try:
        address = plain_address(str(remote[0])) if local[1] in ports else None
    except (IndexError, TypeError, KeyError):
        return False
    return address is not None and not is_probe_address(address)
