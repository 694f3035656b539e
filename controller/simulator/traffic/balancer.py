"""The data plane with real sockets: backends on the VMs, a load balancer, counting clients.

What is modelled, after Microsoft docs (Load Balancer health probes, backend pool management):

- A new flow is hashed over the members that are in rotation *and* pass the health probe. A member
  that joins counts only after its first good probe. A failed probe moves no established flow. While
  no member is up, there are no new flows, or all members get them (`noHealthyBackendsBehavior`).
- Established flows of a member that leaves the pool are kept, dropped (black-holed) or reset, as
  the setting `flows_on_remove` chooses: Azure documents none of the three.
- With source-IP affinity all flows of one client address are hashed to one member. It moves with
  the set of members that are up.
- A member in adminState Down gets no new flows; `admin_down` decides about its established ones.
  A member in adminState Up gets new flows whatever the probe finds.
- A VM that is down has no listener and its connections are gone. A frozen VM keeps both, and
  answers nothing until it thaws.

Everything runs in the caller's event loop on 127.0.0.1, so two of these, over two worlds, make a
twin experiment in one process. The world is only read, but for the results of the probes; its owner
advances it.
"""

import asyncio
import time
import zlib
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from controller.simulator.traffic.backends import Application, Backend, VmHealth
from controller.simulator.traffic.clients import Clients
from controller.simulator.traffic.flow import Endpoint, Flow
from controller.simulator.traffic.load import Counts, Load
from controller.simulator.traffic.probes import Probe, ProbedWorld, Prober, Responder
from controller.simulator.traffic.sockets import HOST, free_port


class TrafficSettings(Protocol):
    """The part of `WorldSettings` read here."""

    flows_on_remove: Literal["keep", "drop", "reset"]
    admin_down: Literal["reset", "persist"]
    closed_ends_streams: bool
    closed_fails_probe: bool


class TrafficWorld(ProbedWorld, Protocol):
    """The part of `World` read here."""

    @property
    def settings(self) -> TrafficSettings: ...

    @property
    def vms(self) -> Mapping[str, object]: ...

    def rotation(self, pool_id: str) -> tuple[str, ...]: ...

    def held_up(self, pool_id: str) -> tuple[str, ...]: ...

    def held_down(self, pool_id: str) -> tuple[str, ...]: ...

    def source_affinity(self, pool_id: str) -> bool: ...

    def probe_of(self, pool_id: str) -> Mapping[str, Any] | None: ...

    def closed(self, vm: str) -> bool: ...

    def reachable(self, vm: str) -> bool: ...


class Balancer:
    """The load balancer front end of one pool."""

    def __init__(
        self,
        world: TrafficWorld,
        pool_id: str,
        backends: Mapping[str, Backend],
        prober: Prober,
    ) -> None:
        self._world = world
        self._pool_id = pool_id
        self._backends = backends
        self._prober = prober
        self._rotation: frozenset[str] = frozenset()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.flows: dict[Endpoint, Flow] = {}
        """Flows by the client's address and port."""
        self._given_to: dict[Endpoint, str] = {}
        """The VM of the last flow of each endpoint, because a reset flow is removed at once."""
        self.connections = 0
        """Flows so far."""

    @property
    def port(self) -> int:
        """The front end's port, once started."""
        if self._server is None:
            raise RuntimeError("the load balancer has not been started")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def _in_rotation(self) -> tuple[str, ...]:
        """Return the members by casefolded name, each once, however many addresses it has."""
        labels = self._world.rotation(self._pool_id)
        return tuple(dict.fromkeys(label.casefold() for label in labels))

    def eligible(self) -> tuple[str, ...]:
        """Return the members that new flows are hashed over."""
        held_up = {label.casefold() for label in self._world.held_up(self._pool_id)}
        all_up = self._prober.all_probed_up
        return tuple(
            vm
            for vm in self._in_rotation()
            if self._prober.knows(vm) and (all_up or self._prober.up(vm) or vm in held_up)
        )

    def backend_of(self, client: Endpoint) -> str | None:
        """Return the VM of the newest flow from this endpoint, even if the flow has ended."""
        flow = self.flows.get(client)
        return self._given_to.get(client) if flow is None else flow.vm

    async def start(self) -> None:
        """Listen, and probe the members there are, so that the first flow finds them up."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Flow(self), HOST, 0, backlog=512)
        self.follow()
        await self._prober.probe_all()
        self.spawn(self._prober.run())

    async def stop(self) -> None:
        """Close every flow and wait for every task."""
        if self._server is not None:
            self._server.close()
        for flow in list(self.flows.values()):
            flow.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._prober.follow(frozenset())

    def spawn(self, work: Coroutine[object, None, None]) -> None:
        """Run a coroutine that ends with the balancer at the latest."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def follow(self) -> None:
        """Follow the pool: probe the members that joined, end the flows of those that left."""
        rotation = frozenset(self._in_rotation())
        held_down = {label.casefold() for label in self._world.held_down(self._pool_id)}
        for vm in self._rotation - rotation:
            if vm not in held_down:
                self._end_flows_of(vm, self._world.settings.flows_on_remove)
            elif self._world.settings.admin_down == "reset":
                self._end_flows_of(vm, "reset")
        self._prober.follow(rotation)
        self._rotation = rotation

    def choose(self, client: Endpoint) -> int | None:
        """Return the backend port for a new flow; None when no member is up."""
        members = self.eligible()
        self.connections += 1
        self._given_to.pop(client, None)
        if not members:
            return None
        address, port = client
        hashed = address if self._world.source_affinity(self._pool_id) else f"{address}:{port}"
        vm = members[zlib.crc32(hashed.encode()) % len(members)]
        self.flows[client].vm = self._given_to[client] = vm
        return self._port_of(vm)

    def _port_of(self, vm: str) -> int | None:
        backend = self._backends.get(vm)
        return None if backend is None else backend.port

    def _end_flows_of(self, vm: str, fate: Literal["keep", "drop", "reset"]) -> None:
        if fate == "keep":
            return
        for flow in [flow for flow in self.flows.values() if flow.vm == vm]:
            if fate == "reset":
                flow.reset()
            else:
                flow.black_hole()


