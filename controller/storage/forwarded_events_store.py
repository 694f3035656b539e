"""The blobs in which agents forward events, beside the ledger: one writer each, the VM's agent."""

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from controller.core.azure_names import fold
from controller.core.blob_limits import MAX_COUNT
from controller.core.forwarded_events import MINOR, ForwardedEvent, ForwardedEvents
from controller.errors import ContractViolation
from controller.storage.stored_json import OPTIONAL, Instant, Stored, Text, dump, read

MAJOR = 1
MAX_BODY_BYTES = 256 * 1024
ENDING = ".events.json"


class StoredForwardedEvent(Stored):
    """One event."""

    value_type = ForwardedEvent

    event_id: Text
    event_type: Text
    status: Text
    source: Text
    not_before: Instant | None = OPTIONAL
    duration_s: Annotated[int, Field(strict=True, ge=-1, le=MAX_COUNT)] = -1
    vms: tuple[Text, ...] = ()


class StoredForwardedEvents(Stored):
    """The whole content of the blob."""

    value_type = ForwardedEvents

    version: Text
    vm: Text
    at: Instant
    events: tuple[StoredForwardedEvent, ...] = ()


def bounded(found: ForwardedEvents) -> ForwardedEvents:
    """Return as much as a leader reads: content that is too large is refused as a whole.

    The other VMs of an event are left out first, whose agents forward it too; then the last events.
    """

    def is_too_large() -> bool:
        return len(encode_forwarded(found)) > MAX_BODY_BYTES

    if is_too_large():
        own = fold(found.vm)
        events = (
            replace(each, vms=(found.vm,)) if own in map(fold, each.vms) else each
            for each in found.events
        )
        found = replace(found, events=tuple(events))
    while found.events and is_too_large():
        found = replace(found, events=found.events[: len(found.events) // 2])
    return found


def forwarded_folder(ledger_name: str) -> str:
    """Return how the names of these blobs begin, from the name of the ledger's blob."""
    return f"{ledger_name.removesuffix('.json')}.vms/"


def forwarded_blob_name(ledger_name: str, vm: str) -> str:
    """Return the name of the blob of a VM."""
    return f"{forwarded_folder(ledger_name)}{fold(vm)}{ENDING}"


def encode_forwarded(found: ForwardedEvents) -> bytes:
    """Return the events as JSON."""
    return dump(found, version=f"{MAJOR}.{MINOR}")


def decode_forwarded(body: bytes, blob_name: str) -> ForwardedEvents:
    """Return the events in `body`.

    Raises:
        ContractViolation: the content is something else, or speaks for another VM.
    """
    if len(body) > MAX_BODY_BYTES:
        raise ContractViolation(f"forwarded events: more than {MAX_BODY_BYTES} bytes")
    found: ForwardedEvents = read(
        StoredForwardedEvents, body, what="forwarded events", major=MAJOR
    )[0]
    if not blob_name.endswith(f"/{fold(found.vm)}{ENDING}"):
        raise ContractViolation(f"the blob {blob_name} has events of {found.vm[:64]}")
    return found
