"""NICs, load balancers and backend pools: what stands in rotation, and the writes that change it.

A member of a NIC-based pool is changed only on its NIC, an address only on its pool; every write
is conditional on the etag it was computed from, goes out once and through the fence, and is
verified by a read: Azure is known to report success for an edit that did not happen
(Azure/bicep-types-az#1861).
"""

import json
from collections.abc import Awaitable, Callable, Container, Iterable
from functools import partial
from typing import Any, Protocol, cast

from controller.azure import bodies, operations
from controller.azure.arm import (
    Arm,
    Json,
    ResourceId,
    SlimClient,
    about,
    as_object,
    load_sdk,
    raw,
    text,
)
from controller.azure.bodies import Edit
from controller.azure.failures import Caller, Observer, ignore
from controller.clock import Clock
from controller.core.model import (
    AddressMembership,
    LoadBalancer,
    Membership,
    Nic,
    NicMembership,
    Pool,
    PoolKind,
    fold,
)
from controller.errors import (
    Conflict,
    ContractViolation,
    ControllerError,
    OutcomeUnknown,
    ServiceFault,
)

NETWORK_VERSION = "2024-05-01"
"""For lists, which are only read. Bodies that are written back keep the SDK's newer version."""
READ_TIMEOUT_S = 15.0
LIST_TIMEOUT_S = 60.0
OPERATION_TIMEOUT_S = 120.0
NO_ETAG = 'W/"00000000-0000-0000-0000-000000000000"'
"""An etag that no resource has: Azure draws them at random."""


class _Nics(Protocol):
    async def get(self, group: str, name: str, /, **options: Any) -> object: ...
    async def begin_create_or_update(
        self, group: str, name: str, parameters: bytes, /, **options: Any
    ) -> operations.Poller: ...


class _LoadBalancers(Protocol):
    async def get(self, group: str, name: str, /, **options: Any) -> object: ...


class _Pools(Protocol):
    async def get(self, group: str, lb: str, name: str, /, **options: Any) -> object: ...
    async def begin_create_or_update(
        self, group: str, lb: str, name: str, parameters: bytes, /, **options: Any
    ) -> operations.Poller: ...


class NetworkClient(Protocol):
    """The part of `NetworkManagementClient` used here; its own annotations are mostly Any."""

    @property
    def network_interfaces(self) -> _Nics: ...
    @property
    def load_balancers(self) -> _LoadBalancers: ...
    @property
    def load_balancer_backend_address_pools(self) -> _Pools: ...


MembershipFence = Callable[[tuple[Membership, ...]], None]
"""Called before the bytes of a write leave, with the memberships that it spares: a removal those
that do not stand there, a restore those that have no place any more. Raises to stop the write."""


