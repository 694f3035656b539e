"""What the ledger keeps of scheduled events: those that are watched, and the verdicts.

A watched event is in the event document, or left it and has no verdict yet. A verdict is what
became of one event for one VM:

| verdict           | meaning                                                          |
|-------------------|------------------------------------------------------------------|
| `drained`         | the VM was out of rotation before the event could begin          |
| `late`            | the VM was out of rotation only after that                       |
| `hit_in_rotation` | the event began and ended while the VM was in rotation           |
| `ignored`         | policy does not require a drain for the event                    |
| `cancelled`       | an agent saw the event leave the document before it could begin  |
| `unmanaged`       | the VM is in no managed pool, and not because of the controller  |

The values are stored in the ledger and label metrics: they never change.

Pure: standard library only, no I/O, no clock.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from controller.core.blob_limits import MAX_MESSAGE_CHARACTERS, shorten
from controller.core.rehearsals import is_test
from controller.core.resources import NOTHING_EXTRA, Extra

MAX_VERDICTS = 200
"""How many verdicts are kept. With some 350 bytes each they add at most 70 kB to a ledger write."""
MAX_WATCHED_VMS = 1000
"""How many VMs of events are watched at a time; the rest of a longer list gets no verdict."""
MAX_WHY = 400
"""Characters of a reason."""


class Verdict(StrEnum):
    """What became of one event for one VM; the values are stored."""

    DRAINED = "drained"
    LATE = "late"
    HIT_IN_ROTATION = "hit_in_rotation"
    IGNORED = "ignored"
    CANCELLED = "cancelled"
    UNMANAGED = "unmanaged"


MISSED = frozenset({Verdict.LATE, Verdict.HIT_IN_ROTATION})
"""The verdicts of events that may have cost requests."""


class Place(StrEnum):
    """Where a VM of an event was when it was last observed; the values are stored."""

    UNKNOWN = ""
    IN_ROTATION = "in rotation"
    OUT = "out"
    UNMANAGED = "unmanaged"
    JUDGED = "judged"
    """The VM has its verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedVm:
    """One VM of a watched event."""

    vm: str
    place: str = Place.UNKNOWN
    """A `Place`, or text that only a newer minor version knows."""
    out_at: datetime | None = None
    """Since when it is out of every managed pool."""
    why: str = ""
    """What kept it in rotation, as last known before the event began."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    def __post_init__(self) -> None:
        """Keep the texts short and printable."""
        shorten(self, "vm", "place")
        shorten(self, "why", limit=MAX_MESSAGE_CHARACTERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedEvent:
    """One event that is announced, or that still lacks a verdict."""

    event_id: str
    event_type: str
    first_seen_at: datetime
    """When an agent first read it."""
    watched_at: datetime | None = None
    """Since when a leader watches it."""
    not_before: datetime | None = None
    """The last NotBefore that was read; the document does not repeat it once the event started."""
    started_at: datetime | None = None
    """When it was first read as started."""
    gone_at: datetime | None = None
    """When it was first known to be gone; None while it is in the document."""
    ignored: str = ""
    """Why policy requires no drain; empty for an impacting event."""
    not_acknowledgeable: str = ""
    """Why no agent can acknowledge it, as last read; empty if one can. Since minor 2."""
    vms: tuple[WatchedVm, ...] = ()
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    @property
    def begins_at(self) -> datetime | None:
        """When it began, or may have begun: whichever of start and NotBefore comes first."""
        known = [each for each in (self.started_at, self.not_before) if each is not None]
        return min(known, default=None)

    @property
    def judged(self) -> bool:
        """Return whether every VM has its verdict."""
        return all(each.place == Place.JUDGED for each in self.vms)

    @property
    def waits_for_reads(self) -> bool:
        """Return whether it has begun, or is gone, and the place of a VM is not known."""
        begun = self.started_at is not None or self.gone_at is not None
        return begun and any(each.place == Place.UNKNOWN for each in self.vms)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventVerdict:
    """What became of one event for one VM."""

    at: datetime
    vm: str
    event_id: str
    event_type: str
    verdict: str
    """A `Verdict`, or text that only a newer minor version knows."""
    not_before: datetime | None = None
    started_at: datetime | None = None
    out_at: datetime | None = None
    why: str = ""
    """Why the VM was late or hit, or why the event was ignored."""
    end: str = ""
    """How Resource Graph states that the event ended: `Completed` or `Canceled`, or text that only
    a newer minor version knows. Empty while it does not. It changes no verdict."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    def __post_init__(self) -> None:
        """Keep the texts short and printable."""
        shorten(self, "vm", "verdict", "end")
        shorten(self, "why", limit=MAX_MESSAGE_CHARACTERS)

    @property
    def margin(self) -> timedelta | None:
        """How long before NotBefore, or else before the start, the VM was out; late if negative.

        None without both instants. A late VM is measured from what came first; None if it was out
        before both, because its event may have begun while no agent read it.
        """
        known = [each for each in (self.not_before, self.started_at) if each is not None]
        if not known or self.out_at is None:
            return None
        late = self.verdict == Verdict.LATE
        margin = (min(known) if late else known[0]) - self.out_at
        return None if late and margin >= timedelta() else margin


def event_label(event: WatchedEvent | EventVerdict) -> str:
    """Return how the history names an event: `Reboot E-1`."""
    return f"{event.event_type} {event.event_id}"


def verdict_text(found: EventVerdict) -> str:
    """Return a verdict in words: `drained 14 min 3 s before NotBefore`."""
    match found.verdict:
        case Verdict.DRAINED:
            text = f"drained {_distance(found)}"
        case Verdict.LATE:
            text = f"late, out of rotation {_distance(found)}"
        case Verdict.CANCELLED:
            text = "cancelled before it began"
        case Verdict.UNMANAGED:
            text = "unmanaged, in no managed pool"
        case _:
            text = found.verdict.replace("_", " ")
    text = f"TEST, {text}" if is_test(found.event_id) else text
    text += _end_text(found)
    return f"{text}: {found.why}" if found.why else text


def _end_text(found: EventVerdict) -> str:
    """Return what Resource Graph adds to a verdict, which was inferred from an absence."""
    cancelled = found.verdict == Verdict.CANCELLED
    match found.end:
        case "":
            return ""
        case "Canceled":
            return ", as Azure confirms" if cancelled else ", but Azure reports it as cancelled"
        case "Completed":
            return (
                ", but Azure reports it as completed"
                if cancelled
                else ", and Azure confirms its end"
            )
        case _:
            return f", end by Resource Graph: {found.end}"


def _distance(found: EventVerdict) -> str:
    margin = found.margin
    if margin is None:
        return "after it may have begun" if found.verdict == Verdict.LATE else "before it began"
    of_start = found.not_before is None or (
        margin < timedelta()
        and found.started_at is not None
        and found.started_at < found.not_before
    )
    side = "before" if margin >= timedelta() else "after"
    return f"{length_text(margin)} {side} {'its start' if of_start else 'NotBefore'}"


def length_text(length: timedelta) -> str:
    """Return a duration in words: `14 min 3 s`, `2 h 5 min`, `3 d 4 h`."""
    seconds = round(abs(length.total_seconds()))
    for unit, unit_s, smaller, smaller_s in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60)):
        if seconds >= unit_s:
            return f"{seconds // unit_s} {unit} {seconds % unit_s // smaller_s} {smaller}"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def lead_text(out_at: datetime, not_before: datetime) -> str:
    """Return how long before or after NotBefore a VM was out of rotation."""
    side = "before" if out_at <= not_before else "after"
    return f"{length_text(not_before - out_at)} {side} NotBefore"
