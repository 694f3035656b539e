"""The adminState of members of pools: one PUT per pool, and what a pool refuses."""

import logging
from collections import Counter
from datetime import datetime

from controller.agent.working_state import WorkingState
from controller.azure.admin_states import Ineffective
from controller.azure.network import MembershipGuard, Network
from controller.core.azure_names import fold, short
from controller.core.planning.actions import ChangeMembership
from controller.core.planning.member_states import Refusal, view_of
from controller.core.resources import AdminMembership
from controller.errors import (
    ControllerError,
    Denied,
    InvariantViolation,
    ServiceFault,
    StateRefused,
)
from controller.observability.logs import log

logger = logging.getLogger("lbdrain.reconcile")
OK = 200
"""The status of an operation that failed."""
FAILED_TRIES = 2
"""After so many writes in a row that were accepted and changed nothing, a pool is not tried again:
Azure reported success without an effect, or the operation failed."""


class AdminStateAdapter:
    """Changes the adminState of members, and remembers for the tenure which pools do not take it.

    Args:
        network: the client.
        state: where results and refusals go.
    """

    def __init__(self, *, network: Network, state: WorkingState) -> None:
        self._network, self._state = network, state
        self._without_effect = Counter[str]()

    async def apply(self, action: ChangeMembership, guard: MembershipGuard) -> datetime:
        """Set the members of one pool Down, or restore their state."""
        pool_id = action.resource_id
        members = tuple(m for m in action.memberships if isinstance(m, AdminMembership))
        try:
            pool = await self._network.write_admin_states(
                pool_id, members, guard, restore=action.restore
            )
        except ControllerError as error:
            self._note(pool_id, error, restore=action.restore)
            raise
        self._without_effect.pop(fold(pool_id), None)
        self._state.cache.put_pool(pool)
        return pool.observed_at

    async def read(self, resource_id: str) -> None:
        """Pools are read by an action of their own."""
        raise InvariantViolation(f"{resource_id} is read with its load balancer")

    def forget_body(self, resource_id: str) -> None:
        """Every write of a pool starts from a read: there is nothing to forget."""

    def _note(self, pool_id: str, error: ControllerError, *, restore: bool) -> None:
        """Remember that a pool, or the role, refuses the state; log it once."""
        operation_failed = isinstance(error, ServiceFault) and error.status == OK
        if isinstance(error, Ineffective) or operation_failed:
            self._without_effect[fold(pool_id)] += 1
        failed = self._without_effect[fold(pool_id)] >= FAILED_TRIES
        denied = restore and isinstance(error, Denied)
        if not (isinstance(error, StateRefused) or failed or denied):
            return
        key = view_of(pool_id)
        views = self._state.cache.views
        if key not in views:
            what = "the role may not write" if denied else "Azure does not take"
            message = f"{what} the adminState of members of pool {short(pool_id)}: {error}"
            log(logger, logging.WARNING, message, event="admin_state_refused")
        views[key] = Refusal(
            reason="the role may not write the pool" if denied else "the pool refuses adminState",
            denied=denied,
        )
