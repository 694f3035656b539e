"""The demo: a simulated set behind a load balancer, real agents, and maintenance of every VM.

Two worlds run side by side. In the first, agents (real processes) drain every VM before its
maintenance. The second is its twin without agents: every impact of maintenance on a VM of the first
also hits the VM of the same name in the second, at the same instant. Both carry the same client
traffic, so the difference in lost requests is the effect of the controller.
"""

import asyncio
import copy
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from controller.simulator.app.agent_processes import AgentProcesses, Overrides
from controller.simulator.app.flag_files import FlagFiles
from controller.simulator.app.server import SimulatorServer
from controller.simulator.traffic.balancer import Traffic
from controller.simulator.traffic.load import MIXES, Counts, Load
from controller.simulator.world.bodies import Json
from controller.simulator.world.builder import build_world
from controller.simulator.world.events import EventState, SimEvent
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.world import World

Flows = Literal["keep", "drop", "reset"]
ClientMix = Literal["short", "mixed", "persistent"]

FASTER = 10.0
"""Clients and health probes are this many times faster than in reality, as the rest is."""
OPERATION_S = 1.0
"""Latency of a simulated NIC write; about 10 s in Azure."""
NOTICE_S = 60.0
"""At least 5 minutes in Azure; it starts when it is acknowledged, on a busy machine late."""
IMPACT_S = 3.0
STARTED_S = 4.0
GROUPS_AT_MOST = 4
"""Larger sets are maintained several VMs at a time, as Azure does by update domain."""
PHASE_TIMEOUT_S = 150.0
REQUESTS_PER_S = 60.0
PROBE_THRESHOLD = 2
"""One answer that is late on a busy machine puts no member down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventResult:
    """The result of one event for one VM."""

    event_type: str
    vm: str
    was_leader: bool
    notice_s: float
    lead_time_s: float | None
    """NotBefore minus the moment the VM was out of every pool; None if it never was."""
    out_of_rotation_s: float
    acknowledged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result that the demo prints at the end."""

    clients: ClientMix
    flows: Flows
    requests: Counts
    requests_without: Counts
    """Requests to the set without agents."""
    events: tuple[EventResult, ...]
    memberships_restored: bool
    converted: bool | None = None
    """Whether the agents continued in the scale set; None if the set was not to be converted."""
    leader_changes: int
    duration_s: float

    @property
    def good(self) -> bool:
        """Nothing lost, everything restored, and no set left behind."""
        return self.requests.lost == 0 and self.memberships_restored and self.converted is not False

    def as_json(self) -> dict[str, Any]:
        """Return the object of `--json`."""
        return {
            "clients": self.clients,
            "flows": self.flows,
            "requests": self.requests.as_json(),
            "requests_without_controller": self.requests_without.as_json(),
            "events": [asdict(event) for event in self.events],
            "memberships_restored": self.memberships_restored,
            "converted": self.converted,
            "leader_changes": self.leader_changes,
            "duration_s": round(self.duration_s, 1),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The values that the terminal shows while the demo runs."""

    world: World
    leader: str
    headline: str
    done: int
    groups: int
    counts: Counts
    counts_without: Counts


class Demo:
    """One run of the demo.

    Args:
        directory: where configurations, certificates and logs go.
        vms: size of the set, at least 2.
        with_controller: False runs no agents at all.
        close: whether agents close their VMs before these are removed.
        flows_on_remove: what Azure does to established flows of a removed member (undocumented).
        clients: the mix of clients.
        convert: whether Azure converts the set to a scale set while the first VM is out.
        show: called about five times per second.
    """

    def __init__(
        self,
        directory: Path,
        *,
        vms: int = 3,
        with_controller: bool = True,
        close: bool = True,
        flows_on_remove: Flows = "drop",
        clients: ClientMix = "mixed",
        convert: bool = False,
        show: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        settings = WorldSettings(
            operation_latency_s=OPERATION_S,
            pool_operation_latency_s=OPERATION_S,
            ack_starts_event_after_s=1.0,
            lro_retry_after_s=1,
            flows_on_remove=flows_on_remove,
        )
        now = time.time()
        self._directory, self._with_controller, self._show = directory, with_controller, show
        self._clients: ClientMix = clients
        self._close, self._convert = close, convert
        self._world = build_world(
            now=now, vms=vms, settings=settings, probe_threshold=PROBE_THRESHOLD
        )
        self._twin = build_world(
            now=now, vms=vms, settings=replace(settings), probe_threshold=PROBE_THRESHOLD
        )
        self._flag_files = FlagFiles(self._world, directory)
        self._pool_id = self._world.pool_ids()[0]
        self._groups = _groups([vm.name for vm in self._world.peers()])
        self._server = SimulatorServer(self._world, directory)
        load = Load(rate_per_s=REQUESTS_PER_S, mix=MIXES[clients]).accelerated(FASTER)
        self._traffic = Traffic(self._world, self._pool_id, load=load, faster=FASTER)
        self._twin_traffic = Traffic(self._twin, self._pool_id, load=load, faster=FASTER)
        self._mirrored = 0
        self._headline = "starting"
        self._done = 0
        self._results: list[EventResult] = []

    async def run(self) -> Result:
        """Run the demo. Raises TimeoutError if the set does not complete its maintenance."""
        started = time.monotonic()
        before = copy.deepcopy(self._world.nics)
        async with self._server, asyncio.TaskGroup() as group:
            followers = [
                group.create_task(self._draw_forever()),
                group.create_task(self._flag_files.follow()),
            ]
            try:
                async with self._agents():
                    async with self._traffic, self._twin_traffic:
                        mirrors = group.create_task(self._mirror_forever())
                        await self._maintain_all()
                        mirrors.cancel()
                    self._headline = "done"
            finally:
                for follower in followers:
                    follower.cancel()
        leaders = [change for change in self._world.history if change.kind == "lease_acquire"]
        return Result(
            clients=self._clients,
            flows=self._world.settings.flows_on_remove,
            requests=self._traffic.counts(),
            requests_without=self._twin_traffic.counts(),
            events=tuple(self._results),
            memberships_restored=_comparable(before) == _comparable(self._world.nics),
            converted=self._continued() if self._convert else None,
            leader_changes=max(0, len(leaders) - 1),
            duration_s=time.monotonic() - started,
        )

    @asynccontextmanager
    async def _agents(self) -> AsyncGenerator[None]:
        """Run one agent for each VM, or none; enter when all watch and a leader is elected."""
        if not self._with_controller:
            yield
            return
        self._headline = "the agents start and elect a leader"
        own: dict[str, Overrides] = {
            vm.name: {
                "drain": {"service_ports": [self._traffic.service_port(vm.name)]},
                "policy": {"close": self._close},
            }
            for vm in self._world.peers()
        }
        async with AgentProcesses(self._server, self._directory, own=own) as agents:

            def settled() -> bool:
                seen = self._world.request_counts
                # Each agent reads its metadata, a token and the event document.
                watching = all(seen["imds", vm, "GET"] >= 3 for vm in agents.vms)
                return watching and self._leader() != ""

            await self._server.wait_until(settled, PHASE_TIMEOUT_S)
            yield

    async def _maintain_all(self) -> None:
        """Run maintenance on every VM, group by group, and wait until all are in rotation again."""
        self._headline = "client traffic starts"
        await self._traffic.wait_until(lambda: self._traffic.counts().ok > REQUESTS_PER_S)
        kinds = (("Reboot", -1), ("Freeze", 9), ("Redeploy", -1))
        for number, vms in enumerate(self._groups):
            event_type, duration_s = kinds[number % len(kinds)]
            event = self._world.events.schedule(
                event_type,
                *vms,
                notice_s=NOTICE_S if self._with_controller else 2.0,
                duration_s=duration_s,
                impact_s=IMPACT_S,
                started_s=STARTED_S,
            )
            leader = self._leader()
            await self._server.notify()
            self._headline = f"{event_type} of {', '.join(vms)}"
            if self._convert and number == 0:
                await self._convert_set(vms)
            await self._server.wait_until(self._is_gone(event), PHASE_TIMEOUT_S)
            self._headline = f"restore of {', '.join(vms)}"
            await self._server.wait_until(self._all_in_rotation, PHASE_TIMEOUT_S)
            await self._traffic.wait_until(self._all_probed_up)
            self._results += [self._result(event, vm, leader) for vm in vms]
            self._done += 1
        if self._with_controller:
            self._headline = "end of the last drain"
            await self._server.wait_until(self._ledger_is_empty, PHASE_TIMEOUT_S)

    async def _convert_set(self, vms: list[str]) -> None:
        """Convert the set while VMs are out: they are recorded in the ledger only."""
        if self._with_controller:
            out = set(vms)
            await self._server.wait_until(
                lambda: out.isdisjoint(self._world.rotation(self._pool_id)), PHASE_TIMEOUT_S
            )
        self._world.convert_set()
        await self._server.notify()

    def _continued(self) -> bool:
        """Return whether the ledger names the scale set as the one that its VMs are in."""
        return '"converted_to"' in self._last_ledger()

    def _result(self, event: SimEvent, vm: str, leader: str) -> EventResult:
        published = next(c for c in self._world.history if c.subject == event.event_id)
        moves = [
            change
            for change in self._world.changes("member_out", "member_in")
            if change.detail.get("vm") == vm and change.at >= published.at
        ]
        out_at = next((move.at for move in moves if move.kind == "member_out"), None)
        in_at = next((move.at for move in moves if move.kind == "member_in"), None)
        return EventResult(
            event_type=event.event_type,
            vm=vm,
            was_leader=vm == leader,
            notice_s=round(event.not_before - published.at, 1),
            lead_time_s=None if out_at is None else round(event.not_before - out_at, 1),
            out_of_rotation_s=round(in_at - out_at, 1) if out_at and in_at else 0.0,
            acknowledged=bool(event.acknowledged_by),
        )

    @staticmethod
    def _is_gone(event: SimEvent) -> Callable[[], bool]:
        return lambda: event.state is EventState.GONE

    def _all_in_rotation(self) -> bool:
        return len(self._world.rotation(self._pool_id)) == len(self._world.peers())

    def _all_probed_up(self) -> bool:
        return len(self._traffic.eligible()) == len(self._world.peers())

    def _leader(self) -> str:
        leases = self._world.blobs.leases(self._world.now)
        return next((lease.holder for lease in leases if lease.state == "leased"), None) or ""

    def _ledger_is_empty(self) -> bool:
        return '"entries": []' in self._last_ledger()

    def _last_ledger(self) -> str:
        """Return the ledger that was written last; empty before the first."""
        written = reversed(self._world.changes("blob_written"))
        bodies = (str(change.detail.get("body", "")) for change in written)
        return next((each for each in bodies if '"entries"' in each), "")

    async def _mirror_forever(self) -> None:
        """Apply every impact of maintenance in the world to the twin, at the same instants."""
        history = self._world.history
        self._mirrored = len(history)
        while True:
            with suppress(TimeoutError):
                await self._server.wait_until(lambda: len(history) > self._mirrored, 0.2)
            for change in history[self._mirrored :]:
                if change.kind == "vm_down":
                    state = str(change.detail["state"])
                    self._twin.begin_impact(change.subject, "maintenance", state)
                elif change.kind == "vm_up":
                    self._twin.end_impact(change.subject, "maintenance")
            self._mirrored = len(history)
            self._twin.advance(time.time())

    async def _draw_forever(self) -> None:
        while True:
            self._show(
                Progress(
                    world=self._world,
                    leader=self._leader(),
                    headline=self._headline,
                    done=self._done,
                    groups=len(self._groups),
                    counts=self._traffic.counts(),
                    counts_without=self._twin_traffic.counts(),
                )
            )
            await asyncio.sleep(0.2)


def _groups(vms: list[str]) -> list[list[str]]:
    """Split the set into groups for simultaneous maintenance."""
    size = -(-len(vms) // GROUPS_AT_MOST)
    return [vms[start : start + size] for start in range(0, len(vms), size)]


def _comparable(nics: dict[str, Json]) -> dict[str, Json]:
    """Return the NICs without the fields that Azure changes on every write."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            entries = cast("dict[str, object]", value).items()
            return {k: plain(v) for k, v in entries if k not in {"etag", "provisioningState"}}
        if isinstance(value, list):
            return [plain(each) for each in cast("list[object]", value)]
        return value

    return cast("dict[str, Json]", plain(nics))
