"""The ports whose connections have to end before a VM is quiet."""

import asyncio
from collections.abc import Iterable

from controller.azure.network import Network
from controller.core.azure_names import fold, load_balancer_of, short
from controller.core.resources import LoadBalancer
from controller.errors import ControllerError, retry_wait_s

FIRST_AGAIN_S = 10.0
"""When a load balancer that could not be read is tried again; each wait is twice the one before."""
AGAIN_S = 300.0
"""The longest such wait, unless Azure asks for more."""


class ServicePorts:
    """The configured ports, or the backend ports of the rules of the managed pools.

    Rules are read at the start and whenever the VM closes. What was read before counts until then,
    so that a VM can become quiet while Resource Manager does not answer.
    """

    def __init__(
        self, network: Network, *, pool_ids: Iterable[str], configured: tuple[int, ...]
    ) -> None:
        self._network, self._configured = network, configured
        self._pool_ids = frozenset(map(fold, pool_ids))
        self._all = {fold(load_balancer_of(each)): load_balancer_of(each) for each in pool_ids}
        self._due = dict(self._all)
        """The load balancers that have to be read, or to be read again."""
        self._found: dict[str, frozenset[int]] = {}
        """By load balancer, the backend ports of its rules for managed pools; 0 for a rule that
        names no single port."""
        self._woken = asyncio.Event()

    @property
    def problem(self) -> str:
        """Why there can be ports that are not known; empty if there are none.

        Then no count is complete: no connection on the known ports is no proof that none is left.
        """
        if self._configured:
            return ""
        if unread := self._all.keys() - self._found.keys():
            names = ", ".join(sorted(short(self._all[key]) for key in unread))
            return f"the rules of {names} have not been read"
        if unlimited := [self._all[key] for key, ports in self._found.items() if 0 in ports]:
            names = ", ".join(sorted(map(short, unlimited)))
            return f"a rule of {names} has no single backend port; set service_ports in [drain]"
        return ""

    def __call__(self) -> tuple[int, ...]:
        """Return the ports that are known, in order."""
        found = frozenset[int]().union(*self._found.values())
        return self._configured or tuple(sorted(found - {0}))

    def read_again(self) -> None:
        """Read the rules again: they can have changed since they were read."""
        self._due.update(self._all)
        self._woken.set()

    async def run(self) -> None:
        """Read the rules whenever that is due, until cancelled."""
        while True:
            self._woken.clear()
            await self.read()
            await self._woken.wait()

    async def read(self) -> None:
        """Read the rules that are due, and return when every load balancer was read."""
        again_s = FIRST_AGAIN_S
        while self._due and not self._configured:
            wait_s = again_s
            for key, load_balancer_id in list(self._due.items()):
                try:
                    load_balancer = await self._network.load_balancer(load_balancer_id)
                except ControllerError as error:
                    wait_s = max(wait_s, retry_wait_s(error, at_least_s=again_s))
                    continue
                self._found[key] = self._ports_of(load_balancer)
                del self._due[key]
            if self._due:
                wanted = await self._wanted_within(wait_s)
                again_s = FIRST_AGAIN_S if wanted else min(2 * again_s, AGAIN_S)

    async def _wanted_within(self, seconds: float) -> bool:
        """Wait, but no longer than until the VM closes; return whether it did."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True

    def _ports_of(self, load_balancer: LoadBalancer) -> frozenset[int]:
        return frozenset(
            rule.backend_port
            for rule in load_balancer.rules
            if self._pool_ids & set(map(fold, rule.pool_ids))
        )
