"""The part of HTTP/1.1 that the simulated clients and web servers speak, and the stream's lines."""

from dataclasses import dataclass

UPGRADE = b"websocket"
CLOSE_LINE = b"close"
"""Line of a server that asks the client of a stream to end it."""


@dataclass(frozen=True, slots=True)
class Message:
    """One request or answer."""

    first_line: bytes
    headers: dict[bytes, bytes]
    """By name in lower case."""
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether it is the last message on its connection."""
        return self.headers.get(b"connection", b"").lower() == b"close"

    @property
    def upgrades(self) -> bool:
        """Whether the connection carries a stream from here on."""
        return self.headers.get(b"upgrade", b"").lower() == UPGRADE


def split_message(data: bytes) -> tuple[Message, bytes] | None:
    """Return the first message and the data after it; None while it is incomplete."""
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        return None
    first_line, *lines = head.split(b"\r\n")
    pairs = (line.partition(b":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    size = headers.get(b"content-length", b"0")
    length = int(size) if size.isdigit() else 0
    if len(rest) < length:
        return None
    return Message(first_line, headers, rest[:length]), rest[length:]


def request(
    target: str, *, method: str = "GET", connection: str = "keep-alive", length: int = 0
) -> bytes:
    """Return the head of a request; `connection` is `keep-alive`, `close` or `upgrade`."""
    lines = [f"{method} {target} HTTP/1.1", "Host: app", f"Connection: {connection}"]
    if connection == "upgrade":
        lines.append(f"Upgrade: {UPGRADE.decode()}")
    if length:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join((*lines, "", "")).encode()


def answer(status: str, body: str, *, close: bool) -> bytes:
    """Return an answer with its body."""
    fate = "close" if close else "keep-alive"
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: {fate}\r\n\r\n"
    return (head + body).encode()


def switching_protocols() -> bytes:
    """Return the answer that turns a connection into a stream."""
    return (
        "HTTP/1.1 101 Switching Protocols\r\n"
        f"Connection: upgrade\r\nUpgrade: {UPGRADE.decode()}\r\n\r\n"
    ).encode()
