"""The ways to take a VM out of rotation, behind one interface.

The planner decides *that* a VM leaves rotation, and that it may come back. A mechanism decides how:

- which resource a write changes, what that write occupies while it runs, and what its back-off is
  kept by;
- which memberships one write covers, and whether it is shared by several VMs;
- which views have to be read before a decision, and which views prove that a VM is out, or back;
- whether what was recorded can still be restored.

`nic_pool` and `address_pool` remove members from pools, `admin_state` leaves them there. Adding one
takes its module, its adapter in `controller.agent`, its settings, and its registration
(`mechanisms` here, `adapters` in the agent, its stored form in `storage.ledger_json`). No other
module asks which kind a membership is; `tests/component/test_third_mechanism.py` adds one.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from controller.core.azure_names import fold, load_balancer_of
from controller.core.ledger import Entry, Ledger
from controller.core.observation import Observation
from controller.core.planning.actions import M_contra, Read, ReadLoadBalancer, WriteMethod
from controller.core.planning.pool_membership import Rotation
from controller.core.planning.views import Views
from controller.core.policy import Policy
from controller.core.resources import Membership, NicMembership, PoolKind, Vm

UNTOUCHED_S = 60.0
"""How old a view may be, when an entry is recorded, of a NIC or pool that the VM was not in."""

UPDATING_AGAIN_S = 30.0
"""The longest time between two reads of a NIC that is Updating."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One view, and how new it must be to prove that a VM is out, or back."""

    since: datetime
    """From when on the view proves it."""
    seen_at: datetime | None
    """When the resource was last seen; None if never."""
    read: Read
    """Renews the view."""
    updating_since: datetime | None = None
    """Since when an operation on the resource is under way: its view proves nothing."""

    def holds(self, views: Views) -> bool:
        """Return whether the view proves what it has to."""
        if self.seen_at is None or self.updating_since is not None:
            return False
        return views.proves(self.seen_at, since=self.since)

    def to_renew(self, views: Views, every_s: float) -> tuple[bool, float]:
        """Return whether to renew the view now, and in how many seconds to look again.

        The longer an operation has been under way, the less often its end is looked for.
        """
        age_s = views.age_s(self.seen_at)
        if self.updating_since is None:
            return age_s >= every_s, every_s
        waited_s = views.age_s(self.updating_since)
        every_s = max(every_s, min(UPDATING_AGAIN_S, waited_s / 10))
        return age_s >= every_s, every_s if age_s >= every_s else every_s - age_s


class Mechanism(WriteMethod[M_contra], Protocol[M_contra]):
    """One way to take a VM out of rotation, and to put it back."""

    @property
    def membership_type(self) -> type[Any]:
        """The memberships that this mechanism changes."""
        ...

    @property
    def shared(self) -> bool:
        """Whether one write covers several VMs: it then waits until every VM was considered."""
        ...

    def under(self, policy: Policy) -> "Mechanism[M_contra]":
        """Return the mechanism as the operator has chosen it."""
        ...

    def in_rotation(self, observed: Observation, ledger: Ledger, joined: Rotation) -> Rotation:
        """Return by which memberships the VMs are in rotation, as this mechanism sees it.

        NICs and pools are joined already (`PoolMembership`). A mechanism that leaves a VM in its
        pools replaces those memberships by its own, or drops them while the VM is out.

        Args:
            observed: the newest views; `observed.views` holds those of other resources.
            ledger: what is recorded.
            joined: memberships by folded name of the VM.
        """
        ...

    def to_record(self, views: Views, membership: Membership) -> Membership | None:
        """Return how a VM leaves that is in rotation by this membership.

        That is the membership as it is, one of this mechanism instead of it, or None: it needs no
        record, because the VM leaves by another one.
        """
        ...

    # --- evidence ---

    def unseen(self, views: Views, vm: Vm) -> Iterator[Read]:
        """Yield a read for everything that was never seen and in which the VM may be."""
        ...

    def old_view(self, views: Views, membership: M_contra) -> Read | None:
        """Return the read that has to renew the view behind a membership; None if it is fresh."""
        ...

    def reads_to_record(self, views: Views, vm: Vm) -> Iterator[Read]:
        """Yield the reads that show where the VM is a member."""
        ...

    def is_failed(self, views: Views, membership: M_contra) -> bool:
        """Return whether Azure reports that the last write of the resource failed.

        Its body may then show a write that never happened, until another write of the same.
        """
        ...

    def is_over_due(self, views: Views, membership: M_contra) -> bool:
        """Return whether an operation on the resource hangs, so that a write is sent again.

        What the resource shows is certain only after the end of another write.
        """
        ...

    def proofs_out(self, views: Views, vm: Vm, entry: Entry) -> Iterator[Proof]:
        """Yield the views that prove that the VM is out (law S1).

        While a restore may still land, absence is proven only by a view from after that.
        """
        ...

    def rotation_views(
        self, views: Views, vm: Vm, entry: Entry, *, since: datetime
    ) -> Iterator[Proof]:
        """Yield the views that show whether a VM that is out was put back (law S1).

        As few reads as possible: they do not grow with the number of VMs that are out.

        Args:
            views: what this pass knows.
            vm: a VM that is out.
            entry: the VM's entry.
            since: a view that is older does not count.
        """
        ...

    def proofs_back(self, views: Views, entry: Entry) -> Iterator[Proof]:
        """Yield the views that prove that no removal can take the VM away any more (law S5)."""
        ...

    # --- identity ---

    def identified(self, views: Views, vm: Vm, membership: M_contra) -> Membership:
        """Return a membership with the identities of its VM and NIC that it does not have yet."""
        ...

    def unknown_owner(self, views: Views, vm: Vm, membership: M_contra) -> Iterator[Read]:
        """Yield the reads without which it is not known whether the place belongs to the VM."""
        ...

    def obstacle(self, views: Views, entry: Entry, membership: M_contra) -> str:
        """Return why a membership of a pool that exists cannot be restored; empty if it can.

        Its place is absent, or belongs to another VM, or the VM or NIC was created again: a name
        is no identity (law S3).
        """
        ...


