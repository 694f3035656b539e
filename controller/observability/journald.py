"""systemd's journal: its native protocol, and whether stderr is connected to it.

Described in systemd's "Native Journal Protocol" (systemd.io/JOURNAL_NATIVE_PROTOCOL) and, for
JOURNAL_STREAM, in systemd.exec(5). One datagram is one entry. An entry that does not fit into a
datagram could be passed as a sealed memory file; here it is refused, and the caller uses stderr.

Nothing here blocks or raises: if the journal is not there or does not keep up, the result is False.
"""

import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from controller.system.unix_sockets import datagram_socket

SOCKET = Path("/run/systemd/journal/socket")
SEND_BUFFER = 8 * 1024 * 1024
"""Requested size. The kernel grants up to net.core.wmem_max, about 200 kB: the longest entry."""


def leads_to_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether this stream is the one that systemd connected to the journal.

    Child processes inherit the variable, and their stderr may be redirected. Therefore device and
    inode are compared.
    """
    try:
        device, inode = map(int, environ.get("JOURNAL_STREAM", "").split(":"))
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # not set, not two numbers, no file
        return False
    return (found.st_dev, found.st_ino) == (device, inode)


def encoded(fields: Mapping[str, str]) -> bytes:
    """Return an entry in the journal's format; a value of several lines is sent with its length."""
    parts: list[bytes] = []
    for name, value in fields.items():
        key, data = name.encode("ascii"), value.encode("utf-8", "backslashreplace")
        if b"\n" in data:
            parts += (key, b"\n", struct.pack("<Q", len(data)), data, b"\n")
        else:
            parts += (key, b"=", data, b"\n")
    return b"".join(parts)


class Journal:
    """Sends entries. Survives restarts of the journal, because every datagram is addressed."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = str(path)
        self._socket = datagram_socket()
        if self._socket is not None:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def send(self, fields: Mapping[str, str]) -> bool:
        """Send one entry; return False if the journal is absent or busy, or the entry too long."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto(encoded(fields), self._path)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
