"""The holds as every view shows them: with what follows from each.

Pure: no I/O, no clock.
"""

from collections.abc import Iterable

from controller.core.azure_names import fold
from controller.core.ledger import Hold, Ledger
from controller.core.vm_phase import rotation_of
from controller.status.hold_advice import advice
from controller.status.overview_schema import HoldView
from controller.status.recorded_events import recorded_document
from controller.status.snapshot import AgentSnapshot
from controller.status.state_json import hold_json


def holds_json(snapshot: AgentSnapshot, holds: Iterable[Hold]) -> list[HoldView]:
    """Return holds, judged by the events that require a drain and are known to be present."""
    recorded = snapshot.ledger.events if snapshot.ledger else ()
    # A command knows events from the ledger, which does not have their duration.
    ignored = {fold(each.event_id) for each in recorded if each.ignored}
    present = (each.event for each in snapshot.seen_events if not each.gone)
    events = [
        event
        for event in present
        if snapshot.policy.impacting(event)
        and not (event.duration_s < 0 and fold(event.event_id) in ignored)
    ]
    out = snapshot.health.rotation.out
    return [hold_json(hold, advice(hold, events, out)) for hold in holds]


def recorded_holds_json(ledger: Ledger) -> list[HoldView]:
    """Return the holds of a ledger, judged by the events that it records."""
    events = recorded_document(ledger).events
    out = rotation_of(ledger, None).out
    return [hold_json(hold, advice(hold, events, out)) for hold in ledger.holds]
