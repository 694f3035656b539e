"""Where an agent lives: its VM, its availability set, its pools, and the blob of its ledger."""

from dataclasses import dataclass
from datetime import datetime

from controller.azure.blob import LedgerBlob
from controller.azure.imds import Instance
from controller.azure.session import Azure
from controller.core.model import LoadBalancer, fold, load_balancer_of
from controller.errors import ConfigError, NotFound
from controller.ledger_store import LedgerStore
from controller.look import LeaseLook
from controller.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where this agent lives."""

    instance: Instance
    availability_set_id: str
    peers: int


def blob_name_of(availability_set_id: str) -> str:
    """Return the default name of the ledger's blob: the folded id of the set, as a path."""
    parts = fold(availability_set_id).strip("/").split("/")
    named = dict(zip(parts[::2], parts[1::2], strict=False))
    group = named.get("resourcegroups", "group")
    return f"{named.get('subscriptions', 'subscription')}/{group}/{parts[-1]}.json"


async def find_home(azure: Azure) -> Home:
    """Ask IMDS who we are, and ARM for our availability set.

    Raises:
        ConfigError: this VM is in no availability set.
        ControllerError: the answer could not be had; worth trying again.
    """
    instance = await azure.imds.instance()
    found = await azure.compute.discover(instance.vm_id)
    return Home(
        instance=instance,
        availability_set_id=found.availability_set_id,
        peers=max(1, len(found.vm_ids)),
    )


async def ensure_exists(blob: LedgerBlob) -> None:
    """Create the ledger's blob if there is none.

    Raises:
        ConfigError: there is no container either; names the command that creates it.
    """
    try:
        await blob.peek()
    except NotFound:
        await blob.create()


async def look_at_lease(store: LedgerStore, now: datetime) -> LeaseLook:
    """Read the lease and the ledger.

    Raises:
        ControllerError: they could not be read.
    """
    await store.read()
    return LeaseLook(lease_state=store.lease_state, ledger=store.ledger, at=now)


def refuse_basic(load_balancer: LoadBalancer) -> None:
    """Refuse a Basic load balancer (retired 30 September 2025; Microsoft docs, Load Balancer FAQ).

    Raises:
        ConfigError: the SKU is Basic.
    """
    if load_balancer.sku.casefold() == "basic":
        raise ConfigError(
            f"load balancer {load_balancer.load_balancer_id} has the Basic SKU, which Azure has "
            "retired and this controller does not manage: upgrade it to Standard, or take its "
            "pools out of [[backend_pools]]"
        )


async def check_pools(azure: Azure, settings: Settings) -> None:
    """Refuse pools that do not exist or cannot be managed.

    Raises:
        ConfigError: names every such pool.
    """
    owners = {
        fold(load_balancer_of(pool.id)): load_balancer_of(pool.id)
        for pool in settings.backend_pools
    }
    existing: set[str] = set()
    for key in sorted(owners):
        try:
            load_balancer = await azure.network.glance(owners[key])
        except NotFound:
            continue
        refuse_basic(load_balancer)
        existing.update(fold(pool.pool_id) for pool in load_balancer.pools)
    missing = [pool.id for pool in settings.backend_pools if fold(pool.id) not in existing]
    if missing:
        raise ConfigError(
            "backend_pools: not found in Azure: "
            + ", ".join(missing)
            + ". Correct the id, or take the pool out of the configuration"
        )
