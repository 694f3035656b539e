"""Deadlines at risk, and the VM that has been out of rotation for the longest time.

Derived on every pass, like the phases, from the same document, ledger and policy. Decides nothing:
no write depends on it.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.core.azure_names import fold
from controller.core.events import EventDocument, EventStatus, ScheduledEvent
from controller.core.ledger import Ledger
from controller.core.planning.actions import Phase, Plan
from controller.core.policy import Policy
from controller.core.rehearsals import is_test

AT_RISK_S = 120.0
"""A VM that is still in rotation this long before NotBefore is at risk, in seconds. A removal takes
less than a minute."""

NOT_OUT = frozenset({Phase.DRAIN_DUE, Phase.DRAINING, Phase.HELD})
"""The phases of a VM that is due and not out of rotation yet."""


@dataclass(frozen=True, slots=True)
class DeadlineRisk:
    """VMs that are due and not out of rotation."""

    vms: tuple[str, ...] = ()
    """The VMs whose maintenance may begin before they are out, or has begun."""
    next_not_before: datetime | None = None
    """The earliest NotBefore of the due VMs; None if no VM waits for one."""


def deadline_risk(
    plan: Plan, ledger: Ledger, document: EventDocument | None, policy: Policy, now: datetime
) -> DeadlineRisk:
    """Return the VMs that maintenance may affect while they are in rotation.

    With a lead time below four minutes a VM is at risk in the second half of it; otherwise every
    drain would count as a risk. The event of a rehearsal is none.
    """
    at_risk = timedelta(seconds=min(AT_RISK_S, policy.lead_time_s / 2))
    vms: dict[str, str] = {}
    deadlines: list[datetime] = []
    for event in document.events if document else ():
        if is_test(event.event_id) or not policy.is_due(event, now):
            continue
        for vm in _not_out(plan, ledger, event):
            started = event.status is not EventStatus.SCHEDULED
            if started or event.not_before is None or event.not_before - now < at_risk:
                vms.setdefault(fold(vm), vm)
            if not started and event.not_before is not None:
                deadlines.append(event.not_before)
    return DeadlineRisk(tuple(vms[name] for name in sorted(vms)), min(deadlines, default=None))


def oldest_drain_start(ledger: Ledger) -> datetime | None:
    """Return when the oldest drain in progress was recorded; None if no VM is out.

    A deleted VM does not count: it does not come back, and a hold reports it.
    """
    out = (e.recorded_at for e in ledger.entries if not e.gone and not e.over)
    return min(out, default=None)


def _not_out(plan: Plan, ledger: Ledger, event: ScheduledEvent) -> Iterator[str]:
    """Return the VMs of an event that are due and not known to be out of rotation.

    Without phases the set was not read yet: a VM that the ledger does not record as out may be in
    rotation. Machines outside the set have no phase and are ignored.
    """
    phases = {fold(each.vm): each.phase for each in plan.phases}
    for vm in event.resources:
        entry = ledger.entry(vm)
        recorded_out = entry is not None and entry.out_at is not None
        if phases.get(fold(vm)) in NOT_OUT or (not phases and not recorded_out):
            yield vm
