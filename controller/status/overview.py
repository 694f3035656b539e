"""Build the JSON behind the status page, `/api/v1/overview`, from a snapshot.

A leader shows what it knows. A standby shows the ledger as of `ledger.as_of`, the event document,
and the VMs and pools that it reads itself while an overview is asked for.

Pure: no I/O, no clock.
"""

from collections.abc import Iterator, Mapping

from controller.azure.http.request_labels import request_name
from controller.core.azure_names import fold, group_name, short
from controller.core.drain_requests import DRAIN_REQUEST
from controller.core.event_progress import (
    SeenEvent,
    is_shown,
    requested_by,
    steps,
    unseen_events,
    was_cancelled,
)
from controller.core.event_record import verdict_text
from controller.core.events import ScheduledEvent
from controller.core.lease import current_leader
from controller.core.ledger import Entry, Ledger
from controller.core.observation import Observation
from controller.core.planning.actions import HoldReason, VmPhase
from controller.core.planning.mechanisms import MECHANISMS, pool_membership
from controller.core.planning.pool_membership import PoolMembership
from controller.core.resources import Vm
from controller.core.vm_phase import phase_by
from controller.observability.metrics import AzureRequestCounts
from controller.observability.release import release
from controller.status.agents_view import agents_view
from controller.status.closing_view import closing_view
from controller.status.hold_views import holds_json
from controller.status.outlook import IN_ROTATION, outlook, waits_for
from controller.status.overview_schema import (
    VERSION,
    AgentView,
    DocumentView,
    EventView,
    LeaseView,
    LedgerView,
    Overview,
    PoolView,
    RequestsView,
    ServiceView,
    StepView,
    TimelineView,
    VmView,
)
from controller.status.problems import problems
from controller.status.resource_graph_view import resource_graph_view
from controller.status.snapshot import AgentSnapshot
from controller.status.state_json import (
    control_json,
    drain_request_json,
    instant,
    instant_or_none,
    reasons,
    rolling_run_json,
    seconds_or_none,
    transition_json,
    verdict_json,
)

DRY_RUN = "this agent removes nothing: it is in a dry run"
MANUAL = "Manual"
"""The status of a drain request, which is shown in the list of events."""


def overview(snapshot: AgentSnapshot) -> Overview:
    """Return what the status page shows."""
    ledger = snapshot.ledger or Ledger()
    leader = current_leader(ledger, lease_state=snapshot.lease_state)
    shown = Overview(
        version=VERSION,
        at=instant(snapshot.now),
        agent=_agent(snapshot),
        agents=agents_view(
            snapshot.agents,
            leader=leader,
            now=snapshot.now,
            dry_run=snapshot.vm if snapshot.health.role == "dry run" else "",
        ),
        lease=LeaseView(
            state=snapshot.lease_state or None,
            leader=leader or None,
            epoch=ledger.epoch if snapshot.ledger else None,
            since=instant_or_none(ledger.leader_since) if leader else None,
            valid_for_s=seconds_or_none(snapshot.valid_for_s),
            duration_s=snapshot.lease_duration_s,
        ),
        ledger=LedgerView(
            as_of=instant_or_none(snapshot.ledger_at), problem=snapshot.ledger_problem
        ),
        document=DocumentView(
            age_s=seconds_or_none(snapshot.document_age_s),
            failed_polls=snapshot.failed_polls,
        ),
        resource_graph=resource_graph_view(snapshot),
        vms=list(_vms(snapshot, ledger)),
        events=list(_events(snapshot, ledger)),
        drain_requests=[
            drain_request_json(each)
            for each in snapshot.drain_requests
            if each.is_active(snapshot.now)
        ],
        rolling_run=rolling_run_json(snapshot.rolling_run),
        holds=holds_json(snapshot, snapshot.plan.holds if snapshot.plan else ledger.holds),
        controls=[control_json(each) for each in snapshot.health.controls.listed],
        controls_problem=snapshot.controls_problem,
        problems=[],
        verdicts=[verdict_json(found) for found in reversed(ledger.verdicts)],
        history=[transition_json(line) for line in reversed(ledger.transitions)],
        services=list(_services(snapshot.consecutive_failures)),
        requests=[_requests(each) for each in snapshot.azure_requests],
    )
    shown["problems"] = problems(shown)
    return shown


def _agent(snapshot: AgentSnapshot) -> AgentView:
    healthy, why = snapshot.health.healthy
    return AgentView(
        vm=snapshot.vm or None,
        availability_set=snapshot.availability_set_id or None,
        resource_group=fold(group_name(snapshot.availability_set_id)) or None,
        release=release(),
        role=snapshot.health.role,
        headline=snapshot.health.headline,
        healthy=healthy,
        why=why,
        listen=snapshot.listen,
        runbook=snapshot.runbook_url,
    )


