"""systemd's journal: its native protocol, and whether stderr leads there.

Described in systemd's "Native Journal Protocol" (systemd.io/JOURNAL_NATIVE_PROTOCOL) and, for
JOURNAL_STREAM, in systemd.exec(5). One datagram is one entry. What does not fit into one could be
passed as a sealed memory file; here it is refused, and the caller has its other way: stderr.

Nothing here waits or raises: a journal that is away, or does not keep up, is answered with False.
"""

import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

SOCKET = Path("/run/systemd/journal/socket")
SEND_BUFFER = 8 * 1024 * 1024
"""Asked for; the kernel gives what net.core.wmem_max allows, some 200 kB: the longest entry."""


def leads_to_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell whether this very stream is the one that systemd connected to the journal.

    The variable is handed down to every child, so it alone proves nothing: stderr may have been
    sent elsewhere since. Device and inode say whether it was.
    """
    try:
        device, inode = map(int, environ.get("JOURNAL_STREAM", "").split(":"))
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # not set, not two numbers, no file
        return False
    return (found.st_dev, found.st_ino) == (device, inode)


def encoded(fields: Mapping[str, str]) -> bytes:
    """Return an entry as the journal takes it; a value of several lines goes with its length."""
    parts: list[bytes] = []
    for name, value in fields.items():
        key, data = name.encode("ascii"), value.encode("utf-8", "backslashreplace")
        if b"\n" in data:
            parts += (key, b"\n", struct.pack("<Q", len(data)), data, b"\n")
        else:
            parts += (key, b"=", data, b"\n")
    return b"".join(parts)


class Journal:
    """A sender of entries. It survives restarts of the journal: each entry is addressed anew."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def send(self, fields: Mapping[str, str]) -> bool:
        """Hand over one entry; False when the journal is away, busy, or does not take so much."""
        try:
            self._socket.sendto(encoded(fields), self._path)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
