"""Mechanism: a VM stays in its pools and its members get adminState Down, by a PUT of the pool.

Azure sends a member in Down no new connections, in rules that have a probe. What it does to
established connections is documented twice: TCP goes on (Microsoft docs, admin state overview), or
is reset (Microsoft OpenAPI, loadBalancer.json). So the VM closes first, as for a removal.

One write covers all affected members of a pool, whichever VMs they belong to, and no NIC is
written. A restore puts back the state that was recorded. Where this mechanism does not work (a rule
without a probe, a pool that refuses the state) a VM is removed by `nic_pool` or `address_pool`.

The ledger decides which mechanism a VM in a pool has; the policy only which one is recorded. So a
changed configuration undoes nothing.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from controller.core.action_keys import ActionKey, action_key
from controller.core.azure_names import fold, load_balancer_of, short
from controller.core.ledger import Entry, Ledger
from controller.core.observation import Observation
from controller.core.planning.actions import Read, ReadLoadBalancer
from controller.core.planning.address_pool import AddressPool
from controller.core.planning.mechanism import Mechanism, Proof, removal_over_at
from controller.core.planning.member_states import (
    has_effect,
    has_no_effect,
    is_down,
    is_refused,
    view_of,
)
from controller.core.planning.nic_pool import NicPool
from controller.core.planning.pool_membership import Rotation, key_in_pool, shown_member
from controller.core.planning.views import Views
from controller.core.policy import Policy
from controller.core.resources import (
    AddressMembership,
    AdminMembership,
    Membership,
    MembershipKey,
    NicMembership,
    Vm,
    member_key,
)


@dataclass(frozen=True, slots=True)
class AdminState:
    """The adminState of members of pools."""

    in_use: bool = False
    """Whether new drains are recorded with it."""
    name: str = "admin-state"
    membership_type: type[AdminMembership] = AdminMembership
    shared: bool = True
    keeps_body: bool = False

    def resource_id(self, membership: AdminMembership) -> str:
        """Return the id of the pool."""
        return membership.pool_id

    def target(self, membership: AdminMembership) -> ActionKey:
        """Return what a write occupies: the load balancer."""
        return action_key("write", load_balancer_of(membership.pool_id))

    def key(self, membership: AdminMembership, *, restore: bool) -> ActionKey:
        """Return what back-off is kept by: the pool, the direction, and that no member moves."""
        return action_key("restore" if restore else "remove", view_of(membership.pool_id))

    def shown_by(self, membership: AdminMembership) -> Read:
        """Return the read of the load balancer."""
        return ReadLoadBalancer(load_balancer_of(membership.pool_id))

    def refers_to(self, membership: AdminMembership) -> Iterator[Read]:
        """Yield nothing: a pool refers to no other resource."""
        return iter(())

    def label(self, memberships: tuple[AdminMembership, ...]) -> str:
        """Return the members and the pool."""
        members = ", ".join(short(m.nic_id) if m.nic_id else m.ip_address for m in memberships)
        return f"adminState of {members} ({short(memberships[0].pool_id)})"

    def under(self, policy: Policy) -> "AdminState":
        """Return the mechanism in use, or only for what the ledger records."""
        return replace(self, in_use=policy.admin_state)

    def in_rotation(self, observed: Observation, ledger: Ledger, joined: Rotation) -> Rotation:
        """Replace the members that are recorded here, and drop those that are Down.

        While this mechanism is in use, a member that people have set Down is out as well. Where the
        pool refuses the state, or has a rule without a probe, the place in the pool counts too: the
        VM is recorded again, and removed. A member that is Down is not back (law S3).
        """
        recorded, others = _recorded(ledger)
        if not self.in_use and not recorded:
            return joined
        states = {
            key_in_pool(fold(pool.pool_id), member): member.admin_state
            for pool in observed.pools
            for member in pool.members
        }
        works = {fold(pool.pool_id): has_effect(observed, pool.pool_id) for pool in observed.pools}
        kept = {fold(p.pool_id) for p in observed.pools if not has_no_effect(observed, p.pool_id)}

        def seen(vm: str, membership: Membership) -> Iterator[Membership]:
            pool = fold(membership.pool_id)
            place = vm, membership.key
            down, ours = is_down(states.get(membership.key, "")), recorded.get(place)
            if down and ours is not None and pool in kept:
                return
            if down and works.get(pool, False) and self.in_use and place not in others:
                return
            if ours is not None and not down:
                yield ours
            refused = is_refused(observed, pool) or not works.get(pool, False)
            if ours is None or place in others or refused:
                yield membership

        return {
            vm: tuple(each for m in memberships for each in seen(vm, m))
            for vm, memberships in joined.items()
        }

    def to_record(self, views: Views, membership: Membership) -> Membership | None:
        """Return the member with the adminState that it has now, where the state can be used."""
        observed, pool_id = views.observed, membership.pool_id
        works = has_effect(observed, pool_id) and not is_refused(observed, pool_id)
        mine = isinstance(membership, AdminMembership)
        shown = shown_member(views.pool(membership.pool_id), membership)
        if not works or not (mine or self.in_use):
            return None if mine else membership
        if shown is None:
            return membership  # a NIC that is newer than the view of its pool
        return _with_state(membership, shown.admin_state)

    def unseen(self, views: Views, vm: Vm) -> Iterator[Read]:
        """Yield nothing: the mechanism of IP-based pools reads every pool that was never seen."""
        return iter(())

    def old_view(self, views: Views, membership: AdminMembership) -> Read | None:
        """Return the read of the pool; None if its view is fresh."""
        old = views.is_old(views.pool(membership.pool_id))
        return self.shown_by(membership) if old else None

    def reads_to_record(self, views: Views, vm: Vm) -> Iterator[Read]:
        """Yield nothing: the planner reads every managed pool before it records a VM."""
        return iter(())

    def is_failed(self, views: Views, membership: AdminMembership) -> bool:
        """Return whether the pool's provisioning state is Failed."""
        pool = views.pool(membership.pool_id)
        return pool is not None and pool.failed

    def is_over_due(self, views: Views, membership: AdminMembership) -> bool:
        """Return False: in any state, a pool proves what it shows some time after a write."""
        return False

    def proofs_out(self, views: Views, vm: Vm, entry: Entry) -> Iterator[Proof]:
        """Yield the views of the pools that were recorded: only they show the state.

        A pool shows a write before it has taken effect, so Down is proven by the end of the write.
        Of a member that is removed after all, the other mechanism proves that it is out.
        """
        staying = [m for m in _of(entry) if not _is_removed_too(entry, m)]
        for pool_id in sorted({m.pool_id for m in staying}):
            if not views.missing(pool_id):
                since = entry.restoring_at or entry.recorded_at
                since = max(views.conclusive_from(pool_id, since=since), entry.recorded_at)
                yield _proof(views, pool_id, since)

    def rotation_views(
        self, views: Views, vm: Vm, entry: Entry, *, since: datetime
    ) -> Iterator[Proof]:
        """Yield the views of the pools that were recorded, also where NICs show the members."""
        for pool_id in _pools_of(entry):
            if not views.missing(pool_id):
                yield _proof(views, pool_id, since)

    def proofs_back(self, views: Views, entry: Entry) -> Iterator[Proof]:
        """Yield the views of the pools that were recorded."""
        is_member = views.membership.is_member
        for pool_id in _pools_of(entry):
            out = not any(is_member(m) for m in _of(entry) if m.pool_id == pool_id)
            since = removal_over_at(views, entry, pool_id, out=out)
            if entry.removed and entry.restoring_at is not None:
                # A pool shows a restore before it has taken effect.
                since = views.conclusive_from(pool_id, since=entry.restoring_at)
            yield _proof(views, pool_id, since)

    def identified(self, views: Views, vm: Vm, membership: AdminMembership) -> AdminMembership:
        """Return a membership with the identities of its VM and NIC that are known now."""
        member = _method(membership).identified(views, vm, membership.member)
        guid = member.nic_guid if isinstance(member, NicMembership) else ""
        return replace(membership, vm_guid=membership.vm_guid or vm.guid, nic_guid=guid)

    def unknown_owner(self, views: Views, vm: Vm, membership: AdminMembership) -> Iterator[Read]:
        """Yield the reads without which it is not known whether the member belongs to the VM."""
        yield from _method(membership).unknown_owner(views, vm, membership.member)

    def obstacle(self, views: Views, entry: Entry, membership: AdminMembership) -> str:
        """Return why the state cannot be put back; empty if it can.

        A member that another client has removed has no state any more. It is kept as lost: the
        view that does not show it may be wrong, and a member that stays Down serves no client.
        """
        if found := _method(membership).obstacle(views, entry, membership.member):
            return found
        pool = views.pool(membership.pool_id)
        if pool is None or not views.proves(pool.observed_at, since=entry.recorded_at):
            return ""
        if shown_member(pool, membership) or _is_removed_too(entry, membership):
            return ""
        return "the pool does not list the member"


