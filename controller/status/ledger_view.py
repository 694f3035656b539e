"""What `lb-drain status` and `lb-drain plan` show: the lease with its ledger, and a plan."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from controller.core.azure_names import fold, short
from controller.core.drain_history import Step
from controller.core.drain_requests import DRAIN_REQUEST, DrainRequests
from controller.core.events import EventDocument, ScheduledEvent
from controller.core.lease import current_leader
from controller.core.ledger import Entry, Ledger
from controller.core.planning.actions import Acknowledge, ChangeMembership, Plan
from controller.core.policy import Policy
from controller.core.rehearsals import is_test
from controller.core.resources import Pool, Vm
from controller.core.vm_report import VmReport
from controller.status.closing_view import is_about, report_view
from controller.status.state_json import (
    drain_request_json,
    entry_json,
    hold_json,
    transition_json,
    verdict_json,
    watched_json,
)
from controller.storage.ledger_store import LedgerStore


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseStatus:
    """The lease and the ledger, as any VM of the set can read them."""

    lease_state: str
    ledger: Ledger
    at: datetime
    requests: DrainRequests = field(default_factory=DrainRequests)
    """Manual drains."""
    reports: tuple[VmReport, ...] = ()
    """What the agents of drained VMs report about their own side."""

    @property
    def leader(self) -> str:
        """The VM that leads now; empty when there is no leader."""
        return current_leader(self.ledger, lease_state=self.lease_state)

    def as_json(self) -> dict[str, object]:
        """Return the object of `lb-drain status --json`."""
        ledger = self.ledger
        return {
            "leader": self.leader or None,
            "epoch": ledger.epoch,
            "lease_state": self.lease_state,
            "lease_age_s": self.lease_age_s,
            "entries": [entry_json(ledger, entry) for entry in ledger.entries],
            "closing": {
                each.vm: report_view(each)
                for each in self.reports
                if is_about(each, ledger.entry(each.vm))
            },
            "holds": [hold_json(hold) for hold in ledger.holds],
            "requests": [drain_request_json(request) for request in self.requests.active(self.at)],
            "events": [watched_json(event) for event in ledger.events],
            "verdicts": [verdict_json(found) for found in ledger.verdicts],
            "transitions": [transition_json(line) for line in ledger.transitions],
        }

    @property
    def lease_age_s(self) -> float | None:
        """Seconds since the present leader acquired the lease."""
        if not self.leader or self.ledger.leader_since is None:
            return None
        return round((self.at - self.ledger.leader_since).total_seconds(), 1)


async def read_lease_status(store: LedgerStore, now: datetime) -> LeaseStatus:
    """Read the lease and the ledger.

    Raises:
        ControllerError: they could not be read.
    """
    await store.read()
    return LeaseStatus(lease_state=store.lease_state, ledger=store.ledger, at=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPreview:
    """One read-only pass: what was read, and what a leader would do."""

    vm: str
    lease: LeaseStatus
    document: EventDocument | None
    vms: tuple[Vm, ...]
    pools: tuple[Pool, ...]
    pools_without_peers: tuple[str, ...]
    """Ids of pools that no VM of the set is in."""
    plan: Plan
    unread: str
    """Why the VMs of the set are not known, and nothing can be planned; empty when they are."""
    pool_names: Mapping[str, str]
    policy: Policy


def why_phase(preview: PlanPreview, vm: str) -> str:
    """Return why a VM is out of rotation, or why an event that names it changes nothing yet."""
    entry = preview.lease.ledger.entry(vm)
    if entry is not None:
        return f"because of {reasons(entry, manual='a manual drain')}"
    events = preview.document.events if preview.document else ()
    return "; ".join(
        filter(None, (_why_not_yet(each, preview) for each in events if each.affects(vm)))
    )


def _why_not_yet(event: ScheduledEvent, preview: PlanPreview) -> str:
    if ignored := preview.policy.why_ignored(event):
        return f"{event.event_type} is ignored: {ignored}"
    drain_at = preview.policy.drain_at(event)
    if drain_at is None or drain_at <= preview.lease.at:
        return ""
    return f"{event.event_type}: the drain starts at {drain_at:%Y-%m-%d %H:%M:%S} UTC"


def out_at(ledger: Ledger, entry: Entry) -> datetime | None:
    """Return when a VM was observed out; during its restore, only the history contains that."""
    if entry.out_at is not None:
        return entry.out_at
    times = [
        line.at
        for line in ledger.transitions
        if line.step == Step.OUT
        and fold(line.vm) == fold(entry.vm)
        and line.at >= entry.recorded_at
    ]
    return times[-1] if times else None


def reasons(entry: Entry, *, manual: str = "manual") -> str:
    """Return the reasons of a drain for people to read; `manual` is how a drain request reads."""
    types = [
        ("TEST " if is_test(each.event_id) else "")
        + (manual if each.event_type == DRAIN_REQUEST else each.event_type)
        for each in entry.events
    ]
    return ", ".join(dict.fromkeys(types))


def planned_steps(plan: Plan, ledger: Ledger) -> tuple[str, ...]:
    """Return one line per action that a leader would take now."""
    known = {fold(entry.vm): entry for entry in ledger.entries}
    lines: list[str] = []
    for entry in plan.ledger.entries if plan.ledger else ():
        old = known.get(fold(entry.vm))
        if old is None or (old.restored_at and not entry.restored_at):
            pools = ", ".join(sorted({short(m.pool_id) for m in entry.memberships}))
            events = ", ".join(f"{event.event_type} {event.event_id}" for event in entry.events)
            lines.append(f"record {entry.vm} and remove it from {pools}, because of {events}")
    if plan.ledger:
        kept = {fold(entry.vm) for entry in plan.ledger.entries}
        lines += [f"forget {entry.vm}" for entry in ledger.entries if fold(entry.vm) not in kept]
    writes = (ChangeMembership, Acknowledge)
    return (*lines, *(str(action) for action in plan.actions if isinstance(action, writes)))
