"""The health probe of a load balancer: HTTP requests on an interval, and what follows from them.

After `threshold` opposite answers in a row a member changes between up and down
(Microsoft docs, Load Balancer REST reference, `probeThreshold`). A member that joins is down until
its first good answer. The probe asks the web server of a VM, or the responder that the VM runs for
it on a port of its own.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from controller.simulator.traffic.backends import HEALTH_PAGE, Backend
from controller.simulator.traffic.messages import request
from controller.simulator.traffic.sockets import HOST, within

LONGEST_WAIT_S = 30.0
"""A probe waits for its answer until the next one is due, but at most this long (Microsoft docs,
Load Balancer health probes)."""
SHORTEST_WAIT_S = 2.0
"""A busy machine needs this long for an answer, however much faster than Azure a probe is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """How a load balancer probes. Azure: an interval of 5 s at least."""

    interval_s: float = 1.0
    timeout_s: float = 1.0
    threshold: int = 2
    """Answers in a row that change the state of a member."""
    all_probed_up: bool = False
    """Whether all members get new flows while no member is up."""
    tcp: bool = False
    """Whether a connection is answer enough: no status can put such a member down."""

    @classmethod
    def of_rule(cls, properties: Mapping[str, Any] | None, *, factor: float) -> Self:
        """Return the probe that a resource body describes, this many times faster.

        Without a probe, and with a value that Azure refuses, defaults of Azure apply.
        """
        body = properties or {}
        interval_s = max(5, int(body.get("intervalInSeconds") or 15)) / factor
        return cls(
            interval_s=interval_s,
            timeout_s=max(SHORTEST_WAIT_S, min(interval_s, LONGEST_WAIT_S)),
            threshold=max(1, int(body.get("probeThreshold") or 1)),
            all_probed_up=body.get("noHealthyBackendsBehavior") == "AllProbedUp",
            tcp=str(body.get("protocol", "")).casefold() == "tcp",
        )


@dataclass(frozen=True, slots=True)
class Responder:
    """Where a VM itself answers the probe, on loopback of the simulation."""

    port: int
    path: str = "/"


class ProbedWorld(Protocol):
    """The part of `World` that probes use."""

    def serving(self, vm: str) -> bool: ...

    def fails_probe(self, vm: str) -> bool: ...

    def record_probe(self, pool_id: str, vm: str, up: bool | None) -> None: ...


@dataclass(slots=True)
class _Health:
    up: bool = False
    answered: bool = False
    """Whether there was a good answer since it joined."""
    opposite: int = 0
    """Answers in a row that differ from `up`."""
    being_probed: bool = False

    def take(self, *, good: bool, threshold: int) -> None:
        if good == self.up:
            self.opposite = 0
            return
        self.opposite += 1
        if self.opposite >= threshold or (good and not self.answered):
            self.up, self.opposite = good, 0
        self.answered = self.answered or good


class Prober:
    """Probes the members of one pool."""

    def __init__(
        self,
        world: ProbedWorld,
        pool_id: str,
        backends: Mapping[str, Backend],
        *,
        probe: Callable[[], Probe],
        responders: Mapping[str, Responder],
    ) -> None:
        """`probe` is read before each round. VM names are casefolded."""
        self._world = world
        self._pool_id = pool_id
        self._backends = backends
        self._probe = probe
        self._responders = responders
        self._health: dict[str, _Health] = {}
        self.rounds = 0
        """Rounds of probes made so far."""

    @property
    def all_probed_up(self) -> bool:
        """Whether all members get new flows because none is up."""
        none_up = not any(health.up for health in self._health.values())
        return none_up and self._probe().all_probed_up

    def follow(self, members: frozenset[str]) -> None:
        """Probe these members from now on."""
        for vm in self._health.keys() - members:
            del self._health[vm]
            self._world.record_probe(self._pool_id, vm, None)
        for vm in members - self._health.keys():
            self._health[vm] = _Health()
            self._world.record_probe(self._pool_id, vm, False)

    def knows(self, vm: str) -> bool:
        """Return whether a VM is probed."""
        return vm in self._health

    def up(self, vm: str) -> bool:
        """Return whether a VM is up, as far as the probe has found."""
        health = self._health.get(vm)
        return health is not None and health.up

    async def run(self) -> None:
        """Probe until cancelled. A member that does not answer delays no probe of another one."""
        async with asyncio.TaskGroup() as rounds:
            while True:
                await asyncio.sleep(self._probe().interval_s)
                rounds.create_task(self.probe_all())

    async def probe_all(self) -> None:
        """Make one round: probe all members that are not being probed."""
        probe = self._probe()
        await asyncio.gather(
            *(
                self._probe_one(vm, health, probe)
                for vm, health in self._health.items()
                if not health.being_probed
            )
        )
        self.rounds += 1

    async def _probe_one(self, vm: str, health: _Health, probe: Probe) -> None:
        health.being_probed = True
        good = await self._answers(vm, probe)
        health.being_probed = False
        if self._health.get(vm) is health:  # it may have left the pool, and even joined again
            health.take(good=good, threshold=probe.threshold)
            self._world.record_probe(self._pool_id, vm, health.up)

    async def _answers(self, vm: str, probe: Probe) -> bool:
        """Send one HTTP probe over a new connection."""
        backend, responder = self._backends.get(vm), self._responders.get(vm)
        port, path = backend.port if backend is not None else None, HEALTH_PAGE
        if port is None or (self._world.serving(vm) and self._world.fails_probe(vm)):
            return False
        if responder is not None:
            if not self._world.serving(vm):
                return False
            port, path = responder.port, responder.path
        try:
            return await within(probe.timeout_s, _ask(port, path, tcp=probe.tcp))
        except (OSError, ValueError):  # a line without an end is a ValueError
            return False


async def _ask(port: int, path: str, *, tcp: bool) -> bool:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        if tcp:
            return True
        writer.write(request(path, connection="close"))
        return b" 200 " in await reader.readline()
    finally:
        writer.transport.abort()
