"""An operator who runs `lb-drain roll`: the code of the command, on virtual time.

The command runs on a VM of the set and ends with it, or is killed. What it left behind the operator
continues, and gives up when the troubles are over.
"""

import asyncio
import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest.mock import patch

from controller.errors import ControllerError, NotDone
from controller.operator.drain_client import DrainClient, connect
from controller.operator.rolling import RollingRunner, abandon, order
from controller.operator.rolling_task import Task
from controller.simulator.world.history import Change
from tests.simulation.host import HostClock
from tests.simulation.loop import Process

if TYPE_CHECKING:
    from tests.simulation.runner import Simulation

OPERATOR = "rita"
AGAIN_S = 5.0
"""How long the operator thinks before the next command."""
MOST_COMMANDS = 3
"""After so many the run is given up."""
PATIENCE_S = 150.0
"""How long after the calm began an unfinished run is given up."""


class RollingOperator:
    """One rolling run, through all commands.

    Args:
        vm: where the commands run, while this VM serves and lacks nothing.
        work_s: how long the work on each VM takes.
        for_s: how long a drain lasts that no heartbeat extends.
    """

    def __init__(self, simulation: "Simulation", vm: str, *, work_s: float, for_s: float) -> None:
        self._simulation, self._first = simulation, vm
        self._work_s, self._for_s = work_s, for_s
        self._commands = 0
        self._vm, self._frozen_at = "", 0.0
        self._process: Process | None = None
        self._dead: list[Process] = []
        self.name = f"operator {OPERATOR}"
        self.unfinished = True
        """Whether there is a run, in progress or to be given up."""

    def begin(self) -> None:
        """Begin the run, and see to it that it is given up in the end."""
        self._next()
        self._later(self._deadline_s - self._simulation.loop.now, self._give_up)

    def kill(self) -> None:
        """End the command on the spot."""
        process, self._process = self._process, None
        if process is not None:
            self._simulation.record("roll_killed", self.name)
            self._simulation.wires.kill(process)
            self._dead.append(process)
            self._later(AGAIN_S, self._next)

    def follow(self, change: Change) -> None:
        """Do to the command what happened to its VM."""
        if change.subject != self._vm or self._process is None:
            return
        if change.kind == "vm_down" and change.detail.get("state") == "frozen":
            self._frozen_at = self._simulation.loop.now
            self._process.freeze()
        elif change.kind == "vm_down":
            self.kill()
        elif change.kind == "vm_up" and self._process.frozen:
            frozen_s = self._simulation.loop.now - self._frozen_at
            self._process.thaw(frozen_s, clock_stood_still=True)

    def exhume(self) -> None:
        """Let every process that ever was clean up; what it does has no effect any more."""
        for process in self._dead:
            process.exhume()

    @property
    def restless(self) -> bool:
        """Whether some dead process has not ended yet."""
        return any(process.tasks for process in self._dead)

    @property
    def _deadline_s(self) -> float:
        return self._simulation.scenario.calm_at_s + PATIENCE_S

    def _later(self, after_s: float, then: Callable[[], object]) -> None:
        context = self._simulation.wires.context
        self._simulation.loop.call_later(after_s, then, context=context)

    def _give_up(self) -> None:
        self._commands = MOST_COMMANDS
        self.kill()

    def _next(self) -> None:
        """Run the next command, on a VM that can."""
        if self._process is not None or not self.unfinished:
            return
        world, unable = self._simulation.world, self._simulation.scenario.unable
        names = [self._first, *(vm.name for vm in world.peers())]
        able = [vm for vm in names if world.serving(vm) and vm not in unable]
        if not able and self._simulation.loop.now > self._deadline_s:
            # The operator has another machine.
            self.unfinished = False
            self._simulation.stage.withdraw_all(self.name)
            return
        if not able:
            self._later(AGAIN_S, self._next)
            return
        self._vm = able[0]
        late = self._commands >= MOST_COMMANDS or self._simulation.loop.now >= self._deadline_s
        what = "abandon" if late else "resume" if self._commands else "begin"
        self._commands += 1
        self._process = Process(self._simulation.loop, self.name)
        self._simulation.record("roll", self.name, what=what, vm=self._vm)
        self._process.start(self._main(self._process, self._vm, what))

    async def _main(self, process: Process, vm: str, what: str) -> None:
        simulation, error = self._simulation, ""
        host = simulation.hosts[vm]
        try:
            async with connect(
                host.settings,
                environ={"SUDO_USER": OPERATOR},
                clock=HostClock(host, process),
                report=lambda text: simulation.record("roll_says", self.name, text=text),
                session_factory=simulation.wires.sessions(process, vm),
            ) as client:
                await self._command(client, what)
        except ControllerError as wrong:
            error = f"{type(wrong).__name__}: {wrong}"
        except Exception as bug:
            simulation.record("complaint", self.name, message=f"roll ended: {bug!r}")
        simulation.loop.call_soon(self._ended, process, error, context=simulation.wires.context)

    def _ended(self, process: Process, error: str) -> None:
        if self._process is process:
            self._process = None
            self._simulation.wires.kill(process)
            self._simulation.record("roll_over", self.name, error=error)
            self.unfinished = bool(error)
            self._later(AGAIN_S, self._next)

    async def _command(self, client: DrainClient, what: str) -> None:
        if what == "abandon":
            await self._leave_nothing(client)
            return

        async def work(_vm: str) -> None:
            await asyncio.sleep(self._work_s)

        task = Task(what="apply updates", work=work, wait_until_healthy=work)
        runner = RollingRunner(client, task, for_s=self._for_s)
        if what == "resume":
            await runner.resume()
        else:
            await runner.begin(order(client.vms, last=client.this_machine))

    async def _leave_nothing(self, client: DrainClient) -> None:
        """Give up the run, and withdraw what a run that was lost has requested."""
        try:
            await abandon(client)
        except NotDone as error:
            if "is in progress" in str(error):
                raise
        for vm in client.vms:
            try:
                await client.restore(vm)
            except NotDone as error:
                self._simulation.record("roll_says", self.name, text=str(error))


@contextmanager
def repeatable_ids(seed: int) -> Iterator[None]:
    """Let commands draw the ids of runs and requests from the seed."""
    source = random.Random(f"ids {seed}")

    def uuid4() -> uuid.UUID:
        return uuid.UUID(int=source.getrandbits(128), version=4)

    ids = SimpleNamespace(uuid4=uuid4)
    with (
        patch("controller.operator.rolling.uuid", ids),
        patch("controller.operator.request_client.uuid", ids),
    ):
        yield
