"""The resources of the set as one agent last read them: VMs, NICs and pools.

The cache is in memory only: everything that a successor must know is in the ledger.

It keeps what the replies prove about each resource (`core.presence`): one 404 is no proof of
deletion. The view of a resource is dropped when its absence lasts.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from controller.core.azure_names import fold, load_balancer_of
from controller.core.deleted_vms import nics_of_deleted_vms
from controller.core.ledger import Ledger
from controller.core.observation import Observation
from controller.core.old_replies import ShownEtags
from controller.core.planning.mechanisms import pool_membership
from controller.core.planning.pool_membership import PoolMembership
from controller.core.presence import LASTING, UNKNOWN, Existence, Presence, Source
from controller.core.resources import (
    LoadBalancer,
    LoadBalancingRule,
    Nic,
    Pool,
    PoolHealth,
    PowerState,
    Vm,
)
from controller.core.shared_pools import SharedPool
from controller.core.vm_report import SeenReport

NEVER = datetime.min.replace(tzinfo=UTC)

View = TypeVar("View", Nic, Pool, PoolHealth, SharedPool, SeenReport)


class ResourceCache:
    """The newest view of each resource, by folded id."""

    def __init__(self, pool_ids: Iterable[str]) -> None:
        self._managed = {fold(pool_id): pool_id for pool_id in pool_ids}
        self._configured = frozenset(self._managed)
        self._vms: dict[str, Vm] = {}
        self._former: dict[str, Vm] = {}
        self._nics: dict[str, Nic] = {}
        self._pools: dict[str, Pool] = {}
        self.presence: dict[str, Presence] = {}
        """What the replies prove about VMs, NICs and pools, by folded id."""
        self.health: dict[str, PoolHealth] = {}
        """Which members the rules report as down, by folded pool id."""
        self.rules: dict[str, tuple[LoadBalancingRule, ...]] = {}
        """The rules of load balancers, by folded id."""
        self.views: dict[str, object] = {}
        """Of resources that are neither NIC nor pool, by folded id; their mechanism knows them."""
        self.shared_pools: dict[str, SharedPool] = {}
        """What other sets state about shared pools, by folded id of the pool."""
        self.reports = dict[str, SeenReport]()
        """What the agents of VMs report, by folded name."""
        self.inventory_at: datetime | None = None
        self._etags = ShownEtags()
        self.set_id = ""
        """The set that was read last; empty before that."""

    def watch(self, pool_ids: Iterable[str]) -> None:
        """Keep these pools too: the ledger can name a pool that is not managed any more."""
        for pool_id in pool_ids:
            self._managed.setdefault(fold(pool_id), pool_id)

    @property
    def vms(self) -> tuple[Vm, ...]:
        """The VMs of the set."""
        return tuple(self._vms[key] for key in sorted(self._vms))

    @property
    def former(self) -> tuple[Vm, ...]:
        """VMs outside the set whose power state was read."""
        return tuple(self._former[key] for key in sorted(self._former))

    @property
    def nics(self) -> tuple[Nic, ...]:
        """The NICs that were read."""
        return tuple(self._nics[key] for key in sorted(self._nics))

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The managed pools that exist."""
        return tuple(self._pools[key] for key in sorted(self._pools))

    def pools_without_peers(self, ledger: Ledger) -> tuple[str, ...]:
        """Return the managed pools that no VM of the set is in, or out of because of us."""
        if self.inventory_at is None:
            return ()
        membership = self.membership(ledger)
        recorded = {fold(m.pool_id) for entry in ledger.entries for m in entry.memberships}
        return tuple(
            pool.pool_id
            for pool in self.pools
            if fold(pool.pool_id) in self._configured - recorded
            and not any(membership.peer(name) for name in membership.vms(pool.pool_id))
        )

    def membership(self, ledger: Ledger) -> PoolMembership:
        """Return which VM is in which pool, as the planner sees it."""
        observed = Observation(
            document=None,
            vms=self.vms,
            former=self.former,
            nics=self.nics,
            pools=self.pools,
            presence=self.presence,
            rules=all_rules(self),
        )
        return pool_membership(observed, ledger, self._managed.values())

    def nic(self, nic_id: str) -> Nic | None:
        """Return the newest view of a NIC."""
        return self._nics.get(fold(nic_id))

    def put_vms(self, vms: Iterable[Vm], now: datetime) -> None:
        """Replace the set's VMs; a power state read singly stays if it is newer.

        A VM that is set aside keeps the NICs last seen: it can still be taken out by them.
        """
        listed: dict[str, Vm] = {}
        for vm in vms:
            known = self._vms.get(fold(vm.vm_id))
            if known is not None and vm.problem:
                listed[fold(vm.vm_id)] = replace(known, problem=vm.problem)
                continue
            newer = known is not None and (
                vm.power_observed_at is None
                or (known.power_observed_at or vm.power_observed_at) > vm.power_observed_at
            )
            if known is not None and newer:
                kept = replace(vm, power=known.power, power_observed_at=known.power_observed_at)
                listed[fold(vm.vm_id)] = kept
            else:
                listed[fold(vm.vm_id)] = vm
            if not vm.problem:
                self._note(vm.vm_id, Existence.PRESENT, now, Source.LIST)
        self._vms = listed
        self.inventory_at = now

    def put_power(self, vm: Vm, power: PowerState, now: datetime) -> None:
        """Store the power state of one VM, in the set or outside it."""
        existence = Existence.ABSENT if power is PowerState.GONE else Existence.PRESENT
        self._note(vm.vm_id, existence, now, Source.READ)
        group = self._vms if fold(vm.vm_id) in self._vms else self._former
        known = group.get(fold(vm.vm_id), vm)
        group[fold(vm.vm_id)] = replace(known, power=power, power_observed_at=now)

    def put_guid(self, vm_id: str, guid: str) -> None:
        """Store the identity of a VM of the set, or of one whose power state was read."""
        for group in (self._vms, self._former):
            known = group.get(fold(vm_id))
            if known is not None and guid:
                group[fold(vm_id)] = replace(known, guid=guid)

    def put_nic(self, nic: Nic) -> bool:
        """Store a NIC; return whether it was stored. An old reply is not."""
        if self._etags.is_old(nic.nic_id, nic.etag, nic.observed_at):
            return False
        self._etags.show(nic.nic_id, nic.etag, nic.observed_at)
        self._note(nic.nic_id, Existence.PRESENT, nic.observed_at, Source.READ)
        known = self.nic(nic.nic_id)
        since = (known.updating_since if known else None) or nic.observed_at
        since = min(since, nic.observed_at)
        self._nics[fold(nic.nic_id)] = replace(nic, updating_since=since if nic.updating else None)
        return True

    def put_nics(self, nics: Iterable[Nic]) -> None:
        """Store NICs from a list, unless a newer view is known."""
        for nic in nics:
            known = self.nic(nic.nic_id)
            if known is None or known.observed_at < nic.observed_at:
                self.put_nic(nic)

    def put_pool(self, pool: Pool) -> bool:
        """Store a pool, if it is managed; return whether the reply was not an old one."""
        if self._etags.is_old(pool.pool_id, pool.etag, pool.observed_at):
            return False
        if fold(pool.pool_id) in self._managed:
            self._etags.show(pool.pool_id, pool.etag, pool.observed_at)
            self._note(pool.pool_id, Existence.PRESENT, pool.observed_at, Source.LIST)
            self._pools[fold(pool.pool_id)] = pool
        return True

    def put_load_balancer(self, load_balancer: LoadBalancer) -> bool:
        """Store the managed pools of a load balancer; those that it does not list are absent.

        Returns whether it was stored. An old reply is not: no part of it proves anything.
        """
        pools, at = load_balancer.pools, load_balancer.observed_at
        if any(self._etags.is_old(pool.pool_id, pool.etag, at) for pool in pools):
            return False
        for pool in pools:
            self.put_pool(pool)
        self.rules[fold(load_balancer.load_balancer_id)] = load_balancer.rules
        listed = {fold(pool.pool_id) for pool in load_balancer.pools} | set(load_balancer.problems)
        for key, pool_id in self._managed.items():
            owner = fold(load_balancer_of(pool_id))
            if owner == fold(load_balancer.load_balancer_id) and key not in listed:
                self.mark_absent(pool_id, load_balancer.observed_at, source=Source.LIST)
        return True

    def pools_of(self, load_balancer_id: str) -> tuple[str, ...]:
        """Return the configured pools of a load balancer."""
        owner = fold(load_balancer_id)
        return tuple(each for each in self._configured if fold(load_balancer_of(each)) == owner)

    def mark_load_balancer_absent(self, load_balancer_id: str, now: datetime) -> None:
        """Mark the managed pools of a load balancer absent: the load balancer was not found."""
        for pool_id in self._managed.values():
            if fold(load_balancer_of(pool_id)) == fold(load_balancer_id):
                self.mark_absent(pool_id, now, source=Source.PARENT)

    def mark_absent(self, resource_id: str, now: datetime, *, source: Source = Source.READ) -> None:
        """Note a reply that did not show a NIC or pool."""
        self._note(resource_id, Existence.ABSENT, now, source)
        key = fold(resource_id)
        if LASTING.holds(self.presence[key]):
            self._pools.pop(key, None)
            self._nics.pop(key, None)

    def put_shared_pool(self, view: SharedPool) -> None:
        """Store what the sets state that share a pool."""
        self.shared_pools[fold(view.shares.pool_id)] = view

    def outdate_shared_pool(self, pool_id: str) -> None:
        """Have the blob of a shared pool read again: a write that was computed from it failed."""
        known = self.shared_pools.get(fold(pool_id))
        if known is not None:
            self.put_shared_pool(replace(known, observed_at=NEVER))

    def forget_nic_body(self, nic_id: str) -> None:
        """Drop the body from which a failed write was computed, so that the next write reads it."""
        known = self.nic(nic_id)
        if known is not None:
            self._nics[fold(nic_id)] = replace(known, body=None)

    def forget_nic(self, nic: Nic) -> None:
        """Drop a NIC, and what the replies prove about it and its VM."""
        for resource_id in (nic.nic_id, nic.vm_id):
            self.presence.pop(fold(resource_id), None)
        self._etags.forget(nic.nic_id)
        self._nics.pop(fold(nic.nic_id), None)

    def forget_future(self, latest: datetime) -> None:
        """Take what was seen after `latest` for never seen: the clock was wrong, and is not now.

        No view would replace it, and no reply would count, until that instant.
        """
        _outdate(self._nics, latest)
        _outdate(self._pools, latest)
        _outdate(self.health, latest)
        _outdate(self.shared_pools, latest)
        _outdate(self.reports, latest)
        for vms in (self._vms, self._former):
            for key, vm in vms.items():
                if vm.power_observed_at is not None and vm.power_observed_at > latest:
                    vms[key] = replace(vm, power_observed_at=None)
        for key, presence in tuple(self.presence.items()):
            if presence.seen_at is not None and presence.seen_at > latest:
                del self.presence[key]
        if self.inventory_at is not None and self.inventory_at > latest:
            self.inventory_at = NEVER

    def _note(self, resource_id: str, existence: Existence, at: datetime, source: Source) -> None:
        known = self.presence.get(fold(resource_id), UNKNOWN)
        self.presence[fold(resource_id)] = known.after(existence, at=at, source=source)


def forget_deleted_vms(
    cache: ResourceCache, ledger: Ledger, is_named: Callable[[str], bool], read_at: datetime
) -> None:
    """Drop what is known of deleted VMs, and what their agents reported.

    Args:
        cache: what is known, after an inventory that has read everything.
        ledger: what is recorded.
        is_named: returns whether an event, an entry or a drain request names a VM.
        read_at: when that inventory began.
    """
    vms = (*cache.vms, *cache.former)
    for nic in nics_of_deleted_vms(
        cache.nics, vms=vms, pools=cache.pools, ledger=ledger, is_named=is_named, read_at=read_at
    ):
        cache.forget_nic(nic)
    names = {fold(vm.name) for vm in vms} | {fold(entry.vm) for entry in ledger.entries}
    for name in [each for each in cache.reports if each not in names and not is_named(each)]:
        del cache.reports[name]


def all_rules(cache: ResourceCache) -> tuple[LoadBalancingRule, ...]:
    """Return the rules of all load balancers that were read."""
    return tuple(rule for key in sorted(cache.rules) for rule in cache.rules[key])


def _outdate(views: dict[str, View], latest: datetime) -> None:
    for key, view in views.items():
        if view.observed_at > latest:
            views[key] = replace(view, observed_at=NEVER)
