"""Build the parts of an agent once, and connect them.

`reporting` and `live_status` subscribe to these parts, which do not depend on either.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from controller.agent.ability_watch import AbilityWatch
from controller.agent.agents_reader import AgentsReader, assemble_agents
from controller.agent.closing_assembly import assemble_closing
from controller.agent.context import AgentContext
from controller.agent.event_forwarding import (
    EventForwarder,
    ForwardedReader,
    assemble_forwarded,
    assemble_forwarder,
)
from controller.agent.event_watcher import EventWatcher
from controller.agent.leader_election import LeaderElection
from controller.agent.operator_blobs import OperatorBlobs, watch_operator_blobs
from controller.agent.presence_sender import PresenceSender, assemble_presence
from controller.agent.reconciler import Reconciler
from controller.agent.reconciler_assembly import assemble_reconciler
from controller.agent.sdk_loading import SdkLoading
from controller.agent.second_source_watch import SecondSourceWatch
from controller.agent.standby_ledger import StandbyLedgerCache
from controller.agent.standby_view import StandbyView
from controller.agent.startup import AgentIdentity, blob_owner, state_blob
from controller.azure.blob import StateBlob
from controller.config.schema import Settings
from controller.core.ability import READING_FORWARDED, READING_REQUESTS
from controller.core.action_keys import DRAIN_REQUESTS, FORWARDED_EVENTS
from controller.core.blob_owner import BlobOwner
from controller.core.lease import LeaseState, ReasonsNotToLead, reasons_not_to_lead
from controller.core.ledger_recovery import LedgerMemory
from controller.storage.drain_request_store import DrainRequestWatch
from controller.storage.ledger_store import LedgerStore
from controller.vm_side.closing_side import ClosingSide

CLOSING_POLL_S = 2.0
"""How often a standby reads the event document at least, when its VM closes before it leaves. IMDS
allows 5 requests per second."""
FRESH_BEFORE_ACQUIRING_S = 2.0
"""A standby competes for the lease with a document and drain requests no older than this."""
REFRESH_TIMEOUT_S = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """The parts of a running agent."""

    identity: AgentIdentity
    watcher: EventWatcher
    operator: OperatorBlobs
    reconciler: Reconciler
    store: LedgerStore
    election: LeaderElection | None
    """None for a dry run."""
    standby_ledger: StandbyLedgerCache | None
    """None for a dry run, which reads the ledger in every pass."""
    standby_view: StandbyView | None
    """None for a dry run, which reads the set as a leader does."""
    closing: ClosingSide | None
    """The VM's own side; None if `close` is off, and for a dry run."""
    presence: PresenceSender | None
    """None for a dry run, which writes nothing."""
    agents: AgentsReader
    second_source: SecondSourceWatch | None
    """None if Resource Graph is not asked, and for a dry run."""
    sdk: SdkLoading
    forwarder: EventForwarder | None
    """None for a dry run."""
    forwarded: ForwardedReader

    def tasks(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """Return what runs until the agent ends, by name; without the election."""
        tasks: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "watch": self.watcher.run,
            "reconcile": self.reconciler.run,
            "agents": self.agents.run,
            "requests": self.operator.requests.run,
            "controls": self.operator.controls.run,
            "sdk": self.sdk.run,
        }
        if self.standby_ledger is not None:
            tasks["standby ledger"] = self.standby_ledger.run
        if self.standby_view is not None:
            tasks["standby view"] = self.standby_view.run
        if self.closing is not None:
            tasks["closing"] = self.closing.run
        if self.presence is not None:
            tasks["presence"] = self.presence.run
        if self.second_source is not None:
            tasks["second source"] = self.second_source.run
        if self.forwarder is not None:
            tasks["forward events"] = self.forwarder.run
            tasks["forwarded events"] = self.forwarded.run
        return tasks


def _standby_poll_s(settings: Settings) -> float:
    """Return how often a standby reads the event document: soon enough to close its own VM."""
    configured_s = settings.watch.standby_poll_s
    return min(configured_s, CLOSING_POLL_S) if settings.policy.close else configured_s


