"""Which drain requests keep a VM out in this pass: those that were read, and those that were lost.

A request that shows agents an event does not count: that event is in the document.

A blob that was deleted, emptied or restored from a backup withdraws nothing: what the ledger
records stays in force until its own end.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from controller.core.azure_names import fold
from controller.core.blob_limits import MAX_REQUESTS_FOR_VM
from controller.core.drain_requests import DRAIN_REQUEST, DrainRequest
from controller.core.ledger import Entry, EventReference

UNDATED_REQUEST = timedelta(days=1)
"""How long a request without a recorded end is in force, from its entry on, while no read shows it:
ledgers before minor 2 do not record the end."""
LONGEST_UNSEEN = timedelta(days=30)
"""No longer than this, from its entry on, is any request in force that no read shows: another
writer can put any end into the ledger. A command asks for 7 days at most."""


def recorded_end(entry: Entry, reference: EventReference) -> datetime:
    """Return when a request of the ledger ends, as far as the ledger records it."""
    latest = entry.recorded_at + LONGEST_UNSEEN
    return min(reference.until or entry.recorded_at + UNDATED_REQUEST, latest)


def why_over(entry: Entry, requests: Iterable[DrainRequest]) -> str:
    """Return how the requests ended because of which a VM was out; empty if there were none."""
    asked = {fold(each.event_id) for each in entry.events}
    ends = [
        f"withdrawn by {request.ended_by}" if request.ended_at else "the request is over"
        for request in requests
        if fold(request.request_id) in asked
    ]
    return ", ".join(dict.fromkeys(ends))


class RequestsInForce:
    """The drain requests of one pass, by VM.

    Args:
        requests: as they were read; None while they are not known.
        now: wall clock, corrected.
    """

    def __init__(self, requests: Iterable[DrainRequest] | None, now: datetime) -> None:
        self._known, self._now = requests is not None, now
        self._shown: set[str] = set()
        self._by_vm: dict[str, list[DrainRequest]] = {}
        for request in requests or ():
            self._shown.add(fold(request.request_id))
            if request.is_active(now) and request.event is None:
                self._by_vm.setdefault(fold(request.vm), []).append(request)

    def of(self, vm: str) -> tuple[DrainRequest, ...]:
        """Return the requests for a VM that were read and have not ended.

        Of very many, those that end last are enough: they keep the VM out as long as all do.
        """
        found = self._by_vm.get(fold(vm), [])
        if len(found) > MAX_REQUESTS_FOR_VM:
            found = sorted(found, key=lambda request: request.until)[-MAX_REQUESTS_FOR_VM:]
        return tuple(found)

    def lost(self, entry: Entry | None) -> tuple[EventReference, ...]:
        """Return the requests of an entry that are in force although no read shows them.

        A restore that has begun since the record was decided on a read that showed the end.
        """
        if entry is None or not self._known:
            return ()
        if entry.restoring or entry.restored_at is not None:
            return ()
        return tuple(
            each
            for each in entry.events
            if each.event_type == DRAIN_REQUEST
            and fold(each.event_id) not in self._shown
            and self._now < recorded_end(entry, each)
        )
