"""Reads all facts through the agent's own adapters, and changes nothing.

It never stops at the first failure: a failed read is a fact, and only the reads that depend on it
are skipped. Permission probes leave out every resource that an agent may be writing now, by the
ledger or by the provisioning state.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from datetime import datetime
from typing import TypeVar

from controller.agent.ledger_place import LedgerPlace, find_ledger
from controller.azure.blob import StateBlob
from controller.azure.http.identity import IDENTITY_OVERRIDES
from controller.azure.http.session import (
    Azure,
    SessionFactory,
    open_azure,
    proxy_variables,
    tcp_session,
)
from controller.azure.imds import Poll
from controller.azure.imds_document import Instance
from controller.azure.topology import LoadBalancerDetails, Subnet, attachments_of
from controller.azure.vm_set import VmSet
from controller.clock import Clock
from controller.config.schema import STORAGE_CONNECTION_STRING, Settings
from controller.core.agent_presence import SeenAgent
from controller.core.azure_names import fold, load_balancer_of, short
from controller.core.blob_owner import ANY_OWNER, BlobOwner
from controller.core.ledger import Ledger
from controller.core.resources import Nic, PoolKind, Vm
from controller.core.second_source import by_id
from controller.core.shared_pools import SharedPool
from controller.doctor.facts import DoctorFacts, Failed, Known, Skipped, nics_in
from controller.doctor.vm_side import read_vm_side
from controller.errors import Busy, ContractViolation, ControllerError, Denied
from controller.status.ledger_view import LeaseStatus, read_lease_status
from controller.storage.ledger_store import LedgerStore, ledger_blob_name
from controller.storage.presence_store import read_agents
from controller.storage.shared_pool_store import SharedPoolStore

PARALLEL_READS = 4
"""Permission probes run one at a time: Azure's quota for writes then recovers faster than they use
it, and an agent that has to drain at the same time has the same quota."""
PLACEHOLDER_BLOB = "lb-drain-doctor.json"
"""A blob that never exists. It is used while the set, and so the name, is unknown."""

T = TypeVar("T")
NEEDS_SET = Skipped("set")
NEEDS_IMDS = Skipped("imds")
NEEDS_IDENTITY = Skipped("identity")


async def collect(
    settings: Settings,
    *,
    environ: MutableMapping[str, str],
    clock: Clock,
    session_factory: SessionFactory = tcp_session,
) -> DoctorFacts:
    """Read all facts. Raises ConfigError if nothing can be read with this configuration."""
    proxies = proxy_variables(environ)
    overrides = tuple(name for name in IDENTITY_OVERRIDES if name in environ)
    async with open_azure(settings, clock, environ, session_factory=session_factory) as azure:
        reader = _Reader(azure, settings, clock)
        has_key = STORAGE_CONNECTION_STRING in environ
        # The first poll of a VM can take two minutes; the other reads do not wait for it.
        polling = asyncio.create_task(reader.poll())
        try:
            instance, principal_id = await asyncio.gather(
                _try(azure.imds.instance()), _try(azure.topology.principal_id())
            )
            reader.has_token = isinstance(principal_id, str)
            load_balancers = await reader.load_balancers()
            availability_set, vms = await reader.availability_set(instance)
            nic_list, nics = await reader.nics(vms)
            place = await reader.ledger(availability_set, has_key=has_key)
            blob = azure.state_blob(place.name)
            lease, blob_write = await reader.lease(blob, place.owner_id, has_key=has_key)
            ledger = lease.ledger if isinstance(lease, LeaseStatus) else Ledger()
            nic_writes = await reader.nic_writes(vms, nics, ledger)
            pool_writes = await reader.pool_writes(load_balancers.values(), ledger)
            poll, sent_at, answered_at = await polling
            return DoctorFacts(
                settings=settings,
                proxies=proxies,
                identity_overrides=overrides,
                instance=instance,
                poll=poll,
                poll_sent_at=sent_at,
                poll_answered_at=answered_at,
                principal_id=principal_id,
                availability_set=availability_set,
                vms=vms,
                nic_list=nic_list,
                nics=nics,
                load_balancers=load_balancers,
                shared_pools=await reader.shared_pools(place.owner_id, has_key=has_key),
                subnets=await reader.subnets(nics.values(), load_balancers.values()),
                operations=await reader.operations(instance),
                blob_url=blob.url,
                lease=lease,
                leader_agent=await reader.leader_agent(lease, place.name),
                blob_write=blob_write,
                nic_writes=nic_writes,
                pool_writes=pool_writes,
                vm_side=await read_vm_side(settings, environ),
                resource_graph=await reader.resource_graph(availability_set),
                arm_acknowledgement=await reader.arm_acknowledgement(availability_set),
            )
        finally:
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)


class _Reader:
    """Reads the facts. Each method returns what is known, failures included."""

    def __init__(self, azure: Azure, settings: Settings, clock: Clock) -> None:
        self._azure, self._settings, self._clock = azure, settings, clock
        self._managed = {fold(pool.id) for pool in settings.backend_pools}
        self.has_token = False
        """Without a token no request to Azure can succeed, so none is sent."""

    async def poll(self) -> tuple[Known[Poll], datetime, datetime]:
        sent_at = self._clock.now()
        poll = await _try(self._azure.imds.poll())
        return poll, sent_at, self._clock.now()

    async def load_balancers(self) -> Mapping[str, Known[LoadBalancerDetails]]:
        ids = (load_balancer_of(pool.id) for pool in self._settings.backend_pools)
        if not self.has_token:
            return {fold(each): NEEDS_IDENTITY for each in ids}
        return await _for_each(ids, self._azure.topology.load_balancer)

    async def availability_set(
        self, instance: Known[Instance]
    ) -> tuple[Known[VmSet], Known[tuple[Vm, ...]]]:
        if not isinstance(instance, Instance):
            return NEEDS_IMDS, NEEDS_IMDS
        if not self.has_token:
            return NEEDS_IDENTITY, NEEDS_IDENTITY
        found = await _try(self._azure.compute.discover(instance.vm_id))
        if not isinstance(found, VmSet):
            return found, NEEDS_SET
        return found, await _try(self._azure.compute.members(found.set_id))

    async def nics(
        self, vms: Known[tuple[Vm, ...]]
    ) -> tuple[Known[None], Mapping[str, Known[Nic]]]:
        """List the NICs, which an agent needs the permission for, and read each with its body."""
        if not isinstance(vms, tuple):
            return NEEDS_SET, {}
        ids = [nic_id for vm in vms for nic_id in vm.nic_ids]

        async def list_nics() -> None:
            await self._azure.network.nics_in(ids)

        async def read(nic_id: str) -> Nic:
            nic = await self._azure.network.nic(nic_id)
            attachments_of(nic)  # raises for a body that the checks could not use
            return nic

        return await _try(list_nics()), await _for_each(ids, read)

    async def subnets(
        self, nics: Iterable[Known[Nic]], load_balancers: Iterable[Known[LoadBalancerDetails]]
    ) -> Mapping[str, Known[Subnet]]:
        pools = (
            pool
            for each in load_balancers
            if isinstance(each, LoadBalancerDetails)
            for pool in each.load_balancer.pools
            if fold(pool.pool_id) in self._managed
        )
        pooled = nics_in(pools, (nic for nic in nics if isinstance(nic, Nic)))
        ids = [subnet_id for nic in pooled for subnet_id in attachments_of(nic).subnet_ids]
        return await _for_each(ids, self._azure.topology.subnet)

    async def resource_graph(self, availability_set: Known[VmSet]) -> Known[int] | None:
        if not self._settings.events.resource_graph:
            return None
        if not isinstance(availability_set, VmSet):
            return NEEDS_SET
        found = await _try(
            self._azure.resource_graph.scheduled_events(
                availability_set.set_id, availability_set.vm_ids, ()
            )
        )
        return found if isinstance(found, Failed) else len(by_id(found.reply.rows))

    async def arm_acknowledgement(self, availability_set: Known[VmSet]) -> Known[bool] | None:
        """Probe the permission with the id of an event that does not exist."""
        if self._settings.events.acknowledge_through == "imds":
            return None
        if not isinstance(availability_set, VmSet):
            return NEEDS_SET
        probe = self._azure.event_acknowledgement.may_acknowledge
        found = await _try(probe(availability_set.set_id))
        return found if isinstance(found, Failed) else True

    async def operations(self, instance: Known[Instance]) -> Known[None]:
        if self._settings.policy.close_only:
            return None  # no write starts one
        if not isinstance(instance, Instance):
            return NEEDS_IMDS
        if not self.has_token:
            return NEEDS_IDENTITY
        probe = self._azure.permissions.operation_read
        # A pool can be in another subscription, where its writes have their operations.
        found = {fold(each): each for each in self._subscriptions(instance)}
        for subscription in found.values():
            if result := await _try(probe(subscription, instance.location)):
                return result
        return None

    def _subscriptions(self, instance: Instance) -> Iterable[str]:
        yield instance.subscription_id
        for pool in self._settings.backend_pools:
            yield pool.id.split("/")[2]

    async def ledger(self, found: Known[VmSet], *, has_key: bool) -> LedgerPlace:
        """Return where the ledger is, as far as that can be found; what fails is found again."""
        name, set_id = self._settings.election.blob_name, ""
        if isinstance(found, VmSet):
            name, set_id = name or ledger_blob_name(found.set_id), found.set_id
            if self.has_token or has_key:
                names = map(short, found.vm_ids)
                place = await _try(find_ledger(self._azure, self._settings, set_id, names))
                if isinstance(place, LedgerPlace):
                    return place
        return LedgerPlace(name=name or PLACEHOLDER_BLOB, owner_id=set_id)

    async def lease(
        self, blob: StateBlob, owner_id: str, *, has_key: bool
    ) -> tuple[Known[LeaseStatus], Known[None]]:
        if not (self.has_token or has_key):
            return NEEDS_IDENTITY, NEEDS_IDENTITY
        store = LedgerStore(blob, owner=BlobOwner(set_id=owner_id) if owner_id else ANY_OWNER)
        status = await _try(read_lease_status(store, self._clock.now()))
        if isinstance(status, Failed) and not isinstance(status.error, Denied | ContractViolation):
            return status, Skipped("read-ledger")
        return status, await _try(blob.probe_write())

    async def leader_agent(self, lease: Known[LeaseStatus], ledger_name: str) -> SeenAgent | None:
        if not isinstance(lease, LeaseStatus) or not lease.leader:
            return None
        return (await read_agents(self._azure.state_blob, ledger_name, (lease.leader,)))[0]

    async def shared_pools(
        self, owner_id: str, *, has_key: bool
    ) -> Mapping[str, Known[SharedPool]]:
        ids = [pool.id for pool in self._settings.backend_pools if pool.shared == "coordinate"]
        if not owner_id:
            return dict.fromkeys(map(fold, ids), NEEDS_SET)
        if not (self.has_token or has_key):
            return dict.fromkeys(map(fold, ids), NEEDS_IDENTITY)
        store = SharedPoolStore(
            self._azure.state_blob,
            availability_set_id=owner_id,
            clock=self._clock,
        )
        return await _for_each(ids, store.read)

    async def nic_writes(
        self, vms: Known[tuple[Vm, ...]], nics: Mapping[str, Known[Nic]], ledger: Ledger
    ) -> Mapping[str, Known[bool]]:
        """Probe every NIC in a configured pool: each refers to other resources."""
        if self._settings.policy.close_only:
            return {}
        drained = {fold(entry.vm) for entry in ledger.entries}
        ids = [
            nic.nic_id
            for vm in (vms if isinstance(vms, tuple) else ())
            if fold(vm.name) not in drained
            for nic in (nics.get(fold(nic_id)) for nic_id in vm.nic_ids)
            if isinstance(nic, Nic) and self._managed & _pools(nic)
        ]

        async def probe(nic_id: str) -> bool:
            # A fresh body: if Azure accepts the write, it must not restore an older state.
            nic = await self._azure.network.nic(nic_id)
            if nic.updating:
                raise Busy(f"another client is writing {nic.nic_id}")
            return await self._azure.permissions.nic_write(nic)

        return await _for_each(ids, probe, parallel=1)

    async def pool_writes(
        self, load_balancers: Iterable[Known[LoadBalancerDetails]], ledger: Ledger
    ) -> Mapping[str, Known[bool]]:
        if self._settings.policy.close_only:
            return {}
        drained = {fold(m.pool_id) for entry in ledger.entries for m in entry.memberships}
        by_state = self._settings.policy.admin_state
        permissions = self._azure.permissions
        probe = permissions.admin_state_write if by_state else permissions.pool_write
        kinds = {PoolKind.ADDRESS, PoolKind.NIC} if by_state else {PoolKind.ADDRESS}
        ids = [
            pool.pool_id
            for each in load_balancers
            if isinstance(each, LoadBalancerDetails)
            for pool in each.load_balancer.pools
            if pool.kind in kinds and fold(pool.pool_id) in self._managed - drained
        ]
        return await _for_each(ids, probe, parallel=1)


def _pools(nic: Nic) -> set[str]:
    return {fold(pool) for each in nic.ip_configurations for pool in each.pool_ids}


async def _try(read: Awaitable[T]) -> T | Failed:
    try:
        return await read
    except ControllerError as error:
        return Failed(error)


async def _for_each(
    ids: Iterable[str], read: Callable[[str], Awaitable[T]], *, parallel: int = PARALLEL_READS
) -> dict[str, T | Failed]:
    """Return the result of a read for every id, by folded id."""
    gate = asyncio.Semaphore(parallel)
    wanted = {fold(each): each for each in ids}

    async def one(each: str) -> T | Failed:
        async with gate:
            return await _try(read(each))

    results = await asyncio.gather(*(one(each) for each in wanted.values()))
    return dict(zip(wanted, results, strict=True))
