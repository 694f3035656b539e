"""What people see of a VM's own side of a drain, from its report or else from the ledger.

Pure: no I/O, no clock.
"""

from collections.abc import Iterable

from controller.core.azure_names import fold
from controller.core.drain_history import Step, Transition, episodes
from controller.core.ledger import Entry, Ledger
from controller.core.vm_report import VmReport, VmState, report_text
from controller.status.overview_schema import ClosingView
from controller.status.state_json import instant

STATES = {Step.CLOSED: VmState.CLOSED, Step.OPENED: VmState.OPEN}
"""The state of a VM after a line of the history."""


def closing_view(ledger: Ledger, vm: str, report: VmReport | None) -> ClosingView | None:
    """Return what is known of the side of one VM; None while it takes part in no drain.

    Args:
        ledger: the ledger, as this agent knows it.
        vm: the VM.
        report: its newest report, where this agent reads reports or is the VM itself.
    """
    entry = ledger.entry(vm)
    if report is not None and is_about(report, entry):
        return report_view(report)
    if entry is None:
        return None
    found = episodes(ledger.transitions, vm)
    line = _last_line(found[-1].lines if found else ())
    return _line_view(line) if line is not None else None


def is_about(report: VmReport, entry: Entry | None) -> bool:
    """Return whether a report is about a drain that is going on."""
    if entry is None:
        return report.state is not VmState.OPEN
    return report.drain == entry.recorded_at


def report_view(report: VmReport) -> ClosingView:
    """Return a report."""
    counted = report.counted and report.state is not VmState.OPEN
    return ClosingView(
        state=report.state.value,
        since=instant(report.since),
        reported_at=instant(report.at),
        quiet=report.quiet,
        connections_left=report.connections if counted else None,
        refused_probes=report.refused_probes if report.probe_port else None,
        hook=report.hook.value,
        problem=report.problem,
        text=report_text(report),
    )


def _last_line(lines: Iterable[Transition]) -> Transition | None:
    return next((each for each in reversed(tuple(lines)) if each.step in tuple(STATES)), None)


def _line_view(line: Transition) -> ClosingView:
    state = STATES[Step(line.step)]
    detail = f", {line.detail}" if line.detail else ""
    return ClosingView(
        state=state.value,
        since=instant(line.at),
        reported_at=instant(line.at),
        quiet=None,
        connections_left=None,
        refused_probes=None,
        hook="",
        problem="",
        text=f"{state.value} since {line.at:%H:%M:%S} UTC{detail}",
    )


def texts(ledger: Ledger, reports: Iterable[VmReport]) -> dict[str, str]:
    """Return the view of every recorded VM in words, by name, where there is one."""
    known = {fold(each.vm): each for each in reports}
    views = {
        entry.vm: closing_view(ledger, entry.vm, known.get(fold(entry.vm)))
        for entry in ledger.entries
    }
    return {vm: view["text"] for vm, view in views.items() if view is not None}
