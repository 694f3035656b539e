"""The data plane with real sockets: backends on the VMs, a load balancer, counting clients.

What is modelled, after Microsoft docs (Load Balancer health probes, backend pool management):

- A new flow is hashed over the members that are in rotation *and* pass the health probe. A member
  that joins counts only after its first good probe. A failed probe moves no established flow.
- Established flows of a member that leaves the pool are kept, dropped (black-holed) or reset, as
  `WorldSettings.flows_on_remove` says: Azure documents none of the three.
- A VM that is down has no listener and its connections are gone. A frozen VM keeps both, and
  answers nothing until it thaws.

Everything runs in the caller's event loop on 127.0.0.1, so two of these, over two worlds, make a
twin experiment in one process. The world is only read; whoever owns it advances it.
"""

import asyncio
import time
import zlib
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self, cast

from controller.simulator.backends import Backend, VmHealth
from controller.simulator.clients import Clients, Counts, Load
from controller.simulator.sockets import HOST, reset

MAX_EARLY_BYTES = 64 * 1024
"""What a client may send before its backend connection stands."""


class TrafficSettings(Protocol):
    """The part of `WorldSettings` read here."""

    flows_on_remove: Literal["keep", "drop", "reset"]


class TrafficWorld(Protocol):
    """The part of `World` read here."""

    @property
    def settings(self) -> TrafficSettings: ...

    @property
    def vms(self) -> Mapping[str, object]: ...

    def rotation(self, pool_id: str) -> tuple[str, ...]: ...

    def serving(self, vm: str) -> bool: ...

    def reachable(self, vm: str) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The health probe. Azure's defaults are 5 s and 2 failures; a demo wants it faster."""

    interval_s: float = 1.0
    timeout_s: float = 1.0
    failures: int = 2
    """This many failures in a row put a member down; one success puts it up."""


@dataclass(slots=True)
class _Health:
    up: bool = False
    failures: int = 0


class Balancer:
    """The load balancer front end of one pool."""

    def __init__(
        self, world: TrafficWorld, pool_id: str, backends: Mapping[str, Backend], probe: Probe
    ) -> None:
        self._world = world
        self._pool_id = pool_id
        self._backends = backends
        self._probe = probe
        self._health: dict[str, _Health] = {}
        self._rotation: frozenset[str] = frozenset()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.flows: dict[int, Flow] = {}
        """Flows by the client's port."""
        self._given_to: dict[int, str] = {}
        """The VM of the last flow of each client port: a reset flow ends before its client asks."""
        self.rounds = 0
        """Rounds of probes made so far."""

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
        return tuple(
            vm
            for vm in self._in_rotation()
            if (health := self._health.get(vm)) is not None and health.up
        )

    def backend_of(self, client_port: int) -> str | None:
        """Return the VM that the flow from this client port was given to, also when it is over."""
        flow = self.flows.get(client_port)
        return self._given_to.get(client_port) if flow is None else flow.vm

    async def start(self) -> None:
        """Listen, and probe the members there are, so that the first flow finds them up."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Flow(self), HOST, 0, backlog=512)
        self.follow()
        await self._probe_all()
        self.spawn(self._probe_forever())

    async def stop(self) -> None:
        """Close every flow and wait for every task."""
        if self._server is not None:
            self._server.close()
        for flow in list(self.flows.values()):
            flow.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def spawn(self, work: Coroutine[object, None, None]) -> None:
        """Run a coroutine that ends with the balancer at the latest."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def follow(self) -> None:
        """Take note of who joined and who left the pool, and end the flows of those who left."""
        rotation = frozenset(self._in_rotation())
        for vm in self._rotation - rotation:
            self._health.pop(vm, None)
            self._end_flows_of(vm)
        for vm in rotation - self._rotation:
            self._health[vm] = _Health()
        self._rotation = rotation

    def choose(self, client_port: int) -> int | None:
        """Return the backend port for a new flow; None when no member is up."""
        members = self.eligible()
        self._given_to.pop(client_port, None)
        if not members:
            return None
        vm = members[zlib.crc32(str(client_port).encode()) % len(members)]
        self.flows[client_port].vm = self._given_to[client_port] = vm
        return self._port_of(vm)

    def _port_of(self, vm: str) -> int | None:
        backend = self._backends.get(vm)
        return None if backend is None else backend.port

    def _end_flows_of(self, vm: str) -> None:
        fate = self._world.settings.flows_on_remove
        if fate == "keep":
            return
        for flow in [flow for flow in self.flows.values() if flow.vm == vm]:
            if fate == "reset":
                flow.reset()
            else:
                flow.black_hole()

    async def _probe_forever(self) -> None:
        while True:
            await asyncio.sleep(self._probe.interval_s)
            await self._probe_all()

    async def _probe_all(self) -> None:
        members = list(self._health.items())
        results = await asyncio.gather(*(self._answers_probe(vm) for vm, _ in members))
        for (vm, health), good in zip(members, results, strict=True):
            if self._health.get(vm) is not health:
                continue  # left the pool meanwhile, and may even have joined again
            health.failures = 0 if good else health.failures + 1
            if good or health.failures >= self._probe.failures:
                health.up = good
        self.rounds += 1

    async def _answers_probe(self, vm: str) -> bool:
        """Make one HTTP probe over a connection of its own."""
        port = self._port_of(vm)
        if port is None:
            return False
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(self._probe.timeout_s):
                reader, writer = await asyncio.open_connection(HOST, port)
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
        except OSError:
            return False
        finally:
            if writer is not None:
                writer.transport.abort()


