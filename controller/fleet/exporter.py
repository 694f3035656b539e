"""Serves the newest reading of the fleet: for Prometheus, for a health check, and as JSON."""

import asyncio
import logging

from aiohttp import web

from controller.clock import Clock
from controller.fleet.fleet_json import fleet_json
from controller.fleet.fleet_metrics import FleetMetrics
from controller.fleet.reader import Fleet, FleetReader
from controller.observability.logs import log
from controller.observability.metrics import CONTENT_TYPE
from controller.status.loopback_server import LoopbackServer, verdict

logger = logging.getLogger("lbdrain.fleet")

STALE_PERIODS = 3
"""After so many periods without a reading the exporter is not healthy."""


class FleetExporter:
    """Reads the fleet again and again, and answers from the newest reading.

    Args:
        reader: the containers.
        clock: monotonic clock.
        every_s: seconds between two readings.
    """

    def __init__(self, reader: FleetReader, *, clock: Clock, every_s: float) -> None:
        self._reader, self._clock, self._every_s = reader, clock, every_s
        self._metrics = FleetMetrics()
        self._fleet: Fleet | None = None
        self._read_at = clock.monotonic()
        self._problems: dict[str, str] = {}

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(self._every_s)

    async def read(self) -> None:
        """Read once, and show the result from then on."""
        fleet = await self._reader.read()
        self._fleet, self._read_at = fleet, self._clock.monotonic()
        self._metrics.show(fleet)
        self._log(fleet)

    def server(self, listen: str) -> LoopbackServer:
        """Return the server on this address; the caller opens it."""
        routes = {"/metrics": self._answer_metrics, "/healthz": self._answer_health}
        routes["/api/v1/fleet"] = self._answer_fleet
        return LoopbackServer(listen, routes, setting="--listen")

    def health(self) -> tuple[bool, str]:
        """Return whether readings succeed, and one line why."""
        fleet = self._fleet
        if fleet is None:
            return False, "no reading has ended yet"
        age_s = self._clock.monotonic() - self._read_at
        if age_s > STALE_PERIODS * self._every_s:
            return False, f"the last reading ended {age_s:.0f} s ago"
        failed = [each.url for each in fleet.containers if each.problem]
        if failed:
            return False, f"cannot be listed: {', '.join(failed)}"
        return True, f"{len(fleet.sets)} sets"

    async def _answer_metrics(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def _answer_health(self, _: web.Request) -> web.StreamResponse:
        return verdict(*self.health())

    async def _answer_fleet(self, _: web.Request) -> web.StreamResponse:
        if self._fleet is None:
            return verdict(*self.health())
        return web.json_response(fleet_json(self._fleet))

    def _log(self, fleet: Fleet) -> None:
        """Log which containers cannot be listed, each time that this changes."""
        problems = {each.url: each.problem for each in fleet.containers if each.problem}
        for url, problem in problems.items():
            if url not in self._problems:
                message = f"{url} cannot be listed: {problem}"
                log(logger, logging.WARNING, message)
        for url in self._problems:
            if url not in problems:
                log(logger, logging.INFO, f"{url} is listed again")
        self._problems = problems
