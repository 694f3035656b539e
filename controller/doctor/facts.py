"""The facts that the checks use: values only, failed reads included. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TypeAlias, TypeVar

from controller.azure.imds import Poll
from controller.azure.imds_document import Instance
from controller.azure.topology import LoadBalancerDetails, Subnet
from controller.azure.vm_set import VmSet
from controller.config.schema import Settings
from controller.core.agent_presence import SeenAgent
from controller.core.azure_names import fold, fold_address, load_balancer_of
from controller.core.ledger import Ledger
from controller.core.observation import Observation
from controller.core.planning.pool_membership import PoolMembership
from controller.core.resources import Nic, Pool, Vm
from controller.core.shared_pools import SharedPool
from controller.errors import ControllerError
from controller.status.ledger_view import LeaseStatus

T = TypeVar("T")


def nics_in(pools: Iterable[Pool], nics: Iterable[Nic]) -> tuple[Nic, ...]:
    """Return the NICs that name one of these pools, or have an address that is in one."""
    found = tuple(pools)
    ids = {fold(pool.pool_id) for pool in found}
    members = (member.address for pool in found for member in pool.members)
    addresses = {fold_address(each.ip_address) for each in members if each is not None}
    return tuple(
        nic
        for nic in nics
        if any(
            fold_address(each.private_ip) in addresses or ids & set(map(fold, each.pool_ids))
            for each in nic.ip_configurations
        )
    )


@dataclass(frozen=True, slots=True)
class Failed:
    """A read that failed."""

    error: ControllerError


@dataclass(frozen=True, slots=True)
class Skipped:
    """A read that was not tried, because the result of the check `needs` is not known."""

    needs: str


Known: TypeAlias = T | Failed | Skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSideFacts:
    """What this VM needs to close before it leaves its pools, and what its unit sets."""

    flag_problem: str = ""
    """Why the flag file could not be created; empty if it could."""
    hook_problems: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Why hooks cannot run, by program."""
    unseen: frozenset[str] = frozenset()
    """The flag file and programs of hooks about which the user of the doctor may not know that."""
    unit_differs: tuple[str, ...] = ()
    """The variables that the unit of the agent and this shell do not set alike."""
    responder_answers: bool = False
    """Whether something answers where the probe responder of this VM is configured."""
    responder_problem: str = ""
    """Why that answer is not the one of a responder with this configuration; empty if it is."""
    responder_is_other: bool = False
    """Whether another program gave it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorFacts:
    """Everything that the checks use."""

    settings: Settings
    proxies: tuple[str, ...]
    """Environment variables that set a proxy."""
    identity_overrides: tuple[str, ...]
    """Environment variables that would send token requests to another endpoint than IMDS."""
    instance: Known[Instance]
    poll: Known[Poll]
    poll_sent_at: datetime
    """By the clock of this host, as `poll_answered_at`."""
    poll_answered_at: datetime
    principal_id: Known[str]
    """Object id of the identity; empty when the token does not contain it."""
    availability_set: Known[VmSet]
    vms: Known[tuple[Vm, ...]]
    nic_list: Known[None]
    """Whether the NICs of the set can be listed, as an agent does."""
    nics: Mapping[str, Known[Nic]]
    """By folded id; every NIC of every VM of the set."""
    load_balancers: Mapping[str, Known[LoadBalancerDetails]]
    """By folded id; the load balancers of the configured pools."""
    shared_pools: Mapping[str, Known[SharedPool]]
    """By folded pool id; what the sets in a configured pool state about it."""
    subnets: Mapping[str, Known[Subnet]]
    """By folded id; the subnets of the NICs in configured pools."""
    operations: Known[None]
    """Whether long-running operations can be read."""
    blob_url: str
    lease: Known[LeaseStatus]
    leader_agent: SeenAgent | None = None
    """What the agent that the ledger names as the leader publishes; None without a leader."""
    blob_write: Known[None]
    nic_writes: Mapping[str, Known[bool]]
    """By folded NIC id; True if the write is permitted, and its condition prevented it."""
    pool_writes: Mapping[str, Known[bool]]
    """The same for IP-based pools, by folded id; with `mechanism = "admin-state"` for all pools."""
    vm_side: VmSideFacts = field(default_factory=VmSideFacts)
    resource_graph: Known[int] | None = None
    """How many scheduled events of the set Resource Graph announces; None if it is not asked."""
    arm_acknowledgement: Known[bool] | None = None
    """True if events may be acknowledged through Resource Manager; None if that is not set."""

    @property
    def ledger(self) -> Ledger:
        """The ledger; empty when it could not be read."""
        return self.lease.ledger if isinstance(self.lease, LeaseStatus) else Ledger()

    @property
    def known_vms(self) -> tuple[Vm, ...]:
        """The VMs of the set; none when they could not be read."""
        return self.vms if isinstance(self.vms, tuple) else ()

    @property
    def known_nics(self) -> tuple[Nic, ...]:
        """The NICs that could be read."""
        return tuple(nic for nic in self.nics.values() if isinstance(nic, Nic))

    @property
    def known_load_balancers(self) -> tuple[LoadBalancerDetails, ...]:
        """The load balancers that could be read."""
        return tuple(
            each for each in self.load_balancers.values() if isinstance(each, LoadBalancerDetails)
        )

    @property
    def complete(self) -> bool:
        """Whether every VM of the set and every NIC of these VMs could be read."""
        return isinstance(self.vms, tuple) and len(self.known_nics) == len(self.nics)

    @property
    def all_pools(self) -> tuple[Pool, ...]:
        """Every pool of the load balancers, configured or not."""
        return tuple(
            pool for each in self.known_load_balancers for pool in each.load_balancer.pools
        )

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The configured pools that exist."""
        wanted = {fold(pool.id) for pool in self.settings.backend_pools}
        return tuple(pool for pool in self.all_pools if fold(pool.pool_id) in wanted)

    def pool(self, pool_id: str) -> Pool | None:
        """Return a configured pool, if it exists."""
        return next((pool for pool in self.pools if fold(pool.pool_id) == fold(pool_id)), None)

    def pooled_nics_of(self, vm: Vm) -> tuple[Nic, ...]:
        """Return the NICs of a VM that are in a configured pool, themselves or by an address."""
        return nics_in(self.pools, self.nics_of(vm))

    def load_balancer_of(self, pool_id: str) -> Known[LoadBalancerDetails]:
        """Return the load balancer of a configured pool."""
        return self.load_balancers[fold(load_balancer_of(pool_id))]

    def nics_of(self, vm: Vm) -> tuple[Nic, ...]:
        """Return the NICs of a VM that could be read."""
        wanted = {fold(nic_id) for nic_id in vm.nic_ids}
        return tuple(nic for nic in self.known_nics if fold(nic.nic_id) in wanted)

    def membership(self) -> PoolMembership:
        """Return the members of every pool of the load balancers."""
        return PoolMembership(
            Observation(
                document=None, vms=self.known_vms, nics=self.known_nics, pools=self.all_pools
            ),
            [pool.pool_id for pool in self.all_pools],
        )

    def drained_from(self, pool_id: str) -> set[str]:
        """Return the folded names of the VMs that, by the ledger, are out of a pool."""
        return {
            fold(entry.vm)
            for entry in self.ledger.entries
            for membership in entry.memberships
            if fold(membership.pool_id) == fold(pool_id)
        }
