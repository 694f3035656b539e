"""HAProxy in TCP mode as the load balancer, with HTTP checks, led through its runtime socket."""

import asyncio
import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import web_servers

CHECK_FROM = "127.0.0.2"
"""Not 127.0.0.1: the responder does not count what the VM asks itself as a probe."""
THRESHOLD = 2
CHECK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Member:
    """Where a VM serves and where it answers probes, on loopback."""

    service_port: int
    probe_port: int


class HaProxy:
    """HAProxy as a load balancer: no retries, and established connections outlive a failed check.

    Args:
        directory: for its configuration, socket and log.
        port: the front end.
        members: by VM.
    """

    def __init__(self, directory: Path, port: int, members: Mapping[str, Member]) -> None:
        self._directory, self.port, self._members = directory, port, members
        self._socket = directory / "admin.sock"

    async def __aenter__(self) -> Self:
        (self._directory / "haproxy.cfg").write_text(self._config())
        command = ["haproxy", "-db", "-f", f"{self._directory}/haproxy.cfg"]
        self._process = web_servers.start(command, self._directory)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(web_servers.end, self._process)

    def _config(self) -> str:
        servers = "\n".join(
            f"    server {vm} 127.0.0.1:{member.service_port} check port {member.probe_port} "
            f"inter {round(CHECK_EVERY_S * 1000)} fall {THRESHOLD} rise 1 source {CHECK_FROM}"
            for vm, member in self._members.items()
        )
        return f"""global
    stats socket {self._socket} mode 666 level admin
defaults
    mode tcp
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    timeout check 5s
    retries 0
listen web
    bind 127.0.0.1:{self.port}
    balance roundrobin
    option httpchk GET /
    http-check expect status 200
{servers}
"""

    async def join(self, vm: str) -> None:
        """Let a VM join; it is down until its first good check."""
        await self._say(f"set server web/{vm} state ready; set server web/{vm} health down")

    async def leave(self, vm: str, *, drop: bool) -> None:
        """Let a VM leave: no new connections, and no established ones if they are dropped."""
        await self._say(f"set server web/{vm} state maint")
        if drop:
            await self._say(f"shutdown sessions server web/{vm}")

    async def up(self) -> set[str]:
        """Return the VMs that get new connections."""
        try:
            table = await self._say("show stat")
        except OSError:
            return set()
        rows = csv.DictReader(table.removeprefix("# ").splitlines())
        return {row["svname"] for row in rows if row["status"].startswith("UP")} & {*self._members}

    async def _say(self, command: str) -> str:
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        try:
            writer.write(f"{command}\n".encode())
            return (await reader.read()).decode()
        finally:
            writer.close()
