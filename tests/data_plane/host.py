"""What runs on one VM beside the agent: web server with recipe, application, responder."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from controller.simulator.traffic.backends import Backend, VmHealth
from controller.simulator.traffic.sockets import free_port as port_of_system
from tests.data_plane.balancer import Member
from tests.support import web_servers
from tests.support.patience import PATIENCE_S
from tests.support.ports import free_port

SERVICE_TIME_S = 0.02


class Host:
    """The processes of one VM; they stop, freeze and start with it.

    Args:
        vm: its name.
        server: the web server, `nginx` or `apache2`.
        directory: of the web server.
        flag_file: the one that the agent writes.
        config: the configuration of the agent, which the responder reads too.
    """

    def __init__(
        self, vm: str, server: str, directory: Path, flag_file: Path, config: Path
    ) -> None:
        self.vm, self._server, self._directory = vm, server, directory
        self._flag_file, self._config = flag_file, config
        self._application = Backend(vm, SERVICE_TIME_S, port_of_system())
        self.member = Member(service_port=free_port(), probe_port=free_port())
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def settings(self) -> dict[str, dict[str, object]]:
        """The settings of its agent and responder. The check asks the application itself."""
        return {
            "drain": {"service_ports": [self.member.service_port]},
            "probe": {
                "listen": f"127.0.0.1:{self.member.probe_port}",
                "check": f"http://127.0.0.1:{self._application.service_port}/healthz",
            },
        }

    async def start(self) -> None:
        """Start the web server, then the application, without which the responder answers 503."""
        self._start_processes()
        port = self.member.service_port
        await until(lambda: web_servers.accepts(port), f"{self._server} of {self.vm}")
        await self._application.become(VmHealth.SERVING)

    def _start_processes(self) -> None:
        place = web_servers.Place(
            directory=self._directory,
            port=self.member.service_port,
            flag_file=self._flag_file,
            application_port=self._application.service_port,
        )
        log = self._directory / "responder.log"
        with log.open("ab") as output:
            responder = subprocess.Popen(
                [sys.executable, "-m", "controller", "probe", "--config", str(self._config)],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        command = web_servers.SERVERS[self._server](place)
        self._processes = [web_servers.start(command, self._directory), responder]

    async def goes_down(self) -> None:
        """Lose every process and connection, as in a reboot."""
        self._signal(signal.SIGKILL)
        await self._application.become(VmHealth.DOWN)
        for process in self._processes:
            await asyncio.to_thread(process.wait)
        self._processes = []

    async def freezes(self) -> None:
        """Stand still; the kernel goes on accepting connections."""
        self._signal(signal.SIGSTOP)
        await self._application.become(VmHealth.FROZEN)

    async def comes_back(self) -> None:
        """Go on after a freeze, or start again."""
        if self._processes:
            self._signal(signal.SIGCONT)
            await self._application.become(VmHealth.SERVING)
        else:
            await self.start()

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            os.killpg(process.pid, number)


async def until(holds: Callable[[], object], what: str) -> None:
    """Wait until `holds()`, or what it returns once awaited, is true."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = holds()
                if await found if isinstance(found, Awaitable) else found:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not within {PATIENCE_S:g} s: {what}") from None