# --- VMs ---


def _vms(snapshot: AgentSnapshot, ledger: Ledger) -> Iterator[VmView]:
    phases = _phases(snapshot)
    known = {fold(vm.name): vm for vm in snapshot.vms}
    membership = _membership(snapshot, ledger)
    # Azure writes names in capitals here and there; the spelling that comes last is kept.
    names = {
        fold(name): name
        for name in (
            *snapshot.peers,
            *(entry.vm for entry in ledger.entries),
            *(phase.vm for phase in phases.values()),
            snapshot.vm,
        )
        if name
    }
    for key in sorted(names):
        entry, vm = ledger.entry(key), known.get(key)
        phase = phases.get(key) or phase_by(ledger, key)
        yield VmView(
            vm=names[key],
            phase=phase.phase.value if phase else None,
            why=_why(snapshot, names[key], phase, entry),
            power=vm.power.value if vm else None,
            pools=_pools(snapshot, membership, vm, entry),
            gone=entry is not None and entry.gone,
            recorded=entry is not None,
            closing=closing_view(ledger, key, snapshot.reports.get(key)),
            not_covered=_not_covered(snapshot, names[key]),
        )


def _why(snapshot: AgentSnapshot, vm: str, phase: VmPhase | None, entry: Entry | None) -> str:
    """Return why a VM is in its phase, or why an event that names it changes nothing yet."""
    if phase is not None and phase.why:
        return phase.why
    if entry is not None:
        return f"because of {reasons(entry)}"
    events = [each.event for each in snapshot.seen_events if not each.gone]
    found = (_why_not_yet(snapshot, each) for each in events if each.affects(vm))
    return "; ".join(filter(None, found))


def _why_not_yet(snapshot: AgentSnapshot, event: ScheduledEvent) -> str:
    if ignored := _why_ignored(snapshot, snapshot.ledger or Ledger(), event):
        return f"{event.event_type} is ignored: {ignored}"
    drain_at = snapshot.policy.drain_at(event, snapshot.now)
    if drain_at is None or drain_at <= snapshot.now:
        return ""
    return f"{event.event_type}: the drain starts at {drain_at:%Y-%m-%d %H:%M:%S} UTC"


def _not_covered(snapshot: AgentSnapshot, vm: str) -> str:
    """Return why the document of this agent does not cover a VM, by the events it has read."""
    forwarded = (each.event for each in snapshot.seen_events if each.event.forwarded)
    if not any(event.affects(vm) for event in forwarded):
        return ""
    return (
        f"the event document of {snapshot.vm} does not show its events: other agents forward "
        "them, no agent acknowledges them, and they begin at NotBefore"
    )


def _phases(snapshot: AgentSnapshot) -> dict[str, VmPhase]:
    """Return the phases that this agent has planned, by folded name."""
    return {fold(phase.vm): phase for phase in (snapshot.plan.phases if snapshot.plan else ())}


def _pools(
    snapshot: AgentSnapshot, membership: PoolMembership, vm: Vm | None, entry: Entry | None
) -> list[PoolView]:
    inside: dict[str, bool] = {}
    if entry is not None:
        out = (*(() if entry.restored_at else entry.memberships), *entry.lost)
        inside = {fold(membership.pool_id): False for membership in out}
    if vm is not None:
        now_in = membership.memberships(vm)
        inside |= dict.fromkeys((fold(each.pool_id) for each in now_in), True)
    names = {key: snapshot.pool_names.get(key, short(key)) for key in inside}
    return [
        PoolView(pool=names[key], inside=inside[key])
        for key in sorted(inside, key=lambda key: names[key])
    ]


def _membership(snapshot: AgentSnapshot, ledger: Ledger) -> PoolMembership:
    """Return which VM is in which pool, as the planner sees it."""
    observed = Observation(
        document=None,
        vms=snapshot.vms,
        nics=snapshot.nics,
        pools=snapshot.pools,
        rules=snapshot.rules,
    )
    mechanisms = MECHANISMS.under(snapshot.policy)
    return pool_membership(observed, ledger, snapshot.policy.pools, mechanisms)


# --- events ---


def _events(snapshot: AgentSnapshot, ledger: Ledger) -> Iterator[EventView]:
    unseen = unseen_events(ledger, snapshot.seen_events, gone=snapshot.document is not None)
    for seen in (*reversed(snapshot.seen_events), *unseen):
        if is_shown(seen, ledger, snapshot.now):
            yield _event(snapshot, ledger, seen)


