"""Flag files of a simulated set: while the file of a VM exists, its application is closed.

It is the interface between a VM's agent, or a person, and the simulated application, as a recipe
for a web server on a real VM makes it. Each file stands for one in /run: a reboot removes it, and
nothing on a frozen VM notices a change.
"""

import asyncio
import time
from pathlib import Path

from controller.simulator.world.world import World

READ_EVERY_S = 0.02


def flag_file(directory: Path, vm: str) -> Path:
    """Return the flag file of a VM in the directory of a simulation."""
    return directory / f"{vm}.draining"


class FlagFiles:
    """Lets the applications of a world follow the files in a directory."""

    def __init__(self, world: World, directory: Path) -> None:
        self._world, self._directory = world, directory

    async def follow(self) -> None:
        """Follow until cancelled. Files of an earlier simulation are removed first."""
        for vm in self._world.peers():
            flag_file(self._directory, vm.name).unlink(missing_ok=True)
        while True:
            self.read()
            await asyncio.sleep(READ_EVERY_S)

    def read(self) -> None:
        """Close and open the applications as the files are now."""
        for vm in self._world.peers():
            path = flag_file(self._directory, vm.name)
            if vm.state == "running":
                self._set_closed(vm.name, closed=path.exists())
            elif vm.state != "frozen":
                path.unlink(missing_ok=True)

    def _set_closed(self, vm: str, *, closed: bool) -> None:
        if self._world.closed(vm) != closed:
            self._world.advance(time.time())
            self._world.set_closed(vm, closed=closed)
