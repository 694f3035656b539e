"""What became of one VM in one event, step by step, for a person to read. Decides nothing.

A request made by hand is shown like an event, of the type `Request`, which Azure neither announces
nor starts.

Two sources, because neither knows all: the ledger's transitions tell what was done (they survive a
failover), the event documents that this agent read tell what Azure did. An agent started in the
middle has not read the earlier documents; what it did not see has no time.

Pure: no I/O, no clock.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, get_args

from controller.core.actions import Phase, VmPhase
from controller.core.ledger import Entry, Ledger, Transition
from controller.core.model import REQUEST, EventDocument, EventStatus, ScheduledEvent, fold

StepName = Literal["announced", "draining", "out", "acknowledged", "started", "gone", "restored"]
StepState = Literal["done", "pending", "skipped"]
STEPS: tuple[StepName, ...] = get_args(StepName)
STEPS_BY_HAND: tuple[StepName, ...] = ("draining", "out", "restored")

SEEN_LATER: tuple[StepName, ...] = ("started", "gone")
"""Steps that Azure takes before a VM is restored; their times come from documents."""
GONE_SHOWN = timedelta(minutes=15)
"""How long an event is shown that has left the document and keeps no VM out any more."""
MOST_SIGHTINGS = 50
_ENDS = frozenset({"in service", "forgotten"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step; `at` is None when it has not happened, or nobody here saw when."""

    name: StepName
    state: StepState
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """An event as this agent last read it, and since when it looked so."""

    event: ScheduledEvent
    first_seen_at: datetime | None
    """None when only the ledger tells of it."""
    absent_at: datetime | None = None
    """When the newest document before was read, which lacked it; None if there was none."""
    started_at: datetime | None = None
    gone: bool = False
    gone_at: datetime | None = None


class Sightings:
    """Remembers which events were in the documents read, and when they came and went.

    In memory and bounded: whoever leads next has read the same documents.
    """

    def __init__(self) -> None:
        self._known: dict[str, Sighting] = {}
        self._read_at: datetime | None = None

    def saw(self, document: EventDocument, now: datetime) -> None:
        """Note one good document. An event that comes back was not gone."""
        present = {fold(event.event_id): event for event in document.events}
        for key, event in present.items():
            new = Sighting(event=event, first_seen_at=now, absent_at=self._read_at)
            known = self._known.pop(key, new)
            started = event.status is EventStatus.STARTED
            # NotBefore is empty once an event has started; what it was is worth keeping.
            kept = replace(event, not_before=event.not_before or known.event.not_before)
            self._known[key] = replace(
                known,
                event=kept,
                started_at=known.started_at or (now if started else None),
                gone=False,
                gone_at=None,
            )
        for key, known in self._known.items():
            if key not in present and not known.gone:
                self._known[key] = replace(known, gone=True, gone_at=now)
        over = len(self._known) - MOST_SIGHTINGS
        for key in [key for key in self._known if key not in present][: max(0, over)]:
            del self._known[key]
        self._read_at = now

    def started(self) -> dict[str, datetime]:
        """Return since when events have been seen started, by their folded ids."""
        return {key: each.started_at for key, each in self._known.items() if each.started_at}

    def known(self) -> tuple[Sighting, ...]:
        """Return every event that is remembered; what the newest document names comes last."""
        return tuple(self._known.values())


def unseen(ledger: Ledger, seen: Iterable[Sighting], *, gone: bool) -> tuple[Sighting, ...]:
    """Return what keeps a VM out and what this agent has never read of: events, and requests.

    Events are `gone` if it has read a document at all: it was started after they came and went.
    """
    known = {fold(sighting.event.event_id) for sighting in seen}
    found: dict[str, Sighting] = {}
    for entry in ledger.entries:
        for reference in entry.events:
            key = fold(reference.event_id)
            if key in known:
                continue
            others = found[key].event.resources if key in found else ()
            event = ScheduledEvent(
                event_id=reference.event_id,
                event_type=reference.event_type,
                status=EventStatus.UNKNOWN,
                resources=(*others, entry.vm),
                not_before=reference.not_before,
            )
            over = gone and event.event_type != REQUEST
            found[key] = Sighting(event=event, first_seen_at=None, gone=over)
    return tuple(found.values())


def asked(ledger: Ledger, vm: str, request_id: str) -> str:
    """Return who asked for a VM by hand, and why; empty where the journal lost it."""
    entry = ledger.entry(vm)
    requests = [
        fold(reference.event_id)
        for reference in (entry.events if entry else ())
        if reference.event_type == REQUEST
    ]
    outings = tuple(_outings(vm, ledger.transitions))
    said = [line.detail for line in (outings[-1] if outings else ()) if line.what == "requested"]
    # One line for each request, in the same order; the journal forgets the oldest.
    newest_first = dict(zip(reversed(requests), reversed(said), strict=False))
    return newest_first.get(fold(request_id), "")


def phase_by(ledger: Ledger, vm: str) -> VmPhase | None:
    """Return where a VM is, as far as the ledger tells; None where only the leader knows."""
    for hold in ledger.holds:
        if fold(hold.subject) == fold(vm):
            return VmPhase(vm=vm, phase=Phase.HELD, why=hold.message)
    entry = ledger.entry(vm)
    if entry is None:
        return None
    if entry.restored_at is not None or entry.restoring_at is not None:
        phase = Phase.RESTORING
    elif entry.out_at is None:
        phase = Phase.DRAINING
    elif any(event.acknowledged_at is not None for event in entry.events):
        phase = Phase.ACKNOWLEDGED
    else:
        phase = Phase.OUT
    return VmPhase(vm=vm, phase=phase)


