"""Whether the leader knows an event that the document of another agent shows.

All VMs of an availability set have one event document (Microsoft docs, Scheduled Events). Whether
the instances of a flexible scale set have one is not documented; per placement group they do. So no
agent of a scale set relies on it: a VM is covered by the leader only as far as the leader records
what the agent of that VM sees. An event that it does not record is forwarded by that agent, and
reported if that does not help: no other agent can know it.

Pure: standard library only, no I/O, no clock.
"""

from controller.core.azure_names import fold
from controller.core.events import EventDocument, ScheduledEvent
from controller.core.ledger import Ledger
from controller.core.policy import Policy


def unrecorded(
    document: EventDocument, ledger: Ledger, policy: Policy
) -> tuple[ScheduledEvent, ...]:
    """Return the impacting events of a document that a ledger knows nothing of."""
    known = {fold(event.event_id) for event in ledger.events}
    known |= {fold(verdict.event_id) for verdict in ledger.verdicts}
    known |= {fold(each.event_id) for entry in ledger.entries for each in entry.events}
    return tuple(
        event
        for event in document.events
        if policy.impacting(event) and fold(event.event_id) not in known
    )
