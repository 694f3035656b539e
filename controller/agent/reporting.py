"""What an agent reports: logs, metrics, traces, notifications, and its state to systemd.

Each kind of report subscribes to calls to Azure, to polls, to the election or to passes. No part of
the reconcile loop depends on a report.
"""

from collections.abc import Callable, MutableMapping
from contextlib import AsyncExitStack
from datetime import timedelta
from types import TracebackType
from typing import Self

from controller.agent.event_watcher import EventWatcher
from controller.agent.leader_election import LeaderElection
from controller.agent.present_set import PresentSet
from controller.agent.reconciler import PassReport, Reconciler
from controller.azure.http.request_labels import service_answered
from controller.clock import Clock
from controller.config.in_force import ConfigurationInForce
from controller.config.schema import Settings
from controller.core.azure_names import SetName
from controller.core.dry_run import imagined
from controller.core.leader_absence import LeaderAbsence
from controller.core.ledger import Ledger
from controller.notifications.dispatcher import NotificationDispatcher
from controller.observability.drain_traces import Traces
from controller.observability.metrics import Metrics
from controller.observability.systemd_notify import SystemdNotifier
from controller.observability.transition_log import TransitionReporter
from controller.status.ledger_view import planned_steps
from controller.storage.annotations import LedgerAnnotations


