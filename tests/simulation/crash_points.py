"""The leader dies at every request it sends: another one finishes the work, as if nothing had been.

Each scenario is one maintenance, or one drain on request. It is played once undisturbed, and every
request is noted that leaves the leader of the moment: the agent that holds the lease when it
leaves, or that asks for it while no agent holds it. That is from the instant the event is published
or the drain is requested (in `restore`: from the end of the event) until the ledger is empty again.
Then it is played again for each of these requests twice, and the process that sends it is killed:
once before the request leaves, once when the simulated Azure has done what it asks and its reply is
still on the way. Runs are deterministic: up to there each is the undisturbed one.

The dead agent stays dead until no work is left, while its VM stays up and in its pools. (A VM whose
reboot is the maintenance starts its agent when it is up, as any other.) All laws have to be kept,
and the end has to be the one of the undisturbed run. No request is left out.

In `the closing VM` it is the agent of the affected VM that dies, at every request of its own: it
reads the ledger, closes its VM and reports that.
"""

import gc
import multiprocessing
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from types import MappingProxyType
from typing import Any

from controller.simulator.services.http_values import Reply, Request
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.events import EventState
from controller.simulator.world.world import World
from tests.simulation import campaign
from tests.simulation.host import Host
from tests.simulation.memory_transport import SERIAL, Departure
from tests.simulation.runner import Simulation
from tests.simulation.scenario import Act, Habits, Scenario, Storm

