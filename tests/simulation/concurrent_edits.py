"""People who change a NIC or pool between the moment an agent reads it and the moment it writes.

Only a condition on the etag notices that: what the agent sends back would undo what they did
(law S3).
"""

from collections import Counter
from collections.abc import Callable

from controller.simulator.services.http_values import Reply, Request, Service
from controller.simulator.world.bodies import key
from controller.simulator.world.world import World
from tests.simulation.memory_transport import unit
from tests.simulation.request_faults import RIVAL
from tests.simulation.scenario import Act, Scenario

RIVAL_S = 0.001
"""After a reply has left: before the agent that it is for can have sent anything."""
RIVALRIES = 6
"""So many reads of a NIC or pool are looked at; nobody edits for ever."""
LEAVING = 2
"""About this read of a pool one VM is taken out; about the others machines are added."""


class Rivals:
    """Decides what people do about a read."""

    def __init__(self, scenario: Scenario, world: World, now: Callable[[], float]) -> None:
        self._scenario, self._world, self._now = scenario, world, now
        self._storms = [storm for storm in scenario.storms if storm.kind == RIVAL]
        self._reads: Counter[str] = Counter()

    def provoked(self, request: Request, reply: Reply) -> Act | None:
        """Return what people do about a read that was just answered."""
        if request.service is not Service.ARM or request.method != "GET" or reply.status != 200:
            return None
        storm = next(
            (each for each in self._storms if each.from_s <= self._now() < each.until_s), None
        )
        number = self._reads[key(request.path)]
        deed = self._deed(request.path, number)
        if storm is None or deed is None or number >= RIVALRIES:
            return None
        self._reads[key(request.path)] += 1
        hit = unit(self._scenario.seed, RIVAL, key(request.path), number) < storm.chance
        return deed if hit else None

    def _deed(self, path: str, number: int) -> Act | None:
        """Return what people would do to the NIC or IP-based pool that lies at this path."""
        at_s = self._now() + RIVAL_S
        vm = self._world.owner(path)
        if vm is not None and vm.in_set and key(vm.nic_ids[0]) == key(path):
            return Act(at_s, "edit_tags", {"vm": vm.name, "value": f"rival-{number}"})
        pool = self._world.find_pool(path)
        if pool is None or pool["name"] not in self._scenario.ip_pools:
            return None
        if number == LEAVING:
            vms = sorted(vm.name for vm in self._world.peers())
            leaver = vms[int(len(vms) * unit(self._scenario.seed, RIVAL, "who", key(path)))]
            return Act(at_s, "leave_pool", {"pool": pool["name"], "vm": leaver})
        address = f"10.9.1.{number + 4}"
        return Act(at_s, "add_address", {"pool": pool["name"], "address": address})
