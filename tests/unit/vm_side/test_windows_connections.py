"""Counting connections on Windows: the rows of psutil, the probe left out, and bad rows."""

import sys
import threading
from collections import namedtuple
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest

from controller.vm_side import windows_connections
from controller.vm_side.connections import ConnectionCount, count_connections
from controller.vm_side.machine import COUNT, counting
from controller.vm_side.windows_connections import PsutilCounter, count_by_psutil

Row = namedtuple("Row", "fd family type laddr raddr status pid")
Address = namedtuple("Address", "ip port")


def row(local: tuple[str, int], remote: tuple[str, int] | None, status: str = "ESTABLISHED") -> Row:
    """Return a row as psutil has it; the remote end of a listening socket is an empty tuple."""
    return Row(-1, 2, 1, Address(*local), Address(*remote) if remote else (), status, 4)


class Psutil(ModuleType):
    """A psutil with these rows, or with an error."""

    def __init__(self, rows: Sequence[object] = (), error: Exception | None = None) -> None:
        super().__init__("psutil")
        self._rows, self._error = list(rows), error

    def net_connections(self, kind: str) -> list[object]:
        assert kind == "tcp"
        if self._error is not None:
            raise self._error
        return self._rows


class NoList(ModuleType):
    """A psutil that returns no list."""

    def net_connections(self, kind: str) -> None:
        assert kind == "tcp"


async def count(
    monkeypatch: pytest.MonkeyPatch, psutil: object, ports: tuple[int, ...] = (80,)
) -> ConnectionCount:
    """Count with this psutil."""
    monkeypatch.setitem(sys.modules, "psutil", psutil)
    return await count_by_psutil(ports)


def test_the_system_decides_how_to_count() -> None:
    """Linux reads the table of the kernel, and neither needs nor installs psutil."""
    assert COUNT is counting("linux") is count_connections
    assert counting("win32") is count_by_psutil


async def test_established_connections_on_service_ports_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Clients count, and so does a proxy on loopback; listening and closing sockets do not."""
    here = ("10.0.0.4", 80)
    rows = [
        row(here, ("203.0.113.9", 50000)),
        row(("127.0.0.1", 80), ("127.0.0.1", 50001)),
        row(("::ffff:10.0.0.4", 80), ("::ffff:203.0.113.9", 50002)),
        row(("2001:db8::4", 80), ("2001:db8::9", 50003)),
        row(("0.0.0.0", 80), None, "LISTEN"),
        row(here, ("203.0.113.9", 50004), "TIME_WAIT"),
        row(here, ("203.0.113.9", 50005), "CLOSE_WAIT"),
        row(("10.0.0.4", 3389), ("203.0.113.9", 50006)),
    ]
    assert (await count(monkeypatch, Psutil(rows))).connections == 4
    assert (await count(monkeypatch, Psutil(rows), (80, 3389))).connections == 5
    assert (await count(monkeypatch, Psutil(rows), ())).connections == 0
    assert (await count(monkeypatch, Psutil([]))) == ConnectionCount(0)


async def test_probes_of_the_load_balancer_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """168.63.129.16 and link-local addresses, with the zone that Windows adds."""
    rows = [
        row(("10.0.0.4", 80), ("168.63.129.16", 50000)),
        row(("::ffff:10.0.0.4", 80), ("::ffff:168.63.129.16", 50001)),
        row(("fe80::4", 80), ("fe80::1234:5678:9abc%12", 50002)),
    ]
    assert await count(monkeypatch, Psutil(rows)) == ConnectionCount(0)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        object(),
        row(("10.0.0.4", 80), ("", 1)),
        row(("10.0.0.4", 80), ("no address", 1)),
        Row(-1, 2, 1, Address("10.0.0.4", 80), ("203.0.113.9",), "HERGESTELLT", 4),
        Row(-1, 2, 1, ("10.0.0.4",), Address("203.0.113.9", 1), "ESTABLISHED", 4),
        Row(-1, 2, 1, 80, Address("203.0.113.9", 1), "ESTABLISHED", 4),
        Row(-1, 2, 1, {}, {}, "ESTABLISHED", 4),
        Row(-1, 2, 1, {"a": 1}, {"a": 1}, "ESTABLISHED", 4),
        Row(-1, 2, 1, ("10.0.0.4", []), Address("203.0.113.9", 1), "ESTABLISHED", 4),
    ],
)
async def test_rows_that_make_no_sense_are_left_out(
    monkeypatch: pytest.MonkeyPatch, bad: object
) -> None:
    """The others are counted."""
    good = row(("10.0.0.4", 80), ("203.0.113.9", 50000))
    found = await count(monkeypatch, Psutil([bad, good, bad]))
    assert found == ConnectionCount(1)


async def test_100_000_connections_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Busy servers have them."""
    rows = [row(("10.0.0.4", 80), ("203.0.113.9", 50000))] * 100_000
    assert (await count(monkeypatch, Psutil(rows))).connections == 100_000


async def test_a_list_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The VM's own side goes on, no second thread is started, and a later count counts again."""
    answers, asked = threading.Event(), list[str]()

    class Hanging(ModuleType):
        def net_connections(self, kind: str) -> list[object]:
            asked.append(kind)
            answers.wait(60)
            return [row(("10.0.0.4", 80), ("203.0.113.9", 50000))]

    monkeypatch.setitem(sys.modules, "psutil", Hanging("psutil"))
    monkeypatch.setattr(windows_connections, "COUNT_WITHIN_S", 0.05)
    counter = PsutilCounter()
    first, second = await counter((80,)), await counter((80,))
    assert not first.counted
    assert "within 0.05 s" in first.problem
    assert not second.counted
    assert "has not ended" in second.problem
    assert asked == ["tcp"]
    answers.set()
    monkeypatch.setattr(windows_connections, "COUNT_WITHIN_S", 60.0)
    assert counter._counting is not None
    await counter._counting
    assert await counter((80,)) == ConnectionCount(1)


@pytest.mark.parametrize("kind", ["not installed", "no function", "no list", "denied", "kernel"])
async def test_without_a_list_nothing_is_counted(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The result states that it is no count: a VM of which nothing is known is never quiet."""

    class AccessDenied(Exception):
        """psutil.AccessDenied is no OSError."""

    psutil: Any = {
        "not installed": None,
        "no function": ModuleType("psutil"),
        "no list": NoList("psutil"),
        "denied": Psutil(error=AccessDenied("access denied")),
        "kernel": Psutil(error=OSError(1450, "insufficient system resources")),
    }[kind]
    found = await count(monkeypatch, psutil)
    assert not found.counted
    assert found.connections == 0
    assert found.problem.startswith("connections cannot be counted: ")
