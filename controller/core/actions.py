"""The vocabulary of a plan: phases, reasons to hold, and the actions an agent can carry out.

Every action names the target it occupies while it runs: at most one action per target is under way
at a time. Back-off is kept per key, which is finer: one pool that fails must not make another pool
of its load balancer wait, nor a removal that fails a restore (law L2).

Pure: standard library only, no I/O.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from controller.core.ledger import Hold, Ledger
from controller.core.model import AddressMembership, NicMembership, fold, load_balancer_of, short


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


class Reason(Enum):
    """Why something is held. A closed list: metrics and alerts are labelled with it."""

    FLOOR = "floor"
    UNMANAGED_RESOURCE = "unmanaged_resource"
    UNKNOWN_EVENT_STATUS = "unknown_event_status"
    EVENT_PENDING = "event_pending"
    VM_NOT_RUNNING = "vm_not_running"
    VM_GONE = "vm_gone"
    REQUESTS_UNREAD = "requests_unread"
    WRITE_FAILED = "write_failed"
    NOT_ACKNOWLEDGED = "not_acknowledged"


WRITES = ("write:/", "remove:", "restore:")
"""How the keys of writes to NICs and pools begin."""


def write_target(resource_id: str) -> str:
    """Return the target that a write to this NIC or load balancer occupies."""
    return f"write:{fold(resource_id)}"


def pool_key(pool_id: str, *, restore: bool) -> str:
    """Return what back-off of a write to this pool is kept by."""
    return f"{'restore' if restore else 'remove'}:{fold(pool_id)}"


@dataclass(frozen=True, slots=True)
class ReadLoadBalancer:
    """Read a load balancer and all its pools."""

    load_balancer_id: str

    def __str__(self) -> str:
        return f"read {short(self.load_balancer_id)}"

    @property
    def target(self) -> str:
        """What this action occupies while it runs."""
        return f"read:{fold(self.load_balancer_id)}"

    @property
    def key(self) -> str:
        """What back-off is kept by."""
        return self.target


@dataclass(frozen=True, slots=True)
class ReadNic:
    """Read one NIC with its body."""

    nic_id: str

    def __str__(self) -> str:
        return f"read {short(self.nic_id)}"

    @property
    def target(self) -> str:
        """What this action occupies while it runs."""
        return f"read:{fold(self.nic_id)}"

    @property
    def key(self) -> str:
        """What back-off is kept by."""
        return self.target


@dataclass(frozen=True, slots=True)
class ReadPower:
    """Read the power state of one VM."""

    vm_id: str

    def __str__(self) -> str:
        return f"read the power state of {short(self.vm_id)}"

    @property
    def target(self) -> str:
        """What this action occupies while it runs."""
        return f"read:{fold(self.vm_id)}"

    @property
    def key(self) -> str:
        """What back-off is kept by."""
        return self.target


@dataclass(frozen=True, slots=True)
class ReadInventory:
    """Read the set's VMs, their NICs and the load balancers as a whole."""

    def __str__(self) -> str:
        return "read the inventory"

    @property
    def target(self) -> str:
        """What this action occupies while it runs."""
        return "read:inventory"

    @property
    def key(self) -> str:
        """What back-off is kept by."""
        return self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeNic:
    """Take memberships of one NIC out, or put them back: one write covers all its pools."""

    nic_id: str
    memberships: tuple[NicMembership, ...]
    restore: bool

    def __str__(self) -> str:
        pools = ", ".join(short(membership.pool_id) for membership in self.memberships)
        return f"{self.verb} {short(self.nic_id)} ({pools})"

    @property
    def verb(self) -> str:
        """What the write does."""
        return "restore" if self.restore else "remove"

    @property
    def target(self) -> str:
        """What this action occupies while it runs."""
        return write_target(self.nic_id)

    @property
    def key(self) -> str:
        """What back-off is kept by."""
        return self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePool:
    """Take addresses out of one pool, or put them back: one write covers all affected VMs."""

    pool_id: str
    memberships: tuple[AddressMembership, ...]
    restore: bool

    def __str__(self) -> str:
        addresses = ", ".join(membership.ip_address for membership in self.memberships)
        return f"{self.verb} {addresses} ({short(self.pool_id)})"

    @property
    def verb(self) -> str:
        """What the write does."""
        return "restore" if self.restore else "remove"

    @property
    def target(self) -> str:
        """What this action occupies: the load balancer, where a second write cancels the first."""
        return write_target(load_balancer_of(self.pool_id))

    @property
    def key(self) -> str:
        """What back-off is kept by: the pool and the direction."""
        return pool_key(self.pool_id, restore=self.restore)


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Tell the platform that it need not wait for NotBefore."""

    event_id: str

    def __str__(self) -> str:
        return f"acknowledge event {self.event_id}"

    @property
    def target(self) -> str:
        """What this action occupies while it runs."""
        return f"acknowledge:{fold(self.event_id)}"

    @property
    def key(self) -> str:
        """What back-off is kept by."""
        return self.target


Action = (
    ReadLoadBalancer | ReadNic | ReadPower | ReadInventory | ChangeNic | ChangePool | Acknowledge
)
Write = ChangeNic | ChangePool


@dataclass(frozen=True, slots=True, kw_only=True)
class VmPhase:
    """Where one VM stands."""

    vm: str
    phase: Phase
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now, what is held, and when to look again."""

    ledger: Ledger | None
    """The ledger to make durable; None when the present one says it all."""
    actions: tuple[Action, ...]
    phases: tuple[VmPhase, ...]
    holds: tuple[Hold, ...]
    wake_at: datetime | None
    """When time alone will change this plan; None if it will not."""