class Network:
    """Client of Microsoft.Network. Resources may lie in any subscription."""

    def __init__(
        self,
        arm: Arm,
        *,
        clock: Clock,
        observer: Observer = ignore,
        operation_timeout_s: float = OPERATION_TIMEOUT_S,
    ) -> None:
        self._arm = arm
        self._clock = clock
        self._caller = Caller(service="network", clock=clock, observer=observer)
        self._operation_timeout_s = operation_timeout_s
        self._slim = SlimClient(arm, self._caller)
        self._clients: dict[str, NetworkClient] = {}

    # --- reading

    async def load_balancer(self, load_balancer_id: str) -> LoadBalancer:
        """Return a load balancer with all its pools, from one GET."""
        target = ResourceId.parse(load_balancer_id)
        client = await self._client(target.subscription)
        async with self._caller.call("load_balancer_get", READ_TIMEOUT_S):
            body = await client.load_balancers.get(target.group, target.names[-1], cls=raw)
            checked = about(load_balancer_id, as_object(body, "a load balancer"))
            return bodies.parse_load_balancer(checked, self._clock.now())

    async def glance(self, load_balancer_id: str) -> LoadBalancer:
        """Return the same without loading the network SDK, for an agent that may never lead."""
        body = await self._slim.get(
            "load_balancer_get", load_balancer_id, NETWORK_VERSION, READ_TIMEOUT_S
        )
        return bodies.parse_load_balancer(about(load_balancer_id, body), self._clock.now())

    async def nic(self, nic_id: str) -> Nic:
        """Return a NIC with its body."""
        return bodies.parse_nic(await self._get_nic(nic_id), self._clock.now())

    async def nics_in(self, nic_ids: Iterable[str]) -> tuple[Nic, ...]:
        """Return those of the NICs that exist, without bodies: one list per resource group."""
        wanted = {fold(nic_id): ResourceId.parse(nic_id) for nic_id in nic_ids}
        groups = {
            (fold(target.subscription), fold(target.group)): target for target in wanted.values()
        }
        found: list[Nic] = []
        for target in groups.values():
            found += await self._list_nics(target, wanted)
        return tuple(found)

    async def pool(self, pool_id: str) -> Pool:
        """Return one pool."""
        return bodies.parse_pool(await self._get_pool(pool_id), self._clock.now())

    # --- NIC-based pools

    async def remove_from_nic(
        self,
        nic: Nic | None,
        nic_id: str,
        memberships: tuple[NicMembership, ...],
        fence: MembershipFence,
    ) -> Nic:
        """Take exactly these memberships off a NIC, in one PUT, and return it as read after that.

        `nic`, when it carries a body, saves the first GET; its etag decides whether it is still
        true. It is returned as it is when there is nothing to take off.
        """
        if nic is None or nic.body is None:
            nic = await self.nic(nic_id)
        edit = bodies.without_memberships(as_object(nic.body, "a NIC"), memberships)
        if not edit.changed and not nic.failed:
            return nic
        after = await self._put_nic(nic_id, edit, fence)
        left = [item for item in memberships if bodies.place(item) in bodies.standing(after)]
        if left:
            raise ServiceFault(f"Azure reports success, but {nic_id} is still in {left[0].pool_id}")
        return after

    async def restore_to_nic(
        self, nic_id: str, memberships: tuple[NicMembership, ...], fence: MembershipFence
    ) -> Nic:
        """Put exactly these memberships back, in one PUT, and return the NIC as read after that.

        Those whose ipConfiguration does not exist any more are left out.
        """
        nic = await self.nic(nic_id)
        edit = bodies.with_memberships(as_object(nic.body, "a NIC"), memberships)
        if not edit.changed and not nic.failed:
            return nic
        after = await self._put_nic(nic_id, edit, fence)
        missing = [
            item
            for item in memberships
            if item not in edit.absent and bodies.place(item) not in bodies.standing(after)
        ]
        if missing:
            raise ServiceFault(
                f"Azure reports success, but {nic_id} is not in {missing[0].pool_id}"
            )
        return after

    # --- IP-based pools

    async def remove_from_pool(
        self, pool_id: str, memberships: tuple[AddressMembership, ...], fence: MembershipFence
    ) -> Pool:
        """Take exactly these addresses out of a pool, in one PUT; return it as read after that."""
        return await self._write_pool(pool_id, memberships, bodies.without_addresses, fence)

    async def restore_to_pool(
        self, pool_id: str, memberships: tuple[AddressMembership, ...], fence: MembershipFence
    ) -> Pool:
        """Put exactly these addresses back, in one PUT; return the pool as read after that.

        Those whose name somebody has given to another address are left out.
        """
        return await self._write_pool(pool_id, memberships, bodies.with_addresses, fence)

    async def _write_pool(
        self,
        pool_id: str,
        memberships: tuple[AddressMembership, ...],
        change: Callable[[Json, tuple[AddressMembership, ...]], Edit],
        fence: MembershipFence,
    ) -> Pool:
        body = await self._get_pool(pool_id)
        pool = bodies.parse_pool(body, self._clock.now())
        if pool.kind is PoolKind.NIC:
            # A pool PUT evicts NICs (Azure/bicep-registry-modules#2512): never send one here.
            raise Conflict(f"{pool_id} has NIC-based members now; they are changed on their NICs")
        edit = change(body, memberships)
        if not edit.changed and not pool.failed:
            return pool
        after = await self._put_pool(pool_id, edit, fence)
        expected, standing = bodies.addresses(edit.body), bodies.addresses(after)
        if expected != standing:
            raise ServiceFault(
                f"Azure reports success, but the addresses of {pool_id} are not those written: "
                f"{len(expected - standing)} missing, {len(standing - expected)} too many"
            )
        return bodies.parse_pool(after, self._clock.now())

    # --- rehearsing

    async def rehearse_nic(self, nic: Nic) -> bool:
        """Find out whether a NIC may be written, by a write that cannot take effect.

        Its own body, as just read, goes out under an etag that it does not have. Azure authorises
        a request, everything the body refers to included, before it looks at the condition.
        Returns False if it took the write all the same, which then changed nothing.

        Raises:
            Denied: it may not be written; names what is missing.
        """
        target = ResourceId.parse(nic.nic_id)
        interfaces = (await self._client(target.subscription)).network_interfaces
        return await self._rehearse(
            "nic_put",
            nic.body,
            lambda content, options: interfaces.begin_create_or_update(
                target.group, target.names[-1], content, **options
            ),
        )

    async def rehearse_pool(self, pool_id: str) -> bool:
        """Find out the same for an IP-based pool."""
        target = ResourceId.parse(pool_id)
        body = await self._get_pool(pool_id)
        if bodies.parse_pool(body, self._clock.now()).kind is not PoolKind.ADDRESS:
            # A pool PUT evicts NICs (Azure/bicep-registry-modules#2512): never send one here.
            raise Conflict(f"{pool_id} has no addresses any more")
        pools = (await self._client(target.subscription)).load_balancer_backend_address_pools
        return await self._rehearse(
            "pool_put",
            body,
            lambda content, options: pools.begin_create_or_update(
                target.group, target.names[0], target.names[-1], content, **options
            ),
        )

    async def _rehearse(
        self,
        operation: str,
        body: object,
        begin: Callable[[bytes, dict[str, Any]], Awaitable[operations.Poller]],
    ) -> bool:
        edit = Edit(body=as_object(body, "the body"), changed=False)
        options: dict[str, Any] = {
            "content_type": "application/json",
            "headers": {"If-Match": NO_ETAG},
            "cls": operations.final,
        }
        try:
            async with self._caller.call(operation, READ_TIMEOUT_S):
                await begin(_encode(edit), options)
        except Conflict as error:
            if getattr(error.__cause__, "status_code", None) != 412:
                raise
            return True
        return False

    # --- requests

    async def _client(self, subscription: str) -> NetworkClient:
        client = self._clients.get(fold(subscription))
        if client is None:
            sdk = await load_sdk("azure.mgmt.network.aio")
            client = self._clients[fold(subscription)] = cast(
                "NetworkClient",
                sdk.NetworkManagementClient(
                    self._arm.credential, subscription, **self._arm.client_options()
                ),
            )
        return client

    async def _get_nic(self, nic_id: str) -> Json:
        target = ResourceId.parse(nic_id)
        client = await self._client(target.subscription)
        async with self._caller.call("nic_get", READ_TIMEOUT_S):
            body = await client.network_interfaces.get(target.group, target.names[-1], cls=raw)
            return about(nic_id, as_object(body, "a NIC"))

    async def _get_pool(self, pool_id: str) -> Json:
        target = ResourceId.parse(pool_id)
        client = await self._client(target.subscription)
        async with self._caller.call("pool_get", READ_TIMEOUT_S):
            body = await client.load_balancer_backend_address_pools.get(
                target.group, target.names[0], target.names[-1], cls=raw
            )
            return about(pool_id, as_object(body, "a backend pool"))

    async def _list_nics(self, target: ResourceId, wanted: Container[str]) -> list[Nic]:
        path = (
            f"/subscriptions/{target.subscription}/resourceGroups/{target.group}"
            "/providers/Microsoft.Network/networkInterfaces"
        )
        listed = await self._slim.list(
            "nic_list", path, {"api-version": NETWORK_VERSION}, LIST_TIMEOUT_S
        )
        now = self._clock.now()
        # Other people's NICs in the group are not ours to understand.
        return [
            bodies.parse_nic(body, now, keep_body=False)
            for body in listed
            if fold(text(body, "id")) in wanted
        ]

    async def _put_nic(self, nic_id: str, edit: Edit, fence: MembershipFence) -> Nic:
        target = ResourceId.parse(nic_id)
        interfaces = (await self._client(target.subscription)).network_interfaces
        content, options = _encode(edit), _options(nic_id, edit, fence)

        def begin() -> Awaitable[operations.Poller]:
            return interfaces.begin_create_or_update(
                target.group, target.names[-1], content, **options
            )

        body = await self._run("nic_put", nic_id, begin)
        if body is None:
            body = await self._read_back(self._get_nic(nic_id))
        return bodies.parse_nic(body, self._clock.now())

    async def _put_pool(self, pool_id: str, edit: Edit, fence: MembershipFence) -> Json:
        target = ResourceId.parse(pool_id)
        pools = (await self._client(target.subscription)).load_balancer_backend_address_pools
        content, options = _encode(edit), _options(pool_id, edit, fence)

        def begin() -> Awaitable[operations.Poller]:
            return pools.begin_create_or_update(
                target.group, target.names[0], target.names[-1], content, **options
            )

        body = await self._run("pool_put", pool_id, begin)
        return body if body is not None else await self._read_back(self._get_pool(pool_id))

    async def _run(
        self, operation: str, resource_id: str, begin: Callable[[], Awaitable[operations.Poller]]
    ) -> Json | None:
        """Return the resource as read after the operation; None when it was not read."""
        last = await operations.run(
            self._caller, self._clock, operation, begin, deadline_s=self._operation_timeout_s
        )
        if not last.from_get:
            return None
        try:
            return about(resource_id, last.body)
        except ContractViolation as error:
            raise OutcomeUnknown(f"written, but not verified: {error}") from error

    async def _read_back(self, read: Awaitable[Json]) -> Json:
        try:
            return await read
        except ControllerError as error:
            raise OutcomeUnknown(f"written, but not verified: {error}") from error


def _encode(edit: Edit) -> bytes:
    return json.dumps(edit.body, separators=(",", ":")).encode()


def _options(resource_id: str, edit: Edit, fence: MembershipFence) -> dict[str, Any]:
    etag = text(edit.body, "etag")
    if not etag:
        raise ContractViolation(f"{resource_id} came without an etag; no unconditional write")
    return {
        "content_type": "application/json",
        "headers": {"If-Match": etag},
        "cls": operations.final,
        "fence": partial(fence, edit.absent),
    }
