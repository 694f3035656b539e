"""The answers of the status server: a snapshot of the agent's parts, taken when one is requested.

Changes nothing. A request makes the agent read what the agents publish and, as a standby, the
ledger and the set.
"""

from dataclasses import replace
from functools import partial

from controller.agent.agents_reader import known_vms
from controller.agent.assembly import Components
from controller.agent.leader_election import LeaderElection
from controller.agent.reporting import Reporting
from controller.agent.resource_cache import all_rules
from controller.agent.standby_ledger import StandbyLedgerCache
from controller.agent.standby_view import StandbyView
from controller.clock import CorrectedClock
from controller.config.in_force import ConfigurationInForce
from controller.core.azure_names import fold
from controller.core.lease import LEASED, LeaseState
from controller.core.ledger import Ledger
from controller.core.planning.actions import HoldReason, Phase, VmPhase
from controller.core.vm_phase import phase_by, rotation_of
from controller.core.vm_report import VmReport
from controller.status.agent_status import agent_status
from controller.status.overview import overview
from controller.status.overview_schema import Overview, Role
from controller.status.snapshot import AgentHealth, AgentSnapshot, Answer

ROLES: dict[LeaseState, Role] = {
    LeaseState.STANDBY: "standby",
    LeaseState.LEADER: "leader",
    LeaseState.SUSPECT: "suspect",
}


