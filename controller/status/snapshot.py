"""What one agent knows at one instant, as plain values: every status answer is built from this.

The agent builds it (`agent.live_status`). This package reads it and imports nothing of the agent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from controller.core.agent_presence import SeenAgent
from controller.core.controls import NO_CONTROLS, Controls
from controller.core.drain_requests import DrainRequest, RollingRun
from controller.core.event_progress import SeenEvent
from controller.core.events import EventDocument
from controller.core.ledger import Ledger
from controller.core.planning.actions import Plan
from controller.core.policy import Policy
from controller.core.resources import LoadBalancingRule, Nic, Pool, Vm
from controller.core.second_source import SecondSource
from controller.core.vm_phase import Rotation
from controller.core.vm_report import VmReport
from controller.observability.metrics import AzureRequestCounts
from controller.status.overview_schema import Role

HEALTHY_PASS_S = 60.0
"""Without a completed pass for this long, the agent is not healthy."""

Answer = tuple[bool, str]
"""Whether something holds, and one line why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentHealth:
    """What decides whether an agent works and takes part."""

    role: Role
    waiting_for: str = ""
    """Why the agent has not started yet; empty once it has."""
    leading: bool = False
    """Whether a write may leave now."""
    document_read: bool = False
    unread: str = ""
    """Why the VMs of the set are not known, or the set does not exist; empty otherwise."""
    rotation: Rotation = field(default_factory=Rotation)
    """Which VMs are out of rotation, or on their way, as observed."""
    controls: Controls = NO_CONTROLS
    """The controls that are in force."""
    pass_age_s: float = 0.0
    """Seconds since the last completed pass."""

    @property
    def headline(self) -> str:
        """The state of the agent in one line."""
        if self.role == "starting":
            return self.waiting_for
        if self.role == "command":
            return self.unread or str(self.rotation)
        if self.role == "dry run":
            return "dry run: nothing is written" + (f"; {self.unread}" if self.unread else "")
        if not self.leading:
            return f"{self.role}; {self.unread}" if self.unread else self.role
        if self.unread:
            out = ", ".join((*self.rotation.out, *self.rotation.restoring))
            recorded = f"; recorded as out of rotation: {out}" if out else ""
            return f"leader; {self.unread}{recorded}"
        pause = self.controls.pause
        paused = f"removals are paused until {pause.ends_at:%Y-%m-%d %H:%M} UTC; " if pause else ""
        return f"leader; {paused}{self.rotation}"

    @property
    def healthy(self) -> Answer:
        """Whether passes complete, and a leader has renewed its lease."""
        if self.role == "starting":
            return True, self.waiting_for
        if self.pass_age_s > HEALTHY_PASS_S:
            return False, f"no pass completed for {self.pass_age_s:.0f} s"
        if self.role == "suspect":
            return False, "the lease could have expired and is not renewed"
        return True, self.headline

    @property
    def ready(self) -> Answer:
        """Whether the agent is healthy, and has read everything that its role plans from."""
        if self.role == "starting":
            return False, self.waiting_for
        if not self.document_read:
            return False, "the event document has not been read yet"
        healthy, why = self.healthy
        if healthy and self.unread:
            return False, self.unread
        return healthy, why


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSnapshot:
    """What one agent knows when it is asked."""

    now: datetime
    health: AgentHealth
    lease_duration_s: float
    policy: Policy
    pool_names: Mapping[str, str]
    """Short name by folded pool id."""
    listen: str = ""
    """Where the agent serves its page."""
    runbook_url: str = ""
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
    seen_events: tuple[SeenEvent, ...] = ()
    second_source: SecondSource | None = None
    """None if Resource Graph is not asked, and for an agent that does not lead."""
    plan: Plan | None = None
    """None when this agent does not plan."""
    vms: tuple[Vm, ...] = ()
    nics: tuple[Nic, ...] = ()
    pools: tuple[Pool, ...] = ()
    rules: tuple[LoadBalancingRule, ...] = ()
    """The rules of the load balancers: adminState has an effect only where they have probes."""
    pools_without_peers: tuple[str, ...] = ()
    """Ids of managed pools that no VM of the set is in."""
    reports: Mapping[str, VmReport] = field(default_factory=lambda: MappingProxyType({}))
    """What agents report about their own side of a drain, by folded name of the VM."""
    agents: tuple[SeenAgent, ...] = ()
    """What the agents of the set publish; empty until it was read."""
    drain_requests: tuple[DrainRequest, ...] = ()
    """As far as this agent has read them."""
    rolling_run: RollingRun | None = None
    """None also if this agent does not read it: it is a standby."""
    controls_problem: str = ""
    """Why the controls cannot be read; empty if they can."""
    azure_requests: tuple[AzureRequestCounts, ...] = ()
    consecutive_failures: Mapping[tuple[str, str], int]
    """By Azure service and operation."""
    write_limit: int = 0
    """How many writes may be in flight at present."""
    inventory_period_s: float = 0.0
