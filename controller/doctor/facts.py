"""What was asked and what came of it: values only, errors included. Judged elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias, TypeVar

from controller.azure.compute import AvailabilitySet
from controller.azure.imds import Instance, Poll
from controller.azure.survey import Balancer, Subnet
from controller.core.inventory import Inventory
from controller.core.ledger import Ledger
from controller.core.model import Nic, Observation, Pool, Vm, fold, load_balancer_of
from controller.errors import ControllerError
from controller.look import LeaseLook
from controller.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failed:
    """It was asked, and this came back instead of an answer."""

    error: ControllerError


@dataclass(frozen=True, slots=True)
class Unasked:
    """It was not asked, because what `needs` names is not known."""

    needs: str


Known: TypeAlias = T | Failed | Unasked


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything the judgements look at."""

    settings: Settings
    proxies: tuple[str, ...]
    """Environment variables that set a proxy."""
    hijackers: tuple[str, ...]
    """Environment variables that would lead the identity elsewhere."""
    instance: Known[Instance]
    poll: Known[Poll]
    asked_at: datetime
    """This host's clock when the poll was sent."""
    answered_at: datetime
    """This host's clock when the poll was answered."""
    principal: Known[str]
    """Object id of the identity; empty when the token does not say."""
    home: Known[AvailabilitySet]
    vms: Known[tuple[Vm, ...]]
    nic_list: Known[None]
    """Whether the NICs of the set may be listed, as an agent does."""
    nics: Mapping[str, Known[Nic]]
    """By folded id; every NIC of every VM of the set."""
    balancers: Mapping[str, Known[Balancer]]
    """By folded id; every load balancer of a configured pool."""
    subnets: Mapping[str, Known[Subnet]]
    """By folded id; every subnet that a NIC in a configured pool lies in."""
    operations: Known[None]
    blob_url: str
    lease: Known[LeaseLook]
    blob_write: Known[None]
    nic_writes: Mapping[str, Known[bool]]
    """By folded NIC id: whether the impossible condition held a permitted write back."""
    pool_writes: Mapping[str, Known[bool]]
    """The same for IP-based pools, by folded id."""

    @property
    def ledger(self) -> Ledger:
        """The ledger; empty when it could not be read."""
        return self.lease.ledger if isinstance(self.lease, LeaseLook) else Ledger()

    @property
    def seen_vms(self) -> tuple[Vm, ...]:
        """The VMs of the set, as far as they could be read."""
        return self.vms if isinstance(self.vms, tuple) else ()

    @property
    def seen_nics(self) -> tuple[Nic, ...]:
        """The NICs that could be read."""
        return tuple(nic for nic in self.nics.values() if isinstance(nic, Nic))

    @property
    def complete(self) -> bool:
        """Whether every VM of the set and every NIC of them could be read."""
        return isinstance(self.vms, tuple) and len(self.seen_nics) == len(self.nics)

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The configured pools that exist."""
        wanted = {fold(pool.id) for pool in self.settings.backend_pools}
        return tuple(
            pool
            for balancer in self.balancers.values()
            if isinstance(balancer, Balancer)
            for pool in balancer.load_balancer.pools
            if fold(pool.pool_id) in wanted
        )

    def pool(self, pool_id: str) -> Pool | None:
        """Return a configured pool, if it was found."""
        return next((pool for pool in self.pools if fold(pool.pool_id) == fold(pool_id)), None)

    def balancer_of(self, pool_id: str) -> Known[Balancer]:
        """Return the load balancer of a configured pool."""
        return self.balancers[fold(load_balancer_of(pool_id))]

    def inventory(self) -> Inventory:
        """Return who stands in which configured pool."""
        return Inventory(
            Observation(document=None, vms=self.seen_vms, nics=self.seen_nics, pools=self.pools),
            [pool.id for pool in self.settings.backend_pools],
        )

    def out(self, pool_id: str) -> set[str]:
        """Return the folded names of the VMs that the ledger says are out of a pool."""
        return {
            fold(entry.vm)
            for entry in self.ledger.entries
            for membership in entry.memberships
            if fold(membership.pool_id) == fold(pool_id)
        }
