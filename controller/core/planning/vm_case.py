"""One VM in one pass: what affects it, and where it is.

Pure: standard library only, no I/O, no clock.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from controller.core.azure_names import fold
from controller.core.drain_requests import DRAIN_REQUEST, DrainRequest
from controller.core.events import EventStatus, ScheduledEvent
from controller.core.ledger import Entry, EventReference
from controller.core.planning.requests_in_force import recorded_end
from controller.core.resources import Membership, Vm

RECORD_END_AHEAD_S = 60.0
"""How long before the recorded end of a request a later end is recorded, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmCase:
    """One VM in this pass: what affects it and where it is."""

    vm: Vm
    entry: Entry | None
    events: tuple[ScheduledEvent, ...]
    """Impacting events of the document that name this VM."""
    due: tuple[ScheduledEvent, ...]
    """Those events whose drain time has come, or because of which the VM is recorded."""
    pending: tuple[ScheduledEvent, ...] = ()
    """Those events before which a VM that is out does not return (law S6)."""
    inside: tuple[Membership, ...]
    """Managed memberships in which the VM is in rotation now, by the newest views."""
    requests: tuple[DrainRequest, ...] = ()
    """The drain requests that want the VM out."""
    lost_requests: tuple[EventReference, ...] = ()
    """Requests that the ledger records and no read shows: in force until their own end."""
    threatened: bool = False
    """An event that cannot be read names this VM."""
    now: datetime
    wakes: tuple[datetime, ...] = ()
    """When time alone changes this case: an event becomes due, or the request ends."""

    @property
    def must_leave(self) -> bool:
        """An event or a request wants the VM out now."""
        return bool(self.due) or self.is_requested

    @property
    def is_requested(self) -> bool:
        """A drain request wants the VM out now."""
        return bool(self.requests) or bool(self.lost_requests)

    @property
    def forced(self) -> DrainRequest | None:
        """The request for which law S2 is suspended for this VM; None without one."""
        return next((request for request in self.requests if request.forced), None)

    @property
    def requested_until(self) -> datetime | None:
        """When the last request ends that wants the VM out; None without one."""
        ends = [request.until for request in self.requests]
        if self.entry is not None:
            ends += [recorded_end(self.entry, each) for each in self.lost_requests]
        return max(ends, default=None)

    @property
    def has_unknown_status(self) -> bool:
        """Some event that names this VM has a status that Azure does not document."""
        return any(event.status is EventStatus.UNKNOWN for event in self.events)

    @property
    def started(self) -> bool:
        """Some event has started."""
        return any(event.status is EventStatus.STARTED for event in self.events)

    @property
    def recorded(self) -> bool:
        """By the ledger, the VM is out because of us or is about to be."""
        return self.entry is not None and not self.entry.over

    @property
    def deadline(self) -> datetime | None:
        """Earliest NotBefore; None when an event has started or has no NotBefore."""
        instants = [event.not_before for event in self.due]
        known = [instant for instant in instants if instant is not None]
        return None if len(known) < len(instants) else min(known, default=None)

    def references(self, entry: Entry | None) -> tuple[EventReference, ...]:
        """Return an entry's references, with all events and requests that want the VM out, once.

        An event that is not due yet is no reason why the VM is out.
        """
        known = {fold(each.event_id): each for each in entry.events} if entry else {}
        found = [
            EventReference(
                event_id=event.event_id, event_type=event.event_type, not_before=event.not_before
            )
            for event in self.due
        ]
        for request in self.requests:
            key, until = fold(request.request_id), request.until
            before = known.get(key)
            if before is not None and self.records_end(request, before):
                known[key] = replace(before, until=until)
            found.append(
                EventReference(event_id=request.request_id, event_type=DRAIN_REQUEST, until=until)
            )
        for reference in found:
            known.setdefault(fold(reference.event_id), reference)
        return tuple(known.values())

    def records_end(self, request: DrainRequest, recorded: EventReference) -> bool:
        """Return whether the ledger needs a later end of a request.

        A rolling run extends its request every few seconds. The ledger follows when the recorded
        end is near, so that it changes rarely (law H1).
        """
        if recorded.until is None:
            return True
        near = self.now + timedelta(seconds=RECORD_END_AHEAD_S)
        return recorded.until < near and recorded.until < request.until


def is_manual(entry: Entry) -> bool:
    """Return whether a VM is out, perhaps among other reasons, because of a drain request."""
    return any(reference.event_type == DRAIN_REQUEST for reference in entry.events)


def unreadable_vm(vm: Vm) -> str:
    """Return the hold message for a VM whose description cannot be used."""
    return (
        f"Azure does not describe {vm.name} in full, "
        f"so no event for it is acknowledged: {vm.problem}"
    )
