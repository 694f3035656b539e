"""Plays a scenario: whole agents on virtual time against the simulated Azure, to its history.

The agents are `controller.agent.agent.Agent` as `lb-drain run` starts it, given nothing but
settings, a clock, randomness and sessions. What happened is told by the simulated Azure
(`World.history`), and by what was seen on the wires; what agents say of themselves is only listened
to for law H2.
"""

import asyncio
import json
import logging
import random
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import azure.mgmt.compute.aio  # an agent would import them in a thread, and there are none
import azure.mgmt.network.aio  # noqa: F401

from controller.config.schema import Settings
from controller.simulator.app.agent_processes import CONTAINER
from controller.simulator.app.server import ACCOUNT, SimulatorServer
from controller.simulator.services.http_values import Reply, Request, Service
from controller.simulator.world.history import Change
from controller.simulator.world.world import World
from tests.simulation.concurrent_edits import Rivals
from tests.simulation.host import Host
from tests.simulation.loop import RunawayError, VirtualLoop, current_process
from tests.simulation.machine import SimMachine
from tests.simulation.memory_transport import SERIAL, Departure, Passage, Wires, unit
from tests.simulation.older_agents import older_writers
from tests.simulation.request_faults import (
    JOURNEYS,
    LATE_LEDGER,
    LATE_S,
    RIVAL,
    SPIKE_S,
    Weather,
    between,
)
from tests.simulation.rolling_runs import RollingOperator, repeatable_ids
from tests.simulation.scenario import Habits, Scenario
from tests.simulation.world_events import Stage
from tests.simulation.worlds import sets_of, world_of

EPOCH = 1_780_000_000.0
"""Where every simulation starts, in epoch seconds."""
IMDS, ARM, BLOB = "http://127.0.0.1:8001", "https://127.0.0.1:8002", "https://127.0.0.1:8003"
LOOK_EVERY_S = 2.0
LOOKS = 3
"""So often in a row it has to look settled: one look may fall into an agent's everyday read."""
LAST_WORDS_S = 10.0
"""Whatever is said of an event that has just ended is said within so long."""
TICK_AFTER_S = 1e-6
"""Epoch seconds are too coarse to meet an instant exactly: the world is woken just after it."""
GOODBYE_S = 15.0
CLEAR_AWAY_S = 60.0


@dataclass(slots=True)
class Played:
    """What came of a scenario."""

    scenario: Scenario
    start: World
    """A world as it was before anything happened."""
    world: World
    history: tuple[Change, ...]
    marks: set[str] = field(default_factory=set[str])


