"""What carries out the writes and reads of one mechanism (`core.planning.mechanism`)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from controller.azure.network import MembershipGuard
from controller.core.planning.actions import ChangeMembership


class MechanismAdapter(Protocol):
    """Executes the actions of one mechanism, and puts what it saw into the resource cache."""

    async def apply(self, action: ChangeMembership, guard: MembershipGuard) -> datetime:
        """Remove or restore exactly these memberships; return when the result was seen.

        Args:
            action: the write; all its memberships are of this mechanism and of one resource.
            guard: called with the memberships that the write skips, right before it leaves.

        Raises:
            ControllerError: its class shows whether the write may have happened.
        """
        ...

    async def read(self, resource_id: str) -> None:
        """Read a resource that is neither NIC nor load balancer (`ReadView`).

        Raises:
            ControllerError: it could not be read.
        """
        ...

    def forget_body(self, resource_id: str) -> None:
        """Do not start the next write of this resource from what is known of it."""
        ...


Adapters = Mapping[str, MechanismAdapter]
"""By the name of the mechanism."""
