"""Measure one pass of the planner: `python -m tests.benchmarks.planning [--runs N]`.

CPU time of `plan()` for sets of 20, 200 and 1,000 VMs of which a fifth to two fifths are due, in
every stage that a drain goes through. Exits with 1 when a row misses its target: a pass over 1,000
VMs takes at most 50 ms, and costs at most twice as much per VM as a pass over 20. A flexible scale
set has at most 1,000 VMs. The ledger of 200 that are out stays below half of what is written.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from controller.core.blob_limits import MAX_LEDGER_BYTES
from controller.core.observation import Observation
from controller.core.planning.planner import plan
from controller.storage.ledger_json import encode_ledger
from tests.benchmarks.figures import Figure, show
from tests.support.planner_scenario import APP, PlannerScenario, at, event

GROUP = "planning"
SIZES = ((20, 8), (200, 40), (1000, 200))
"""VMs, and how many of them are due."""
PASS_MS = 50.0
PER_VM_RATIO = 2.0


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One pass of a drain, ready to be planned again and again."""

    name: str
    scene: PlannerScenario
    observed: Observation

    def cpu_ms(self) -> float:
        """Return the CPU time of one pass."""
        scene, now = self.scene, at(self.scene.now)
        started = time.process_time()
        plan(self.observed, scene.ledger, scene.policy, now)
        return (time.process_time() - started) * 1000


def _scene(vms: int, due: int) -> PlannerScenario:
    names = [f"web-{number}" for number in range(1, vms + 1)]
    scene = PlannerScenario(inside={name: [APP] for name in names}, slots=vms)
    scene.events = [event(name, event_id=f"E-{name}") for name in names[:due]]
    return scene


def _recording(scene: PlannerScenario, _due: list[str]) -> None:
    """Every due VM is still in the pool, and nothing is recorded."""


def _removing(scene: PlannerScenario, _due: list[str]) -> None:
    """Every due VM is recorded, and the writes are due."""
    scene.adopt()


def _seen_out(scene: PlannerScenario, due: list[str]) -> None:
    """Every due VM was just seen out of the pool."""
    scene.adopt()
    scene.inside.update({name: [] for name in due})
    scene.now += 5


def _acknowledging(scene: PlannerScenario, due: list[str]) -> None:
    """Every due VM is out and empty."""
    _seen_out(scene, due)
    scene.adopt()
    scene.now += 60


def _restoring(scene: PlannerScenario, due: list[str]) -> None:
    """Every event is over."""
    _acknowledging(scene, due)
    scene.events = []
    scene.now += 5
    scene.adopt()


STAGES: dict[str, Callable[[PlannerScenario, list[str]], None]] = {
    "record": _recording,
    "remove": _removing,
    "seen out": _seen_out,
    "acknowledge": _acknowledging,
    "restore": _restoring,
}


def stages(vms: int, due: int) -> list[Stage]:
    """Return the passes of a drain of `due` among `vms` VMs."""
    made: list[Stage] = []
    for name, prepare in STAGES.items():
        scene = _scene(vms, due)
        prepare(scene, [f"web-{number}" for number in range(1, due + 1)])
        made.append(Stage(name=name, scene=scene, observed=scene.observe()))
    return made


def ledger_size(vms: int, due: int) -> Figure:
    """Return the row of the largest ledger of a drain, as it is written."""
    sizes: list[float] = []
    for prepare in STAGES.values():
        scene = _scene(vms, due)
        prepare(scene, [f"web-{number}" for number in range(1, due + 1)])
        sizes.append(len(encode_ledger(scene.ledger)) / 1024)
    return Figure(
        group=GROUP,
        name=f"{vms:,} VMs, {due} due: largest ledger",
        samples=[max(sizes)],
        unit="kB",
        target=MAX_LEDGER_BYTES / 1024 / 2,
    )


def measure(runs: int) -> list[Figure]:
    """Return the rows: per pass and, against the smallest set, per VM."""
    figures: list[Figure] = []
    smallest: dict[str, float] = {}
    for vms, due in SIZES:
        for stage in stages(vms, due):
            stage.cpu_ms()  # once to fill the caches of folded names
            figure = Figure(
                group=GROUP,
                name=f"{vms:,} VMs, {due} due: {stage.name}",
                samples=[stage.cpu_ms() for _ in range(runs)],
                unit="ms",
                target=PASS_MS,
            )
            per_vm_us = figure.value * 1000 / vms
            first = smallest.setdefault(stage.name, per_vm_us)
            ratio = Figure(
                group=GROUP,
                name=f"{vms:,} VMs, {due} due: {stage.name}, per VM",
                samples=[per_vm_us],
                unit="us",
                target=PER_VM_RATIO * first,
                note=f"{per_vm_us / first:.1f} times the smallest set",
            )
            figures += [figure, ratio]
    return [*figures, ledger_size(*SIZES[-1])]


def main() -> int:
    """Print the table; exit with 1 when a row misses its target."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.planning")
    parser.add_argument("--runs", type=int, default=15, metavar="N", help="default: 15")
    options = parser.parse_args()
    figures = measure(options.runs)
    show(figures, Console(width=160 if not sys.stdout.isatty() else None))
    return 1 if any(figure.verdict == "short" for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