def assemble(context: AgentContext) -> Components:
    """Return the parts of an agent; nothing runs yet, and `connect` lets them react."""
    settings, blob = context.settings, state_blob(context.azure, context.identity)
    owner, memory = blob_owner(context.identity, settings), LedgerMemory()
    store = LedgerStore(blob, owner=owner, memory=memory)
    election, standby_ledger = None, None

    operator = _watch_operator(
        context,
        blob,
        owner,
        leading=lambda: election is None or election.leading,
        changed=lambda: sdk.check(),  # noqa: PLW0108 -- it is built below
    )
    forwarded = assemble_forwarded(
        context, leading=lambda: _is_leader(election), vms=lambda: reconciler.cache.vms
    )
    watcher = _assemble_watcher(context, operator.requests, forwarded)
    ability = watch_ability(watcher, operator, forwarded)
    if not settings.policy.dry_run:
        read = LedgerStore(blob, owner=owner, memory=memory)
        standby_ledger = _assemble_standby_ledger(context, read, watcher, operator, ability)
        election = assemble_election(
            context,
            blob,
            watcher=watcher,
            operator=operator,
            ability=ability,
            blob_read=standby_ledger.blob_read,
        )
    reconciler = assemble_reconciler(
        context, store, election=election, watcher=watcher, operator=operator, ability=ability
    )
    sdk = _assemble_sdk(context, watcher, operator, reconciler, election)
    view = _assemble_view(context, standby_ledger, watcher, operator)
    return Components(
        identity=context.identity,
        watcher=watcher,
        operator=operator,
        reconciler=reconciler,
        store=store,
        election=election,
        standby_ledger=standby_ledger,
        standby_view=view,
        closing=assemble_closing(
            context,
            blob,
            owner=owner,
            watcher=watcher,
            memory=memory,
            election=election,
            begins=lambda: reconciler.tenure.begins,
        ),
        presence=None if election is None else assemble_presence(context, blob.name, owner),
        agents=assemble_agents(context, blob.name, reconciler, election, view),
        second_source=_assemble_second_source(context, reconciler, election, watcher),
        sdk=sdk,
        forwarder=assemble_forwarder(context, watcher, election, standby_ledger),
        forwarded=forwarded,
    )


def _is_leader(election: LeaderElection | None) -> bool:
    """Return whether an agent leads, also while a renewal is late: its documents stay whole."""
    return election is not None and election.state is LeaseState.LEADER


def _assemble_standby_ledger(
    context: AgentContext,
    store: LedgerStore,
    watcher: EventWatcher,
    operator: OperatorBlobs,
    ability: AbilityWatch,
) -> StandbyLedgerCache:
    return StandbyLedgerCache(
        store,
        watcher.now,
        should_lead=lambda: not _reasons(context, watcher, operator, ability, tenure=None),
    )


def _assemble_second_source(
    context: AgentContext,
    reconciler: Reconciler,
    election: LeaderElection | None,
    watcher: EventWatcher,
) -> SecondSourceWatch | None:
    """Return what asks Resource Graph while this agent leads, if that is configured."""
    if election is None or not context.settings.events.resource_graph:
        return None
    set_id = context.identity.set_id
    machines = f"{set_id.rsplit('/', 2)[0]}/virtualMachines"

    def vm_ids() -> tuple[str, ...]:
        known = tuple(vm.vm_id for vm in reconciler.cache.vms)
        return known or tuple(f"{machines}/{name}" for name in context.identity.vms)

    watch = SecondSourceWatch(
        context.azure.resource_graph,
        present_set=context.present_set,
        vm_ids=vm_ids,
        clock=watcher.clock,
        leading=lambda: election.leading and not reconciler.tenure.begins,
        ledger=lambda: reconciler.ledger,
        document=lambda: watcher.document,
        seen=watcher.seen_events.known,
        changed=context.woken.set,
    )
    reconciler.second_source = lambda: watch.known
    return watch


def _assemble_watcher(
    context: AgentContext, requests: DrainRequestWatch, forwarded: ForwardedReader
) -> EventWatcher:
    return EventWatcher(
        imds=context.azure.imds,
        clock=context.clock,
        leader_poll_s=context.settings.watch.leader_poll_s,
        standby_poll_s=_standby_poll_s(context.settings),
        added=lambda now: (*requests.rehearsed_events(now), *forwarded.events(now)),
        complete=forwarded.is_known,
    )


def watch_ability(
    watcher: EventWatcher, operator: OperatorBlobs, forwarded: ForwardedReader
) -> AbilityWatch:
    """Return what notes the ability of an agent; reads that no pass plans count as attempts."""
    ability = AbilityWatch(watcher.clock)
    forwarded.on_read(partial(ability.tried, READING_FORWARDED, FORWARDED_EVENTS))
    operator.requests.on_read(partial(ability.tried, READING_REQUESTS, DRAIN_REQUESTS))
    return ability