PUBLISHED_AT_S = 31.0
"""Laws S7 and L2 hold agents to nothing in the first 30 s of the calm, with which it all begins."""
FOUND_AT_S = 182.0
"""From here on Azure finds the lost pool again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintenance:
    """One scenario, and which part of it is tried."""

    scenario: Scenario
    over: bool = False
    """Whether the leader dies only once the event is over; otherwise from its publication on."""
    dies: str = ""
    """The VM whose agent dies; empty: that of the leader of the moment."""


class Moment(Enum):
    """When a process dies, seen from one of its requests."""

    BEFORE_IT_LEAVES = "before it leaves"
    BEFORE_ITS_REPLY = "before its reply"


@dataclass(frozen=True, slots=True)
class Point:
    """Where the leader dies."""

    vm: str
    request: str
    """Service, verb and what is meant; for the reader, and to see that a replay is one."""
    serial: int
    """Of the request, among all of the run."""
    moment: Moment

    def __str__(self) -> str:
        return f"{self.vm} dies {self.moment.value}, request {self.serial}: {self.request}"


@dataclass(slots=True)
class Tried:
    """What came of one scenario."""

    name: str
    requests: int = 0
    points: int = 0
    broken: list[str] = field(default_factory=list[str])
    """One line for each point at which anything is wrong."""
    took_s: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.requests} requests, {self.points} points, "
            f"{len(self.broken)} broken, {self.took_s:.0f} s"
        )


def _scenario(
    name: str, *vms: str, latency_s: float = 1.0, acts: tuple[Act, ...] = (), **options: Any
) -> Scenario:
    event = {
        "event_type": "Reboot",
        "vms": vms,
        "notice_s": 300.0,
        "impact_s": 1.0,
        "started_s": 2.5,
    }
    return Scenario(
        seed=1,
        name=name,
        settings={
            "operation_latency_s": latency_s,
            "pool_operation_latency_s": latency_s,
            "ack_starts_event_after_s": 0.5,
        },
        policy={"connection_drain_s": 1, "restore_settle_s": 1},
        election={"lease_duration_s": 15, "renew_period_s": 3, "request_timeout_s": 2},
        acts=(Act(PUBLISHED_AT_S, "event", event), *acts),
        patience_s=600.0,
        idle_s=2.0,
        **options,
    )


def _asked(at_s: float, for_s: float, request_id: str) -> Act:
    return Act(at_s, "ask", {"vm": "web-2", "for_s": for_s, "request_id": request_id})


def _closing(name: str) -> Scenario:
    each = Habits(ends_within_s=1.0)
    return replace(
        _scenario(name, "web-2"),
        policy={"close": True, "connection_drain_s": 12, "restore_settle_s": 3},
        drain={"quiet_s": 1, "open_after_s": 60},
        habits=dict.fromkeys(("web-1", "web-2", "web-3"), each),
    )


LEADER = "web-1"
"""Who leads when the event is published: its agent starts first."""
SCENARIOS: Mapping[str, Maintenance] = MappingProxyType(
    {
        each.scenario.name: each
        for each in (
            Maintenance(scenario=_scenario("one VM", "web-2")),
            Maintenance(scenario=_scenario("several VMs", "web-2", "web-3", floors={"app": 1})),
            Maintenance(scenario=_scenario("address pool", "web-2", ip_pools=("internal",))),
            Maintenance(scenario=_scenario("leader is the victim", LEADER)),
            Maintenance(scenario=_scenario("restore", "web-2"), over=True),
            Maintenance(scenario=_closing("closing")),
            Maintenance(scenario=_closing("the closing VM"), dies="web-2"),
            Maintenance(
                scenario=_scenario(
                    "put back while out", "web-2", acts=(Act(PUBLISHED_AT_S + 2.6, "put_back"),)
                )
            ),
            Maintenance(
                scenario=_scenario(
                    "converted set", "web-2", acts=(Act(PUBLISHED_AT_S + 2.6, "convert_set"),)
                )
            ),
            # The next leader reads the inventory, and continues in the scale set.
            Maintenance(
                scenario=_scenario(
                    "conversion", LEADER, acts=(Act(PUBLISHED_AT_S - 0.5, "convert_set"),)
                )
            ),
            # Network finds nothing for minutes, while the VM is out: its membership is lost.
            Maintenance(
                scenario=replace(
                    _scenario("lost pool", "web-2"),
                    storms=(Storm("arm 404", 50.0, FOUND_AT_S),),
                    calm_at_s=FOUND_AT_S,
                    election={"lease_duration_s": 30, "renew_period_s": 8},
                    watch={"leader_poll_s": 5},
                )
            ),
            Maintenance(
                scenario=replace(
                    _scenario("two requests"),
                    acts=(_asked(PUBLISHED_AT_S, 40.0, "long"), _asked(40.0, 15.0, "short")),
                )
            ),
            # The lease lasts 15 s: who takes over finds the operations of the dead under way.
            Maintenance(scenario=_scenario("slow writes", "web-2", latency_s=22.0)),
        )
    }
)


def explore(name: str, jobs: int = 1, every: int = 1) -> Tried:
    """Try the points of the scenario of this name: all of them, or one of so many."""
    began = time.monotonic()
    tried = Tried(name)
    maintenance = SCENARIOS[name]
    simulation = Simulation(maintenance.scenario)
    leadership = _Leadership(simulation, maintenance)
    tried.broken += [f"undisturbed: {each}" for each in campaign.judge(simulation.run())]
    if leadership.first != LEADER:
        tried.broken.append(f"undisturbed: led by {leadership.first or 'nobody'}")
    tried.requests = len(leadership.sent)
    points = [
        Point(each.vm, _words(each), each.serial, moment)
        for each in leadership.sent
        for moment in Moment
    ][::every]
    attempt = partial(_attempt, name, end_state(simulation))
    with multiprocessing.get_context("fork").Pool(jobs, _keep_what_is_there) as pool:
        for point, broken in zip(points, pool.imap(attempt, points), strict=True):
            tried.points += 1
            if broken:
                tried.broken.append(f"{point}: {'; '.join(broken)}")
    tried.took_s = time.monotonic() - began
    return tried


def _keep_what_is_there() -> None:
    """Spare the collector what is imported: every run leaves megabytes of true garbage."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _attempt(name: str, wanted: Mapping[str, object], point: Point) -> list[str]:
    """Play a scenario in which the leader dies at one point; return what is wrong then."""
    simulation = Simulation(SCENARIOS[name].scenario)
    death = _Death(simulation, point)
    broken = [str(each) for each in campaign.judge(simulation.run())]
    if not death.happened:
        broken.append("the run took another course: nobody died")
    found = end_state(simulation)
    broken += [
        f"{what} ends otherwise than undisturbed"
        for what in sorted({*wanted, *found})
        if found.get(what) != wanted.get(what)
    ]
    return broken