class Reporting:
    """Every report of one agent; use as a context manager, which opens channels and exporters.

    Args:
        configuration: settings and policy in force.
        environ: where secrets and the addresses of systemd and of the trace collector are.
        clock: the corrected clock.
        headline: returns the state of the agent in one line.
        wake: asks for a pass; called after a notification was delivered.
    """

    def __init__(
        self,
        configuration: ConfigurationInForce,
        environ: MutableMapping[str, str],
        clock: Clock,
        *,
        headline: Callable[[], str],
        wake: Callable[[], None],
    ) -> None:
        self._clock, self._configuration, self._headline = clock, configuration, headline
        settings = configuration.settings
        self._stack = AsyncExitStack()
        self.systemd = SystemdNotifier(environ)
        self.annotations = LedgerAnnotations()
        self._transitions = TransitionReporter(settings, self.systemd, clock)
        self._traces = Traces(environ)
        self._set_id = ""
        """The set that reports name; empty before the start has ended."""
        self._imagined = Ledger()
        """What the ledger would be, were this no dry run."""
        self._leader_absence = LeaderAbsence(lease_duration_s=settings.election.lease_duration_s)
        self._notifications = NotificationDispatcher(
            configuration,
            environ,
            clock,
            count=self.metrics.notification_ended,
            answers=service_answered,
            annotate=self.annotations.queue,
            wake=wake,
        )

    async def __aenter__(self) -> Self:
        """Open the channels of notifications, and the exporter of traces.

        Raises:
            ConfigError: the secret of a channel cannot be read.
        """
        await self._stack.enter_async_context(self._notifications)
        await self._stack.enter_async_context(self._traces)
        return self

    async def open_channels(self, settings: Settings) -> None:
        """Open the notification channels of other settings in place of the old ones.

        Raises:
            ConfigError: the secret of a channel cannot be read; nothing has changed.
        """
        await self._notifications.reopen(settings)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @property
    def metrics(self) -> Metrics:
        """The metrics of this agent."""
        return self._transitions.metrics

    def request_ended(self, service: str, operation: str, outcome: str, duration_s: float) -> None:
        """Count a call to Azure, and notify of a service that fails for long."""
        self.metrics.request_ended(service, operation, outcome, duration_s)
        self._notifications.request_ended(service, outcome)

    def render_metrics(self, election: LeaderElection | None, clock_ahead: timedelta) -> bytes:
        """Return the metrics in Prometheus' text format."""
        unseen_s = None if election is None else self._unseen_s(election)
        self._transitions.seen(leader_seen_s=unseen_s, clock_ahead=clock_ahead)
        return self.metrics.render()

    def subscribe(
        self,
        *,
        vm: str,
        present_set: PresentSet,
        watcher: EventWatcher,
        reconciler: Reconciler,
        election: LeaderElection | None,
    ) -> None:
        """Report from now on what these parts do."""
        self._identify(vm, present_set)
        reconciler.on_pass(lambda _: self._identify(vm, present_set))
        watcher.on_poll(lambda: self._polled(watcher))
        if election is None:
            reconciler.on_pass(lambda report: self._dry_run(report, watcher, reconciler))
        else:
            reconciler.on_pass(lambda report: self._passed(report, watcher, reconciler, election))
            election.on_change(lambda: self._lease_changed(election))

    def _identify(self, vm: str, present_set: PresentSet) -> None:
        """Name the set in reports, also when Azure has converted it."""
        if self._set_id != present_set.set_id:
            self._set_id = present_set.set_id
            found = SetName.of(self._set_id)
            self._notifications.identify(vm, found)
            self.metrics.identify(found.name, found.resource_group)

    def _polled(self, watcher: EventWatcher) -> None:
        self._notifications.polled(succeeded=not watcher.failures)
        if not watcher.failures:
            self.metrics.set(last_successful_poll_timestamp_seconds=watcher.now())

    def _lease_changed(self, election: LeaderElection) -> None:
        if not election.leading:
            self._transitions.lease(left_s=None)

    def _passed(
        self,
        report: PassReport,
        watcher: EventWatcher,
        reconciler: Reconciler,
        election: LeaderElection,
    ) -> None:
        self._every_pass(report, watcher, reconciler)
        self._transitions.lease(left_s=election.left_s if election.leading else None)
        absence = self._leader_absence.after(self._unseen_s(election))
        if absence is not self._leader_absence:
            self._leader_absence = absence
            self._transitions.leader_missing(absence.missing)
            self._notifications.leader_missing(absence.missing)
        if report.plan is None:
            self.metrics.stand_by()
            self._notifications.stand_by()
            return
        self._planned(report, watcher, reconciler)
        self._notifications.passed(
            report.plan,
            report.after,
            watcher.document,
            watcher.clean_documents,
            reconciler.observe().requests or (),
        )

    def _dry_run(self, report: PassReport, watcher: EventWatcher, reconciler: Reconciler) -> None:
        self._every_pass(report, watcher, reconciler)
        self._planned(report, watcher, reconciler)
        if report.plan is None:
            return
        holds = (f"hold back: {hold.message}" for hold in report.plan.holds)
        self._transitions.would_do((*planned_steps(report.plan, report.after), *holds))
        before = self._imagined
        self._imagined = imagined(
            before,
            report.plan,
            real=report.after,
            observed=reconciler.observe(),
            policy=self._configuration.policy,
            now=watcher.now(),
            seen=watcher.seen_events.known(),
        )
        self._transitions.would_have_done(before, self._imagined, real=report.after)

    def _every_pass(
        self, report: PassReport, watcher: EventWatcher, reconciler: Reconciler
    ) -> None:
        self._transitions.passed(self._headline(), report.before, report.after)
        self._traces.passed(report.before, report.after, watcher.seen_events.started)
        self.metrics.set(write_concurrency_limit=reconciler.write_limit)

    def _planned(self, report: PassReport, watcher: EventWatcher, reconciler: Reconciler) -> None:
        plan, after = report.plan, report.after
        if plan is None:
            return
        self._transitions.planned(plan, report.before, after)
        self._transitions.deadlines(
            plan, after, watcher.document, self._configuration.policy, watcher.now()
        )
        observed = reconciler.observe()
        self._transitions.controls(observed.controls)
        self._transitions.closed(observed, after)
        self._transitions.members(reconciler.cache.membership(after), after)
        self._transitions.without_peers(reconciler.cache.pools_without_peers(after))

    def _unseen_s(self, election: LeaderElection) -> float:
        """Return how many seconds ago a leader was last seen."""
        return self._clock.monotonic() - election.leader_seen_at
