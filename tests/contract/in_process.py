"""Agents as tasks of the test itself, against a simulated Azure with sockets and TLS.

Everything an agent is given is the test's own: configuration, environment, clock. The clock is
shared with the simulated Azure and can be moved, so that back-off and quarantine need no waiting.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from controller.agent import Agent
from controller.config import load
from controller.settings import Settings
from controller.simulator.blob import Blob
from controller.simulator.faults import Effect, Fault
from controller.simulator.fleet import ACCELERATED, CONTAINER, Overrides, configuration
from controller.simulator.history import Change
from controller.simulator.server import ACCOUNT, SimulatorServer
from controller.simulator.wire import Service
from controller.simulator.world import World, WorldSettings, build_world

WITHIN_S = 20.0
QUICK: Overrides = {
    **ACCELERATED,
    "policy": {"lead_time_s": 900, "connection_drain_s": 0.2, "restore_settle_s": 0.2},
    "azure": {"poll_fallback_s": 0.05},
    "watch": {"leader_poll_s": 0.2, "standby_poll_s": 0.5, "timeout_s": 2},
}


class Clock:
    """The clocks of the operating system, both moved by the same `ahead_s`."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def epoch(self) -> float:
        return time.time() + self.ahead_s

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.epoch(), UTC)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


class Bench:
    """A world, its server and the agents a test starts."""

    def __init__(
        self,
        world: World,
        server: SimulatorServer,
        clock: Clock,
        directory: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        self.world, self.server, self.clock = world, server, clock
        self._directory, self._caplog = directory, caplog
        self._running: list[tuple[Agent, asyncio.Task[None]]] = []

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
        told = "".join(f"\n[[notifications]]\n{channel}\n" for channel in channels)
        path.write_text(added + text + told)
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
        settings = self.settings(self.config(vm, overrides, pools, channels))
        return Agent(settings, environ=dict(environ or {}), clock=self.clock)

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

    async def stop(self, agent: Agent) -> None:
        """Stop one agent in good order, and expect nothing more of it."""
        agent.stop()
        for each, task in list(self._running):
            if each is agent:
                async with asyncio.timeout(WITHIN_S):
                    await task
                self._running.remove((each, task))

    async def close(self) -> None:
        """Stop every agent; what ended one of them is an error of the test."""
        for agent, _ in self._running:
            agent.stop()
        async with asyncio.timeout(WITHIN_S):
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

    def told(self) -> list[str]:
        """Return every warning and error of our own."""
        return [
            record.getMessage()
            for record in self._caplog.records
            if record.levelname in {"WARNING", "ERROR"} and record.name.startswith("controller")
        ]

    # --- waiting ---

    async def until(
        self, what: str, holds: Callable[[], object], *, within_s: float = WITHIN_S
    ) -> None:
        """Wait until `holds()`; fail with `what`, or with what ended an agent meanwhile."""

        def over() -> bool:
            return bool(holds()) or any(task.done() for _, task in self._running)

        try:
            await self.server.wait_until(over, within_s)
        except TimeoutError:
            shown = "\n".join(record.getMessage() for record in self._caplog.records)
            raise AssertionError(f"not within {within_s:g} s: {what}; logged:\n{shown}") from None
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

    async def announce(self, *vms: str, **options: Any) -> str:
        """Announce a reboot; return the event's id."""
        given = {"notice_s": 600, "impact_s": 0.2, "started_s": 0.5, "impact": ""} | options
        event = self.world.schedule_event("Reboot", *(vms or ("web-2",)), **given)
        await self.server.notify()
        return event.event_id


@asynccontextmanager
async def open_bench(
    directory: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    settings: Mapping[str, Any] | None = None,
    **world_options: Any,
) -> AsyncIterator[Bench]:
    """Serve a world; stop the agents afterwards."""
    clock = Clock()
    knobs: dict[str, Any] = {
        "operation_latency_s": 0.1,
        "pool_operation_latency_s": 0.1,
        "ack_starts_event_after_s": 0.2,
        "imds_limit": False,
    }
    world = build_world(
        now=clock.epoch(), settings=WorldSettings(**(knobs | dict(settings or {}))), **world_options
    )
    caplog.set_level("INFO", logger="controller")
    async with SimulatorServer(world, directory / "pki", clock=clock.epoch) as server:
        bench = Bench(world, server, clock, directory, caplog)
        try:
            yield bench
        finally:
            await bench.close()
