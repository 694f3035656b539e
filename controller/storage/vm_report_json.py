"""A VM's report as its blob stores it; see `stored_json` for the rules."""

from dataclasses import replace
from typing import Annotated

from pydantic import Field, PlainValidator

from controller.core.vm_report import MINOR, HookOutcome, VmReport, VmState
from controller.errors import ContractViolation
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
MAX_BODY_BYTES = 64 * 1024
"""A report has less than 1 kB."""


def _state(value: object) -> VmState:
    if isinstance(value, str) and value in set(VmState):
        return VmState(value)
    raise ValueError(f"state {str(value)[:40]!r} is unknown")


def _outcome(value: object) -> HookOutcome:
    """Return the outcome of a hook; one of a newer version means nothing here."""
    if isinstance(value, str) and value in set(HookOutcome):
        return HookOutcome(value)
    return HookOutcome.NONE


class StoredReport(Stored):
    """The whole content of the blob."""

    value_type = VmReport

    version: Text
    vm: Text
    boot_id: Text
    state: Annotated[VmState, PlainValidator(_state)]
    since: Instant
    at: Instant
    drain: Instant | None = OPTIONAL
    quiet_since: Instant | None = OPTIONAL
    connections: Count
    counted: Flag
    refused_probes: Count
    probe_port: Annotated[int, Field(strict=True, ge=0, le=65535)]
    hook: Annotated[HookOutcome, PlainValidator(_outcome)]
    problem: LongText


def encode_report(report: VmReport) -> bytes:
    """Return the report as JSON."""
    return dump(report, version=f"{MAJOR}.{MINOR}")


def decode_report(body: bytes) -> VmReport:
    """Return the report that `body` holds.

    Raises:
        ContractViolation: the content is something else, too large, or of another major version.
    """
    if len(body) > MAX_BODY_BYTES:
        raise ContractViolation(f"report: {len(body)} bytes, the limit is {MAX_BODY_BYTES}")
    report: VmReport = replace(read(StoredReport, body, what="report", major=MAJOR)[0])
    return report
