"""Counts the established TCP connections on local ports, from the kernel's table.

All peers count, loopback included: a reverse proxy on the same VM holds connections for its
clients. Only the load balancer's probe does not, which comes from 168.63.129.16 over IPv4 and from
link-local addresses over IPv6.
"""

import asyncio
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
"""Under the process, because the unit shows it no other part of /proc."""
ESTABLISHED = "01"
MAX_LINES = 1_000_000
AZURE_PROBE = ip_address("168.63.129.16")


@dataclass(frozen=True, slots=True)
class ConnectionCount:
    """How many connections there are."""

    connections: int
    problem: str = ""
    """Why they could not be counted; empty if they were."""

    @property
    def counted(self) -> bool:
        """Whether the number is a count."""
        return not self.problem


async def count_connections(
    ports: Sequence[int], tables: Sequence[Path] = TABLES
) -> ConnectionCount:
    """Count the established connections on these local ports. Never raises."""
    # A table of a busy server has 100,000 lines: the event loop must not wait for it.
    return await asyncio.to_thread(_count, frozenset(ports), tuple(tables))


def _count(ports: frozenset[int], tables: tuple[Path, ...]) -> ConnectionCount:
    found, read = 0, 0
    problem = ""
    for table in tables:
        try:
            with table.open(encoding="ascii", errors="replace") as lines:
                found += sum(1 for _ in established(lines, ports))
            read += 1
        except OSError as error:
            problem = f"{table} cannot be read ({error.strerror})"
    if not read:  # a kernel without IPv6 has one table
        return ConnectionCount(0, f"connections cannot be counted: {problem}")
    return ConnectionCount(found)


def established(lines: Iterable[str], ports: frozenset[int]) -> Iterable[str]:
    """Yield the remote end of every established connection on one of the ports."""
    for number, line in enumerate(lines):
        if number > MAX_LINES:
            return
        fields = line.split(None, 4)
        if len(fields) < 4 or fields[3] != ESTABLISHED:
            continue
        try:
            local_port = int(fields[1].rpartition(":")[2], 16)
            remote = fields[2].rpartition(":")[0]
            if local_port in ports and not _is_probe(remote):
                yield fields[2]
        except ValueError:
            continue


def _is_probe(remote: str) -> bool:
    """Return whether a remote address, as the kernel writes it, is one of Azure's probes."""
    if len(remote) == 8:
        packed = struct.pack("=I", int(remote, 16))
        return socket.inet_ntoa(packed) == str(AZURE_PROBE)
    if len(remote) != 32:
        return False
    words = (int(remote[start : start + 8], 16) for start in range(0, 32, 8))
    return is_probe_address(IPv6Address(b"".join(struct.pack("=I", word) for word in words)))


def is_probe_address(address: IPv4Address | IPv6Address) -> bool:
    """Return whether the load balancer's probe comes from this address."""
    if isinstance(address, IPv4Address):
        return address == AZURE_PROBE
    mapped = address.ipv4_mapped
    return address.is_link_local if mapped is None else mapped == AZURE_PROBE
