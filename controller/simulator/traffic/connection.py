"""A client's connection: requests and answers one at a time, or a stream."""

import asyncio
from contextlib import suppress
from typing import cast

from controller.simulator.traffic.messages import CLOSE_LINE, request, split_message

UPLOAD_PARTS = 10
UPLOAD_PART = b"x" * 512


class Connection(asyncio.Protocol):
    """A client's side of one connection.

    A request on a connection that the other side ended without a word raises ConnectionError or
    EOFError, also if the end came before the request: a client that does not check is the worst
    case. `asked_to_close` is that word.
    """

    def __init__(self, registry: set["Connection"], gives_up_at: float) -> None:
        """`registry` holds the connection while it is open; `gives_up_at` is a loop time."""
        self._registry = registry
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._waiter: asyncio.Future[str | None] | None = None
        self._ended: Exception = EOFError()
        self._streams = False
        self._in_use = False
        self.gives_up_at = gives_up_at
        self.endpoint: tuple[str, int] = ("", 0)
        self.connected_at = 0.0
        """Epoch seconds; set by the client."""
        self.backend: str | None = None
        self.asked_to_close = False
        """Whether the server asked for no further request here."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._registry.add(self)
        self.endpoint = transport.get_extra_info("sockname")[:2]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._streams:
            self._read_lines()
        else:
            self._read_answer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._registry.discard(self)
        self._ended = EOFError() if exc is None else ConnectionResetError()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self._ended)

    async def get(self, target: str, *, last: bool) -> str | None:
        """Send a request; return the body of a good answer, None for any other answer."""
        waiter = self._send(request(target, connection="close" if last else "keep-alive"))
        return await waiter

    async def upload(self, for_s: float) -> str | None:
        """Send a request whose body takes this long; return as `get` does."""
        length = UPLOAD_PARTS * len(UPLOAD_PART)
        waiter = self._send(request("/", method="POST", connection="close", length=length))
        for _ in range(UPLOAD_PARTS):
            # An answer before the end of the body is an answer: the rest is not sent.
            done, _ = await asyncio.wait({waiter}, timeout=for_s / UPLOAD_PARTS)
            if done:
                break
            self._write(UPLOAD_PART)
        return await waiter

    async def message(self) -> str | None:
        """Send a message on the stream, which the first message opens; return its answer."""
        self._in_use = True
        try:
            if not self._streams:
                await self._send(request("/stream", connection="upgrade"))
            return await self._send(b"message\n") if self._streams else None
        finally:
            self._in_use = False

    def take(self) -> bool:
        """Claim a held connection for the next request; return whether that may be sent.

        From here on the server's word to end a stream comes after the request.
        """
        self._in_use = not self.asked_to_close
        return self._in_use

    def hang_up(self) -> None:
        """Close in good order."""
        if self._waiter is not None:
            self._waiter.cancel()
        if self._transport is not None:
            self._transport.close()

    def _send(self, data: bytes) -> asyncio.Future[str | None]:
        """Send, and return what the answer arrives in. Raises what ended the connection."""
        if self._transport is None:
            raise self._ended
        self._waiter = asyncio.get_running_loop().create_future()
        self._write(data)
        return self._waiter

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _read_answer(self) -> None:
        found = split_message(self._buffer)
        if found is None or self._waiter is None or self._waiter.done():
            return
        answer, self._buffer = found
        self.asked_to_close = answer.closes
        if answer.first_line.startswith(b"HTTP/1.1 101 ") and answer.upgrades:
            self._streams = True
            self._waiter.set_result("")
            self._read_lines()
        elif answer.first_line.startswith(b"HTTP/1.1 200 "):
            self._waiter.set_result(answer.body.decode("utf-8", "replace"))
        else:
            self._waiter.set_result(None)

    def _read_lines(self) -> None:
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            if line == CLOSE_LINE:
                self.asked_to_close = True
                continue
            with suppress(asyncio.InvalidStateError):
                if self._waiter is not None:
                    self._waiter.set_result(line.decode("utf-8", "replace"))
        if self.asked_to_close and not self._in_use:
            self.hang_up()
