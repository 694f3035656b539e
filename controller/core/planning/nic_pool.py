"""Mechanism: a NIC leaves its pools, by a PUT of the NIC. One write covers all pools of the NIC.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from controller.core.action_keys import ActionKey, action_key
from controller.core.azure_names import fold, load_balancer_of, short
from controller.core.ledger import Entry, Ledger
from controller.core.observation import Observation
from controller.core.planning.actions import Read, ReadLoadBalancer, ReadNic
from controller.core.planning.hung_operations import is_over_due
from controller.core.planning.mechanism import (
    NIC_AGAIN,
    VM_AGAIN,
    Proof,
    created_again,
    nics_show_pool,
    removal_over_at,
    untouched_since,
)
from controller.core.planning.member_states import is_neutral, refusal, state_lost_with_nic
from controller.core.planning.pool_membership import Rotation, shown_member
from controller.core.planning.views import Views
from controller.core.policy import Policy
from controller.core.resources import Membership, Nic, NicMembership, Vm


@dataclass(frozen=True, slots=True)
class NicPool:
    """Memberships of NICs in pools."""

    name: str = "nic"
    membership_type: type[NicMembership] = NicMembership
    shared: bool = False
    keeps_body: bool = True

    def resource_id(self, membership: NicMembership) -> str:
        """Return the id of the NIC."""
        return membership.nic_id

    def target(self, membership: NicMembership) -> ActionKey:
        """Return what a write occupies: the NIC."""
        return action_key("write", membership.nic_id)

    def key(self, membership: NicMembership, *, restore: bool) -> ActionKey:
        """Return what back-off is kept by: the NIC, in both directions."""
        return self.target(membership)

    def shown_by(self, membership: NicMembership) -> Read:
        """Return the read of the NIC."""
        return ReadNic(membership.nic_id)

    def refers_to(self, membership: NicMembership) -> Iterator[Read]:
        """Yield the read of the pool: Azure does not report that a restore names a deleted one."""
        yield ReadLoadBalancer(load_balancer_of(membership.pool_id))

    def label(self, memberships: tuple[NicMembership, ...]) -> str:
        """Return the NIC and its pools."""
        pools = ", ".join(short(membership.pool_id) for membership in memberships)
        return f"{short(memberships[0].nic_id)} ({pools})"

    def under(self, policy: Policy) -> "NicPool":
        """Return the same: where no other mechanism is chosen, this one serves."""
        return self

    def in_rotation(self, observed: Observation, ledger: Ledger, joined: Rotation) -> Rotation:
        """Return what was joined: it comes from the NICs."""
        return joined

    def to_record(self, views: Views, membership: Membership) -> Membership | None:
        """Return a membership of a NIC with its adminState, which the NIC loses as it leaves."""
        shown = shown_member(views.pool(membership.pool_id), membership)
        if not isinstance(membership, NicMembership) or shown is None:
            return membership
        return replace(membership, admin_state=state_lost_with_nic(shown.admin_state))

    def unseen(self, views: Views, vm: Vm) -> Iterator[Read]:
        """Yield a read for every NIC of the VM that was never seen."""
        for nic_id in vm.nic_ids:
            if views.nic(nic_id) is None and not views.missing(nic_id):
                yield ReadNic(nic_id)

    def old_view(self, views: Views, membership: NicMembership) -> Read | None:
        """Return the read of the pool or, if that is fresh, of the NIC; None if both are fresh."""
        if views.is_old(views.pool(membership.pool_id)):
            return ReadLoadBalancer(load_balancer_of(membership.pool_id))
        return ReadNic(membership.nic_id) if _has_no_body(views, membership.nic_id) else None

    def reads_to_record(self, views: Views, vm: Vm) -> Iterator[Read]:
        """Yield a read for every NIC of the VM whose body is old or unknown."""
        for nic_id in vm.nic_ids:
            if _has_no_body(views, nic_id) and not views.missing(nic_id):
                yield ReadNic(nic_id)

    def is_failed(self, views: Views, membership: NicMembership) -> bool:
        """Return whether the NIC's provisioning state is Failed."""
        nic = views.nic(membership.nic_id)
        return nic is not None and nic.failed

    def is_over_due(self, views: Views, membership: NicMembership) -> bool:
        """Return whether the NIC stays Updating, and no write of it was sent for as long."""
        nic = views.nic(membership.nic_id)
        if nic is None or nic.updating_since is None:
            return False
        sent_at = views.last_sent(membership.nic_id, since=nic.updating_since)
        return is_over_due(nic.updating_since, sent_at, nic.observed_at)

    def proofs_out(self, views: Views, vm: Vm, entry: Entry) -> Iterator[Proof]:
        """Yield the views of all NICs of the VM."""
        recorded = {fold(m.nic_id) for m in _of(entry)}
        for nic_id in vm.nic_ids:
            if views.missing(nic_id):
                continue
            since = untouched_since(entry)
            if fold(nic_id) in recorded:
                since = entry.recorded_at
                if entry.restoring_at is not None:
                    since = max(since, views.conclusive_from(nic_id, since=entry.restoring_at))
            yield _proof(views, nic_id, since)

    def rotation_views(
        self, views: Views, vm: Vm, entry: Entry, *, since: datetime
    ) -> Iterator[Proof]:
        """Yield nothing while the load balancers can be read, and else the NICs of the VM."""
        managed = views.policy.pools
        if any(nics_show_pool(views, entry, pool_id, since=since) for pool_id in managed):
            for nic_id in vm.nic_ids:
                if not views.missing(nic_id):
                    yield _proof(views, nic_id, since)

    def proofs_back(self, views: Views, entry: Entry) -> Iterator[Proof]:
        """Yield the views of the NICs that were recorded."""
        is_member = views.membership.is_member
        for nic_id in sorted({m.nic_id for m in _of(entry)}):
            out = not any(is_member(m) for m in _of(entry) if m.nic_id == nic_id)
            yield _proof(views, nic_id, removal_over_at(views, entry, nic_id, out=out))

    def identified(self, views: Views, vm: Vm, membership: NicMembership) -> NicMembership:
        """Return a membership with the `vmId` and the `resourceGuid` that are known now."""
        nic = views.nic(membership.nic_id)
        return replace(
            membership,
            vm_guid=membership.vm_guid or vm.guid,
            nic_guid=membership.nic_guid or (nic.guid if nic else ""),
        )

    def unknown_owner(self, views: Views, vm: Vm, membership: NicMembership) -> Iterator[Read]:
        """Yield the read of a NIC that was never seen: its body names its VM."""
        if views.nic(membership.nic_id) is None:
            yield ReadNic(membership.nic_id)

    def obstacle(self, views: Views, entry: Entry, membership: NicMembership) -> str:
        """Return why the NIC cannot be put back into the pool; empty if it can."""
        nic = views.nic(membership.nic_id)
        if created_again(views, entry, membership.vm_guid):
            return VM_AGAIN
        if membership.lacks:
            return _not_as_it_was(views, membership)
        if views.missing(membership.nic_id):
            return "Azure does not find the NIC"
        if nic is None or not views.proves(nic.observed_at, since=entry.recorded_at):
            return ""
        return _other_place(nic, entry, membership)


