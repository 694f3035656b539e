"""The machine of a simulated VM as its agent's closing side meets it, in virtual time.

The flag is a file in memory: it survives the agent and is lost at a reboot, and when the service
of the agent stops for good. The application on the VM (`World.set_closed`) follows it.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from controller.core.vm_report import HookOutcome
from controller.probe.application_check import Readiness
from controller.simulator.world.history import Change
from controller.vm_side.connections import ConnectionCount
from controller.vm_side.flag import Flag
from controller.vm_side.machine import HookResult
from tests.simulation.loop import current_process
from tests.simulation.scenario import Habits

if TYPE_CHECKING:
    from tests.simulation.runner import Simulation

NEVER = float("inf")
A_MOMENT_S = 0.002
"""What a look at the machine takes."""


@dataclass(frozen=True, slots=True)
class Closed:
    """When the application of a VM has nothing left, and when the load balancer has noticed."""

    since: float
    quiet_at: float
    noticed_at: float


class SimMachine:
    """A `controller.vm_side.machine.Machine`; times are those of the loop."""

    def __init__(self, simulation: "Simulation", vm: str, habits: Habits) -> None:
        self._simulation, self.vm, self._habits = simulation, vm, habits
        self._random = random.Random(f"machine {simulation.scenario.seed} {vm}")
        self._boots = 1
        self.hook_ends_at = 0.0
        """When the last hook that was started ends."""
        self._flag: Flag | None = None
        self._closed: Closed | None = None
        self._ready_at = 0.0
        self._calls: Counter[str] = Counter()
        self._hook_runs: Counter[str] = Counter()

    # --- controller.vm_side.machine.Machine

    @property
    def boot_id(self) -> str:
        return f"boot-{self._boots}"

    @property
    def probe_port(self) -> int:
        return int(self._probe()["port"]) if self._habits.responder else 0

    def flag(self) -> Flag | None:
        if self._flag is None:
            return None
        age_s = (self._now() - self._flag.renewed_at).total_seconds()
        return replace(self._flag, age_s=max(0.0, age_s))

    def set_flag(self, flag: Flag) -> str:
        if self._dies("set_flag"):
            return ""
        if self._habits.read_only:
            self._simulation.marks.add("machine: flag not writable")
            return "the flag file cannot be written (drawn)"
        self._flag = replace(flag, renewed_at=self._now())
        self._simulation.marks.add("closed: by an entry" if flag.drain else "closed: alone")
        if self._closed is None:
            self._closed = self._closing()
            self._apply()
        self._dies("set_flag", after=True)
        return ""

    def renew_flag(self) -> str:
        if self._flag is None:
            return "the flag file cannot be renewed (it does not exist)"
        if not self._dies("renew_flag"):
            self._flag = replace(self._flag, renewed_at=self._now())
        return ""

    def clear_flag(self) -> str:
        if self._dies("clear_flag"):
            return ""
        self._open()
        self._dies("clear_flag", after=True)
        return ""

    def note_known(self) -> None:
        """Its responder forgets a reboot: that is the worst case."""

    async def connections(self, ports: Sequence[int]) -> ConnectionCount:
        await self._look("connections")
        if self._habits.uncounted:
            return ConnectionCount(0, "connections cannot be counted: drawn")
        left = self._closed is None or self._simulation.loop.now < self._closed.quiet_at
        return ConnectionCount(self._habits.connections if left and ports else 0)

    async def run_hook(
        self, command: Sequence[str], environment: Mapping[str, str], *, timeout_s: float
    ) -> HookResult:
        stage = command[-1]
        await self._look(f"hook {stage}")
        self._hook_runs[stage] += 1
        outcome, takes_s = self._habits.hooks.get(stage, ("done", 0.0))
        # The operator corrects what fails: the next run succeeds.
        outcome = outcome if self._hook_runs[stage] == 1 else "done"
        self._simulation.marks.add(f"hook: {outcome}")
        lasts_s = timeout_s if outcome == "hanging" else min(takes_s, timeout_s)
        self.hook_ends_at = self._simulation.loop.now + lasts_s
        if outcome == "hanging" or takes_s > timeout_s:
            await asyncio.sleep(timeout_s)
            return HookResult(HookOutcome.TIMED_OUT, f"the hook {stage} did not end")
        await asyncio.sleep(takes_s)
        if outcome == "failed":
            return HookResult(HookOutcome.FAILED, f"the hook {stage} ended with 1")
        return HookResult(HookOutcome.DONE)

    async def refused_probes(self) -> int | None:
        await self._look("refused_probes")
        if not self._habits.responder or self._closed is None:
            return 0 if self._habits.responder else None
        closed_s = self._simulation.loop.now - self._closed.since
        return int(closed_s / self._probe()["intervalInSeconds"]) * self._rules()

    async def readiness(self) -> Readiness:
        await self._look("readiness")
        ready = self._simulation.loop.now >= self._ready_at
        return Readiness(ready=ready, reason="open" if ready else "HTTP 503")

    # --- what happens to the VM

    def follow(self, change: Change) -> None:
        """Lose what is in memory when the VM goes down; become ready some time after it is up."""
        if change.kind == "vm_down" and change.detail["state"] != "frozen":
            self._flag = self._closed = None
            self._boots += 1
            self._ready_at = NEVER
        elif change.kind == "vm_up" and self._ready_at == NEVER:
            self._ready_at = self._simulation.loop.now + self._habits.ready_after_s

    def service_stopped(self) -> None:
        """Lose the directory of the flag, as when systemd has given the unit up."""
        self._open()

    # --- inside

    def _open(self) -> None:
        self._flag = self._closed = None
        self._apply()

    def _apply(self) -> None:
        """Let the application follow the flag, outside of the process that wrote it."""
        self._simulation.loop.call_soon(self._change_world, context=self._simulation.wires.context)

    def _change_world(self) -> None:
        simulation, closed = self._simulation, self._closed
        simulation.world.advance(simulation.epoch())
        found = simulation.world.find_vm(self.vm)
        if found is None or found.closed == (closed is not None):
            return
        simulation.world.set_closed(self.vm, closed=closed is not None)
        if closed is not None:
            start = simulation.epoch() - simulation.loop.now
            quiet_at, noticed_at = start + closed.quiet_at, start + closed.noticed_at
            simulation.record("machine_closed", self.vm, quiet_at=quiet_at, noticed_at=noticed_at)
        simulation.follow()

    def _closing(self) -> Closed:
        now, probe = self._simulation.loop.now, self._probe()
        ends_s = self._random.uniform(0, self._habits.ends_within_s)
        noticed_s = probe["intervalInSeconds"] * probe["probeThreshold"]
        return Closed(
            since=now,
            quiet_at=NEVER if self._habits.never_quiet else now + ends_s,
            noticed_at=now + noticed_s if self._habits.responder else NEVER,
        )

    def _probe(self) -> dict[str, int]:
        world = self._simulation.world
        found = [probe for pool in world.pool_ids() if (probe := world.probe_of(pool))]
        return found[0] if found else {"port": 80, "intervalInSeconds": 5, "probeThreshold": 1}

    def _rules(self) -> int:
        return len(self._simulation.world.pool_ids()) if self._habits.probed_by_rule else 1

    def _now(self) -> datetime:
        epoch_s = self._simulation.hosts[self.vm].wall()
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=epoch_s)

    async def _look(self, what: str) -> None:
        """Take a moment; a process that dies over it never hears the answer."""
        if self._dies(what):
            await asyncio.Event().wait()
        await asyncio.sleep(A_MOMENT_S)

    def _dies(self, what: str, *, after: bool = False) -> bool:
        """Return whether the agent dies at this line, before or after what it does."""
        if self._simulation.loop.now >= self._habits.dies_until_s:
            return False
        line = f"after {what}" if after else what
        self._calls[line] += 1
        if (line, self._calls[line]) not in self._habits.dies:
            return False
        host = self._simulation.hosts[self.vm]
        if not host.runs(current_process()):
            return False
        self._simulation.marks.add(f"dies: {what}")
        host.crash(2.0)
        return True
