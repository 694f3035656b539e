"""The values that observation produces and decisions are made from.

Rules: frozen values, tuples in them; names and ids keep Azure's spelling and are compared through
`fold`, because Azure returns the same id in different cases; instants are aware UTC. Where a value
carries an Azure body (`body`), the core never looks into it: it only hands it back to the adapter.

Must not import anything but the standard library, and of that nothing that does I/O.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import Any

Extra = Mapping[str, Any]
"""Fields of a newer ledger version, kept as they came."""

NOTHING_EXTRA: Extra = MappingProxyType({})


@lru_cache(maxsize=4096)  # every pass folds the same few ids, thousands of times
def fold(name: str) -> str:
    """Return the form in which two spellings of one Azure name or id are equal.

    Azure changes the case of ids between calls, and very old event documents put one underscore
    before resource names (Microsoft docs, Scheduled Events, version 2017-03-01).
    """
    return name.removeprefix("_").casefold().rstrip("/")


@lru_cache(maxsize=4096)
def fold_address(address: str) -> str:
    """Return the form in which two spellings of one IP address are equal (IPv6 has many).

    What is no address equals itself only: "_10.0.0.4" is a broken reply, not 10.0.0.4.
    """
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


# --- scheduled events ---


class EventStatus(Enum):
    """Where an event is. There is no "completed": a finished event leaves the document."""

    SCHEDULED = "Scheduled"
    STARTED = "Started"
    UNKNOWN = "Unknown"
    """A status Azure does not document: nothing is written because of it, and nothing restored."""


class EventSource(Enum):
    """Who caused the event."""

    PLATFORM = "Platform"
    USER = "User"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledEvent:
    """One entry of the event document (Microsoft docs, Scheduled Events, event properties)."""

    event_id: str
    event_type: str
    """Freeze, Reboot, Redeploy, Preempt, Terminate, or whatever Azure invents next."""
    status: EventStatus
    resources: tuple[str, ...]
    """Names of the affected VMs, as Azure spells them."""
    not_before: datetime | None = None
    """Earliest start; None once started, or when the field is empty or unreadable."""
    duration_s: int = -1
    """Expected interruption; -1 is unknown and counts as long."""
    source: EventSource = EventSource.UNKNOWN

    def affects(self, vm: str) -> bool:
        """Tell whether `vm` is among the resources."""
        return any(fold(name) == fold(vm) for name in self.resources)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDocument:
    """What one successful poll of the scheduled-events endpoint returned."""

    incarnation: int | None
    events: tuple[ScheduledEvent, ...] = ()


# --- what people ask for by hand ---

REQUEST = "Request"
"""What ledger and metrics call the reason of a VM that is out by hand: an event type of our own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One VM that somebody wants out of rotation."""

    request_id: str
    vm: str
    reason: str
    by: str
    """Who asked, as far as their token tells; nobody has checked it."""
    at: datetime
    until: datetime
    """When the VM comes back by itself."""
    ended_at: datetime | None = None
    """When it was withdrawn."""
    ended_by: str = ""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    def stands(self, now: datetime) -> bool:
        """Tell whether the VM is still wanted out."""
        return self.ended_at is None and now < self.until

    def wants(self, vm: str, now: datetime) -> bool:
        """Tell whether this VM is wanted out now, because of this request."""
        return fold(self.vm) == fold(vm) and self.stands(now)


# --- what stands in the pools ---


Key = tuple[str, str, str]
"""Identity of a membership, independent of spelling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NicMembership:
    """One ipConfiguration of one NIC in one backend pool."""

    pool_id: str
    nic_id: str
    ip_configuration: str
    position: int = 0
    """Index in the ipConfiguration's pool list, so that a restore rebuilds the same list."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, compare=False)

    @property
    def key(self) -> Key:
        """Identity of the membership, independent of spelling."""
        return (fold(self.pool_id), fold(self.nic_id), fold(self.ip_configuration))


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressMembership:
    """One address in one IP-based backend pool."""

    pool_id: str
    name: str
    ip_address: str
    body: str
    """The pool's entry for this address as JSON text, exactly as Azure returned it."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, compare=False)

    @property
    def key(self) -> Key:
        """Identity of the membership, independent of spelling."""
        return (fold(self.pool_id), "address", fold_address(self.ip_address))