class LiveStatus:
    """Answers for one agent, from its start on.

    Args:
        configuration: settings and policy in force.
        clock: the corrected clock.
        reporting: the metrics.
    """

    def __init__(
        self, configuration: ConfigurationInForce, *, clock: CorrectedClock, reporting: Reporting
    ) -> None:
        self._configuration, self._clock = configuration, clock
        self._reporting = reporting
        self._components: Components | None = None
        self._waiting_for = "starting"
        self._passed_at = clock.monotonic()

    def waiting(self, reason: str) -> None:
        """The agent has not started yet, for this reason."""
        self._waiting_for = reason

    def attach(self, components: Components) -> None:
        """The agent has started with these parts."""
        self._components = components
        components.reconciler.on_pass(lambda _: self._passed())

    def _passed(self) -> None:
        self._passed_at = self._clock.monotonic()

    # --- `controller.status.server.StatusSource` ---

    def headline(self) -> str:
        """Return the state of the agent in one line."""
        return self._health().headline

    def health(self) -> Answer:
        """Return whether passes complete and a leader has renewed, and one line why."""
        return self._health().healthy

    def ready(self) -> Answer:
        """Return whether the agent takes part, and one line why."""
        return self._health().ready

    def status(self) -> dict[str, object]:
        """Return the object of `/status`."""
        return agent_status(self._snapshot())

    async def refresh(self) -> None:
        """Read the agents and, as a standby, the ledger and the set before the answer."""
        if self._components is not None:
            await self._components.agents.refresh()
        if standby_ledger := self._standby_ledger():
            await standby_ledger.refresh()
        if standby_view := self._standby_view():
            await standby_view.refresh()

    def overview(self) -> Overview:
        """Return what the status page shows; makes a standby read again for the next time."""
        if standby_ledger := self._standby_ledger():
            standby_ledger.request()
            if self._components is not None:
                self._components.operator.controls.request()
        if standby_view := self._standby_view():
            standby_view.request()
        return overview(self._snapshot())

    def metrics(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        election = self._components.election if self._components else None
        return self._reporting.render_metrics(election, self._clock.ahead)

    # --- the snapshot ---

    def _standby_ledger(self) -> StandbyLedgerCache | None:
        """Return the cache, if this agent is a standby."""
        parts = self._components
        if parts is None or parts.election is None or parts.election.leading:
            return None
        return parts.standby_ledger

    def _standby_view(self) -> StandbyView | None:
        """Return what reads the set, if this agent is a standby."""
        parts = self._components
        return parts.standby_view if parts and self._standby_ledger() else None

    def _health(self) -> AgentHealth:
        parts = self._components
        if parts is None:
            return AgentHealth(role="starting", waiting_for=self._waiting_for)
        election = parts.election
        leading = election is not None and election.leading
        return AgentHealth(
            role=_role(election),
            leading=leading,
            document_read=parts.watcher.document is not None,
            unread=self._unread(parts, plans=leading or election is None),
            rotation=rotation_of(parts.reconciler.ledger, parts.reconciler.plan),
            controls=parts.operator.controls.controls,
            pass_age_s=self._clock.monotonic() - self._passed_at,
        )

    def _unread(self, parts: Components, *, plans: bool) -> str:
        """Return why the set is not known or does not exist; a standby knows it from the ledger.

        For a standby also what its document shows and the leader does not know.
        """
        if plans:
            return parts.reconciler.unread
        latest = parts.standby_ledger.latest if parts.standby_ledger else None
        holds = latest.ledger.holds if latest else ()
        missing = HoldReason.SET_MISSING.value
        unseen = parts.forwarder.coverage.problem if parts.forwarder else ""
        return next((hold.message for hold in holds if hold.reason == missing), unseen)

    def _snapshot(self) -> AgentSnapshot:
        metrics = self._reporting.metrics
        snapshot = AgentSnapshot(
            now=self._clock.now(),
            health=self._health(),
            lease_duration_s=self._configuration.settings.election.lease_duration_s,
            policy=self._configuration.policy,
            pool_names=self._configuration.settings.pool_names(),
            listen=self._configuration.settings.server.listen,
            runbook_url=self._configuration.settings.links.runbook_url,
            azure_requests=metrics.requests(),
            consecutive_failures=metrics.consecutive_failures(),
        )
        parts = self._components
        if parts is None:
            return snapshot
        return _with_ledger(_with_parts(snapshot, parts), parts)


def _role(election: LeaderElection | None) -> Role:
    """Return the role; a leader is suspect as soon as no write may leave, noticed or not."""
    if election is None:
        return "dry run"
    lapsed = election.state is LeaseState.LEADER and not election.leading
    return "suspect" if lapsed else ROLES[election.state]


def _set_now(started_in: str, recorded: str) -> str:
    """Return the set of this agent: the leader records another one if Azure has converted it."""
    return started_in if not recorded or fold(recorded) == fold(started_in) else recorded


def _with_parts(snapshot: AgentSnapshot, parts: Components) -> AgentSnapshot:
    """Add who this agent is, and what it reads itself."""
    identity, watcher, reconciler = parts.identity, parts.watcher, parts.reconciler
    cache = reconciler.cache
    return replace(
        snapshot,
        vm=identity.vm,
        availability_set_id=_set_now(identity.set_id, reconciler.ledger.present_set_id),
        peers=known_vms(identity.vms, reconciler, parts.election, parts.standby_view),
        document=watcher.document,
        document_age_s=None if watcher.document is None else watcher.age_s(),
        failed_polls=watcher.failures,
        seen_events=watcher.seen_events.known(),
        second_source=reconciler.second_source() if snapshot.health.leading else None,
        plan=reconciler.plan,
        vms=cache.vms,
        nics=cache.nics,
        pools=cache.pools,
        rules=all_rules(cache),
        pools_without_peers=cache.pools_without_peers(reconciler.ledger),
        reports=_reports(parts),
        agents=parts.agents.agents,
        drain_requests=parts.operator.requests.requests or (),
        rolling_run=parts.operator.requests.roll if _plans(parts) else None,
        controls_problem=parts.operator.problem,
        write_limit=reconciler.write_limit,
        inventory_period_s=reconciler.inventory_period_s,
    )


def _plans(parts: Components) -> bool:
    """Return whether this agent reads what a plan needs: a leader does, and a dry run."""
    return parts.election is None or parts.election.leading


def _reports(parts: Components) -> dict[str, VmReport]:
    """Return the reports that this agent knows: a leader reads all, each one makes its own."""
    read = parts.reconciler.cache.reports if _plans(parts) else {}
    found = {key: seen.report for key, seen in read.items() if seen.report is not None}
    if parts.closing is not None:
        found[fold(parts.identity.vm)] = parts.closing.report
    return found


def _with_ledger(snapshot: AgentSnapshot, parts: Components) -> AgentSnapshot:
    """Add lease and ledger: a leader knows both, a dry run reads them, a standby has a cache."""
    reconciler, election, cached = parts.reconciler, parts.election, parts.standby_ledger
    if election is None or cached is None:
        return replace(
            snapshot,
            lease_state=reconciler.tenure.lease_state,
            ledger=reconciler.ledger,
            ledger_at=reconciler.tenure.read_at,
        )
    if snapshot.plan is not None and snapshot.health.leading:
        return replace(
            snapshot,
            lease_state=LEASED,
            valid_for_s=election.left_s,
            ledger=reconciler.ledger,
            ledger_at=snapshot.now,
        )
    # What it knew when it was the leader gets older and older.
    snapshot = replace(snapshot, plan=None, vms=(), nics=(), pools=(), rules=())
    snapshot = replace(snapshot, ledger_problem=cached.problem)
    if cached.latest is None:
        return snapshot
    return _with_view(
        replace(
            snapshot,
            lease_state=cached.latest.lease_state,
            ledger=cached.latest.ledger,
            ledger_at=cached.latest.at,
        ),
        cached.latest.ledger,
        parts.standby_view,
    )


def _with_view(
    snapshot: AgentSnapshot, ledger: Ledger, standby_view: StandbyView | None
) -> AgentSnapshot:
    """Add what a standby has read of the set itself; holds are those of the leader."""
    seen = standby_view.latest() if standby_view else None
    if seen is None or seen.plan is None:
        return snapshot
    cache = seen.cache
    read = {key: each.report for key, each in cache.reports.items() if each.report is not None}
    return replace(
        snapshot,
        plan=replace(
            seen.plan,
            phases=tuple(map(partial(_with_recorded_hold, ledger), seen.plan.phases)),
            holds=ledger.holds,
        ),
        vms=cache.vms,
        nics=cache.nics,
        pools=cache.pools,
        rules=all_rules(cache),
        pools_without_peers=cache.pools_without_peers(ledger),
        reports={**read, **snapshot.reports},
    )


def _with_recorded_hold(ledger: Ledger, phase: VmPhase) -> VmPhase:
    """Return the phase of a VM; a hold that the leader has recorded counts more than a plan."""
    known = phase_by(ledger, phase.vm)
    return known if known is not None and known.phase is Phase.HELD else phase
