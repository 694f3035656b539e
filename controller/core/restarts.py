"""When an event restarts a VM: what its agent reported before is no evidence afterwards.

A report that a VM is closed is that of one boot. The VM starts again with its application open, and
its agent may need a while to close it. Every event but a Freeze restarts the VM, or ends it
(Scheduled Events, event types); so may a type that Azure does not document yet.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from controller.core.azure_names import fold
from controller.core.drain_history import Step
from controller.core.event_record import EventVerdict, Verdict, WatchedEvent, event_label
from controller.core.events import EventDocument, EventStatus, ScheduledEvent
from controller.core.ledger import CLOCK_SKEW, Ledger
from controller.core.rehearsals import is_test

KEEPS_RUNNING = "freeze"
DELETES = "terminate"
"""The VM does not start again. After a Preempt it can: Azure may only deallocate a Spot VM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """A VM restarts between two instants, or is deleted."""

    event_id: str
    began_at: datetime
    over_at: datetime | None = None
    """When the event was known to be over; None while it is in the event document."""
    deletes: bool = False
    """The VM does not start again: it does not open. Another VM can get its name."""


def restarts_by_vm(
    ledger: Ledger, document: EventDocument | None, now: datetime
) -> dict[str, tuple[Restart, ...]]:
    """Return the restarts that are known, by the folded name of the VM."""
    found: dict[str, list[Restart]] = {}
    for vm, restart in (
        *_started(document, now),
        *_watched(ledger.events, now),
        *_judged(ledger, now),
    ):
        found.setdefault(fold(vm), []).append(restart)
    return {vm: tuple(restarts) for vm, restarts in found.items()}


def _started(document: EventDocument | None, now: datetime) -> Iterator[tuple[str, Restart]]:
    for event in document.events if document else ():
        if event.status is EventStatus.STARTED and _restarts(event):
            restart = _restart(event, now)
            yield from ((vm, restart) for vm in event.resources)


def _restart(
    event: ScheduledEvent | WatchedEvent | EventVerdict,
    began_at: datetime,
    over_at: datetime | None = None,
) -> Restart:
    return Restart(
        event_id=event.event_id,
        began_at=began_at,
        over_at=over_at,
        deletes=fold(event.event_type) == DELETES,
    )


def _restarts(event: ScheduledEvent | WatchedEvent | EventVerdict) -> bool:
    return fold(event.event_type) != KEEPS_RUNNING and not is_test(event.event_id)


def _watched(events: Iterable[WatchedEvent], now: datetime) -> Iterator[tuple[str, Restart]]:
    for event in events:
        began_at = event.begins_at
        if _restarts(event) and began_at is not None and began_at <= (event.gone_at or now):
            restart = _restart(event, began_at, event.gone_at)
            yield from ((vm.vm, restart) for vm in event.vms)


def _ended_at(ledger: Ledger, now: datetime) -> dict[str, datetime]:
    """Return when events ended, by their labels. If the clock was ahead, by the next line."""
    found: dict[str, datetime] = {}
    later: datetime | None = None
    for line in reversed(ledger.transitions):
        later = line.at if line.at <= now + CLOCK_SKEW else later
        if line.step == Step.COMPLETED:
            found.setdefault(line.detail, later or line.at)
    return found


def _judged(ledger: Ledger, now: datetime) -> Iterator[tuple[str, Restart]]:
    """Yield the restarts that verdicts state. A verdict can be given while its event goes on."""
    ended_at = _ended_at(ledger, now)
    for verdict in ledger.verdicts:
        began_at = verdict.started_at or verdict.not_before
        if (
            _restarts(verdict)
            and verdict.verdict != Verdict.CANCELLED
            and began_at is not None
            and began_at <= verdict.at
        ):
            over_at = max(verdict.at, ended_at.get(event_label(verdict), verdict.at))
            yield verdict.vm, _restart(verdict, began_at, over_at)


def outlasts(restarts: Iterable[Restart], reported_at: datetime) -> bool:
    """Return whether what a VM reported still holds: no restart since then, none under way."""
    return all(each.over_at is not None and each.over_at < reported_at for each in restarts)


def interrupted(
    restarts: Iterable[Restart],
    since: datetime,
    until: datetime | None = None,
    *,
    besides: str = "",
) -> bool:
    """Return whether an event restarted a VM between two instants: it may have opened.

    Args:
        restarts: the restarts of the VM.
        since: the first instant.
        until: the second one; None for now.
        besides: the id of an event that does not count.
    """
    return any(
        not each.deletes
        and fold(each.event_id) != fold(besides)
        and (each.over_at is None or each.over_at > since)
        and (until is None or each.began_at < until)
        for each in restarts
    )
