"""What one agent knows of the set: the newest view of every VM, NIC and pool.

Kept in memory only, and lost with the process: everything a successor must know is in the ledger.
One 404 is no proof of deletion (Azure replicas lag, a resource group can vanish for seconds), and
what is missing is struck from the ledger: an id counts as missing when it was absent for minutes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from controller.clock import Clock
from controller.core.ledger import Ledger
from controller.core.model import (
    Deferral,
    LoadBalancer,
    Nic,
    Pool,
    PowerState,
    Vm,
    fold,
    fold_address,
    load_balancer_of,
    nic_of,
)

CONFIRM_AFTER = timedelta(minutes=2)


class Views:
    """The newest views, by folded id."""

    def __init__(self, pool_ids: Iterable[str]) -> None:
        self._managed = {fold(pool_id): pool_id for pool_id in pool_ids}
        self._configured = frozenset(self._managed)
        self._vms: dict[str, Vm] = {}
        self._former: dict[str, Vm] = {}
        self._nics: dict[str, Nic] = {}
        self._pools: dict[str, Pool] = {}
        self._absent_since: dict[str, datetime] = {}
        self.missing: set[str] = set()
        self.inventory_at: datetime | None = None

    def watch(self, pool_ids: Iterable[str]) -> None:
        """Keep views of these pools too: the ledger may name one that is not managed any more."""
        for pool_id in pool_ids:
            self._managed.setdefault(fold(pool_id), pool_id)

    @property
    def vms(self) -> tuple[Vm, ...]:
        """The VMs of the set."""
        return tuple(self._vms[key] for key in sorted(self._vms))

    @property
    def former(self) -> tuple[Vm, ...]:
        """VMs outside the set whose power was asked for."""
        return tuple(self._former[key] for key in sorted(self._former))

    @property
    def nics(self) -> tuple[Nic, ...]:
        """The NICs seen."""
        return tuple(self._nics[key] for key in sorted(self._nics))

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The managed pools that exist."""
        return tuple(self._pools[key] for key in sorted(self._pools))

    def pools_without_peers(self, ledger: Ledger) -> tuple[str, ...]:
        """Return the managed pools that no VM of the set is in, or out of because of us."""
        if self.inventory_at is None:
            return ()
        nics = {fold(nic_id) for vm in self.vms for nic_id in vm.nic_ids}
        addresses = {
            fold_address(configuration.private_ip)
            for key in nics & self._nics.keys()
            for configuration in self._nics[key].ip_configurations
            if configuration.private_ip
        }
        recorded = {fold(m.pool_id) for entry in ledger.entries for m in entry.memberships}
        return tuple(
            pool.pool_id
            for pool in self.pools
            if fold(pool.pool_id) in self._configured - recorded
            and not any(
                fold_address(member.address.ip_address) in addresses
                if member.address is not None
                else fold(nic_of(member.ip_configuration_id)[0]) in nics
                for member in pool.members
            )
        )

    def nic(self, nic_id: str) -> Nic | None:
        """Return the newest view of a NIC."""
        return self._nics.get(fold(nic_id))

    def saw_vms(self, vms: Iterable[Vm], now: datetime) -> None:
        """Replace the set's VMs; a power state read singly stays if it is newer."""
        listed: dict[str, Vm] = {}
        for vm in vms:
            known = self._vms.get(fold(vm.vm_id))
            newer = known is not None and (
                vm.power_observed_at is None
                or (known.power_observed_at or vm.power_observed_at) > vm.power_observed_at
            )
            if known is not None and newer:
                kept = replace(vm, power=known.power, power_observed_at=known.power_observed_at)
                listed[fold(vm.vm_id)] = kept
            else:
                listed[fold(vm.vm_id)] = vm
            self._exists(vm.vm_id)
        self._vms = listed
        self.inventory_at = now

    def saw_power(self, vm: Vm, power: PowerState, now: datetime) -> None:
        """Note the power state of one VM, in the set or out of it."""
        if power is PowerState.GONE:
            self.missing.add(fold(vm.vm_id))
        else:
            self._exists(vm.vm_id)
        home = self._vms if fold(vm.vm_id) in self._vms else self._former
        known = home.get(fold(vm.vm_id), vm)
        home[fold(vm.vm_id)] = replace(known, power=power, power_observed_at=now)

    def saw_nic(self, nic: Nic) -> None:
        """Note a NIC."""
        self._exists(nic.nic_id)
        self._nics[fold(nic.nic_id)] = nic

    def saw_nics(self, nics: Iterable[Nic]) -> None:
        """Note NICs from a list, unless a newer view is known."""
        for nic in nics:
            known = self.nic(nic.nic_id)
            if known is None or known.observed_at < nic.observed_at:
                self.saw_nic(nic)

    def saw_pool(self, pool: Pool) -> None:
        """Note a pool, if it is managed."""
        if fold(pool.pool_id) in self._managed:
            self._exists(pool.pool_id)
            self._pools[fold(pool.pool_id)] = pool

    def saw_load_balancer(self, load_balancer: LoadBalancer) -> None:
        """Note every managed pool of a load balancer, and which of them are not there."""
        for pool in load_balancer.pools:
            self.saw_pool(pool)
        listed = {fold(pool.pool_id) for pool in load_balancer.pools}
        for key, pool_id in self._managed.items():
            owner = fold(load_balancer_of(pool_id))
            if owner == fold(load_balancer.load_balancer_id) and key not in listed:
                self.did_not_see(pool_id, load_balancer.observed_at)

    def lost_load_balancer(self, load_balancer_id: str, now: datetime) -> None:
        """Note a 404 for a whole load balancer."""
        for pool_id in self._managed.values():
            if fold(load_balancer_of(pool_id)) == fold(load_balancer_id):
                self.did_not_see(pool_id, now)

    def did_not_see(self, resource_id: str, now: datetime) -> None:
        """Note a 404, or an absence from a list that should have shown it."""
        key = fold(resource_id)
        since = self._absent_since.setdefault(key, now)
        if now - since >= CONFIRM_AFTER:
            self.missing.add(key)
            self._pools.pop(key, None)
            self._nics.pop(key, None)

    @property
    def absent(self) -> frozenset[str]:
        """What the newest reply about it did not show; one reply may be wrong."""
        return frozenset(self._absent_since)

    def forget_nic_body(self, nic_id: str) -> None:
        """Drop a view on which a conditional write has failed, so that the next one reads."""
        known = self.nic(nic_id)
        if known is not None:
            self._nics[fold(nic_id)] = replace(known, body=None)

    def _exists(self, resource_id: str) -> None:
        self.missing.discard(fold(resource_id))
        self._absent_since.pop(fold(resource_id), None)


