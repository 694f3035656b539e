"""The vocabulary of a plan: phases, reasons to hold, and the actions an agent can carry out.

Every action names the target it occupies while it runs: at most one action per target is under way
at a time. Back-off is kept per key, which is finer: one pool that fails must not make another pool
of its load balancer wait, nor a removal that fails a restore (law L2).

Pure: standard library only, no I/O.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Protocol, TypeVar

from controller.core.action_keys import ActionKey, action_key
from controller.core.azure_names import short
from controller.core.ledger import Hold, Ledger
from controller.core.resources import Membership
from controller.core.shared_pools import PoolShares


class Phase(Enum):
    """Where a VM is on its way through maintenance. Derived, never stored."""

    IN_SERVICE = "in_service"
    DRAIN_DUE = "drain_due"
    DRAINING = "draining"
    OUT = "out"
    ACKNOWLEDGED = "acknowledged"
    IN_MAINTENANCE = "in_maintenance"
    RESTORE_DUE = "restore_due"
    RESTORING = "restoring"
    HELD = "held"
    UNMANAGED = "unmanaged"
    """In no managed pool, and not because of us."""


class HoldReason(Enum):
    """Why something is held. A closed list: metrics and alerts are labelled with it."""

    FLOOR = "floor"
    UNMANAGED_RESOURCE = "unmanaged_resource"
    UNKNOWN_EVENT_STATUS = "unknown_event_status"
    UNREADABLE_EVENT = "unreadable_event"
    UNREADABLE_VM = "unreadable_vm"
    EVENT_PENDING = "event_pending"
    VM_NOT_RUNNING = "vm_not_running"
    VM_NOT_READY = "vm_not_ready"
    VM_NOT_CLOSED = "vm_not_closed"
    VM_GONE = "vm_gone"
    LOST = "lost"
    NOT_IN_SET = "not_in_set"
    REQUESTS_UNREAD = "requests_unread"
    REQUEST_LOST = "request_lost"
    LEDGER_RECOVERED = "ledger_recovered"
    INVENTORY_UNREAD = "inventory_unread"
    SET_MISSING = "set_missing"
    WRITE_FAILED = "write_failed"
    NOT_ACKNOWLEDGED = "not_acknowledged"
    NO_ABLE_AGENT = "no_able_agent"
    PAUSED = "paused"
    """Operators have paused removals."""
    ACKNOWLEDGEMENT_HELD = "acknowledgement_held"
    """An operator has decided that an event is not acknowledged."""
    NOT_OUT = "not_out"
    """An operator wants an event acknowledged whose VMs are in rotation."""
    CONTROLS_UNREAD = "controls_unread"
    SHARED_POOL = "shared_pool"
    """What other availability sets state about a pool cannot be read, or answered."""
    EVENT_UNSEEN = "event_unseen"
    """Resource Graph announces an event that no agent reads."""
    NIC_UPDATING = "nic_updating"
    """An operation on a NIC does not end, and the NIC shows nothing that is certain meanwhile."""


class OneKey(ABC):
    """An action whose back-off is kept by its target."""

    __slots__ = ()

    @property
    @abstractmethod
    def target(self) -> ActionKey:
        """What this action occupies while it runs."""

    @property
    def key(self) -> ActionKey:
        """What back-off is kept by."""
        return self.target


@dataclass(frozen=True, slots=True)
class ReadLoadBalancer(OneKey):
    """Read a load balancer and all its pools."""

    load_balancer_id: str

    def __str__(self) -> str:
        return f"read {short(self.load_balancer_id)}"

    @property
    def target(self) -> ActionKey:
        """What this action occupies while it runs."""
        return action_key("read", self.load_balancer_id)


@dataclass(frozen=True, slots=True)
class ReadNic(OneKey):
    """Read one NIC with its body."""

    nic_id: str

    def __str__(self) -> str:
        return f"read {short(self.nic_id)}"

    @property
    def target(self) -> ActionKey:
        """What this action occupies while it runs."""
        return action_key("read", self.nic_id)


@dataclass(frozen=True, slots=True)
class ReadPower(OneKey):
    """Read the power state of one VM."""

    vm_id: str

    def __str__(self) -> str:
        return f"read the power state of {short(self.vm_id)}"

    @property
    def target(self) -> ActionKey:
        """What this action occupies while it runs."""
        return action_key("read", self.vm_id)


@dataclass(frozen=True, slots=True)
class ReadInventory(OneKey):
    """Read the set's VMs, their NICs and the load balancers as a whole."""

    def __str__(self) -> str:
        return "read the inventory"

    @property
    def target(self) -> ActionKey:
        """What this action occupies while it runs."""
        return action_key("read", "inventory")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadView(OneKey):
    """Read what a mechanism has to know of a resource that is neither NIC nor load balancer."""

    mechanism: str
    """The name under which the mechanism and its adapter are registered."""
    resource_id: str

    def __str__(self) -> str:
        return f"read {short(self.resource_id)}"

    @property
    def target(self) -> ActionKey:
        """What this action occupies while it runs."""
        return action_key("read", self.resource_id)


