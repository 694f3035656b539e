"""Memberships of NICs in pools: one PUT per NIC."""

from collections.abc import Iterable
from datetime import datetime

from controller.agent.nic_reader import read_nic
from controller.agent.working_state import WorkingState
from controller.azure.network import MembershipGuard, Network
from controller.clock import Clock
from controller.core.azure_names import fold
from controller.core.planning.actions import ChangeMembership
from controller.core.planning.hung_operations import is_over_due
from controller.core.planning.views import FRESH_S
from controller.core.resources import Membership, Nic, NicMembership
from controller.errors import InvariantViolation


class NicPoolAdapter:
    """Changes NICs.

    Args:
        network: the client.
        state: what was read, and where results go.
        clock: wall clock, corrected.
    """

    def __init__(self, *, network: Network, state: WorkingState, clock: Clock) -> None:
        self._network, self._state, self._clock = network, state, clock

    async def apply(self, action: ChangeMembership, guard: MembershipGuard) -> datetime:
        """Remove the memberships of one NIC, or restore them."""
        nic_id, memberships = action.resource_id, _typed(action.memberships)
        remove, repairs = self._network.remove_from_nic, self._repairs(nic_id)
        if action.restore:
            read = await self._read(nic_id)
            nic = await self._network.restore_to_nic(
                nic_id, memberships, guard, known=read, repairs=repairs
            )
        else:
            fresh = self._fresh_nic(nic_id)
            known = fresh or await self._read(nic_id)
            nic = await remove(known, nic_id, memberships, guard, repairs=repairs)
            if nic is fresh:
                # By this view there is nothing to remove, but a newer view of the pool differs.
                read = await self._read(nic_id)
                nic = await remove(read, nic_id, memberships, guard, repairs=repairs)
        self._state.cache.put_nic(nic)
        return nic.observed_at

    async def read(self, resource_id: str) -> None:
        """NICs are read by an action of their own."""
        raise InvariantViolation(f"{resource_id} is read as a NIC")

    def forget_body(self, resource_id: str) -> None:
        """Do not start the next write from the body of this NIC."""
        self._state.cache.forget_nic_body(resource_id)

    async def _read(self, nic_id: str) -> Nic:
        """Return a NIC as read now, and note it: it may be Updating, and the write refused."""
        nic = await read_nic(self._network, nic_id, self._state.retries, self._clock.now)
        self._state.cache.put_nic(nic)
        return nic

    def _repairs(self, nic_id: str) -> bool:
        """Return whether a NIC that stays Updating is written even if that changes nothing."""
        known, sent_at = self._state.cache.nic(nic_id), self._state.writes.sent_at.get(fold(nic_id))
        return known is not None and is_over_due(known.updating_since, sent_at, known.observed_at)

    def _fresh_nic(self, nic_id: str) -> Nic | None:
        """Return the NIC as last read, if it is recent and can be written back."""
        known = self._state.cache.nic(nic_id)
        if known is None or not known.body:
            return None
        age_s = (self._clock.now() - known.observed_at).total_seconds()
        return known if 0 <= age_s < FRESH_S else None


def _typed(memberships: Iterable[Membership]) -> tuple[NicMembership, ...]:
    return tuple(each for each in memberships if isinstance(each, NicMembership))
