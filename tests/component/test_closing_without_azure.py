"""Resource Manager answers 503 from the announcement on; a real responder is probed all the same.

Removals fail, and so do reads. The VM's own side needs neither: the leader records, the agent of
the VM closes it, and the probes that its responder refused are the evidence (law S1).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from controller.cli.probe import responder_settings
from controller.core.ability import UNABLE_AFTER_S
from controller.probe.responder import Responder
from controller.simulator.services.http_values import Service
from tests.component.test_closing import CLOSE, flag, report
from tests.support.in_process_set import NEVER_S, InProcessSet
from tests.support.ports import free_port

BALANCER = "127.0.0.2"
"""Probes of the load balancer come from another address than questions of this VM."""


class Probed:
    """The responder of web-2, and the load balancer that probes it when the test says so."""

    def __init__(self, bench: InProcessSet) -> None:
        self._bench, self._port = bench, free_port()
        self.overrides: dict[str, Any] = {
            **CLOSE,
            "probe": {"listen": f"127.0.0.1:{self._port}"},
            "drain": {"quiet_s": 0.2},
            "policy": {**CLOSE["policy"], "connection_drain_s": 300},
        }
        for load_balancer in bench.world.load_balancers.values():
            for probe in load_balancer["properties"]["probes"]:
                probe["properties"].update(port=self._port, probeThreshold=2, intervalInSeconds=60)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Answer as `lb-drain probe` on web-2 does."""
        settings = self._bench.settings(self._bench.config("web-2", self.overrides))
        async with await Responder(responder_settings(settings)).listen():
            yield

    async def probe(self) -> int:
        """Probe once; return the status."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, local_addr=(BALANCER, 0)
        )
        writer.write(b"GET / HTTP/1.1\r\nHost: vm\r\n\r\n")
        line = await reader.readline()
        writer.close()
        return int(line.split()[1])


def acknowledged(bench: InProcessSet) -> bool:
    """Return whether the platform has got an acknowledgement."""
    return bool(bench.world.changes("event_acknowledged"))


async def sent_again_after(bench: InProcessSet, seconds: float) -> None:
    """Let time pass, and wait until the leader has read the next report of web-2."""
    before = report(bench, "web-2")["at"]
    bench.clock.ahead_s += seconds
    await bench.until("sent", lambda: report(bench, "web-2")["at"] != before)
    await bench.requests(2, ".vms/web-2.json")


async def test_the_event_is_acknowledged_by_proof(bench: InProcessSet) -> None:
    """Closed, quiet, acknowledged; restored when Resource Manager answers again."""
    probed = Probed(bench)
    async with probed.serve():
        await bench.lead("web-1", overrides=probed.overrides)
        await bench.stand_by("web-2", overrides=probed.overrides)
        bench.fault(Service.ARM, status=503)
        event = await bench.announce("web-2", started_s=NEVER_S)
        await bench.until("closed", flag(bench, "web-2").exists)
        await bench.until("quiet", lambda: report(bench, "web-2").get("quiet_since"))
        assert not acknowledged(bench)
        assert [await probed.probe(), await probed.probe()] == [503, 503]
        await bench.until("acknowledged", lambda: acknowledged(bench))
        assert bench.inside("web-2")
        bench.heal()
        await bench.until("removed", lambda: not bench.inside("web-2"))
        bench.world.events.complete(event)
        await bench.server.notify()
        await bench.until("over", lambda: not bench.ledger()["entries"])
        assert bench.inside("web-2")
        await bench.until("open", lambda: not flag(bench, "web-2").exists())
        assert await probed.probe() == 200


async def test_the_leader_stays_while_the_probes_take_their_time(bench: InProcessSet) -> None:
    """A leader that cannot read is not unable while it only waits for a VM that is closed.

    Its successor could not read the rules either, and would have no evidence.
    """
    probed = Probed(bench)
    async with probed.serve():
        await bench.lead("web-1", overrides=probed.overrides)
        await bench.stand_by("web-2", overrides=probed.overrides)
        await bench.stand_by("web-3", overrides=probed.overrides)
        bench.fault(Service.ARM, status=503)
        await bench.announce("web-2", started_s=NEVER_S)
        await bench.until("quiet", lambda: report(bench, "web-2").get("quiet_since"))
        for _ in range(3):
            await sent_again_after(bench, UNABLE_AFTER_S / 2)
        await probed.probe()
        await probed.probe()
        await bench.until("acknowledged", lambda: acknowledged(bench))
        assert bench.ledger()["leader"] == "web-1"
