"""The inventory of one agent, and the simulated Azure that it reads."""

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from controller.agent.ability_watch import AbilityWatch
from controller.agent.inventory_reader import InventoryReader
from controller.agent.nic_reader import NicReader
from controller.agent.present_set import PresentSet
from controller.agent.resource_cache import forget_deleted_vms
from controller.agent.vm_reader import VmReader
from controller.agent.working_state import WorkingState
from controller.azure.http.session import Azure, open_azure
from controller.config.schema import Settings
from controller.core.ledger import Ledger
from controller.simulator.app.server import SimulatorServer
from controller.simulator.services.faults import Effect, Fault, FaultBook
from controller.simulator.services.http_values import Request, Service
from controller.simulator.world.builder import build_world
from controller.simulator.world.settings import WorldSettings
from tests.support.clocks import StoppedClock

HOUR_S = 3600.0
Matches = Callable[[Request], bool]
Open = Callable[..., Any]


class Refusals(FaultBook):
    """Faults by any property of a request."""

    def __init__(self) -> None:
        super().__init__()
        self.rules: list[tuple[Matches, Fault]] = []

    def take(self, request: Request, vm: str | None, now: float) -> Fault | None:
        if request.service is not Service.ARM:
            return super().take(request, vm, now)
        return next((fault for matches, fault in self.rules if matches(request)), None)


class Inventory:
    """The inventory of one agent, and the simulated Azure that it reads."""

    def __init__(self, server: SimulatorServer, clock: StoppedClock, azure: Azure) -> None:
        self.server, self.world, self.clock = server, server.world, clock
        self.urgent, self.ledger = {""}, Ledger()
        self.state = WorkingState(
            clock=clock,
            entropy=random.Random(0),
            pool_ids=self.world.pool_ids(),
            max_parallel_writes=4,
            ability=AbilityWatch(clock),
            wake=lambda: None,
        )
        is_urgent = self.urgent.__contains__
        scale_set_id = self.world.scale_set_id if self.world.converted else ""
        self.set = PresentSet(scale_set_id or self.world.availability_set_id)
        self.reader = InventoryReader(
            vms=VmReader(
                compute=azure.compute,
                present_set=self.set,
                vm="web-1",
                names=[vm.name for vm in self.world.peers()],
                urgent=is_urgent,
                state=self.state,
                now=clock.now,
            ),
            nics=NicReader(
                network=azure.network, urgent=is_urgent, state=self.state, now=clock.now
            ),
            network=azure.network,
            pool_ids=self.world.pool_ids,
            state=self.state,
            forget=lambda at: forget_deleted_vms(self.state.cache, self.ledger, is_urgent, at),
            now=clock.now,
        )
        self._faults = server.faults = Refusals()
        self.asked: Counter[str] = Counter()
        server.observers.append(lambda request, _: self._count(request))

    def _count(self, request: Request) -> None:
        if request.service is Service.ARM:
            self.asked[request.path.rsplit("/", 1)[-1]] += 1

    def fault(self, matches: Matches | str, effect: Effect = Effect.REPLY, **answer: Any) -> None:
        """Answer these requests so, or those whose path ends so, until `heal`."""
        ending = matches.casefold() if isinstance(matches, str) else ""

        def hits(request: Request) -> bool:
            if isinstance(matches, str):
                return request.path.casefold().endswith(ending)
            return matches(request)

        self._faults.rules.append((hits, Fault(effect=effect, **answer)))

    def heal(self) -> None:
        """End every fault."""
        self._faults.rules.clear()

    async def read(self) -> None:
        """Read the inventory as soon as it is due."""
        self.clock.move(self.state.inventory.period_s)
        await self.reader.read()

    async def reads_in_an_hour(self) -> float:
        """Return the reads of an hour, after two inventories of which the first knows nothing."""
        await self.reader.read()
        await self.read()
        self.asked.clear()
        passed_s = 0.0
        while passed_s < HOUR_S:
            passed_s += self.state.inventory.period_s
            await self.read()
        return self.asked.total() * HOUR_S / passed_s

    @property
    def problems(self) -> dict[str, str]:
        """Why VMs are set aside."""
        return {vm.name: vm.problem for vm in self.state.cache.vms if vm.problem}

    @property
    def known(self) -> set[str]:
        """The VMs whose NIC was read."""
        nics = {nic.nic_id.casefold() for nic in self.state.cache.nics}
        return {
            vm.name
            for vm in self.state.cache.vms
            if vm.nic_ids and {each.casefold() for each in vm.nic_ids} <= nics
        }


@asynccontextmanager
async def open_inventory(directory: Path, **options: Any) -> AsyncIterator[Inventory]:
    """Serve a world with these options, and yield the inventory of web-1."""
    clock = StoppedClock(float(int(time.time())))
    world = build_world(
        now=clock.azure(),
        settings=WorldSettings(throttle=False),
        **{"pools": ("app",), **options},
    )
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            SimulatorServer(world, directory / "pki", clock=clock.azure)
        )
        settings = Settings.model_validate(
            {
                "backend_pools": [{"id": each} for each in world.pool_ids()],
                "election": {"container_url": server.container_url("lb-drain")},
                "azure": {
                    "resource_manager_endpoint": server.arm_url,
                    "imds_endpoint": server.imds_url("web-1"),
                    "ca_file": str(server.ca_file),
                },
            }
        )
        azure = await stack.enter_async_context(open_azure(settings, clock, {}))
        yield Inventory(server, clock, azure)
