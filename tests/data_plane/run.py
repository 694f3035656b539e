"""Maintenance of a simulated set whose clients go through HAProxy and nginx or Apache.

The agents are real processes against the simulated Azure. HAProxy follows the pool of that Azure,
and its checks ask the responders of the VMs. The web servers look at the flag files that the agents
write. The clients of the simulator count what they lose.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from controller.simulator.app.agent_processes import AgentProcesses, Overrides, configuration
from controller.simulator.app.flag_files import FlagFiles, flag_file
from controller.simulator.app.server import SimulatorServer
from controller.simulator.traffic.clients import Clients
from controller.simulator.traffic.load import Counts, Kind, Load
from controller.simulator.world.builder import build_world
from controller.simulator.world.events import EventState
from controller.simulator.world.settings import WorldSettings
from tests.data_plane.balancer import THRESHOLD, HaProxy
from tests.data_plane.host import Host, until
from tests.support import web_servers
from tests.support.patience import PATIENCE_S
from tests.support.ports import free_port

Flows = Literal["keep", "drop"]
Step = tuple[str, int]
"""Type of an event, and the number of its VM; the leader's is 0."""

SHORT: tuple[Step, ...] = (("Reboot", 0), ("Freeze", 1))
LONG: tuple[Step, ...] = (("Reboot", 1), ("Reboot", 2), ("Reboot", 0), ("Freeze", 0))
"""Each of three VMs, the leader last. By then another VM leads, and that one is frozen."""

MIX = {
    Kind.SHORT: 0.3,
    Kind.POOLED: 0.3,
    Kind.PERSISTENT: 0.25,
    Kind.SLOW: 0.1,
    Kind.UPLOAD: 0.05,
}
"""All kinds of HTTP. Streams are missing: the recipes end HTTP connections only."""
FASTER = 10.0
REQUESTS_PER_S = 60.0
NOTICE_S = 120.0
IMPACT_S = 3.0
STARTED_S = 4.0
WARM_UP = 100
"""Answers before the first event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one run has shown."""

    flows: Flows
    counts: Counts
    events: tuple[str, ...]
    """Type and VM of each event, and whether the VM led."""
    unacknowledged: int


