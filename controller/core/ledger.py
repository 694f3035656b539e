"""The ledger: what we removed, from where, because of which events. Content of the lease blob.

Rules:
- Versioned `major.minor`. A newer minor version may add fields: they are kept and written back, so
  that agents of neighbouring versions can take turns. A newer major version is refused.
- A ledger that cannot be read is never replaced by an empty one: `decode` raises and the caller
  stops writing (laws S3, S5).
- Empty content is an empty ledger: that is what a new blob holds.
- Its transitions are the journal of the set: in the same blob and under the same fence as what they
  tell of, so they survive a failover and cannot disagree with the entries. A second blob could.

Pure: standard library only, no I/O.
"""

import json
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from controller.core import strict_json
from controller.core.fields import Fields, instant_out, minor_of
from controller.core.model import (
    NOTHING_EXTRA,
    AddressMembership,
    Extra,
    Key,
    Membership,
    NicMembership,
    fold,
)
from controller.errors import ContractViolation

MAJOR, MINOR = 1, 1
MOST_TRANSITIONS = 200
"""How many transitions are remembered: a VM's whole maintenance makes six, so the last thirty of
them; at some 150 bytes each, so every write of the ledger carries 30 kB at most because of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventReference:
    """An event because of which a VM is out."""

    event_id: str
    event_type: str
    not_before: datetime | None = None
    acknowledged_at: datetime | None = None
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One VM that is out of rotation because of us, or about to be, or about to come back."""

    vm: str
    vm_id: str
    events: tuple[EventReference, ...]
    memberships: tuple[Membership, ...]
    recorded_at: datetime
    out_at: datetime | None = None
    """When the VM was observed out of every managed pool; None again before a restore is sent."""
    restoring_at: datetime | None = None
    """Since when a restore may have been sent; None while none can still land. Since minor 1."""
    restored_at: datetime | None = None
    """When every membership was observed back."""
    gone: bool = False
    """The VM was deleted while it was out; kept for the operator to see, never blocks."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    @property
    def removed(self) -> bool:
        """Tell whether every removal has taken effect: the VM was seen out, or sent back since."""
        restoring = self.restoring_at is not None and self.restoring_at > self.recorded_at
        return self.out_at is not None or restoring

    def holds(self, key: Key) -> bool:
        """Tell whether the membership with this key is recorded here."""
        return any(membership.key == key for membership in self.memberships)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Something deliberately not done, and why."""

    subject: str
    """VM name, pool id or event id."""
    reason: str
    message: str
    since: datetime
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One line of recent history."""

    at: datetime
    vm: str
    what: str
    detail: str = ""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The whole content of the blob."""

    epoch: int = 0
    """Counts acquisitions of the lease; a write of an older epoch is refused by storage."""
    leader: str = ""
    """VM whose agent wrote this."""
    leader_since: datetime | None = None
    """When that agent acquired the lease."""
    entries: tuple[Entry, ...] = ()
    holds: tuple[Hold, ...] = ()
    transitions: tuple[Transition, ...] = ()
    minor: int = MINOR
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    def entry(self, vm: str) -> Entry | None:
        """Return the entry of a VM, compared without case."""
        return next((entry for entry in self.entries if fold(entry.vm) == fold(vm)), None)

    def with_entry(self, entry: Entry) -> "Ledger":
        """Return the ledger with the entry of this VM added or replaced."""
        others = tuple(other for other in self.entries if fold(other.vm) != fold(entry.vm))
        ordered = sorted((*others, entry), key=lambda each: fold(each.vm))
        return replace(self, entries=tuple(ordered))

    def without_entry(self, vm: str) -> "Ledger":
        """Return the ledger with the entry of this VM forgotten."""
        kept = tuple(entry for entry in self.entries if fold(entry.vm) != fold(vm))
        return replace(self, entries=kept)

    def noting(self, *, at: datetime, vm: str, what: str, detail: str = "") -> "Ledger":
        """Return the ledger with a transition added, the oldest dropped beyond the limit."""
        line = Transition(at=at, vm=vm, what=what, detail=detail)
        return replace(self, transitions=(*self.transitions, line)[-MOST_TRANSITIONS:])


# --- JSON ---


def encode(ledger: Ledger) -> bytes:
    """Return the ledger as JSON, with the fields of newer minor versions in their places."""
    document: dict[str, Any] = {
        **ledger.extra,
        "version": f"{MAJOR}.{max(ledger.minor, MINOR)}",
        "epoch": ledger.epoch,
        "leader": ledger.leader,
        "leader_since": instant_out(ledger.leader_since),
        "entries": [_entry_out(entry) for entry in ledger.entries],
        "holds": [
            {
                **hold.extra,
                "subject": hold.subject,
                "reason": hold.reason,
                "message": hold.message,
                "since": instant_out(hold.since),
            }
            for hold in ledger.holds
        ],
        "transitions": [
            {
                **line.extra,
                "at": instant_out(line.at),
                "vm": line.vm,
                "what": line.what,
                "detail": line.detail,
            }
            for line in ledger.transitions
        ],
    }
    return json.dumps(document, indent=1).encode("ascii")


