"""sd_notify: what arrives on a real socket."""

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.observability.systemd_notify import SystemdNotifier


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        yield sock


def test_messages_arrive_on_a_path(receiver: socket.socket, tmp_path: Path) -> None:
    """Each call sends its message as one datagram to the socket's path."""
    address = str(tmp_path / "notify")
    receiver.bind(address)
    notifier = SystemdNotifier({"NOTIFY_SOCKET": address})
    assert notifier.ready()
    assert notifier.status("leading,\n2 VMs  out ü")
    assert notifier.watchdog()
    assert notifier.stopping()
    assert [receiver.recv(1000).decode() for _ in range(4)] == [
        "READY=1",
        "STATUS=leading, 2 VMs out ü",
        "WATCHDOG=1",
        "STOPPING=1",
    ]


def test_messages_arrive_on_an_abstract_socket(receiver: socket.socket) -> None:
    """An address that begins with @ is in the abstract namespace."""
    name = f"lb-drain-test-{uuid.uuid4()}"
    receiver.bind("\0" + name)
    assert SystemdNotifier({"NOTIFY_SOCKET": "@" + name}).ready()
    assert receiver.recv(1000) == b"READY=1"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "/nonexistent/notify"},
        {"NOTIFY_SOCKET": "/" + "x" * 500},
    ],
)
def test_nobody_to_tell(environ: dict[str, str]) -> None:
    """Without a usable socket nothing is sent and nothing fails."""
    notifier = SystemdNotifier(environ)
    assert not notifier.ready()
    assert not notifier.status("x")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_watchdog_period(environ: dict[str, str], expected: float | None) -> None:
    """The watchdog period is read in seconds, and only when it is meant for this process."""
    assert SystemdNotifier(environ).watchdog_s == expected
