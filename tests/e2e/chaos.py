"""Five real agents, real TCP and TLS, a real blob service, and everything goes wrong at once.

    python -m tests.e2e.chaos --minutes 10 [--seed N] [--directory DIR]

While clients send requests without a pause, agents are killed, stopped and started, single agents
and all of them lose IMDS, Resource Manager or storage for a while, single ones for longer than a
lease, the identity of a VM loses a permission, Azure refuses, forgets and fails, and one
maintenance follows another. Then the disturbances end, and all has to be as in the beginning.
The seed is printed, and with `--seed` the same steps are taken again (`schedule.py`).

Where things are: the simulator serves IMDS and Resource Manager, Azurite serves the blob with the
lease and the ledger (`azurite.py`: TLS, and the tokens of the simulated identities), and a TCP
proxy of its own leads each agent to each of the three (`proxy.py`).

What is checked:

- The laws S1 to S7 and H2 as everywhere (`laws.py`), S4 by what Azurite granted: a witness in front
  of it writes leases and ledgers into the history. What a stall delivered late is judged by when it
  may have left, and what an agent should have known by how long it may rely on its last document.
- L1: within a bound all NICs and pools are as in the beginning, the ledger is empty, one agent
  leads and none has ended by itself.
- Every request of every kind of client is answered, but for those that the platform makes
  impossible (`tests/support/losses.py`).

What is not: how long anything takes. Machines are slow and so may the agents be; an event gives the
shortest notice that Azure gives, and starts as soon as it is acknowledged. H1 is for idle sets.

So that nothing but an agent can cost a request, never more than three of the five VMs are
announced, out or down, and never more than one of them without notice; the floor is two.
"""

import argparse
import asyncio
import json
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import groupby, product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from controller.simulator.app.agent_processes import CONTAINER, AgentProcesses, Overrides
from controller.simulator.app.server import ACCOUNT, SimulatorServer
from controller.simulator.app.tls import Certificates
from controller.simulator.services.http_values import Service
from controller.simulator.traffic.balancer import Traffic
from controller.simulator.traffic.load import Load
from controller.simulator.traffic.probes import Probe
from controller.simulator.traffic.sockets import HOST
from controller.simulator.world.bodies import Json
from controller.simulator.world.builder import build_world
from controller.simulator.world.history import Change
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.world import World
from tests.e2e.report import Outcome
from tests.e2e.schedule import (
    EVERYBODY,
    FAULTS,
    LANES,
    LEADER,
    MOST_LATE_S,
    NOTICE_S,
    PERMISSIONS,
    SERVICES,
    UNANNOUNCED,
    Step,
    steps,
)
from tests.laws.judge import WITHOUT_REQUESTS
from tests.laws.liveness import s7_in_time
from tests.support.azurite import Witness, run_azurite
from tests.support.losses import explanations
from tests.support.process_set import QUICK, ProcessSet
from tests.support.proxy import Network, Proxy

VMS = 5
FLOOR = 2
MOST_BUSY = 3
MOST_UNANNOUNCED = 1
STARTS_WITHIN_S = 240.0
CONVERGES_WITHIN_S = 300.0
"""A lease that has to run out, and maintenances one after the other; only bounds a broken run."""
ANSWERED_WITHIN_S = 6.0
"""When a client gives up: long for a busy machine, and shorter than a freeze."""
FASTER = 10.0
"""Clients do everything this many times faster than in reality, but for their patience."""
DOCUMENT_FRESH_S = 30.0
"""For how long an agent may act on the last event document that it could read."""
LANDS_WITHIN_S = 5.0
"""What a stall held back has arrived so long after it ended, on a busy machine."""
NEVER_S = 1e6
SETTINGS: Overrides = {
    **QUICK,
    "election": {"lease_duration_s": 15, "renew_period_s": 3, "request_timeout_s": 4},
    # A second for slow answers and uploads; the rest is for a busy machine.
    "policy": {"lead_time_s": 900, "connection_drain_s": 3, "restore_settle_s": 3},
    "watch": {"leader_poll_s": 1, "standby_poll_s": 3, "timeout_s": 3},
    "backend_pools": {"min_in_service": FLOOR},
}


