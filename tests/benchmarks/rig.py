"""A simulated set with real agents on some of its VMs, and the stopwatch on what truly happens.

Instants are the simulator's, from its own history; calls are counted where they arrive. Nothing an
agent says about itself is measured, except the ledger, which is a blob of the simulator.
"""

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.simulator.app.agent_processes import ACCELERATED, AgentProcesses, Overrides
from controller.simulator.app.server import SimulatorServer
from controller.simulator.services.http_values import Reply, Request, Service
from controller.simulator.world.builder import build_world
from controller.simulator.world.history import Change
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.world import World

POLL_S = 1.0
"""The leader's poll interval in every bench."""
NOTICE_S = 890.0
"""Within the lead time, so that the drain is due at once."""
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to ARM."""

    at: float
    by: str
    method: str
    path: str
    status: int

    @property
    def kind(self) -> str:
        """`poll` of an operation, `read`, `write`, or `refused`: a write that was not accepted."""
        if self.method == "GET":
            return "poll" if "/operations/" in self.path.casefold() else "read"
        return "write" if self.status < 300 else "refused"


class PartialFleet(AgentProcesses):
    """Agents on the first VMs only: hundreds of processes would measure the machine."""

    def __init__(
        self, server: SimulatorServer, directory: Path, *, agents: int, overrides: Overrides
    ) -> None:
        super().__init__(server, directory, overrides=overrides, follow=False)
        self._agents = agents

    @property
    def vms(self) -> tuple[str, ...]:
        """The VMs that have an agent."""
        return super().vms[: self._agents]


@dataclass(frozen=True, slots=True)
class Drained:
    """Instants of one drain or restore."""

    published: float
    """The document changed."""
    sent: float
    """The first write was accepted."""
    out: float
    """The ledger said that every victim was observed out, or back."""


class Rig:
    """A running set."""

    def __init__(self, world: World, server: SimulatorServer, fleet: AgentProcesses) -> None:
        self.world, self.server, self.fleet = world, server, fleet
        self.asked: list[Asked] = []
        self._event_id = ""
        server.observers.append(self._observe)

    def _observe(self, request: Request, reply: Reply) -> None:
        if request.service is not Service.ARM:
            return
        token = self.world.issuer.read(request.headers.get("authorization", "").partition(" ")[2])
        by = token.principal if token else ""
        now = self.world.now
        self.asked.append(Asked(now, by, request.method, request.path, reply.status))

    # --- waiting

    async def until(
        self, wanted: Callable[[Change], bool], *, since: int, within_s: float
    ) -> Change:
        """Return the first wanted change from position `since` of the history on."""
        seen, found = since, None

        def look() -> bool:
            nonlocal seen, found
            history = self.world.history
            while found is None and seen < len(history):
                found = history[seen] if wanted(history[seen]) else None
                seen += 1
            return found is not None

        await self.server.wait_until(look, within_s)
        assert found is not None
        return found

    async def settled(self) -> None:
        """Wait until somebody leads, has looked around, and everyone is at home."""
        taken = await self.until(lambda c: c.kind == "lease_acquire", since=0, within_s=40)

        def looked() -> bool:
            reads = [a for a in self.asked if a.at >= taken.at and a.by == taken.detail["by"]]
            return any("/loadbalancers/" in a.path.casefold() for a in reads)

        await self.server.wait_until(looked, 40)
        await asyncio.sleep(2)

    @property
    def leader(self) -> str:
        """Whoever acquired the lease last."""
        return str(self.world.changes("lease_acquire")[-1].detail["by"])

    def others(self, count: int) -> list[str]:
        """Return VMs that do not lead; those without an agent first."""
        names = [vm.name for vm in self.world.peers()]
        bare = [name for name in names if name not in self.fleet.vms]
        with_agent = [name for name in self.fleet.vms if name != self.leader]
        return (bare + with_agent)[:count]

    # --- maintenance

    async def drain(self, victims: Sequence[str], *, within_s: float) -> Drained:
        """Announce maintenance of the victims, at any phase of the poll; follow it to the end."""
        await asyncio.sleep(random.uniform(0, POLL_S))
        start = len(self.world.history)
        event = self.world.events.schedule("Reboot", *victims, notice_s=NOTICE_S, impact="")
        await self.server.notify()
        self._event_id = event.event_id
        published = self.world.history[start].at
        deadline = time.time() + within_s
        sent = await self.until(lambda c: c.kind == "write", since=start, within_s=within_s)
        out = await self.until(
            lambda c: _all(c, victims, lambda entry: bool(entry and entry["out_at"])),
            since=start,
            within_s=max(1.0, deadline - time.time()),
        )
        return Drained(published, sent.at, out.at)

    async def restore(self, victims: Sequence[str], *, within_s: float) -> Drained:
        """End the maintenance that `drain` announced, and follow the way back."""
        await asyncio.sleep(random.uniform(0, POLL_S))
        start = len(self.world.history)
        self.world.events.complete(self._event_id)
        await self.server.notify()
        gone = self.world.history[start].at
        deadline = time.time() + within_s
        sent = await self.until(lambda c: c.kind == "write", since=start, within_s=within_s)
        back = await self.until(
            lambda c: _all(c, victims, lambda entry: entry is None or bool(entry["restored_at"])),
            since=start,
            within_s=max(1.0, deadline - time.time()),
        )
        return Drained(gone, sent.at, back.at)

    def entries(self) -> list[dict[str, Any]]:
        """Return the entries of the ledger as it was written last."""
        bodies = (str(c.detail["body"]) for c in reversed(self.world.changes("blob_written")))
        ledgers = (json.loads(body) for body in bodies if '"entries"' in body)
        return list(next(ledgers, {"entries": []})["entries"])

    def operations(self, since: float) -> list[float]:
        """Return how long each operation took that ended since an instant."""
        begun = {c.detail["operation"]: c.at for c in self.world.changes("write")}
        ended = self.world.changes("operation_ended")
        return [c.at - begun[c.subject] for c in ended if c.at >= since]

    def calls(self, since: float, until: float) -> dict[str, int]:
        """Count ARM requests of the whole set between two instants, by kind."""
        counts = {"read": 0, "write": 0, "poll": 0, "refused": 0}
        for asked in self.asked:
            if since <= asked.at <= until:
                counts[asked.kind] += 1
        return counts


def _all(
    change: Change, victims: Sequence[str], holds: Callable[[dict[str, Any] | None], bool]
) -> bool:
    """Tell whether a change is a ledger in which `holds` is true of every victim's entry."""
    if change.kind != "blob_written" or '"entries"' not in str(change.detail["body"]):
        return False
    entries = {entry["vm"]: entry for entry in json.loads(str(change.detail["body"]))["entries"]}
    return all(holds(entries.get(vm)) for vm in victims)


@asynccontextmanager
async def rig(
    directory: Path,
    *,
    vms: int = 3,
    agents: int = 3,
    settings: WorldSettings | None = None,
    ip_based: bool = False,
    flexible: bool = False,
    overrides: Overrides = ACCELERATED,
) -> AsyncGenerator[Rig]:
    """Run a set until left: an availability set, or a flexible scale set. Its pool is `app`."""
    world = build_world(
        now=time.time(),
        vms=vms,
        settings=settings or WorldSettings(ack_starts_event_after_s=None),
        pools=() if ip_based else ("app",),
        ip_pools=("app",) if ip_based else (),
        flexible=flexible,
    )
    home = directory / f"{next(_numbers):03}"
    home.mkdir()
    async with SimulatorServer(world, home) as server:
        fleet = PartialFleet(server, home, agents=agents, overrides=overrides)
        made = Rig(world, server, fleet)
        async with fleet:
            await made.settled()
            yield made
