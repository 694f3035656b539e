"""A journal for tests: a real socket, and the stream that systemd would have connected to it."""

import os
import re
import socket
import struct
from pathlib import Path


def decoded(datagram: bytes) -> dict[str, str]:
    """Take an entry apart, and refuse what the journal would drop."""
    fields: dict[str, str] = {}
    while datagram:
        line, datagram = datagram.split(b"\n", 1)
        name, assigned, value = line.partition(b"=")
        if not assigned:
            (length,) = struct.unpack_from("<Q", datagram)
            value, end = datagram[8 : 8 + length], datagram[8 + length : 9 + length]
            datagram = datagram[9 + length :]
            assert (len(value), end) == (length, b"\n")
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", name)
        assert name.decode() not in fields
        fields[name.decode()] = value.decode()
    return fields


class Receiver:
    """A journal: its socket, and the stream that systemd would have connected to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read, self._write = os.pipe()
        self.stream = os.fdopen(self._write, "w")
        found = os.fstat(self._write)
        self.name = f"{found.st_dev}:{found.st_ino}"
        self._socket: socket.socket | None = None
        self.raw = b""

    def open(self) -> None:
        """Begin to listen."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(self.path))

    def close(self) -> None:
        """Go away, as a journal that is stopped."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self.path.unlink()

    def entries(self) -> list[dict[str, str]]:
        """Return what has come since the last time."""
        found: list[dict[str, str]] = []
        assert self._socket is not None
        while True:
            try:
                datagram = self._socket.recv(1 << 20)
            except BlockingIOError:
                return found
            self.raw += datagram
            found.append(decoded(datagram))

    def lines(self) -> str:
        """Return what has come by the stream."""
        os.set_blocking(self._read, False)
        try:
            return os.read(self._read, 1 << 20).decode()
        except BlockingIOError:
            return ""

    def fill(self) -> None:
        """Fill the stream, so that the next write would have to wait."""
        os.set_blocking(self._write, False)
        try:
            while True:
                os.write(self._write, b"." * 4096)
        except BlockingIOError:
            os.set_blocking(self._write, True)
