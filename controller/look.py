"""A look at the set: the lease with its ledger, and what a leader would do. Values for `report`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from controller.core.actions import Acknowledge, ChangeNic, ChangePool, Plan
from controller.core.ledger import Entry, Ledger
from controller.core.model import REQUEST, EventDocument, Pool, Vm, fold, short
from controller.core.requests import Requests
from controller.timeline import phase_by


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLook:
    """The lease and the ledger below it, as any VM of the set can read them."""

    lease_state: str
    ledger: Ledger
    at: datetime
    requests: Requests = field(default_factory=Requests)
    """What people have asked for by hand."""

    @property
    def leader(self) -> str:
        """The VM that leads now; empty when nobody does."""
        return self.ledger.leader if self.lease_state == "leased" else ""

    def as_json(self) -> dict[str, object]:
        """Return the object of `lb-drain status --json`."""
        ledger = self.ledger
        return {
            "leader": self.leader or None,
            "epoch": ledger.epoch,
            "lease_state": self.lease_state,
            "lease_age_s": self.lease_age_s,
            "entries": [
                {
                    "vm": entry.vm,
                    "phase": phase.phase.value if (phase := phase_by(ledger, entry.vm)) else None,
                    "events": [event.event_id for event in entry.events],
                    "memberships": [membership.pool_id for membership in entry.memberships],
                    "recorded_at": entry.recorded_at.isoformat(),
                    "out_at": entry.out_at and entry.out_at.isoformat(),
                    "restored_at": entry.restored_at and entry.restored_at.isoformat(),
                    "gone": entry.gone,
                }
                for entry in ledger.entries
            ],
            "holds": [
                {
                    "subject": hold.subject,
                    "reason": hold.reason,
                    "message": hold.message,
                    "since": hold.since.isoformat(),
                }
                for hold in ledger.holds
            ],
            "requests": [
                {
                    "vm": request.vm,
                    "by": request.by,
                    "reason": request.reason,
                    "at": request.at.isoformat(),
                    "until": request.until.isoformat(),
                }
                for request in self.requests.standing(self.at)
            ],
            "transitions": [
                {"at": line.at.isoformat(), "vm": line.vm, "what": line.what, "detail": line.detail}
                for line in ledger.transitions
            ],
        }

    @property
    def lease_age_s(self) -> float | None:
        """Seconds since the present leader acquired the lease."""
        if not self.leader or self.ledger.leader_since is None:
            return None
        return round((self.at - self.ledger.leader_since).total_seconds(), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLook:
    """One read-only pass: what was seen, and what would be done."""

    vm: str
    lease: LeaseLook
    document: EventDocument | None
    vms: tuple[Vm, ...]
    pools: tuple[Pool, ...]
    pools_without_peers: tuple[str, ...]
    """Ids of pools that no VM of the set is in."""
    plan: Plan
    pool_names: Mapping[str, str]


def out_at(ledger: Ledger, entry: Entry) -> datetime | None:
    """Return when a VM was observed out; the journal still tells once it is on its way back."""
    if entry.out_at is not None:
        return entry.out_at
    times = [
        line.at
        for line in ledger.transitions
        if line.what == "out" and fold(line.vm) == fold(entry.vm) and line.at >= entry.recorded_at
    ]
    return times[-1] if times else None


def reasons(entry: Entry) -> str:
    """Return because of what a VM is out, for people to read."""
    types = ["by hand" if each.event_type == REQUEST else each.event_type for each in entry.events]
    return ", ".join(dict.fromkeys(types))


def would_do(plan: Plan, ledger: Ledger) -> tuple[str, ...]:
    """Return one line per thing that a leader would do now."""
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
    writes = (ChangeNic, ChangePool, Acknowledge)
    return (*lines, *(str(action) for action in plan.actions if isinstance(action, writes)))
