"""What an agent costs its VM, with the configuration of production: memory and processor time."""

import asyncio
import os
import statistics
from pathlib import Path

from controller.simulator.app.agent_processes import REAL_TIME
from controller.simulator.world.settings import WorldSettings
from tests.benchmarks.figures import Figure
from tests.benchmarks.rig import rig

GROUP = "footprint"
WINDOW_S = 60.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


async def measure(runs: int, directory: Path) -> list[Figure]:
    """Watch three idle agents for a minute, then let the leader drain and restore a VM."""
    standby_mb: list[float] = []
    leader_mb: list[float] = []
    above_mb: list[float] = []
    standby_cpu: list[float] = []
    leader_cpu: list[float] = []
    reads: list[float] = []
    for _ in range(max(1, runs // 2)):
        settings = WorldSettings(operation_latency_s=2.0, ack_starts_event_after_s=None)
        async with rig(directory, settings=settings, overrides=REAL_TIME) as made:
            await asyncio.sleep(5)
            leader = made.leader
            standbys = [vm for vm in made.fleet.vms if vm != leader]
            before, asked = (
                {vm: cpu_s(made.fleet.process_id(vm)) for vm in made.fleet.vms},
                len(made.asked),
            )
            await asyncio.sleep(WINDOW_S)
            used = {
                vm: 100 * (cpu_s(made.fleet.process_id(vm)) - before[vm]) / WINDOW_S
                for vm in before
            }
            reads.append(float(len(made.asked) - asked))
            standby_cpu += [used[vm] for vm in standbys]
            leader_cpu.append(used[leader])
            beside = [resident_mb(made.fleet.process_id(vm)) for vm in standbys]
            standby_mb += beside
            idle_mb = resident_mb(made.fleet.process_id(leader))
            above_mb.append(idle_mb - statistics.median(beside))
            victims = made.others(1)
            await made.drain(victims, within_s=30)
            await made.restore(victims, within_s=30)
            leader_mb.append(resident_mb(made.fleet.process_id(leader)))
    window = f"{WINDOW_S:.0f} s, 3 VMs, real-time configuration"
    return [
        Figure(group=GROUP, name="standby, memory", samples=standby_mb, unit="MB", target=85),
        Figure(
            group=GROUP,
            name="leader after a drain, memory",
            samples=leader_mb,
            unit="MB",
            target=140,
        ),
        Figure(
            group=GROUP,
            name="idle leader above a standby, memory",
            samples=above_mb,
            unit="MB",
            target=5,
            note="before its first drain",
        ),
        Figure(
            group=GROUP,
            name="idle standby, processor",
            samples=standby_cpu,
            unit="%",
            target=1,
            note=window,
        ),
        Figure(
            group=GROUP,
            name="idle leader, processor",
            samples=leader_cpu,
            unit="%",
            target=3,
            note=window,
        ),
        Figure(
            group=GROUP,
            name="ARM requests of an idle set",
            samples=reads,
            target=0,
            note=f"{window}, between two inventories",
        ),
    ]


def resident_mb(process_id: int | None) -> float:
    """Return VmRSS in units of 10^6 bytes."""
    status = Path(f"/proc/{process_id}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


def cpu_s(process_id: int | None) -> float:
    """Return processor seconds used so far, user and system."""
    text = Path(f"/proc/{process_id}/stat").read_text()
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
