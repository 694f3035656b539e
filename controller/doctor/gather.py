"""Asks everything there is to ask, through the agent's own adapters, and changes nothing.

It never stops at the first failure: an error is an answer, and only what needs the answer is left
out. What an agent may be writing at this moment, by the ledger or by Azure's own word, is not
rehearsed on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from datetime import datetime
from typing import TypeVar

from controller.azure.blob import LedgerBlob
from controller.azure.compute import AvailabilitySet
from controller.azure.imds import Instance, Poll
from controller.azure.session import (
    CONNECTION_STRING,
    HIJACKERS,
    Azure,
    SessionFactory,
    open_azure,
    tcp_session,
)
from controller.azure.survey import Balancer, Subnet, attachments_of
from controller.clock import Clock
from controller.core.ledger import Ledger
from controller.core.model import Nic, PoolKind, Vm, fold, load_balancer_of
from controller.doctor.facts import Facts, Failed, Known, Unasked
from controller.errors import Busy, ContractViolation, ControllerError, Denied
from controller.home import blob_name_of, look_at_lease
from controller.ledger_store import LedgerStore
from controller.look import LeaseLook
from controller.settings import Settings

PROXIES = ("https_proxy", "http_proxy", "all_proxy")
AT_ONCE = 4
"""Reads under way at the same time. Writes go one by one: that is slower than Azure's quota for
them comes back, and an agent that has to drain meanwhile shares it."""
UNNAMED_BLOB = "lb-drain-doctor.json"
"""A blob that never is: stands in for the ledger's while the set, and so its name, is unknown."""

T = TypeVar("T")
NEEDS_SET = Unasked("availability-set")
NEEDS_IMDS = Unasked("imds")
NEEDS_IDENTITY = Unasked("identity")


async def gather(
    settings: Settings,
    *,
    environ: MutableMapping[str, str],
    clock: Clock,
    session_factory: SessionFactory = tcp_session,
) -> Facts:
    """Ask everything. Raises ConfigError for a configuration with which nothing can be asked."""
    proxies = tuple(name for each in PROXIES for name in (each, each.upper()) if environ.get(name))
    hijackers = tuple(name for name in HIJACKERS if name in environ)
    async with open_azure(settings, clock, environ, session_factory=session_factory) as azure:
        rounds = _Rounds(azure, settings, clock)
        with_key = CONNECTION_STRING in environ
        # The first poll of a VM may take two minutes; everything else happens meanwhile.
        polling = asyncio.create_task(rounds.poll())
        try:
            instance, principal = await asyncio.gather(
                _ask(azure.imds.instance()), _ask(azure.survey.principal())
            )
            rounds.identified = isinstance(principal, str)
            balancers = await rounds.balancers()
            home, vms = await rounds.home(instance)
            nic_list, nics = await rounds.nics(vms)
            blob = rounds.blob(home)
            lease, blob_write = await rounds.lease(blob, with_key=with_key)
            ledger = lease.ledger if isinstance(lease, LeaseLook) else Ledger()
            nic_writes = await rounds.nic_writes(vms, nics, ledger)
            pool_writes = await rounds.pool_writes(balancers.values(), ledger)
            poll, asked_at, answered_at = await polling
            return Facts(
                settings=settings,
                proxies=proxies,
                hijackers=hijackers,
                instance=instance,
                poll=poll,
                asked_at=asked_at,
                answered_at=answered_at,
                principal=principal,
                home=home,
                vms=vms,
                nic_list=nic_list,
                nics=nics,
                balancers=balancers,
                subnets=await rounds.subnets(nics.values()),
                operations=await rounds.operations(instance),
                blob_url=blob.url,
                lease=lease,
                blob_write=blob_write,
                nic_writes=nic_writes,
                pool_writes=pool_writes,
            )
        finally:
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)