class Lines:
    """The proxies: one for each agent and service."""

    def __init__(self, server: SimulatorServer, witness: Witness) -> None:
        arm_port = urlsplit(server.arm_url).port or 0
        self.proxies: dict[tuple[str, Service], Proxy] = {}
        for vm in server.world.peers():
            imds_port = urlsplit(server.imds_url(vm.name)).port or 0
            self.proxies[vm.name, Service.IMDS] = Proxy(imds_port)
            self.proxies[vm.name, Service.ARM] = Proxy(arm_port)
            self.proxies[vm.name, Service.BLOB] = Proxy(witness.port)
        self._since: dict[tuple[str, Service], float] = {}
        self._stalls: list[tuple[str, Service, float, float]] = []

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Relay until left."""
        try:
            for proxy in self.proxies.values():
                await proxy.start()
            yield
        finally:
            await asyncio.gather(*(proxy.stop() for proxy in self.proxies.values()))

    def settings(self, vm: str) -> Overrides:
        """Return the settings of one agent: its own way to each service."""
        imds, arm, blob = (self.proxies[vm, service].port for service in SERVICES)
        return {
            "election": {"container_url": f"https://{HOST}:{blob}/{ACCOUNT}/{CONTAINER}"},
            "azure": {
                "resource_manager_endpoint": f"https://{HOST}:{arm}",
                "imds_endpoint": f"http://{HOST}:{imds}",
            },
        }

    def become(self, vm: str, service: Service, network: Network) -> None:
        """Change the network between an agent and a service."""
        line, now = (vm, service), time.time()
        if self.proxies[line].network is Network.STALLED:
            self._stalls.append((*line, self._since[line], now))
        self._since[line] = now
        self.proxies[line].become(network)

    def left_at(self, change: Change) -> float:
        """Return when, at the earliest, the request behind a change left its agent."""
        service = {"write": Service.ARM, "event_acknowledged": Service.IMDS}.get(change.kind)
        for vm, stalled, since, until in self._stalls:
            in_time = until <= change.at <= until + LANDS_WITHIN_S
            if in_time and stalled is service and vm == change.detail["by"]:
                return since
        return change.at


class ChaosRig(ProcessSet):
    """A rig whose lease and ledger are in Azurite."""

    def __init__(
        self, world: World, server: SimulatorServer, fleet: AgentProcesses, witness: Witness
    ):
        super().__init__(world, server, fleet, floor=FLOOR)
        self._witness = witness
        self.laws = {**WITHOUT_REQUESTS, "S7 in time": s7_in_time}

    def ledger(self) -> Json:
        """Return what the ledger says now; empty when it says nothing."""
        return dict(json.loads(self._witness.ledger or b"{}"))

    def leading(self) -> str:
        """Return the VM whose agent holds the lease and wrote the ledger last, else nothing."""
        holder = self._witness.holder()
        return holder if holder and self.ledger().get("leader") == holder else ""

    def judge_by(self, lines: Lines) -> None:
        """Allow for what stalls and blindness do to agents that obey the laws."""
        blind_s = DOCUMENT_FRESH_S + MOST_LATE_S
        self.replay.conditions = replace(
            self.replay.conditions, left_at=lines.left_at, blind_s=blind_s
        )


class Chaos:
    """One run."""

    def __init__(self, rig: ChaosRig, lines: Lines, *, seed: int) -> None:
        self.rig, self.lines, self.seed = rig, lines, seed
        self.world, self.server, self.fleet = rig.world, rig.server, rig.fleet
        self.traffic = Traffic(
            self.world,
            self.world.pool_id("app"),
            load=Load(rate_per_s=30, timeout_s=ANSWERED_WITHIN_S, seed=seed).accelerated(FASTER),
            probe=Probe(interval_s=1, timeout_s=3),
        )
        self.done: dict[str, Counter[str]] = {lane: Counter() for lane in LANES}
        self.broken: list[str] = []
        self._killed: set[str] = set()
        self._cut_off: set[tuple[str, Service]] = set()
        self._unannounced: set[str] = set()

    async def disturb(self, for_s: float) -> None:
        """Run all lanes side by side for so long."""
        lanes = (
            self._processes(),
            self._network(),
            self._cuts(),
            self._roles(),
            self._azure(),
            self._events(),
        )
        try:
            async with asyncio.timeout(for_s), asyncio.TaskGroup() as group:
                for lane in lanes:
                    group.create_task(lane)
        except TimeoutError:
            pass

    async def calm(self) -> None:
        """End every disturbance; events that are announced take their course."""
        self.server.faults.clear()
        for vm, permission in product(self.rig.vms, PERMISSIONS):
            self.world.roles.reinstate(vm, permission)
        for vm, service in self.lines.proxies:
            self.lines.become(vm, service, Network.CLEAR)
        for vm in self.rig.vms:
            self.world.end_impact(vm, "failure")
            self._resume(vm)
            await self._check_alive(vm)
            await self._revive(vm)
        await self.server.notify()

    async def converge(self) -> None:
        """Law L1."""
        try:
            await self.rig.settled(within_s=CONVERGES_WITHIN_S)
            await self.traffic.wait_until(
                lambda: len(self.traffic.eligible()) == VMS, CONVERGES_WITHIN_S
            )
        except (AssertionError, TimeoutError) as error:
            self.broken.append(f"L1 converge: {error or 'a VM does not get requests again'}")
        for vm in self.rig.vms:
            await self._check_alive(vm)

    # --- the lanes ---

    async def _processes(self) -> None:
        for step in steps("processes", self.seed, self.rig.vms):
            await asyncio.sleep(step.after_s)
            vm = self._whom(step)
            self._note("processes", step, vm)
            if step.kind == "kill":
                self._killed.add(vm)
                await self.fleet.kill(vm)
                await asyncio.sleep(step.for_s)
                await self._revive(vm)
            else:
                self.rig.stop(vm)
                await asyncio.sleep(step.for_s)
                self._resume(vm)

    async def _network(self) -> None:
        for step in steps("network", self.seed, self.rig.vms):
            assert step.service is not None
            await asyncio.sleep(step.after_s)
            every = self.rig.vms if step.vms == (EVERYBODY,) else (self._whom(step),)
            cut = [vm for vm in every if (vm, step.service) not in self._cut_off]
            self._note("network", step, f"{step.service.value} of {', '.join(cut)}")
            for vm in cut:
                self.lines.become(vm, step.service, step.network)
            await asyncio.sleep(step.for_s)
            for vm in cut:
                self.lines.become(vm, step.service, Network.CLEAR)

    async def _cuts(self) -> None:
        for step in steps("cuts", self.seed, self.rig.vms):
            assert step.service is not None
            await asyncio.sleep(step.after_s)
            line = self._whom(step), step.service
            if self.lines.proxies[line].network is not Network.CLEAR:
                continue  # the other lane has it
            self._note("cuts", step, f"{step.service.value} of {line[0]}")
            self._cut_off.add(line)
            self.lines.become(*line, step.network)
            await asyncio.sleep(step.for_s)
            self._cut_off.discard(line)
            self.lines.become(*line, Network.CLEAR)

    async def _roles(self) -> None:
        for step in steps("roles", self.seed, self.rig.vms):
            await asyncio.sleep(step.after_s)
            vm = self._whom(step)
            self._note("roles", step, vm)
            self.world.roles.revoke(vm, step.kind)
            await asyncio.sleep(step.for_s)
            self.world.roles.reinstate(vm, step.kind)

    async def _azure(self) -> None:
        for step in steps("azure", self.seed, self.rig.vms):
            await asyncio.sleep(step.after_s)
            vm = None if step.vms == (EVERYBODY,) else self._whom(step)
            self._note("azure", step, vm or EVERYBODY)
            until = time.time() + step.for_s
            self.server.faults.add(replace(FAULTS[step.kind], vm=vm, until=until))
            await asyncio.sleep(step.for_s)

    async def _events(self) -> None:
        async with asyncio.TaskGroup() as group:
            for step in steps("events", self.seed, self.rig.vms):
                await asyncio.sleep(step.after_s)
                await self.server.wait_until(partial(self._has_room, step), NEVER_S)
                victims = self._victims(step)
                self._note("events", step, ", ".join(victims))
                if step.kind in UNANNOUNCED:
                    self._unannounced.update(victims)
                group.create_task(self._happen(step, *victims))

    async def _happen(self, step: Step, *vms: str) -> None:
        """Let Azure announce, or fail to announce, and do what a step says."""
        options: dict[str, Any] = {
            "notice_s": NOTICE_S,
            "duration_s": 9 if step.event_type == "Freeze" else -1,
            "impact_s": step.for_s,
            "impact_delay_s": 1.0,
            "started_s": step.for_s + 3,
        }
        match step.kind:
            case "VM fails":
                self.world.begin_impact(vms[0], "failure", "rebooting")
                await self.server.notify()
                await asyncio.sleep(step.for_s)
                self.world.end_impact(vms[0], "failure")
                await self.server.notify()
                return
            case "cancelled":
                options["cancel_after_s"] = step.for_s
            case "already started":
                options["started_first"] = True
            case "second impact":
                options |= {"late_impact": (step.for_s + 3, 1.0), "started_s": step.for_s + 6}
            case _:
                pass
        event = await self.rig.schedule(step.event_type, *vms, **options)
        if step.kind == "overlap":
            await self.rig.schedule(step.event_type, *vms, **options)
        elif step.kind == "back to back":
            await self.rig.until_event("event_gone", event, within_s=NEVER_S)
            await self.rig.schedule(step.event_type, *vms, **options)

    # --- who, and whether now ---

    def _whom(self, step: Step) -> str:
        """Return the VM that a step is for."""
        leader = self.rig.leading() or self.rig.vms[0]
        return leader if step.vms[0] == LEADER else step.vms[0]

    def _victims(self, step: Step) -> tuple[str, ...]:
        """Return the VMs that an event may hit now; none while there is no room for it."""
        busy = self._busy()
        self._unannounced &= busy
        wanted, room = 2 if step.kind == "pair" else 1, MOST_BUSY - len(busy)
        if step.kind in UNANNOUNCED:
            room = min(room, MOST_UNANNOUNCED - len(self._unannounced))
        names = (self.rig.leading() if vm == LEADER else vm for vm in step.vms)
        free = tuple(dict.fromkeys(vm for vm in names if vm and vm not in busy))
        return free[:wanted] if wanted <= room and wanted <= len(free) else ()

    def _has_room(self, step: Step) -> bool:
        return bool(self._victims(step))

    def _busy(self) -> set[str]:
        """Return the VMs that are announced, recorded, out or down."""
        pools = len(self.world.pool_ids())
        named = {vm for event in self.world.events.document() for vm in event["Resources"]}
        recorded = {str(entry["vm"]) for entry in self.rig.ledger().get("entries", [])}
        return {
            vm
            for vm in self.rig.vms
            if vm in named | recorded
            or not self.world.serving(vm)
            or len(self.rig.pools_with(vm)) < pools
        }

    # --- means ---

    def _note(self, lane: str, step: Step, whom: str) -> None:
        self.done[lane][step.kind] += 1
        self.world.advance(time.time())
        self.world.record("disturbance", whom, what=step.kind, for_s=round(step.for_s, 1))

    def _resume(self, vm: str) -> None:
        """Let a stopped agent go on, unless its VM is frozen."""
        if self.world.vm(vm).state != "frozen":
            self.rig.resume(vm)

    async def _revive(self, vm: str) -> None:
        """Start an agent again, unless its VM is down: that will start it when it is up."""
        if self.world.serving(vm):
            await self.fleet.start(vm)
            self._killed.discard(vm)

    async def _check_alive(self, vm: str) -> None:
        """No agent ends by itself: what ends them is SIGKILL."""
        if self.fleet.running(vm) or not self.world.serving(vm):
            return
        code = await self.fleet.ended(vm)
        if code != -signal.SIGKILL:
            self.broken.append(f"the agent of {vm} ended by itself with exit code {code}")


@asynccontextmanager
async def open_chaos(directory: Path, *, seed: int) -> AsyncGenerator[Chaos]:
    """Start Azure, the proxies and the agents."""
    source = random.Random(f"{seed} world")
    knobs = WorldSettings(
        operation_latency_s=0.7,
        pool_operation_latency_s=0.7,
        operation_jitter_s=0.7,
        ack_starts_event_after_s=1.0,
        incarnation_jumps=True,
        conflict_mode=source.choice(("parallel", "serial")),
        busy_status=source.choice((429, 409)),
        busy_retry_after=source.choice((True, False)),
        failed_write_keeps_body=source.choice((True, False)),
        not_before_format=source.choice(("rfc1123", "iso8601")),
        lro_retry_after_s=1,
    )
    now = time.time()
    world = build_world(now=now, vms=VMS, ip_pools=("internal",), seed=seed, settings=knobs)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(SimulatorServer(world, directory))
        certificates = Certificates(
            ca_file=server.ca_file,
            certificate_file=directory / "server.pem",
            key_file=directory / "server.key",
        )
        url = await stack.enter_async_context(run_azurite(directory / "azurite", certificates))
        witness = Witness(world, url, certificates, server.notify)
        await stack.enter_async_context(witness.serving())
        await witness.create_container(CONTAINER)
        lines = Lines(server, witness)
        await stack.enter_async_context(lines.open())
        own = {vm.name: lines.settings(vm.name) for vm in world.peers()}
        fleet = AgentProcesses(server, directory, overrides=SETTINGS, own=own)
        rig = ChaosRig(world, server, fleet, witness)
        rig.judge_by(lines)
        async with fleet:
            yield Chaos(rig, lines, seed=seed)


async def run(directory: Path, *, seed: int, minutes: float) -> Outcome:
    """Make one run; keeps logs, history and, if need be, what to look at in `directory`."""
    async with open_chaos(directory, seed=seed) as chaos:
        first = "a first leader"
        await chaos.rig.until(first, lambda: chaos.rig.leading() != "", within_s=STARTS_WITHIN_S)
        async with chaos.traffic, _pauses() as pauses:
            await chaos.disturb(minutes * 60)
            calmed_at = time.monotonic()
            await chaos.calm()
            await chaos.converge()
            converged_s = time.monotonic() - calmed_at
    history = list(chaos.world.history)
    lines = (json.dumps([c.at, c.kind, c.subject, dict(c.detail)]) for c in history)
    await asyncio.to_thread((directory / "history.jsonl").write_text, "\n".join(lines))
    counts = chaos.traffic.counts()
    holders = [name for name, _ in groupby(c.detail["by"] for c in history if _acquires(c))]
    outcome = Outcome(
        seed=seed,
        minutes=minutes,
        done=chaos.done,
        requests=counts,
        lost=explanations(
            history,
            counts.losses,
            pool_id=chaos.world.pool_id("app"),
            flows=chaos.world.settings.flows_on_remove,
        ),
        leaders=len(holders),
        occasions=Counter(change.kind for change in history),
        converged_s=converged_s,
        longest_pause_s=max(pauses),
        broken=chaos.broken + chaos.rig.broken_laws(),
    )
    if outcome.broken or outcome.unexplained:
        await asyncio.to_thread((directory / "show.txt").write_text, chaos.rig.show())
    return outcome


def _acquires(change: Change) -> bool:
    return change.kind == "lease_acquire"


@asynccontextmanager
async def _pauses() -> AsyncGenerator[list[float]]:
    """Measure how long this process was not given the processor; for the report only."""
    found = [0.0]

    async def measure() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.1)
            found.append(time.monotonic() - before - 0.1)

    task = asyncio.create_task(measure())
    try:
        yield found
    finally:
        task.cancel()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.chaos", description="Real chaos.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--directory", type=Path, help="where to keep logs and history")
    options = parser.parse_args()
    directory: Path = options.directory or Path(tempfile.mkdtemp(prefix="lb-drain-chaos-"))
    print(f"seed {options.seed}, logs and history in {directory}", flush=True)
    outcome = asyncio.run(run(directory, seed=options.seed, minutes=options.minutes))
    print(outcome.page())
    if outcome.good and options.directory is None:
        shutil.rmtree(directory)
    sys.exit(0 if outcome.good else 1)


if __name__ == "__main__":
    main()
