"""Asks Azure what a configuration has to name: the pools in which the VMs of this set are members.

It only reads, through the agent's own adapters and with the agent's own rights. Unlike the doctor
it stops at the first failure: half of an answer would become half of a configuration.
"""

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass

from controller.azure.session import Azure, SessionFactory, open_azure, tcp_session
from controller.clock import Clock
from controller.core.inventory import Inventory
from controller.core.model import LoadBalancer, Observation, PoolKind, fold, load_balancer_of
from controller.errors import ConfigError, Denied, NotFound
from controller.settings import Settings

CLOUDS = {
    "AzurePublicCloud": "AzurePublicCloud",
    "AzureUSGovernmentCloud": "AzureUSGovernment",
    "AzureChinaCloud": "AzureChinaCloud",
}
"""What the metadata service calls a cloud, and what `azure.cloud` does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPool:
    """A pool and who is in it."""

    pool_id: str
    kind: PoolKind
    ours: int
    """VMs of this set."""
    others: int
    """Members that are no VM of this set: they serve, and nobody drains them."""
    basic: bool = False
    """Whether its load balancer is of the retired kind that is not managed."""

    def floor(self, at_once: int) -> int:
        """Return the `min_in_service` to propose when Azure takes so many VMs at once."""
        return max(1, self.ours + self.others - at_once)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found from this VM."""

    vm: str
    availability_set_id: str
    vms: int
    """How many VMs the set has."""
    at_once: int
    """How many of them planned maintenance takes at once: those of one update domain."""
    pools: tuple[FoundPool, ...]
    """Those with at least one VM of the set in them, by id."""
    unlisted: tuple[str, ...]
    """Why load balancers could not be listed, so that pools may be missing; most often empty."""


async def discover(
    settings: Settings,
    *,
    environ: MutableMapping[str, str],
    clock: Clock,
    session_factory: SessionFactory = tcp_session,
) -> Found:
    """Ask everything. Of the settings only `[azure]` and `[watch]` matter.

    Raises:
        ConfigError: this VM is in no availability set, or in another cloud.
        Denied: a right is missing without which nothing can be found.
        ControllerError: the answer could not be had.
    """
    async with open_azure(settings, clock, environ, session_factory=session_factory) as azure:
        instance = await azure.imds.instance()
        cloud = CLOUDS.get(instance.environment, settings.azure.cloud)
        if cloud != settings.azure.cloud:
            raise ConfigError(
                f"this VM is in {instance.environment}, and azure.cloud is {settings.azure.cloud}: "
                f"set LB_DRAIN_AZURE_CLOUD={cloud} and run this again"
            )
        home = await azure.compute.discover(instance.vm_id)
        vms = await azure.compute.members(home.availability_set_id)
        nics = await azure.network.nics_in(nic_id for vm in vms for nic_id in vm.nic_ids)
        named = [
            load_balancer_of(pool_id)
            for nic in nics
            for ip_configuration in nic.ip_configurations
            for pool_id in ip_configuration.pool_ids
        ]
        neighbours = (home.availability_set_id, *(nic.nic_id for nic in nics), *named)
        listed, unlisted = await _listed(azure, neighbours)
        balancers = await _read(azure, named, listed)
        pools = tuple(pool for balancer in balancers for pool in balancer.pools)
        inventory = Inventory(
            Observation(document=None, vms=vms, nics=nics, pools=pools),
            [pool.pool_id for pool in pools],
        )
        ours = {fold(vm.name) for vm in vms}
        found: list[FoundPool] = []
        for balancer in balancers:
            for pool in balancer.pools:
                members = inventory.members(pool.pool_id)
                if members & ours:
                    found.append(
                        FoundPool(
                            pool_id=pool.pool_id,
                            kind=pool.kind,
                            ours=len(members & ours),
                            others=len(members - ours),
                            basic=balancer.sku.casefold() == "basic",
                        )
                    )
        return Found(
            vm=instance.name,
            availability_set_id=home.availability_set_id,
            vms=len(vms),
            at_once=-(-len(vms) // max(1, home.update_domains or len(vms))),
            pools=tuple(sorted(found, key=lambda pool: fold(pool.pool_id))),
            unlisted=unlisted,
        )


async def _listed(azure: Azure, ids: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the load balancers in the resource groups of these resources, and what was refused.

    No NIC names the load balancer of an IP-based pool, so it is looked for where the others are.
    """
    groups = {fold("/".join(each.split("/")[:5])): each for each in ids}
    listed: list[str] = []
    refused: list[str] = []
    for _, resource_id in sorted(groups.items()):
        try:
            listed += await azure.survey.balancers_beside(resource_id)
        except Denied as error:
            refused.append(str(error))
    return listed, tuple(refused)


async def _read(azure: Azure, named: Iterable[str], listed: Iterable[str]) -> list[LoadBalancer]:
    wanted = {fold(each): each for each in (*listed, *named)}
    sure = {fold(each) for each in named}
    balancers: list[LoadBalancer] = []
    for key, balancer_id in sorted(wanted.items()):
        try:
            balancers.append(await azure.network.glance(balancer_id))
        except NotFound:
            if key in sure:
                raise
    return balancers
