"""What a person has to be told before it is too late: deadlines in danger, and VMs out for long.

Derived on every pass, like the phases, from the same document, ledger and policy. Decides nothing:
no write depends on it.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.core.actions import Phase, Plan
from controller.core.ledger import Ledger
from controller.core.model import EventDocument, EventStatus, Policy, ScheduledEvent, fold

AT_RISK_S = 120.0
"""A removal takes less than a minute; who is not out so long before NotBefore is in danger."""

NOT_OUT = frozenset({Phase.DRAIN_DUE, Phase.DRAINING, Phase.HELD})
"""Where a VM can be that is due and not out yet."""


@dataclass(frozen=True, slots=True)
class Risk:
    """VMs that are due and not out of rotation."""

    vms: tuple[str, ...] = ()
    """Those whose maintenance may begin before they are out, or has begun."""
    next_not_before: datetime | None = None
    """The earliest NotBefore of all that are due; None when nobody waits for one."""


def risk(
    plan: Plan, ledger: Ledger, document: EventDocument | None, policy: Policy, now: datetime
) -> Risk:
    """Return who may be hit by maintenance while in rotation.

    Of a lead time shorter than four minutes half is danger, or an ordinary drain would be.
    """
    danger = timedelta(seconds=min(AT_RISK_S, policy.lead_time_s / 2))
    vms: dict[str, str] = {}
    deadlines: list[datetime] = []
    for event in document.events if document else ():
        if not _due(event, policy, now):
            continue
        for vm in _not_out(plan, ledger, event):
            started = event.status is not EventStatus.SCHEDULED
            if started or event.not_before is None or event.not_before - now < danger:
                vms.setdefault(fold(vm), vm)
            if not started and event.not_before is not None:
                deadlines.append(event.not_before)
    return Risk(tuple(vms[name] for name in sorted(vms)), min(deadlines, default=None))


def oldest_entry(ledger: Ledger) -> datetime | None:
    """Return since when the VM that has been out for longest is recorded; None if none is out.

    A deleted VM does not count: it will not come back, and is held for that reason.
    """
    out = (e.recorded_at for e in ledger.entries if not e.gone and e.restored_at is None)
    return min(out, default=None)


def _due(event: ScheduledEvent, policy: Policy, now: datetime) -> bool:
    if event.status is EventStatus.UNKNOWN or not policy.impacting(event):
        return False
    at = policy.drain_at(event)
    return at is None or at <= now


def _not_out(plan: Plan, ledger: Ledger, event: ScheduledEvent) -> Iterator[str]:
    """The resources of an event that are not known to be out; strangers are not ours to judge.

    Without phases nothing could be read yet, and who is not known to be out may be in.
    """
    phases = {fold(each.vm): each.phase for each in plan.phases}
    for vm in event.resources:
        entry = ledger.entry(vm)
        recorded_out = entry is not None and entry.out_at is not None
        if phases.get(fold(vm)) in NOT_OUT or (not phases and not recorded_out):
            yield vm
