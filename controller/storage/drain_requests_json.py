"""Drain requests as their blob stores them; see `stored_json` for the rules.

Version 1.1 added `request_id` to the rolling run, and `forgets`; version 1.2 `event` and `forced`.
"""

from dataclasses import replace

from pydantic import Field

from controller.core.drain_requests import (
    MINOR,
    DrainRequest,
    DrainRequests,
    ForgetRequest,
    RehearsedEvent,
    RollingRun,
)
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
)

MAJOR = 1


class StoredRehearsedEvent(Stored):
    """An event that only agents see."""

    value_type = RehearsedEvent

    event_id: Text
    event_type: Text
    not_before: Instant


class StoredRequest(Stored):
    """One drain request."""

    value_type = DrainRequest

    request_id: Text
    vm: Text
    reason: LongText
    by: LongText
    at: Instant
    until: Instant
    ended_at: Instant | None = None
    ended_by: LongText
    event: StoredRehearsedEvent | None = OPTIONAL
    forced: Flag = Field(default=False, json_schema_extra={"optional": True})


class StoredRollingRun(Stored):
    """The newest rolling run."""

    value_type = RollingRun

    run_id: Text = Field(alias="roll_id")
    what: LongText
    vms: tuple[Text, ...]
    done: tuple[Text, ...]
    by: LongText
    at: Instant
    process_id: Text = Field(alias="runner")
    heartbeat: Count = Field(alias="beat")
    failed: LongText
    ended_at: Instant | None = None
    request_id: Text = ""


class StoredForgetRequest(Stored):
    """What an operator gives up."""

    value_type = ForgetRequest

    vm: Text
    recorded_at: Instant
    by: LongText
    at: Instant


class StoredRequests(Stored):
    """The whole content of the blob."""

    value_type = DrainRequests

    version: Text
    requests: tuple[StoredRequest, ...]
    roll: StoredRollingRun | None = None
    forgets: tuple[StoredForgetRequest, ...] = ()
    set_id: Text = ""


def encode_requests(requests: DrainRequests) -> bytes:
    """Return the requests as JSON, with the fields of newer minor versions in their places."""
    return dump(requests, version=f"{MAJOR}.{max(requests.minor, MINOR)}")


def decode_requests(body: bytes) -> DrainRequests:
    """Return the requests that `body` holds; empty content holds none.

    Raises:
        ContractViolation: the content is something else, or of another major version.
    """
    if not body:
        return DrainRequests()
    value, minor = read(StoredRequests, body, what="requests", major=MAJOR)
    requests: DrainRequests = replace(value, minor=minor)
    return requests
