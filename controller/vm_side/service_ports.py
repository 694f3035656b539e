"""The ports whose connections have to end before a VM is quiet."""

import asyncio
from collections.abc import Iterable

from controller.azure.network import Network
from controller.core.azure_names import fold, load_balancer_of
from controller.errors import ControllerError

AGAIN_S = 300.0
"""How often a load balancer that could not be read is tried again."""


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

    def __call__(self) -> tuple[int, ...]:
        """Return the ports that are known, in order."""
        return self._configured or tuple(sorted(self._found))

    async def run(self) -> None:
        """Read the rules, and return when every load balancer was read."""
        while self._unread and not self._configured:
            for key, load_balancer_id in list(self._unread.items()):
                try:
                    load_balancer = await self._network.load_balancer(load_balancer_id)
                except ControllerError:
                    continue
                del self._unread[key]
                for rule in load_balancer.rules:
                    if rule.backend_port and self._pool_ids & set(map(fold, rule.pool_ids)):
                        self._found.add(rule.backend_port)
            if self._unread:
                await asyncio.sleep(AGAIN_S)