def _other_place(nic: Nic, entry: Entry, membership: NicMembership) -> str:
    """Return why a NIC is not the place that was recorded; empty if it is."""
    names = {fold(each.name) for each in nic.ip_configurations}
    if membership.nic_guid and nic.guid and fold(membership.nic_guid) != fold(nic.guid):
        return NIC_AGAIN
    if fold(nic.vm_id) != fold(entry.vm_id):
        return "the NIC is not attached to the VM"
    if fold(membership.ip_configuration) not in names:
        return "the NIC does not have that ipConfiguration"
    return ""


def _not_as_it_was(views: Views, membership: NicMembership) -> str:
    """Return why a member that is back in its pool lacks its adminState; empty if it need not."""
    shown, found = (
        shown_member(views.pool(membership.pool_id), membership),
        refusal(views.observed, membership.pool_id),
    )
    if shown is None:
        return "the NIC has left the pool again"  # not by us: it is never added again
    if found is None or not is_neutral(shown.admin_state):
        return ""
    return f"it is in the pool without its adminState {membership.admin_state}: {found.reason}"


def _of(entry: Entry) -> list[NicMembership]:
    return [m for m in entry.memberships if isinstance(m, NicMembership)]


def _has_no_body(views: Views, nic_id: str) -> bool:
    """Return whether no body is known that is young enough to decide on."""
    nic = views.nic(nic_id)
    return nic is None or nic.body is None or views.is_old(nic)


def _proof(views: Views, nic_id: str, since: datetime) -> Proof:
    nic = views.nic(nic_id)
    return Proof(
        since=since,
        seen_at=nic.observed_at if nic else None,
        read=ReadNic(nic_id),
        updating_since=(nic.updating_since or nic.observed_at) if nic and nic.updating else None,
    )
