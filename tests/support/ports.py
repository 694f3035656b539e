"""Ports for servers that cannot choose one themselves.

A port that the system chose is free again until the server listens, and by then another test may
have it. So these are outside the range from which the system chooses, and no two processes of a
test run try the same ones.
"""

import os
import socket
from pathlib import Path

SYSTEM_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
FIRST, LAST = 20_000, 32_000
EACH = 500
"""For one worker of pytest-xdist."""

_given: set[int] = set()


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free, and stays so unless another program wants it."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = FIRST + worker * EACH % (LAST - FIRST)
    for port in range(first, first + EACH):
        if port not in _given and not _is_of_the_system(port) and _is_free(port):
            _given.add(port)
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_of_the_system(port: int) -> bool:
    try:
        lowest, highest = map(int, SYSTEM_RANGE.read_text().split())
    except (OSError, ValueError):
        return True
    return lowest <= port <= highest


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
