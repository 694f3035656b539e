"""Memberships of addresses in IP-based pools: one PUT per pool."""

from datetime import datetime

from controller.agent.working_state import WorkingState
from controller.azure.network import MembershipGuard, Network
from controller.core.planning.actions import ChangeMembership
from controller.core.resources import AddressMembership
from controller.errors import InvariantViolation


class AddressPoolAdapter:
    """Changes pools.

    Args:
        network: the client.
        state: where results go.
    """

    def __init__(self, *, network: Network, state: WorkingState) -> None:
        self._network, self._state = network, state

    async def apply(self, action: ChangeMembership, guard: MembershipGuard) -> datetime:
        """Remove the addresses from one pool, or restore them."""
        addresses = tuple(m for m in action.memberships if isinstance(m, AddressMembership))
        write = self._network.restore_to_pool if action.restore else self._network.remove_from_pool
        pool = await write(action.resource_id, addresses, guard)
        self._state.cache.put_pool(pool)
        return pool.observed_at

    async def read(self, resource_id: str) -> None:
        """Pools are read by an action of their own."""
        raise InvariantViolation(f"{resource_id} is read with its load balancer")

    def forget_body(self, resource_id: str) -> None:
        """Every write of a pool starts from a read: there is nothing to forget."""
