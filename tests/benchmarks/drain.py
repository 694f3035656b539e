"""How soon a removal leaves, and how close a drain comes to the best schedule Azure allows."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from controller.simulator.app.agent_processes import ACCELERATED, Overrides
from controller.simulator.world.settings import WorldSettings
from tests.benchmarks.figures import NOT_DONE, Figure
from tests.benchmarks.rig import POLL_S, Rig, rig

GROUP = "drain"
LATENCY_S = 10.0
"""What a NIC write takes on Azure: reported are 10 to 15 s."""
SERIAL_LATENCY_S = 4.0
"""Shorter where they come one after the other, so that the bench ends; polls weigh more in it."""
JITTER_S = POLL_S
"""So that operations end at every phase of the polls for their end."""
AT_ONCE: Overrides = {**ACCELERATED, "policy": {**ACCELERATED["policy"], "close": False}}
"""No removal waits until its VM has closed: that is measured by `closing`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A set, how many of its VMs are affected, and how Azure takes parallel writes."""

    vms: int
    victims: int
    how: Literal["parallel", "serial", "ip"] = "parallel"
    latency_s: float = LATENCY_S

    @property
    def note(self) -> str:
        """What the best schedule is: all at once, one after the other, or one write for all."""
        span = f"{self.latency_s:.0f} to {self.latency_s + JITTER_S:.0f} s"
        schedules = {
            "parallel": f"the longest of {self.victims} operations of {span}",
            "serial": f"{self.victims} operations of {span}, one at a time",
            "ip": f"one PUT for all, {span}",
        }
        return f"best: {schedules[self.how]}"

    @property
    def patience_s(self) -> float:
        """After so long a run counts as not done."""
        operations = self.victims if self.how == "serial" else 1
        return 2 * operations * (self.latency_s + JITTER_S) + 30

    def best_s(self, operations: Sequence[float]) -> float:
        """The shortest time in which this Azure could do operations that take so long."""
        return sum(operations) if self.how == "serial" else max(operations)


CASES = (
    Case(vms=20, victims=8),
    Case(vms=20, victims=8, how="serial", latency_s=SERIAL_LATENCY_S),
    Case(vms=20, victims=8, how="ip"),
    Case(vms=200, victims=40),
    Case(vms=200, victims=40, how="serial", latency_s=SERIAL_LATENCY_S),
    Case(vms=200, victims=40, how="ip"),
)


async def measure(runs: int, directory: Path) -> list[Figure]:
    """Measure one VM of three often, larger sets once per run."""
    figures = [*await _one_vm(runs, directory), await _first(runs, directory)]
    for case in CASES:
        figures += await _many(case, runs, directory)
    return figures


async def _one_vm(runs: int, directory: Path) -> list[Figure]:
    case = Case(vms=3, victims=1)
    noticed: list[float] = []
    ratios: list[float] = []
    back: list[float] = []
    back_ratios: list[float] = []
    async with rig(directory, settings=_settings(case), overrides=AT_ONCE) as made:
        for _ in range(runs + 1):
            victims = made.others(1)
            await _follow(made, case, victims, noticed, ratios)
            await _follow(made, case, victims, back, back_ratios, restore=True)
            await asyncio.sleep(3)  # the entry settles and is forgotten
        own: list[float] = []
        for _ in range(max(1, runs // 2)):
            victims = [made.leader]
            await _follow(made, case, victims, own, [])
            await _follow(made, case, victims, [], [], restore=True)
            await asyncio.sleep(3)
    note = f"1 of 3 VMs, operations of {LATENCY_S:.0f} to {LATENCY_S + JITTER_S:.0f} s"
    return [
        Figure(
            group=GROUP,
            name="event published to removal sent",
            samples=noticed,
            unit="polls",
            target=1.5,
            note=f"poll interval {POLL_S:.0f} s",
        ),
        Figure(
            group=GROUP,
            name="the same when the leader is the victim",
            samples=own,
            unit="polls",
            note="it hands over first",
        ),
        Figure(
            group=GROUP,
            name="removal sent to observed out / operation",
            samples=ratios,
            target=1.15,
            note=note,
        ),
        Figure(
            group=GROUP,
            name="event gone to restore sent",
            samples=back,
            unit="polls",
            target=2.5,
            note="two clean polls are required",
        ),
        Figure(
            group=GROUP,
            name="restore sent to observed in / operation",
            samples=back_ratios,
            target=1.15,
            note=note,
        ),
    ]


async def _first(runs: int, directory: Path) -> Figure:
    """Measure leaders that have written nothing yet: they load the SDK meanwhile."""
    samples: list[float] = []
    for _ in range(runs + 1):
        settings = WorldSettings(operation_latency_s=1.0, ack_starts_event_after_s=None)
        async with rig(directory, settings=settings, overrides=AT_ONCE) as made:
            await _follow(made, Case(vms=3, victims=1), made.others(1), samples, [])
    return Figure(
        group=GROUP,
        name="the same for the first drain of a leader",
        samples=samples,
        unit="polls",
        target=1.5,
        note="it loads the SDK meanwhile",
    )


async def _many(case: Case, runs: int, directory: Path) -> list[Figure]:
    first: list[float] = []
    ratios: list[float] = []
    refused: list[float] = []
    for _ in range(max(1, runs // 2)):
        async with rig(
            directory,
            vms=case.vms,
            settings=_settings(case),
            ip_based=case.how == "ip",
            overrides=AT_ONCE,
        ) as made:
            since = len(made.asked)
            await _follow(made, case, made.others(case.victims), first, ratios)
            refused.append(float(sum(a.kind == "refused" for a in made.asked[since:])))
    name = f"{case.victims} of {case.vms} VMs, {case.how}"
    figures = [
        Figure(
            group=GROUP,
            name=f"{name}: published to first removal",
            samples=first,
            unit="polls",
            target=1.5,
        ),
        Figure(group=GROUP, name=f"{name}: out / best", samples=ratios, target=1.2, note=case.note),
    ]
    if case.how == "serial":
        figures.append(Figure(group=GROUP, name=f"{name}: writes refused as busy", samples=refused))
    return figures


def _settings(case: Case) -> WorldSettings:
    return WorldSettings(
        operation_jitter_s=JITTER_S,
        operation_latency_s=case.latency_s,
        pool_operation_latency_s=case.latency_s,
        conflict_mode="serial" if case.how == "serial" else "parallel",
        ack_starts_event_after_s=None,
    )


async def _follow(
    made: Rig,
    case: Case,
    victims: Sequence[str],
    noticed: list[float],
    ratios: list[float],
    *,
    restore: bool = False,
) -> None:
    """Add one drain or restore to the samples."""
    follow = made.restore if restore else made.drain
    try:
        done = await follow(victims, within_s=case.patience_s)
    except TimeoutError:
        noticed.append(NOT_DONE)
        ratios.append(NOT_DONE)
        return
    noticed.append((done.sent - done.published) / POLL_S)
    ratios.append((done.out - done.sent) / case.best_s(made.operations(done.sent)))
