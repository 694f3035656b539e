"""The lease with its ledger, and the actions of a plan in words."""

from dataclasses import dataclass
from datetime import datetime

from controller.core.azure_names import fold, short
from controller.core.lease import current_leader
from controller.core.ledger import Ledger
from controller.core.planning.actions import Acknowledge, ChangeMembership, Plan
from controller.storage.ledger_store import LedgerStore


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseStatus:
    """The lease and the ledger, as any VM of the set can read them."""

    lease_state: str
    ledger: Ledger
    at: datetime

    @property
    def leader(self) -> str:
        """The VM that leads now; empty when there is no leader."""
        return current_leader(self.ledger, lease_state=self.lease_state)

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
