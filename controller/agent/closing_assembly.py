"""Builds the VM's own side of a drain for one agent."""

from collections.abc import Callable

from controller.agent.context import AgentContext
from controller.agent.event_watcher import EventWatcher
from controller.agent.leader_election import LeaderElection
from controller.azure.blob import StateBlob
from controller.core.blob_owner import BlobOwner
from controller.core.ledger_recovery import LedgerMemory
from controller.storage.vm_report_store import VmReportWriter, vm_report_blob_name
from controller.vm_side.closing_side import ClosingSide
from controller.vm_side.ledger_follower import LedgerFollower
from controller.vm_side.machine import LocalMachine
from controller.vm_side.report_sender import ReportSender
from controller.vm_side.service_ports import ServicePorts


def assemble_closing(
    context: AgentContext,
    blob: StateBlob,
    *,
    owner: BlobOwner,
    watcher: EventWatcher,
    memory: LedgerMemory,
    election: LeaderElection | None,
    begins: Callable[[], bool],
) -> ClosingSide | None:
    """Return the closing side of an agent; None if `close` is off, and for a dry run.

    Args:
        context: what the parts are built from.
        blob: the blob of the ledger.
        owner: the set whose ledger it has to be.
        watcher: the event document and the clock.
        memory: what this agent has written as leader.
        election: None for a dry run.
        begins: returns whether a leader still has to open the ledger.
    """
    settings, vm = context.settings, context.identity.vm
    if election is None or not settings.policy.close:
        return None
    ports = ServicePorts(
        context.azure.network,
        pool_ids=tuple(context.configuration.policy.pools),
        configured=settings.drain.service_ports,
    )
    report_blob = context.azure.state_blob(vm_report_blob_name(blob.name, vm))
    return ClosingSide(
        vm=vm,
        peers=context.identity.vms,
        configuration=context.configuration,
        machine=context.machine or LocalMachine(settings),
        follower=LedgerFollower(
            blob,
            owner=owner,
            memory=memory,
            leads=lambda: election.leading and not begins(),
            clock=watcher.clock,
        ),
        sender=ReportSender(VmReportWriter(report_blob)),
        document=lambda: watcher.document,
        document_age_s=watcher.age_s,
        seen=watcher.seen_events.known,
        clock=watcher.clock,
        service_ports=ports,
    )