def worth_showing(sighting: Sighting, ledger: Ledger, now: datetime) -> bool:
    """Tell whether an event still means something to whoever looks."""
    if not sighting.gone or (sighting.gone_at and now - sighting.gone_at <= GONE_SHOWN):
        return True
    return any(ledger.entry(vm) is not None for vm in sighting.event.resources)


def cancelled(sighting: Sighting, ledger: Ledger) -> bool:
    """Tell whether an event left the document before it could begin.

    One that was acknowledged can have begun and ended between two polls.
    """
    event, key = sighting.event, fold(sighting.event.event_id)
    if sighting.gone_at is None or sighting.started_at is not None:
        return False
    if event.status is not EventStatus.SCHEDULED or event.not_before is None:
        return False
    noted = {fold(line.detail) for line in ledger.transitions if line.what == "acknowledged"}
    noted |= {
        fold(reference.event_id)
        for entry in ledger.entries
        for reference in entry.events
        if reference.acknowledged_at is not None
    }
    return sighting.gone_at < event.not_before and key not in noted


def steps(sighting: Sighting, vm: str, ledger: Ledger) -> tuple[Step, ...]:
    """Return the seven steps of one VM through one event, in the order in which they belong.

    Out by hand it takes three.
    """
    entry = ledger.entry(vm)
    outing = _outing(sighting, vm, entry, ledger.transitions)
    times: dict[StepName, datetime | None] = {
        "announced": sighting.first_seen_at,
        "draining": next((line.at for line in outing if line.what == "recorded"), None),
        "out": _last(outing, "out"),
        "acknowledged": _last(outing, "acknowledged", sighting.event.event_id),
        "started": sighting.started_at,
        "gone": sighting.gone_at,
        "restored": _last(outing, "restored"),
    }
    if entry is not None and _because_of(entry, sighting):
        # The journal is bounded, the entry is not forgotten while the VM is out.
        acknowledged = (
            reference.acknowledged_at
            for reference in entry.events
            if fold(reference.event_id) == fold(sighting.event.event_id)
        )
        times["draining"] = times["draining"] or entry.recorded_at
        times["out"] = times["out"] or entry.out_at
        times["acknowledged"] = times["acknowledged"] or next(acknowledged, None)
    _drop_what_was_read_late(times, sighting)
    over = bool(outing) and outing[-1].what in _ENDS
    gone, started = sighting.gone, sighting.started_at is not None
    happened: dict[StepName, bool] = {"announced": True, "started": started, "gone": gone}
    passed: dict[StepName, bool] = {
        "draining": gone,
        "out": gone,
        "acknowledged": started or gone,  # an event that has started is not acknowledged any more
        "started": gone,
        "restored": over or (gone and times["draining"] is None),
    }

    def state(name: StepName) -> StepState:
        if times[name] is not None or happened.get(name, False):
            return "done"
        return "skipped" if passed.get(name, False) else "pending"

    names = STEPS_BY_HAND if sighting.event.event_type == REQUEST else STEPS
    return tuple(Step(name=name, state=state(name), at=times[name]) for name in names)


def _drop_what_was_read_late(times: dict[StepName, datetime | None], sighting: Sighting) -> None:
    """Take away the time of what this agent read only after the leader had acted on it.

    A standby reads seldom. It knows that something happened, not when.
    """
    seen_at, absent_at, restored_at = times["announced"], sighting.absent_at, times["restored"]
    acted = [at for at in (times["draining"], times["out"], times["acknowledged"]) if at]
    # What the leader did while the event was not announced yet it did because of another.
    acted = [at for at in acted if absent_at is None or at > absent_at]
    if seen_at and acted and min(acted) < seen_at:
        times["announced"] = None
    for name in SEEN_LATER:
        at = times[name]
        if at and restored_at and restored_at < at:
            times[name] = None


def _because_of(entry: Entry, sighting: Sighting) -> bool:
    wanted = fold(sighting.event.event_id)
    return any(fold(reference.event_id) == wanted for reference in entry.events)


def _outing(
    sighting: Sighting, vm: str, entry: Entry | None, transitions: Iterable[Transition]
) -> tuple[Transition, ...]:
    """Return the transitions from taking the VM out to having it back, the time of this event.

    The event's own outing is the one that acknowledged it, or that is under way because of it, or
    that came after it was announced and began before it was gone.
    """
    outings = list(_outings(vm, transitions))
    for outing in reversed(outings):
        if _last(outing, "acknowledged", sighting.event.event_id) is not None:
            return outing
    if entry is not None and _because_of(entry, sighting):
        return outings[-1] if outings else ()
    for outing in reversed(outings):
        since = sighting.first_seen_at
        ended = outing[-1].what in _ENDS and since is not None and outing[-1].at < since
        began_later = sighting.gone_at is not None and outing[0].at > sighting.gone_at
        if not ended and not began_later:
            return outing
    return ()


def _outings(vm: str, transitions: Iterable[Transition]) -> Iterator[tuple[Transition, ...]]:
    lines: list[Transition] = []
    for line in transitions:
        if fold(line.vm) != fold(vm) or line.what == "leads":
            continue
        lines.append(line)
        if line.what in _ENDS:
            yield tuple(lines)
            lines = []
    if lines:
        yield tuple(lines)


def _last(outing: Iterable[Transition], what: str, detail: str = "") -> datetime | None:
    found = [
        line.at
        for line in outing
        if line.what == what and (not detail or fold(line.detail) == fold(detail))
    ]
    return found[-1] if found else None
