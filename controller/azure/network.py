"""Client of Microsoft.Network: NICs, load balancers and backend pools, and the writes to pools.

A member of a NIC-based pool is changed only on its NIC, an address only on its pool. Every write
has the condition of the etag that it was computed from, is sent once, passes the write guard, and
is verified by a read: Azure can report success for a change that did not happen
(Azure/bicep-types-az#1861).
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from controller.azure import admin_states, network_bodies
from controller.azure.http import long_running
from controller.azure.http.arm_client import Arm
from controller.azure.http.call import Observer, ignore_outcome
from controller.azure.http.json_reader import Json, as_object, text, verified_body
from controller.azure.http.resource_id import ResourceId
from controller.azure.http.sdk_clients import SdkClients
from controller.azure.http.write_guard import WriteGuard
from controller.azure.network_bodies import Edit
from controller.azure.network_reads import NetworkReads
from controller.azure.rule_health import RuleHealth
from controller.clock import Clock
from controller.core.resources import (
    AddressMembership,
    AdminMembership,
    Membership,
    Nic,
    NicMembership,
    Pool,
    PoolKind,
)
from controller.errors import (
    Conflict,
    ContractViolation,
    ControllerError,
    OutcomeUnknown,
    ServiceFault,
    StateRefused,
)

OPERATION_TIMEOUT_S = 120.0


class _Nics(Protocol):
    async def begin_create_or_update(
        self, group: str, name: str, parameters: bytes, /, **options: Any
    ) -> long_running.Poller: ...


class _Pools(Protocol):
    async def begin_create_or_update(
        self, group: str, lb: str, name: str, parameters: bytes, /, **options: Any
    ) -> long_running.Poller: ...


class NetworkClient(Protocol):
    """The part of `NetworkManagementClient` used here; its own annotations are mostly Any."""

    @property
    def network_interfaces(self) -> _Nics: ...
    @property
    def load_balancer_backend_address_pools(self) -> _Pools: ...


MembershipGuard = Callable[[tuple[Membership, ...]], WriteGuard]
"""Returns the guard of a write, given the memberships that the write skips: already absent for a
removal, no longer restorable for a restore."""


class Network(NetworkReads):
    """The client. Resources can be in any subscription."""

    def __init__(
        self,
        arm: Arm,
        *,
        clock: Clock,
        observer: Observer = ignore_outcome,
        operation_timeout_s: float = OPERATION_TIMEOUT_S,
    ) -> None:
        super().__init__(arm, clock=clock, observer=observer)
        self.rule_health = RuleHealth(arm, clock=clock, observer=observer)
        self._operation_timeout_s = operation_timeout_s
        self._clients = SdkClients[NetworkClient](
            arm, "azure.mgmt.network.aio", "NetworkManagementClient"
        )

    # --- NIC-based pools

    async def remove_from_nic(
        self,
        nic: Nic | None,
        nic_id: str,
        memberships: tuple[NicMembership, ...],
        guard: MembershipGuard,
        *,
        repairs: bool = False,
    ) -> Nic:
        """Remove exactly these memberships in one PUT, and return the NIC as read after it.

        A `nic` with a body saves the first GET; Azure refuses the write if its etag is outdated.
        Without anything to remove, it is written if it is Failed, or with `repairs` Updating.
        """
        if nic is None or nic.body is None:
            nic = await self.nic(nic_id)
        edit = network_bodies.without_memberships(as_object(nic.body, "a NIC"), memberships)
        if not edit.changed and not _is_repaired(nic, repairs=repairs):
            return nic
        after = await self._put_nic(nic_id, edit, guard)
        remaining = [
            item
            for item in memberships
            if network_bodies.pool_reference(item) in network_bodies.pool_references(after)
        ]
        if remaining:
            raise ServiceFault(
                f"Azure reports success, but {nic_id} is still in {remaining[0].pool_id}"
            )
        return after

    async def restore_to_nic(
        self,
        nic_id: str,
        memberships: tuple[NicMembership, ...],
        guard: MembershipGuard,
        *,
        known: Nic | None = None,
        repairs: bool = False,
    ) -> Nic:
        """Restore exactly these memberships in one PUT, and return the NIC as read after it.

        What has no ipConfiguration any more is left out. `known`, `repairs`: as for a removal.
        """
        nic = known if known is not None and known.body else await self.nic(nic_id)
        edit = network_bodies.with_memberships(as_object(nic.body, "a NIC"), memberships)
        if not edit.changed and not _is_repaired(nic, repairs=repairs):
            return nic
        after = await self._put_nic(nic_id, edit, guard)
        missing = [
            item
            for item in memberships
            if item not in edit.absent
            and network_bodies.pool_reference(item) not in network_bodies.pool_references(after)
        ]
        if missing:
            raise ServiceFault(
                f"Azure reports success, but {nic_id} is not in {missing[0].pool_id}"
            )
        return after

    # --- IP-based pools

    async def remove_from_pool(
        self, pool_id: str, memberships: tuple[AddressMembership, ...], guard: MembershipGuard
    ) -> Pool:
        """Remove exactly these addresses in one PUT, and return the pool as read after it."""
        return await self._write_pool(pool_id, memberships, network_bodies.without_addresses, guard)

    async def restore_to_pool(
        self, pool_id: str, memberships: tuple[AddressMembership, ...], guard: MembershipGuard
    ) -> Pool:
        """Restore exactly these addresses in one PUT, and return the pool as read after it.

        An address whose name now belongs to another address is left out.
        """
        return await self._write_pool(pool_id, memberships, network_bodies.with_addresses, guard)

    async def _write_pool(
        self,
        pool_id: str,
        memberships: tuple[AddressMembership, ...],
        change: Callable[[Json, tuple[AddressMembership, ...]], Edit],
        guard: MembershipGuard,
    ) -> Pool:
        body = await self.pool_body(pool_id)
        pool = network_bodies.parse_pool(body, self._clock.now())
        if pool.kind is PoolKind.NIC:
            # A pool PUT evicts NICs (Azure/bicep-registry-modules#2512): never send one here.
            raise Conflict(f"{pool_id} has NIC-based members now, which are changed on their NICs")
        edit = change(body, memberships)
        if not edit.changed and not pool.failed:
            return pool
        after = await self._put_pool(pool_id, edit, guard)
        expected = network_bodies.address_entries(edit.body)
        found = network_bodies.address_entries(after)
        if expected != found:
            raise ServiceFault(
                f"Azure reports success, but the addresses of {pool_id} are not those written: "
                f"{len(expected - found)} missing, {len(found - expected)} unexpected"
            )
        return network_bodies.parse_pool(after, self._clock.now())

    # --- adminState

    async def write_admin_states(
        self,
        pool_id: str,
        memberships: tuple[AdminMembership, ...],
        guard: MembershipGuard,
        *,
        restore: bool,
    ) -> Pool:
        """Set these members Down in one PUT, or restore their state; return the pool as read after.

        Members that are not in the pool any more are left out.

        Raises:
            StateRefused: the pool does not take the state; nothing has changed.
        """
        body = await self.pool_body(pool_id)
        edit = admin_states.with_states(body, memberships, restore=restore)
        pool = network_bodies.parse_pool(body, self._clock.now())
        if not edit.changed and not pool.failed:
            return pool
        try:
            after = await self._put_pool(pool_id, edit, guard, admin_states.states)
        except (ContractViolation, ServiceFault) as error:
            if admin_states.is_refusal(error):
                refused = StateRefused(str(error))
                refused.status, refused.service = error.status, error.service
                raise refused from error
            raise
        admin_states.check_written(edit.body, after, memberships)
        return network_bodies.parse_pool(after, self._clock.now())

    # --- requests

    async def client(self, subscription: str) -> NetworkClient:
        """Return the SDK client of a subscription."""
        return await self._clients.of(subscription)

    async def load_sdk(self) -> None:
        """Load the SDK, so that the first write does not wait for it; raise NotSent if it fails."""
        await self._clients.load()

    async def _put_nic(self, nic_id: str, edit: Edit, guard: MembershipGuard) -> Nic:
        target = ResourceId.parse(nic_id)
        interfaces = (await self.client(target.subscription)).network_interfaces
        content, options = network_bodies.encode(edit), _options(nic_id, edit, guard)
        version = self.version.value

        def begin() -> Awaitable[long_running.Poller]:
            return interfaces.begin_create_or_update(
                target.group, target.names[-1], content, api_version=version, **options
            )

        wanted = network_bodies.parse_nic(edit.body, self._clock.now())
        written = network_bodies.pool_references(wanted)

        def shows(found: Json) -> bool:
            nic = network_bodies.parse_nic(found, wanted.observed_at)
            return nic.etag != wanted.etag and network_bodies.pool_references(nic) == written

        check = long_running.Check(read=lambda: self.nic_body(nic_id), shows=shows)
        body = await self._run("nic_put", nic_id, begin, check)
        if body is None:
            body = await self._read_back(self.nic_body(nic_id))
        return network_bodies.parse_nic(body, self._clock.now())

    async def _put_pool(
        self,
        pool_id: str,
        edit: Edit,
        guard: MembershipGuard,
        shown: Callable[[Json], object] = network_bodies.address_entries,
    ) -> Json:
        """Send a pool body; return the pool as read after it. `shown` returns what is written."""
        target = ResourceId.parse(pool_id)
        pools = (await self.client(target.subscription)).load_balancer_backend_address_pools
        content, options = network_bodies.encode(edit), _options(pool_id, edit, guard)
        version = self.version.value

        def begin() -> Awaitable[long_running.Poller]:
            return pools.begin_create_or_update(
                target.group,
                target.names[0],
                target.names[-1],
                content,
                api_version=version,
                **options,
            )

        before, written = text(edit.body, "etag"), shown(edit.body)

        def shows(found: Json) -> bool:
            return text(found, "etag") != before and shown(found) == written

        check = long_running.Check(read=lambda: self.pool_body(pool_id), shows=shows)
        body = await self._run("pool_put", pool_id, begin, check)
        return body if body is not None else await self._read_back(self.pool_body(pool_id))

    async def _run(
        self,
        operation: str,
        resource_id: str,
        begin: Callable[[], Awaitable[long_running.Poller]],
        check: long_running.Check,
    ) -> Json | None:
        """Return the resource as it was read after the operation; None if it was not."""
        last = await long_running.put(
            self._caller,
            self._clock,
            operation,
            begin,
            check=check,
            deadline_s=self._operation_timeout_s,
        )
        if not last.from_get:
            return None
        try:
            return verified_body(resource_id, last.body)
        except ContractViolation as error:
            raise OutcomeUnknown(f"written, but not verified: {error}") from error

    async def _read_back(self, read: Awaitable[Json]) -> Json:
        try:
            return await read
        except ControllerError as error:
            raise OutcomeUnknown(f"written, but not verified: {error}") from error


def _is_repaired(nic: Nic, *, repairs: bool) -> bool:
    """Return whether a NIC is written although that changes nothing in its body."""
    return nic.failed or (nic.updating and repairs)


def _options(resource_id: str, edit: Edit, guard: MembershipGuard) -> dict[str, Any]:
    etag = text(edit.body, "etag")
    if not etag:
        raise ContractViolation(f"{resource_id} has no etag, and is never written without one")
    return {
        "content_type": "application/json",
        "headers": {"If-Match": etag},
        "cls": long_running.final,
        "guard": guard(edit.absent),
    }