class Traffic:
    """Backends, load balancer and clients of one pool, as an async context manager.

    On exit the clients stop first and requests in flight are waited for, so that at the end
    `sent == ok + lost`.
    """

    def __init__(
        self,
        world: TrafficWorld,
        pool_id: str,
        *,
        load: Load | None = None,
        probe: Probe | None = None,
        faster: float = 1.0,
        responders: Mapping[str, Responder] | None = None,
        service_time_s: float = 0.02,
        follow_every_s: float = 0.02,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; nothing listens before `async with`.

        Args:
            world: what the sockets follow.
            pool_id: the pool behind the front end.
            load: what the clients do.
            probe: the health probe; by default that of the pool's rule, as it is at the time.
            faster: by how much the default probe is faster than its rule, which is in real time.
            responders: the VMs that answer the probe themselves, by name.
            service_time_s: time of a backend for most requests.
            follow_every_s: time between two reads of the world.
            clock: dates the lost requests (epoch seconds).
        """
        self._world = world
        self._follow_every_s = follow_every_s
        self._backends = {
            vm: Backend(vm, service_time_s, free_port()) for vm in map(str.casefold, world.vms)
        }
        self._prober = Prober(
            world,
            pool_id,
            self._backends,
            probe=lambda: probe or Probe.of_rule(world.probe_of(pool_id), factor=faster),
            responders={vm.casefold(): each for vm, each in (responders or {}).items()},
        )
        self._balancer = Balancer(world, pool_id, self._backends, self._prober)
        self._clients = Clients(load or Load(), self._balancer.backend_of, clock)
        self._follower: asyncio.Task[None] | None = None
        self._followed = asyncio.Condition()
        self._reads = 0

    @property
    def port(self) -> int:
        """The load balancer's front end."""
        return self._balancer.port

    def counts(self) -> Counts:
        """Return what the clients have seen so far."""
        return self._clients.counts()

    def eligible(self) -> tuple[str, ...]:
        """Return the members that get new flows now: in rotation and probed up."""
        return self._balancer.eligible()

    def flows(self) -> dict[str, int]:
        """Return the number of established flows by VM."""
        result: dict[str, int] = {}
        for flow in self._balancer.flows.values():
            if flow.vm is not None:
                result[flow.vm] = result.get(flow.vm, 0) + 1
        return dict(sorted(result.items()))

    @property
    def connections(self) -> int:
        """Connections of clients so far, ended ones included."""
        return self._balancer.connections

    async def wait_until(self, holds: Callable[[], bool], timeout_s: float = 120.0) -> None:
        """Wait until `holds()`, checked after each read of the world. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s), self._followed:
            await self._followed.wait_for(holds)

    async def next_read(self) -> None:
        """Return when the sockets follow the world as it is at the call."""
        wanted = self._reads + 1
        await self.wait_until(lambda: self._reads >= wanted)

    async def next_probe(self) -> None:
        """Return when a whole round of probes has run after the call."""
        wanted = self._prober.rounds + 2  # the round under way may be older than the call
        await self.wait_until(lambda: self._prober.rounds >= wanted)

    def service_port(self, vm: str) -> int:
        """Return the port of the application on a VM."""
        return self._backends[vm.casefold()].service_port

    async def __aenter__(self) -> Self:
        try:
            for backend in self._backends.values():
                await backend.start()
            await self._follow()
            await self._balancer.start()
        except BaseException:
            await self._close()
            raise
        self._follower = asyncio.create_task(self._follow_forever())
        self._clients.start(self._balancer.port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._clients.stop()
        if self._follower is not None:
            self._follower.cancel()
            with suppress(asyncio.CancelledError):
                await self._follower
        await self._close()

    async def _close(self) -> None:
        await self._balancer.stop()
        for backend in self._backends.values():
            await backend.stop()

    async def _follow_forever(self) -> None:
        while True:
            await asyncio.sleep(self._follow_every_s)
            await self._follow()
            self._reads += 1
            async with self._followed:
                self._followed.notify_all()

    async def _follow(self) -> None:
        """Bring sockets to the state of the world."""
        for vm, backend in self._backends.items():
            await backend.become(self._health_of(vm))
            backend.follow(self._application_of(vm))
        self._balancer.follow()

    def _health_of(self, vm: str) -> VmHealth:
        if self._world.serving(vm):
            return VmHealth.SERVING
        return VmHealth.FROZEN if self._world.reachable(vm) else VmHealth.DOWN

    def _application_of(self, vm: str) -> Application:
        settings, closed = self._world.settings, self._world.closed(vm)
        return Application(
            closed=closed,
            ends_streams=closed and settings.closed_ends_streams,
            healthy=not (closed and settings.closed_fails_probe),
        )
