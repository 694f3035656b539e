"""What an idle set asks of Resource Manager: a bounded number of reads, and no writes (law H1)."""

import asyncio
import socket
import time
from pathlib import Path

import aiohttp

from tests.benchmarks.figures import Figure
from tests.benchmarks.rig import Rig, rig

GROUP = "idle"
SIZES = ((3, False), (200, False), (3, True), (1000, True))
"""VMs, and whether they are in a flexible scale set."""
LONG_WINDOW_S = 660.0


async def measure(runs: int, directory: Path, *, long: bool = False) -> list[Figure]:
    """Count the requests of one inventory, and learn from the leader how often it takes one.

    Args:
        runs: fresh sets per size.
        directory: where configurations and logs go.
        long: wait for a second inventory instead of believing the leader.
    """
    figures: list[Figure] = []
    for vms, flexible in SIZES:
        kind = "scale set" if flexible else "set"
        hourly: list[float] = []
        writes: list[float] = []
        notes: set[str] = set()
        for _ in range(1 if long else max(1, runs // 2)):
            port = _free_port()
            overrides = {"server": {"listen": f"127.0.0.1:{port}"}}
            async with rig(
                directory, vms=vms, agents=1, flexible=flexible, overrides=overrides
            ) as made:
                reads, period_s = await (_observe(made) if long else _ask(made, port))
                hourly.append(reads * 3600 / period_s)
                writes.append(float(sum(a.kind in {"write", "refused"} for a in made.asked)))
                notes.add(f"{reads} reads every {period_s:.0f} s")
        source = "observed" if long else "period as the leader tells it"
        note = f"{' / '.join(sorted(notes))}, {source}"
        figures += [
            Figure(
                group=GROUP,
                name=f"ARM reads per hour, {kind} of {vms:,} VMs",
                samples=hourly,
                target=60,
                note=note,
            ),
            Figure(
                group=GROUP, name=f"ARM writes, {kind} of {vms:,} VMs", samples=writes, target=0
            ),
        ]
    return figures


async def _ask(made: Rig, port: int) -> tuple[int, float]:
    """Return the reads of the inventory a new leader takes, and its period."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/status") as reply,
    ):
        period_s = float((await reply.json())["inventory_period_s"])
    return _reads(made, made.world.changes("lease_acquire")[-1].at), period_s


async def _observe(made: Rig) -> tuple[int, float]:
    """Return what was really read over a window that holds at least one inventory."""
    since = time.time()
    await asyncio.sleep(LONG_WINDOW_S)
    return _reads(made, since), LONG_WINDOW_S


def _reads(made: Rig, since: float) -> int:
    return sum(asked.kind == "read" for asked in made.asked if asked.at >= since)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
