"""The reads of `lb-drain status` and `lb-drain plan`, on a VM of the set or elsewhere.

Both read what a leader reads, plan one pass, and write nothing. On a machine outside the set there
is no metadata service: the events are then those that the leader has recorded in the ledger.
"""

import asyncio
import random
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass, replace

from controller.agent.assembly import Components, assemble
from controller.agent.context import AgentContext
from controller.agent.ledger_place import find_ledger
from controller.agent.present_set import PresentSet
from controller.agent.resource_cache import all_rules
from controller.agent.start_reads import StartReads
from controller.agent.startup import (
    AgentIdentity,
    check_pools,
    discover_identity,
    warn_missing_pools,
)
from controller.azure.http.identity import Identity
from controller.azure.http.session import Azure, SessionFactory, open_azure, tcp_session
from controller.azure.imds_document import Instance
from controller.clock import CorrectedClock, SystemClock
from controller.config.in_force import ConfigurationInForce
from controller.config.schema import Settings
from controller.core.agent_presence import SeenAgent
from controller.core.azure_names import SetKind, fold, group_name, short
from controller.core.controls import Controls
from controller.core.ledger import Hold
from controller.core.planning.actions import Plan
from controller.core.vm_phase import rotation_of
from controller.errors import Denied, NotFound
from controller.status.history import History, history_of
from controller.status.ledger_view import LeaseStatus, read_lease_status
from controller.status.recorded_events import recorded_document, recorded_events
from controller.status.snapshot import AgentHealth, AgentSnapshot
from controller.storage.annotations import LedgerAnnotations
from controller.storage.controls_store import ControlsStore, controls_blob_name
from controller.storage.ledger_store import LedgerStore
from controller.storage.presence_store import read_agents

DRY_RUN = {"dry_run": True}
POLLS = 2
"""A restore needs two clean polls (law S6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was read, and what a leader would do."""

    snapshot: AgentSnapshot
    plan: Plan
    """As planned from these reads alone; the plan of the snapshot has the holds of the leader too.
    """
    unread: str
    """Why the VMs of the set are not known, and nothing can be planned; empty when they are."""


async def inspect_set(
    settings: Settings,
    environ: MutableMapping[str, str],
    *,
    availability_set_id: str = "",
    require_pools: bool = False,
    session_factory: SessionFactory = tcp_session,
) -> Inspection:
    """Read what a leader reads, and plan one pass.

    Args:
        settings: the configuration.
        environ: the environment.
        availability_set_id: a set that this machine is outside of, read with the account of `az
            login`; empty for the set of this VM.
        require_pools: refuse a configuration whose pools do not exist, and log which are missing.
        session_factory: opens HTTP sessions.

    Raises:
        SetupError: no configured pool exists, or this VM is in no availability set.
        ControllerError: the set, or its ledger, could not be read.
    """
    dry = settings.model_copy(update={"policy": settings.policy.model_copy(update=DRY_RUN)})
    clock = CorrectedClock(SystemClock())
    account = Identity.AZURE_CLI if availability_set_id else Identity.VM
    async with open_azure(
        dry, clock, environ, identity=account, session_factory=session_factory
    ) as azure:
        reads = StartReads(azure, clock=clock)
        if availability_set_id:
            identity = await _named(azure, dry, availability_set_id)
        else:
            identity = await discover_identity(azure, dry, reads)
        if require_pools:
            warn_missing_pools(await check_pools(azure, dry, reads=reads))
        context = AgentContext(
            azure=azure,
            identity=identity,
            present_set=PresentSet(identity.set_id),
            configuration=ConfigurationInForce(dry),
            clock=clock,
            entropy=random.SystemRandom(),
            annotations=LedgerAnnotations(),
            woken=asyncio.Event(),
        )
        return await _inspect(context)


async def read_history(
    settings: Settings,
    environ: MutableMapping[str, str],
    *,
    availability_set_id: str = "",
    session_factory: SessionFactory = tcp_session,
) -> History:
    """Read the ledger alone; the arguments are those of `inspect_set`.

    Raises:
        ControllerError: it could not be read.
    """
    clock, name, set_id = SystemClock(), settings.election.blob_name, availability_set_id
    account = Identity.AZURE_CLI if availability_set_id else Identity.VM
    async with open_azure(
        settings, clock, environ, identity=account, session_factory=session_factory
    ) as azure:
        if not set_id and not name:
            found = await discover_identity(azure, settings)
            name, set_id = found.ledger_name, found.set_id
        store = LedgerStore(azure.state_blob(name or await _ledger_name(azure, settings, set_id)))
        lease = await read_lease_status(store, clock.now())
        set_id = lease.ledger.converted_to or set_id or lease.ledger.set_id
        return history_of(lease.ledger, at=lease.at, availability_set=set_id)


