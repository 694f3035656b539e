"""Law S2 for pools with machines of other availability sets: what counts, and the claims.

A machine outside the set can leave the pool at any moment, because another leader drains it. It
counts for the floor only if its set states so in the blob of the pool (`core.shared_pools`) and
does not state that it is out. In return, this set claims there what it takes out before it
records a removal. An operator can choose to count every machine (`shared = "ignore"`).

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable

from controller.core.azure_names import fold
from controller.core.planning.actions import PublishShare, ReadSharedPool
from controller.core.planning.evidence import Evidence
from controller.core.planning.pool_membership import machine_of
from controller.core.planning.steps import Start, Steps, WakeAt
from controller.core.planning.views import FRESH_S
from controller.core.resources import Membership
from controller.core.shared_pools import PoolShare, SharedPool


class SharedFloor:
    """The machines of other sets in one pool. Made for one pass; `claim` adds to it."""

    def __init__(self, pool_id: str, evidence: Evidence) -> None:
        self._pool_id, self._evidence = pool_id, evidence
        self._view: SharedPool | None = evidence.observed.shared_pools.get(fold(pool_id))
        self._read = ReadSharedPool(pool_id)
        present = evidence.views.membership.other_machines(pool_id)
        others = self._view.others if self._view else ()
        self._stated = {machine for share in others for machine in share.members}
        self._stated_out = {machine for share in others for machine in share.out}
        self.shared = bool(present or others or (self._view and self._view.own))
        """Whether machines of other sets are in the pool, belong to it, or did when this set last
        stated something."""
        self.uncounted = frozenset(present - (self._stated - self._stated_out))
        """The machines in the pool that this set must not count on."""
        self.unread = bool(present) and self._view is None
        """Whether machines of other sets are in the pool, and what is stated was not read yet."""
        self.silent = frozenset(present - self._stated)
        """The uncounted machines whose set states nothing."""
        self._out = self._machines_out()

    @property
    def full(self) -> frozenset[str]:
        """The machines of other sets that belong to the pool although they are out."""
        return frozenset(self._stated_out)

    def _machines_out(self) -> set[str]:
        """Return the machines of this set that the ledger has taken out, or is about to."""
        return {
            machine_of(membership)
            for entry in self._evidence.durable.entries
            if not entry.gone
            for membership in entry.memberships
            if fold(membership.pool_id) == fold(self._pool_id)
        }

    def claim(self, memberships: Iterable[Membership]) -> None:
        """Count these memberships as out from now on, and state it in the next share."""
        self._out |= {machine_of(m) for m in memberships if fold(m.pool_id) == fold(self._pool_id)}

    def must_wait(self, memberships: Iterable[Membership]) -> bool:
        """Return whether the blob does not state yet that these memberships leave."""
        if not self.shared:
            return False
        leaving = {machine_of(m) for m in memberships if fold(m.pool_id) == fold(self._pool_id)}
        own = self._view.own if self._view else None
        return not leaving <= set(own.out if own else ())

    def steps(self, *, due: bool) -> Steps:
        """Yield the reads and writes of the blob.

        Args:
            due: something depends on it now; otherwise it is read with every inventory.
        """
        views, view = self._evidence.views, self._view
        if not self.shared:
            if view is None:
                yield Start(self._read)  # all machines of another set may be out just now
            return
        period_s = FRESH_S if due else self._evidence.observed.inventory_period_s
        age_s = views.age_s(view.observed_at if view else None)
        if age_s >= period_s:
            yield Start(self._read)
        else:
            yield WakeAt(views.in_s(period_s - age_s))
        if view is None:
            return
        share = self._wanted(view)
        if view.own is None or not view.own.states(share):
            shares = view.shares.with_share(share)
            yield Start(PublishShare(pool_id=self._pool_id, shares=shares, etag=view.etag))

    def _wanted(self, view: SharedPool) -> PoolShare:
        membership = self._evidence.views.membership
        inside = {
            machine_of(m)
            for vm in self._evidence.observed.vms
            for m in membership.memberships(vm)
            if fold(m.pool_id) == fold(self._pool_id)
        }
        return PoolShare(
            availability_set_id=view.availability_set_id,
            members=tuple(sorted(inside | self._out)),
            out=tuple(sorted(self._out)),
            written_at=self._evidence.now,
        )

    def why_uncounted(self) -> str:
        """Return why machines of other sets are not counted, and what to do; empty if all are."""
        if not self.uncounted:
            return ""
        count = len(self.uncounted)
        if self.silent:
            return (
                f"; {count} more are not counted, because they belong to machines outside this "
                "availability set that may leave at any moment: give the agents of their set the "
                'same election.container_url, or set shared = "ignore" for this pool'
            )
        return f"; {count} more are not counted, because their availability set takes them out"
