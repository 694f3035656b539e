"""A simulated Azure with a real agent process per VM, and the means to watch them.

Nothing here sleeps to synchronise: every wait is a condition over the world with a deadline, and
says on failure what it was waiting for. Deadlines are generous; they only bound a broken case.
"""

import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from controller.simulator.app.agent_processes import (
    ACCELERATED,
    CONTAINER,
    AgentProcesses,
    Overrides,
)
from controller.simulator.app.server import ACCOUNT, SimulatorServer
from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Service
from controller.simulator.world.blob_store import Blob
from controller.simulator.world.bodies import Json, key
from controller.simulator.world.builder import build_world
from controller.simulator.world.events import SimEvent
from controller.simulator.world.history import Change
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.world import World
from tests.laws.bodies import bodies_of, differences
from tests.laws.conditions import Conditions
from tests.laws.judge import WITHOUT_REQUESTS, violations
from tests.laws.ledger_document import is_presence
from tests.laws.replay import Replay
from tests.laws.safety import log_violations
from tests.support.patience import PATIENCE_S

WITHIN_S = 1.5 * PATIENCE_S
"""Deadline of one step. A step takes seconds; an event without acknowledgement takes its notice."""
NOTICE_S = 120.0
"""Far more than a drain takes; an event starts as soon as it is acknowledged."""
SHORT_LEASE: Overrides = {"election": ACCELERATED["election"]}
"""For tests in which a lease has to expire."""
QUICK: Overrides = {
    **ACCELERATED,
    # Longer than a busy machine ever keeps an agent from its work.
    "election": {"lease_duration_s": 60, "renew_period_s": 3, "request_timeout_s": 10},
    "policy": {
        "lead_time_s": 900,
        "connection_drain_s": 0.7,
        "restore_settle_s": 0.5,
        "close": False,
    },
    "watch": {"leader_poll_s": 0.5, "standby_poll_s": 2, "timeout_s": 20},
    "azure": {"poll_fallback_s": 0.25},
}
SHOWN_CHANGES = 150
SHOWN_LOG_BYTES = 12_000
TAKES_PART = 3
"""Requests to IMDS of an agent that has started: its metadata, a token and the event document."""

Prepare = Callable[["ProcessSet"], None]


