"""What an agent finds out before it takes part: its VM, its set, and its pools."""

import asyncio
import hashlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from controller.agent.ledger_place import find_ledger
from controller.agent.start_reads import StartReads
from controller.agent.tuning import DEFAULT_TUNING, Tuning
from controller.azure.blob import StateBlob
from controller.azure.http.session import Azure
from controller.azure.imds_document import Instance
from controller.clock import Clock
from controller.config.schema import Settings
from controller.core.azure_names import fold, load_balancer_of, short
from controller.core.blob_owner import BlobOwner
from controller.core.resources import LoadBalancer
from controller.errors import (
    ConfigError,
    ControllerError,
    NotFound,
    SetupError,
    retry_after_of,
)
from controller.observability.logs import log
from controller.storage.controls_store import controls_blob_name
from controller.storage.drain_request_store import drain_requests_blob_name

logger = logging.getLogger("lbdrain.agent")

POOL_CHECK_RETRIES = 2
DIGEST_LENGTH = 16
LONGEST_RETRY = 6.0
"""How many times longer than the first wait between two attempts the longest one is."""
LONGEST_WAIT_S = 60.0
"""The longest time between two attempts to start, in seconds. An attempt leaves alone what Azure
asked to leave alone for longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentIdentity:
    """Which VM this agent runs on, and the set that the VM belongs to."""

    instance: Instance
    set_id: str
    """The set that the VM is in when the agent starts."""
    vms: tuple[str, ...]
    """Names of the VMs of the set when the agent started, this one included."""
    ledger_name: str
    """The name of the blob with the ledger."""
    owner_id: str
    """The set that the blobs name: another one if Azure has made this set of it."""

    @property
    def vm(self) -> str:
        """The name of the VM."""
        return self.instance.name

    @property
    def peers(self) -> int:
        """How many agents take part."""
        return len(self.vms)


async def discover_identity(
    azure: Azure, settings: Settings, reads: StartReads | None = None
) -> AgentIdentity:
    """Read the VM from IMDS, its set from Resource Manager, and where the ledger of that is.

    Raises:
        SetupError: this VM is in no set, or in one that cannot be managed.
        ControllerError: there was no answer; worth trying again.
    """
    reads = reads or StartReads(azure)
    instance = await reads.instance()
    found = await reads.set_of(instance)
    vms = tuple(short(vm_id) for vm_id in found.vm_ids) or (instance.name,)
    place = await find_ledger(azure, settings, found.set_id, vms)
    return AgentIdentity(
        instance=instance,
        set_id=found.set_id,
        vms=vms,
        ledger_name=place.name,
        owner_id=place.owner_id,
    )


def state_blob(azure: Azure, identity: AgentIdentity) -> StateBlob:
    """Return the blob with the ledger, whose lease is leadership."""
    return azure.state_blob(identity.ledger_name)


def blob_owner(identity: AgentIdentity, settings: Settings) -> BlobOwner:
    """Return what the blobs of this agent have to belong to."""
    return BlobOwner(
        set_id=identity.owner_id,
        vms=identity.vms,
        configuration=configuration_digest(settings),
    )


NOT_CHOSEN = "admin_state=False"
"""How the policy shows a choice of a later version that is not made."""


def configuration_digest(settings: Settings) -> str:
    """Return a digest of the pools and the policy, which are alike on all VMs of a set.

    A choice that is not made leaves no trace, so that an agent of an older version, which does not
    know it, has the same digest.
    """
    text = repr(settings.core_policy()).replace(f", {NOT_CHOSEN}", "")
    digest = hashlib.sha256(text.encode()).hexdigest()
    return digest[:DIGEST_LENGTH]


class Startup:
    """Finds the identity and checks the pools, and tries again until Azure has what is needed.

    No answer of Azure ends the agent: what is missing now can be there in a minute. Only the
    configuration itself does. A step that has succeeded is not repeated, and a request that Azure
    asked to leave alone is not sent before its time: another one takes its place (`start_reads`).

    Args:
        azure: the clients.
        settings: the configuration.
        clock: wall and monotonic clock.
        entropy: source of jitter.
        tuning: how long to wait between attempts.
        waiting: called with the reason after every failed attempt.
    """

    def __init__(
        self,
        azure: Azure,
        settings: Settings,
        *,
        clock: Clock,
        entropy: random.Random,
        tuning: Tuning,
        waiting: Callable[[str], None],
    ) -> None:
        self._azure, self._settings = azure, settings
        self.reads = StartReads(azure, clock=clock, entropy=entropy)
        self._tuning, self._waiting = tuning, waiting
        self._identity: AgentIdentity | None = None
        self._pools_checked = False

    async def run(self) -> AgentIdentity:
        """Return the identity.

        Raises:
            ConfigError: the configuration cannot work, whatever Azure answers.
        """
        reported, attempts = "", 0
        while True:
            try:
                return await self._attempt()
            except ConfigError:
                raise
            except ControllerError as error:
                reason = f"waiting for Azure: {error}"
                word = error.word()
                # Of other errors the text differs every time, by a request id.
                cause = str(error) if isinstance(error, SetupError) else word
                if cause != reported:
                    reported = cause
                    log(logger, logging.WARNING, reason, event="agent_waiting", outcome=word)
                self._waiting(reason)
                attempts += 1
                first_s = self._tuning.start_retry_s
                await asyncio.sleep(wait_s(error, attempts=attempts, first_s=first_s))

    async def _attempt(self) -> AgentIdentity:
        self.reads.attempt()
        if self._identity is None:
            found = await discover_identity(self._azure, self._settings, self.reads)
            self._identity = found
        if not self._pools_checked:
            missing = await check_pools(
                self._azure, self._settings, tuning=self._tuning, reads=self.reads
            )
            warn_missing_pools(missing)
            self._pools_checked = True
        if not self._settings.policy.dry_run:
            ledger = state_blob(self._azure, self._identity)
            requests = self._azure.state_blob(drain_requests_blob_name(ledger.name))
            controls = self._azure.state_blob(controls_blob_name(ledger.name))
            for blob in (ledger, requests, controls):
                what = f"read the blob {blob.name}"
                await self.reads.once(blob.url, what, partial(ensure_exists, blob))
        return self._identity


def wait_s(error: ControllerError, *, attempts: int, first_s: float) -> float:
    """Return how long to wait before the next attempt to start, in seconds.

    Longer after each failure, so that agents that wait for a role read little (law H1). Azure can
    ask for 20 minutes of patience (seen: Retry-After 1200 of Compute); something else can work
    before, and what Azure asked to leave alone is not sent.
    """
    asked_s = min(retry_after_of(error) or 0.0, LONGEST_WAIT_S)
    return max(asked_s, first_s * min(2.0 ** min(attempts - 1, 8), LONGEST_RETRY))


async def ensure_exists(blob: StateBlob) -> None:
    """Create a blob if there is none.

    Raises:
        SetupError: there is no container either; names the command that creates it.
    """
    try:
        await blob.read_properties()
    except NotFound:
        await blob.create()


def refuse_basic(load_balancer: LoadBalancer) -> None:
    """Refuse a Basic load balancer (retired 30 September 2025; Microsoft docs, Load Balancer FAQ).

    Raises:
        SetupError: the SKU is Basic.
    """
    if load_balancer.basic:
        raise SetupError(
            f"load balancer {load_balancer.load_balancer_id} has the Basic SKU, which Azure has "
            "retired and this controller does not manage: upgrade it to Standard, or remove its "
            "pools from [[backend_pools]]"
        )


async def check_pools(
    azure: Azure,
    settings: Settings,
    *,
    tuning: Tuning = DEFAULT_TUNING,
    reads: StartReads | None = None,
) -> tuple[str, ...]:
    """Refuse pools that cannot be managed; return those that Azure does not have.

    A deleted pool is no reason to leave the others alone, so only a configuration of which nothing
    exists is refused. That is no proof of deletion: a resource group can be unavailable for
    minutes.

    Raises:
        SetupError: no configured pool exists, or every load balancer has the Basic SKU.
        ControllerError: no load balancer could be read.
    """
    reads = reads or StartReads(azure)
    missing = await _missing_pools(reads, tuple(p.id for p in settings.backend_pools))
    for _ in range(POOL_CHECK_RETRIES):
        if not missing:
            break
        await asyncio.sleep(tuning.pool_check_retry_s)
        # Only these: another load balancer may have asked for a longer wait.
        missing = await _missing_pools(reads, missing)
    if len(missing) == len(settings.backend_pools):
        raise SetupError(f"backend_pools: {_not_found(missing)}")
    return missing


async def _missing_pools(reads: StartReads, pool_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Return which pools were not found, those of a missing load balancer included."""
    missing: list[str] = []
    failures: list[ControllerError] = []
    owners = {fold(load_balancer_of(each)): load_balancer_of(each) for each in pool_ids}
    for key in sorted(owners):
        listed: set[str] = set()
        try:
            load_balancer = await reads.load_balancer(owners[key])
            refuse_basic(load_balancer)
            listed = {fold(pool.pool_id) for pool in load_balancer.pools}
            listed |= set(load_balancer.problems)
        except NotFound:
            pass
        except ControllerError as error:
            failures.append(error)
            continue
        missing += [
            each
            for each in pool_ids
            if fold(load_balancer_of(each)) == key and fold(each) not in listed
        ]
    if len(failures) == len(owners):
        # The next attempt reads what may be read then, and leaves the others alone.
        raise min(failures, key=lambda error: retry_after_of(error) or 0.0)
    return tuple(missing)


def _not_found(pool_ids: tuple[str, ...]) -> str:
    return (
        f"not found in Azure: {', '.join(pool_ids)}. Correct the id, or remove the pool from the "
        "configuration"
    )


def warn_missing_pools(pool_ids: tuple[str, ...]) -> None:
    """Log which configured pools do not exist."""
    if pool_ids:
        log(logger, logging.ERROR, f"backend_pools: {_not_found(pool_ids)}", event="pool_not_found")
