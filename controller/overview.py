"""The JSON behind the status page, `/api/v1/overview`: from facts to a closed shape.

The types below are the documentation of the shape. Within v1 fields may be added, never removed or
given another meaning. Instants are ISO 8601 in UTC, durations are seconds, null means that nobody
here knows. Texts that come from Azure stay as they came: show them as text, never as HTML.

A leader shows what it knows. A standby knows the event document and its own requests; of the rest
it knows what the leader wrote into the ledger, as of `ledger.as_of`: it reads no NICs and no pools.

Pure: no I/O, no clock.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypedDict

from controller.core.actions import Plan
from controller.core.ledger import Entry, Ledger
from controller.core.model import (
    REQUEST,
    EventDocument,
    Nic,
    Policy,
    Pool,
    Request,
    ScheduledEvent,
    Vm,
    fold,
    fold_address,
    short,
)
from controller.metrics import Requests
from controller.timeline import (
    Sighting,
    StepName,
    StepState,
    asked,
    cancelled,
    phase_by,
    steps,
    unseen,
    worth_showing,
)

VERSION = 1
Role = Literal["starting", "standby", "leader", "suspect", "dry run"]


class AgentShown(TypedDict):
    """The agent that answers."""

    vm: str | None
    availability_set: str | None
    role: Role
    headline: str
    healthy: bool
    why: str
    """One line to `healthy`."""


class LeaseShown(TypedDict):
    """Who leads."""

    state: str | None
    """available, leased, expired, breaking or broken, as storage says."""
    leader: str | None
    epoch: int | None
    since: str | None
    valid_for_s: float | None
    """For how long the leader may write without renewing; only the leader itself knows."""
    duration_s: float


class LedgerShown(TypedDict):
    """How old what comes from the ledger is."""

    as_of: str | None
    problem: str
    """Why it could not be read the last time; empty when it could."""


class DocumentShown(TypedDict):
    """How old the event document is."""

    age_s: float | None
    failed_polls: int
    """In a row, since the last good one."""


class PoolShown(TypedDict):
    """One pool of one VM."""

    pool: str
    inside: bool


class VmShown(TypedDict):
    """One VM of the set, or of the ledger."""

    vm: str
    phase: str | None
    """A phase of the planner; null when only the leader knows."""
    why: str
    power: str | None
    pools: list[PoolShown]
    gone: bool


class StepShown(TypedDict):
    """One step of a timeline."""

    step: StepName
    state: StepState
    at: str | None


class TimelineShown(TypedDict):
    """One VM in one event."""

    vm: str
    steps: list[StepShown]


class EventShown(TypedDict):
    """One event, in the document now or gone a short while ago; or one request made by hand."""

    event_id: str
    event_type: str
    """As Azure spells it, or Request."""
    status: str
    """As Azure spells it; Gone, or Cancelled for one that went before it could begin; by hand for a
    request."""
    source: str
    vms: list[str]
    not_before: str | None
    duration_s: int | None
    impacting: bool
    """Policy says to act on it."""
    drain_at: str | None
    """When draining begins; null for at once."""
    detail: str
    """Of a request who asked, until when and why, as they said; else empty."""
    timelines: list[TimelineShown]


class HoldShown(TypedDict):
    """Something deliberately not done."""

    subject: str
    reason: str
    message: str
    since: str


class LineShown(TypedDict):
    """One line of history."""

    at: str
    vm: str
    what: str
    detail: str


class ServiceShown(TypedDict):
    """One service of Azure."""

    service: str
    failures_in_a_row: int


class RequestsShown(TypedDict):
    """Requests of one kind since the agent was started."""

    service: str
    operation: str
    ok: int
    other: dict[str, int]
    """By outcome; some are ordinary answers, as lease_held."""
    mean_s: float


class Overview(TypedDict):
    """The whole of it."""

    version: int
    at: str
    agent: AgentShown
    lease: LeaseShown
    ledger: LedgerShown
    document: DocumentShown
    vms: list[VmShown]
    events: list[EventShown]
    holds: list[HoldShown]
    history: list[LineShown]
    """Newest first."""
    services: list[ServiceShown]
    requests: list[RequestsShown]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What one agent knows when it is asked."""

    now: datetime
    role: Role
    headline: str
    healthy: bool
    why: str
    lease_duration_s: float
    policy: Policy
    pool_names: Mapping[str, str]
    """Short name by folded pool id."""
    vm: str = ""
    availability_set_id: str = ""
    peers: tuple[str, ...] = ()
    """Names of the VMs of the set, as they were when the agent started."""
    lease_state: str = ""
    valid_for_s: float | None = None
    ledger: Ledger | None = None
    """None as long as it has not been read."""
    ledger_at: datetime | None = None
    ledger_problem: str = ""
    document: EventDocument | None = None
    document_age_s: float | None = None
    failed_polls: int = 0
    sightings: tuple[Sighting, ...] = ()
    plan: Plan | None = None
    """None when this agent does not plan."""
    vms: tuple[Vm, ...] = ()
    nics: tuple[Nic, ...] = ()
    pools: tuple[Pool, ...] = ()
    asked_for: tuple[Request, ...] = ()
    """What people asked for by hand, as far as this agent has read it."""
    requests: tuple[Requests, ...] = ()
    failures_in_a_row: Mapping[str, int]