class DataPlane:
    """One run.

    Args:
        directory: readable for every user.
        server: the web server, `nginx` or `apache2`.
        flows: what happens to the established connections of a removed VM.
        closing: whether the VMs close before they leave, `[policy] close`.
        controller: whether there are agents at all.
    """

    def __init__(
        self,
        directory: Path,
        *,
        flows: Flows,
        server: str = "nginx",
        closing: bool = True,
        controller: bool = True,
    ) -> None:
        self._flows: Flows = flows
        self._closing, self._controller = closing, controller
        settings = WorldSettings(
            operation_latency_s=1.0,
            pool_operation_latency_s=1.0,
            ack_starts_event_after_s=1.0,
            lro_retry_after_s=1,
            flows_on_remove=flows,
        )
        self._world = build_world(
            now=time.time(), vms=3, settings=settings, probe_threshold=THRESHOLD
        )
        self._pool_id = self._world.pool_ids()[0]
        self._directory = directory
        self._server = SimulatorServer(self._world, directory)
        self._hosts: dict[str, Host] = {}
        for peer in self._world.peers():
            own = directory / f"{server}-{peer.name}"
            own.mkdir()
            own.chmod(0o755)
            flag, config = flag_file(directory, peer.name), directory / f"{peer.name}.toml"
            self._hosts[peer.name] = Host(peer.name, server, own, flag, config)
        self._seen = 0

    async def run(self, steps: tuple[Step, ...]) -> Result:
        """Take VMs through maintenance; return what the clients have seen."""
        own = {vm: host.settings for vm, host in self._hosts.items()}
        for each in own.values():
            each["policy"] = {"close": self._closing}
        agents = AgentProcesses(self._server, self._directory, own=own)
        balancing = self._directory / "haproxy"
        balancing.mkdir()
        balancing.chmod(0o755)
        members = {vm: host.member for vm, host in self._hosts.items()}
        balancer = HaProxy(balancing, free_port(), members)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._server)
            await stack.enter_async_context(following(FlagFiles(self._world, self._directory)))
            if self._controller:
                await stack.enter_async_context(agents)
                await self._server.wait_until(lambda: self._leader() != "", PATIENCE_S)
            else:
                self._write_configurations(own)
            for host in self._hosts.values():
                stack.push_async_callback(host.goes_down)
                await host.start()
            await stack.enter_async_context(balancer)
            self._seen = len(self._world.history)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            follower = tasks.create_task(self._follow(balancer))
            try:
                return await self._maintain(balancer, steps)
            finally:
                follower.cancel()

    async def _maintain(self, balancer: HaProxy, steps: tuple[Step, ...]) -> Result:
        everything = {*self._hosts}
        await until(lambda: _are_up(balancer, everything), "all VMs are up")
        load = Load(rate_per_s=REQUESTS_PER_S, mix=MIX).accelerated(FASTER)
        clients = Clients(load, lambda _: None, time.time)
        clients.start(balancer.port)
        events: list[str] = []
        unacknowledged = 0
        try:
            await until(lambda: clients.counts().ok >= WARM_UP, "the clients are served")
            for event_type, number in steps:
                leader = self._leader()
                vm = self._vm(leader, number)
                unacknowledged += not await self._event(event_type, vm)
                await until(lambda: _are_up(balancer, everything), f"{vm} is back")
                await until(lambda: not self._closed(), f"{vm} is open")
                events.append(f"{event_type} of {vm}{' (leader)' if vm == leader else ''}")
        finally:
            await clients.stop()
        return Result(
            flows=self._flows,
            counts=clients.counts(),
            events=tuple(events),
            unacknowledged=unacknowledged,
        )

    async def _event(self, event_type: str, vm: str) -> bool:
        """Announce an event and wait for its end; return whether it was acknowledged."""
        event = self._world.events.schedule(
            event_type,
            vm,
            notice_s=NOTICE_S if self._controller else 2.0,
            duration_s=9 if event_type == "Freeze" else -1,
            impact_s=IMPACT_S,
            started_s=STARTED_S,
        )
        await self._server.notify()
        await self._server.wait_until(lambda: event.state is EventState.GONE, 2 * NOTICE_S)
        return bool(event.acknowledged_by)

    def _write_configurations(self, own: Mapping[str, Overrides]) -> None:
        """Write what the responders read, without agents that would write it."""
        for vm, settings in own.items():
            path = self._directory / f"{vm}.toml"
            path.write_text(configuration(self._server, vm, overrides=settings))

    def _vm(self, leader: str, number: int) -> str:
        """Return a VM by its number; the leader is number 0."""
        names = [*self._hosts]
        first = names.index(leader) if leader else 0
        return names[(first + number) % len(names)]

    def _leader(self) -> str:
        leases = self._world.blobs.leases(self._world.now)
        return next((lease.holder for lease in leases if lease.state == "leased"), None) or ""

    def _closed(self) -> list[str]:
        return [vm for vm in self._hosts if flag_file(self._directory, vm).exists()]

    async def _follow(self, balancer: HaProxy) -> None:
        """Apply what happens in the simulated Azure to HAProxy and to the processes of the VMs."""
        history = self._world.history
        while True:
            await self._server.wait_until(lambda: len(history) > self._seen, timeout_s=1e6)
            changes, self._seen = history[self._seen :], len(history)
            for change in changes:
                vm = str(change.detail.get("vm", ""))
                if change.kind == "member_out" and change.subject == self._pool_id:
                    await balancer.leave(vm, drop=self._flows == "drop")
                elif change.kind == "member_in" and change.subject == self._pool_id:
                    await balancer.join(vm)
                elif change.kind == "vm_down" and change.detail.get("state") == "frozen":
                    await self._hosts[change.subject].freezes()
                elif change.kind == "vm_down":
                    await self._hosts[change.subject].goes_down()
                elif change.kind == "vm_up":
                    await self._hosts[change.subject].comes_back()


async def run(
    flows: Flows,
    steps: tuple[Step, ...],
    *,
    server: str = "nginx",
    closing: bool = True,
    controller: bool = True,
) -> Result:
    """Run once in a directory of its own."""
    with web_servers.public_directory("lb-drain-data-plane-") as directory:
        plane = DataPlane(
            directory, flows=flows, server=server, closing=closing, controller=controller
        )
        return await plane.run(steps)


@asynccontextmanager
async def following(files: FlagFiles) -> AsyncIterator[None]:
    """Follow the flag files meanwhile."""
    task = asyncio.create_task(files.follow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _are_up(balancer: HaProxy, vms: set[str]) -> bool:
    return await balancer.up() == vms
