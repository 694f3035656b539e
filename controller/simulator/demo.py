"""The main job, live: a simulated set behind a load balancer, maintenance of every VM, real agents.

Two worlds run side by side. In the first, agents (real processes) drain every VM before its
maintenance. The second is its twin without agents: whatever maintenance does to a VM of the first,
it does at the same instant to the VM of the same name in the second. Both carry the same client
traffic, so the difference in lost requests is what the controller saves.
"""

import asyncio
import copy
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from controller.simulator.bodies import Json
from controller.simulator.clients import Counts, Load
from controller.simulator.events import EventState, SimEvent
from controller.simulator.fleet import Fleet
from controller.simulator.server import SimulatorServer
from controller.simulator.settings import WorldSettings
from controller.simulator.traffic import Probe, Traffic
from controller.simulator.world import World, build_world

Flows = Literal["keep", "drop", "reset"]

OPERATION_S = 1.0
"""Latency of a simulated NIC write; about 10 s in Azure."""
NOTICE_S = 10.0
"""At least 5 minutes in Azure."""
IMPACT_S = 3.0
STARTED_S = 4.0
GROUPS_AT_MOST = 4
"""Larger sets are maintained several VMs at a time, as Azure does by update domain."""
PHASE_TIMEOUT_S = 40.0
REQUESTS_PER_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EventResult:
    """What became of one VM in one event."""

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
    """What the demo prints at the end."""

    sent: int
    lost: int
    sent_without: int
    lost_without: int
    events: tuple[EventResult, ...]
    memberships_restored: bool
    leader_changes: int
    duration_s: float

    @property
    def good(self) -> bool:
        """Nothing lost, everything restored."""
        return self.lost == 0 and self.memberships_restored

    def as_json(self) -> dict[str, Any]:
        """Return the object of `--json`."""
        return {
            "requests": {"sent": self.sent, "lost": self.lost},
            "requests_without_controller": {"sent": self.sent_without, "lost": self.lost_without},
            "events": [asdict(event) for event in self.events],
            "memberships_restored": self.memberships_restored,
            "leader_changes": self.leader_changes,
            "duration_s": round(self.duration_s, 1),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the terminal shows while the demo runs."""

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
        flows_on_remove: what Azure does to established flows of a removed member (undocumented).
        show: called about five times a second.
    """

    def __init__(
        self,
        directory: Path,
        *,
        vms: int = 3,
        with_controller: bool = True,
        flows_on_remove: Flows = "keep",
        show: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        settings = WorldSettings(
            operation_latency_s=OPERATION_S,
            pool_operation_latency_s=OPERATION_S,
            ack_starts_event_after_s=1.0,
            flows_on_remove=flows_on_remove,
        )
        now = time.time()
        self._directory, self._with_controller, self._show = directory, with_controller, show
        self._world = build_world(now=now, vms=vms, settings=settings)
        self._twin = build_world(now=now, vms=vms, settings=replace(settings))
        self._pool_id = self._world.pool_ids()[0]
        self._groups = _groups([vm.name for vm in self._world.peers()])
        self._server = SimulatorServer(self._world, directory)
        load, probe = Load(rate_per_s=REQUESTS_PER_S), Probe(interval_s=0.5, timeout_s=0.5)
        self._traffic = Traffic(self._world, self._pool_id, load=load, probe=probe)
        self._twin_traffic = Traffic(self._twin, self._pool_id, load=load, probe=probe)
        self._mirrored = 0
        self._headline = "starting"
        self._done = 0
        self._results: list[EventResult] = []

    async def run(self) -> Result:
        """Run it. Raises TimeoutError when the set does not get through its maintenance."""
        started = time.monotonic()
        before = copy.deepcopy(self._world.nics)
        async with self._server, asyncio.TaskGroup() as group:
            draws = group.create_task(self._draw_forever())
            try:
                async with self._agents():
                    async with self._traffic, self._twin_traffic:
                        mirrors = group.create_task(self._mirror_forever())
                        await self._maintain_all()
                        mirrors.cancel()
                    self._headline = "done"
            finally:
                draws.cancel()
        counts, counts_without = self._traffic.counts(), self._twin_traffic.counts()
        leaders = [change for change in self._world.history if change.kind == "lease_acquire"]
        return Result(
            sent=counts.sent,
            lost=counts.lost,
            sent_without=counts_without.sent,
            lost_without=counts_without.lost,
            events=tuple(self._results),
            memberships_restored=_comparable(before) == _comparable(self._world.nics),
            leader_changes=max(0, len(leaders) - 1),
            duration_s=time.monotonic() - started,
        )

    @asynccontextmanager
    async def _agents(self) -> AsyncGenerator[None]:
        """One agent process per VM, elected and watching; or none at all."""
        if not self._with_controller:
            yield
            return
        self._headline = "agents start and elect a leader"
        async with Fleet(self._server, self._directory) as fleet:

            def settled() -> bool:
                seen = self._world.request_counts
                # Who am I, a token, and the event document.
                watching = all(seen["imds", vm, "GET"] >= 3 for vm in fleet.vms)
                return watching and self._leader() != ""

            await self._server.wait_until(settled, PHASE_TIMEOUT_S)
            yield

    async def _maintain_all(self) -> None:
        """Take every VM through maintenance, group after group, and wait until all are back."""
        self._headline = "client traffic begins"
        await self._traffic.wait_until(lambda: self._traffic.counts().ok > REQUESTS_PER_S)
        kinds = (("Reboot", -1), ("Freeze", 9), ("Redeploy", -1))
        for number, vms in enumerate(self._groups):
            event_type, duration_s = kinds[number % len(kinds)]
            event = self._world.schedule_event(
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
            await self._server.wait_until(self._is_gone(event), PHASE_TIMEOUT_S)
            self._headline = f"{', '.join(vms)} return"
            await self._server.wait_until(self._all_in_rotation, PHASE_TIMEOUT_S)
            await self._traffic.wait_until(self._all_probed_up)
            self._results += [self._result(event, vm, leader) for vm in vms]
            self._done += 1
        if self._with_controller:
            self._headline = "the ledger empties"
            await self._server.wait_until(self._ledger_is_empty, PHASE_TIMEOUT_S)

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
        written = [
            change
            for change in self._world.changes("blob_written")
            if not change.subject.endswith(".requests.json")
        ]
        body = str(written[-1].detail.get("body", "")) if written else ""
        return '"entries": []' in body

    async def _mirror_forever(self) -> None:
        """Do to the twin what maintenance does to the world, at the same instants."""
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
    """Split the set into the groups that are maintained together."""
    size = -(-len(vms) // GROUPS_AT_MOST)
    return [vms[start : start + size] for start in range(0, len(vms), size)]


def _comparable(nics: dict[str, Json]) -> dict[str, Json]:
    """Return the NICs without what Azure changes on every write."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            entries = cast("dict[str, object]", value).items()
            return {k: plain(v) for k, v in entries if k not in {"etag", "provisioningState"}}
        if isinstance(value, list):
            return [plain(each) for each in cast("list[object]", value)]
        return value

    return cast("dict[str, Json]", plain(nics))
