"""Controls as their blob stores them; see `stored_json` for the rules."""

from dataclasses import replace

from controller.core.controls import (
    MINOR,
    Controls,
    EventControl,
    HandOver,
    Override,
    Pause,
)
from controller.storage.stored_json import Flag, Instant, LongText, Stored, Text, dump, read

MAJOR = 1


class StoredPause(Stored):
    """The pause."""

    value_type = Pause

    by: LongText
    reason: LongText
    at: Instant
    until: Instant


class StoredEventControl(Stored):
    """What is decided about one event."""

    value_type = EventControl

    event_id: Text
    decision: Text
    forced: Flag
    by: LongText
    reason: LongText
    at: Instant
    until: Instant


class StoredHandOver(Stored):
    """A request for another leader."""

    value_type = HandOver

    request_id: Text
    leader: Text
    vm: Text
    by: LongText
    reason: LongText
    at: Instant
    until: Instant


class StoredOverride(Stored):
    """One setting of the whole set."""

    value_type = Override

    key: Text
    pool: Text
    value: Text
    by: LongText
    reason: LongText
    at: Instant
    until: Instant


class StoredControls(Stored):
    """The whole content of the blob."""

    value_type = Controls

    version: Text
    set_id: Text
    pause: StoredPause | None = None
    events: tuple[StoredEventControl, ...] = ()
    hand_over: StoredHandOver | None = None
    overrides: tuple[StoredOverride, ...] = ()


def encode_controls(controls: Controls) -> bytes:
    """Return the controls as JSON, with the fields of newer minor versions in their places."""
    return dump(controls, version=f"{MAJOR}.{max(controls.minor, MINOR)}")


def decode_controls(body: bytes) -> Controls:
    """Return the controls that `body` holds; empty content holds none.

    Raises:
        ContractViolation: the content is something else, or of another major version.
    """
    if not body:
        return Controls()
    value, minor = read(StoredControls, body, what="controls", major=MAJOR)
    controls: Controls = replace(value, minor=minor)
    return controls
