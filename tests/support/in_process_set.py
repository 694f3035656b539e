"""Agents as tasks of the test itself, against a simulated Azure with sockets and TLS.

Everything an agent is given is the test's own: configuration, environment, clock. The clock is
shared with the simulated Azure and can be moved, so that back-off and quarantine need no waiting.

A busy machine changes nothing here but the time that a test takes: the lease and every time limit
are longer than the event loop ever stands still, and an event lasts until its leader has seen it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from controller.agent.agent import Agent
from controller.agent.tuning import Tuning
from controller.config.loader import load
from controller.config.schema import Settings
from controller.simulator.app.agent_processes import (
    ACCELERATED,
    CONTAINER,
    Overrides,
    configuration,
)
from controller.simulator.app.server import ACCOUNT, SimulatorServer
from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Reply, Request, Service
from controller.simulator.world.blob_store import Blob
from controller.simulator.world.builder import build_world
from controller.simulator.world.events import EventState
from controller.simulator.world.history import Change
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.world import World
from tests.support.clocks import ShiftedClock
from tests.support.patience import PATIENCE_S

LEASE_S = 60.0
NEVER_S = 1e6
QUICK: Overrides = {
    **ACCELERATED,
    "election": {"lease_duration_s": int(LEASE_S), "renew_period_s": 3, "request_timeout_s": 20},
    "policy": {
        "lead_time_s": 900,
        "connection_drain_s": 0.2,
        "restore_settle_s": 0.2,
        "close": False,
    },
    "azure": {"poll_fallback_s": 0.05},
    "watch": {"leader_poll_s": 0.2, "standby_poll_s": 0.5, "timeout_s": 20},
}
QUICK_TUNING = Tuning(start_retry_s=0.2, pool_check_retry_s=0.1)


class InProcessSet:
    """A world, its server and the agents a test starts."""

    def __init__(
        self,
        world: World,
        server: SimulatorServer,
        clock: ShiftedClock,
        directory: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        self.world, self.server, self.clock = world, server, clock
        self._directory, self._caplog = directory, caplog
        self.tuning = QUICK_TUNING
        self._running: list[tuple[Agent, asyncio.Task[None]]] = []
        self._last_s: dict[str, float] = {}
        server.observers.append(self._end_what_is_seen)

    # --- agents ---

    def config(
        self,
        vm: str,
        overrides: Overrides = QUICK,
        pools: tuple[str, ...] = (),
        channels: tuple[str, ...] = (),
    ) -> Path:
        """Write the configuration file of the agent on `vm`; pools and channels are added to it."""
        text = configuration(self.server, vm, overrides={**QUICK, **overrides})
        added = "".join(f"[[backend_pools]]\nid = {json.dumps(pool)}\n" for pool in pools)
        path = self._directory / f"{vm}.toml"
        reported = "".join(f"\n[[notifications]]\n{channel}\n" for channel in channels)
        path.write_text(added + text + reported)
        return path

    def settings(self, path: Path) -> Settings:
        """Load a configuration, and refuse one that leads off this host."""
        settings = load(path, {}).settings
        for url in (
            settings.azure.imds_endpoint,
            settings.azure.resource_manager_endpoint,
            settings.election.container_url,
        ):
            assert urlsplit(url).hostname == "127.0.0.1", url
        return settings

    def agent(
        self,
        vm: str = "web-1",
        *,
        overrides: Overrides = QUICK,
        pools: tuple[str, ...] = (),
        channels: tuple[str, ...] = (),
        environ: Mapping[str, str] | None = None,
    ) -> Agent:
        """Return an agent that does not run yet."""
        path = self.config(vm, overrides, pools, channels)
        return Agent(
            self.settings(path),
            environ=dict(environ or {}),
            clock=self.clock,
            tuning=self.tuning,
            read_settings=lambda: self.settings(path),
        )

    def start(self, vm: str = "web-1", **options: Any) -> Agent:
        """Start an agent as a task."""
        agent = self.agent(vm, **options)
        self._running.append((agent, asyncio.create_task(agent.run(), name=vm)))
        return agent

    async def lead(self, vm: str = "web-1", **options: Any) -> Agent:
        """Start an agent and wait until it is in office."""
        agent = self.start(vm, **options)
        await self.until(f"{vm} leads", lambda: self.ledger().get("leader") == vm)
        return agent

    async def stand_by(self, vm: str, **options: Any) -> Agent:
        """Start an agent beside a leader and wait until it takes part in the election."""
        agent = self.start(vm, **options)
        await self.sees(f"{vm} stands by", agent.live_status.ready, (True, "standby"))
        return agent

    async def stop(self, agent: Agent) -> None:
        """Stop one agent in good order, and expect nothing more of it."""
        agent.stop()
        for each, task in list(self._running):
            if each is agent:
                async with asyncio.timeout(PATIENCE_S):
                    await task
                self._running.remove((each, task))

    async def close(self) -> None:
        """Stop every agent; what ended one of them is an error of the test."""
        for agent, _ in self._running:
            agent.stop()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(task for _, task in self._running))

    # --- looking ---

    @property
    def ledger_path(self) -> str:
        """Where the ledger is."""
        world = self.world
        return f"/{ACCOUNT}/{CONTAINER}/{world.subscription}/{world.resource_group}/web.json"

    def ledger(self) -> dict[str, Any]:
        """Return the ledger; empty when there is none that can be read."""
        blob = self.world.blobs.find(self.ledger_path)
        try:
            return dict(json.loads(blob.body)) if blob and blob.body else {}
        except ValueError:
            return {}

    def writes(self) -> list[Change]:
        """Return every write that ARM accepted."""
        return self.world.changes("write")

    def inside(self, vm: str = "web-1") -> list[str]:
        """Return the pools a VM is in rotation in."""
        return [pool for pool in self.world.pool_ids() if vm in self.world.rotation(pool)]

    def logged(self, text: str, level: str = "") -> list[str]:
        """Return the log messages that contain `text`."""
        return [
            record.getMessage()
            for record in self._caplog.records
            if text in record.getMessage() and level in {"", record.levelname}
        ]

    def reported(self) -> list[str]:
        """Return every warning and error of our own."""
        return [
            record.getMessage()
            for record in self._caplog.records
            if record.levelname in {"WARNING", "ERROR"} and record.name.startswith("lbdrain")
        ]

    # --- waiting ---

    async def sees(self, what: str, look: Callable[[], object], wanted: object) -> None:
        """Wait until `look()` is all that is wanted; fail with what it was instead."""
        await self.until(what, lambda: look() == wanted, seen=look)

    async def until(
        self, what: str, holds: Callable[[], object], *, seen: Callable[[], object] | None = None
    ) -> None:
        """Wait until `holds()`; fail with `what`, or with what ended an agent meanwhile."""

        def over() -> bool:
            return bool(holds()) or any(task.done() for _, task in self._running)

        try:
            await self.server.wait_until(over, PATIENCE_S)
        except TimeoutError:
            logged = "\n".join(record.getMessage() for record in self._caplog.records)
            instead = f"; seen: {seen()}" if seen else ""
            raise AssertionError(
                f"not within {PATIENCE_S:g} s: {what}{instead}; logged:\n{logged}"
            ) from None
        if not holds():
            for _, task in self._running:
                if task.done():
                    task.result()
            raise AssertionError(f"an agent ended before: {what}")

    async def requests(self, count: int, path: str, method: str = "GET") -> None:
        """Wait until a service was asked `count` more times."""
        seen: list[str] = []

        def note(request: Any, _reply: object) -> None:
            if request.method == method and path.casefold() in request.path.casefold():
                seen.append(request.path)

        self.server.observers.append(note)
        try:
            await self.until(f"{count} {method} {path}", lambda: len(seen) >= count)
        finally:
            self.server.observers.remove(note)

    # --- doing ---

    def fault(self, service: Service, effect: Effect = Effect.REPLY, **options: Any) -> None:
        """Add a fault rule."""
        self.server.faults.add(Fault(service=service, effect=effect, **options))

    def heal(self) -> None:
        """Remove every fault rule."""
        self.server.faults.clear()

    def document(self, body: object) -> None:
        """Answer every poll with this body from now on."""
        text = body if isinstance(body, str) else json.dumps(body)
        self.heal()
        self.fault(
            Service.IMDS, method="GET", path_contains="scheduledevents", status=200, body=text
        )

    def put_ledger(self, body: bytes) -> Blob:
        """Put a ledger where the agents will find it."""
        self.server.container_url(CONTAINER)
        store, now = self.world.blobs, self.clock.epoch()
        blob = Blob(
            body=body,
            etag=store.next_etag(),
            created_at=now,
            modified_at=now,
            content_type="application/json",
            metadata={},
        )
        name = self.ledger_path.split("/", 3)[3]
        store.containers[ACCOUNT, CONTAINER].blobs[name] = blob
        return blob

    def outlast_the_lease(self) -> None:
        """Let so much time pass that the lease of a leader could have expired, and has not."""
        self.clock.ahead_s += LEASE_S - 1

    async def announce(self, *vms: str, started_s: float = 0.5, **options: Any) -> str:
        """Announce a reboot that ends so long after its leader has seen it started; return its id.

        Until then it lasts, however slow the machine is.
        """
        given: dict[str, Any] = {"notice_s": 600, "impact_s": 0.2, "impact": ""} | options
        event = self.world.events.schedule(
            "Reboot", *(vms or ("web-2",)), started_s=NEVER_S, **given
        )
        self._last_s[event.event_id] = started_s
        await self.server.notify()
        return event.event_id

    def _end_what_is_seen(self, request: Request, reply: Reply) -> None:
        """Let an event end some time after a leader was shown that it has started."""
        if request.service is not Service.IMDS or request.vm != self.ledger().get("leader"):
            return
        for event_id in list(self._last_s):
            event = self.world.events.find(event_id)
            if event is None or event.state is not EventState.STARTED:
                continue
            if event_id.encode() in reply.body:
                ends_at = self.world.scheduler.now + self._last_s.pop(event_id)
                self.world.scheduler.at(ends_at, partial(self.world.events.complete, event_id))


@asynccontextmanager
async def open_in_process_set(
    directory: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    settings: Mapping[str, Any] | None = None,
    **world_options: Any,
) -> AsyncIterator[InProcessSet]:
    """Serve a world; stop the agents afterwards."""
    clock = ShiftedClock()
    knobs: dict[str, Any] = {
        "operation_latency_s": 0.1,
        "pool_operation_latency_s": 0.1,
        "ack_starts_event_after_s": 0.2,
        "imds_limit": False,
        "lro_retry_after_s": None,
    }
    world = build_world(
        now=clock.epoch(), settings=WorldSettings(**(knobs | dict(settings or {}))), **world_options
    )
    caplog.set_level("INFO", logger="lbdrain")
    async with SimulatorServer(world, directory / "pki", clock=clock.epoch) as server:
        bench = InProcessSet(world, server, clock, directory, caplog)
        try:
            yield bench
        finally:
            await bench.close()
