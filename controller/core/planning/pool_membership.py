"""The only join of VMs, NICs and pools: which VM is in which pool, by the newest view of each.

A NIC lists the pools it is in, a load balancer lists the members of its pools. Either view may be
older than the other, and the newer one counts. The planner, the status page, the metrics, the
doctor and `init` all ask here, so that they cannot disagree.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from controller.core.azure_names import fold, fold_address, nic_of
from controller.core.ledger import Ledger
from controller.core.observation import Observation
from controller.core.resources import (
    NOTHING_EXTRA,
    AddressMembership,
    AdminMembership,
    Membership,
    MembershipKey,
    Nic,
    NicMembership,
    Pool,
    PoolMember,
    Vm,
    member_key,
)

Rotation = Mapping[str, tuple[Membership, ...]]
"""Memberships by folded name of the VM."""
Translation = Callable[[Observation, Ledger, Rotation], Rotation]
"""What the mechanisms make of the join (`Mechanisms.in_rotation`)."""
NOTHING_RECORDED = Ledger()


def as_joined(_observed: Observation, _ledger: Ledger, joined: Rotation) -> Rotation:
    """Return the join as it is: every VM in a pool is in rotation."""
    return joined


class PoolMembership:
    """Questions about one observation. Built once, never changed.

    Args:
        observed: the newest views.
        pool_ids: the pools that matter: the managed ones, and those the ledger names.
        vms: every VM that matters: the peers, and those the ledger names. NICs and addresses of
            any other machine count as members, and are never changed.
        addresses: the owner of each address according to the ledger, because a deleted VM has no
            NIC to read.
        translate: what the mechanisms make of the memberships of the VMs.
        ledger: what is recorded, for the mechanisms.
        down: members that the load balancer reports as down.
    """

    @classmethod
    def of(
        cls,
        observed: Observation,
        ledger: Ledger,
        pool_ids: Iterable[str],
        *,
        translate: Translation = as_joined,
        down: frozenset[MembershipKey] = frozenset(),
    ) -> "PoolMembership":
        """Return the join of what was observed with what the ledger records.

        Args:
            observed: the newest views.
            ledger: names VMs, pools and addresses that may not be in the set any more.
            pool_ids: the managed pools.
            translate: what the mechanisms make of the memberships of the VMs.
            down: members that the load balancer reports as down.
        """
        owners = {
            fold_address(membership.ip_address): fold(entry.vm)
            for entry in ledger.entries
            for membership in (*entry.memberships, *entry.lost)
            if isinstance(membership, AddressMembership | AdminMembership) and membership.ip_address
        }
        pools, vms = (*pool_ids, *ledger.pool_ids), tracked_vms(observed, ledger)
        return cls(observed, pools, vms, owners, translate, ledger=ledger, down=down)

    def __init__(
        self,
        observed: Observation,
        pool_ids: Iterable[str],
        vms: Iterable[Vm] = (),
        addresses: Mapping[str, str] = NOTHING_EXTRA,
        translate: Translation = as_joined,
        *,
        ledger: Ledger = NOTHING_RECORDED,
        down: frozenset[MembershipKey] = frozenset(),
    ) -> None:
        self._pools = {fold(pool.pool_id): pool for pool in observed.pools}
        self._relevant = {fold(pool_id) for pool_id in pool_ids}
        self._nics = {fold(nic.nic_id): nic for nic in observed.nics}
        self._peers = {fold(vm.name): vm for vm in observed.vms}
        self._blind = any(vm.problem for vm in observed.vms) or any(
            fold(nic_id) not in self._nics and not observed.missing(nic_id)
            for vm in observed.vms
            for nic_id in vm.nic_ids
        )
        """Whether some NIC of the set was never seen: an unknown address may belong to it."""
        self._vm_of_nic: dict[str, str] = {}
        self._vm_of_address = dict(addresses)
        self._find_owners((*observed.vms, *vms))
        self._addresses: dict[tuple[str, str], AddressMembership] = {}
        for key, pool in self._pools.items():
            for address in (member.address for member in pool.members):
                if address is not None:
                    self._addresses.setdefault((key, fold(address.name)), address)
        self._keys: dict[str, set[MembershipKey]] = {}
        """What is in each pool, of VMs and of other machines."""
        self._members: dict[str, set[str]] = {}
        """Folded names of VMs by pool."""
        self._healthy: dict[str, set[str]] = {}
        """The same, without those that are in the pool only by a NIC that has failed, or as members
        that are down."""
        self._down = down.union(self._admin_down())
        """Members that get no new connections."""
        joined = self._join_vms()
        for name, memberships in joined.items():
            for membership in memberships:
                self._members.setdefault(fold(membership.pool_id), set()).add(name)
        self._inside = translate(observed, ledger, joined)
        for name, memberships in self._inside.items():
            for membership in memberships:
                pool_key = fold(membership.pool_id)
                self._keys.setdefault(pool_key, set()).add(membership.key)
                if member_key(membership) not in self._down and not self._failed(membership):
                    self._healthy.setdefault(pool_key, set()).add(name)

    def _find_owners(self, vms: Iterable[Vm]) -> None:
        by_id: dict[str, str] = {}
        for vm in vms:
            by_id.setdefault(fold(vm.vm_id), fold(vm.name))
            for nic_id in vm.nic_ids:
                self._vm_of_nic.setdefault(fold(nic_id), fold(vm.name))
        for key, nic in self._nics.items():
            owner = self._vm_of_nic.get(key) or by_id.get(fold(nic.vm_id))
            if owner is None:
                continue
            self._vm_of_nic.setdefault(key, owner)
            for ip_configuration in nic.ip_configurations:
                if ip_configuration.private_ip:
                    self._vm_of_address[fold_address(ip_configuration.private_ip)] = owner

    def _join_vms(self) -> Rotation:
        joined: dict[str, list[Membership]] = {}
        for owner, membership in self._join():
            if owner is None:
                self._keys.setdefault(fold(membership.pool_id), set()).add(membership.key)
            else:
                joined.setdefault(owner, []).append(membership)
        return {name: tuple(each) for name, each in joined.items()}

    def nic(self, nic_id: str) -> Nic | None:
        """Return the newest view of a NIC."""
        return self._nics.get(fold(nic_id))

    def pool(self, pool_id: str) -> Pool | None:
        """Return the newest view of a pool."""
        return self._pools.get(fold(pool_id))

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The newest view of every pool."""
        return tuple(self._pools.values())

    def peer(self, name: str) -> Vm | None:
        """Return the VM of the set with this name."""
        return self._peers.get(fold(name))

    def memberships(self, vm: Vm) -> tuple[Membership, ...]:
        """Return in which pools a VM is now."""
        return self._inside.get(fold(vm.name), ())

    def is_member(self, membership: Membership) -> bool:
        """Return whether this very membership exists now, whichever machine the NIC belongs to."""
        return membership.key in self._keys.get(fold(membership.pool_id), ())

    def keys(self, pool_id: str) -> frozenset[MembershipKey]:
        """Return the memberships that a pool has now, those of other machines included."""
        return frozenset(self._keys.get(fold(pool_id), ()))

    def vms(self, pool_id: str) -> frozenset[str]:
        """Return the VMs in a pool, healthy or not: folded names."""
        return frozenset(self._members.get(fold(pool_id), ()))

    def members(self, pool_id: str) -> set[str]:
        """Return what is in a pool, healthy or not: VMs by folded name, other machines by id."""
        wanted = fold(pool_id)
        return self._members.get(wanted, set()) | self.other_machines(pool_id)

    def healthy_members(self, pool_id: str, unhealthy: frozenset[str]) -> set[str]:
        """Return what serves in a pool: VMs by folded name, other machines by NIC id or address.

        A VM counts once however many memberships it has: what the floor protects is machines.
        VMs in `unhealthy`, those with a failed NIC, and members that are down do not count; nor
        does an address that may belong to such a VM.
        """
        wanted = fold(pool_id)
        others = self._other_machines(wanted, addresses=not self._blind, serving=True)
        return (self._healthy.get(wanted, set()) | others) - unhealthy

    def other_machines(self, pool_id: str) -> set[str]:
        """Return the machines in a pool that are not of this set: folded NIC ids or addresses."""
        return self._other_machines(fold(pool_id), addresses=True)

    def address_called(self, pool_id: str, name: str) -> AddressMembership | None:
        """Return the address that a pool lists under this name."""
        return self._addresses.get((fold(pool_id), fold(name)))

    def _other_machines(self, pool_key: str, *, addresses: bool, serving: bool = False) -> set[str]:
        names: set[str] = set()
        pool = self._pools.get(pool_key)
        for member in pool.members if pool else ():
            if serving and key_in_pool(pool_key, member) in self._down:
                continue
            if member.address is not None:
                address = fold_address(member.address.ip_address)
                if addresses and address not in self._vm_of_address:
                    names.add(address)
            else:
                nic_id, _ = nic_of(member.ip_configuration_id)
                if fold(nic_id) not in self._vm_of_nic:
                    names.add(fold(nic_id))
        return names

    def _admin_down(self) -> Iterator[MembershipKey]:
        """Yield the keys of the members whose adminState is Down."""
        for pool in self._pools.values():
            for member in pool.members:
                if member.admin_down:
                    yield key_in_pool(fold(pool.pool_id), member)

    def _failed(self, membership: Membership) -> bool:
        if not isinstance(membership, NicMembership | AdminMembership):
            return False
        nic = self.nic(membership.nic_id)
        return nic is not None and nic.failed

    def _join(self) -> Iterator[tuple[str | None, Membership]]:
        for _, nic in sorted(self._nics.items()):
            for membership in self._by_nic(nic):
                yield self._vm_of_nic.get(fold(membership.nic_id)), membership
        for key in sorted(self._relevant & self._pools.keys()):
            pool = self._pools[key]
            for member in pool.members:
                if member.address is not None:
                    address = fold_address(member.address.ip_address)
                    yield self._vm_of_address.get(address), member.address
                    continue
                nic_id, name = nic_of(member.ip_configuration_id)
                view = self.nic(nic_id)
                if view is None or view.observed_at < pool.observed_at:
                    membership = self._by_pool(pool, nic_id, name)
                    yield self._vm_of_nic.get(fold(membership.nic_id)), membership

    def _by_nic(self, nic: Nic) -> Iterator[NicMembership]:
        """Yield the pools that the NIC lists, unless the view of the pool is newer."""
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


