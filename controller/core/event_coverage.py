"""Whether the leader knows an event that the document of another agent shows.

All VMs of an availability set have one event document (Microsoft docs, Scheduled Events). Whether
the instances of a flexible scale set have one is not documented; per placement group they do. So no
agent of a scale set relies on it: a VM is covered by the leader only as far as the leader records
what the agent of that VM sees. An event that it does not record is forwarded by that agent, and
reported if that does not help: no other agent can know it.

Pure: standard library only, no I/O, no clock.
"""

from dataclasses import replace

from controller.core.azure_names import fold
from controller.core.events import EventDocument, ScheduledEvent
from controller.core.ledger import Ledger
from controller.core.policy import Policy


def unrecorded(
    document: EventDocument, ledger: Ledger, policy: Policy
) -> tuple[ScheduledEvent, ...]:
    """Return the impacting events of a document, with the VMs for which a ledger lacks them."""
    known = {(fold(e.event_id), fold(each.vm)) for e in ledger.events for each in e.vms}
    known |= {(fold(verdict.event_id), fold(verdict.vm)) for verdict in ledger.verdicts}
    known |= {(fold(e.event_id), fold(entry.vm)) for entry in ledger.entries for e in entry.events}
    found: list[ScheduledEvent] = []
    for event in document.events:
        key = fold(event.event_id)
        lacking = tuple(vm for vm in event.resources if (key, fold(vm)) not in known)
        if lacking and policy.impacting(event):
            found.append(replace(event, resources=lacking))
    return tuple(found)
