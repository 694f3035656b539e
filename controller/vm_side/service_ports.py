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

    Rules are read once: a port that is added later counts after a restart of the agent.
    """

    def __init__(
        self, network: Network, *, pool_ids: Iterable[str], configured: tuple[int, ...]
    ) -> None:
        self._network, self._configured = network, configured
        self._pool_ids = frozenset(map(fold, pool_ids))
        self._unread = {fold(load_balancer_of(each)): load_balancer_of(each) for each in pool_ids}
        self._found: set[int] = set()
        self._unlimited: set[str] = set()
        """The load balancers with a rule for a managed pool that names no single port."""

    @property
    def problem(self) -> str:
        """Why there can be ports that are not known; empty if there are none.

        Then no count is complete: no connection on the known ports is no proof that none is left.
        """
        if self._configured:
            return ""
        if self._unread:
            names = ", ".join(sorted(map(short, self._unread.values())))
            return f"the rules of {names} have not been read"
        if self._unlimited:
            names = ", ".join(sorted(self._unlimited))
            return f"a rule of {names} has no single backend port; set service_ports in [drain]"
        return ""

    def __call__(self) -> tuple[int, ...]:
        """Return the ports that are known, in order."""
        return self._configured or tuple(sorted(self._found))

    async def run(self) -> None:
        """Read the rules, and return when every load balancer was read."""
        again_s = FIRST_AGAIN_S
        while self._unread and not self._configured:
            wait_s = again_s
            for key, load_balancer_id in list(self._unread.items()):
                try:
                    load_balancer = await self._network.load_balancer(load_balancer_id)
                except ControllerError as error:
                    wait_s = max(wait_s, retry_wait_s(error, at_least_s=again_s))
                    continue
                self._take(load_balancer)
                del self._unread[key]
            if self._unread:
                await asyncio.sleep(wait_s)
            again_s = min(2 * again_s, AGAIN_S)

    def _take(self, load_balancer: LoadBalancer) -> None:
        for rule in load_balancer.rules:
            if not self._pool_ids & set(map(fold, rule.pool_ids)):
                continue
            if rule.backend_port:
                self._found.add(rule.backend_port)
            else:
                self._unlimited.add(short(load_balancer.load_balancer_id))
