"""Logs, metrics and systemd's status after every pass.

Only changes are logged: an idle set is silent (law H1).
"""

import logging
from datetime import UTC, datetime, timedelta

from controller.azure.http.request_labels import OPERATIONS, OUTCOMES, service_answered
from controller.clock import Clock
from controller.config.schema import Settings
from controller.core.azure_names import fold, short
from controller.core.controls import NO_CONTROLS, Controls
from controller.core.deadlines import deadline_risk, oldest_drain_start
from controller.core.drain_history import (
    EVENT_STEPS,
    Step,
    Transition,
    connections_cut,
    step_text,
)
from controller.core.drain_requests import DRAIN_REQUEST
from controller.core.event_record import (
    MISSED,
    EventVerdict,
    Verdict,
    WatchedEvent,
    lead_text,
    verdict_text,
)
from controller.core.events import EventDocument
from controller.core.ledger import EventReference, Ledger
from controller.core.ledger_changes import cause_of, event_of, new_transitions, new_verdicts
from controller.core.observation import Observation
from controller.core.planning.actions import HoldReason, Plan, is_read
from controller.core.planning.pool_membership import PoolMembership
from controller.core.policy import Policy
from controller.core.rehearsals import TEST, is_test
from controller.core.vm_report import VmState
from controller.observability.logs import log
from controller.observability.message_ids import step_event
from controller.observability.metrics import DrainOutcome, Metrics
from controller.observability.systemd_notify import SystemdNotifier

logger = logging.getLogger("lbdrain.drain")

VERDICT_LEVELS: dict[str, int] = {
    Verdict.LATE: logging.WARNING,
    Verdict.HIT_IN_ROTATION: logging.ERROR,
}
"""The levels of the verdicts that an operator has to look into; the others are INFO."""
WOULD_HAVE_BEEN = MISSED | {Verdict.DRAINED, Verdict.IGNORED}
"""The verdicts that depend on the agents; a dry run states them in the conditional."""
MAX_DRY_RUN_LINES = 1000
"""How many lines of a dry run are remembered, so that each is logged once."""