def machine_of(membership: Membership) -> str:
    """Return how a pool lists the machine of a membership: folded NIC id, or folded address."""
    if isinstance(membership, AdminMembership):
        return machine_of(membership.member)
    if isinstance(membership, AddressMembership):
        return fold_address(membership.ip_address)
    return fold(membership.nic_id) if isinstance(membership, NicMembership) else ""


def key_in_pool(pool_key: str, member: PoolMember) -> MembershipKey:
    """Return the key of a member as the load balancer lists it."""
    if member.address is not None:
        return member.address.key
    nic_id, name = nic_of(member.ip_configuration_id)
    return (pool_key, fold(nic_id), fold(name))


def shown_member(pool: Pool | None, membership: Membership) -> PoolMember | None:
    """Return how a view of its pool lists a member; None if it does not."""
    key = member_key(membership)
    members = pool.members if pool is not None else ()
    return next((m for m in members if key_in_pool(key[0], m) == key), None)


def tracked_vms(observed: Observation, ledger: Ledger) -> tuple[Vm, ...]:
    """Return every peer, and every VM of the ledger that is no peer any more, by name."""
    vms = {fold(vm.name): vm for vm in (*observed.former, *observed.vms)}
    for entry in ledger.entries:
        absent = Vm(name=entry.vm, vm_id=entry.vm_id, nic_ids=())
        vm = vms.get(fold(entry.vm), absent)
        known = {fold(nic_id) for nic_id in vm.nic_ids}
        recorded = {
            fold(m.nic_id): m.nic_id
            for m in entry.memberships
            if isinstance(m, NicMembership | AdminMembership) and m.nic_id
        }
        added = (nic_id for key, nic_id in recorded.items() if key not in known)
        vms[fold(entry.vm)] = replace(vm, nic_ids=(*vm.nic_ids, *added))
    return tuple(vms[name] for name in sorted(vms))