class Simulation:
    """One run."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.loop = VirtualLoop(scenario.seed)
        self.world = world_of(scenario, EPOCH)
        self.history: tuple[Change, ...] = ()
        self.marks: set[str] = set()
        self.departing: list[Callable[[Departure, Host], bool]] = []
        """Asked about each request that leaves; False when its process died over it."""
        self.handled: list[Callable[[Request, Reply], None]] = []
        """Told of each request that was handled, before its reply leaves."""
        self.server = SimulatorServer(self.world, Path(), clock=self.epoch)
        self.server.faults = Weather(
            scenario.seed,
            scenario.storms,
            start=EPOCH,
            struck=self.marks.add,
            arrived=self._arrived,
        )
        self._sent_at: dict[str, float] = {}
        self.server.observers.append(self._observe)
        self.world.settings.arm_endpoint = ARM
        self.world.blobs.create_container(ACCOUNT, CONTAINER, EPOCH)
        self.world.blobs.wait_after_expiry_s = scenario.wait_after_expiry_s
        self._cuts = [storm for storm in scenario.storms if storm.kind == "cut"]
        ways = (*JOURNEYS, LATE_LEDGER)
        self._journeys = [storm for storm in scenario.storms if storm.kind in ways]
        self._rivals = Rivals(scenario, self.world, lambda: self.loop.now)
        self.wires = Wires(
            self.loop,
            handlers=lambda service, vm: self.server.handler(service, vm or None),
            leaving=self._leaving,
            cut_until=self._cut_until,
        )
        every = [vm for vms in sets_of(self.world).values() for vm in vms]
        self.machines = {
            vm: SimMachine(self, vm, scenario.habits.get(vm, Habits())) for vm in every
        }
        self.hosts = {vm: Host(self, vm, settings_of(scenario, self.world, vm)) for vm in every}
        self.seconds: list[Host] = []
        """Second agents on VMs that have one already."""
        self.operators: list[RollingOperator] = []
        self._commands: dict[str, str] = {}
        """By serial: which command, and no agent, has sent a request."""
        self.stage = Stage(self)
        self._seen = len(self.world.history)
        self._timer: asyncio.TimerHandle | None = None

    # --- time and record

    def epoch(self) -> float:
        """Return what the time truly is."""
        return EPOCH + self.loop.now

    def record(self, kind: str, subject: str, **detail: object) -> None:
        """Append to the history what the simulated Azure cannot know."""
        self.world.history.append(Change(self.epoch(), kind, subject, MappingProxyType(detail)))

    # --- running

    def run(self) -> Played:
        """Play the scenario to its end."""
        start = world_of(self.scenario, EPOCH)
        with _sealed(self), _listening(self):
            try:
                self.loop.run_until_complete(self._main())
                self.loop.run_until_complete(self._clear_away())
            except RunawayError as error:
                self.record("complaint", "loop", message=str(error))
                self.history = tuple(self.world.history)
            finally:
                self.loop.close()
        return Played(
            scenario=self.scenario,
            start=start,
            world=self.world,
            history=self.history,
            marks=self.marks,
        )

    async def _main(self) -> None:
        scenario = self.scenario
        for order, host in enumerate(self.hosts.values()):
            self.loop.call_later(0.3 * order, host.boot)
        for act in scenario.acts:
            self.loop.call_at(act.at_s, self._perform, act)
        self.loop.call_at(scenario.calm_at_s, self._calm)
        self.loop.call_at(scenario.calm_at_s + scenario.patience_s, self._take_back)
        await asyncio.sleep(scenario.calm_at_s + 1)
        quiet_since = self.loop.now
        if any(storm.kind in ("late", LATE_LEDGER) for storm in scenario.storms):
            quiet_since += LATE_S[1]  # what was sent then may arrive only now
        settled = 0
        while self.loop.now < quiet_since + scenario.converge_within_s:
            if self.stage.events_pending():
                quiet_since = self.loop.now
            late = self.loop.now > quiet_since + LAST_WORDS_S
            settled = settled + 1 if late and self.stage.converged() else 0
            if settled == LOOKS:
                break
            await asyncio.sleep(LOOK_EVERY_S)
        self.record("converged" if settled == LOOKS else "not_converged", "set")
        await asyncio.sleep(scenario.idle_s)
        self.record("goodbye", "set")
        await self._say_goodbye()
        for complaint in self.loop.complaints:
            self.record("complaint", "loop", message=complaint)
        self.history = tuple(self.world.history)

    async def _say_goodbye(self) -> None:
        """Stop every agent as its service manager would, and see what it leaves."""
        for host in self.hosts.values():
            host.stop()
        deadline = self.loop.now + GOODBYE_S
        while self.loop.now < deadline and any(host.running for host in self.hosts.values()):
            await asyncio.sleep(0.5)
        for host in self.hosts.values():
            host.left_behind()

    async def _clear_away(self) -> None:
        """Leave nothing behind for the garbage collector; the history is over."""
        self.wires.closed = True
        for operator in self.operators:
            operator.kill()
        every: list[Host | RollingOperator] = [
            *self.hosts.values(),
            *self.seconds,
            *self.operators,
        ]
        for host in every:
            host.exhume()
        deadline = self.loop.now + CLEAR_AWAY_S
        while self.loop.now < deadline and any(host.restless for host in every):
            await asyncio.sleep(0.5)
        await self.wires.close()

    def _perform(self, act: Any) -> None:
        self.world.advance(self.epoch())
        self.record("act", act.what, text=str(act))
        self.marks.add(f"act: {act.what}")
        self.stage.perform(act)
        self.record("act_over", act.what)
        self.follow()

    def _calm(self) -> None:
        self.world.advance(self.epoch())
        self.record("calm", "set")
        self.stage.repair()
        self.follow()

    def _take_back(self) -> None:
        self.world.advance(self.epoch())
        self.stage.take_back()
        self.follow()

    # --- the world around the agents

    def second_process(self, vm: str) -> Host:
        """Start a second agent on a VM."""
        boots = 100 * (len(self.seconds) + 1)  # its randomness is not that of the first one
        host = Host(self, vm, settings_of(self.scenario, self.world, vm), boots=boots)
        self.seconds.append(host)
        host.boot()
        return host

    def follow(self) -> None:
        """Do to each agent what happened to its VM, and wake up when the world changes next."""
        while self._seen < len(self.world.history):
            change = self.world.history[self._seen]
            self._seen += 1
            if change.subject in self.machines:
                self.machines[change.subject].follow(change)
            for host in (*self.hosts.values(), *self.seconds):
                if host.vm == change.subject:
                    host.follow(change)
            for operator in self.operators:
                operator.follow(change)
        due = self.world.next_timer()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            at = max(due - EPOCH, self.loop.now) + TICK_AFTER_S
            self._timer = self.loop.call_at(at, self._tick, context=self.wires.context)

    def _tick(self) -> None:
        self._timer = None
        self.world.advance(self.epoch())
        self.follow()

    def _arrived(self, request: Request, vm: str) -> None:
        serial = request.headers.get(SERIAL, "")
        self.record(
            "arrived",
            request.path,
            service=request.service.value,
            vm=self._commands.get(serial, vm),
            method=request.method,
            sent_at=self._sent_at.pop(serial, 0.0),
            serial=serial,
        )

    def _observe(self, request: Request, reply: Reply) -> None:
        self.record(
            "request",
            request.path,
            service=request.service.value,
            vm=self._sender(request),
            method=request.method,
            query=_significant(request),
            status=reply.status,
            delivery=reply.delivery.value,
            said=_said(request, reply),
            wait=_told_to_wait(reply),
        )
        for listener in self.handled:
            listener(request, reply)
        self.follow()
        if (deed := self._rivals.provoked(request, reply)) is not None:
            self.marks.add(RIVAL)
            self.loop.call_at(deed.at_s, self._perform, deed, context=self.wires.context)

    def _sender(self, request: Request) -> str:
        command = self._commands.get(request.headers.get(SERIAL, ""))
        return command or _caller(self.world, request)

    # --- the wires

    def _leaving(self, departure: Departure) -> Passage | None:
        host, sender = self.hosts[departure.vm], departure.vm
        self._sent_at[str(departure.serial)] = self.epoch()
        process = current_process()
        if process is not None and process.name not in self.hosts:
            sender = self._commands[str(departure.serial)] = process.name
        self.record(
            "sent",
            departure.target.partition("?")[0],
            service=departure.service.value,
            vm=sender,
            method=departure.method,
            query=departure.target.partition("?")[2],
            lease_action=_header(departure.head, b"x-ms-lease-action"),
            create=_header(departure.head, b"if-none-match") == "*",
            serial=str(departure.serial),
        )
        for listener in self.departing:
            if not listener(departure, host):
                return None
        which = (self.scenario.seed, departure.vm, departure.service, departure.method)
        near = departure.service is Service.IMDS
        share = unit(*which, departure.target, departure.number, "way")
        out_s = between(0.0005, 0.003, share) if near else between(0.003, 0.05, share)
        back_s = out_s * 0.8
        for storm in self._journeys:
            if near or not storm.from_s <= self.loop.now < storm.until_s:
                continue
            if storm.vm not in ("", departure.vm):
                continue
            if storm.kind == LATE_LEDGER and not _writes_ledger(departure):
                continue
            lot = unit(*which, departure.target, departure.number, storm.kind)
            if lot < storm.chance:
                self.marks.add(storm.kind)
                low, high = SPIKE_S if storm.kind == "slow" else LATE_S
                out_s = between(low, high, unit(*which, departure.number, "far"))
        return Passage(out_s, back_s)

    def _cut_until(self, vm: str, service: Service) -> float | None:
        ends = [
            storm.until_s
            for storm in self._cuts
            if storm.from_s <= self.loop.now < storm.until_s
            and storm.vm in ("", vm)
            and storm.service in ("", service.value)
        ]
        if ends:
            self.marks.add(f"cut {service.value}")
        return max(ends, default=None)


# --- making things


def settings_of(scenario: Scenario, world: World, vm: str) -> Settings:
    """Return what the operator of this set has configured."""
    pools = [
        {
            "id": pool.upper() if scenario.shout else pool,
            "min_in_service": scenario.floors.get(pool.rsplit("/", 1)[-1], 1),
        }
        for pool in world.pool_ids()
    ]
    return Settings.model_validate(
        {
            "backend_pools": pools,
            "election": {
                "container_url": f"{BLOB}/{ACCOUNT}/{CONTAINER}",
                **scenario.election,
            },
            "drain": dict(scenario.drain),
            "hooks": [{"on": stage, "command": ["/hook", stage]} for stage in scenario.hooks],
            "policy": {"close": False, **scenario.policy, **scenario.own_policy.get(vm, {})},
            "watch": dict(scenario.watch),
            "azure": {
                "resource_manager_endpoint": ARM,
                "imds_endpoint": IMDS,
                **scenario.azure,
            },
            "events": dict(scenario.events),
            "server": {"listen": ""},
        }
    )


# --- looking at requests


def _caller(world: World, request: Request) -> str:
    if request.service is Service.IMDS:
        return request.vm or ""
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    found = world.issuer.read(credential.strip()) if scheme.casefold() == "bearer" else None
    return found.principal if found is not None else ""


def _significant(request: Request) -> str:
    return request.headers.get("x-ms-lease-action", "") or request.parameter("comp")


def _said(request: Request, reply: Reply) -> str:
    """Return what a poll told: id and status of each event, or "?" when it told nothing."""
    if request.method != "GET" or not request.path.endswith("/scheduledevents"):
        return ""
    if reply.status != 200 or reply.delivery.value != "normal":
        return "?"
    try:
        events = json.loads(reply.body)["Events"]
        return ",".join(["!", *(f"{each['EventId']}:{each['EventStatus']}" for each in events)])
    except (ValueError, KeyError, TypeError):
        return "?"


def _told_to_wait(reply: Reply) -> str:
    wait = next((v for k, v in reply.headers.items() if k.casefold() == "retry-after"), "")
    return wait if reply.status in (409, 429, 503) and reply.delivery.value == "normal" else ""


def _writes_ledger(departure: Departure) -> bool:
    plain = "comp=lease" not in departure.target and not _header(departure.head, b"if-none-match")
    return departure.service is Service.BLOB and departure.method == "PUT" and plain


def _header(head: bytes, name: bytes) -> str:
    at = head.lower().find(b"\r\n" + name + b": ")
    if at < 0:
        return ""
    begin = at + len(name) + 4
    return head[begin : head.index(b"\r\n", begin)].decode()


# --- sealing off


@contextmanager
def _sealed(simulation: Simulation) -> Iterator[None]:
    """Give the libraries below the agents the simulated time, and nothing that differs in a rerun.

    azure-identity compares the lifetime of tokens with `time.time`; an agent's is its own clock.
    """

    def now() -> float:
        process = current_process()
        host = simulation.hosts.get(process.name) if process is not None else None
        return simulation.epoch() if host is None else host.wall()

    random.seed(simulation.scenario.seed)
    with (
        simulation.stage.harsh.odd_replies(),
        repeatable_ids(simulation.scenario.seed),
        older_writers(simulation.scenario.older, simulation.marks.add),
        patch("time.time", now),
        patch("ssl.create_default_context", lambda: _TLS),
    ):
        yield


_TLS = ssl.create_default_context()


@contextmanager
def _listening(simulation: Simulation) -> Iterator[None]:
    """Put what agents log into the history."""

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            process = current_process()
            simulation.record(
                "log",
                process.name if process is not None else "",
                level=record.levelname,
                logger=record.name,
                message=record.getMessage(),
                trace=record.exc_info is not None,
            )

    ear, root, ours = Ear(), logging.getLogger(), logging.getLogger("lbdrain")
    before = (list(root.handlers), root.level, ours.level)
    root.handlers = [ear]
    root.setLevel(logging.WARNING)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers = before[0]
        root.setLevel(before[1])
        ours.setLevel(before[2])
