"""Which drain requests for a VM `lb-drain restore` withdraws, and how a request is described."""

from collections.abc import Callable
from dataclasses import dataclass

from controller.core.azure_names import fold
from controller.core.drain_requests import DRAIN_REQUEST, DrainRequest
from controller.core.ledger import EventReference, Ledger
from controller.core.planning.requests_in_force import recorded_end
from controller.errors import NotDone


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """What becomes of the drain requests for a VM."""

    withdrawn: tuple[DrainRequest, ...] = ()
    standing: tuple[DrainRequest, ...] = ()
    """Requests that still keep the VM out of rotation."""
    events: tuple[EventReference, ...] = ()
    """Events that keep the VM out of rotation, as the ledger records."""


def choose(
    vm: str,
    active: tuple[DrainRequest, ...],
    *,
    events: tuple[EventReference, ...] = (),
    requester: str,
    request_id: str,
    of_everyone: bool,
    command: Callable[..., str],
) -> Withdrawal:
    """Return which of the active requests for a VM are withdrawn, and which stay.

    The only request is withdrawn, also one of another operator. Of several, those of the
    requester are.

    Args:
        events: the events that keep the VM out of rotation.
        requester: who withdraws.
        request_id: only the request with this id; empty for no choice.
        of_everyone: withdraw all.
        command: returns the command line for the same set from its words.

    Raises:
        NotDone: it is not clear which request is meant.
    """
    if request_id:
        chosen = [each for each in active if fold(each.request_id) == fold(request_id)]
    elif of_everyone or len(active) == 1:
        chosen = list(active)
    else:
        chosen = [each for each in active if each.by == requester]
    if active and not chosen:
        what = f"no request with the id {request_id}" if request_id else "no request of yours"
        raise NotDone(
            f"{vm} has {what}; requests in force:{listed(active)}\n"
            f"To end one: {command('restore', vm, '--id', 'ID')}. "
            f"To end all: {command('restore', vm, '--all')}"
        )
    standing = tuple(each for each in active if each not in chosen)
    return Withdrawal(withdrawn=tuple(chosen), standing=standing, events=events)


def describe(request: DrainRequest) -> str:
    """Return one line about a request: who, why, until when, and its id."""
    by = request.by or "an operator, as the ledger records"
    reason = f" ({request.reason})" if request.reason else ""
    until = f"{request.until:%Y-%m-%d %H:%M:%S} UTC"
    forced = ", --force" if request.forced else ""
    return f"by {by}{reason}{forced}, until {until}, id {request.request_id}"


def listed(requests: tuple[DrainRequest, ...]) -> str:
    """Return one indented line per request, each after a line break."""
    return "".join(f"\n  {describe(each)}" for each in requests)


def recorded_events(ledger: Ledger, vm: str) -> tuple[EventReference, ...]:
    """Return the events that keep a VM out of rotation, as the ledger records them."""
    entry = ledger.entry(vm)
    if entry is None or entry.over or entry.restoring_at is not None:
        return ()
    return tuple(each for each in entry.events if each.event_type != DRAIN_REQUEST)


def recorded_requests(ledger: Ledger, vm: str) -> tuple[DrainRequest, ...]:
    """Return the requests for a VM that the ledger records, also if the blob has lost them."""
    entry = ledger.entry(vm)
    if entry is None or entry.restoring_at is not None:
        return ()
    return tuple(
        DrainRequest(
            request_id=each.event_id,
            vm=entry.vm,
            reason="",
            by="",
            at=entry.recorded_at,
            until=recorded_end(entry, each),
        )
        for each in entry.events
        if each.event_type == DRAIN_REQUEST
    )
