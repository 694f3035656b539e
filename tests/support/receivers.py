"""Receivers of notifications on this host: an HTTP server, and a mail server of a few verbs."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.support.patience import wait_for

if TYPE_CHECKING:
    from email.message import EmailMessage
    from ssl import SSLContext


CANARY = "C4NARY"
"""A secret that must not show up anywhere."""


class Hook:
    """An HTTP receiver; answers with the statuses in `script`, then 200."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        """What was taken, that is, answered with success."""
        self.requests = 0
        self.queries: list[str] = []
        """The query of each request."""
        self.script: list[int] = []
        self.headers: dict[str, str] = {}
        self.hanging = asyncio.Event()
        self.hanging.set()
        """Cleared, every request hangs."""
        self.changed = asyncio.Condition()
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.requests += 1
        self.queries.append(request.query_string)
        body = await request.json()
        await self.note()
        await self.hanging.wait()
        status = self.script.pop(0) if self.script else 200
        if status < 300:
            self.bodies.append(body)
            await self.note()
        return web.Response(status=status, headers=self.headers)

    async def note(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until something holds that requests can change."""
        await wait_for(
            self.changed, "the request", holds, seen=lambda: (self.requests, self.bodies)
        )

    def kinds(self) -> list[str]:
        """Return the happenings that were taken, in order."""
        return [body["happening"] for body in self.bodies]


@asynccontextmanager
async def open_hook(path: str = "/hook") -> AsyncIterator[Hook]:
    """Serve a receiver on a free port."""
    hook = Hook()
    app = web.Application()
    app.router.add_post(path, hook.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
    try:
        yield hook
    finally:
        hook.hanging.set()
        await runner.cleanup()


class Mailbox:
    """An SMTP server (RFC 5321) that takes every mail, or answers DATA as `script` says.

    With `tls` it offers STARTTLS, and a login after that.
    """

    def __init__(self, tls: "SSLContext | None" = None) -> None:
        self.tls = tls
        self.logins: list[str] = []
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.script: list[str] = []
        self.refused: dict[str, str] = {}
        """The answers about recipients that are refused."""
        self.farewell = "221 bye"
        self.greets = asyncio.Event()
        self.greets.set()
        """Cleared, nobody is greeted."""
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1

        async def say(*lines: str) -> None:
            writer.write("".join(f"{line}\r\n" for line in lines).encode())
            await writer.drain()

        secured = False
        try:
            await self.greets.wait()
            await say("220 here")
            while line := (await reader.readline()).decode().strip():
                verb = line.split(" ")[0].upper()
                recipient = line.partition("<")[2].rstrip(">") if verb == "RCPT" else ""
                if recipient:
                    self.recipients.append(recipient)
                    await say(self.refused.get(recipient, "250 ok"))
                elif verb == "DATA":
                    await say("354 go on")
                    body = await reader.readuntil(b"\r\n.\r\n")
                    answer = self.script.pop(0) if self.script else "250 taken"
                    if answer.startswith("2"):
                        parsed = message_from_bytes(body[:-3], policy=policy.default)
                        self.mails.append(parsed)
                    await say(answer)
                elif verb == "EHLO" and self.tls is not None:
                    await say("250-here", "250 AUTH PLAIN" if secured else "250 STARTTLS")
                elif verb == "STARTTLS" and self.tls is not None:
                    await say("220 go on")
                    await writer.start_tls(self.tls)
                    secured = True
                elif verb == "AUTH":
                    self.logins.append(b64decode(line.split(" ")[2]).decode())
                    await say("235 welcome")
                elif verb == "QUIT":
                    await say(self.farewell)
                    break
                else:
                    await say("250 ok")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def open_mailbox(tls: "SSLContext | None" = None) -> AsyncIterator[Mailbox]:
    """Serve a mailbox on a free port."""
    box = Mailbox(tls)
    server = await asyncio.start_server(box.serve, "127.0.0.1", 0)
    box.port = server.sockets[0].getsockname()[1]
    async with server:
        try:
            yield box
        finally:
            box.greets.set()
            server.close()