class Flow(asyncio.Protocol):
    """One TCP flow: the client's side of it, joined to a backend connection."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self._client: asyncio.Transport | None = None
        self._backend: asyncio.Transport | None = None
        self._early = bytearray()
        self._port = 0
        self._black_holed = False
        self.vm: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._client = cast("asyncio.Transport", transport)
        self._port = transport.get_extra_info("peername")[1]
        self._balancer.flows[self._port] = self
        port = self._balancer.choose(self._port)
        if port is None:
            self.reset()
        else:
            self._balancer.spawn(self._connect(port))

    async def _connect(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_connection(lambda: _BackendSide(self), HOST, port)
        except OSError:
            self.reset()
            return
        if self._client is None:
            transport.abort()  # the client left first
            return
        self._backend = transport
        transport.write(bytes(self._early))
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        if self._black_holed:
            return
        if self._backend is not None:
            self._backend.write(data)
            return
        self._early += data
        if len(self._early) > MAX_EARLY_BYTES:
            self.reset()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        self._client = None
        if self._balancer.flows.get(self._port) is self:
            del self._balancer.flows[self._port]
        if self._backend is not None:
            self._backend.close()

    def from_backend(self, data: bytes) -> None:
        """Pass on what the backend says."""
        if self._client is not None and not self._black_holed:
            self._client.write(data)

    def backend_closed(self, error: Exception | None) -> None:
        """Pass on the end of the backend's connection, as the FIN or RST that it was."""
        self._backend = None
        if self._client is None or self._black_holed:
            return
        if error is None:
            self._client.close()
        else:
            reset(self._client)

    def black_hole(self) -> None:
        """From now on nothing passes in either direction, and nobody is told."""
        self._black_holed = True

    def reset(self) -> None:
        """Reset both sides."""
        if self._backend is not None:
            reset(self._backend)
        if self._client is not None:
            reset(self._client)


class _BackendSide(asyncio.Protocol):
    """The backend's side of a flow."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def data_received(self, data: bytes) -> None:
        self._flow.from_backend(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._flow.backend_closed(exc)


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
        service_time_s: float = 0.02,
        follow_every_s: float = 0.02,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; nothing listens before `async with`.

        `service_time_s` is how long a backend takes for a request, `follow_every_s` how often the
        world is looked at, `clock` dates the lost requests (epoch seconds).
        """
        self._world = world
        self._follow_every_s = follow_every_s
        self._backends = {vm: Backend(vm, service_time_s) for vm in map(str.casefold, world.vms)}
        self._balancer = Balancer(world, pool_id, self._backends, probe or Probe())
        self._clients = Clients(load or Load(), self._balancer.backend_of, clock)
        self._follower: asyncio.Task[None] | None = None
        self._followed = asyncio.Condition()
        self._looks = 0

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

    async def wait_until(self, holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Wait until `holds()`; asked whenever the world was looked at. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s), self._followed:
            await self._followed.wait_for(holds)

    async def next_look(self) -> None:
        """Return once the sockets have followed the world as it is at the call."""
        wanted = self._looks + 1
        await self.wait_until(lambda: self._looks >= wanted)

    async def next_probe(self) -> None:
        """Return once a whole round of probes has been made after the call."""
        wanted = self._balancer.rounds + 2  # the round under way may be older than the call
        await self.wait_until(lambda: self._balancer.rounds >= wanted)

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
            self._looks += 1
            async with self._followed:
                self._followed.notify_all()

    async def _follow(self) -> None:
        """Bring sockets to the state of the world."""
        for vm, backend in self._backends.items():
            await backend.become(self._health_of(vm))
        self._balancer.follow()

    def _health_of(self, vm: str) -> VmHealth:
        if self._world.serving(vm):
            return VmHealth.SERVING
        return VmHealth.FROZEN if self._world.reachable(vm) else VmHealth.DOWN
