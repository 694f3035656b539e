"""The shape of `/api/v1/overview` and `lb-drain status --json`, which docs/api.md describes.

Within v1 fields may be added, never removed or given another meaning. Instants are ISO 8601 in UTC,
durations are seconds, null means that this agent does not know. Texts that come from Azure stay as
they came: show them as text, never as HTML.
"""

from typing import Literal, TypedDict

from controller.core.event_progress import StepName, StepState

VERSION = 1
Role = Literal["starting", "standby", "leader", "suspect", "dry run", "command"]
"""Command: not an agent answers but `lb-drain status`, with what it has read itself."""
AgentRole = Literal["leader", "standby", "dry run", "not running", "unknown"]
"""An agent in a dry run publishes nothing: only its own overview shows that it runs. Unknown: what
the agent publishes cannot be read."""


class AgentView(TypedDict):
    """The agent, or the command, that answers."""

    vm: str | None
    availability_set: str | None
    resource_group: str | None
    """The name of the resource group of the availability set, in lower case: Azure spells it in
    several ways."""
    release: str
    """The version of the agent."""
    role: Role
    headline: str
    healthy: bool
    why: str
    """One line to `healthy`."""
    listen: str
    """Where it serves its page, `server.listen`: that of the leader is the same port there."""
    runbook: str
    """`links.runbook_url`; empty if it is not set."""


class SetAgentView(TypedDict):
    """The agent of one VM of the set, by what it publishes every two minutes."""

    vm: str
    role: AgentRole
    release: str | None
    """The version of the agent; null, as the following, without a publication that can be used."""
    configuration: str | None
    """A digest of its pools and policy: agents of one set should have the same."""
    started_at: str | None
    seen_at: str | None
    problem: str
    """Why the agent is not ready, or why what it publishes cannot be used."""
    text: str
    """When it was seen, in words for people; they may change in any version."""


class LeaseView(TypedDict):
    """The lease, and the leader."""

    state: str | None
    """available, leased, expired, breaking or broken, as storage reports."""
    leader: str | None
    epoch: int | None
    since: str | None
    valid_for_s: float | None
    """How long the leader may write without renewing the lease; only the leader knows."""
    duration_s: float


class LedgerView(TypedDict):
    """How old what comes from the ledger is."""

    as_of: str | None
    problem: str
    """Why it could not be read the last time; empty when it could."""


class DocumentView(TypedDict):
    """How old the event document is."""

    age_s: float | None
    failed_polls: int
    """In a row, since the last good one."""


class ResourceGraphView(TypedDict):
    """What the leader knows from Azure Resource Graph, which decides nothing."""

    as_of: str | None
    """When the last query was answered."""
    problem: str
    """Why the last query failed; empty if it did not."""
    unpublished: list[str]
    """Ids of events that agents have read for 15 minutes and that Resource Graph lacks."""
    early_ends: list[str]
    """Ids of events that Resource Graph calls completed or cancelled and that agents still read."""
    set_aside: list[str]
    """Why rows of the last answer cannot be used."""


class PoolView(TypedDict):
    """One pool of one VM."""

    pool: str
    inside: bool


class ClosingView(TypedDict):
    """What is known of a VM's own side of a drain."""

    state: str
    """closed, opening or open."""
    since: str
    reported_at: str
    """When its agent made the report; for a line of the ledger, when the leader noted it."""
    quiet: bool | None
    """No connection is left; null, as the following, where only the ledger is known."""
    connections_left: int | None
    """Null also if they cannot be counted."""
    refused_probes: int | None
    hook: str
    """running, done, failed, timed out, or empty without a hook."""
    problem: str
    text: str
    """The same in words for people; they may change in any version."""


class VmView(TypedDict):
    """One VM of the set, or of the ledger."""

    vm: str
    phase: str | None
    """A phase of the planner; null when only the leader knows."""
    why: str
    power: str | None
    pools: list[PoolView]
    gone: bool
    recorded: bool
    """The ledger records it as drained: it is out of rotation, on its way out or on its way back.
    """
    closing: ClosingView | None
    """Null for a VM that takes part in no drain, or whose agent does not report."""
    not_covered: str
    """Why the leader cannot see the events of this VM itself, in words for people; empty if it has
    seen them, or has no reason to think so."""


class StepView(TypedDict):
    """One step of a timeline."""

    step: StepName
    state: StepState
    at: str | None


class TimelineView(TypedDict):
    """One VM in one event."""

    vm: str
    steps: list[StepView]
    verdict: str | None
    """What became of the event for this VM; null until that is known."""
    text: str
    """The verdict in words for people; they may change in any version."""