async def _ledger_name(azure: Azure, settings: Settings, set_id: str) -> str:
    """Return the name of the blob with the ledger of a set that is named.

    Where the VMs may not be read, or are deleted, a ledger counts whose leader has noted that Azure
    has converted its set to this one.
    """
    vms = tuple[str, ...]()
    if SetKind.of(set_id) is not SetKind.AVAILABILITY_SET:  # nothing is searched for that
        with suppress(Denied, NotFound):
            vms = tuple(map(short, (await azure.compute.set_vms(set_id)).vm_ids))
    return (await find_ledger(azure, settings, set_id, vms)).name


async def read_controls(settings: Settings, environ: MutableMapping[str, str]) -> Controls:
    """Read the controls of the set of this VM that are in force.

    Raises:
        ControllerError: they could not be read.
    """
    clock, name = SystemClock(), settings.election.blob_name
    async with open_azure(settings, clock, environ) as azure:
        if not name:
            name = (await discover_identity(azure, settings)).ledger_name
        store = ControlsStore(azure.state_blob(controls_blob_name(name)))
        await store.refresh_if_exists()
        return store.content.in_force(clock.now())


async def _named(azure: Azure, settings: Settings, set_id: str) -> AgentIdentity:
    """Return the identity of no VM, in a set that is named."""
    names = tuple(map(short, (await azure.compute.set_vms(set_id)).vm_ids))
    place = await find_ledger(azure, settings, set_id, names)
    nowhere = Instance(
        name="",
        vm_id="",
        subscription_id="",
        resource_group=group_name(set_id),
        location="",
        environment="",
    )
    return AgentIdentity(
        instance=nowhere,
        set_id=set_id,
        vms=names,
        ledger_name=place.name,
        owner_id=place.owner_id,
    )


async def _inspect(context: AgentContext) -> Inspection:
    parts, on_vm = assemble(context), bool(context.identity.vm)
    blob_name = context.identity.ledger_name

    async def poll() -> None:
        await parts.operator.refresh(no_older_than_s=0)  # the events of rehearsals are among these
        for _ in range(POLLS if on_vm else 0):
            await parts.watcher.poll()

    lease, agents, *_ = await asyncio.gather(
        read_lease_status(parts.store, parts.watcher.now()),
        read_agents(context.azure.state_blob, blob_name, context.identity.vms),
        poll(),
    )
    read_here = parts.watcher.document is not None
    if not read_here:
        parts.watcher.adopt(recorded_document(lease.ledger))
    plan = await parts.reconciler.preview()
    snapshot = _snapshot(context, parts, lease, plan, agents)
    if not read_here:
        snapshot = replace(snapshot, document_age_s=None, seen_events=recorded_events(lease.ledger))
    return Inspection(snapshot=snapshot, plan=plan, unread=parts.reconciler.unread)


def _snapshot(
    context: AgentContext,
    parts: Components,
    lease: LeaseStatus,
    plan: Plan,
    agents: tuple[SeenAgent, ...],
) -> AgentSnapshot:
    ledger, cache, watcher = lease.ledger, parts.reconciler.cache, parts.watcher
    shown = replace(plan, holds=_merged(lease, plan))
    return AgentSnapshot(
        now=watcher.now(),
        health=AgentHealth(
            role="command",
            document_read=watcher.document is not None,
            unread=parts.reconciler.unread,
            rotation=rotation_of(ledger, shown),
            controls=parts.operator.controls.controls,
        ),
        lease_duration_s=context.settings.election.lease_duration_s,
        policy=context.configuration.policy,
        pool_names=context.settings.pool_names(),
        vm=context.identity.vm,
        availability_set_id=context.present_set.set_id,
        peers=context.identity.vms,
        lease_state=lease.lease_state,
        ledger=ledger,
        ledger_at=lease.at,
        document=watcher.document,
        document_age_s=watcher.age_s(),
        failed_polls=watcher.failures,
        seen_events=watcher.seen_events.known(),
        plan=shown,
        vms=cache.vms,
        nics=cache.nics,
        pools=cache.pools,
        rules=all_rules(cache),
        pools_without_peers=cache.pools_without_peers(ledger),
        reports={key: each.report for key, each in cache.reports.items() if each.report},
        agents=agents,
        drain_requests=parts.operator.requests.requests or (),
        rolling_run=parts.operator.requests.roll,
        controls_problem=parts.operator.problem,
        consecutive_failures={},
    )


def _merged(lease: LeaseStatus, plan: Plan) -> tuple[Hold, ...]:
    """Return the holds that the leader has recorded, and those of this plan.

    Only the leader knows which of its writes fail; one pass cannot find that out.
    """
    recorded = lease.ledger.holds if lease.leader else ()
    known = {(fold(hold.subject), hold.reason) for hold in recorded}
    return (*recorded, *(h for h in plan.holds if (fold(h.subject), h.reason) not in known))
