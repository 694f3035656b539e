"""How many ARM calls a drain and a restore cost, per NIC; operation polls are counted apart."""

import asyncio
from pathlib import Path

from controller.simulator.world.settings import WorldSettings
from tests.benchmarks.figures import NOT_DONE, Figure
from tests.benchmarks.rig import Rig, rig

GROUP = "calls"
SETTLED_S = 0.2
"""The reply to the last request of a drain may be on its way when the ledger already tells."""
VIEWS_AGE_S = 31.0
"""By then nothing that the inventory saw is fresh enough to decide by: maintenance comes so."""


async def measure(runs: int, directory: Path) -> list[Figure]:
    """Count the calls of one VM, and of eight VMs of twenty."""
    few, many = await asyncio.gather(
        _count(directory, runs, vms=3, count=1), _count(directory, runs, vms=20, count=8)
    )
    return [*few, *many]


async def _count(directory: Path, runs: int, *, vms: int, count: int) -> list[Figure]:
    settings = WorldSettings(operation_latency_s=2.0, ack_starts_event_after_s=None)
    async with rig(directory, vms=vms, settings=settings) as made:
        await asyncio.sleep(VIEWS_AGE_S)
        return await _count_in(made, count, runs)


async def _count_in(made: Rig, count: int, runs: int) -> list[Figure]:
    samples: dict[tuple[str, str], list[float]] = {}
    for _ in range(runs):
        victims = made.others(count)
        for direction in ("drain", "restore"):
            samples_of = await _one(made, victims, direction)
            for kind, number in samples_of.items():
                samples.setdefault((direction, kind), []).append(number / count)
    size = f"{count} of {len(made.world.peers())} VMs"
    targets = {"read": 3.0, "write": 1.0, "refused": 0.0}
    return [
        Figure(
            group=GROUP,
            name=f"{kind}s per NIC, {direction}" if kind != "refused" else f"refused, {direction}",
            samples=numbers,
            target=targets.get(kind),
            worst=True,
            note=size + (", operations of 2 s" if kind == "poll" else ""),
        )
        for (direction, kind), numbers in samples.items()
    ]


async def _one(made: Rig, victims: list[str], direction: str) -> dict[str, float]:
    """Count one direction, from the change of the event document to the end in the ledger."""
    try:
        follow = made.drain if direction == "drain" else made.restore
        done = await follow(victims, within_s=60)
    except TimeoutError:
        return dict.fromkeys(("read", "write", "poll", "refused"), NOT_DONE)
    return {kind: float(n) for kind, n in made.calls(done.published, done.out + SETTLED_S).items()}
