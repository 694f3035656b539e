"""Where an agent lives: its VM, its availability set, its pools, and the blob of its ledger."""

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime

from controller.azure.blob import LedgerBlob
from controller.azure.imds import Instance
from controller.azure.session import Azure
from controller.core.model import LoadBalancer, fold, load_balancer_of, short
from controller.errors import ConfigError, ControllerError, NotFound, told_s
from controller.ledger_store import LedgerStore
from controller.logs import log
from controller.look import LeaseLook
from controller.settings import Settings

logger = logging.getLogger(__name__)

ASK_AGAIN = 2
ASK_AGAIN_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where this agent lives."""

    instance: Instance
    availability_set_id: str
    vms: tuple[str, ...]
    """Names of the VMs of the set when the agent started, this one included."""

    @property
    def peers(self) -> int:
        """How many agents take part."""
        return len(self.vms)


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
        vms=tuple(short(vm_id) for vm_id in found.vm_ids) or (instance.name,),
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


async def check_pools(azure: Azure, settings: Settings) -> tuple[str, ...]:
    """Refuse pools that cannot be managed; return those that Azure does not have.

    A pool that was deleted is no reason to leave the others alone, so only a configuration of which
    nothing exists is refused, and for good only when the load balancers themselves answered. A 404
    for a whole load balancer is no proof: a resource group can be away for seconds.

    Raises:
        ConfigError: a load balancer has the Basic SKU, or no configured pool exists.
        NotFound: no configured pool can be found, because a load balancer cannot.
        ControllerError: no load balancer could be read.
    """
    missing, unproven = await _missing_pools(azure, tuple(p.id for p in settings.backend_pools))
    for _ in range(ASK_AGAIN):
        if not missing:
            break
        await asyncio.sleep(ASK_AGAIN_S)
        # Only those: another load balancer may have asked for more patience than that.
        missing, unproven = await _missing_pools(azure, missing)
    if len(missing) == len(settings.backend_pools):
        problem = f"backend_pools: {_not_found(missing)}"
        raise NotFound(problem) if unproven else ConfigError(problem)
    return missing


async def _missing_pools(azure: Azure, pool_ids: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """Return which pools were not found, and whether a load balancer was not found either."""
    missing: list[str] = []
    unproven = False
    failures: list[ControllerError] = []
    owners = {fold(load_balancer_of(each)): load_balancer_of(each) for each in pool_ids}
    for key in sorted(owners):
        listed: set[str] = set()
        try:
            load_balancer = await azure.network.glance(owners[key])
        except NotFound:
            unproven = True
        except ControllerError as error:
            failures.append(error)
            continue
        else:
            refuse_basic(load_balancer)
            listed = {fold(pool.pool_id) for pool in load_balancer.pools}
        missing += [
            each
            for each in pool_ids
            if fold(load_balancer_of(each)) == key and fold(each) not in listed
        ]
    if len(failures) == len(owners):
        raise max(failures, key=lambda error: told_s(error) or 0.0)
    return tuple(missing), unproven


def _not_found(pool_ids: tuple[str, ...]) -> str:
    return (
        f"not found in Azure: {', '.join(pool_ids)}. Correct the id, or take the pool out of the "
        "configuration"
    )


def tell_missing(pool_ids: tuple[str, ...]) -> None:
    """Say loudly which configured pools do not exist."""
    if pool_ids:
        log(logger, logging.ERROR, f"backend_pools: {_not_found(pool_ids)}", event="start")