class VerdictView(TypedDict):
    """What became of one event for one VM."""

    at: str
    vm: str
    event_id: str
    event_type: str
    verdict: str
    """drained, late, hit_in_rotation, ignored, cancelled or unmanaged."""
    margin_s: float | None
    """Seconds from out of rotation to NotBefore, or else to the start; negative if late."""
    why: str
    end: str
    """How Azure Resource Graph states that the event ended: Completed or Canceled; empty while it
    does not."""
    text: str
    """The verdict in words for people; they may change in any version."""


class EventView(TypedDict):
    """One event, in the document now or gone a short while ago; or one drain request."""

    event_id: str
    event_type: str
    """As Azure spells it, or Request."""
    status: str
    """As Azure spells it; Gone, or Cancelled for one that went before it could begin; Manual for a
    drain request."""
    source: str
    vms: list[str]
    not_before: str | None
    duration_s: int | None
    impacting: bool
    """Policy requires a drain."""
    ignored: str
    """Why policy requires no drain, with the setting; empty for an impacting event."""
    drain_at: str | None
    """When draining begins; null for at once."""
    detail: str
    """For a drain request: who asked, why, and until when; otherwise empty."""
    timelines: list[TimelineView]
    outlook: list[str]
    """What happens to each VM when the event begins, if nothing changes until then, in words for
    people; they may change in any version. Empty for a drain request and for an event that is
    gone."""


class HoldView(TypedDict):
    """Something that is deliberately not done."""

    subject: str
    reason: str
    vms: list[str]
    """The VMs that it concerns, if the subject is none."""
    message: str
    consequence: str
    """What follows from it, and the next field what to do about it, in words for people; they may
    change in any version."""
    remedy: str
    since: str


class DrainRequestView(TypedDict):
    """A manual drain that was requested and has not ended."""

    vm: str
    by: str
    reason: str
    test: bool
    """It is a rehearsal."""
    forced: bool
    """It drains its VM below `min_in_service` if necessary: law S2 is suspended for that VM."""
    at: str
    until: str


class RollingRunView(TypedDict):
    """The rolling run that is in progress, or that failed."""

    what: str
    by: str
    failed: str
    """Empty while it is in progress."""
    remaining: list[str]


class ControlView(TypedDict):
    """One control of the set that is in force."""

    kind: str
    """pause, acknowledge, hold, hand_over or override; other kinds may follow."""
    subject: str
    """What it is about; empty for the whole set."""
    by: str
    reason: str
    at: str
    until: str
    text: str
    """The control in words for people; they may change in any version."""


class ProblemView(TypedDict):
    """Something that needs attention."""

    kind: str
    """in_rotation, held, write_failed, storage, azure, unhealthy, no_leader, agent, configuration,
    late, hit_in_rotation or missed; more kinds may come."""
    severity: Literal["critical", "warning", "info"]
    """critical: requests are lost now, or at the next event; warning: act today; info: clean up."""
    vm: str | None
    title: str
    text: str
    """Both are words for people; they may change in any version."""
    since: str | None
    deadline: str | None
    """NotBefore of the event that will meet the VM in rotation."""
    command: str
    """What to run first: on the VM that is named, or else on any VM of the set."""
    alert: str
    """The chapter of the runbook, named as the alert is."""


class TransitionView(TypedDict):
    """One line of history."""

    at: str
    vm: str
    what: str
    """The step as the ledger stores it."""
    text: str
    """The step in words for people; they may change in any version."""
    detail: str


class ServiceView(TypedDict):
    """One Azure service."""

    service: str
    failures_in_a_row: int
    """Of the operation that has failed most often since it was last answered."""
    name: str
    """That operation in words for people; empty if none fails."""


class RequestsView(TypedDict):
    """HTTP requests of one kind since the agent started."""

    service: str
    operation: str
    name: str
    """The operation in words for people; they may change in any version."""
    ok: int
    other: dict[str, int]
    """By outcome; some are ordinary replies, such as lease_held."""
    mean_s: float


class Overview(TypedDict):
    """The whole object."""

    version: int
    at: str
    agent: AgentView
    agents: list[SetAgentView]
    """Every agent of the set, this one included; empty until they are read."""
    lease: LeaseView
    ledger: LedgerView
    document: DocumentView
    resource_graph: ResourceGraphView | None
    """Null if Resource Graph is not asked, and of an agent that does not lead."""
    vms: list[VmView]
    events: list[EventView]
    drain_requests: list[DrainRequestView]
    rolling_run: RollingRunView | None
    """Null if there is none, and of a standby, which does not read it."""
    holds: list[HoldView]
    controls: list[ControlView]
    """Controls of the set that are in force; of a standby, as of its last read."""
    controls_problem: str
    """Why the controls cannot be read; empty if they can."""
    problems: list[ProblemView]
    """Worst first."""
    verdicts: list[VerdictView]
    """Newest first."""
    history: list[TransitionView]
    """Newest first."""
    services: list[ServiceView]
    requests: list[RequestsView]
