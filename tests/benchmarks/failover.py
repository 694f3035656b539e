"""How long nobody leads after a leader's sudden death, and after an orderly stop."""

import asyncio
import random
import signal
import time
from pathlib import Path

from controller.simulator.app.agent_processes import ACCELERATED
from tests.benchmarks.figures import NOT_DONE, Figure
from tests.benchmarks.rig import Rig, rig

GROUP = "failover"
LEASE_S, RENEW_S = 15.0, 3.0
"""The accelerated configuration; 15 s is the shortest lease Azure grants."""


async def measure(runs: int, directory: Path) -> list[Figure]:
    """Kill leaders at different phases of their renewal period, then stop some."""
    assert ACCELERATED["election"]["lease_duration_s"] == LEASE_S
    killed: list[float] = []
    stopped: list[float] = []
    kills = 2 * runs + 1
    async with rig(directory) as made:
        for number in range(kills):
            phase = (number + 0.5) / kills
            took_s = await _end_leader(made, signal.SIGKILL, phase, within_s=4 * LEASE_S)
            killed.append(took_s / LEASE_S)
        while len(stopped) < kills:
            stopped.append(await _end_leader(made, signal.SIGTERM, random.random(), within_s=60))
    return [
        Figure(
            group=GROUP,
            name="SIGKILL to next leader / lease duration",
            samples=killed,
            target=1.3,
            worst=True,
            note=f"lease {LEASE_S:.0f} s, kills spread over the renewal period",
        ),
        Figure(
            group=GROUP,
            name="SIGTERM to next leader",
            samples=stopped,
            unit="s",
            target=2.0,
            worst=True,
        ),
    ]


async def _end_leader(made: Rig, number: signal.Signals, phase: float, *, within_s: float) -> float:
    """Return how long it took from the signal until another VM had the lease."""
    since = len(made.world.history)
    await made.until(lambda c: c.kind == "lease_renew", since=since, within_s=2 * RENEW_S + 1)
    await asyncio.sleep(phase * RENEW_S)
    leader, since, at = made.leader, len(made.world.history), time.time()
    made.fleet.signal(leader, number)
    try:
        taken = await made.until(
            lambda c: c.kind == "lease_acquire" and c.detail["by"] != leader,
            since=since,
            within_s=within_s,
        )
    except TimeoutError:
        return NOT_DONE
    await made.fleet.ended(leader)
    await made.fleet.start(leader)
    await asyncio.sleep(2)
    return taken.at - at