def _event(snapshot: AgentSnapshot, ledger: Ledger, seen: SeenEvent) -> EventView:
    event = seen.event
    unseen = seen.first_seen_at is None  # recorded, so policy required a drain
    ignored = "" if unseen else _why_ignored(snapshot, ledger, event)
    impacting = not ignored
    requested = unseen and event.event_type == DRAIN_REQUEST
    return EventView(
        event_id=event.event_id,
        event_type=event.event_type,
        status=MANUAL if requested else _status(snapshot, seen, impacting=impacting),
        source=event.source.value,
        vms=list(event.resources),
        not_before=instant_or_none(event.not_before),
        duration_s=event.duration_s if event.duration_s >= 0 else None,
        impacting=impacting,
        ignored=ignored,
        drain_at=instant_or_none(snapshot.policy.drain_at(event, snapshot.now))
        if impacting
        else None,
        detail=_request_detail(snapshot, ledger, event) if requested else "",
        timelines=[_timeline(seen, vm, ledger) for vm in (event.resources if impacting else ())],
        outlook=[] if requested or seen.gone else list(_outlook(snapshot, ledger, event, ignored)),
    )


def _why_ignored(snapshot: AgentSnapshot, ledger: Ledger, event: ScheduledEvent) -> str:
    """Return why policy requires no drain; of an event that was not read, what the leader noted."""
    if why := snapshot.policy.why_ignored(event):
        return why
    recorded = {fold(each.event_id): each.ignored for each in ledger.events}
    return recorded.get(fold(event.event_id), "") if event.duration_s < 0 else ""


def _outlook(
    snapshot: AgentSnapshot, ledger: Ledger, event: ScheduledEvent, ignored: str
) -> Iterator[str]:
    """Yield what happens to each VM of an event whose phase this agent knows."""
    phases = _phases(snapshot)
    holds = snapshot.plan.holds if snapshot.plan else ledger.holds
    stuck = {
        fold(vm): hold.message
        for hold in holds
        if hold.reason == HoldReason.WRITE_FAILED.value
        for vm in hold.vms
    }
    if snapshot.health.role == "dry run":
        stuck = dict.fromkeys(map(fold, event.resources), DRY_RUN)
    seen = (phases.get(fold(vm)) or phase_by(ledger, vm) for vm in event.resources)
    known = [phase for phase in seen if phase is not None]
    inside = [each.vm for each in known if each.phase in IN_ROTATION]
    for phase in known:
        sentence = outlook(
            event,
            phase,
            policy=snapshot.policy,
            now=snapshot.now,
            ignored=ignored,
            stuck=stuck.get(fold(phase.vm), ""),
        )
        yield sentence + waits_for(phase, inside)


def _timeline(seen: SeenEvent, vm: str, ledger: Ledger) -> TimelineView:
    found = ledger.verdict(seen.event.event_id, vm, since=seen.first_seen_at)
    return TimelineView(
        vm=vm,
        steps=[
            StepView(step=step.name, state=step.state, at=instant_or_none(step.at))
            for step in steps(seen, vm, ledger)
        ],
        verdict=found.verdict if found else None,
        text=verdict_text(found) if found else "",
    )


def _request_detail(snapshot: AgentSnapshot, ledger: Ledger, event: ScheduledEvent) -> str:
    """Return who asked for a VM, why, and until when, as far as this agent knows."""
    detail = requested_by(ledger, event.resources[0], event.event_id)
    for request in snapshot.drain_requests:
        if fold(request.request_id) == fold(event.event_id) and request.is_active(snapshot.now):
            return f"{detail}, until {request.until:%Y-%m-%d %H:%M} UTC"
    return detail


def _status(snapshot: AgentSnapshot, seen: SeenEvent, *, impacting: bool) -> str:
    if not seen.gone:
        return seen.event.status.value
    # The ledger does not record the acknowledgement of an event that policy ignores.
    known = impacting and snapshot.ledger is not None and was_cancelled(seen, snapshot.ledger)
    return "Cancelled" if known else "Gone"


# --- requests to Azure ---


def _services(failures: Mapping[tuple[str, str], int]) -> Iterator[ServiceView]:
    """Yield each service with the operation that has failed most often."""
    worst: dict[str, tuple[int, str]] = {}
    for (service, operation), number in failures.items():
        if service not in worst or number > worst[service][0]:
            worst[service] = (number, operation)
    for service, (number, operation) in worst.items():
        name = request_name(service, operation) if number else ""
        yield ServiceView(service=service, failures_in_a_row=number, name=name)


def _requests(each: AzureRequestCounts) -> RequestsView:
    count = sum(each.outcomes.values())
    return RequestsView(
        service=each.service,
        operation=each.operation,
        name=request_name(each.service, each.operation),
        ok=each.outcomes.get("ok", 0),
        other={name: number for name, number in each.outcomes.items() if name != "ok"},
        mean_s=round(each.seconds / count, 3) if count else 0.0,
    )
