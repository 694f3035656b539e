"""What the history notes of the VM's own side: that a VM closed, and that it opened again.

A standby reads no reports; it knows from these lines which VMs are closed. Each line is noted once
per drain: only while the history still has the line of the record, which is older, so that a line
which the bounded history has dropped is not noted again (law H1).

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable

from controller.core.azure_names import fold
from controller.core.drain_history import Step, Transition
from controller.core.ledger import Entry
from controller.core.planning.closing import current_report
from controller.core.planning.evidence import Evidence
from controller.core.planning.steps import Note, Steps
from controller.core.vm_report import VmState, left_text

RECORDS = frozenset({Step.RECORDED, Step.PUT_BACK})
"""The steps with which an entry begins to name memberships that are about to be removed."""


def steps(evidence: Evidence) -> Steps:
    """Note for every recorded VM, once, that it closed and that it opened again."""
    for entry in evidence.durable.entries:
        report = current_report(evidence, entry)
        if report is None or report.state is VmState.OPENING:
            continue
        noted = noted_since_record(evidence.durable.transitions, entry)
        if report.state is VmState.CLOSED and not entry.over:
            if noted and Step.CLOSED not in noted:
                yield Note(vm=entry.vm, step=Step.CLOSED, detail=left_text(report))
        elif report.state is VmState.OPEN and Step.CLOSED in noted and Step.OPENED not in noted:
            yield Note(vm=entry.vm, step=Step.OPENED, detail=report.problem)


def noted_since_record(lines: Iterable[Transition], entry: Entry) -> frozenset[str]:
    """Return the steps of a VM since its entry was recorded; none if the history lost that line."""
    found: set[str] = set()
    for line in lines:
        records = line.at == entry.recorded_at and line.step in RECORDS
        if fold(line.vm) == fold(entry.vm) and (found or records):
            found.add(line.step)
    return frozenset(found)
