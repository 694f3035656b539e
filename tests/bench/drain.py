"""How soon a removal leaves, and how close a drain comes to the best schedule Azure allows."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from controller.simulator.world import WorldSettings
from tests.bench.figures import NOT_DONE, Figure
from tests.bench.rig import POLL_S, Drained, Rig, rig

GROUP = "drain"
LATENCY_S = 10.0
"""What a NIC write takes on Azure: reported are 10 to 15 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A set, how many of its VMs are affected, and how Azure takes parallel writes."""

    vms: int
    victims: int
    how: Literal["parallel", "serial", "ip"] = "parallel"
    latency_s: float = LATENCY_S

    @property
    def best_s(self) -> float:
        """The shortest time in which Azure can do it: one operation, or one after the other."""
        return self.latency_s * (self.victims if self.how == "serial" else 1)

    @property
    def note(self) -> str:
        """How the best schedule comes about."""
        operations = {
            "parallel": f"one operation of {self.latency_s:.0f} s each, all at once",
            "serial": f"{self.victims} operations of {self.latency_s:.0f} s, one at a time",
            "ip": f"one PUT for all, {self.latency_s:.0f} s",
        }
        return f"best: {operations[self.how]}"


CASES = (
    Case(vms=20, victims=8),
    Case(vms=20, victims=8, how="serial", latency_s=2.0),
    Case(vms=20, victims=8, how="ip"),
    Case(vms=200, victims=40),
    Case(vms=200, victims=40, how="serial", latency_s=2.0),
    Case(vms=200, victims=40, how="ip"),
)


async def measure(runs: int, directory: Path) -> list[Figure]:
    """Measure one VM of three often, larger sets once per run."""
    figures = await _one_vm(runs, directory)
    for case in CASES:
        figures += await _many(case, runs, directory)
    return figures


async def _one_vm(runs: int, directory: Path) -> list[Figure]:
    settings = _settings(Case(vms=3, victims=1))
    noticed: list[float] = []
    ratios: list[float] = []
    back: list[float] = []
    back_ratios: list[float] = []
    async with rig(directory, settings=settings) as made:
        for _ in range(2 * runs + 1):
            victims = made.others(1)
            done = await _or_none(made, victims, LATENCY_S * 3)
            noticed.append((done.sent - done.published) / POLL_S if done else NOT_DONE)
            ratios.append((done.out - done.sent) / LATENCY_S if done else NOT_DONE)
            done = await _or_none(made, victims, LATENCY_S * 3, restore=True)
            back.append((done.sent - done.published) / POLL_S if done else NOT_DONE)
            back_ratios.append((done.out - done.sent) / LATENCY_S if done else NOT_DONE)
            await asyncio.sleep(3)  # the entry settles and is forgotten
    note = f"1 of 3 VMs, operations of {LATENCY_S:.0f} s"
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


async def _many(case: Case, runs: int, directory: Path) -> list[Figure]:
    first: list[float] = []
    ratios: list[float] = []
    refused: list[float] = []
    for _ in range(max(1, runs // 2)):
        async with rig(
            directory, vms=case.vms, settings=_settings(case), ip_based=case.how == "ip"
        ) as made:
            done = await _or_none(made, made.others(case.victims), 2 * case.best_s + 30)
            first.append((done.sent - done.published) / POLL_S if done else NOT_DONE)
            ratios.append((done.out - done.sent) / case.best_s if done else NOT_DONE)
            calls = made.calls(done.published, done.out) if done else {}
            refused.append(float(calls.get("refused", 0)))
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
        operation_latency_s=case.latency_s,
        pool_operation_latency_s=case.latency_s,
        conflict_mode="serial" if case.how == "serial" else "parallel",
        ack_starts_event_after_s=None,
    )


async def _or_none(
    made: Rig, victims: Sequence[str], within_s: float, *, restore: bool = False
) -> Drained | None:
    try:
        return await (made.restore if restore else made.drain)(victims, within_s=within_s)
    except TimeoutError:
        return None
