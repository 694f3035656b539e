"""The ledger as its blob stores it; see `stored_json` for the rules.

Version 1.1 added `restoring_at`, 1.2 added `events`, `verdicts`, the `vms` of a hold and of the
set, and what is `lost` and `closed_at` of an entry. Empty content is an empty ledger: that is what
a new blob holds.
"""

from dataclasses import fields, replace
from datetime import datetime
from types import new_class
from typing import Annotated, Any, ClassVar, Literal, cast, get_type_hints

from pydantic import Field, PlainValidator

from controller.core.azure_names import fold
from controller.core.blob_limits import MAX_ENTRIES, MAX_HOLDS, MAX_LEDGER_BYTES
from controller.core.drain_history import Transition
from controller.core.event_record import MAX_VERDICTS, MAX_WATCHED_VMS
from controller.core.ledger import (
    MAX_TRANSITIONS,
    MINOR,
    Entry,
    EventReference,
    Hold,
    Ledger,
)
from controller.core.planning.mechanism import Mechanism
from controller.core.planning.mechanisms import MECHANISMS
from controller.core.resources import NOTHING_EXTRA, Membership
from controller.errors import ContractViolation
from controller.storage.event_record_json import StoredVerdict, StoredWatchedEvent
from controller.storage.stored_json import (
    OPTIONAL,
    Count,
    Flag,
    Instant,
    LongText,
    Stored,
    Text,
    dump,
    read,
    unexpected,
)

MAJOR = 1


class StoredEvent(Stored):
    """An event because of which a VM is out."""

    value_type = EventReference

    event_id: Text
    event_type: Text
    not_before: Instant | None = None
    acknowledged_at: Instant | None = None
    until: Instant | None = OPTIONAL


_FORMS = {str: Text, int: Count, bool: Flag, datetime: Instant}
"""How a field of a membership is stored, by its type."""


def stored_form(mechanism: Mechanism[Any]) -> type[Stored]:
    """Return the stored form of a mechanism's memberships: `kind`, then their fields in order."""
    membership = mechanism.membership_type
    types = get_type_hints(membership)
    names = [each.name for each in fields(membership) if each.name != "extra"]
    annotations = {
        "value_type": ClassVar[type[Any]],
        "kind": Literal[mechanism.name],
        **{name: _FORMS[types[name]] for name in names},
    }
    # A text without a value belongs to a later minor version, and may be missing.
    later = {each.name: "" for each in fields(membership) if each.default == ""}
    namespace = {
        **later,
        "__module__": __name__,
        "__annotations__": annotations,
        "value_type": membership,
        "kind": mechanism.name,
    }
    name = f"Stored{membership.__name__}"
    return cast(
        "type[Stored]", new_class(name, (Stored,), exec_body=lambda body: body.update(namespace))
    )


MEMBERSHIPS = {mechanism.name: stored_form(mechanism) for mechanism in MECHANISMS}
"""The stored forms of memberships, by `kind`: the name of the mechanism that changes them."""


def _membership(value: object) -> object:
    if not isinstance(value, dict):
        raise unexpected(value, "an object")
    kind = cast("dict[str, object]", value).get("kind")
    model = MEMBERSHIPS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise ValueError(f"membership kind {str(kind)[:40]!r} is unknown")
    return model.value_in(cast("object", value))


StoredMembership = Annotated[Membership, PlainValidator(_membership)]


class StoredEntry(Stored):
    """One VM that is out of rotation, or on its way."""

    value_type = Entry

    vm: Text
    vm_id: Text
    events: tuple[StoredEvent, ...]
    memberships: tuple[StoredMembership, ...]
    recorded_at: Instant
    out_at: Instant | None = None
    restoring_at: Instant | None = None
    restored_at: Instant | None = None
    gone: Flag
    lost: tuple[StoredMembership, ...] = ()
    closed_at: Instant | None = OPTIONAL
    unread_at: Instant | None = OPTIONAL


