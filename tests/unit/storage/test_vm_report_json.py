"""A VM's report in its blob: read back as written, and refused when it is something else."""

import json
from typing import Any

import pytest

from controller.core.blob_limits import MAX_TEXT_CHARACTERS
from controller.core.vm_report import HookOutcome, VmReport, VmState
from controller.errors import ContractViolation
from controller.storage.vm_report_json import MAX_BODY_BYTES, decode_report, encode_report
from controller.storage.vm_report_store import vm_report_blob_name
from tests.support.planner_scenario import at

REPORT = VmReport(
    vm="web-1",
    boot_id="boot",
    state=VmState.CLOSED,
    since=at(1),
    at=at(2),
    drain=at(0),
    quiet_since=at(2),
    connections=0,
    counted=True,
    refused_probes=3,
    probe_port=9810,
    hook=HookOutcome.DONE,
)


@pytest.mark.parametrize(
    "report",
    [
        REPORT,
        VmReport(vm="web-1", boot_id="", state=VmState.OPEN, since=at(1), at=at(2)),
    ],
)
def test_a_report_is_read_as_it_was_written(report: VmReport) -> None:
    """Every field survives."""
    assert decode_report(encode_report(report)) == report


def test_a_newer_minor_version_can_be_read() -> None:
    """Fields that this agent does not know mean nothing to it; nor does a new hook outcome."""
    document = {**json.loads(encode_report(REPORT)), "version": "1.7", "sessions": 9, "hook": "new"}
    read = decode_report(json.dumps(document).encode())
    assert (read.state, read.hook) == (VmState.CLOSED, HookOutcome.NONE)


@pytest.mark.parametrize(
    "change",
    [
        {"state": "ajar"},
        {"state": None},
        {"since": "yesterday"},
        {"connections": -1},
        {"connections": "many"},
        {"connections": 10**40},
        {"refused_probes": 10**40},
        {"refused_probes": True},
        {"at": "0000-00-00T00:00:00Z"},
        {"since": "99999-01-01T00:00:00Z"},
        {"probe_port": 70_000},
        {"counted": 1},
        {"version": "2.0"},
        {"vm": 7},
        {"vm": "x" * 20_000},
    ],
)
def test_what_is_no_report_is_refused(change: dict[str, Any]) -> None:
    """Any identity that can write the container can write it: nothing is guessed."""
    document = {**json.loads(encode_report(REPORT)), **change}
    with pytest.raises(ContractViolation):
        decode_report(json.dumps(document).encode())


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b"x" * (MAX_BODY_BYTES + 1)])
def test_other_content_is_refused(body: bytes) -> None:
    """Garbage and megabytes alike."""
    with pytest.raises(ContractViolation):
        decode_report(body)


def test_texts_are_cut_and_printable() -> None:
    """A problem is text for people, and may come from another writer."""
    document = {**json.loads(encode_report(REPORT)), "problem": "\x1b[2J" + "x" * 5000}
    problem = decode_report(json.dumps(document).encode()).problem
    assert len(problem) <= MAX_TEXT_CHARACTERS
    assert "\x1b" not in problem


def test_the_blob_is_beside_the_ledger() -> None:
    """One blob for each VM, whichever way its name is spelled."""
    assert vm_report_blob_name("sub/rg/web.json", "Web-1") == "sub/rg/web.vms/web-1.json"