def _recorded(
    ledger: Ledger,
) -> tuple[dict[tuple[str, MembershipKey], AdminMembership], set[tuple[str, MembershipKey]]]:
    """Return what is recorded with this mechanism, and the members recorded with others."""
    ours: dict[tuple[str, MembershipKey], AdminMembership] = {}
    others: set[tuple[str, MembershipKey]] = set()
    for entry in ledger.entries:
        for membership in entry.memberships:
            place = fold(entry.vm), member_key(membership)
            if isinstance(membership, AdminMembership):
                ours[place] = membership
            else:
                others.add(place)
    return ours, others


def _with_state(membership: Membership, state: str) -> Membership:
    if isinstance(membership, AdminMembership):
        return replace(membership, admin_state=state)
    return of_member(membership, state) or membership


def of_member(membership: Membership, state: str) -> AdminMembership | None:
    """Return the adminState of a member of a pool; None for a membership of another kind."""
    if isinstance(membership, NicMembership):
        return AdminMembership(
            pool_id=membership.pool_id,
            nic_id=membership.nic_id,
            ip_configuration=membership.ip_configuration,
            admin_state=state,
            vm_guid=membership.vm_guid,
            nic_guid=membership.nic_guid,
        )
    if isinstance(membership, AddressMembership):
        return AdminMembership(
            pool_id=membership.pool_id,
            name=membership.name,
            ip_address=membership.ip_address,
            admin_state=state,
            vm_guid=membership.vm_guid,
        )
    return None


def _method(membership: AdminMembership) -> Mechanism[Any]:
    """Return the mechanism that knows whose the member is."""
    return NicPool() if membership.nic_id else AddressPool()


def _of(entry: Entry) -> list[AdminMembership]:
    return [m for m in entry.memberships if isinstance(m, AdminMembership)]


def _is_removed_too(entry: Entry, membership: AdminMembership) -> bool:
    """Return whether the entry also removes the member, because Down did not take it out."""
    place = member_key(membership)
    return any(m.key == place for m in entry.memberships)


def _pools_of(entry: Entry) -> list[str]:
    return sorted({m.pool_id for m in _of(entry)})


def _proof(views: Views, pool_id: str, since: datetime) -> Proof:
    pool = views.pool(pool_id)
    return Proof(
        since=since,
        seen_at=pool.observed_at if pool else None,
        read=ReadLoadBalancer(load_balancer_of(pool_id)),
    )
