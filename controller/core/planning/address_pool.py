"""Mechanism: an address leaves an IP-based pool, by a PUT of the pool.

One write covers all affected addresses of the pool, whichever VMs they belong to. A load balancer
takes one write at a time: a second one cancels the first, so the load balancer is the target.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from controller.core.action_keys import ActionKey, action_key
from controller.core.azure_names import fold, fold_address, load_balancer_of, short
from controller.core.ledger import Entry, Ledger
from controller.core.observation import Observation
from controller.core.planning.actions import Read, ReadLoadBalancer, ReadNic
from controller.core.planning.mechanism import (
    VM_AGAIN,
    Proof,
    created_again,
    nics_show_pool,
    removal_over_at,
    untouched_since,
)
from controller.core.planning.pool_membership import Rotation
from controller.core.planning.views import Views
from controller.core.policy import Policy
from controller.core.resources import AddressMembership, Membership, Vm


@dataclass(frozen=True, slots=True)
class AddressPool:
    """Memberships of addresses in IP-based pools."""

    name: str = "address"
    membership_type: type[AddressMembership] = AddressMembership
    shared: bool = True
    keeps_body: bool = False

    def resource_id(self, membership: AddressMembership) -> str:
        """Return the id of the pool."""
        return membership.pool_id

    def target(self, membership: AddressMembership) -> ActionKey:
        """Return what a write occupies: the load balancer."""
        return action_key("write", load_balancer_of(membership.pool_id))

    def key(self, membership: AddressMembership, *, restore: bool) -> ActionKey:
        """Return what back-off is kept by: the pool and the direction."""
        return action_key("restore" if restore else "remove", membership.pool_id)

    def shown_by(self, membership: AddressMembership) -> Read:
        """Return the read of the load balancer."""
        return ReadLoadBalancer(load_balancer_of(membership.pool_id))

    def refers_to(self, membership: AddressMembership) -> Iterator[Read]:
        """Yield nothing: a pool refers to no other resource."""
        return iter(())

    def label(self, memberships: tuple[AddressMembership, ...]) -> str:
        """Return the addresses and the pool."""
        addresses = ", ".join(membership.ip_address for membership in memberships)
        return f"{addresses} ({short(memberships[0].pool_id)})"

    def under(self, policy: Policy) -> "AddressPool":
        """Return the same: where no other mechanism is chosen, this one serves."""
        return self

    def in_rotation(self, observed: Observation, ledger: Ledger, joined: Rotation) -> Rotation:
        """Return what was joined: it comes from the pools."""
        return joined

    def to_record(self, views: Views, membership: Membership) -> Membership | None:
        """Return the membership: its body has the adminState."""
        return membership

    def unseen(self, views: Views, vm: Vm) -> Iterator[Read]:
        """Yield a read for every managed pool that was never seen."""
        for pool_id in views.policy.pools:
            if views.pool(pool_id) is None and not views.missing(pool_id):
                yield ReadLoadBalancer(load_balancer_of(pool_id))

    def old_view(self, views: Views, membership: AddressMembership) -> Read | None:
        """Return the read of the pool; None if its view is fresh."""
        if views.is_old(views.pool(membership.pool_id)):
            return ReadLoadBalancer(load_balancer_of(membership.pool_id))
        return None

    def reads_to_record(self, views: Views, vm: Vm) -> Iterator[Read]:
        """Yield nothing: the planner reads every managed pool before it records a VM."""
        return iter(())

    def is_failed(self, views: Views, membership: AddressMembership) -> bool:
        """Return whether the pool's provisioning state is Failed."""
        pool = views.pool(membership.pool_id)
        return pool is not None and pool.failed

    def is_over_due(self, views: Views, membership: AddressMembership) -> bool:
        """Return False: in any state, a pool proves what it shows some time after a write."""
        return False

    def proofs_out(self, views: Views, vm: Vm, entry: Entry) -> Iterator[Proof]:
        """Yield the views of all managed pools; they list NICs as well as addresses.

        A pool of addresses shows a write before it has taken effect, so absence from one is proven
        only by the end of the removal.
        """
        recorded = {fold(m.pool_id) for m in _of(entry)}
        for pool_id in views.policy.pools:
            if views.missing(pool_id):
                continue
            since = untouched_since(entry)
            if fold(pool_id) in recorded:
                since = views.conclusive_from(
                    pool_id, since=entry.restoring_at or entry.recorded_at
                )
                since = max(since, entry.recorded_at)
            yield _proof(views, pool_id, since)

    def rotation_views(
        self, views: Views, vm: Vm, entry: Entry, *, since: datetime
    ) -> Iterator[Proof]:
        """Yield the views of all managed pools; they list NICs as well as addresses.

        Where a pool lists a NIC that does not list the pool, the NIC is newer: Azure can show a NIC
        as a failed write wanted it. The pool has to be read again, and agree.
        """
        for pool_id in views.policy.pools:
            by_nics = nics_show_pool(views, entry, pool_id, since=since)
            if not by_nics and not views.missing(pool_id):
                listed = views.listed_nics.get(fold(pool_id), frozenset())
                nics = (views.nic(nic_id) for nic_id in vm.nic_ids if fold(nic_id) in listed)
                newest = max((nic.observed_at for nic in nics if nic), default=since)
                yield _proof(views, pool_id, max(since, newest))

    def proofs_back(self, views: Views, entry: Entry) -> Iterator[Proof]:
        """Yield the views of the pools that were recorded."""
        is_member = views.membership.is_member
        for pool_id in sorted({m.pool_id for m in _of(entry)}):
            out = not any(is_member(m) for m in _of(entry) if m.pool_id == pool_id)
            since = removal_over_at(views, entry, pool_id, out=out)
            if entry.removed and entry.restoring_at is not None:
                # A pool of addresses shows a restore before it has taken effect.
                since = views.conclusive_from(pool_id, since=entry.restoring_at)
            yield _proof(views, pool_id, since)

    def identified(self, views: Views, vm: Vm, membership: AddressMembership) -> AddressMembership:
        """Return a membership with the `vmId` that is known now."""
        return replace(membership, vm_guid=membership.vm_guid or vm.guid)

    def unknown_owner(self, views: Views, vm: Vm, membership: AddressMembership) -> Iterator[Read]:
        """Yield the reads of the VM's NICs that were never seen, unless one has the address."""
        if not _has_address(views, vm, membership):
            for nic_id in vm.nic_ids:
                if views.nic(nic_id) is None and not views.missing(nic_id):
                    yield ReadNic(nic_id)

    def obstacle(self, views: Views, entry: Entry, membership: AddressMembership) -> str:
        """Return why the address cannot be put back into the pool; empty if it can."""
        vm = views.vm(entry.vm)
        other = views.membership.address_called(membership.pool_id, membership.name)
        if created_again(views, entry, membership.vm_guid):
            return VM_AGAIN
        if other and fold_address(other.ip_address) != fold_address(membership.ip_address):
            return "its entry name belongs to another address"
        seen = vm is not None and not any(self.unknown_owner(views, vm, membership))
        if vm is not None and seen and not _has_address(views, vm, membership):
            return "the address is not one of the VM's"
        return ""


def _has_address(views: Views, vm: Vm, membership: AddressMembership) -> bool:
    """Return whether a NIC of the VM has the address, by the newest view of it."""
    nics = (views.nic(nic_id) for nic_id in vm.nic_ids)
    addresses = {
        fold_address(each.private_ip)
        for nic in nics
        if nic is not None and fold(nic.vm_id) == fold(vm.vm_id)
        for each in nic.ip_configurations
        if each.private_ip
    }
    return fold_address(membership.ip_address) in addresses


def _of(entry: Entry) -> list[AddressMembership]:
    return [m for m in entry.memberships if isinstance(m, AddressMembership)]


def _proof(views: Views, pool_id: str, since: datetime) -> Proof:
    pool = views.pool(pool_id)
    return Proof(
        since=since,
        seen_at=pool.observed_at if pool else None,
        read=ReadLoadBalancer(load_balancer_of(pool_id)),
    )
