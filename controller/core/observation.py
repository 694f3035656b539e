"""Everything that one pass of the planner knows about the world.

Frozen values. Names and ids keep Azure's spelling and are compared through `azure_names.fold`;
instants are aware UTC. Standard library only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from controller.core.action_keys import ActionKey
from controller.core.azure_names import fold
from controller.core.controls import NO_CONTROLS, Controls
from controller.core.drain_requests import DrainRequest, ForgetRequest
from controller.core.events import EventDocument
from controller.core.ledger import Entry
from controller.core.presence import LASTING, ONE_REPLY, UNKNOWN, Presence
from controller.core.resources import (
    LoadBalancingRule,
    MembershipKey,
    Nic,
    Pool,
    PoolHealth,
    Vm,
)
from controller.core.shared_pools import SharedPool
from controller.core.vm_report import SeenReport, VmReport, VmState
from controller.errors import Busy, Conflict, NotFound

OF_ALL_AGENTS = frozenset(each.__name__ for each in (Busy, Conflict, NotFound))
"""What every agent would meet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferral:
    """Why an action with this key waits, and until when."""

    until: datetime
    reason: str
    message: str = ""
    attempts: int = 0
    """Consecutive failures so far."""
    asked: bool = False
    """Azure asked for this wait."""
    what: str = ""
    """What was tried and how it failed, also while that is routine."""

    @property
    def is_own(self) -> bool:
        """Whether Azure asked this agent to wait, and perhaps no other: no conflict is in the way.

        Azure states it for limits of an identity, and while a service does not answer one VM.
        """
        return self.asked and self.reason not in OF_ALL_AGENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The world as one agent knows it at one instant."""

    document: EventDocument | None
    """Newest good document; None before the first."""
    document_at: datetime | None = None
    """When it arrived."""
    is_complete: bool = True
    """Whether that document holds what other agents forward; a new leader has to read it first."""
    clean_documents: tuple[EventDocument, ...] = ()
    """The newest documents of an unbroken run of good polls, at most two; a bad poll empties it."""
    vms: tuple[Vm, ...] = ()
    former: tuple[Vm, ...] = ()
    """VMs that the ledger names and the set no longer does, with their power as read."""
    nics: tuple[Nic, ...] = ()
    pools: tuple[Pool, ...] = ()
    """The managed pools that exist. A configured pool that is missing here does not exist."""
    health: Mapping[str, PoolHealth] = field(default_factory=lambda: MappingProxyType({}))
    """Which members the rules report as down, by folded pool id, where the role allows to read
    it."""
    views: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    """Views of resources that are neither NIC nor pool, by folded id, for their mechanism."""
    shared_pools: Mapping[str, SharedPool] = field(default_factory=lambda: MappingProxyType({}))
    """What other availability sets state about pools that they share with this one, by folded id
    of the pool."""
    rules: tuple[LoadBalancingRule, ...] = ()
    """The load balancing rules of the load balancers of the managed pools."""
    reports: Mapping[str, SeenReport] = field(default_factory=lambda: MappingProxyType({}))
    """What the agents of VMs report about their own side of a drain, by folded name."""
    inventory_at: datetime | None = None
    """When VMs, NICs and pools were last read as a whole; None before the first time."""
    inventory_period_s: float = 300
    """How long an inventory is valid while nothing happens, in seconds."""
    set_id: str = ""
    """The set that the VMs were last read from; empty before that. Azure can convert a set."""
    set_problem: str = ""
    """Why the set itself cannot be read; VMs added to it are not known then."""
    in_flight: frozenset[ActionKey] = frozenset()
    """Targets of actions that are under way."""
    deferred: Mapping[ActionKey, Deferral] = field(default_factory=lambda: MappingProxyType({}))
    """Keys of actions that failed or were throttled, with the instant of the next attempt."""
    unread: Mapping[ActionKey, str] = field(default_factory=lambda: MappingProxyType({}))
    """What the newest inventory could not read, and why, as operators have to know it; by key."""
    attempts: Mapping[ActionKey, int] = field(default_factory=lambda: MappingProxyType({}))
    """Consecutive failures so far of actions that are not deferred now, by the action's key."""
    read_at: Mapping[ActionKey, datetime] = field(default_factory=lambda: MappingProxyType({}))
    """When a pass last started a read of a target."""
    excused: Mapping[ActionKey, int] = field(default_factory=lambda: MappingProxyType({}))
    """How many of the consecutive failures of a key are no refusals: they do not depend on what
    the write contained (a conflict, throttling, no reply)."""
    sent_at: Mapping[str, datetime] = field(default_factory=lambda: MappingProxyType({}))
    """When this agent last let a write to a NIC or pool (folded id) leave."""
    ended_at: Mapping[str, datetime] = field(default_factory=lambda: MappingProxyType({}))
    """When this agent last saw the end of a write to a NIC or pool (folded id) that it sent."""
    unsent: frozenset[MembershipKey] = frozenset()
    """Keys of memberships that this agent recorded and sent no removal for."""
    presence: Mapping[str, Presence] = field(default_factory=lambda: MappingProxyType({}))
    """What the replies prove about NICs, pools and VMs, by folded id; others are unknown."""
    acknowledged: Mapping[str, datetime] = field(default_factory=lambda: MappingProxyType({}))
    """Folded event ids this agent acknowledged, and when it did so last."""
    tenure_at: datetime | None = None
    """When this leader's tenure began, counted back on the monotonic clock from now."""
    requests: tuple[DrainRequest, ...] | None = ()
    """The drain requests; None while they are not known."""
    forgets: tuple[ForgetRequest, ...] = ()
    """What operators have given up."""
    controls: Controls = NO_CONTROLS
    """The controls that are in force."""
    controls_problem: str = ""
    """Why the controls cannot be read; empty if they can."""
    write_slots: int = 1
    """How many more writes may start now."""
    write_limit: int = 1
    """How many writes may be in flight at present."""
    write_s: float = 15.0
    """How many seconds a write takes at present, its operation included."""

    def presence_of(self, resource_id: str) -> Presence:
        """Return what the replies about a NIC, pool or VM prove."""
        return self.presence.get(fold(resource_id), UNKNOWN)

    def report_about(self, entry: Entry) -> VmReport | None:
        """Return what the agent of a VM reports about this drain; None without such a report."""
        seen = self.reports.get(fold(entry.vm))
        report = seen.report if seen else None
        return report if report is not None and report.drain == entry.recorded_at else None

    def is_closed(self, entry: Entry) -> bool:
        """Return whether a VM reports that it does not take new work."""
        report = self.report_about(entry)
        return report is not None and report.state is not VmState.OPEN

    def missing(self, resource_id: str) -> bool:
        """Return whether a NIC, pool or VM has been absent so long that the rest goes on."""
        return LASTING.holds(self.presence_of(resource_id))

    def set_missing(self, set_id: str) -> bool:
        """Return whether a set does not exist any more.

        A VM is in one set at a time: a VM that Azure shows in another one proves with one reply
        without the set that the set was converted.
        """
        own = fold(set_id)
        stated = (vm.set_id for vm in (*self.vms, *self.former) if vm.set_id)
        converted = any(fold(each) != own for each in stated)
        absent = ONE_REPLY if converted else LASTING
        return bool(set_id) and absent.holds(self.presence_of(set_id))
