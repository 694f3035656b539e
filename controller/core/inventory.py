"""The join of VMs, NICs and pools: who stands in which pool, by the newest view of each.

A NIC says in which pools it is, a load balancer says who its members are. Either may be older than
the other, and the newer one is believed.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable

from controller.core.model import (
    AddressMembership,
    Membership,
    Nic,
    NicMembership,
    Observation,
    Pool,
    Vm,
    fold,
    nic_of,
)


class Inventory:
    """Look-ups over one observation. Built once per pass, never changed."""

    def __init__(self, observed: Observation, managed_pools: Iterable[str]) -> None:
        self._pools = {fold(pool.pool_id): pool for pool in observed.pools}
        self._managed = tuple(fold(pool_id) for pool_id in managed_pools)
        self._nics = {fold(nic.nic_id): nic for nic in observed.nics}
        self._peers = {fold(vm.name): vm for vm in observed.vms}
        self._vm_of_nic = {
            fold(nic_id): fold(vm.name) for vm in observed.vms for nic_id in vm.nic_ids
        }
        by_id = {fold(vm.vm_id): fold(vm.name) for vm in observed.vms}
        self._vm_of_address: dict[str, str] = {}
        for key, nic in self._nics.items():
            owner = self._vm_of_nic.get(key) or by_id.get(fold(nic.vm_id))
            if owner is None:
                continue
            self._vm_of_nic.setdefault(key, owner)
            for ip_configuration in nic.ip_configurations:
                if ip_configuration.private_ip:
                    self._vm_of_address[fold(ip_configuration.private_ip)] = owner
        self._inside = self._join()

    def nic(self, nic_id: str) -> Nic | None:
        """Return the newest view of a NIC."""
        return self._nics.get(fold(nic_id))

    def pool(self, pool_id: str) -> Pool | None:
        """Return the newest view of a managed pool."""
        return self._pools.get(fold(pool_id))

    def peer(self, name: str) -> Vm | None:
        """Return the VM of the set with this name."""
        return self._peers.get(fold(name))

    def memberships(self, vm: Vm) -> tuple[Membership, ...]:
        """Return where a VM stands in managed pools now."""
        return tuple(self._inside.get(fold(vm.name), ()))

    def serving(self, pool_id: str, unhealthy: frozenset[str]) -> set[str]:
        """Return who serves in a pool: folded names of peers, ids or addresses of others.

        A VM counts once however many memberships it has: what the floor protects is machines.
        Peers in `unhealthy`, and those with a failed NIC, do not count.
        """
        wanted = fold(pool_id)
        names = {
            name
            for name, memberships in self._inside.items()
            if name not in unhealthy
            and any(fold(m.pool_id) == wanted and self._usable(m) for m in memberships)
        }
        pool = self._pools.get(wanted)
        for member in pool.members if pool else ():
            if member.address is not None:
                address = fold(member.address.ip_address)
                if address not in self._vm_of_address:
                    names.add(address)
            else:
                nic_id, _ = nic_of(member.ip_configuration_id)
                if fold(nic_id) not in self._vm_of_nic:
                    names.add(fold(member.ip_configuration_id))
        return names

    def _usable(self, membership: Membership) -> bool:
        if isinstance(membership, AddressMembership):
            return True
        nic = self.nic(membership.nic_id)
        return nic is None or not nic.failed

    def _join(self) -> dict[str, list[Membership]]:
        inside: dict[str, list[Membership]] = {}
        for key, nic in sorted(self._nics.items()):
            owner = self._vm_of_nic.get(key)
            if owner is not None:
                inside.setdefault(owner, []).extend(self._by_nic(nic))
        for pool_key in self._managed:
            pool = self._pools.get(pool_key)
            for member in pool.members if pool else ():
                if member.address is not None:
                    owner = self._vm_of_address.get(fold(member.address.ip_address))
                    found: Membership = member.address
                else:
                    nic_id, name = nic_of(member.ip_configuration_id)
                    owner = self._vm_of_nic.get(fold(nic_id))
                    found = self._by_pool(pool, nic_id, name)
                    view = self._nics.get(fold(nic_id))
                    if pool and view and view.observed_at >= pool.observed_at:
                        continue  # the NIC has said it itself, later
                if owner is not None:
                    inside.setdefault(owner, []).append(found)
        return inside

    def _by_nic(self, nic: Nic) -> list[Membership]:
        """Return what the NIC says of pools that were not looked at after it."""
        found: list[Membership] = []
        for ip_configuration in nic.ip_configurations:
            for position, pool_id in enumerate(ip_configuration.pool_ids):
                key = fold(pool_id)
                pool = self._pools.get(key)
                if key in self._managed and (pool is None or nic.observed_at >= pool.observed_at):
                    found.append(
                        NicMembership(
                            pool_id=pool_id,
                            nic_id=nic.nic_id,
                            ip_configuration=ip_configuration.name,
                            position=position,
                        )
                    )
        return found

    def _by_pool(self, pool: Pool | None, nic_id: str, name: str) -> NicMembership:
        """Return the membership a pool lists, in the NIC's own spelling where that is known."""
        pool_id = pool.pool_id if pool else ""
        nic = self._nics.get(fold(nic_id))
        for ip_configuration in nic.ip_configurations if nic else ():
            if fold(ip_configuration.name) == fold(name):
                for position, own in enumerate(ip_configuration.pool_ids):
                    if fold(own) == fold(pool_id):
                        return NicMembership(
                            pool_id=own,
                            nic_id=nic_id if nic is None else nic.nic_id,
                            ip_configuration=ip_configuration.name,
                            position=position,
                        )
        return NicMembership(pool_id=pool_id, nic_id=nic_id, ip_configuration=name)
