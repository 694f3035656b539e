"""The newest views of one pass, by id, and what their age proves.

A view proves something only from an instant on: an old view may show what was before a write, a
view from the future was not seen. Nothing here decides; removal, restoration and the mechanisms
ask.

Everything is indexed once per pass, so that a pass over a large set takes linear time.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from functools import cached_property

from controller.core.action_keys import ActionKey
from controller.core.azure_names import fold, load_balancer_of, nic_of, resource_group_of
from controller.core.events import EventDocument, ScheduledEvent
from controller.core.ledger import Entry, Ledger
from controller.core.observation import Observation
from controller.core.planning.actions import HoldReason, ReadLoadBalancer
from controller.core.planning.pool_membership import PoolMembership, Translation, tracked_vms
from controller.core.policy import Policy
from controller.core.presence import ONE_REPLY
from controller.core.resources import Nic, Pool, PoolHealth, Vm
from controller.core.restarts import restarts_by_vm

FRESH_S = 10.0
"""A VM is recorded, taken out and restored only on views younger than this (laws S2, S3)."""
DOCUMENT_FRESH_S = 30.0
"""An event document older than this is no reason to restore or to acknowledge anything."""
HEALTH_FRESH_S = 60.0
"""What the rules of a load balancer report about members is used while it is younger than this."""
PREDECESSOR_S = 60.0
"""How long a write whose end was not seen may take to show (seen: over a minute)."""
CHECK_AGAIN_S = 300.0
"""The longest time between two checks of the reason of a hold."""


class Views:
    """What this pass knows, and how old it is. Built once per pass, never changed."""

    def __init__(
        self,
        observed: Observation,
        durable: Ledger,
        policy: Policy,
        now: datetime,
        translate: Translation,
    ) -> None:
        self.observed, self.durable, self.policy, self.now = observed, durable, policy, now
        self.entries = {fold(entry.vm): entry for entry in durable.entries}
        self.tracked_vms = tracked_vms(observed, durable)
        health = self._recent_health()
        down = frozenset(member for each in health for member in each.down)
        self.membership = PoolMembership.of(
            observed, durable, policy.pools, translate=translate, down=down
        )
        self.down_by_every_rule = {
            member: each.observed_at for each in health for member in each.down_by_every_rule
        }
        """The members that get nothing new, by the rules of their pools, and when that was read."""
        self.managed = frozenset(fold(pool_id) for pool_id in policy.pools)
        self.restarts = restarts_by_vm(durable, observed.document, now)
        """When events have restarted a VM, by its folded name; nothing for others."""
        self._vms = {fold(vm.name): vm for vm in self.tracked_vms}
        self._holds = {(hold.subject, hold.reason): hold.since for hold in durable.holds}
        self._impacting = _impacting_by_vm(observed.document, policy)
        self._announced = frozenset(
            fold(name)
            for document in observed.clean_documents
            for event in document.events
            for name in event.resources
            if keeps_out(event, self.entries.get(fold(name)), policy, now)
        )

    def _recent_health(self) -> tuple[PoolHealth, ...]:
        """Return what the rules report about the pools, as far as that is recent."""
        known = self.observed.health.values()
        return tuple(each for each in known if self.age_s(each.observed_at) <= HEALTH_FRESH_S)

    # --- by name ---

    def entry(self, vm: str) -> Entry | None:
        """Return the durable entry of a VM."""
        return self.entries.get(fold(vm))

    def vm(self, name: str) -> Vm | None:
        """Return a peer, or a VM of the ledger, by name."""
        return self._vms.get(fold(name))

    def nic(self, nic_id: str) -> Nic | None:
        """Return the newest view of a NIC."""
        return self.membership.nic(nic_id)

    def pool(self, pool_id: str) -> Pool | None:
        """Return the newest view of a pool."""
        return self.membership.pool(pool_id)

    def impacting(self, vm: str) -> tuple[ScheduledEvent, ...]:
        """Return the impacting events of the document that name a VM, in its order."""
        return tuple(self._impacting.get(fold(vm), ()))

    def announced(self, vm: str) -> bool:
        """Return whether an event before which a VM stays out is in one of the newest clean
        documents."""
        return fold(vm) in self._announced

    def age_s(self, at: datetime | None) -> float:
        """Return seconds since `at`; a view from the future is as good as none."""
        if at is None or at > self.now + timedelta(seconds=1):
            return float("inf")
        return (self.now - at).total_seconds()

    def is_old(self, view: Nic | Pool | None) -> bool:
        """Return whether a view is too old to record, remove or restore on."""
        return self.age_s(view.observed_at if view else None) > FRESH_S

    def proves(self, seen_at: datetime, *, since: datetime) -> bool:
        """Return whether a view is no older than `since`, and not from the future."""
        return seen_at >= since and self.age_s(seen_at) < float("inf")

    def in_s(self, seconds: float) -> datetime:
        """Return the instant this many seconds from now."""
        return self.now + timedelta(seconds=seconds)

    # --- writes ---

    @property
    def leader_since(self) -> datetime | None:
        """Since when this leader leads. With a wrong clock it recorded an instant of the future."""
        recorded, tenure_at = self.durable.leader_since, self.observed.tenure_at
        if recorded is None or tenure_at is None:
            return recorded
        return min(recorded, tenure_at)

    def last_sent(self, resource_id: str, *, since: datetime) -> datetime:
        """Return until when a write decided at `since` may have left, here or at a predecessor."""
        leader_since = self.leader_since or since
        return max(since, leader_since, self.observed.sent_at.get(fold(resource_id), since))

    def conclusive_from(self, resource_id: str, *, since: datetime) -> datetime:
        """Return from when on a view proves that a write decided at `since` does not land later.

        The view that ended a write of ours proves it at once, any other only after a while: Azure
        takes one write after the other, and a pool shows a write before it has taken effect.
        """
        sent_at = self.last_sent(resource_id, since=since)
        ended_at = self.observed.ended_at.get(fold(resource_id))
        if ended_at is not None and ended_at >= sent_at:
            return ended_at
        return sent_at + timedelta(seconds=PREDECESSOR_S)

    def missing(self, resource_id: str) -> bool:
        """Return whether a NIC, pool or VM has been absent so long that the rest goes on."""
        return self.observed.missing(resource_id)

    @cached_property
    def groups_shown_at(self) -> dict[str, datetime]:
        """When Azure last showed a NIC or pool of a resource group, by its folded id."""
        newest: dict[str, datetime] = {}
        nics = ((nic.nic_id, nic.observed_at) for nic in self.observed.nics)
        pools = ((pool.pool_id, pool.observed_at) for pool in self.observed.pools)
        for resource_id, at in (*nics, *pools):
            group = resource_group_of(resource_id)
            newest[group] = max(at, newest.get(group, at))
        return newest

    @cached_property
    def listed_nics(self) -> dict[str, frozenset[str]]:
        """The folded ids of the NICs that a pool lists, by the folded id of the pool."""
        return {
            fold(pool.pool_id): frozenset(
                fold(nic_of(member.ip_configuration_id)[0])
                for member in pool.members
                if member.ip_configuration_id
            )
            for pool in self.observed.pools
        }

    def seen(self, resource_id: str) -> bool:
        """Return whether a resource was seen, and is not absent from the newest reply about it."""
        key = fold(resource_id)
        known = self.nic(key) or self.pool(key) or self.observed.views.get(key)
        absent = ONE_REPLY.holds(self.observed.presence_of(resource_id))
        return known is not None and not absent

    def deferred(self, key: ActionKey) -> bool:
        """Return whether the action with this key failed and its back-off has not ended."""
        deferral = self.observed.deferred.get(key)
        return deferral is not None and deferral.until > self.now

    def failures(self, key: ActionKey) -> int:
        """Return how often what has this key has failed in a row."""
        deferral = self.observed.deferred.get(key)
        return deferral.attempts if deferral else self.observed.attempts.get(key, 0)

    def refusals(self, key: ActionKey) -> int:
        """Return how many of these failures depend on what was written (`portions`)."""
        return max(0, self.failures(key) - self.observed.excused.get(key, 0))

    # --- holds ---

    def held_since(self, subject: str, reason: HoldReason) -> datetime | None:
        """Return since when this is held by the durable ledger; None if it is not held."""
        return self._holds.get((subject, reason.value))

    def again_s(self, subject: str, reason: HoldReason, *, first_s: float) -> float:
        """Return how often to check what is held: the less often, the longer it lasts."""
        since = self.held_since(subject, reason) or self.now
        waited_s = (self.now - since).total_seconds()
        return min(CHECK_AGAIN_S, max(first_s, waited_s / 4))

    # --- reads ---

    def old_pools(self) -> Iterator[ReadLoadBalancer]:
        """Yield a read for every managed pool that exists and whose view is old."""
        for pool_id in self.policy.pools:
            if self.is_old(self.pool(pool_id)) and not self.missing(pool_id):
                yield ReadLoadBalancer(load_balancer_of(pool_id))


def keeps_out(event: ScheduledEvent, entry: Entry | None, policy: Policy, now: datetime) -> bool:
    """Return whether a VM of an event with this entry must not be restored while it is announced.

    An event because of which the VM was taken out may have been acknowledged, however far it is.
    """
    if policy.keeps_out(event, now):
        return True
    return entry is not None and entry.is_for(event.event_id) and policy.impacting(event)


def has_settled(entry: Entry, policy: Policy, now: datetime) -> bool:
    """Return whether what is back of an entry was restored so long ago that it serves."""
    settled = timedelta(seconds=PREDECESSOR_S + policy.restore_settle_s)
    at = entry.restoring_at if entry.restoring else None
    return at is not None and now - at >= settled


def _impacting_by_vm(
    document: EventDocument | None, policy: Policy
) -> dict[str, list[ScheduledEvent]]:
    found: dict[str, list[ScheduledEvent]] = {}
    for event in document.events if document else ():
        if policy.impacting(event):
            for name in _once(event.resources):
                found.setdefault(name, []).append(event)
    return found


def _once(names: Iterable[str]) -> Iterable[str]:
    return dict.fromkeys(fold(name) for name in names)
