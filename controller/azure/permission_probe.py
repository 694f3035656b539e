"""Permission probes: requests that show whether a permission is there and that cannot take effect.

A write probe sends a resource's own body, as just read, under an etag that no resource has. Azure
checks the permissions for a request, those on the resources in its body included, before it checks
the condition. So 403 shows a missing permission, and 412 shows that every permission is there.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from controller.azure import network_bodies
from controller.azure.admin_states import with_states
from controller.azure.http import long_running
from controller.azure.http.arm_client import READ_TIMEOUT_S, Arm
from controller.azure.http.arm_reader import ArmReader
from controller.azure.http.call import Caller, Observer, ignore_outcome
from controller.azure.http.json_reader import as_object
from controller.azure.http.resource_id import ResourceId
from controller.azure.network import Network
from controller.azure.network_bodies import Edit
from controller.clock import Clock
from controller.core.resources import Nic, PoolKind
from controller.errors import Conflict, NotFound

NO_ETAG = 'W/"00000000-0000-0000-0000-000000000000"'
"""An etag that no resource has: Azure draws them at random."""
NO_OPERATION = "00000000-0000-0000-0000-000000000000"
"""The id of an operation that does not exist."""


class PermissionProbe:
    """Probes for Microsoft.Network."""

    def __init__(
        self, network: Network, arm: Arm, *, clock: Clock, observer: Observer = ignore_outcome
    ) -> None:
        self._network = network
        self._clock = clock
        self._caller = Caller(
            service="network", clock=clock, observer=observer, version=arm.network_version
        )
        self._reader = ArmReader(arm, self._caller)

    async def nic_write(self, nic: Nic) -> bool:
        """Probe the write of a NIC, which must carry its body.

        Returns False if Azure accepted the write in spite of the condition. The NIC is unchanged
        then, because its own body was written.

        Raises:
            Denied: the write is not permitted; names what is missing.
        """
        target = ResourceId.parse(nic.nic_id)
        interfaces = (await self._network.client(target.subscription)).network_interfaces
        return await self._write(
            "nic_put",
            nic.body,
            lambda content, options: interfaces.begin_create_or_update(
                target.group, target.names[-1], content, **options
            ),
        )

    async def pool_write(self, pool_id: str) -> bool:
        """Probe the write of an IP-based pool, in the same way.

        Raises:
            Conflict: the pool has no addresses.
            Denied: the write is not permitted; names what is missing.
        """
        body = await self._network.pool_body(pool_id)
        if network_bodies.parse_pool(body, self._clock.now()).kind is not PoolKind.ADDRESS:
            # A pool PUT evicts NICs (Azure/bicep-registry-modules#2512): never send one here.
            raise Conflict(f"{pool_id} has no addresses any more")
        return await self._put_pool(pool_id, body)

    async def admin_state_write(self, pool_id: str) -> bool:
        """Probe the write that changes the adminState of members, of either kind of pool.

        Raises:
            Denied: the write is not permitted; names what is missing.
            StateRefused: the body could not be sent back whole: nothing was sent.
        """
        body = await self._network.pool_body(pool_id)
        return await self._put_pool(pool_id, with_states(body, (), restore=False).body)

    async def _put_pool(self, pool_id: str, body: object) -> bool:
        target = ResourceId.parse(pool_id)
        client = await self._network.client(target.subscription)
        pools = client.load_balancer_backend_address_pools
        return await self._write(
            "pool_put",
            body,
            lambda content, options: pools.begin_create_or_update(
                target.group, target.names[0], target.names[-1], content, **options
            ),
        )

    async def operation_read(self, subscription: str, location: str) -> None:
        """Probe the read of long-running operations, with the id of one that does not exist.

        Raises:
            Denied: the read is not permitted; names what is missing.
        """
        path = (
            f"/subscriptions/{subscription}/providers/Microsoft.Network"
            f"/locations/{location}/operations/{NO_OPERATION}"
        )
        try:
            await self._reader.get("operation_get", path)
        except NotFound:
            return

    async def _write(
        self,
        operation: str,
        body: object,
        begin: Callable[[bytes, dict[str, Any]], Awaitable[long_running.Poller]],
    ) -> bool:
        edit = Edit(body=as_object(body, "the body"), changed=False)
        options: dict[str, Any] = {
            "api_version": self._network.version.value,
            "content_type": "application/json",
            "headers": {"If-Match": NO_ETAG},
            "cls": long_running.final,
        }
        try:
            async with self._caller.call(operation, READ_TIMEOUT_S):
                await begin(network_bodies.encode(edit), options)
        except Conflict as error:
            if getattr(error.__cause__, "status_code", None) != 412:
                raise
            return True
        return False
