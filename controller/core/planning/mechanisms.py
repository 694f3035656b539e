"""The mechanisms that this version knows. Adding one means registering it here.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable

from controller.core.ledger import Ledger
from controller.core.observation import Observation
from controller.core.planning.address_pool import AddressPool
from controller.core.planning.admin_state import AdminState
from controller.core.planning.mechanism import Mechanisms
from controller.core.planning.nic_pool import NicPool
from controller.core.planning.pool_membership import PoolMembership

MECHANISMS = Mechanisms((NicPool(), AddressPool(), AdminState()))


def pool_membership(
    observed: Observation,
    ledger: Ledger,
    pool_ids: Iterable[str],
    mechanisms: Mechanisms = MECHANISMS,
) -> PoolMembership:
    """Return which VM is in rotation in which pool, as the planner sees it."""
    return PoolMembership.of(observed, ledger, pool_ids, translate=mechanisms.in_rotation)