def decode(body: bytes) -> Ledger:
    """Return the ledger that `body` holds.

    Raises:
        ContractViolation: the content is no ledger, or one of a newer major version. The message
            says which; the content must be left untouched.
    """
    if not body:
        return Ledger()
    # The texts of errors are kept in it, and those may hold whatever came over the wire.
    fields = Fields(strict_json.loads(body, "the ledger", halves=True), "ledger")
    minor = minor_of(fields.text("version"), major=MAJOR, what="ledger")
    entries = fields.each("entries", _entry_in)
    if len({fold(entry.vm) for entry in entries}) < len(entries):
        # Keeping one would forget what was removed according to the other (law S3).
        raise ContractViolation("ledger.entries: two entries for one VM")
    return Ledger(
        epoch=fields.integer("epoch"),
        leader=fields.text("leader"),
        leader_since=fields.instant_or_none("leader_since"),
        entries=entries,
        holds=fields.each("holds", _hold_in),
        transitions=fields.each("transitions", _transition_in),
        minor=minor,
        extra=fields.rest(),
    )


def _entry_out(entry: Entry) -> dict[str, Any]:
    return {
        **entry.extra,
        "vm": entry.vm,
        "vm_id": entry.vm_id,
        "events": [
            {
                **event.extra,
                "event_id": event.event_id,
                "event_type": event.event_type,
                "not_before": instant_out(event.not_before),
                "acknowledged_at": instant_out(event.acknowledged_at),
            }
            for event in entry.events
        ],
        "memberships": [_membership_out(membership) for membership in entry.memberships],
        "recorded_at": instant_out(entry.recorded_at),
        "out_at": instant_out(entry.out_at),
        "restoring_at": instant_out(entry.restoring_at),
        "restored_at": instant_out(entry.restored_at),
        "gone": entry.gone,
    }


def _entry_in(fields: Fields) -> Entry:
    return Entry(
        vm=fields.text("vm"),
        vm_id=fields.text("vm_id"),
        events=fields.each("events", _event_in),
        memberships=fields.each("memberships", _membership_in),
        recorded_at=fields.instant("recorded_at"),
        out_at=fields.instant_or_none("out_at"),
        restoring_at=fields.instant_or_none("restoring_at"),
        restored_at=fields.instant_or_none("restored_at"),
        gone=fields.flag("gone"),
        extra=fields.rest(),
    )


def _event_in(fields: Fields) -> EventReference:
    return EventReference(
        event_id=fields.text("event_id"),
        event_type=fields.text("event_type"),
        not_before=fields.instant_or_none("not_before"),
        acknowledged_at=fields.instant_or_none("acknowledged_at"),
        extra=fields.rest(),
    )


def _hold_in(fields: Fields) -> Hold:
    return Hold(
        subject=fields.text("subject"),
        reason=fields.text("reason"),
        message=fields.text("message"),
        since=fields.instant("since"),
        extra=fields.rest(),
    )


def _transition_in(fields: Fields) -> Transition:
    return Transition(
        at=fields.instant("at"),
        vm=fields.text("vm"),
        what=fields.text("what"),
        detail=fields.text("detail"),
        extra=fields.rest(),
    )


def _membership_out(membership: Membership) -> dict[str, Any]:
    match membership:
        case NicMembership():
            return {
                **membership.extra,
                "kind": "nic",
                "pool_id": membership.pool_id,
                "nic_id": membership.nic_id,
                "ip_configuration": membership.ip_configuration,
                "position": membership.position,
            }
        case AddressMembership():
            return {
                **membership.extra,
                "kind": "address",
                "pool_id": membership.pool_id,
                "name": membership.name,
                "ip_address": membership.ip_address,
                "body": membership.body,
            }


def _membership_in(fields: Fields) -> Membership:
    kind = fields.text("kind")
    if kind == "nic":
        return NicMembership(
            pool_id=fields.text("pool_id"),
            nic_id=fields.text("nic_id"),
            ip_configuration=fields.text("ip_configuration"),
            position=fields.integer("position"),
            extra=fields.rest(),
        )
    if kind == "address":
        return AddressMembership(
            pool_id=fields.text("pool_id"),
            name=fields.text("name"),
            ip_address=fields.text("ip_address"),
            body=fields.text("body"),
            extra=fields.rest(),
        )
    raise ContractViolation(f"{fields.where}: membership kind {kind[:40]!r} is unknown")