class TransitionReporter:
    """Compares the state before and after a pass, and reports the difference."""

    def __init__(self, settings: Settings, notifier: SystemdNotifier, clock: Clock) -> None:
        self._names = settings.pool_names()
        self._notifier, self._clock = notifier, clock
        self._dry_run: tuple[str, ...] = ()
        self._without_peers: frozenset[str] = frozenset()
        self._controls = NO_CONTROLS
        self.metrics = Metrics(
            pools=self._names.values(),
            hold_reasons=[reason.value for reason in HoldReason],
            operations=OPERATIONS,
            outcomes=OUTCOMES.values(),
            answers=service_answered,
            monotonic=clock.monotonic,
            channels=[each.kind for each in settings.notifications],
        )
        elects = not settings.policy.dry_run
        self.metrics.set(
            lease_duration_seconds=settings.election.lease_duration_s if elects else 0,
            leader_seen_timestamp_seconds=clock.now(),
        )

    def passed(self, headline: str, before: Ledger, after: Ledger) -> None:
        """Report a completed pass, which also feeds the watchdog."""
        self._notifier.watchdog()
        self._notifier.status(headline)
        self.metrics.reconciled("unchanged" if before is after else "changed")
        self.metrics.set(
            ledger_entries=len(after.entries),
            oldest_drain_start_timestamp_seconds=oldest_drain_start(after),
        )
        for line in new_transitions(before, after):
            self._log_transition(line, before, after)
        for found in new_verdicts(before, after):
            self._judged(found, after.epoch)

    def _log_transition(self, line: Transition, before: Ledger, after: Ledger) -> None:
        text = step_text(line.step)
        if line.step in {Step.OUT, Step.STARTED}:
            self.metrics.connections_cut(connections_cut(line.detail))
        cause: EventReference | WatchedEvent | EventVerdict | None
        if line.step in EVENT_STEPS:
            cause = event_of(line, before, after)
        else:
            cause = cause_of(after.entry(line.vm) or before.entry(line.vm))
        if line.step == Step.OUT and cause and cause.not_before:
            text += f", {lead_text(line.at, cause.not_before)}"
        log(
            logger,
            logging.INFO,
            f"{line.vm}: {text}" + (f" ({line.detail})" if line.detail else ""),
            event=step_event(line.step),
            vm=line.vm if ", " not in line.vm else None,
            epoch=after.epoch,
            outcome=self._count(line, cause) if line.step == Step.OUT and cause else None,
            event_id=cause.event_id if cause else None,
            event_type=cause.event_type if cause else None,
            not_before=cause.not_before if cause else None,
        )

    def _judged(self, found: EventVerdict, epoch: int) -> None:
        """Report what became of an event for a VM."""
        test = is_test(found.event_id)
        self.metrics.event_judged(TEST if test else found.event_type, found.verdict)
        log(
            logger,
            logging.INFO if test else VERDICT_LEVELS.get(found.verdict, logging.INFO),
            f"{found.vm}: {found.event_type}: {verdict_text(found)}",
            event="verdict",
            vm=found.vm,
            epoch=epoch,
            outcome=found.verdict,
            event_id=found.event_id,
            event_type=found.event_type,
            not_before=found.not_before,
        )

    def planned(self, plan: Plan, before: Ledger, after: Ledger) -> None:
        """Report the holds of a leader's plan: each one when it begins."""
        counts: dict[str, int] = {}
        known = {(hold.subject, hold.reason) for hold in before.holds}
        vms = {fold(phase.vm) for phase in plan.phases}
        for hold in plan.holds:
            counts[hold.reason] = counts.get(hold.reason, 0) + 1
            if before is not after and (hold.subject, hold.reason) not in known:
                # One line for each VM, so that a search for a VM finds its holds.
                for vm in (hold.subject,) if fold(hold.subject) in vms else hold.vms or (None,):
                    log(
                        logger,
                        logging.WARNING,
                        hold.message,
                        event="held",
                        vm=vm,
                        outcome=hold.reason,
                    )
        self.metrics.set_holds(counts)
        if not (after.entries or plan.holds or any(not is_read(each) for each in plan.actions)):
            self.metrics.no_writes()

    def deadlines(
        self,
        plan: Plan,
        ledger: Ledger,
        document: EventDocument | None,
        policy: Policy,
        now: datetime,
    ) -> None:
        """Report how many VMs are at risk, and the next deadline."""
        found = deadline_risk(plan, ledger, document, policy, now)
        self.metrics.set(
            vms_at_risk=len(found.vms), next_not_before_timestamp_seconds=found.next_not_before
        )

    def controls(self, controls: Controls) -> None:
        """Report each control when it begins and when it ends, as this leader sees it."""
        before, self._controls = set(self._controls.listed), controls
        self.metrics.set(paused=controls.pause is not None)
        now = set(controls.listed)
        for each in sorted(before - now, key=str):
            message = f"control ended: {each}"
            log(logger, logging.INFO, message, event="control_ended", outcome=each.kind)
        for each in sorted(now - before, key=str):
            log(logger, logging.WARNING, str(each), event="control_set", outcome=each.kind)

    def closed(self, observed: Observation, ledger: Ledger) -> None:
        """Report how many VMs are closed by their reports, and what they have left."""
        reports = [observed.report_about(entry) for entry in ledger.entries]
        closed = [each for each in reports if each and each.state is VmState.CLOSED]
        left = sum(each.left for each in closed)
        self.metrics.set(vms_closed=len(closed), connections_left=left)

    def would_do(self, lines: tuple[str, ...]) -> None:
        """Report each action that a dry run would take, once: it is planned again every pass."""
        for line in lines:
            if line not in self._dry_run:
                log(logger, logging.INFO, f"dry run: would {line}", event="dry_run")
        self._dry_run = tuple(dict.fromkeys((*self._dry_run, *lines)))[-MAX_DRY_RUN_LINES:]

    def would_have_done(self, before: Ledger, after: Ledger, *, real: Ledger) -> None:
        """Report what Azure did during a dry run, and the verdicts that there would have been.

        What a real leader has noted in its ledger was reported already.
        """
        noted = {(line.step, line.detail) for line in real.transitions}
        for line in new_transitions(before, after):
            if line.step in EVENT_STEPS and (line.step, line.detail) not in noted:
                self._log_transition(line, before, after)
        for found in new_verdicts(before, after):
            would = "would have been " if found.verdict in WOULD_HAVE_BEEN else ""
            log(
                logger,
                logging.INFO,
                f"dry run: {found.vm}: {found.event_type}: {would}{verdict_text(found)}",
                event="dry_run",
                vm=found.vm,
                outcome=found.verdict,
                event_id=found.event_id,
                event_type=found.event_type,
                not_before=found.not_before,
            )

    def without_peers(self, pool_ids: tuple[str, ...]) -> None:
        """Report, once, the pools without a VM of the set: the id is probably wrong."""
        for pool_id in pool_ids:
            if fold(pool_id) not in self._without_peers:
                message = (
                    f"pool {short(pool_id)} has no member in this set: "
                    f"add the VMs to {pool_id}, or correct [[backend_pools]]"
                )
                label = self._names.get(fold(pool_id), short(pool_id))
                log(logger, logging.WARNING, message, event="pool_without_members", pool=label)
        self._without_peers = frozenset(fold(pool_id) for pool_id in pool_ids)

    def members(self, membership: PoolMembership, ledger: Ledger) -> None:
        """Report how many members each pool has now, and without any drain."""
        self.metrics.forget_members()
        for pool in membership.pools:
            recorded = {
                place.key
                for entry in ledger.entries
                for place in entry.memberships
                if fold(place.pool_id) == fold(pool.pool_id) and entry.restored_at is None
            }
            inside = membership.keys(pool.pool_id)
            label = self._names.get(fold(pool.pool_id), "")
            expected = len(inside | recorded)
            self.metrics.set_members(label, in_rotation=len(inside), expected=expected)

    def lease(self, *, left_s: float | None) -> None:
        """Report for how many seconds the lease is certainly valid; None for a standby."""
        if left_s is None:
            self.metrics.set_leader(False)
        else:
            until = datetime.fromtimestamp(self._clock.now().timestamp() + left_s, UTC)
            self.metrics.set_leader(True, until)

    def seen(self, *, leader_seen_s: float | None, clock_ahead: timedelta) -> None:
        """Report how many seconds ago a leader was seen, and the correction of the clock.

        `leader_seen_s` is None while this agent does not take part in the election.
        """
        if leader_seen_s is not None:
            seen_at = self._clock.now() - timedelta(seconds=leader_seen_s)
            self.metrics.set(leader_seen_timestamp_seconds=seen_at)
        self.metrics.set(clock_correction_seconds=clock_ahead.total_seconds())

    def leader_missing(self, missing: bool) -> None:
        """Report that no leader has been seen for too long, or that there is one again."""
        if missing:
            message = "no leader has been seen for two lease durations: no VM would be drained"
            log(logger, logging.WARNING, message, event="leader_missing")
        else:
            log(logger, logging.INFO, "a leader is seen again", event="leader_restored")

    def _count(
        self, line: Transition, cause: EventReference | WatchedEvent | EventVerdict
    ) -> DrainOutcome:
        test = is_test(cause.event_id)
        counted = TEST if test else cause.event_type
        outcome: DrainOutcome
        if cause.not_before is None:
            outcome = "requested" if cause.event_type == DRAIN_REQUEST else "unannounced"
            self.metrics.vm_drained(counted, outcome)
        else:
            lead_s = (cause.not_before - line.at).total_seconds()
            outcome = "in_time" if lead_s >= 0 else "late"
            self.metrics.vm_drained(counted, outcome, None if test else lead_s)
        return outcome
