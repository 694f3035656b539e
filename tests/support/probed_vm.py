"""A VM whose probes are real: a responder on loopback, and a load balancer that asks it.

The health of the rules stays as it is in the simulated Azure; what is proof here is the count of
refused probes in the responder.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from controller.probe.responder import Responder
from controller.probe.settings import ProbeSettings
from controller.simulator.app.agent_processes import Overrides
from tests.support.in_process_set import QUICK, InProcessSet

BALANCER = "127.0.0.2"
"""Probes of the load balancer come from another address than questions of this VM."""
OWN = "127.0.0.1"
PATH = "/health"


class ProbedVm:
    """One VM, its responder, and the load balancer's probes of it."""

    def __init__(self, bench: InProcessSet, vm: str, port: int) -> None:
        self._bench, self._port = bench, port
        self.flag = _flag(bench, vm)

    def overrides(self, **policy: Any) -> Overrides:
        """Return the configuration of an agent whose VMs leave rotation by closing alone."""
        closes = {**QUICK["policy"], "close": True, "mechanism": "probe", **policy}
        return {
            **QUICK,
            "policy": closes,
            "probe": {"listen": f"{OWN}:{self._port}", "path": PATH},
        }

    async def probe(self) -> int:
        """Ask as the load balancer does; return the status."""
        reader, writer = await asyncio.open_connection(OWN, self._port, local_addr=(BALANCER, 0))
        try:
            writer.write(f"GET {PATH} HTTP/1.1\r\nHost: vm\r\n\r\n".encode())
            return int((await reader.read()).split()[1])
        finally:
            writer.close()

    async def until(self, what: str, holds: Callable[[], object]) -> None:
        """Probe again and again, as the load balancer does, until `holds()`."""
        probing = asyncio.create_task(self._probe_on())
        try:
            await self._bench.until(what, holds)
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)

    async def _probe_on(self) -> None:
        while True:
            await self.probe()
            await asyncio.sleep(0.1)  # the interval of the probe


@asynccontextmanager
async def probed_vm(bench: InProcessSet, vm: str) -> AsyncIterator[ProbedVm]:
    """Answer the probes of a VM; the probes of all rules ask this port."""
    settings = ProbeSettings(
        host=OWN,
        port=0,
        path=PATH,
        check="",
        allow=("127.0.0.0/8",),
        flag_file=str(_flag(bench, vm)),
        open_after_s=3600,
    )
    async with await Responder(settings).listen() as server:
        port = server.sockets[0].getsockname()[1]
        for load_balancer in bench.world.load_balancers.values():
            for each in load_balancer["properties"]["probes"]:
                each["properties"]["port"] = port
        yield ProbedVm(bench, vm, port)


def _flag(bench: InProcessSet, vm: str) -> Path:
    return bench.server.ca_file.with_name(f"{vm}.draining")
