"""The hooks of one VM: each stage starts its commands once, one after the other."""

import asyncio
import logging
from types import TracebackType
from typing import Self

from controller.config.in_force import ConfigurationInForce
from controller.config.vm_side import Hook
from controller.core.events import ScheduledEvent
from controller.core.vm_report import HookOutcome
from controller.observability.logs import log
from controller.vm_side.machine import Machine

logger = logging.getLogger("lbdrain.closing")


class HookRuns:
    """Starts hooks and keeps how they ended; use as a context manager, which owns its tasks.

    Args:
        vm: the name of this VM.
        configuration: has the hooks in force.
        machine: runs their commands.
    """

    def __init__(self, vm: str, configuration: ConfigurationInForce, machine: Machine) -> None:
        self._vm, self._configuration, self._machine = vm, configuration, machine
        self._stage = ""
        self._newest = ""
        """The stage whose hooks run, or else the newest stage."""
        self._program = ""
        """What runs, or ran last."""
        self._started_at: float | None = None
        self._outcomes: dict[str, HookOutcome] = {}
        self._task: asyncio.Task[None] | None = None
        self.problem = ""
        """Why the newest hook failed; empty if it did not."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    @property
    def outcome(self) -> HookOutcome:
        """How the hooks of the newest stage ended, or that those of an earlier stage still run."""
        return self._outcomes.get(self._newest, HookOutcome.NONE)

    def outcome_of(self, stage: str) -> HookOutcome:
        """Return how the hooks of a stage ended, when they ran last."""
        return self._outcomes.get(stage, HookOutcome.NONE)

    def start(self, stage: str, event: ScheduledEvent | None) -> None:
        """Start the hooks of a stage, unless it is the newest one; those under way are stopped.

        A stage without hooks leaves those under way alone: they end, or their time does.
        """
        if stage == self._stage:
            return
        self._stage, self.problem, self._started_at = stage, "", None
        self._run(stage, event)

    def start_again(
        self, stage: str, event: ScheduledEvent | None, now_s: float, *, every_s: float
    ) -> None:
        """Start the hooks of a stage again, at most every `every_s` seconds; `now_s` is monotonic.

        The first call after their start only notes the time.
        """
        started = self._started_at
        if started is None:
            self._started_at = now_s
        elif now_s - started >= every_s:
            self._started_at = now_s
            self._run(stage, event)

    def _run(self, stage: str, event: ScheduledEvent | None) -> None:
        hooks = [hook for hook in self._configuration.settings.hooks if hook.on == stage]
        self._outcomes[stage] = HookOutcome.RUNNING if hooks else HookOutcome.NONE
        runs = self._task is not None and not self._task.done()
        if hooks:
            self._stop(before=stage)
            self._task = asyncio.create_task(self._all(stage, hooks, event), name=stage)
        if hooks or not runs:
            self._newest = stage

    def _stop(self, *, before: str) -> None:
        """Stop the hooks that run, before those of another stage, or the same ones, begin."""
        if self._task is None or self._task.done():
            return
        self._task.cancel()
        message = (
            f"hook {self._newest}: the hook {self._program} is stopped, because the hooks of the "
            f"stage {before} begin"
        )
        log(logger, logging.WARNING, message, event="vm_side_failed", vm=self._vm)

    async def _all(self, stage: str, hooks: list[Hook], event: ScheduledEvent | None) -> None:
        ended = HookOutcome.DONE
        for hook in hooks:
            self._program = hook.command[0]
            result = await self._machine.run_hook(
                hook.command, environment(self._vm, event), timeout_s=hook.timeout_s
            )
            if result.problem:
                ended, self.problem = result.outcome, result.problem
                message = f"hook {stage}: {result.problem}"
                log(logger, logging.WARNING, message, event="vm_side_failed", vm=self._vm)
        self._outcomes[stage] = ended


def environment(vm: str, event: ScheduledEvent | None) -> dict[str, str]:
    """Return the variables that describe the drain to a hook; empty texts for a drain request."""
    not_before = event.not_before.isoformat() if event and event.not_before else ""
    return {
        "LB_DRAIN_VM": vm,
        "LB_DRAIN_EVENT_TYPE": event.event_type if event else "",
        "LB_DRAIN_EVENT_ID": event.event_id if event else "",
        "LB_DRAIN_NOT_BEFORE": not_before,
        "LB_DRAIN_DURATION_S": str(event.duration_s) if event else "",
    }
