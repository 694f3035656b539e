"""Asks Azure for what a configuration has to name: the pools that have VMs of this set as members.

Only reads, through the agent's own adapters and with the agent's own permissions. Unlike the doctor
it stops at the first failure: half of an answer would become half of a configuration.
"""

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass

from controller.azure.http.session import Azure, SessionFactory, open_azure, tcp_session
from controller.clock import Clock
from controller.config.clouds import CLOUDS
from controller.config.schema import Settings
from controller.core.azure_names import fold, load_balancer_of
from controller.core.observation import Observation
from controller.core.planning.pool_membership import PoolMembership
from controller.core.resources import LoadBalancer, Nic, PoolKind, Vm
from controller.errors import ConfigError, Denied, NotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveredPool:
    """A pool and its members."""

    pool_id: str
    kind: PoolKind
    peers: int
    """Members that are VMs of this set."""
    others: int
    """Other members. The agents of this set never drain them."""
    out: tuple[str, ...] = ()
    """VMs of this set in no pool at all, drained for example: they are counted as members."""
    basic: bool = False
    """Whether its load balancer has the retired Basic SKU, which is not managed."""

    @property
    def expected(self) -> int:
        """How many VMs of this set are members when no VM is out."""
        return self.peers + len(self.out)

    def floor(self, max_simultaneous: int) -> int:
        """Return the `min_in_service` to propose if maintenance affects so many VMs at once.

        Other members count for the floor only if their set takes part, so they are left out.
        """
        return max(1, self.expected - max_simultaneous)


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What Azure answered about the set of this VM."""

    vm: str
    set_id: str
    vms: int
    """Number of VMs in the set."""
    max_simultaneous: int
    """Most VMs that planned maintenance affects at once: those of one update domain."""
    pools: tuple[DiscoveredPool, ...]
    """Pools with at least one VM of the set, by id."""
    unlisted: tuple[str, ...]
    """Why load balancers could not be listed, so that pools can be missing; usually empty."""


async def discover(
    settings: Settings,
    *,
    environ: MutableMapping[str, str],
    clock: Clock,
    session_factory: SessionFactory = tcp_session,
) -> Discovery:
    """Return what Azure knows of this set. Of the settings, only `[azure]` and `[watch]` matter.

    Raises:
        ConfigError: this VM is in another cloud.
        SetupError: this VM is in no set, or in a uniform scale set.
        Denied: a permission is missing that discovery needs.
        ControllerError: Azure did not answer.
    """
    async with open_azure(settings, clock, environ, session_factory=session_factory) as azure:
        instance = await azure.imds.instance()
        _check_cloud(instance.environment, settings)
        found = await azure.compute.discover(instance.vm_id)
        vms = await azure.compute.members(found.set_id)
        nics = await azure.network.nics_in(nic_id for vm in vms for nic_id in vm.nic_ids)
        named = _named_by(nics)
        neighbours = (found.set_id, *(nic.nic_id for nic in nics), *named)
        listed, unlisted = await _list(azure, neighbours)
        balancers = await _read(azure, named, listed)
    return Discovery(
        vm=instance.name,
        set_id=found.set_id,
        vms=len(vms),
        max_simultaneous=-(-len(vms) // max(1, found.update_domains or len(vms))),
        pools=_pools_of(vms, nics, balancers),
        unlisted=unlisted,
    )


def _check_cloud(environment: str, settings: Settings) -> None:
    """Refuse a cloud that the instance metadata contradicts; an unknown name is accepted."""
    name = next((name for name, cloud in CLOUDS.items() if cloud.imds_name == environment), None)
    if name not in (None, settings.azure.cloud):
        raise ConfigError(
            f"this VM is in {environment}, but azure.cloud is {settings.azure.cloud}: set "
            f"LB_DRAIN_AZURE_CLOUD={name} and run this again"
        )


def _named_by(nics: Iterable[Nic]) -> list[str]:
    """Return the ids of the load balancers whose pools these NICs name."""
    return [
        load_balancer_of(pool_id)
        for nic in nics
        for ip_configuration in nic.ip_configurations
        for pool_id in ip_configuration.pool_ids
    ]


def _pools_of(
    vms: tuple[Vm, ...], nics: tuple[Nic, ...], balancers: list[LoadBalancer]
) -> tuple[DiscoveredPool, ...]:
    """Return the pools with at least one of these VMs, by id."""
    pools = tuple(pool for balancer in balancers for pool in balancer.pools)
    membership = PoolMembership(
        Observation(document=None, vms=vms, nics=nics, pools=pools),
        [pool.pool_id for pool in pools],
    )
    peers = {fold(vm.name) for vm in vms}
    inside = {name for pool in pools for name in membership.members(pool.pool_id)}
    out = tuple(vm.name for vm in vms if fold(vm.name) not in inside)
    found: list[DiscoveredPool] = []
    for balancer in balancers:
        for pool in balancer.pools:
            members = membership.members(pool.pool_id)
            if members & peers:
                found.append(
                    DiscoveredPool(
                        pool_id=pool.pool_id,
                        kind=pool.kind,
                        peers=len(members & peers),
                        others=len(members - peers),
                        out=out,
                        basic=balancer.basic,
                    )
                )
    return tuple(sorted(found, key=lambda pool: fold(pool.pool_id)))


async def _list(azure: Azure, ids: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the load balancers in the resource groups of these resources, and the refusals.

    No NIC names the load balancer of an IP-based pool, so it is searched for where the others are.
    """
    groups = {fold("/".join(each.split("/")[:5])): each for each in ids}
    listed: list[str] = []
    refused: list[str] = []
    for _, resource_id in sorted(groups.items()):
        try:
            listed += await azure.topology.load_balancers_in_same_group(resource_id)
        except Denied as error:
            refused.append(str(error))
    return listed, tuple(refused)


async def _read(azure: Azure, named: Iterable[str], listed: Iterable[str]) -> list[LoadBalancer]:
    """Read these load balancers. One that was only listed can be deleted meanwhile."""
    wanted = {fold(each): each for each in (*listed, *named)}
    required = {fold(each) for each in named}
    balancers: list[LoadBalancer] = []
    for key, balancer_id in sorted(wanted.items()):
        try:
            balancers.append(await azure.network.load_balancer(balancer_id))
        except NotFound:
            if key in required:
                raise
    return balancers
