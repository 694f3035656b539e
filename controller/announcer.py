"""Say what happened: logs, metrics, systemd. Transitions only: an idle set is silent (law H1)."""

import logging
from datetime import UTC, datetime, timedelta

from controller.azure.failures import OPERATIONS, OUTCOMES, answers
from controller.clock import Clock
from controller.core.actions import Plan, Reason
from controller.core.ledger import Entry, EventReference, Ledger, Transition
from controller.core.model import (
    REQUEST,
    EventDocument,
    Key,
    Policy,
    Pool,
    fold,
    nic_of,
    short,
)
from controller.core.risk import oldest_entry, risk
from controller.logs import log
from controller.metrics import DrainOutcome, Metrics
from controller.settings import Settings
from controller.systemd import Notifier

logger = logging.getLogger(__name__)


class Announcer:
    """Compares what was with what is, and tells the difference."""

    def __init__(self, settings: Settings, notifier: Notifier, clock: Clock) -> None:
        self._names = {fold(pool): name for pool, name in settings.pool_names().items()}
        self._notifier, self._clock = notifier, clock
        self._told: tuple[str, ...] = ()
        self._without_peers: frozenset[str] = frozenset()
        self._leaderless = False
        self.metrics = Metrics(
            pools=self._names.values(),
            hold_reasons=[reason.value for reason in Reason],
            operations=OPERATIONS,
            outcomes=OUTCOMES.values(),
            answers=answers,
            channels=[each.kind for each in settings.notifications],
        )
        elects = not settings.policy.dry_run
        self.metrics.set_lease_duration(settings.election.lease_duration_s if elects else 0)
        self.metrics.set_leader_seen(clock.now())

    def passed(self, headline: str, before: Ledger, after: Ledger) -> None:
        """A pass completed: that feeds the watchdog."""
        self._notifier.watchdog()
        self._notifier.status(headline)
        self.metrics.passed("unchanged" if before is after else "changed")
        self.metrics.set_ledger_entries(len(after.entries), oldest=oldest_entry(after))
        for line in new_transitions(before, after):
            cause = cause_of(after.entry(line.vm) or before.entry(line.vm))
            log(
                logger,
                logging.INFO,
                f"{line.vm}: {line.what}" + (f" ({line.detail})" if line.detail else ""),
                event=line.what,
                vm=line.vm,
                epoch=after.epoch,
                outcome=self._count(line, cause) if line.what == "out" and cause else None,
                event_id=cause.event_id if cause else None,
                event_type=cause.event_type if cause else None,
                not_before=cause.not_before if cause else None,
            )

    def planned(self, plan: Plan, before: Ledger, after: Ledger) -> None:
        """A leader's pass planned this."""
        counts: dict[str, int] = {}
        known = {(hold.subject, hold.reason) for hold in before.holds}
        for hold in plan.holds:
            counts[hold.reason] = counts.get(hold.reason, 0) + 1
            if before is not after and (hold.subject, hold.reason) not in known:
                log(logger, logging.WARNING, hold.message, event="held", outcome=hold.reason)
        self.metrics.set_holds(counts)

    def deadlines(
        self,
        plan: Plan,
        ledger: Ledger,
        document: EventDocument | None,
        policy: Policy,
        now: datetime,
    ) -> None:
        """Tell how many VMs may be hit before they are out, and when the next deadline is."""
        found = risk(plan, ledger, document, policy, now)
        self.metrics.set_risk(vms=len(found.vms), next_not_before=found.next_not_before)

    def would_do(self, lines: tuple[str, ...]) -> None:
        """Tell what a dry run would do, whenever that changes."""
        if lines != self._told:
            self._told = lines
            for line in lines:
                log(logger, logging.INFO, f"dry run: would {line}", event="dry_run")

    def without_peers(self, pool_ids: tuple[str, ...]) -> None:
        """Tell of pools that no VM of the set is in, once: most likely the wrong pool is named."""
        for pool_id in pool_ids:
            if fold(pool_id) not in self._without_peers:
                message = (
                    f"pool {short(pool_id)} has no member of this availability set, so there is "
                    f"nothing to take out of it: add the VMs to {pool_id}, or correct "
                    "[[backend_pools]]"
                )
                label = self._names.get(fold(pool_id), short(pool_id))
                log(logger, logging.WARNING, message, event="no_members", pool=label)
        self._without_peers = frozenset(fold(pool_id) for pool_id in pool_ids)

    def members(self, pools: tuple[Pool, ...], ledger: Ledger) -> None:
        """Tell how many members each pool has, and how many it should have."""
        for pool in pools:
            recorded = {
                membership.key
                for entry in ledger.entries
                for membership in entry.memberships
                if fold(membership.pool_id) == fold(pool.pool_id) and entry.restored_at is None
            }
            inside = len(pool.members)
            out = len(recorded - _standing(pool))
            label = self._names.get(fold(pool.pool_id), "")
            self.metrics.set_members(label, in_rotation=inside, expected=inside + out)

    def lease(self, *, left_s: float | None) -> None:
        """Tell for how long the lease is certainly ours; None for a standby."""
        if left_s is None:
            self.metrics.set_leader(False)
        else:
            until = datetime.fromtimestamp(self._clock.now().timestamp() + left_s, UTC)
            self.metrics.set_leader(True, until)

    def seen(self, *, leader_seen_s: float | None, clock_ahead: timedelta) -> None:
        """Tell what holds at any moment: how long ago a leader was known, and how the clock runs.

        `leader_seen_s` is None as long as this agent does not take part in the election.
        """
        if leader_seen_s is not None:
            self.metrics.set_leader_seen(self._clock.now() - timedelta(seconds=leader_seen_s))
        self.metrics.set_clock_correction(clock_ahead.total_seconds())

    def leader_missing(self, missing: bool) -> None:
        """Tell once that no leader has been seen for too long, and once that there is one again."""
        if missing is not self._leaderless:
            self._leaderless = missing
            if missing:
                message = "no leader has been seen for two leases: nobody would take a VM out"
                log(logger, logging.WARNING, message, event="no_leader")
            else:
                log(logger, logging.INFO, "a leader is seen again", event="leader_again")

    def _count(self, line: Transition, cause: EventReference) -> DrainOutcome:
        if cause.not_before is None:
            self.metrics.drained(cause.event_type, "unannounced")
            return "unannounced"
        lead_s = (cause.not_before - line.at).total_seconds()
        outcome: DrainOutcome = "in_time" if lead_s >= 0 else "late"
        self.metrics.drained(cause.event_type, outcome, lead_s)
        return outcome


def cause_of(entry: Entry | None) -> EventReference | None:
    """Return the most urgent event because of which a VM is out, or else a request by hand."""
    if entry is None or not entry.events:
        return None
    announced = [each for each in entry.events if each.event_type != REQUEST]
    return min(announced or entry.events, key=lambda each: each.not_before or entry.recorded_at)


def _standing(pool: Pool) -> set[Key]:
    """Return who is in a pool; what is recorded may not have left it yet."""
    found: set[Key] = set()
    for member in pool.members:
        if member.address is not None:
            found.add(member.address.key)
        else:
            nic_id, name = nic_of(member.ip_configuration_id)
            found.add((fold(pool.pool_id), fold(nic_id), fold(name)))
    return found


def new_transitions(before: Ledger, after: Ledger) -> tuple[Transition, ...]:
    """Return what the newer ledger added; its history only ever grows at the end."""
    if before is after:
        return ()
    known = set(before.transitions[-1:])
    added: list[Transition] = []
    for line in reversed(after.transitions):
        if line in known:
            break
        added.append(line)
    return tuple(reversed(added))