def overview(facts: Facts) -> Overview:
    """Return what the status page shows."""
    ledger = facts.ledger or Ledger()
    leader = ledger.leader if facts.lease_state == "leased" else ""
    return Overview(
        version=VERSION,
        at=_instant(facts.now),
        agent=AgentShown(
            vm=facts.vm or None,
            availability_set=facts.availability_set_id or None,
            role=facts.role,
            headline=facts.headline,
            healthy=facts.healthy,
            why=facts.why,
        ),
        lease=LeaseShown(
            state=facts.lease_state or None,
            leader=leader or None,
            epoch=ledger.epoch if facts.ledger else None,
            since=_maybe(ledger.leader_since) if leader else None,
            valid_for_s=None if facts.valid_for_s is None else round(facts.valid_for_s, 1),
            duration_s=facts.lease_duration_s,
        ),
        ledger=LedgerShown(as_of=_maybe(facts.ledger_at), problem=facts.ledger_problem),
        document=DocumentShown(
            age_s=None if facts.document_age_s is None else round(facts.document_age_s, 1),
            failed_polls=facts.failed_polls,
        ),
        vms=list(_vms(facts, ledger)),
        events=list(_events(facts, ledger)),
        holds=[
            HoldShown(
                subject=hold.subject,
                reason=hold.reason,
                message=hold.message,
                since=_instant(hold.since),
            )
            for hold in (facts.plan.holds if facts.plan else ledger.holds)
        ],
        history=[
            LineShown(at=_instant(line.at), vm=line.vm, what=line.what, detail=line.detail)
            for line in reversed(ledger.transitions)
        ],
        services=[
            ServiceShown(service=service, failures_in_a_row=failures)
            for service, failures in facts.failures_in_a_row.items()
        ],
        requests=[_requests(each) for each in facts.requests],
    )


# --- VMs ---


def _vms(facts: Facts, ledger: Ledger) -> Iterator[VmShown]:
    phases = {fold(phase.vm): phase for phase in (facts.plan.phases if facts.plan else ())}
    known = {fold(vm.name): vm for vm in facts.vms}
    # Azure writes names in capitals here and there; the spelling that comes last is kept.
    names = {
        fold(name): name
        for name in (
            *facts.peers,
            *(entry.vm for entry in ledger.entries),
            *(phase.vm for phase in phases.values()),
            facts.vm,
        )
        if name
    }
    for key in sorted(names):
        entry, vm = ledger.entry(key), known.get(key)
        phase = phases.get(key) or phase_by(ledger, key)
        yield VmShown(
            vm=names[key],
            phase=phase.phase.value if phase else None,
            why=phase.why if phase else "",
            power=vm.power.value if vm else None,
            pools=_pools(facts, vm, entry),
            gone=entry is not None and entry.gone,
        )


