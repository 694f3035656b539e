"""Read the inventory: the set, its VMs, their NICs, and the load balancers.

The parts fail on their own. A part that cannot be read gets its own back-off and hides nothing
else: the inventory has a hole then, and is read again soon. No single request stands between the
agent and its VMs (`vm_reader`, `nic_reader`).
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from controller.agent.nic_reader import NicReader, read_nic
from controller.agent.read_ways import Way, first_that_works, request_key
from controller.agent.startup import refuse_basic
from controller.agent.vm_reader import VmReader, VmsRead
from controller.agent.working_state import WorkingState
from controller.azure.network import Network
from controller.core.action_keys import ActionKey
from controller.core.azure_names import fold, load_balancer_of, short
from controller.core.planning.actions import ReadLoadBalancer, ReadNic, ReadPower
from controller.core.resources import LoadBalancer, PowerState, Vm
from controller.errors import (
    Conflict,
    ContractViolation,
    ControllerError,
    InvariantViolation,
    NotFound,
    Throttled,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _LoadBalancerRead:
    """What became of the read of one load balancer."""

    known: bool
    unread: Mapping[ActionKey, str] = field(default_factory=dict[ActionKey, str])


class InventoryReader:
    """Reads into the resource cache.

    Args:
        vms: reads the VMs of the set.
        nics: reads their NICs.
        network: the client, for load balancers.
        pool_ids: returns the pools to read: those that are managed or named by the ledger.
        state: where the result goes.
        forget: called after an inventory that has read everything, with when that began.
        now: wall clock, corrected.
    """

    def __init__(
        self,
        *,
        vms: VmReader,
        nics: NicReader,
        network: Network,
        pool_ids: Callable[[], Iterable[str]],
        state: WorkingState,
        forget: Callable[[datetime], None],
        now: Callable[[], datetime],
    ) -> None:
        self._vms, self._nics, self._network = vms, nics, network
        self._pool_ids, self._state, self._now = pool_ids, state, now
        self._forget = forget

    async def read(self) -> ControllerError | None:
        """Read everything, part by part.

        Returns why VMs of the set could not be read, unless Azure describes them wrongly.

        Raises:
            ControllerError: nothing is known of any VM of the set.
        """
        at = self._now()
        owners = {fold(load_balancer_of(p)): load_balancer_of(p) for p in self._pool_ids()}
        read, balancers = await asyncio.gather(
            self._vms.read(),
            asyncio.gather(*(self._load_balancer_part(owners[key]) for key in sorted(owners))),
        )
        nics = await self._nics.read(read.vms)
        vms = tuple(map(self._with_nics_found, read.vms))
        self._check(read, vms)
        self._state.cache.put_vms(vms, at)
        complete = read.complete and nics.complete and all(each.known for each in balancers)
        self._state.inventory = self._state.inventory.after(
            reads=read.requests + nics.requests + len(owners), complete=complete
        )
        if complete:
            self._forget(at)
        self._state.unread = dict(nics.unread)
        for each in balancers:
            self._state.unread |= each.unread
        refused = any(vm.problem for vm in vms) and not isinstance(read.error, ContractViolation)
        return read.error if refused else None

    async def load_balancer(self, load_balancer_id: str) -> None:
        """Read one load balancer with its pools; if Azure refuses that, its pools, or the list.

        Raises:
            SetupError: its SKU is Basic.
            NotFound: it was not found; one such reply is no proof.
            ControllerError: it could not be read in any way.
        """
        what = str(ReadLoadBalancer(load_balancer_id))
        pools = [
            pool_id
            for pool_id in self._pool_ids()
            if fold(load_balancer_of(pool_id)) == fold(load_balancer_id)
        ]
        ways = (
            Way(request_key(load_balancer_id, "get"), what, lambda: self._whole(load_balancer_id)),
            Way(request_key(load_balancer_id, "pools"), what, lambda: self._each(pools)),
            Way(
                request_key(load_balancer_id, "list"), what, lambda: self._listed(load_balancer_id)
            ),
        )
        await first_that_works(ways, self._state.retries, self._now)

    async def nic(self, action: ReadNic) -> None:
        """Read one NIC with its body.

        Raises:
            ControllerError: it could not be read in any way.
        """
        nic = await read_nic(self._network, action.nic_id, self._state.retries, self._now)
        if not self._state.cache.put_nic(nic):
            raise _old_reply(action.nic_id)

    async def power(self, action: ReadPower) -> PowerState:
        """Return the power state of a VM.

        Raises:
            ControllerError: it could not be read in any way.
        """
        return await self._vms.power(action.vm_id)

    async def _whole(self, load_balancer_id: str) -> None:
        self._put(await self._network.load_balancer(load_balancer_id))

    async def _listed(self, load_balancer_id: str) -> None:
        self._put(await self._network.listed_load_balancer(load_balancer_id))

    def _put(self, load_balancer: LoadBalancer) -> None:
        refuse_basic(load_balancer)
        if not self._state.cache.put_load_balancer(load_balancer):
            raise _old_reply(load_balancer.load_balancer_id)
        wanted = {fold(pool_id) for pool_id in self._pool_ids()}
        odd = [why for key, why in load_balancer.problems.items() if key in wanted]
        if odd:
            raise ContractViolation(odd[0])  # the pools are read one by one then

    async def rule_health(self, load_balancer_id: str) -> None:
        """Read which members the rules of a load balancer report as down.

        Raises:
            ControllerError: it could not be read.
        """
        cache = self._state.cache
        rules, pool_ids = (
            cache.rules.get(fold(load_balancer_id), ()),
            cache.pools_of(load_balancer_id),
        )
        pools = await self._network.rule_health.of_pools(rules, pool_ids)
        cache.health.update({fold(pool.pool_id): pool for pool in pools})

    async def _each(self, pool_ids: list[str]) -> None:
        """Read pools by their ids; those that exist are used, whatever the others answer.

        Each pool waits as long as Azure asked for it, whatever another one answers first (H1).
        """
        problems: list[ControllerError] = []
        for pool_id in {fold(each): each for each in pool_ids}.values():
            read = partial(self._network.pool, pool_id)
            way = Way(request_key(pool_id, "get"), f"read {short(pool_id)}", read)
            try:
                pool = await first_that_works((way,), self._state.retries, self._now)
                if not self._state.cache.put_pool(pool):
                    problems.append(_old_reply(pool_id))
            except InvariantViolation:
                raise
            except NotFound:
                self._state.cache.mark_absent(pool_id, self._now())
            except ControllerError as error:
                problems.append(error)
        if problems:
            raise min(problems, key=lambda problem: problem.retry_after_s or 0.0)

    async def _load_balancer_part(self, load_balancer_id: str) -> "_LoadBalancerRead":
        """Read one load balancer, unless it is deferred."""
        action, retries = ReadLoadBalancer(load_balancer_id), self._state.retries
        if action.key in retries.active:
            return _LoadBalancerRead(known=False, unread=retries.reported(action.key))
        try:
            await self.load_balancer(load_balancer_id)
        except InvariantViolation:
            raise
        except NotFound:
            self._state.cache.mark_load_balancer_absent(load_balancer_id, self._now())
        except ControllerError as error:
            retries.failed(action.key, error, what=str(action))
            return _LoadBalancerRead(known=False, unread=retries.reported(action.key))
        retries.clear(action.key)
        self._state.ability.shown(action)
        return _LoadBalancerRead(known=True)

    def _with_nics_found(self, vm: Vm) -> Vm:
        """Return a VM with the NICs that name it, if it was not read itself."""
        if vm.nic_ids or not vm.problem:
            return vm
        found = (nic.nic_id for nic in self._state.cache.nics if fold(nic.vm_id) == fold(vm.vm_id))
        return replace(vm, nic_ids=tuple(found))

    def _check(self, read: VmsRead, vms: tuple[Vm, ...]) -> None:
        """Refuse an inventory that shows nothing: no VM was read, and no NIC of any was found."""
        if not vms or not all(vm.problem and not vm.nic_ids for vm in vms):
            return
        what = ", ".join(short(vm.vm_id) for vm in vms[:3])
        error = read.error or Throttled(f"Azure does not describe {what} now: {vms[0].problem}")
        error.retry_after_s = None  # each request waits alone, and another one may work
        raise error


def _old_reply(resource_id: str) -> Conflict:
    return Conflict(f"{short(resource_id)}: Azure returned an older state than it had shown before")