Membership = NicMembership | AddressMembership


class PoolKind(Enum):
    """Which write path changes a pool's members."""

    NIC = "nic"
    ADDRESS = "address"
    EMPTY = "empty"
    """No members, so Azure does not tell the kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolMember:
    """One member as the load balancer lists it: an ipConfiguration id, or an address."""

    ip_configuration_id: str = ""
    address: AddressMembership | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One backend pool at one instant."""

    pool_id: str
    kind: PoolKind
    members: tuple[PoolMember, ...]
    failed: bool = False
    """provisioningState is Failed."""
    observed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancer:
    """A load balancer and all its pools, from one read."""

    load_balancer_id: str
    sku: str
    pools: tuple[Pool, ...]
    observed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class IpConfiguration:
    """The part of a NIC's ipConfiguration that matters here."""

    name: str
    pool_ids: tuple[str, ...] = ()
    private_ip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """A NIC at one instant, with the body it came in."""

    nic_id: str
    vm_id: str
    etag: str
    ip_configurations: tuple[IpConfiguration, ...]
    failed: bool = False
    """provisioningState is Failed: what the body says may not be so (Azure documents neither)."""
    updating: bool = False
    """provisioningState says that an operation, perhaps not ours, is still under way."""
    observed_at: datetime
    body: object = field(compare=False, repr=False, default=None)
    """The Azure body as it came. Opaque to the core; None when it came from a list."""


class PowerState(Enum):
    """What Compute says of a VM."""

    RUNNING = "running"
    NOT_RUNNING = "not running"
    GONE = "gone"
    """The VM does not exist any more, confirmed by more than one reply."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """A peer: one VM of the availability set."""

    name: str
    vm_id: str
    nic_ids: tuple[str, ...]
    power: PowerState = PowerState.UNKNOWN
    power_observed_at: datetime | None = None


# --- everything a decision may look at ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferral:
    """A key that must be left alone for a while, and why."""

    until: datetime
    reason: str
    message: str = ""
    attempts: int = 0
    """Failures in a row so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The world as one agent knows it at one instant."""

    document: EventDocument | None
    """Newest good document; None before the first."""
    document_at: datetime | None = None
    """When it arrived."""
    clean_documents: tuple[EventDocument, ...] = ()
    """The newest documents of an unbroken run of good polls, at most two; a bad poll empties it."""
    vms: tuple[Vm, ...] = ()
    former: tuple[Vm, ...] = ()
    """VMs that the ledger names and the set no longer does, with their power as read."""
    nics: tuple[Nic, ...] = ()
    pools: tuple[Pool, ...] = ()
    """The managed pools that exist. A configured pool that is missing here does not exist."""
    inventory_at: datetime | None = None
    """When VMs, NICs and pools were last read as a whole; None before the first time."""
    inventory_period_s: float = 300
    """How long an inventory is good while nothing happens."""
    in_flight: frozenset[str] = frozenset()
    """Targets of actions that are under way."""
    deferred: Mapping[str, Deferral] = field(default_factory=lambda: MappingProxyType({}))
    """Keys of actions that failed or were throttled, with the instant of the next attempt."""
    attempts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Failures in a row so far, by the key of the action, of those that are not deferred now."""
    sent_at: Mapping[str, datetime] = field(default_factory=lambda: MappingProxyType({}))
    """When this agent last let a write to a NIC or pool (folded id) leave."""
    ended_at: Mapping[str, datetime] = field(default_factory=lambda: MappingProxyType({}))
    """When this agent last saw the end of a write to a NIC or pool (folded id) that it sent."""
    unsent: frozenset[Key] = frozenset()
    """Keys of memberships that this agent recorded, and that no write of ours has taken out."""
    absent: frozenset[str] = frozenset()
    """Folded ids of NICs and pools that the newest reply about them did not show."""
    missing: frozenset[str] = frozenset()
    """Folded ids of NICs, pools and VMs confirmed not to exist, by more than one reply."""
    acknowledged: Mapping[str, datetime] = field(default_factory=lambda: MappingProxyType({}))
    """Folded event ids this agent acknowledged, and when."""
    requests: tuple[Request, ...] | None = ()
    """What people asked for by hand; None while that is not known."""
    write_slots: int = 1
    """How many more writes may start now."""