class StoredHold(Stored):
    """Something deliberately not done."""

    value_type = Hold

    subject: LongText
    reason: LongText
    message: LongText
    since: Instant
    vms: tuple[Text, ...] = ()


class StoredTransition(Stored):
    """One line of history."""

    value_type = Transition

    at: Instant
    vm: LongText
    step: LongText = Field(alias="what")
    detail: LongText


class StoredLedger(Stored):
    """The whole content of the blob."""

    value_type = Ledger

    version: Text
    epoch: Count
    leader: Text
    leader_since: Instant | None = None
    entries: tuple[StoredEntry, ...]
    holds: tuple[StoredHold, ...]
    transitions: tuple[StoredTransition, ...]
    events: tuple[StoredWatchedEvent, ...] = ()
    verdicts: tuple[StoredVerdict, ...] = ()
    set_id: Text = ""
    converted_to: Text = ""
    vms: tuple[Text, ...] = ()
    configuration: Text = ""


def encode_ledger(ledger: Ledger) -> bytes:
    """Return the ledger as JSON, with the fields of newer minor versions in their places."""
    return dump(ledger, version=f"{MAJOR}.{max(ledger.minor, MINOR)}")


def encode_bounded(ledger: Ledger) -> tuple[Ledger, bytes]:
    """Return a ledger that every agent can read again, and its JSON.

    If it is too large, the oldest lines of the history are dropped, then watched events, then the
    names of the set's VMs, then what only newer versions know. What records a removal is
    never dropped.

    Raises:
        ContractViolation: it is too large even so.
    """
    if len(ledger.entries) > MAX_ENTRIES:
        raise ContractViolation(
            f"the ledger would have {len(ledger.entries)} entries, the limit is {MAX_ENTRIES}: it "
            "is not written. End those of VMs that were deleted: lb-drain forget VM"
        )
    while len(body := encode_ledger(ledger)) > MAX_LEDGER_BYTES:
        if ledger.transitions or ledger.verdicts:
            half, rest = len(ledger.transitions) // 2 + 1, len(ledger.verdicts) // 2 + 1
            lines, verdicts = ledger.transitions[half:], ledger.verdicts[rest:]
            ledger = replace(ledger, transitions=lines, verdicts=verdicts)
        elif ledger.events:
            ledger = replace(ledger, events=ledger.events[len(ledger.events) // 2 + 1 :])
        elif ledger.vms:
            ledger = replace(ledger, vms=())
        elif ledger.extra:
            ledger = replace(ledger, extra=NOTHING_EXTRA)
        else:
            raise ContractViolation(
                f"the ledger would have {len(body)} bytes, the limit is {MAX_LEDGER_BYTES}: "
                "it is not written"
            )
    return ledger, body


def decode_ledger(body: bytes) -> Ledger:
    """Return the ledger that `body` holds.

    Raises:
        ContractViolation: the content is no ledger, or one of another major version. The message
            names the problem; the content must be left untouched.
    """
    if not body:
        return Ledger()
    value, minor = read(StoredLedger, body, what="ledger", major=MAJOR)
    ledger: Ledger = replace(
        value,
        minor=minor,
        holds=value.holds[:MAX_HOLDS],
        transitions=value.transitions[-MAX_TRANSITIONS:],
        events=value.events[:MAX_WATCHED_VMS],
        verdicts=value.verdicts[-MAX_VERDICTS:],
        vms=value.vms[:MAX_ENTRIES],
    )
    if len(ledger.entries) > MAX_ENTRIES:
        raise ContractViolation(
            f"ledger.entries: has {len(ledger.entries)} entries, the limit is {MAX_ENTRIES}"
        )
    if len({fold(entry.vm) for entry in ledger.entries}) < len(ledger.entries):
        # To keep one would lose what was removed according to the other (law S3).
        raise ContractViolation("ledger.entries: two entries for one VM")
    return ledger
