"""What a plan reports when Azure or storage has lost something that the set relies on.

These holds keep nothing waiting: the planner goes on with what it knows.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable

from controller.core.azure_names import SetKind, fold, short
from controller.core.drain_history import Step, episodes
from controller.core.planning.actions import HoldReason
from controller.core.planning.evidence import Evidence
from controller.core.planning.requests_in_force import recorded_end
from controller.core.planning.steps import HoldBack, Steps
from controller.core.planning.vm_case import VmCase

INVENTORY = "inventory"
"""The subject of a hold about the VMs of the set."""


def missing_set(evidence: Evidence) -> Steps:
    """Report that the set does not exist any more; its VMs are still managed as they are known.

    If Azure has made another set of it, the agent continues in that one as soon as it can be read.
    """
    set_id = evidence.set_id
    if not evidence.observed.set_missing(set_id):
        return
    stated = {fold(vm.set_id): vm.set_id for vm in evidence.observed.vms if vm.set_id}
    found = [stated[key] for key in sorted(stated) if key != fold(set_id)]
    names = ", ".join(f"the {SetKind.of(each).value} {short(each)}" for each in found)
    fate = f"was converted to {names}, which cannot be read yet" if names else "was deleted"
    message = (
        f"the {evidence.set_kind} {short(set_id)} {fate}: VMs that are out of rotation are "
        "restored from the ledger, and the VMs of the set are drained as they are known, while "
        "this agent runs"
    )
    yield HoldBack(subject=short(set_id), reason=HoldReason.SET_MISSING, message=message)


def unread_set(evidence: Evidence) -> Steps:
    """Report that the set cannot be read, while the VMs that are known are managed."""
    if problem := evidence.observed.set_problem:
        message = f"VMs that are added to the {evidence.set_kind} are not known: {problem}"
        yield HoldBack(subject=INVENTORY, reason=HoldReason.INVENTORY_UNREAD, message=message)


def lost_requests(cases: Iterable[VmCase]) -> Steps:
    """Report requests that the ledger records and the blob does not show."""
    for case in cases:
        if case.entry is None or not case.lost_requests or case.due:
            continue
        name = case.vm.name
        ends = max(recorded_end(case.entry, each) for each in case.lost_requests)
        message = (
            f"{name} stays out until {ends:%Y-%m-%d %H:%M} UTC: it was drained on request, and the "
            "blob with the drain requests does not show the request any more (deleted, emptied or "
            f"restored from a backup); end it with lb-drain restore {name}"
        )
        yield HoldBack(subject=name, reason=HoldReason.REQUEST_LOST, message=message)


def recovered(evidence: Evidence) -> Steps:
    """Report entries that a leader remembered when storage had lost the ledger."""
    history = evidence.durable.transitions
    if not any(line.step == Step.RECOVERED for line in history):
        return
    for entry in evidence.durable.entries:
        found = episodes(history, entry.vm)
        if found and found[-1].last(Step.RECOVERED):
            message = (
                f"the ledger was lost while {entry.vm} was drained, and was recovered from the "
                f"memory of an agent: check that {entry.vm} returns to all its pools, and find out "
                "what deleted or replaced the blob"
            )
            reason = HoldReason.LEDGER_RECOVERED
            yield HoldBack(subject=entry.vm, reason=reason, message=message)