class ProcessSet:
    """One world, its server and its fleet."""

    def __init__(
        self,
        world: World,
        server: SimulatorServer,
        fleet: AgentProcesses,
        *,
        floor: int,
        lease_s: float = 15,
    ) -> None:
        self.world, self.server, self.fleet = world, server, fleet
        self.expected = bodies_of(world)
        """What every NIC and pool has to look like in the end; an operator's edit goes here too."""
        self.restores_all = True
        """Whether the ledger has to be empty in the end."""
        self.laws = WITHOUT_REQUESTS
        """The laws that the history is held against."""
        self._start = time.time()
        conditions = Conditions(
            peers=frozenset(vm.name for vm in world.peers()),
            floors={key(pool_id): floor for pool_id in world.pool_ids()},
            lease_s=lease_s,
            requests_recorded=False,
        )
        self.replay = Replay(conditions, world)
        """The beginning of the history."""

    # --- looking ---

    @property
    def vms(self) -> tuple[str, ...]:
        """The VMs of the set."""
        return self.fleet.vms

    @property
    def blob_path(self) -> str:
        """Where the ledger is."""
        group = self.world.resource_group
        return f"/{ACCOUNT}/{CONTAINER}/{self.world.subscription}/{group}/web.json"

    def ledger(self) -> Json:
        """Return what the ledger says now; empty when it says nothing."""
        blob = self.world.blobs.find(self.blob_path)
        parsed: Any = json.loads(blob.body) if blob is not None and blob.body else {}
        return dict(parsed)

    def entry(self, vm: str) -> Json | None:
        """Return the ledger entry of a VM."""
        entries = self.ledger().get("entries", [])
        return next((dict(each) for each in entries if each["vm"] == vm), None)

    def leading(self) -> str:
        """Return the VM whose agent holds the lease and wrote the ledger last, else nothing."""
        leases = self.world.blobs.leases(time.time())
        holder = next((each.holder for each in leases if each.path == self.blob_path), None)
        return holder if holder and self.ledger().get("leader") == holder else ""

    def others(self, *vms: str) -> tuple[str, ...]:
        """Return the VMs but these."""
        return tuple(vm for vm in self.vms if vm not in vms)

    def nic_id(self, vm: str) -> str:
        """Return the id of the first NIC of a VM."""
        return self.world.vm(vm).nic_ids[0]

    def pools_with(self, vm: str) -> list[str]:
        """Return the pools in which new flows may reach a VM."""
        return [pool for pool in self.world.pool_ids() if vm in self.world.rotation(pool)]

    def changes(self, *kinds: str, since: int = 0, **detail: object) -> list[Change]:
        """Return the changes of these kinds, from a mark on, whose details are these.

        Presence that agents publish all the time is left out.
        """
        return [
            change
            for change in self.world.history[since:]
            if change.kind in kinds
            and not is_presence(change.subject)
            and all(change.detail.get(name) == value for name, value in detail.items())
        ]

    def moves(self, kind: str, vm: str) -> list[Change]:
        """Return the `member_in` or `member_out` of a VM."""
        return self.changes(kind, vm=vm)

    def of_event(self, kind: str, event: SimEvent) -> list[Change]:
        """Return what happened to an event."""
        names = ",".join(event.resources)
        return [
            change
            for change in self.changes(kind)
            if change.subject == event.event_id or change.detail["resources"] == names
        ]

    def writes(self, vm: str) -> list[Change]:
        """Return the accepted writes to NICs of a VM."""
        nics = {key(nic_id) for nic_id in self.world.vm(vm).nic_ids}
        return [change for change in self.changes("write") if key(change.subject) in nics]

    def polls(self, vm: str) -> int:
        """Return how many requests the agent of a VM sent to its IMDS."""
        return self.world.request_counts["imds", vm, "GET"]

    def log(self, vm: str) -> str:
        """Return what the agent of a VM has logged."""
        path = self.fleet.log(vm)
        return path.read_text(errors="replace") if path.exists() else ""

    def mark(self) -> int:
        """Return where the history is now, for `changes(since=...)`."""
        return len(self.world.history)

    # --- waiting ---

    async def until(
        self, what: str, holds: Callable[[], bool], *, within_s: float = WITHIN_S
    ) -> None:
        """Wait until `holds()`; fail with `what` when it does not in time."""
        try:
            await self.server.wait_until(holds, within_s)
        except TimeoutError:
            raise AssertionError(f"not within {within_s:g} s: {what}") from None

    async def leader(self, *, but: str = "") -> str:
        """Wait for a leader (other than `but`) beside which every agent runs; return its VM."""

        def found() -> bool:
            running = [vm for vm in self.vms if self.fleet.running(vm)]
            started = all(self.polls(vm) >= TAKES_PART for vm in running)
            return started and self.leading() not in {"", but}

        await self.until(f"a leader other than {but or 'none'}", found)
        return self.leading()

    async def until_out(self, vm: str, *, within_s: float = WITHIN_S) -> None:
        """Wait until a VM is out of every pool."""
        await self.until(
            f"{vm} out of rotation", lambda: not self.pools_with(vm), within_s=within_s
        )

    async def until_in(self, vm: str, *, within_s: float = WITHIN_S) -> None:
        """Wait until a VM that was out is back in every pool."""
        wanted = len(self.world.pool_ids())
        await self.until(
            f"{vm} back in rotation",
            lambda: bool(self.moves("member_in", vm)) and len(self.pools_with(vm)) == wanted,
            within_s=within_s,
        )

    async def until_event(self, kind: str, event: SimEvent, *, within_s: float = WITHIN_S) -> None:
        """Wait until something has happened to an event."""
        await self.until(
            f"{kind} of the event for {event.resources}",
            lambda: bool(self.of_event(kind, event)),
            within_s=within_s,
        )

    async def until_logged(self, vm: str, text: str, *, within_s: float = WITHIN_S) -> None:
        """Wait until the log of an agent says something."""
        await self.until(f"{vm} logs {text!r}", lambda: text in self.log(vm), within_s=within_s)

    async def settled(self, *, within_s: float = WITHIN_S) -> None:
        """Law L1: wait until all is as expected, the ledger empty and nothing under way."""
        try:
            await self.until("all settled", lambda: not self.unsettled(), within_s=within_s)
        except AssertionError as error:
            self.world.record("not_converged", "")
            raise AssertionError(f"{error}: {'; '.join(self.unsettled())}") from None

    def unsettled(self) -> list[str]:
        """Return what is still to be done."""
        found = list(differences(self.expected, bodies_of(self.world)))
        found += [f"operation on {name} under way" for name in self.world.writes.in_flight]
        found += [f"event {each['EventId']} announced" for each in self.world.events.document()]
        if self.restores_all:
            found += [f"ledger entry of {e['vm']}" for e in self.ledger().get("entries", [])]
            if not self.leading():
                found.append("no leader")
        return found

    # --- doing ---

    async def schedule(self, event_type: str, *vms: str, **options: Any) -> SimEvent:
        """Announce maintenance. Short by default: down for 0.8 s, Started for 1.5."""
        given: dict[str, Any] = {"notice_s": NOTICE_S, "impact_s": 0.8, "impact_delay_s": 0.3}
        given |= {"started_s": 1.5} | options
        event = self.world.events.schedule(event_type, *vms, **given)
        await self.server.notify()
        return event

    def fault(
        self, service: Service, effect: Effect, *, vm: str | None = None, **options: Any
    ) -> None:
        """Add a fault rule."""
        self.server.faults.add(Fault(service=service, effect=effect, vm=vm, **options))

    def heal(self) -> None:
        """Drop every fault."""
        self.server.faults.clear()

    async def edit(self, change: Callable[[World], object]) -> None:
        """Edit the world directly, as an operator does."""
        change(self.world)
        await self.server.notify()

    async def permit(self, action: str, *, granted: bool) -> None:
        """Take an action away from every VM's identity, or give it back."""
        for vm in self.vms:
            (self.world.roles.reinstate if granted else self.world.roles.revoke)(vm, action)
        await self.server.notify()

    def accept_bodies(self) -> None:
        """What every NIC and pool looks like now is what it has to look like in the end."""
        self.expected = bodies_of(self.world)

    def put_ledger(self, body: bytes) -> None:
        """Put a ledger where the agents will find it."""
        now, store = time.time(), self.world.blobs
        self.server.container_url(CONTAINER)
        name = self.blob_path.split("/", 3)[3]
        store.containers[ACCOUNT, CONTAINER].blobs[name] = Blob(
            body=body,
            etag=store.next_etag(),
            created_at=now,
            modified_at=now,
            content_type="application/json",
            metadata={},
        )

    def stop(self, vm: str) -> None:
        """Suspend the agent of a VM."""
        self.fleet.signal(vm, signal.SIGSTOP)

    def resume(self, vm: str) -> None:
        """Let a suspended agent go on."""
        self.fleet.signal(vm, signal.SIGCONT)

    # --- judging and showing ---

    def broken_laws(self) -> list[str]:
        """Return every law that was broken since the beginning."""
        history = list(self.world.history)
        found = [str(each) for each in violations(self.replay, history, self.laws)]
        found += [f"S3 exact: {each}" for each in differences(self.expected, bodies_of(self.world))]
        return found + log_violations({vm: self.log(vm) for vm in self.vms})

    def show(self) -> str:
        """Return history and logs for whoever has to find out what went wrong."""
        lines = [f"faults: {self.server.faults.to_json()}"]
        quiet = {"lease_renew"}
        shown = [change for change in self.world.history if change.kind not in quiet]
        if len(shown) > SHOWN_CHANGES:
            lines.append(f"... {len(shown) - SHOWN_CHANGES} earlier changes")
        for change in shown[-SHOWN_CHANGES:]:
            detail = " ".join(f"{k}={_short(v)}" for k, v in change.detail.items() if v != "")
            at = change.at - self._start
            lines.append(f"{at:7.2f} {change.kind:18} {change.subject[-40:]:40} {detail}")
        for vm in self.vms:
            running = "runs" if self.fleet.running(vm) else "does not run"
            lines += [f"--- log of {vm}, which {running}", self.log(vm)[-SHOWN_LOG_BYTES:]]
        return "\n".join(lines)


