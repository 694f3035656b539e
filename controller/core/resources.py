"""VMs, NICs, pools and memberships as Azure reports them.

Frozen values. Names and ids keep Azure's spelling and are compared through `azure_names.fold`;
instants are aware UTC. Standard library only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import Any, Protocol

from controller.core.azure_names import fold, fold_address

Extra = Mapping[str, Any]
"""Fields of a newer ledger version, kept as they came."""


NOTHING_EXTRA: Extra = MappingProxyType({})

MembershipKey = tuple[str, str, str]
"""Identity of a membership, independent of spelling."""


class Membership(Protocol):
    """One way in which a VM is in rotation in one pool; its type selects the mechanism.

    Implementations are frozen and compare by value.
    """

    @property
    def pool_id(self) -> str:
        """The backend pool, in Azure's spelling."""
        ...

    @property
    def key(self) -> MembershipKey:
        """Identity of the membership, independent of spelling."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NicMembership:
    """One ipConfiguration of one NIC in one backend pool."""

    pool_id: str
    nic_id: str
    ip_configuration: str
    position: int = 0
    """Index in the ipConfiguration's pool list, so that a restore rebuilds the same list."""
    vm_guid: str = ""
    """Compute's `vmId` of the VM; empty while it is not known. Since minor 2."""
    nic_guid: str = ""
    """The `resourceGuid` of the NIC; empty while it is not known. Since minor 2."""
    admin_state: str = ""
    """The adminState of the member, if it was Up or Down: a NIC that leaves a pool loses it. Since
    minor 2."""
    lacks: str = ""
    """What the member still lacks, which is in its pool again: its adminState. Since minor 2."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, compare=False)

    @property
    def key(self) -> MembershipKey:
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
    vm_guid: str = ""
    """Compute's `vmId` of the VM; empty while it is not known. Since minor 2."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, compare=False)

    @property
    def key(self) -> MembershipKey:
        """Identity of the membership, independent of spelling."""
        return (fold(self.pool_id), "address", fold_address(self.ip_address))


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminMembership:
    """One member of a pool whose adminState is changed, while it stays in the pool.

    Of a NIC-based pool it has the NIC and the ipConfiguration, of an IP-based one the name and the
    address; the others are empty. The whole kind is since minor 2, and off by default: an agent
    that does not know it refuses the ledger.
    """

    pool_id: str
    nic_id: str = ""
    ip_configuration: str = ""
    name: str = ""
    ip_address: str = ""
    admin_state: str = ""
    """What a restore puts back, as Azure spelled it; empty for a member without the property."""
    vm_guid: str = ""
    """Compute's `vmId` of the VM; empty while it is not known."""
    nic_guid: str = ""
    """The `resourceGuid` of the NIC; empty while it is not known."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, compare=False)

    @property
    def member(self) -> NicMembership | AddressMembership:
        """The member, as its pool lists it."""
        if self.nic_id:
            return NicMembership(
                pool_id=self.pool_id,
                nic_id=self.nic_id,
                ip_configuration=self.ip_configuration,
                vm_guid=self.vm_guid,
                nic_guid=self.nic_guid,
            )
        return AddressMembership(
            pool_id=self.pool_id,
            name=self.name,
            ip_address=self.ip_address,
            body="",
            vm_guid=self.vm_guid,
        )

    @property
    def key(self) -> MembershipKey:
        """Identity of the membership: not that of the member, which may also be removed."""
        pool, *rest = self.member.key
        return (pool, "admin state", "/".join(rest))


def member_key(membership: Membership) -> MembershipKey:
    """Return the identity of the pool's member behind a membership, whichever way it is changed."""
    return membership.member.key if isinstance(membership, AdminMembership) else membership.key


class PoolKind(Enum):
    """Which write path changes a pool's members."""

    NIC = "nic"
    ADDRESS = "address"
    EMPTY = "empty"
    """The pool has no members, so Azure does not show its kind."""

    @property
    def label(self) -> str:
        """The kind in Azure's words, for people."""
        return _POOL_KIND_LABELS[self]


