"""What this pass can prove of a VM: pure questions over observation, ledger and mechanisms.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from functools import cached_property

from controller.core.azure_names import SetKind, fold
from controller.core.drain_requests import DrainRequest
from controller.core.ledger import Entry, Ledger
from controller.core.observation import Observation
from controller.core.planning.actions import Read, key_alone
from controller.core.planning.due import due_of
from controller.core.planning.mechanism import Mechanisms, Proof
from controller.core.planning.requests_in_force import RequestsInForce, recorded_end
from controller.core.planning.steps import Inquiry, Start, Steps, WakeAt, start_all
from controller.core.planning.views import PREDECESSOR_S, Views, has_settled
from controller.core.planning.vm_case import VmCase
from controller.core.policy import Policy
from controller.core.resources import Membership, MembershipKey, PowerState, Vm


class Evidence:
    """Questions about VMs and entries. Built once per pass, never changed."""

    def __init__(
        self,
        observed: Observation,
        durable: Ledger,
        policy: Policy,
        now: datetime,
        mechanisms: Mechanisms,
    ) -> None:
        mechanisms = mechanisms.under(policy)
        self.views = Views(observed, durable, policy, now, mechanisms.in_rotation)
        self.observed, self.durable, self.policy, self.now = observed, durable, policy, now
        self.mechanisms, self.controls = mechanisms, observed.controls.in_force(now)
        document = observed.document
        self._threatened = {
            fold(name) for each in (document.set_aside if document else ()) for name in each.vms
        }
        self._requests = RequestsInForce(observed.requests, now)
        self.set_id = observed.set_id or durable.present_set_id
        """The set that the VMs are in: the one they were read from, or else that of the ledger."""
        self.set_kind = SetKind.of(self.set_id).value
        """What people call a set of this kind."""

    # --- one VM ---

    def case(self, vm: Vm) -> VmCase:
        """Return what this pass knows of one VM."""
        events = self.views.impacting(vm.name)
        starts = (self.policy.drain_at(event, self.now) for event in events)
        entry = self.views.entry(vm.name)
        requests, lost = self._requests.of(vm.name), self._requests.lost(entry)
        ends = [request.until for request in requests]
        ends += [recorded_end(entry, each) for each in lost] if entry else []
        return VmCase(
            vm=vm,
            entry=entry,
            events=events,
            due=due_of(events, entry, self.views, self.controls),
            pending=tuple(each for each in events if self.policy.keeps_out(each, self.now)),
            inside=self.inside(vm),
            requests=requests,
            lost_requests=lost,
            threatened=fold(vm.name) in self._threatened,
            now=self.now,
            wakes=(*(at for at in starts if at and at > self.now), *ends),
        )

    def inside(self, vm: Vm) -> tuple[Membership, ...]:
        """Return in which managed pools a VM is now."""
        everywhere = self.views.membership.memberships(vm)
        return tuple(m for m in everywhere if fold(m.pool_id) in self.views.managed)

    @cached_property
    def unknown_vms(self) -> tuple[DrainRequest, ...]:
        """The requests for VMs that are not in the set."""
        peer = self.views.membership.peer
        requests = self.observed.requests or ()
        return tuple(r for r in requests if r.is_active(self.now) and peer(r.vm) is None)

    @cached_property
    def unhealthy(self) -> frozenset[str]:
        """Folded names of VMs that may be in rotation but must not be counted on."""
        settling = timedelta(seconds=self.policy.restore_settle_s)
        return self._not_serving | {
            fold(entry.vm)
            for entry in self.durable.entries
            if not entry.parked
            and not (
                entry.restored_at
                and entry.restored_at + settling <= self.now
                and not self.observed.is_closed(entry)
            )
        }

    @cached_property
    def _not_serving(self) -> frozenset[str]:
        """Folded names of VMs that do not run, or whose maintenance has started."""
        names: set[str] = set()
        for vm in self.observed.vms:
            if vm.power in {PowerState.NOT_RUNNING, PowerState.GONE}:
                names.add(fold(vm.name))
        document = self.observed.document
        for event in document.events if document else ():
            if event.has_begun(self.now) and self.policy.impacting(event):
                names.update(fold(name) for name in event.resources)
        return frozenset(names)

    def unhealthy_in(self, pool_id: str) -> frozenset[str]:
        """Return the folded names of VMs that must not be counted on in one pool.

        A restore that another pool refuses can last. A VM that has been back in this pool for long
        enough counts here, so that no other VM waits for that pool (law L2).
        """
        back = {fold(entry.vm) for entry in self.durable.entries if self._is_back(entry, pool_id)}
        return self.unhealthy - (back - self._not_serving)

    def _is_back(self, entry: Entry, pool_id: str) -> bool:
        """Return whether an entry that is being restored has settled in this pool."""
        if entry.restored_at:
            return False
        here = [m for m in entry.memberships if fold(m.pool_id) == fold(pool_id)]
        return (
            has_settled(entry, self.policy, self.now)
            and not self.observed.is_closed(entry)
            and all(self.views.membership.is_member(m) for m in here)
        )

    # --- memberships ---

    def resource_of(self, membership: Membership) -> str:
        """Return the id of what a write changes for this membership."""
        return self.mechanisms.of(membership).resource_id(membership)

    def to_record(self, membership: Membership) -> Membership | None:
        """Return by which membership a VM leaves; None: it leaves by another one."""
        return self.mechanisms.to_record(self.views, membership)

    def attempts(self, memberships: Iterable[Membership], *, restore: bool) -> int:
        """Return how often writes of these memberships have failed in a row.

        Of equally urgent writes the one that failed least is tried first (law L2).
        """
        found = 0
        for membership in memberships:
            method = self.mechanisms.of(membership)
            whole = method.key(membership, restore=restore)
            alone = key_alone(method, membership, restore=restore)
            found = max(found, self.views.failures(whole), self.views.failures(alone))
        return found

    def doubtful(self, memberships: Iterable[Membership]) -> tuple[Membership, ...]:
        """Return those whose last write failed or hangs: it may show, and never have happened."""
        return tuple(m for m in memberships if self.mechanisms.is_doubtful(self.views, m))

    def unreadable(self, membership: Membership) -> bool:
        """Return whether the view behind a membership is old and reading it again just failed.

        Such a membership waits; it must not keep the VM's other memberships waiting (law L2).
        """
        read = self.mechanisms.of(membership).old_view(self.views, membership)
        return read is not None and self.views.deferred(read.key)

    def under_way(self, memberships: Iterable[Membership]) -> bool:
        """Return whether a write of ours that may change one of these has not ended yet."""
        in_flight = self.observed.in_flight
        return any(self.mechanisms.of(m).target(m) in in_flight for m in memberships)

    # --- entries ---

    def never_ours(self, entry: Entry) -> frozenset[MembershipKey]:
        """Return what is gone although no write of ours took it out: an operator did (law S3).

        What a predecessor recorded is not among these, unless it could not read what it recorded;
        the predecessor may have removed it.
        """
        is_member = self.views.membership.is_member
        gone = frozenset(m.key for m in entry.memberships if not is_member(m))
        return gone if entry.unread_at else self.observed.unsent & gone

    def landed_late(self, entry: Entry) -> bool:
        """Return whether a removal of ours undid what was seen restored; if not, an operator did.

        Law S5 against law S3: ours it can be only if the removal was never seen to take effect, and
        no longer than a write may take to show.
        """
        if entry.removed:
            return False
        views = self.views
        return any(
            views.age_s(views.last_sent(self.resource_of(m), since=entry.recorded_at))
            <= PREDECESSOR_S
            for m in entry.memberships
            if not views.membership.is_member(m)
        )

    def obstacle(self, entry: Entry, membership: Membership) -> str:
        """Return why a membership cannot be restored, as far as that is known; empty if it can.

        An identity that can write the container can forge entries, so the ledger alone is never
        enough: the pool has to be configured, and Azure has to show that the place is the VM's.
        """
        if fold(membership.pool_id) not in self.views.managed:
            return "the pool is not in [[backend_pools]]"
        if self.views.missing(membership.pool_id):
            return "Azure does not find the pool"
        return self.mechanisms.of(membership).obstacle(self.views, entry, membership)

    def owner_unknown(self, vm: Vm, membership: Membership) -> Inquiry:
        """Return whether the place of a membership may belong to another VM, and read that."""
        reads = tuple(self.mechanisms.of(membership).unknown_owner(self.views, vm, membership))
        yield from start_all(reads)
        return bool(reads)

    def proofs_out(self, vm: Vm, entry: Entry) -> Iterator[Proof]:
        """Yield every view that has to prove that a VM is out."""
        for mechanism in self.mechanisms:
            yield from mechanism.proofs_out(self.views, vm, entry)

    def rotation_views(self, vm: Vm, entry: Entry, *, within_s: float) -> Iterator[Proof]:
        """Yield the views that show whether a VM that is out was put back.

        Args:
            vm: a VM that is out.
            entry: its entry.
            within_s: a view that is older than this does not count.
        """
        since = self.now - timedelta(seconds=within_s)
        for mechanism in self.mechanisms:
            yield from mechanism.rotation_views(self.views, vm, entry, since=since)

    def proofs_back(self, entry: Entry) -> Iterator[Proof]:
        """Yield every view that has to prove that a VM is back for good."""
        for mechanism in self.mechanisms:
            yield from mechanism.proofs_back(self.views, entry)

    # --- reads ---

    def read_unseen(self, vm: Vm) -> Inquiry:
        """Return whether a VM may be in a pool of which nothing was read yet, and read that.

        An inventory can have holes: a VM whose NIC, or a pool, was never seen is not known to be
        out.
        """
        found = False
        for mechanism in self.mechanisms:
            for read in mechanism.unseen(self.views, vm):
                found = True
                yield Start(read)
        return found

    def refresh_pools(self) -> Inquiry:
        """Return whether the view of every managed pool is fresh, and read those that are not."""
        reads = tuple(self.views.old_pools())
        yield from start_all(reads)
        return not reads

    def read_again(self, proof: Proof, *, every_s: float = 1) -> Steps:
        """Renew a view that proves nothing yet, at most this often."""
        due, again_s = proof.to_renew(self.views, every_s)
        if due:
            yield Start(proof.read)
        yield WakeAt(self.views.in_s(again_s))

    def reads_to_record(self, vm: Vm) -> Iterator[Read]:
        """Yield the reads that show where a VM is a member."""
        for mechanism in self.mechanisms:
            yield from mechanism.reads_to_record(self.views, vm)
