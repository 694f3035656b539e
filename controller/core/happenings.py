"""What people are told: derived on every pass from document, plan and ledger, like the phases.

Level triggered as well: a pass asks what there is to tell now, never what changed, and each
happening has an id that is the same for every agent. Which of them were told is kept in the ledger
(`Told`, a small field in `Ledger.extra`, which agents that know nothing of it carry along). So a
new leader neither repeats what was told nor forgets what was not.

Nothing here decides anything: no write to ARM or IMDS depends on it.

Pure: standard library only, no I/O, no clock.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, cast

from controller.core.actions import Plan, Reason
from controller.core.ledger import Entry, Ledger, Transition
from controller.core.model import EventDocument, EventStatus, Policy, ScheduledEvent, fold
from controller.core.risk import risk

FIELD = "told"
"""Where the ledger keeps what was told."""
MOST_TOLD = 128
"""How many ids are kept beyond those that could be told again."""
MOST_EVENTS = 100
LASTS_S = 10.0
"""A hold, or a write that fails, is told when it lasts: most are over by the next attempt."""
TOO_LONG_S = 3600.0
"""How long a VM may be out; the alert rule says the same."""
SILENT_FAILURES = 3
SILENT_S = 60.0
"""A service is silent after so many failures in a row that lasted so long; as the alert rules."""
FAILURES = frozenset({Reason.WRITE_FAILED.value, Reason.NOT_ACKNOWLEDGED.value})


class Kind(Enum):
    """What can happen. A closed list: operators choose from it, metrics are labelled with it."""

    RECEIVED = "received"
    DRAINED = "drained"
    HELD = "held"
    AT_RISK = "at_risk"
    ACKNOWLEDGED = "acknowledged"
    STARTED = "started"
    RESTORED = "restored"
    CANCELLED = "cancelled"
    FAILED = "failed"
    OUT_TOO_LONG = "out_too_long"
    SILENT = "silent"
    ANSWERS_AGAIN = "answers_again"
    NO_LEADER = "no_leader"
    LEADER_AGAIN = "leader_again"


BAD = frozenset(
    {Kind.HELD, Kind.AT_RISK, Kind.FAILED, Kind.OUT_TOO_LONG, Kind.SILENT, Kind.NO_LEADER}
)
"""What somebody may have to do something about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One thing that happened."""

    kind: Kind
    id: str
    """The same for every agent that derives it, so that receivers can drop a repetition."""
    at: datetime
    text: str
    vm: str = ""
    event_id: str = ""
    event_type: str = ""
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownEvent:
    """An impacting event that is, or was, in the document: to notice that it was cancelled."""

    event_id: str
    event_type: str
    vms: tuple[str, ...]
    not_before: datetime | None
    begun: bool
    """It was acknowledged, has started, or was there at its NotBefore: gone, it is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the ledger says about what was told."""

    ids: tuple[str, ...] = ()
    """Ids of happenings, oldest first."""
    events: tuple[KnownEvent, ...] = ()

    def adding(self, ids: Iterable[str], current: Iterable[Happening]) -> "Told":
        """Return this with more ids. What could be told again is never forgotten."""
        every = tuple(dict.fromkeys((*self.ids, *ids)))
        tellable = {happening.id for happening in current}
        others = [each for each in every if each not in tellable]
        dropped = set(others[:-MOST_TOLD])
        return replace(self, ids=tuple(each for each in every if each not in dropped))


def told_in(ledger: Ledger) -> Told | None:
    """Return what the ledger says was told; None if it says nothing that can be read.

    Then nothing of the past is told: a set that starts to notify does not begin with old stories.
    """
    try:
        return _told_in(ledger.extra[FIELD])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def with_told(ledger: Ledger, told: Told) -> Ledger:
    """Return the ledger with what was told; the same ledger if it says so already."""
    value = _told_out(told)
    if ledger.extra.get(FIELD) == value:
        return ledger
    return replace(ledger, extra={**ledger.extra, FIELD: value})


# --- of the whole set: the leader's to tell ---


def history(ledger: Ledger) -> tuple[Happening, ...]:
    """Return what the ledger's recent transitions and its entries have to tell.

    Of a large set more may happen in one pass than there is room for transitions; entries know.
    """
    lines = (*ledger.transitions, *(line for entry in ledger.entries for line in _lines(entry)))
    entries = {fold(entry.vm): entry for entry in ledger.entries}
    told = (_of_transition(line, entries.get(fold(line.vm))) for line in lines)
    return tuple({each.id: each for each in told if each is not None}.values())


def look(
    known: tuple[KnownEvent, ...],
    *,
    plan: Plan,
    ledger: Ledger,
    document: EventDocument | None,
    clean_documents: tuple[EventDocument, ...],
    policy: Policy,
    now: datetime,
) -> tuple[Happening, ...]:
    """Return everything there is to tell of the set now, told or not."""
    events = [event for event in document.events if policy.impacting(event)] if document else []
    found = [
        *_of_events(events, now),
        *history(ledger),
        *_of_holds(plan, ledger, now),
        *_of_risks(_endangered(plan, ledger, document, policy, now), events, now),
        *_of_entries(ledger, now),
        *(
            _cancelled(each, now)
            for each in known
            if not each.begun and _gone(each, clean_documents)
        ),
    ]
    return tuple({each.id: each for each in found}.values())


def follow(
    known: tuple[KnownEvent, ...],
    *,
    ledger: Ledger,
    clean_documents: tuple[EventDocument, ...],
    policy: Policy,
    told: frozenset[str],
    now: datetime,
) -> tuple[KnownEvent, ...]:
    """Return the events as known after this pass.

    Like a restore (law S6) it takes two clean polls to believe that an event is gone. One that was
    cancelled is kept until that was told.
    """
    if not clean_documents:
        return known
    newest, acknowledged = clean_documents[-1], _acknowledged(ledger)
    before = {fold(each.event_id): each for each in known}
    there = {
        fold(event.event_id): KnownEvent(
            event_id=event.event_id,
            event_type=event.event_type,
            vms=event.resources,
            not_before=event.not_before,
            begun=(
                (fold(event.event_id) in before and before[fold(event.event_id)].begun)
                or event.status is not EventStatus.SCHEDULED
                or fold(event.event_id) in acknowledged
                or (event.not_before is not None and event.not_before <= now)
            ),
        )
        for event in newest.events
        if policy.impacting(event)
    }
    absent = [
        replace(each, begun=each.begun or key in acknowledged)
        for key, each in before.items()
        if key not in there
    ]
    kept = [
        each
        for each in absent
        if not _gone(each, clean_documents)
        or (not each.begun and _cancelled(each, now).id not in told)
    ]
    return (*kept, *there.values())[-MOST_EVENTS:]


def _gone(event: KnownEvent, clean_documents: tuple[EventDocument, ...]) -> bool:
    lately = (each.event_id for document in clean_documents for each in document.events)
    return len(clean_documents) >= 2 and fold(event.event_id) not in map(fold, lately)


def _of_events(events: Iterable[ScheduledEvent], now: datetime) -> Iterator[Happening]:
    for event in events:
        what = f"{event.event_type} of {_names(event.resources)}"
        begins = f", not before {_clock(event.not_before)}" if event.not_before else ""
        started = event.status is EventStatus.STARTED
        yield Happening(
            kind=Kind.RECEIVED,
            id=_id(Kind.RECEIVED, event.event_id),
            at=now,
            text=f"{what} announced{begins}{', it has started already' if started else ''}",
            vm=_names(event.resources),
            event_id=event.event_id,
            event_type=event.event_type,
            not_before=event.not_before,
        )
        if started:
            yield Happening(
                kind=Kind.STARTED,
                id=_id(Kind.STARTED, event.event_id),
                at=now,
                text=f"{what} has started",
                vm=_names(event.resources),
                event_id=event.event_id,
                event_type=event.event_type,
            )


def _cancelled(event: KnownEvent, now: datetime) -> Happening:
    names = _names(event.vms)
    return Happening(
        kind=Kind.CANCELLED,
        id=_id(Kind.CANCELLED, event.event_id),
        at=now,
        text=f"{event.event_type} of {names} was cancelled before it started",
        vm=names,
        event_id=event.event_id,
        event_type=event.event_type,
        not_before=event.not_before,
    )


def _lines(entry: Entry) -> Iterator[Transition]:
    """The transitions that led to an entry as it is, as far as people are told of them."""
    if entry.out_at is not None:
        yield Transition(at=entry.out_at, vm=entry.vm, what="out")
    for event in entry.events:
        if event.acknowledged_at is not None:
            at, detail = event.acknowledged_at, event.event_id
            yield Transition(at=at, vm=entry.vm, what="acknowledged", detail=detail)
    if entry.restored_at is not None:
        yield Transition(at=entry.restored_at, vm=entry.vm, what="restored")


def _of_transition(line: Transition, entry: Entry | None) -> Happening | None:
    deadlines = [each.not_before for each in entry.events if each.not_before] if entry else []
    not_before = min(deadlines, default=None)
    match line.what:
        case "out":
            lead = f", {_span(not_before - line.at)} NotBefore" if not_before else ""
            kind, text = Kind.DRAINED, f"{line.vm} is out of rotation{lead}"
        case "acknowledged":
            # One acknowledgement is noted for every VM of the event, and told once.
            kind, text = Kind.ACKNOWLEDGED, f"event {line.detail} is acknowledged: it may start"
            return Happening(
                kind=kind,
                id=_id(kind, line.detail),
                at=line.at,
                text=text,
                vm=line.vm,
                event_id=line.detail,
                not_before=not_before,
            )
        case "restored":
            kind, text = (
                Kind.RESTORED,
                f"{line.vm} is back in rotation, in every pool it was taken out of",
            )
        case "gone":
            kind, text = Kind.FAILED, f"{line.vm} was deleted while it was out of rotation"
        case "forgotten":
            kind, text = Kind.FAILED, f"{line.vm} is not put back: {line.detail}"
        case "membership dropped":
            kind, text = Kind.FAILED, f"{line.vm} is not put back everywhere: {line.detail}"
        case _:
            return None
    ident = _id(kind, line.vm, line.at.astimezone(UTC).isoformat(), line.detail)
    return Happening(kind=kind, id=ident, at=line.at, text=text, vm=line.vm, not_before=not_before)


def _of_holds(plan: Plan, ledger: Ledger, now: datetime) -> Iterator[Happening]:
    names = {fold(each.vm): each.vm for each in plan.phases}
    for hold in ledger.holds:
        lasted_s = (now - hold.since).total_seconds()
        if lasted_s < LASTS_S or hold.reason == Reason.VM_GONE.value:
            continue  # what was deleted is told by its transition
        kind = Kind.FAILED if hold.reason in FAILURES else Kind.HELD
        yield Happening(
            kind=kind,
            id=_id(kind, hold.subject, hold.reason, hold.since.astimezone(UTC).isoformat()),
            at=hold.since,
            text=hold.message,
            vm=names.get(fold(hold.subject), ""),
        )


def _endangered(
    plan: Plan, ledger: Ledger, document: EventDocument | None, policy: Policy, now: datetime
) -> tuple[str, ...]:
    since = ledger.leader_since
    if not plan.phases and since is not None and (now - since).total_seconds() < LASTS_S:
        return ()  # a new leader has not looked around yet
    return risk(plan, ledger, document, policy, now).vms


def _of_risks(
    vms: Iterable[str], events: list[ScheduledEvent], now: datetime
) -> Iterator[Happening]:
    for vm in vms:  # each is a resource of one of the events
        mine = sorted((each for each in events if each.affects(vm)), key=lambda e: fold(e.event_id))
        deadlines = [each.not_before for each in mine if each.not_before]
        not_before = min(deadlines, default=None)
        begins = (
            f"may begin at {_clock(not_before)}"
            if not_before and not_before > now
            else "may have begun"
        )
        yield Happening(
            kind=Kind.AT_RISK,
            id=_id(Kind.AT_RISK, vm, *(each.event_id for each in mine)),
            at=now,
            text=f"{vm} is still in rotation and its maintenance {begins}",
            vm=vm,
            event_id=mine[0].event_id,
            event_type=mine[0].event_type,
            not_before=not_before,
        )


def _of_entries(ledger: Ledger, now: datetime) -> Iterator[Happening]:
    for entry in ledger.entries:
        out_s = (now - entry.recorded_at).total_seconds()
        if entry.gone or entry.restored_at is not None or out_s < TOO_LONG_S:
            continue
        since = entry.recorded_at.astimezone(UTC).isoformat()
        yield Happening(
            kind=Kind.OUT_TOO_LONG,
            id=_id(Kind.OUT_TOO_LONG, entry.vm, since),
            at=now,
            text=f"{entry.vm} has been out of rotation since {_clock(entry.recorded_at)}",
            vm=entry.vm,
        )


def _acknowledged(ledger: Ledger) -> set[str]:
    noted = {fold(line.detail) for line in ledger.transitions if line.what == "acknowledged"}
    return noted | {
        fold(event.event_id)
        for entry in ledger.entries
        for event in entry.events
        if event.acknowledged_at is not None
    }


# --- of one agent: its own to tell ---


@dataclass(frozen=True, slots=True)
class Silence:
    """Whether somebody who has to be heard is heard; one for each service, and for the leader."""

    failures: int = 0
    since_s: float = 0.0
    """Monotonic time of the first failure in a row."""
    told: bool = False

    def after(self, answered: bool, now_s: float) -> "Silence":
        """Return this after one more request; `told` is the alarm, and stays until an answer."""
        if answered:
            return Silence()
        failures = self.failures + 1
        since_s = self.since_s if self.failures else now_s
        lasts = failures >= SILENT_FAILURES and now_s - since_s >= SILENT_S
        return Silence(failures, since_s, told=lasts)


def of_silence(vm: str, service: str, *, silent: bool, at: datetime) -> Happening:
    """Return what an agent tells of a service that has gone silent, or answers again."""
    kind = Kind.SILENT if silent else Kind.ANSWERS_AGAIN
    said = "does not answer" if silent else "answers again"
    text = f"{service} {said}, as {vm} sees it"
    return Happening(kind=kind, id=_id(kind, vm, service, at.isoformat()), at=at, text=text, vm=vm)


def of_leadership(vm: str, *, missing: bool, at: datetime) -> Happening:
    """Return what an agent tells when nobody leads the set, or somebody leads again."""
    kind = Kind.NO_LEADER if missing else Kind.LEADER_AGAIN
    said = "no agent leads the set: no VM is drained" if missing else "the set has a leader again"
    text = f"{said}, as {vm} sees it"
    return Happening(kind=kind, id=_id(kind, vm, at.isoformat()), at=at, text=text, vm=vm)


# --- words ---


def _id(kind: Kind, *parts: str) -> str:
    # The case of names and ids differs between polls.
    whole = "\n".join((kind.value, *(fold(part) for part in parts)))
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "no VM"


def _clock(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _span(delta: timedelta) -> str:
    seconds = round(delta.total_seconds())
    minutes, rest = divmod(abs(seconds), 60)
    said = f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{said} {'before' if seconds >= 0 else 'after'}"


# --- JSON ---


def _told_out(told: Told) -> dict[str, Any]:
    return {
        "ids": list(told.ids),
        "events": [
            {
                "event_id": each.event_id,
                "event_type": each.event_type,
                "vms": list(each.vms),
                "not_before": each.not_before and each.not_before.astimezone(UTC).isoformat(),
                "begun": each.begun,
            }
            for each in told.events
        ],
    }


def _told_in(value: Any) -> Told:
    return Told(
        ids=tuple(_text(each) for each in _items(value["ids"])),
        events=tuple(_event_in(each) for each in _items(value["events"])),
    )


def _event_in(fields: Mapping[str, Any]) -> KnownEvent:
    not_before = fields["not_before"]
    instant = None if not_before is None else datetime.fromisoformat(_text(not_before))
    if instant is not None and instant.tzinfo is None:
        raise ValueError("no time zone")
    return KnownEvent(
        event_id=_text(fields["event_id"]),
        event_type=_text(fields["event_type"]),
        vms=tuple(_text(each) for each in _items(fields["vms"])),
        not_before=instant and instant.astimezone(UTC),
        begun=fields["begun"] is True,
    )


def _items(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return list(cast("Iterable[Any]", value))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
