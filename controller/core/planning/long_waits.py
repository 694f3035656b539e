"""Waits that Azure asks for and that are long, or longer than what is due allows.

A refused request is not repeated before Azure allows it. Where another way exists, it is tried;
where none does, the operator has to know before the deadline passes.

Pure: standard library only, no I/O, no clock.
"""

from datetime import datetime, timedelta

from controller.core.events import EventStatus
from controller.core.observation import Deferral
from controller.core.planning.evidence import Evidence

LONG_WAIT_S = 60.0
"""A wait that Azure asks for and that lasts longer is reported, also without a deadline."""


def next_deadline(evidence: Evidence) -> datetime | None:
    """Return the earliest NotBefore of a due event with a VM that is not out; None without one."""
    document, policy = evidence.observed.document, evidence.policy
    instants: list[datetime] = []
    for event in document.events if document else ():
        if event.status is not EventStatus.SCHEDULED or not policy.is_due(event, evidence.now):
            continue
        entries = [evidence.views.entry(name) for name in event.resources]
        if event.not_before and any(entry is None or entry.out_at is None for entry in entries):
            instants.append(event.not_before)
    return min(instants, default=None)


def why_waiting(deferral: Deferral, deadline: datetime | None, now: datetime) -> str:
    """Return what an operator has to know of a wait; empty if it is short and not asked for."""
    late = deadline is not None and deferral.until > deadline
    long = deferral.until > now + timedelta(seconds=LONG_WAIT_S)
    if not deferral.asked or not (late or long):
        return ""
    limit = f"; NotBefore is {deadline:%H:%M:%S} UTC" if late else ""
    return f"Azure asks to wait until {deferral.until:%H:%M:%S} UTC{limit}: {deferral.what}"
