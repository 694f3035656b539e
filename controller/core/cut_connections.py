"""How many connections a removal or the start of an event cuts, by the last report of the VM.

A VM that closed and is removed, or whose event starts, before its connections have ended, cuts what
is left. The history and the verdict state the number.

Pure: standard library only, no I/O, no clock.
"""

from dataclasses import replace

from controller.core.azure_names import fold
from controller.core.drain_history import Step, connections_cut, cut_text
from controller.core.event_record import WatchedEvent, WatchedVm
from controller.core.ledger import Entry, Ledger
from controller.core.observation import Observation
from controller.core.verdict_rules import NOT_IN_TIME


def cut_now(observed: Observation, entry: Entry) -> int:
    """Return how many connections end now that a VM is removed or its event starts.

    The last report counts, however old it is: there is no newer one.
    """
    report = observed.report_about(entry)
    return report.left if report is not None else 0


def cut_by_start(
    event: WatchedEvent, ledger: Ledger, observed: Observation
) -> tuple[WatchedEvent, str]:
    """Return an event that starts now, with what it cuts noted at its VMs, and as a detail."""
    vms, total = list(event.vms), 0
    for order, vm in enumerate(vms):
        entry = ledger.entry(vm.vm)
        if entry is not None and not entry.over and entry.out_at is None:
            cut = cut_now(observed, entry)
            vms[order] = replace(vm, why=also_cut(vm.why or NOT_IN_TIME, cut)) if cut else vm
            total += cut
    detail = f", {cut_text(total)}" if total else ""
    return replace(event, vms=tuple(vms)), detail


def cut_by_removal(vm: WatchedVm, ledger: Ledger) -> int:
    """Return how many connections were left when a VM was out, by the history."""
    lines = (
        line.detail
        for line in ledger.transitions
        if line.step == Step.OUT and line.at == vm.out_at and fold(line.vm) == fold(vm.vm)
    )
    return max(map(connections_cut, lines), default=0)


def also_cut(why: str, connections: int) -> str:
    """Return a reason that also states how many connections were cut, if it does not yet."""
    if not connections or connections_cut(why):
        return why
    return "; ".join(filter(None, (why, cut_text(connections))))