def _short(value: object) -> str:
    text = str(value)
    try:
        ledger = json.loads(text)
        entries = [
            f"{e['vm']}{' out' if e['out_at'] else ''}{' restored' if e['restored_at'] else ''}"
            for e in ledger["entries"]
        ]
    except (ValueError, KeyError, TypeError):
        return text if len(text) <= 60 else f"...{text[-57:]}"
    return f"[epoch {ledger['epoch']}: {', '.join(entries)}]"


@asynccontextmanager
async def open_process_set(
    directory: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    overrides: Overrides | None = None,
    floor: int = 1,
    prepare: Prepare | None = None,
    **world_options: Any,
) -> AsyncIterator[ProcessSet]:
    """Start everything; afterwards check the laws, or show what happened.

    Args:
        settings: knobs of the world.
        overrides: configuration values by table, on top of `QUICK`.
        floor: `min_in_service` of every pool.
        prepare: called before the agents start.
        world_options: for `build_world`; three VMs by default.
    """
    knobs: dict[str, Any] = {
        "operation_latency_s": 0.5,
        "pool_operation_latency_s": 0.5,
        "ack_starts_event_after_s": 0.3,
        "lro_retry_after_s": 1,
    }
    wide: dict[str, Any] = {"vms": 3} | world_options
    world = build_world(
        now=time.time(),
        settings=WorldSettings(**(knobs | dict(settings or {}))),
        **wide,
    )
    wanted = {name: dict(values) for name, values in QUICK.items()}
    for name, values in (overrides or {}).items():
        wanted.setdefault(name, {}).update(values)
    wanted["backend_pools"] = {"min_in_service": floor}
    async with SimulatorServer(world, directory) as server:
        fleet = AgentProcesses(server, directory, overrides=wanted)
        lease_s = float(str(wanted["election"]["lease_duration_s"]))
        rig = ProcessSet(world, server, fleet, floor=floor, lease_s=lease_s)
        if prepare is not None:
            prepare(rig)
        try:
            async with fleet:
                yield rig
            broken = rig.broken_laws()
            assert not broken, "\n".join(broken)
        except BaseException:
            print(rig.show())
            raise
