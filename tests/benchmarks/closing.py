"""How long after the publication of its event a VM is closed: the flag file of its agent exists."""

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

from controller.simulator.app.agent_processes import Overrides
from controller.simulator.world.settings import WorldSettings
from tests.benchmarks.figures import NOT_DONE, Figure
from tests.benchmarks.rig import NOTICE_S, POLL_S, Rig, rig

GROUP = "closing"
SIZES = (3, 20)
"""In a set of 20 VMs or more each standby reads the lease every 5 s."""
AGENTS = 3
EVENTS = 8
"""Events of one run; each names both standbys."""
LOOK_S = 0.02
WITHIN_S = 60.0
OVERRIDES: Overrides = {
    "policy": {"connection_drain_s": 5, "restore_settle_s": 1, "close": True},
    "drain": {"quiet_s": 0.5},
}
"""Intervals of production; what follows the closing is shorter, so that the bench ends."""


async def measure(runs: int, directory: Path) -> list[Figure]:
    """Announce events of standbys, and watch their flag files."""
    figures: list[Figure] = []
    for vms in SIZES:
        took: list[float] = []
        for _ in range(max(1, runs // 2)):
            settings = WorldSettings(operation_latency_s=1.0, ack_starts_event_after_s=None)
            async with rig(
                directory, vms=vms, agents=AGENTS, settings=settings, overrides=OVERRIDES
            ) as made:
                for _ in range(EVENTS):
                    took += await _close(made)
        figures.append(
            Figure(
                group=GROUP,
                name=f"event published to closed, 95th percentile, {vms} VMs",
                samples=[_percentile(took, 0.95)],
                unit="s",
                target=2.5,
                note=f"{len(took)} closings, median {_percentile(took, 0.5):.2f} s, "
                f"longest {max(took):.2f} s",
            )
        )
    return figures


async def _close(made: Rig) -> list[float]:
    """Announce one event of both standbys; return after how many seconds each was closed."""
    victims = [vm for vm in made.fleet.vms if vm != made.leader]
    flags = {vm: made.server.ca_file.with_name(f"{vm}.draining") for vm in victims}
    await asyncio.sleep(random.uniform(0, POLL_S))
    published = time.monotonic()
    event = made.world.events.schedule("Reboot", *victims, notice_s=NOTICE_S, impact="")
    await made.server.notify()
    took = [await _until(flags[vm].exists, since=published) for vm in victims]
    pool = made.world.pool_ids()[0]
    await made.server.wait_until(
        lambda: not set(victims) & set(made.world.rotation(pool)), WITHIN_S
    )
    made.world.events.complete(event.event_id)
    await made.server.notify()
    files = tuple(flags.values())
    await _until(lambda: not any(flag.exists() for flag in files), since=time.monotonic())
    await made.server.wait_until(lambda: not made.entries(), WITHIN_S)
    return took


async def _until(holds: Callable[[], bool], *, since: float) -> float:
    """Return how many seconds after `since` something holds."""
    while not holds():
        if time.monotonic() - since > WITHIN_S:
            return NOT_DONE
        await asyncio.sleep(LOOK_S)
    return time.monotonic() - since


def _percentile(samples: list[float], share: float) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
