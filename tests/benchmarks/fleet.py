"""How long `lb-drain fleet` reads 200 sets, and how many requests that takes."""

import time
from pathlib import Path

from controller.azure.http.container_session import open_containers
from controller.azure.http.identity import Identity
from controller.clock import SystemClock
from controller.config.azure import Azure
from controller.fleet.reader import FleetReader
from controller.simulator.app.server import SimulatorServer
from controller.simulator.services.http_values import Service
from controller.simulator.world.builder import build_world
from tests.benchmarks.figures import Figure
from tests.support.simulated_fleet import Fleet, utc_now

GROUP = "fleet"
SETS = 200
TARGET_S = 5.0
CONTAINER = "lb-drain"


async def measure(runs: int, directory: Path) -> list[Figure]:
    """Read all sets with a new reader, and once more when nothing has changed."""
    first: list[float] = []
    again: list[float] = []
    requests: list[float] = []
    for number in range(runs):
        world = build_world(now=time.time(), vms=1)
        async with SimulatorServer(world, directory / f"fleet-{number}") as server:
            url = server.container_url(CONTAINER)
            Fleet(world.blobs, CONTAINER, utc_now()).fill(SETS)
            asked: list[str] = []
            server.observers.append(
                lambda request, _, asked=asked: (  # type: ignore[misc]
                    asked.append(request.path) if request.service is Service.BLOB else None
                )
            )
            azure = Azure(ca_file=str(server.ca_file), imds_endpoint=server.imds_url("web-1"))
            clock = SystemClock()
            async with open_containers(
                (url,), azure, clock=clock, environ={}, identity=Identity.VM
            ) as containers:
                reader = FleetReader(containers, clock=clock)
                found = await reader.read()
                assert len(found.sets) == SETS
                assert all(each.readable for each in found.sets)
                first.append(found.took_s)
                requests.append(len(asked))
                again.append((await reader.read()).took_s)
    return [
        Figure(
            group=GROUP,
            name=f"{SETS} sets read",
            samples=first,
            unit="s",
            target=TARGET_S,
            worst=True,
            note="the simulated storage runs in the same process",
        ),
        Figure(group=GROUP, name="requests for that", samples=requests, target=SETS + 1),
        Figure(group=GROUP, name="read again, nothing changed", samples=again, unit="s"),
    ]