def _pools(facts: Facts, vm: Vm | None, entry: Entry | None) -> list[PoolShown]:
    standing: dict[str, bool] = {}
    if entry is not None and entry.restored_at is None:
        standing = {fold(membership.pool_id): False for membership in entry.memberships}
    if vm is not None:
        standing |= dict.fromkeys(_inside(facts, vm), True)
    names = {key: facts.pool_names.get(key, short(key)) for key in standing}
    return [
        PoolShown(pool=names[key], inside=standing[key])
        for key in sorted(standing, key=lambda key: names[key])
    ]


def _inside(facts: Facts, vm: Vm) -> Iterator[str]:
    """Yield the managed pools a VM is in, folded; a NIC lists its own, an address is looked up."""
    own = {fold(nic_id) for nic_id in vm.nic_ids}
    configurations = [
        each for nic in facts.nics if fold(nic.nic_id) in own for each in nic.ip_configurations
    ]
    addresses = {fold_address(each.private_ip) for each in configurations if each.private_ip}
    listed = {fold(pool_id) for each in configurations for pool_id in each.pool_ids}
    for pool in facts.pools:
        by_address = any(
            member.address is not None and fold_address(member.address.ip_address) in addresses
            for member in pool.members
        )
        if by_address or fold(pool.pool_id) in listed:
            yield fold(pool.pool_id)


# --- events ---


def _events(facts: Facts, ledger: Ledger) -> Iterator[EventShown]:
    unread = unseen(ledger, facts.sightings, gone=facts.document is not None)
    for sighting in (*reversed(facts.sightings), *unread):
        if worth_showing(sighting, ledger, facts.now):
            yield _event(facts, ledger, sighting)


def _event(facts: Facts, ledger: Ledger, sighting: Sighting) -> EventShown:
    event = sighting.event
    unread = sighting.first_seen_at is None  # in the ledger because policy said to act on it
    impacting = unread or facts.policy.impacting(event)
    by_hand = unread and event.event_type == REQUEST
    return EventShown(
        event_id=event.event_id,
        event_type=event.event_type,
        status="by hand" if by_hand else _status(facts, sighting, impacting=impacting),
        source=event.source.value,
        vms=list(event.resources),
        not_before=_maybe(event.not_before),
        duration_s=event.duration_s if event.duration_s >= 0 else None,
        impacting=impacting,
        drain_at=_maybe(facts.policy.drain_at(event)) if impacting else None,
        detail=_asked(facts, ledger, event) if by_hand else "",
        timelines=[
            TimelineShown(
                vm=vm,
                steps=[
                    StepShown(step=step.name, state=step.state, at=_maybe(step.at))
                    for step in steps(sighting, vm, ledger)
                ],
            )
            for vm in (event.resources if impacting else ())
        ],
    )


def _asked(facts: Facts, ledger: Ledger, event: ScheduledEvent) -> str:
    """Say who asked for a VM, why, and until when, as far as this agent knows."""
    said = asked(ledger, event.resources[0], event.event_id)
    for request in facts.asked_for:
        if fold(request.request_id) == fold(event.event_id) and request.stands(facts.now):
            return f"{said}, until {request.until:%Y-%m-%d %H:%M} UTC"
    return said


def _status(facts: Facts, sighting: Sighting, *, impacting: bool) -> str:
    if not sighting.gone:
        return sighting.event.status.value
    # The ledger does not tell of the acknowledgement of an event that policy ignores.
    told = impacting and facts.ledger is not None and cancelled(sighting, facts.ledger)
    return "Cancelled" if told else "Gone"


# --- requests ---


def _requests(each: Requests) -> RequestsShown:
    count = sum(each.outcomes.values())
    return RequestsShown(
        service=each.service,
        operation=each.operation,
        ok=each.outcomes.get("ok", 0),
        other={name: number for name, number in each.outcomes.items() if name != "ok"},
        mean_s=round(each.seconds / count, 3) if count else 0.0,
    )


def _instant(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds")


def _maybe(instant: datetime | None) -> str | None:
    return None if instant is None else _instant(instant)
