"""The ledger: what was removed, from which pools and because of which events; in the lease blob.

Rules:
- Versioned `major.minor`. A newer minor version may add fields: they are kept and written back, so
  that agents of neighbouring versions can take turns. A newer major version is refused.
- A ledger that cannot be read is never replaced by an empty one (laws S3, S5).
- Its transitions are the journal of the set. They are in the same blob and under the same fence as
  the entries, so they survive a failover and cannot disagree with the entries.

Pure: standard library only, no I/O.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from controller.core.azure_names import fold
from controller.core.blob_limits import MAX_MESSAGE_CHARACTERS, shorten
from controller.core.drain_history import Step, Transition
from controller.core.event_record import EventVerdict, WatchedEvent
from controller.core.events import HasEventId, may_be_same
from controller.core.resources import (
    NOTHING_EXTRA,
    Extra,
    Membership,
    MembershipKey,
)

MINOR = 2
"""The minor version of the format that this agent writes."""
MAX_TRANSITIONS = 200
"""How many transitions are kept. A drain episode has about eight, so about 25 episodes fit. With
some 150 bytes each they add at most 30 kB to every write of the ledger."""


CLOCK_SKEW = timedelta(seconds=5)
"""How far the corrected clocks of two agents can differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventReference:
    """An event because of which a VM is out."""

    event_id: str
    event_type: str
    not_before: datetime | None = None
    acknowledged_at: datetime | None = None
    until: datetime | None = None
    """When a drain request ends by itself, as last recorded. Since minor 2; None for an event."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One VM that the agents drained, are about to drain, or are about to restore."""

    vm: str
    vm_id: str
    events: tuple[EventReference, ...]
    memberships: tuple[Membership, ...]
    recorded_at: datetime
    out_at: datetime | None = None
    """When the VM was observed out of every managed pool; None again before a restore is sent."""
    closed_at: datetime | None = None
    """Since when the VM is proven closed and quiet, in its pools or not. Since minor
    2."""
    unread_at: datetime | None = None
    """When it was recorded to close the VM although its pools or NICs could not be read. No removal
    is sent before they were read and this is None again. Since minor 2."""
    restoring_at: datetime | None = None
    """Since when a restore may have been sent; None while none can still land. Since minor 1."""
    restored_at: datetime | None = None
    """When every membership was observed back."""
    gone: bool = False
    """The VM was deleted while it was out. The entry stays for the operator and blocks nothing."""
    lost: tuple[Membership, ...] = ()
    """Removed, but the place (pool, NIC, ipConfiguration, entry name) is absent. Such a membership
    is restored when its place exists again, and dropped only on request. Since minor 2."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    def is_for(self, event_id: str) -> bool:
        """Return whether the VM is recorded because of this event, compared without case."""
        return any(fold(each.event_id) == fold(event_id) for each in self.events)

    @property
    def removed(self) -> bool:
        """Return whether every removal took effect: the VM was seen out, or a restore was sent."""
        return self.out_at is not None or self.restoring

    @property
    def restoring(self) -> bool:
        """Return whether a restore has begun since the record; one of before can still land."""
        return self.restoring_at is not None and self.restoring_at > self.recorded_at

    @property
    def parked(self) -> bool:
        """Return whether only lost memberships are left: the drain is over, nothing can be done."""
        return not self.memberships

    @property
    def over(self) -> bool:
        """Return whether everything that can be restored was seen restored."""
        return self.restored_at is not None or self.parked

    @property
    def waits_for_place(self) -> bool:
        """Return whether nothing can be done until something that is absent exists again."""
        return self.gone or self.parked

    def holds(self, key: MembershipKey) -> bool:
        """Return whether the membership with this key is recorded here."""
        return any(membership.key == key for membership in self.memberships)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Something deliberately not done, and why."""

    subject: str
    """VM name, pool id or event id."""
    reason: str
    message: str
    since: datetime
    vms: tuple[str, ...] = ()
    """The VMs that it concerns, if the subject is none. Since minor 2."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    def __post_init__(self) -> None:
        """Keep the texts short and printable."""
        shorten(self, "subject", "reason")
        shorten(self, "message", limit=MAX_MESSAGE_CHARACTERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The whole content of the blob."""

    epoch: int = 0
    """Counts acquisitions of the lease; a write of an older epoch is refused by storage."""
    leader: str = ""
    """The VM of the agent that wrote this."""
    leader_since: datetime | None = None
    """When that agent acquired the lease."""
    entries: tuple[Entry, ...] = ()
    holds: tuple[Hold, ...] = ()
    transitions: tuple[Transition, ...] = ()
    events: tuple[WatchedEvent, ...] = ()
    """The events that are announced, or that lack a verdict. Since minor 2."""
    verdicts: tuple[EventVerdict, ...] = ()
    """What became of events, oldest first. Since minor 2."""
    set_id: str = ""
    """The id of the set for which the ledger was begun, folded; empty in a ledger of an older
    version. Since minor 2."""
    converted_to: str = ""
    """The id of the set that Azure has made of it, folded: the VMs are in that one now. Empty if
    the set of `set_id` was not converted. Since minor 2."""
    vms: tuple[str, ...] = ()
    """The folded names of the VMs of an availability set, as the agent knew them that opened the
    ledger last: an agent of a scale set recognizes the ledger of its VMs by them. Since minor 2."""
    configuration: str = ""
    """A digest of the configuration of the agent that wrote this. Since minor 2."""
    minor: int = MINOR
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    def entry(self, vm: str) -> Entry | None:
        """Return the entry of a VM, compared without case."""
        return next((entry for entry in self.entries if fold(entry.vm) == fold(vm)), None)

    @property
    def present_set_id(self) -> str:
        """The id of the set that the VMs are in now, as far as a leader has read it."""
        return self.converted_to or self.set_id

    def in_set(self, set_id: str) -> "Ledger":
        """Return the ledger of the set that its VMs were found in; the same one if it was known.

        A ledger that names no set stays so: only its owner claims it.
        """
        if not self.set_id or not set_id or fold(set_id) == fold(self.present_set_id):
            return self
        converted_to = "" if fold(set_id) == fold(self.set_id) else fold(set_id)
        return replace(self, converted_to=converted_to)

    @property
    def waits_for_reads(self) -> bool:
        """Return whether the verdict on an event that has begun waits for where a VM was."""
        return any(event.waits_for_reads for event in self.events)

    @property
    def pool_ids(self) -> tuple[str, ...]:
        """The ids of the pools that the entries name."""
        return tuple(
            membership.pool_id
            for entry in self.entries
            for membership in (*entry.memberships, *entry.lost)
        )

    def verdict(
        self, event_id: str, vm: str, *, since: datetime | None = None
    ) -> EventVerdict | None:
        """Return the newest verdict of an event for a VM, compared without case."""
        key = (fold(event_id), fold(vm))
        found = (each for each in self.verdicts if (fold(each.event_id), fold(each.vm)) == key)
        return next(
            (each for each in reversed(tuple(found)) if since is None or each.at >= since), None
        )

    def with_entry(self, entry: Entry) -> "Ledger":
        """Return the ledger with the entry of this VM added or replaced."""
        others = tuple(other for other in self.entries if fold(other.vm) != fold(entry.vm))
        ordered = sorted((*others, entry), key=lambda each: fold(each.vm))
        return replace(self, entries=tuple(ordered))

    def without_entry(self, vm: str) -> "Ledger":
        """Return the ledger without the entry of this VM."""
        kept = tuple(entry for entry in self.entries if fold(entry.vm) != fold(vm))
        return replace(self, entries=kept)

    def clamped(self, now: datetime) -> "Ledger":
        """Return the ledger with its future instants set to now; the same one if it has none.

        A leader whose clock was wrong, or a writer of the container, can have put such instants
        there. An instant that is yet to come would be waited for, and an event that began in the
        future would find its VM out in time. The history and the tenure of the leader stay as they
        were written: they show which of two ledgers is newer.
        """
        latest = now + CLOCK_SKEW

        def past(at: datetime | None) -> datetime | None:
            return now if at is not None and at > latest else at

        entries = tuple(
            replace(
                entry,
                recorded_at=past(entry.recorded_at) or now,
                out_at=past(entry.out_at),
                closed_at=past(entry.closed_at),
                unread_at=past(entry.unread_at),
                restoring_at=past(entry.restoring_at),
                restored_at=past(entry.restored_at),
            )
            for entry in self.entries
        )
        holds = tuple(replace(hold, since=past(hold.since) or now) for hold in self.holds)
        events = tuple(
            replace(
                event,
                first_seen_at=past(event.first_seen_at) or now,
                watched_at=past(event.watched_at),
                started_at=past(event.started_at),
                gone_at=past(event.gone_at),
                vms=tuple(replace(vm, out_at=past(vm.out_at)) for vm in event.vms),
            )
            for event in self.events
        )
        verdicts = tuple(
            replace(
                each,
                at=past(each.at) or now,
                started_at=past(each.started_at),
                out_at=past(each.out_at),
            )
            for each in self.verdicts
        )
        clamped = replace(self, entries=entries, holds=holds, events=events, verdicts=verdicts)
        return self if clamped == self else clamped

    def acknowledged_at(self, sent: Mapping[str, datetime] | None = None) -> dict[str, datetime]:
        """Return when events were acknowledged last, by folded id, as far as it is known.

        The history is bounded, and an entry is deleted when its VM is in service again.

        Args:
            sent: those that entries and history need not show yet, by folded id.
        """
        noted = ((x.detail, x.at) for x in self.transitions if x.step == Step.ACKNOWLEDGED)
        kept = ((x.event_id, x.acknowledged_at) for each in self.entries for x in each.events)
        found = dict(sent or {})
        for event_id, at in (*noted, *kept):
            if at is not None:
                found[fold(event_id)] = max(at, found.get(fold(event_id), at))
        return found

    def acknowledgement_of(
        self, event: HasEventId, times: Mapping[str, datetime]
    ) -> datetime | None:
        """Return when an event was acknowledged; None if that was an earlier one with its id.

        An earlier one has a verdict since.

        Args:
            event: the event.
            times: when events were acknowledged, by folded id.
        """
        at = times.get(fold(event.event_id))
        earlier = at is not None and any(
            each.at >= at
            and fold(each.event_id) == fold(event.event_id)
            and not may_be_same(each, event)
            for each in self.verdicts
        )
        return None if earlier else at

    def noting(self, *, at: datetime, vm: str, step: Step, detail: str = "") -> "Ledger":
        """Return the ledger with a transition added, the oldest dropped beyond the limit."""
        line = Transition(at=at, vm=vm, step=step, detail=detail)
        return replace(self, transitions=(*self.transitions, line)[-MAX_TRANSITIONS:])
