"""Counting connections: the kernel's table, the probe left out, and every kind of bad line."""

import asyncio
import socket
from pathlib import Path

from controller.vm_side.connections import count_connections

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"


def v4(address: str, port: int) -> str:
    """Return an address as the kernel writes it on a little-endian machine."""
    return f"{int.from_bytes(socket.inet_aton(address), 'little'):08X}:{port:04X}"


def v6(address: str, port: int) -> str:
    """Return an IPv6 address as the kernel writes it."""
    packed = socket.inet_pton(socket.AF_INET6, address)
    words = [int.from_bytes(packed[at : at + 4], "little") for at in range(0, 16, 4)]
    return f"{''.join(f'{word:08X}' for word in words)}:{port:04X}"


def line(local: str, remote: str, state: str = "01") -> str:
    """Return one line of the table."""
    return f"   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000  0\n"


def count(tmp_path: Path, *lines: str, ports: tuple[int, ...] = (80,)) -> int:
    """Count the connections in a table of these lines."""
    table = tmp_path / "tcp"
    table.write_text(HEAD + "".join(lines))
    found = asyncio.run(count_connections(ports, (table, tmp_path / "missing")))
    assert found.counted
    return found.connections


def test_established_connections_on_service_ports_count(tmp_path: Path) -> None:
    """Clients count, and so does a proxy on loopback; listening and closing sockets do not."""
    here = v4("10.0.0.4", 80)
    lines = (
        line(here, v4("203.0.113.9", 50000)),
        line(v4("127.0.0.1", 80), v4("127.0.0.1", 50001)),
        line(v6("::ffff:10.0.0.4", 80), v6("::ffff:203.0.113.9", 50002)),
        line(v6("2001:db8::4", 80), v6("2001:db8::9", 50003)),
        line(here, v4("0.0.0.0", 0), state="0A"),
        line(here, v4("203.0.113.9", 50004), state="06"),
        line(v4("10.0.0.4", 22), v4("203.0.113.9", 50005)),
    )
    assert count(tmp_path, *lines) == 4
    assert count(tmp_path, *lines, ports=(22, 80)) == 5
    assert count(tmp_path, *lines, ports=()) == 0


def test_probes_of_the_load_balancer_do_not_count(tmp_path: Path) -> None:
    """168.63.129.16 and link-local addresses probe; a VM that is probed can be quiet."""
    assert (
        count(
            tmp_path,
            line(v4("10.0.0.4", 80), v4("168.63.129.16", 50000)),
            line(v6("::ffff:10.0.0.4", 80), v6("::ffff:168.63.129.16", 50001)),
            line(v6("fe80::4", 80), v6("fe80::1234:5678:9abc", 50002)),
        )
        == 0
    )


def test_lines_that_make_no_sense_are_left_out(tmp_path: Path) -> None:
    """A table that is cut or garbled is counted as far as it can be read."""
    good = line(v4("10.0.0.4", 80), v4("203.0.113.9", 50000))
    assert count(tmp_path, "\n", "x y\n", "0: zz:zz zz:zz 01\n", "0: 1 2 01 x\n", good) == 1


def test_a_table_of_100_000_lines_is_counted(tmp_path: Path) -> None:
    """Busy servers have such tables."""
    many = line(v4("10.0.0.4", 80), v4("203.0.113.9", 50000)) * 100_000
    assert count(tmp_path, many) == 100_000


def test_without_a_table_nothing_is_counted(tmp_path: Path) -> None:
    """The result states that it is no count: a VM of which nothing is known is never quiet."""
    found = asyncio.run(count_connections((80,), (tmp_path / "tcp", tmp_path / "tcp6")))
    assert not found.counted
    assert "cannot be counted" in found.problem
    assert found.connections == 0


async def test_a_real_connection_is_counted() -> None:
    """The kernel's own table, with a connection of this process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        before = (await count_connections((port,))).connections
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = server.accept()
            with accepted:
                assert (await count_connections((port,))).connections == before + 1
