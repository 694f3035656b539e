"""The join of VMs, NICs and pools: who stands in which pool, by the newest view of each.

A NIC says in which pools it is, a load balancer says who its members are. Either may be older than
the other, and the newer one is believed.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable, Iterator, Mapping

from controller.core.model import (
    NOTHING_EXTRA,
    AddressMembership,
    Key,
    Membership,
    Nic,
    NicMembership,
    Observation,
    Pool,
    Vm,
    fold,
    fold_address,
    nic_of,
)


class Inventory:
    """Look-ups over one observation. Built once per pass, never changed.

    Args:
        observed: the newest views.
        pool_ids: the pools that matter: the managed ones, and those the ledger names.
        vms: every VM that matters: the peers, and those the ledger names. NICs and addresses of
            any other VM are strangers, which serve but are never touched.
        addresses: whose addresses are, by the ledger: the NIC of a deleted VM tells no more.
    """

    def __init__(
        self,
        observed: Observation,
        pool_ids: Iterable[str],
        vms: Iterable[Vm] = (),
        addresses: Mapping[str, str] = NOTHING_EXTRA,
    ) -> None:
        self._pools = {fold(pool.pool_id): pool for pool in observed.pools}
        self._relevant = {fold(pool_id) for pool_id in pool_ids}
        self._nics = {fold(nic.nic_id): nic for nic in observed.nics}
        self._peers = {fold(vm.name): vm for vm in observed.vms}
        self._blind = any(
            fold(nic_id) not in self._nics and fold(nic_id) not in observed.missing
            for vm in observed.vms
            for nic_id in vm.nic_ids
        )
        """Whether some NIC of the set was never seen: an address may be its, for all we know."""
        self._vm_of_nic: dict[str, str] = {}
        by_id: dict[str, str] = {}
        for vm in (*observed.vms, *vms):
            by_id.setdefault(fold(vm.vm_id), fold(vm.name))
            for nic_id in vm.nic_ids:
                self._vm_of_nic.setdefault(fold(nic_id), fold(vm.name))
        self._vm_of_address = dict(addresses)
        for key, nic in self._nics.items():
            owner = self._vm_of_nic.get(key) or by_id.get(fold(nic.vm_id))
            if owner is None:
                continue
            self._vm_of_nic.setdefault(key, owner)
            for ip_configuration in nic.ip_configurations:
                if ip_configuration.private_ip:
                    self._vm_of_address[fold_address(ip_configuration.private_ip)] = owner
        self._inside: dict[str, list[Membership]] = {}
        self._standing: set[Key] = set()
        for membership in self._join():
            self._standing.add(membership.key)
            owner = self._owner(membership)
            if owner is not None:
                self._inside.setdefault(owner, []).append(membership)

    def nic(self, nic_id: str) -> Nic | None:
        """Return the newest view of a NIC."""
        return self._nics.get(fold(nic_id))

    def pool(self, pool_id: str) -> Pool | None:
        """Return the newest view of a pool."""
        return self._pools.get(fold(pool_id))

    def peer(self, name: str) -> Vm | None:
        """Return the VM of the set with this name."""
        return self._peers.get(fold(name))

    def memberships(self, vm: Vm) -> tuple[Membership, ...]:
        """Return where a VM stands now."""
        return tuple(self._inside.get(fold(vm.name), ()))

    def stands(self, membership: Membership) -> bool:
        """Tell whether this very membership is there now, whoever owns the NIC."""
        return membership.key in self._standing

    def members(self, pool_id: str) -> set[str]:
        """Return who is in a pool, healthy or not: folded names of VMs, ids of strangers."""
        wanted = fold(pool_id)
        names = {
            name
            for name, memberships in self._inside.items()
            if any(fold(membership.pool_id) == wanted for membership in memberships)
        }
        return names | self._strangers(wanted, addresses=True)

    def serving(self, pool_id: str, unhealthy: frozenset[str]) -> set[str]:
        """Return who serves in a pool: folded names of VMs, NIC ids or addresses of strangers.

        A VM counts once however many memberships it has: what the floor protects is machines.
        VMs in `unhealthy`, and those with a failed NIC, do not count; nor does an address of which
        nobody can tell whose it is.
        """
        wanted = fold(pool_id)
        names = {
            name
            for name, memberships in self._inside.items()
            if any(fold(m.pool_id) == wanted and self._usable(m) for m in memberships)
        }
        strangers = self._strangers(wanted, addresses=not self._blind)
        return (names | strangers) - unhealthy

    def _strangers(self, pool_key: str, *, addresses: bool) -> set[str]:
        names: set[str] = set()
        pool = self._pools.get(pool_key)
        for member in pool.members if pool else ():
            if member.address is not None:
                address = fold_address(member.address.ip_address)
                if addresses and address not in self._vm_of_address:
                    names.add(address)
            else:
                nic_id, _ = nic_of(member.ip_configuration_id)
                if fold(nic_id) not in self._vm_of_nic:
                    names.add(fold(nic_id))
        return names

    def _usable(self, membership: Membership) -> bool:
        if isinstance(membership, AddressMembership):
            return True
        nic = self.nic(membership.nic_id)
        return nic is None or not nic.failed

    def _owner(self, membership: Membership) -> str | None:
        match membership:
            case NicMembership():
                return self._vm_of_nic.get(fold(membership.nic_id))
            case AddressMembership():
                return self._vm_of_address.get(fold_address(membership.ip_address))

    def _join(self) -> Iterator[Membership]:
        for _, nic in sorted(self._nics.items()):
            yield from self._by_nic(nic)
        for key in sorted(self._relevant & self._pools.keys()):
            pool = self._pools[key]
            for member in pool.members:
                if member.address is not None:
                    yield member.address
                    continue
                nic_id, name = nic_of(member.ip_configuration_id)
                view = self.nic(nic_id)
                if view is None or view.observed_at < pool.observed_at:
                    yield self._by_pool(pool, nic_id, name)

    def _by_nic(self, nic: Nic) -> Iterator[NicMembership]:
        """Yield what the NIC says of pools that were not looked at after it."""
        for ip_configuration in nic.ip_configurations:
            for position, pool_id in enumerate(ip_configuration.pool_ids):
                pool = self.pool(pool_id)
                newer = pool is None or nic.observed_at >= pool.observed_at
                if fold(pool_id) in self._relevant and newer:
                    yield NicMembership(
                        pool_id=pool_id,
                        nic_id=nic.nic_id,
                        ip_configuration=ip_configuration.name,
                        position=position,
                    )

    def _by_pool(self, pool: Pool, nic_id: str, name: str) -> NicMembership:
        """Return the membership a pool lists, in the NIC's own spelling where that is known."""
        nic = self.nic(nic_id)
        for ip_configuration in nic.ip_configurations if nic else ():
            if fold(ip_configuration.name) == fold(name):
                for position, own in enumerate(ip_configuration.pool_ids):
                    if fold(own) == fold(pool.pool_id):
                        return NicMembership(
                            pool_id=own,
                            nic_id=nic.nic_id if nic else nic_id,
                            ip_configuration=ip_configuration.name,
                            position=position,
                        )
        return NicMembership(pool_id=pool.pool_id, nic_id=nic_id, ip_configuration=name)