class Deferrals:
    """Targets that failed, when to try them again, and how often they failed in a row.

    Waiting is counted on the monotonic clock: a wall clock that is set right would make it shorter.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: dict[str, tuple[float, Deferral]] = {}
        self._attempts: dict[str, int] = {}

    @property
    def active(self) -> Mapping[str, Deferral]:
        """Deferral by target, of all that are not due again."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        self._due = {target: each for target, each in self._due.items() if each[0] > monotonic}
        return {
            target: replace(deferral, until=now + timedelta(seconds=due - monotonic))
            for target, (due, deferral) in self._due.items()
        }

    @property
    def failures(self) -> Mapping[str, int]:
        """Failures in a row, by key."""
        return dict(self._attempts)

    def attempts(self, target: str) -> int:
        """Return how often the target failed since it last succeeded, this time included."""
        self._attempts[target] = self._attempts.get(target, 0) + 1
        return self._attempts[target]

    def defer(self, target: str, *, wait_s: float, reason: str, message: str = "") -> None:
        """Leave the target alone for so long."""
        deferral = Deferral(
            until=self._clock.now(),
            reason=reason,
            message=message,
            attempts=self._attempts.get(target, 0),
        )
        self._due[target] = (self._clock.monotonic() + wait_s, deferral)

    def clear(self, target: str) -> None:
        """The target succeeded."""
        self._due.pop(target, None)
        self._attempts.pop(target, None)
