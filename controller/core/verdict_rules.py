"""When a verdict is final, which it is, and why: the rules behind `verdicts`.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from controller.core.azure_names import fold
from controller.core.drain_history import Step, Transition, episodes
from controller.core.event_progress import SeenEvent
from controller.core.event_record import (
    MAX_VERDICTS,
    EventVerdict,
    Place,
    Verdict,
    WatchedEvent,
    WatchedVm,
)
from controller.core.events import EventStatus, ScheduledEvent, may_be_same
from controller.core.ledger import Entry, Hold
from controller.core.planning.actions import HoldReason
from controller.core.restarts import Restart, interrupted

MISSED_WITHIN_S = 6 * 3600.0
"""An event that is gone for longer than this, and that no leader watched, gets no verdict."""
CONFIRM_S = 30.0
"""How long a VM has to stay out after the start of its event before its verdict is final."""
PLACE_KNOWN_S = 600.0
"""How long after the end of an event its verdict waits until the place of the VM is known."""
BACK = frozenset({Step.RESTORED, Step.PUT_BACK})
"""The steps that show a VM in its pools again."""
NO_LEADER = "no agent led when it began"
NO_NOTICE = "it began without notice"
START_NOT_READ = "it began while the leader did not read the document"
NOT_IN_TIME = "its removal had not ended"
NOT_NAMED = "it began before the leader knew that it affects this VM"
NOT_KNOWN = "whether it was in rotation could not be read"


def is_withdrawn(verdict: EventVerdict, returned: Iterable[ScheduledEvent]) -> bool:
    """Return whether a verdict is about an event that has returned, and so was not gone.

    An event that returns for other VMs only may be over for this one.
    """
    return any(each.affects(verdict.vm) and may_be_same(each, verdict) for each in returned)


def unjudged(event: ScheduledEvent, verdicts: Iterable[EventVerdict]) -> ScheduledEvent:
    """Return a forwarded event without the VMs whose verdict states that it began; others as is.

    What an agent forwarded outlives the event if the agent ended with its VM. A leader whose own
    documents never showed the event has nothing newer; the leader that gave the verdict had.
    """
    if not event.forwarded:
        return event
    judged = {
        fold(each.vm)
        for each in verdicts
        if each.started_at is not None and may_be_same(each, event)
    }
    return replace(event, resources=tuple(n for n in event.resources if fold(n) not in judged))


def named_now(
    event: WatchedEvent, present: ScheduledEvent | None, room: int, now: datetime
) -> tuple[WatchedVm, ...]:
    """Return the VMs that a watched event names only now; none if they are too many.

    Args:
        event: as it is watched.
        present: as the newest document shows it; None if it does not.
        room: how many more VMs can be watched.
        now: wall clock, corrected.
    """
    if present is None:
        return ()
    known = {fold(each.vm) for each in event.vms}
    names = {fold(name): name for name in present.resources}
    new = [name for key, name in names.items() if key not in known]
    at = present.not_before or event.begins_at
    begun = present.status is EventStatus.STARTED or event.started_at is not None
    why = NOT_NAMED if begun or (at is not None and at <= now) else ""
    return tuple(WatchedVm(vm=name, why=why) for name in new) if len(new) <= room else ()


def announced_detail(event: WatchedEvent) -> str:
    """Return what the history adds to the announcement of an event."""
    at = event.not_before
    begins = f", not before {at:%Y-%m-%d %H:%M:%S} UTC" if at else ""
    return begins + (f", ignored: {event.ignored}" if event.ignored else "")


def obstacle(vm: str, holds: Iterable[Hold]) -> str:
    """Return what keeps a VM in rotation now, by the holds; empty if nothing does."""
    known = tuple(holds)
    mine = [each for each in known if fold(each.subject) == fold(vm)]
    failing = [each for each in known if fold(vm) in map(fold, each.vms)]
    of_all = [each for each in known if each.reason == HoldReason.INVENTORY_UNREAD.value]
    return next((each.message for each in (*mine, *failing, *of_all)), "")


def may_have_dropped(verdicts: Sequence[EventVerdict], since: datetime) -> bool:
    """Return whether the ledger, which is bounded, may have dropped verdicts of that time.

    Args:
        verdicts: those that it has, oldest first.
        since: when the event was first read that has none.
    """
    return len(verdicts) >= MAX_VERDICTS and verdicts[0].at >= since


def is_over_for(
    vm: WatchedVm, event: WatchedEvent, present: ScheduledEvent | None, entry: Entry | None
) -> bool:
    """Return whether an event is over for a VM; it may go on for other VMs.

    One document that lacks the event does not show for which VMs it was over before. The ledger
    does: a VM that was out returns only after the end of its event (law S6).

    Args:
        vm: the VM as it is watched.
        event: as it is watched.
        present: as the newest document shows it; None if it does not.
        entry: of the VM.
    """
    if event.gone_at is not None:
        return True
    if present is not None:
        return not present.affects(vm.vm)
    if vm.place != Place.OUT:
        return False
    if entry is None or entry.over or entry.restoring_at is not None:
        return True
    return not entry.is_for(event.event_id)


def final(
    event: WatchedEvent, vm: WatchedVm, now: datetime, *, begun: bool, begins: datetime | None
) -> Verdict | None:
    """Return the verdict of an event for a VM; None while it is not final."""
    over = event.gone_at is not None
    if not over and event.started_at is None:
        return None
    if over and not begun:
        return Verdict.CANCELLED
    if event.ignored:
        return Verdict.IGNORED
    if vm.place == Place.UNMANAGED:
        return Verdict.UNMANAGED
    if vm.place == Place.OUT:
        return _final_out(event, vm, now, begins)
    known = vm.place != Place.UNKNOWN or _age_s(event.gone_at, now) >= PLACE_KNOWN_S
    return Verdict.HIT_IN_ROTATION if over and known else None


def _final_out(
    event: WatchedEvent, vm: WatchedVm, now: datetime, begins: datetime | None
) -> Verdict | None:
    """Return the verdict of an event that began, for a VM that is out of rotation."""
    if begins is not None and vm.out_at is not None and vm.out_at > begins:
        return Verdict.LATE
    confirmed = _age_s(event.started_at, now) >= CONFIRM_S
    return Verdict.DRAINED if confirmed or event.gone_at is not None else None


def closed_since(
    event: WatchedEvent,
    entry: Entry,
    restarts: Mapping[str, Iterable[Restart]],
    now: datetime,
) -> datetime | None:
    """Return since when a VM is closed in its pools, and gets nothing new either.

    None once another event has restarted it: it may have opened before this one began.
    """
    begins, since = event.begins_at, entry.closed_at
    until = begins if begins and begins <= now else None
    mine = restarts.get(fold(entry.vm), ())
    broken = since and interrupted(mine, since, until, besides=event.event_id)
    return None if broken else since


def is_missed(seen: SeenEvent, verdicts: Sequence[EventVerdict], now: datetime) -> bool:
    """Return whether an event that is gone was read lately, and has no verdict.

    NotBefore counts too, which comes from Azure: clocks are set back, and those of agents differ.
    """
    first, key = seen.first_seen_at, fold(seen.event.event_id)
    if first is None or not seen.left_within(MISSED_WITHIN_S, now):
        return False
    return not may_have_dropped(verdicts, first) and not any(
        (fold(each.event_id) == key and each.at >= first) or may_be_same(each, seen.event)
        for each in verdicts
    )


def was_out(
    event: WatchedEvent,
    name: str,
    transitions: Iterable[Transition],
    opened_by: Iterable[Restart] = (),
) -> datetime | None:
    """Return since when the history shows a VM out at the time of an event that is over.

    Args:
        event: the event.
        name: of the VM.
        transitions: the history.
        opened_by: the restarts of the VM, if it leaves rotation only by closing: it may have opened
            before this event began.
    """
    begins = event.begins_at
    for episode in episodes(transitions, name) if begins else ():
        out_at = episode.last(Step.OUT)
        if out_at and event.gone_at and out_at <= event.gone_at:
            backs = (x.at for x in episode.lines if x.step in BACK and x.at >= out_at)
            opened = interrupted(opened_by, out_at, begins, besides=event.event_id)
            if begins and not opened and not any(back_at < begins for back_at in backs):
                return out_at
    return None


def may_begin_at(
    event: WatchedEvent, seen: Mapping[str, SeenEvent], acknowledged_at: datetime | None
) -> datetime | None:
    """Return when an event began at the earliest, which can be before it was read as started.

    What an agent acknowledged had not begun before; an earlier leader may have read the start, or
    an event that had not started.

    Args:
        event: the event.
        seen: the events that this agent has read, by their folded ids.
        acknowledged_at: when an agent acknowledged it; None if none did.
    """
    begins = event.begins_at
    if begins is None or event.started_at is None or acknowledged_at is not None:
        return begins
    read = seen.get(fold(event.event_id))
    if read is None or read.started_at is None or event.started_at < read.started_at:
        return begins
    watched = event.watched_at is not None and event.watched_at < event.started_at
    if watched and read.unstarted_at is None:
        return begins
    return min(begins, read.unread_before_start or begins)


def cause(
    event: WatchedEvent, vm: WatchedVm, leads_since: datetime | None, earliest: datetime | None
) -> str:
    """Return why a VM was in rotation when its event began, or may have begun."""
    begins = event.begins_at
    if vm.why:
        return vm.why
    if begins and earliest and earliest < begins:
        return START_NOT_READ
    if event.started_at is not None and event.first_seen_at >= event.started_at:
        return NO_NOTICE
    if begins and any(each and begins < each for each in (leads_since, event.watched_at)):
        return NO_LEADER
    return NOT_KNOWN if vm.place == Place.UNKNOWN else NOT_IN_TIME


def _age_s(since: datetime | None, now: datetime) -> float:
    """Return how many seconds ago something was; before everything if it was not."""
    return (now - since).total_seconds() if since is not None else float("-inf")
