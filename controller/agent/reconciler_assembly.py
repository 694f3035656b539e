"""Build a reconcile loop with the parts it drives: one for the agent, one for a standby's page."""

from datetime import datetime

from controller.agent.ability_watch import AbilityWatch
from controller.agent.acknowledger import Acknowledger
from controller.agent.action_runner import ActionRunner
from controller.agent.change_guards import ChangeGuards
from controller.agent.context import AgentContext
from controller.agent.event_watcher import EventWatcher
from controller.agent.inventory_reader import InventoryReader
from controller.agent.leader_election import LeaderElection
from controller.agent.nic_reader import NicReader
from controller.agent.operator_blobs import OperatorBlobs
from controller.agent.reconciler import Reconciler
from controller.agent.resource_cache import forget_deleted_vms
from controller.agent.tenure import Tenure
from controller.agent.vm_reader import VmReader
from controller.agent.working_state import WorkingState
from controller.core.azure_names import fold
from controller.core.vm_report import VmReport
from controller.storage.ledger_store import LedgerStore
from controller.storage.shared_pool_store import SharedPoolStore
from controller.storage.vm_report_store import read_vm_report, vm_report_blob_name


def assemble_reconciler(
    context: AgentContext,
    store: LedgerStore,
    *,
    election: LeaderElection | None,
    watcher: EventWatcher,
    operator: OperatorBlobs,
    ability: AbilityWatch,
) -> Reconciler:
    """Return the reconcile loop, with the parts it drives.

    Args:
        context: what the parts are built from.
        store: the ledger in its blob.
        election: the election that lets writes pass; None for a dry run, which writes nothing.
        watcher: the event document and the clock.
        operator: drain requests and controls.
        ability: what this agent has shown that it can do.
    """
    state = WorkingState(
        clock=watcher.clock,
        entropy=context.entropy,
        pool_ids=context.configuration.policy.pools,
        max_parallel_writes=context.settings.policy.max_parallel_writes,
        ability=ability,
        wake=context.woken.set,
    )
    tenure = Tenure(
        store=store,
        state=state,
        annotations=context.annotations,
        vm=context.identity.vm,
        now=watcher.now,
        election=election,
    )
    guards = ChangeGuards(
        tenure=tenure,
        state=state,
        watcher=watcher,
        operator=operator,
        configuration=context.configuration,
        mechanisms=context.mechanisms,
    )
    runner = _assemble_runner(
        context, state, tenure, guards, watcher=watcher, operator=operator, election=election
    )
    reconciler = Reconciler(
        watcher=watcher,
        operator=operator,
        configuration=context.configuration,
        tenure=tenure,
        runner=runner,
        state=state,
        mechanisms=context.mechanisms,
        dry_run=election is None,
        woken=context.woken,
    )
    if election is not None:
        election.before_release(reconciler.quiesce)
    return reconciler


def _assemble_inventory(
    context: AgentContext,
    state: WorkingState,
    tenure: Tenure,
    watcher: EventWatcher,
    operator: OperatorBlobs,
) -> InventoryReader:
    azure = context.azure

    def urgent(vm: str) -> bool:
        """Return whether an event, an entry or a drain request names a VM."""
        document, wanted = watcher.document, fold(vm)
        events = document.events if document else ()
        return (
            tenure.ledger.entry(vm) is not None
            or any(wanted == fold(name) for event in events for name in event.resources)
            or any(wanted == fold(request.vm) for request in operator.requests.requests or ())
        )

    def forget(read_at: datetime) -> None:
        forget_deleted_vms(state.cache, tenure.ledger, urgent, read_at)

    return InventoryReader(
        vms=VmReader(
            compute=azure.compute,
            present_set=context.present_set,
            vm=context.identity.vm,
            names=context.identity.vms,
            urgent=urgent,
            state=state,
            now=watcher.now,
        ),
        nics=NicReader(network=azure.network, urgent=urgent, state=state, now=watcher.now),
        network=azure.network,
        pool_ids=lambda: (*context.configuration.policy.pools, *tenure.ledger.pool_ids),
        state=state,
        forget=forget,
        now=watcher.now,
    )


def _assemble_acknowledger(
    context: AgentContext, state: WorkingState, watcher: EventWatcher
) -> Acknowledger:
    def targets(event_id: str) -> tuple[str, ...]:
        """Return the set, and the VMs that an event names."""
        events = watcher.document.events if watcher.document else ()
        named = [each for each in events if fold(each.event_id) == fold(event_id)]
        vms = (vm for vm in state.cache.vms if any(each.affects(vm.name) for each in named))
        return (context.present_set.set_id, *(vm.vm_id for vm in vms))

    both = context.settings.events.acknowledge_through == "imds-then-arm"
    return Acknowledger(
        context.azure.imds,
        clock=context.clock,
        second=context.azure.event_acknowledgement if both else None,
        targets=targets,
    )


def _assemble_runner(
    context: AgentContext,
    state: WorkingState,
    tenure: Tenure,
    guards: ChangeGuards,
    *,
    watcher: EventWatcher,
    operator: OperatorBlobs,
    election: LeaderElection | None,
) -> ActionRunner:
    ledger_name = context.identity.ledger_name

    async def read_report(vm: str) -> VmReport | None:
        return await read_vm_report(
            context.azure.state_blob(vm_report_blob_name(ledger_name, vm)), vm
        )

    return ActionRunner(
        acknowledger=_assemble_acknowledger(context, state, watcher),
        inventory=_assemble_inventory(context, state, tenure, watcher, operator),
        state=state,
        tenure=tenure,
        guards=guards,
        adapters=context.adapters(context.azure.network, state, context.clock),
        shared_pools=SharedPoolStore(
            context.azure.state_blob,
            availability_set_id=context.identity.owner_id,
            clock=context.clock,
        ),
        reports=read_report,
        clock=context.clock,
        entropy=context.entropy,
        writes=election is not None,
        wake=context.woken.set,
    )