_POOL_KIND_LABELS = {
    PoolKind.NIC: "NIC-based",
    PoolKind.ADDRESS: "IP-based",
    PoolKind.EMPTY: "empty",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolMember:
    """One member as the load balancer lists it: an ipConfiguration id, or an address."""

    ip_configuration_id: str = ""
    address: AddressMembership | None = None
    admin_down: bool = False
    """Its adminState is Down: Azure sends it no new connections (Load Balancer, admin state)."""
    admin_state: str = ""
    """Its adminState as Azure spelled it; empty for a member without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One backend pool at one instant."""

    pool_id: str
    kind: PoolKind
    members: tuple[PoolMember, ...]
    etag: str = ""
    failed: bool = False
    """provisioningState is Failed."""
    observed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthProbe:
    """A health probe of a load balancer."""

    probe_id: str
    port: int
    protocol: str
    """`Http`, `Https` or `Tcp`, in Azure's spelling."""
    interval_s: int
    threshold: int
    """How many probes in a row have to fail, or succeed, before Azure changes its verdict."""
    path: str = ""
    """What it asks for; empty for a TCP probe."""
    when_all_down: str = ""
    """`AllProbedUp`: when every member is down, all get new connections. Empty: none does."""

    @property
    def notices_in_s(self) -> float:
        """How many seconds Azure needs at most to notice a new answer."""
        return float(self.interval_s * self.threshold)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancingRule:
    """A rule of a load balancer, and the pools to which it sends connections."""

    rule_id: str
    """Empty for a rule that cannot be read: it stands for one to all pools, without a probe."""
    pool_ids: tuple[str, ...]
    backend_port: int = 0
    """The port on the members; 0 if it is not known."""
    probe: HealthProbe | None = None
    """None for a rule without a probe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolHealth:
    """Which members of a pool the load balancer reports as down."""

    pool_id: str
    down: frozenset[MembershipKey]
    """Down by some rule. Their keys; of a NIC also that of its address."""
    down_by_every_rule: frozenset[MembershipKey] = frozenset()
    """Down by every rule: these get no new connection."""
    observed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancer:
    """A load balancer and all its pools, from one read."""

    load_balancer_id: str
    sku: str
    pools: tuple[Pool, ...]
    problems: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Why a pool is set aside, by folded id: it exists, and its body cannot be used."""
    rules: tuple[LoadBalancingRule, ...] = ()
    observed_at: datetime

    @property
    def basic(self) -> bool:
        """Whether it has the Basic SKU (retired 30 September 2025; Microsoft docs, FAQ)."""
        return fold(self.sku) == "basic"


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
    """provisioningState is Failed: the body may be wrong (Azure documents neither)."""
    updating: bool = False
    """provisioningState shows a running operation, perhaps of another client."""
    updating_since: datetime | None = None
    """Since when every view of it has shown that, by what this agent has read; else None."""
    guid: str = ""
    """Its `resourceGuid`: a NIC that is created again under its name has another one."""
    observed_at: datetime
    body: object = field(compare=False, repr=False, default=None)
    """The Azure body as it came. Opaque to the core; None when it came from a list."""


class PowerState(Enum):
    """The power state of a VM, as Compute reports it."""

    RUNNING = "running"
    NOT_RUNNING = "not running"
    GONE = "gone"
    """The VM does not exist any more, confirmed by more than one reply."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """A peer: one VM of the set."""

    name: str
    vm_id: str
    nic_ids: tuple[str, ...]
    power: PowerState = PowerState.UNKNOWN
    power_observed_at: datetime | None = None
    problem: str = ""
    """Why its body cannot be used; its NICs are then those last seen, or not known (law S1)."""
    set_id: str = ""
    """The availability set or scale set that it states it is in; empty for none."""
    guid: str = ""
    """Its `vmId`: a VM that is created again under its name has another one (Microsoft docs, Azure
    VM unique id). Empty while it is not known."""
