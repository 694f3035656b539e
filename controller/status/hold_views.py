"""The holds as every view shows them: with what follows from each.

Pure: no I/O, no clock.
"""

from collections.abc import Iterable

from controller.core.ledger import Hold, Ledger
from controller.core.vm_phase import rotation_of
from controller.status.hold_advice import advice
from controller.status.overview_schema import HoldView
from controller.status.recorded_events import recorded_events
from controller.status.snapshot import AgentSnapshot
from controller.status.state_json import hold_json


def holds_json(snapshot: AgentSnapshot, holds: Iterable[Hold]) -> list[HoldView]:
    """Return holds, judged by the events that this agent knows to be present."""
    events = [each.event for each in snapshot.seen_events if not each.gone]
    out = snapshot.health.rotation.out
    return [hold_json(hold, advice(hold, events, out)) for hold in holds]


def recorded_holds_json(ledger: Ledger) -> list[HoldView]:
    """Return the holds of a ledger, judged by the events that it records."""
    events = [each.event for each in recorded_events(ledger) if not each.gone]
    out = rotation_of(ledger, None).out
    return [hold_json(hold, advice(hold, events, out)) for hold in ledger.holds]