@dataclass(frozen=True, slots=True)
class ReadSharedPool(OneKey):
    """Read what the availability sets state that share a pool."""

    pool_id: str

    def __str__(self) -> str:
        return f"read what other sets state about pool {short(self.pool_id)}"

    @property
    def target(self) -> ActionKey:
        """What this action occupies while it runs: the blob of the pool."""
        return action_key("share", self.pool_id)


@dataclass(frozen=True, slots=True)
class ReadRuleHealth(OneKey):
    """Read which members the rules of a load balancer report as down."""

    load_balancer_id: str

    def __str__(self) -> str:
        return f"read the health of the rules of {short(self.load_balancer_id)}"

    @property
    def target(self) -> ActionKey:
        """What this action occupies while it runs."""
        return action_key("health", self.load_balancer_id)


@dataclass(frozen=True, slots=True)
class ReadVmReport(OneKey):
    """Read what the agent of a VM reports about its own side of a drain."""

    vm: str

    def __str__(self) -> str:
        return f"read the report of {self.vm}"

    @property
    def target(self) -> ActionKey:
        """What this action occupies while it runs: the blob of the VM."""
        return action_key("report", self.vm)


Read = (
    ReadLoadBalancer
    | ReadNic
    | ReadPower
    | ReadInventory
    | ReadView
    | ReadSharedPool
    | ReadRuleHealth
    | ReadVmReport
)

M_contra = TypeVar("M_contra", bound=Membership, contravariant=True)


class WriteMethod(Protocol[M_contra]):
    """How a mechanism writes: the part of `mechanism.Mechanism` that an action needs."""

    @property
    def name(self) -> str:
        """The name under which the mechanism and its adapter are registered."""
        ...

    @property
    def keeps_body(self) -> bool:
        """Whether a write ends with a read of the resource, whose body the next write starts from.

        After a failure that body is not used again, and a Retry-After is about that read.
        """
        ...

    def resource_id(self, membership: M_contra) -> str:
        """Return the id of what a write changes; memberships of one resource share a write."""
        ...

    def target(self, membership: M_contra) -> ActionKey:
        """Return what a write occupies while it runs."""
        ...

    def key(self, membership: M_contra, *, restore: bool) -> ActionKey:
        """Return what the back-off of a write is kept by."""
        ...

    def shown_by(self, membership: M_contra) -> "Read":
        """Return the read that shows what a write has changed."""
        ...

    def refers_to(self, membership: M_contra) -> Iterable["Read"]:
        """Return the reads of what a restore refers to, and which may have been deleted."""
        ...

    def label(self, memberships: tuple[M_contra, ...]) -> str:
        """Return memberships of one resource as text, for logs and holds."""
        ...


