"""A VM of the set as far as its agent goes: the process, its clocks, its births and deaths."""

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from controller.agent.agent import Agent
from controller.agent.live_status import LiveStatus
from controller.agent.tuning import Tuning
from controller.config.schema import Settings
from controller.errors import ConfigError
from controller.simulator.world.history import Change
from tests.simulation.loop import Process
from tests.simulation.scenario import ClockError

if TYPE_CHECKING:
    from tests.simulation.runner import Simulation

RESTART_S = 3.0
"""How long the service manager waits before it starts an agent again."""


class HostClock:
    """The clocks of one process: as wrong as those of its VM."""

    def __init__(self, host: "Host", process: Process) -> None:
        self._host, self._process = host, process

    def now(self) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=self._host.wall())

    def monotonic(self) -> float:
        running_s = self._host.simulation.loop.now - self._process.stopped_s
        return running_s * (1 + self._host.error.drift)


class Host:
    """One VM's agent, through all its processes."""

    def __init__(
        self, simulation: "Simulation", vm: str, settings: Settings, *, boots: int = 0
    ) -> None:
        self.simulation, self.vm = simulation, vm
        self.error = simulation.scenario.clocks.get(vm, ClockError())
        self.settings = settings
        self._boots = boots
        self._process: Process | None = None
        self._agent: Agent | None = None
        self._frozen_at: float | None = None
        self._vm_up = True
        self._retired = False
        self.forwards = True
        """Whether its set was a scale set when the agent started, or had never been one. One that
        starts while it is turned back withdraws nothing: Azure has no call for that."""
        self._dead: list[Process] = []

    def wall(self) -> float:
        """Return what this VM takes for the time, in epoch seconds."""
        now = self.simulation.loop.now
        return self.simulation.epoch() + self.error.ahead_s + self.error.drift * now

    def runs(self, process: Process | None) -> bool:
        """Return whether this is the process that runs now."""
        return process is not None and process is self._process

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    @property
    def settled(self) -> bool:
        """Whether the agent has found its place, or its VM does not run."""
        if self._agent is None:
            return not self._vm_up
        ready, why = self._agent.live_status.ready()
        # An agent of a set that was converted is never ready again, and works as long as it runs.
        return not self._vm_up or ready or why.startswith("the availability set ")

    @property
    def live_status(self) -> LiveStatus | None:
        """What the agent answers; None while there is no process."""
        return self._agent.live_status if self._agent is not None else None

    @property
    def leading(self) -> bool:
        """Whether the agent takes itself for the leader."""
        return self._agent is not None and self._agent.live_status.headline().startswith("leader")

    @property
    def frozen(self) -> bool:
        """Whether it stands still."""
        return self._frozen_at is not None

    # --- the process

    def boot(self) -> None:
        """Start the agent, unless it runs or its VM does not."""
        if self._process is not None or not self._vm_up or self._retired:
            return
        self._boots += 1
        world = self.simulation.world
        self.forwards = bool(world.scale_set_id) or not world.reverted
        seed = self.simulation.scenario.seed
        process = Process(self.simulation.loop, self.vm)
        self._process = process
        agent = process.context.run(
            Agent,
            self.settings,
            environ={},
            clock=HostClock(self, process),
            entropy=random.Random(f"{seed} {self.vm} {self._boots}"),
            session_factory=self.simulation.wires.sessions(process, self.vm),
            machine=self.simulation.machines[self.vm],
            tuning=Tuning(shortest_lease_read_s=self.simulation.scenario.look_s),
        )
        self._agent = agent
        self.simulation.record("agent_started", self.vm)
        process.start(self._main(agent, process))

    async def _main(self, agent: Agent, process: Process) -> None:
        error = ""
        try:
            await agent.run()
        except ConfigError as wrong:
            error = f"ConfigError: {wrong}"
        except BaseException as bug:
            error = f"{type(bug).__name__}: {bug!r}"
        self.simulation.loop.call_soon(
            self._ended, process, error, context=self.simulation.wires.context
        )

    def _ended(self, process: Process, error: str) -> None:
        if self._process is not process:
            return
        for task in process.tasks:
            self.simulation.record("leaked", self.vm, task=task.get_name())
        self.simulation.record("agent_ended", self.vm, error=error)
        self._bury(process)
        if not error.startswith("ConfigError"):
            self._later(RESTART_S)

    def kill(self) -> None:
        """End the process on the spot."""
        process, self._frozen_at = self._process, None
        if process is not None:
            self.simulation.record("agent_killed", self.vm)
            self._bury(process)

    def crash(self, restart_s: float | None) -> None:
        """Kill the process; the service manager starts it again after a while, or never."""
        self.kill()
        if restart_s is not None:
            self._later(restart_s)
        else:
            self.simulation.machines[self.vm].service_stopped()

    def freeze(self) -> None:
        """Let the process stand still."""
        if self._process is not None and self._frozen_at is None:
            self._frozen_at = self.simulation.loop.now
            self._process.freeze()
            self.simulation.record("agent_frozen", self.vm)

    def thaw(self, *, clock_stood_still: bool) -> None:
        """Let it go on."""
        if self._process is not None and self._frozen_at is not None:
            frozen_s = self.simulation.loop.now - self._frozen_at
            self._frozen_at = None
            self.simulation.record("agent_thawed", self.vm, after=round(frozen_s, 3))
            self._process.thaw(frozen_s, clock_stood_still=clock_stood_still)

    def stop(self) -> None:
        """Ask the agent to hand over and end, for good."""
        self._retired = True
        if self._agent is not None and self._process is not None:
            self._process.context.copy().run(self._agent.stop)

    def retire(self) -> None:
        """End the process on the spot, for good."""
        self._retired = True
        self.kill()

    def left_behind(self) -> None:
        """Record a process that did not end when asked."""
        if self._process is not None:
            self.simulation.record("leaked", self.vm, task="the agent did not stop")
            self.kill()

    def exhume(self) -> None:
        """Let every process that ever was clean up; what it does has no effect any more."""
        for process in self._dead:
            process.exhume()

    @property
    def restless(self) -> bool:
        """Whether some dead process has not ended yet."""
        return any(process.tasks for process in self._dead)

    def _bury(self, process: Process) -> None:
        self.simulation.wires.kill(process)
        self._dead.append(process)
        self._process = self._agent = None

    def _later(self, after_s: float) -> None:
        self.simulation.loop.call_later(after_s, self.boot, context=self.simulation.wires.context)

    # --- the VM

    def follow(self, change: Change) -> None:
        """Do to the agent what happened to its VM."""
        match change.kind:
            case "vm_down" if change.detail.get("state") == "frozen":
                self.freeze()
            case "vm_down":
                self._vm_up = False
                self.kill()
            case "vm_up":
                self._vm_up = True
                if self.frozen:
                    self.thaw(clock_stood_still=True)
                elif self._process is None:
                    self._later(self.simulation.scenario.boot_s)
            case _:
                pass