class Mechanisms:
    """The registered mechanisms, by the memberships that they change."""

    def __init__(self, mechanisms: Iterable[Mechanism[Any]]) -> None:
        self._all = tuple(mechanisms)
        self._by_type = {mechanism.membership_type: mechanism for mechanism in self._all}

    def __iter__(self) -> Iterator[Mechanism[Any]]:
        return iter(self._all)

    def under(self, policy: Policy) -> "Mechanisms":
        """Return the mechanisms as the operator has chosen them."""
        return Mechanisms(mechanism.under(policy) for mechanism in self._all)

    def in_rotation(self, observed: Observation, ledger: Ledger, joined: Rotation) -> Rotation:
        """Return by which memberships the VMs are in rotation, as all mechanisms see it."""
        for mechanism in self._all:
            joined = mechanism.in_rotation(observed, ledger, joined)
        return joined

    def to_record(self, views: Views, membership: Membership) -> Membership | None:
        """Return how a VM leaves that is in rotation by this membership; None by another one."""
        chosen: Membership | None = membership
        for mechanism in self._all:
            chosen = mechanism.to_record(views, chosen) if chosen is not None else None
        return chosen

    def of(self, membership: Membership) -> Mechanism[Any]:
        """Return the mechanism that changes a membership."""
        return self._by_type[type(membership)]

    def is_doubtful(self, views: Views, membership: Membership) -> bool:
        """Return whether the last write of a membership failed, or hangs: it is sent again."""
        method = self.of(membership)
        return method.is_failed(views, membership) or method.is_over_due(views, membership)


def removal_over_at(views: Views, entry: Entry, resource_id: str, *, out: bool) -> datetime:
    """Return from when on a view of this resource shows that its removal is over.

    Args:
        views: what this pass knows.
        entry: the VM's entry.
        resource_id: what the removal changed.
        out: the view shows that everything recorded of this resource is out.
    """
    if entry.removed:
        return entry.out_at or entry.restoring_at or entry.recorded_at
    if out:
        return entry.recorded_at
    return views.conclusive_from(resource_id, since=entry.recorded_at)


def nics_show_pool(views: Views, entry: Entry, pool_id: str, *, since: datetime) -> bool:
    """Return whether the NICs have to show the members of a pool.

    One read of a load balancer shows all members. While it fails, the NICs show the members of a
    pool that has only NICs.
    """
    pool, read = views.pool(pool_id), ReadLoadBalancer(load_balancer_of(pool_id))
    if pool is None or views.proves(pool.observed_at, since=since) or not views.deferred(read.key):
        return False
    if pool.kind is PoolKind.EMPTY:  # then the VM shows which kind the pool had
        recorded = [m for m in entry.memberships if fold(m.pool_id) == fold(pool_id)]
        return bool(recorded) and all(isinstance(m, NicMembership) for m in recorded)
    return pool.kind is PoolKind.NIC


def created_again(views: Views, entry: Entry, recorded: str) -> bool:
    """Return whether the VM of an entry was created again, by the `vmId` that was recorded."""
    vm = views.vm(entry.vm)
    return vm is not None and bool(recorded and vm.guid) and fold(recorded) != fold(vm.guid)


VM_AGAIN = "the VM was created again"
NIC_AGAIN = "the NIC was created again"
CREATED_AGAIN = frozenset({VM_AGAIN, NIC_AGAIN})
"""The obstacles of a membership whose VM or NIC is another one with the old name."""


def untouched_since(entry: Entry) -> datetime:
    """Return from when on a view proves absence from a NIC or pool that the VM was not in."""
    return entry.recorded_at - timedelta(seconds=UNTOUCHED_S)