def key_alone(method: WriteMethod[Any], membership: Membership, *, restore: bool) -> ActionKey:
    """Return what the back-off of a write of one membership is kept by, when it is sent alone."""
    whole = method.key(membership, restore=restore)
    return action_key(whole.kind, f"{whole.resource}/{method.label((membership,))}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeMembership:
    """Take memberships of one resource out of rotation, or restore them, in one write."""

    method: WriteMethod[Any]
    memberships: tuple[Membership, ...]
    """At least one."""
    restore: bool
    alone: bool = False
    """The one membership was refused with others, or is tried without them (`portions`)."""

    def __str__(self) -> str:
        return f"{self.verb} {self.method.label(self.memberships)}"

    @property
    def verb(self) -> str:
        """What the write does."""
        return "restore" if self.restore else "remove"

    @property
    def resource_id(self) -> str:
        """The id of the NIC, pool or other resource that the write changes."""
        return self.method.resource_id(self.memberships[0])

    @property
    def target(self) -> ActionKey:
        """What this action occupies while it runs."""
        return self.method.target(self.memberships[0])

    @property
    def key(self) -> ActionKey:
        """What back-off is kept by."""
        first = self.memberships[0]
        if self.alone:
            return key_alone(self.method, first, restore=self.restore)
        return self.method.key(first, restore=self.restore)

    @property
    def proven_keys(self) -> tuple[ActionKey, ...]:
        """The keys whose failures are over when this write succeeds."""
        whole = self.method.key(self.memberships[0], restore=self.restore)
        alone = (key_alone(self.method, m, restore=self.restore) for m in self.memberships)
        return (whole, *alone)

    @property
    def shown_by(self) -> Read:
        """The read that shows what the write has changed."""
        return self.method.shown_by(self.memberships[0])

    @property
    def refers_to(self) -> tuple[Read, ...]:
        """The reads of what a restore refers to, each once, in a fixed order."""
        reads = {read.key: read for m in self.memberships for read in self.method.refers_to(m)}
        return tuple(reads[key] for key in sorted(reads))


@dataclass(frozen=True, slots=True)
class Acknowledge(OneKey):
    """Allow the platform to start the event before NotBefore."""

    event_id: str

    def __str__(self) -> str:
        return f"acknowledge event {self.event_id}"

    @property
    def target(self) -> ActionKey:
        """What this action occupies while it runs."""
        return action_key("acknowledge", self.event_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishShare(OneKey):
    """State to the other availability sets in a pool what this set takes out of it."""

    pool_id: str
    shares: PoolShares
    """The new content of the blob."""
    etag: str
    """Of the content that it was computed from; empty while the blob does not exist."""

    def __str__(self) -> str:
        return f"state to the other sets in pool {short(self.pool_id)} what leaves it"

    @property
    def target(self) -> ActionKey:
        """What this action occupies while it runs: the blob of the pool."""
        return action_key("share", self.pool_id)


Action = Read | ChangeMembership | Acknowledge | PublishShare


def is_read(action: Action) -> bool:
    """Return whether an action only reads."""
    return not isinstance(action, ChangeMembership | Acknowledge | PublishShare)


@dataclass(frozen=True, slots=True, kw_only=True)
class VmPhase:
    """The phase of one VM, and why."""

    vm: str
    phase: Phase
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now, what is held, and when the next pass is due."""

    ledger: Ledger | None
    """The ledger to make durable; None when the present one stays."""
    actions: tuple[Action, ...]
    phases: tuple[VmPhase, ...]
    holds: tuple[Hold, ...]
    wake_at: datetime | None
    """When time alone will change this plan; None if it will not."""
    waiting: tuple[Action, ...] = ()
    """Reads and acknowledgements that are needed now, and not planned because Azure asked this
    agent to wait. A write can wait for its resource alone, and every agent with it."""