# --- what policy says ---


class EventAction(Enum):
    """What to do about events of one type."""

    DRAIN = "drain"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPolicy:
    """How to treat one event type."""

    action: EventAction = EventAction.DRAIN
    min_duration_s: int = 0
    """Shorter interruptions are ignored; an unknown duration (-1) never is."""
    acknowledge: bool = True


DEFAULT_EVENT_POLICIES: Mapping[str, EventPolicy] = MappingProxyType(
    {
        "Freeze": EventPolicy(min_duration_s=5),
        "Reboot": EventPolicy(),
        "Redeploy": EventPolicy(),
        # Approving these deletes a VM; whoever wants that says so.
        "Preempt": EventPolicy(acknowledge=False),
        "Terminate": EventPolicy(acknowledge=False),
    }
)
UNKNOWN_EVENT_POLICY = EventPolicy(acknowledge=False)
"""For a type Azure has not documented: make room, but do not agree to what we do not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """`min_in_service` of one pool: a number of members, or a percentage of the full pool."""

    number: int = 1
    percent: bool = False

    def members(self, *, full: int) -> int:
        """Return how many members must stay, for a pool that has `full` when nothing is out."""
        return -(-self.number * full // 100) if self.percent else self.number


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The operator's choices."""

    pools: Mapping[str, Floor]
    """Managed pools, in the operator's spelling and order, with their floors."""
    events: Mapping[str, EventPolicy] = field(default_factory=lambda: DEFAULT_EVENT_POLICIES)
    lead_time_s: float = 900
    connection_drain_s: float = 30
    acknowledge: bool = True
    acknowledge_unmanaged: bool = False
    acknowledge_ignored: bool = False
    restore_settle_s: float = 15
    """How long a restored VM needs until the probes find it; until then the floor ignores it."""

    def for_type(self, event_type: str) -> EventPolicy:
        """Return the policy for an event type, compared without case."""
        for name, policy in self.events.items():
            if fold(name) == fold(event_type):
                return policy
        return UNKNOWN_EVENT_POLICY

    def impacting(self, event: ScheduledEvent) -> bool:
        """Tell whether policy says to act on this event."""
        policy = self.for_type(event.event_type)
        if policy.action is EventAction.IGNORE:
            return False
        return event.duration_s < 0 or event.duration_s >= policy.min_duration_s

    def drain_at(self, event: ScheduledEvent) -> datetime | None:
        """Return when to start draining; None means at once.

        User events and events without a readable NotBefore do not wait for the lead time: the
        first are wanted now, the second may start at any moment.
        """
        if (
            event.status is not EventStatus.SCHEDULED
            or event.source is EventSource.USER
            or event.not_before is None
        ):
            return None
        try:
            return event.not_before - timedelta(seconds=self.lead_time_s)
        except OverflowError:
            return None  # the calendar begins later than that


def load_balancer_of(pool_id: str) -> str:
    """Return the id of the load balancer that owns a pool, in the pool id's spelling."""
    cut = pool_id.casefold().rfind("/backendaddresspools/")
    return pool_id[:cut]


def nic_of(ip_configuration_id: str) -> tuple[str, str]:
    """Split an ipConfiguration id into the NIC's id and the ipConfiguration's name."""
    cut = ip_configuration_id.casefold().rfind("/ipconfigurations/")
    return ip_configuration_id[:cut], ip_configuration_id[cut + len("/ipconfigurations/") :]


def short(resource_id: str) -> str:
    """Return the last part of an id, for people to read."""
    return resource_id.rstrip("/").rsplit("/", 1)[-1]
