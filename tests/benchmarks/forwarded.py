"""What a leader asks of storage to know the events that the agents of a large scale set forward."""

import time
from datetime import timedelta
from pathlib import Path

from controller.agent.event_forwarding import LIST_PERIOD_S, ForwardedReader
from controller.agent.present_set import PresentSet
from controller.azure.http.session import open_azure
from controller.clock import SystemClock
from controller.core.events import EventSource, EventStatus, ScheduledEvent
from controller.core.forwarded_events import RENEWED_S, ForwardedEvents, forwarded
from controller.simulator.app.server import SimulatorServer
from controller.simulator.services.http_values import Service
from controller.simulator.world.builder import build_world
from controller.storage.forwarded_events_store import (
    encode_forwarded,
    forwarded_blob_name,
    forwarded_folder,
)
from controller.storage.ledger_store import ledger_blob_name
from tests.benchmarks.figures import Figure
from tests.component.test_start import settings_for
from tests.support.simulated_fleet import Fleet, utc_now

GROUP = "forwarded"
VMS, DUE = 1000, 200
CONTAINER = "lb-drain"


async def measure(runs: int, directory: Path) -> list[Figure]:
    """Read what 200 agents forward, and once more when nothing has changed."""
    first: list[float] = []
    again: list[float] = []
    hourly: list[float] = []
    for number in range(runs):
        world = build_world(now=time.time(), vms=1, flexible=True)
        async with SimulatorServer(world, directory / f"forwarded-{number}") as server:
            asked: list[str] = []
            server.observers.append(
                lambda request, _, asked=asked: (  # type: ignore[misc]
                    asked.append(request.path) if request.service is Service.BLOB else None
                )
            )
            ledger = ledger_blob_name(world.scale_set_id)
            _forward(Fleet(world.blobs, CONTAINER, utc_now()), ledger)
            clock = SystemClock()
            settings = settings_for(server, world.pool_id("app"))
            async with open_azure(settings, clock, {}) as azure:
                reader = ForwardedReader(
                    azure.container,
                    azure.state_blob,
                    folder=forwarded_folder(ledger),
                    vm="web-1",
                    present_set=PresentSet(world.scale_set_id),
                    clock=clock,
                    leading=lambda: True,
                    vms=tuple,
                )
                await reader.step()
                assert len(reader.events(clock.now())) == DUE
                first.append(len(asked))
                await reader.step()
                again.append(len(asked) - first[-1])
        hourly.append(again[-1] * 3600 / LIST_PERIOD_S + (first[-1] - again[-1]) * 3600 / RENEWED_S)
    note = f"{DUE} of {VMS:,} VMs have an event"
    return [
        Figure(group=GROUP, name="requests to read all", samples=first, target=DUE + 1, note=note),
        Figure(group=GROUP, name="requests when nothing has changed", samples=again, target=1),
        Figure(group=GROUP, name="requests per hour while they are announced", samples=hourly),
    ]


def _forward(container: Fleet, ledger: str) -> None:
    """Let the agents of all VMs that are due forward one event each."""
    for number in range(2, DUE + 2):
        vm = f"web-{number}"
        event = ScheduledEvent(
            event_id=f"E-{number}",
            event_type="Reboot",
            status=EventStatus.SCHEDULED,
            resources=(vm,),
            not_before=container.now + timedelta(minutes=15),
            duration_s=-1,
            source=EventSource.PLATFORM,
        )
        found = ForwardedEvents(vm=vm, at=container.now, events=(forwarded(event, (vm,)),))
        container.put(forwarded_blob_name(ledger, vm), encode_forwarded(found))
