"""The reads of `lb-drain plan` and `lb-drain status`, from any VM of the set. Writes nothing."""

import asyncio
import random
from collections.abc import MutableMapping
from dataclasses import replace

from controller.agent.assembly import assemble
from controller.agent.context import AgentContext
from controller.agent.start_reads import StartReads
from controller.agent.startup import blob_owner, check_pools, discover_identity, warn_missing_pools
from controller.azure.http.session import Azure, open_azure
from controller.clock import CorrectedClock, SystemClock
from controller.config.in_force import ConfigurationInForce
from controller.config.schema import Settings
from controller.core.blob_owner import ANY_OWNER
from controller.core.ledger import Ledger
from controller.core.vm_report import VmReport
from controller.errors import ControllerError, OutcomeUnknown
from controller.status.ledger_view import LeaseStatus, PlanPreview, read_lease_status
from controller.storage.annotations import LedgerAnnotations
from controller.storage.drain_request_store import DrainRequestStore, drain_requests_blob_name
from controller.storage.ledger_store import LedgerStore, ledger_blob_name
from controller.storage.vm_report_store import read_vm_report, vm_report_blob_name

DRY_RUN = {"dry_run": True}
MAX_REPORTS = 100
"""How many reports `status` reads."""


async def preview_plan(settings: Settings, environ: MutableMapping[str, str]) -> PlanPreview:
    """Read what a leader reads, and return what it would do now.

    Raises:
        ControllerError: something could not be read.
    """
    dry = settings.model_copy(update={"policy": settings.policy.model_copy(update=DRY_RUN)})
    clock = CorrectedClock(SystemClock())
    async with open_azure(dry, clock, environ) as azure:
        reads = StartReads(azure, clock=clock)
        identity = await discover_identity(azure, reads)
        warn_missing_pools(await check_pools(azure, dry, reads=reads))
        context = AgentContext(
            azure=azure,
            identity=identity,
            configuration=ConfigurationInForce(dry),
            clock=clock,
            entropy=random.SystemRandom(),
            annotations=LedgerAnnotations(),
            woken=asyncio.Event(),
        )
        parts = assemble(context)
        await parts.watcher.poll()
        await parts.watcher.poll()
        await parts.requests.refresh(no_older_than_s=0)
        if parts.watcher.document is None:
            raise OutcomeUnknown("the event document could not be read; see the log above")
        lease = await read_lease_status(parts.store, parts.watcher.now())
        plan, cache = await parts.reconciler.preview(), parts.reconciler.cache
        return PlanPreview(
            vm=identity.vm,
            lease=lease,
            document=parts.watcher.document,
            vms=cache.vms,
            pools=cache.pools,
            pools_without_peers=cache.pools_without_peers(lease.ledger),
            plan=plan,
            unread=parts.reconciler.unread,
            pool_names=dry.pool_names(),
            policy=context.configuration.policy,
        )


async def read_set_status(settings: Settings, environ: MutableMapping[str, str]) -> LeaseStatus:
    """Read the lease, the ledger and the drain requests.

    Raises:
        ControllerError: they could not be read.
    """
    clock = SystemClock()
    async with open_azure(settings, clock, environ) as azure:
        name, owner = settings.election.blob_name, ANY_OWNER
        if not name:
            identity = await discover_identity(azure)
            owner = blob_owner(identity, settings)
            name = ledger_blob_name(identity.availability_set_id)
        store = LedgerStore(azure.state_blob(name), owner=owner)
        status = await read_lease_status(store, clock.now())
        requests = DrainRequestStore(azure.state_blob(drain_requests_blob_name(name)), owner=owner)
        await requests.refresh_if_exists()
        reports = await _reports(azure, name, status.ledger)
        return replace(status, requests=requests.requests, reports=reports)


async def _reports(azure: Azure, ledger_name: str, ledger: Ledger) -> tuple[VmReport, ...]:
    """Return what the agents of drained VMs report; a report that cannot be read is left out."""

    async def read(vm: str) -> VmReport | None:
        try:
            return await read_vm_report(azure.state_blob(vm_report_blob_name(ledger_name, vm)), vm)
        except ControllerError:
            return None

    vms = [entry.vm for entry in ledger.entries if not entry.parked][:MAX_REPORTS]
    found = await asyncio.gather(*map(read, vms))
    return tuple(each for each in found if each is not None)