def _words(departure: Departure) -> str:
    return f"{departure.service.value} {departure.method} {departure.target.rsplit('/', 1)[-1]}"


class _Leadership:
    """Notes the requests of the agent that dies, while there is work."""

    def __init__(self, simulation: Simulation, maintenance: Maintenance) -> None:
        self.first = ""
        """Who led when the first of them left."""
        self.sent: list[Departure] = []
        self._simulation, self._maintenance = simulation, maintenance
        self._recorded = False
        simulation.departing.append(self._departing)

    def _departing(self, departure: Departure, _host: Host) -> bool:
        entries = self._simulation.stage.ledger().get("entries", [])
        began = self._simulation.loop.now >= PUBLISHED_AT_S
        if self._maintenance.over:
            events = self._simulation.world.events.events
            began = began and all(event.state is EventState.GONE for event in events)
        done = self._recorded and not entries
        self._recorded = self._recorded or bool(entries)
        leader = _leader(self._simulation)
        if began and not done:
            self.first = self.first or leader
            dies = self._maintenance.dies or leader
            if departure.vm == dies or (not dies and _asks_to_lead(departure)):
                self.sent.append(departure)
        return True


class _Death:
    """Kills one process over one of its requests, and starts it again when no work is left."""

    def __init__(self, simulation: Simulation, point: Point) -> None:
        self.happened = False
        self._simulation, self._point = simulation, point
        self._host = simulation.hosts[point.vm]
        self._buried = False
        simulation.departing.append(self._departing)
        simulation.handled.append(self._handled)

    def _departing(self, departure: Departure, host: Host) -> bool:
        if departure.serial != self._point.serial:
            return True
        if (departure.vm, _words(departure)) != (self._point.vm, self._point.request):
            return True
        if self._point.moment is Moment.BEFORE_IT_LEAVES:
            self._die()
        return not self.happened

    def _handled(self, request: Request, _reply: Reply) -> None:
        awaited = self._point.moment is Moment.BEFORE_ITS_REPLY and not self.happened
        if awaited and request.headers.get(SERIAL) == str(self._point.serial):
            self._die()
        elif self.happened and not self._buried and self._no_work_left():
            self._buried = True
            self._host.boot()

    def _die(self) -> None:
        self.happened = True
        self._host.crash(None)

    def _no_work_left(self) -> bool:
        stage = self._simulation.stage
        return not stage.events_pending() and not stage.ledger().get("entries")


def _asks_to_lead(departure: Departure) -> bool:
    return b"\r\nx-ms-lease-action: acquire\r\n" in departure.head.lower()


def _leader(simulation: Simulation) -> str:
    leases = simulation.world.blobs.leases(simulation.epoch())
    return next((lease.holder for lease in leases if lease.holder), "")


# --- the end


def end_state(simulation: Simulation) -> dict[str, object]:
    """Return what has to be the same however the work was done."""
    world = simulation.world
    state: dict[str, object] = {nic["name"]: _without_etags(nic) for nic in world.nics.values()}
    state |= {pool.rsplit("/", 1)[-1]: sorted(_members(world, pool)) for pool in world.pool_ids()}
    state["ledger"] = simulation.stage.ledger().get("entries")
    state["acknowledged"] = [
        any(vm in simulation.hosts for vm in event.acknowledged_by) for event in world.events.events
    ]
    return state


def _members(world: World, pool: str) -> Iterator[str]:
    """Yield the members of a pool, addresses with all that is said of them."""
    body: Json = world.find_pool(pool) or {}
    addresses = body["properties"]["loadBalancerBackendAddresses"]
    yield from (key(member.identity) for member in world.members(pool))
    yield from (str(_without_etags(address)) for address in addresses)


def _without_etags(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_etags(part) for name, part in value.items() if name != "etag"}
    return [_without_etags(part) for part in value] if isinstance(value, list) else value