class _Rounds:
    """One round of questions per method; each answers with what is known, errors included."""

    def __init__(self, azure: Azure, settings: Settings, clock: Clock) -> None:
        self._azure, self._settings, self._clock = azure, settings, clock
        self._managed = {fold(pool.id) for pool in settings.backend_pools}
        self.identified = False
        """Whether there is a token; without one Azure need not be asked anything."""

    async def poll(self) -> tuple[Known[Poll], datetime, datetime]:
        asked_at = self._clock.now()
        found = await _ask(self._azure.imds.poll())
        return found, asked_at, self._clock.now()

    async def balancers(self) -> Mapping[str, Known[Balancer]]:
        ids = (load_balancer_of(pool.id) for pool in self._settings.backend_pools)
        if not self.identified:
            return {fold(each): NEEDS_IDENTITY for each in ids}
        return await _each(ids, self._azure.survey.balancer)

    async def home(
        self, instance: Known[Instance]
    ) -> tuple[Known[AvailabilitySet], Known[tuple[Vm, ...]]]:
        if not isinstance(instance, Instance):
            return NEEDS_IMDS, NEEDS_IMDS
        if not self.identified:
            return NEEDS_IDENTITY, NEEDS_IDENTITY
        home = await _ask(self._azure.compute.discover(instance.vm_id))
        if not isinstance(home, AvailabilitySet):
            return home, NEEDS_SET
        return home, await _ask(self._azure.compute.members(home.availability_set_id))

    async def nics(
        self, vms: Known[tuple[Vm, ...]]
    ) -> tuple[Known[None], Mapping[str, Known[Nic]]]:
        """Read each NIC with its body; and list them, as agents do, who need that right, too."""
        if not isinstance(vms, tuple):
            return NEEDS_SET, {}
        ids = [nic_id for vm in vms for nic_id in vm.nic_ids]

        async def listed() -> None:
            await self._azure.network.nics_in(ids)

        async def read(nic_id: str) -> Nic:
            nic = await self._azure.network.nic(nic_id)
            attachments_of(nic)  # a body that this cannot be read from is no answer
            return nic

        return await _ask(listed()), await _each(ids, read)

    async def subnets(self, nics: Iterable[Known[Nic]]) -> Mapping[str, Known[Subnet]]:
        ids = [
            subnet_id
            for nic in nics
            if isinstance(nic, Nic) and self._managed & _pools(nic)
            for subnet_id in attachments_of(nic).subnet_ids
        ]
        return await _each(ids, self._azure.survey.subnet)

    async def operations(self, instance: Known[Instance]) -> Known[None]:
        if not isinstance(instance, Instance):
            return NEEDS_IMDS
        if not self.identified:
            return NEEDS_IDENTITY
        check = self._azure.survey.check_operations
        return await _ask(check(instance.subscription_id, instance.location))

    def blob(self, home: Known[AvailabilitySet]) -> LedgerBlob:
        name = self._settings.election.blob_name
        if not name and isinstance(home, AvailabilitySet):
            name = blob_name_of(home.availability_set_id)
        return self._azure.ledger(name or UNNAMED_BLOB)

    async def lease(
        self, blob: LedgerBlob, *, with_key: bool
    ) -> tuple[Known[LeaseLook], Known[None]]:
        if not (self.identified or with_key):
            return NEEDS_IDENTITY, NEEDS_IDENTITY
        look = await _ask(look_at_lease(LedgerStore(blob), self._clock.now()))
        if isinstance(look, Failed) and not isinstance(look.error, Denied | ContractViolation):
            return look, Unasked("read-ledger")
        return look, await _ask(blob.rehearse())

    async def nic_writes(
        self, vms: Known[tuple[Vm, ...]], nics: Mapping[str, Known[Nic]], ledger: Ledger
    ) -> Mapping[str, Known[bool]]:
        """Rehearse on every NIC that is in a configured pool: each refers to other things."""
        out = {fold(entry.vm) for entry in ledger.entries}
        settled = [
            nic.nic_id
            for vm in (vms if isinstance(vms, tuple) else ())
            if fold(vm.name) not in out
            for nic in (nics.get(fold(nic_id)) for nic_id in vm.nic_ids)
            if isinstance(nic, Nic) and self._managed & _pools(nic)
        ]

        async def rehearse(nic_id: str) -> bool:
            # Read anew: should Azure take the write, it must not bring anything back.
            nic = await self._azure.network.nic(nic_id)
            if nic.updating:
                raise Busy(f"{nic.nic_id} is being written by somebody else")
            return await self._azure.network.rehearse_nic(nic)

        return await _each(settled, rehearse, at_once=1)

    async def pool_writes(
        self, balancers: Iterable[Known[Balancer]], ledger: Ledger
    ) -> Mapping[str, Known[bool]]:
        out = {fold(m.pool_id) for entry in ledger.entries for m in entry.memberships}
        ids = [
            pool.pool_id
            for balancer in balancers
            if isinstance(balancer, Balancer)
            for pool in balancer.load_balancer.pools
            if pool.kind is PoolKind.ADDRESS and fold(pool.pool_id) in self._managed - out
        ]
        return await _each(ids, self._azure.network.rehearse_pool, at_once=1)


def _pools(nic: Nic) -> set[str]:
    return {fold(pool) for each in nic.ip_configurations for pool in each.pool_ids}


async def _ask(question: Awaitable[T]) -> T | Failed:
    try:
        return await question
    except ControllerError as error:
        return Failed(error)


async def _each(
    ids: Iterable[str], question: Callable[[str], Awaitable[T]], *, at_once: int = AT_ONCE
) -> dict[str, T | Failed]:
    """Ask the same of every id, a few at a time; by folded id."""
    gate = asyncio.Semaphore(at_once)
    wanted = {fold(each): each for each in ids}

    async def one(each: str) -> T | Failed:
        async with gate:
            return await _ask(question(each))

    answers = await asyncio.gather(*(one(each) for each in wanted.values()))
    return dict(zip(wanted, answers, strict=True))
