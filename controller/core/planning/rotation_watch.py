"""Watching VMs that are out: another client can put one back at any time (laws S1, S7).

A deployment tool, a reconciling operator or a person writes a NIC or a pool that lists the VM. The
VM is then taken out again, so the pools are read again and again while a VM is out. One read of a
load balancer shows all VMs, so the number of reads does not grow with the number of VMs that are
out.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable

from controller.core.events import EventStatus
from controller.core.planning.evidence import Evidence
from controller.core.planning.steps import Start, Steps, WakeAt
from controller.core.planning.vm_case import VmCase

PENDING_S = 15.0
"""Seconds between two reads while an event is announced for a VM that is out."""
SOON_S = 10.0
"""The same in the last minute before NotBefore."""
LAST_MINUTE_S = 60.0
STARTED_S = 30.0
"""The same while an event for every such VM has started."""
REQUESTED_S = 60.0
"""The same for VMs that are out only because of drain requests."""


def steps(cases: Iterable[VmCase], evidence: Evidence) -> Steps:
    """Plan the reads that show whether a VM that is out was put back, when they are due."""
    for case in cases:
        entry = case.entry
        if entry is None or entry.out_at is None or case.inside:
            continue
        period_s = _period_s(case, evidence)
        if period_s is None:
            continue
        for proof in evidence.rotation_views(case.vm, entry, within_s=period_s):
            age_s = evidence.views.age_s(proof.seen_at)
            if age_s >= period_s:
                yield Start(proof.read)
            else:
                yield WakeAt(evidence.views.in_s(period_s - age_s))


def _period_s(case: VmCase, evidence: Evidence) -> float | None:
    """Return the seconds between two reads; None while nothing wants the VM out."""
    pending = [each for each in case.events if each.status is not EventStatus.STARTED]
    if pending:
        starts = [event.not_before for event in pending if event.not_before is not None]
        soon = evidence.views.in_s(LAST_MINUTE_S)
        return SOON_S if any(at <= soon for at in starts) else PENDING_S
    if case.events:
        return STARTED_S
    return REQUESTED_S if case.must_leave else None