def _assemble_sdk(
    context: AgentContext,
    watcher: EventWatcher,
    operator: OperatorBlobs,
    reconciler: Reconciler,
    election: LeaderElection | None,
) -> SdkLoading:
    return SdkLoading(
        context.azure.network.load_sdk,
        # A leader that is about to yield leaves the writes to the next one.
        leading=lambda: election is not None and election.leading and not election.yields,
        watcher=watcher,
        operator=operator,
        configuration=context.configuration,
        ledger=lambda: reconciler.ledger,
    )


def _watch_operator(
    context: AgentContext,
    blob: StateBlob,
    owner: BlobOwner,
    *,
    leading: Callable[[], bool],
    changed: Callable[[], None],
) -> OperatorBlobs:
    """Return the watches of what operators write; a dry run reads it as a leader does."""

    def wake() -> None:
        changed()
        context.woken.set()

    return watch_operator_blobs(
        context.azure.state_blob,
        blob.name,
        owner=owner,
        configuration=context.configuration,
        clock=context.clock,
        poll_s=context.tuning.drain_requests_poll_s,
        leading=leading,
        changed=wake,
    )


def connect(components: Components) -> None:
    """Let the parts react to each other: a poll, or a change of the lease, leads to a pass."""
    watcher, reconciler, election = components.watcher, components.reconciler, components.election
    sdk = components.sdk
    watcher.on_poll(sdk.check)
    reconciler.on_pass(lambda _: sdk.check())
    watcher.on_poll(reconciler.polled)
    if election is None:
        watcher.lead(True)  # a dry run polls as a leader does
        return
    watcher.on_poll(election.polled)
    watcher.on_poll(components.forwarded.polled)
    if components.forwarder is not None:
        watcher.on_poll(components.forwarder.polled)
    if components.closing is not None:
        watcher.on_poll(components.closing.polled)
    if components.standby_ledger is not None and components.closing is not None:
        components.standby_ledger.on_blob_read(components.closing.ledger_changed)

    def lease_changed() -> None:
        sdk.check()
        watcher.lead(election.leading)
        reconciler.wake()

    election.on_change(lease_changed)


def assemble_election(
    context: AgentContext,
    blob: StateBlob,
    *,
    watcher: EventWatcher,
    operator: OperatorBlobs,
    ability: AbilityWatch,
    blob_read: Callable[[str], bool],
) -> LeaderElection:
    """Return this agent's part in the election; `blob_read` is called as it states."""
    settings = context.settings.election

    def reasons() -> ReasonsNotToLead:
        tenure = None if election.state is LeaseState.STANDBY else election.tenures
        return _reasons(context, watcher, operator, ability, tenure=tenure)

    async def refresh() -> None:
        """A standby's document may be 15 s old, and it has not read what operators want."""
        with suppress(TimeoutError):
            async with asyncio.timeout(REFRESH_TIMEOUT_S):
                await watcher.refresh(no_older_than_s=FRESH_BEFORE_ACQUIRING_S)
                await operator.refresh(no_older_than_s=FRESH_BEFORE_ACQUIRING_S)

    election = LeaderElection(
        blob=blob,
        # The lease is counted on the raw clocks: a correction must not look like a freeze.
        clock=context.clock.clock,
        entropy=context.entropy,
        lease_duration_s=settings.lease_duration_s,
        renew_period_s=settings.renew_period_s,
        yield_s=settings.yield_s,
        peers=context.identity.peers,
        reasons=reasons,
        refresh=refresh,
        blob_read=blob_read,
        shortest_read_s=context.tuning.shortest_lease_read_s,
    )
    return election


def _reasons(
    context: AgentContext,
    watcher: EventWatcher,
    operator: OperatorBlobs,
    ability: AbilityWatch,
    *,
    tenure: int | None,
) -> ReasonsNotToLead:
    """Return why this agent should not lead; `tenure` is None while it does not."""
    return reasons_not_to_lead(
        vm=context.identity.vm,
        document=watcher.document,
        document_age_s=watcher.age_s(),
        policy=context.configuration.policy,
        now=watcher.now(),
        requests=operator.requests.requests or (),
        unable=str(ability.inability(tenure) or ""),
        hand_over=operator.controls.controls.hand_over,
    )


def _assemble_view(
    context: AgentContext,
    standby_ledger: StandbyLedgerCache | None,
    watcher: EventWatcher,
    operator: OperatorBlobs,
) -> StandbyView | None:
    """Return what reads the set for the page of a standby; it shares no state with the agent."""
    if standby_ledger is None:
        return None
    apart = replace(context, woken=asyncio.Event())
    reconciler = assemble_reconciler(
        apart,
        standby_ledger.store,
        election=None,
        watcher=watcher,
        operator=operator,
        ability=AbilityWatch(watcher.clock),
    )
    return StandbyView(reconciler, operator, watcher.now)
