"""Controls of the whole set: what operators decide in the last minutes. Content of a blob.

| control     | effect while it is in force                        | law that it suspends       |
|-------------|----------------------------------------------------|----------------------------|
| pause       | no VM is closed or removed; restores continue      | S7 (in time)               |
| acknowledge | an event is acknowledged although policy waits     | none; S1 (ack) if forced   |
| hold        | an event is not acknowledged                       | L2 (progress), of that ack |
| hand-over   | the leader releases the lease, another VM takes it | none                       |
| override    | a setting has this value on every agent            | none: it sets the policy   |

Every control has an author, a reason and an end, and ends by itself. A withdrawn control is simply
absent: unlike a drain request, no control keeps anything out of rotation, so a lost control means
that the agents work by their configuration again.

Operators write the blob and agents only read it. It is beside the ledger and separate from it, so
that a command needs no lease and agents of older versions ignore it.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from controller.core.azure_names import fold, short
from controller.core.blob_limits import cut, shorten
from controller.core.resources import NOTHING_EXTRA, Extra

MINOR = 0
LONGEST = timedelta(days=8)
"""No control is in force for longer, whatever end it has: a command allows 7 days at most."""
MIN_IN_SERVICE = "min_in_service"
"""The one setting of a pool that can be overridden: its floor."""
MAX_OVERRIDES = 100
"""How many settings can be overridden; the oldest override is dropped beyond that."""
MAX_EVENTS = 50
"""About how many events something can be decided; the oldest decision is dropped beyond that."""
CLOCKS_DIFFER = timedelta(days=1)
"""A control that begins later than this is not in force yet: its author's clock is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What every control has."""

    by: str
    """The operator, as named in their token. The name is not verified."""
    reason: str
    at: datetime
    until: datetime
    """When the control ends by itself."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    def __post_init__(self) -> None:
        """Keep the texts short and printable."""
        shorten(self, "by", "reason")

    @property
    def kind(self) -> str:
        """The word for this kind of control in logs and JSON."""
        return ""

    @property
    def subject(self) -> str:
        """What the control is about: an event, a VM or a setting; empty for the whole set."""
        return ""

    @property
    def ends_at(self) -> datetime:
        """When the control ends, also if its end is forged."""
        return min(self.until, self.at + LONGEST)

    def is_active(self, now: datetime) -> bool:
        """Return whether the control is in force."""
        return self.at - CLOCKS_DIFFER <= now < self.ends_at

    @property
    def author(self) -> str:
        """The operator, the end and the reason in words: `by ann until 2026-01-05 14:00 UTC`."""
        why = f" ({self.reason})" if self.reason else ""
        return f"by {self.by} until {self.ends_at:%Y-%m-%d %H:%M} UTC{why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause(Control):
    """No VM of the set is closed or removed."""

    @property
    def kind(self) -> str:
        """The word for this kind of control in logs and JSON."""
        return "pause"

    def __str__(self) -> str:
        return f"removals are paused {self.author}"


class Decision(StrEnum):
    """What operators can decide about an event; the values are stored."""

    ACKNOWLEDGE = "acknowledge"
    HOLD = "hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventControl(Control):
    """What is decided about the acknowledgement of one event."""

    event_id: str
    decision: str
    """A `Decision`, or text that only a newer minor version knows, which decides nothing."""
    forced: bool = False
    """Acknowledge also while VMs of the event are in rotation: law S1 is suspended."""

    @property
    def kind(self) -> str:
        """The word for this kind of control in logs and JSON."""
        return self.decision

    @property
    def subject(self) -> str:
        """The event."""
        return self.event_id

    def __str__(self) -> str:
        if self.decision == Decision.HOLD:
            return f"event {self.event_id} is not acknowledged, decided {self.author}"
        when = "even while its VMs are in rotation" if self.forced else "as soon as its VMs are out"
        return f"event {self.event_id} is acknowledged {when}, decided {self.author}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver(Control):
    """Another agent should lead."""

    request_id: str
    leader: str
    """The VM that led when the hand-over was requested."""
    vm: str
    """The VM that should lead; empty for any other than `leader`."""

    def concerns(self, vm: str) -> bool:
        """Return whether the agent on this VM leaves the lease to another one."""
        return fold(vm) != fold(self.vm) if self.vm else fold(vm) == fold(self.leader)

    @property
    def kind(self) -> str:
        """The word for this kind of control in logs and JSON."""
        return "hand_over"

    @property
    def subject(self) -> str:
        """The VM that should lead."""
        return self.vm

    def __str__(self) -> str:
        to = self.vm or "any other VM"
        return f"{self.leader} hands the lease over to {to}, requested {self.author}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Override(Control):
    """A setting that has this value on every agent, whatever its file contains."""

    key: str
    """A key of `[policy]`, dotted, or `min_in_service`."""
    pool: str
    """The id of the pool, folded; empty for a key of `[policy]`."""
    value: str
    """As text, like the value of an environment variable."""

    @property
    def setting(self) -> str:
        """The setting with its value: `min_in_service=1 for pool app`."""
        of_pool = f" for pool {short(self.pool)}" if self.pool else ""
        return cut(f"{self.key}={self.value}{of_pool}")

    @property
    def kind(self) -> str:
        """The word for this kind of control in logs and JSON."""
        return "override"

    @property
    def subject(self) -> str:
        """The setting."""
        return self.key

    def __str__(self) -> str:
        return f"{self.setting}, set {self.author}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """The whole content of the blob."""

    pause: Pause | None = None
    events: tuple[EventControl, ...] = ()
    hand_over: HandOver | None = None
    overrides: tuple[Override, ...] = ()
    set_id: str = ""
    """The id of the availability set, folded."""
    minor: int = MINOR
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    @property
    def listed(self) -> tuple[Control, ...]:
        """Every control."""
        single = (each for each in (self.pause, self.hand_over) if each is not None)
        return (*single, *self.events, *self.overrides)

    def in_force(self, now: datetime) -> "Controls":
        """Return these without the controls that have ended."""
        pause, hand_over = self.pause, self.hand_over
        return replace(
            self,
            pause=pause if pause and pause.is_active(now) else None,
            hand_over=hand_over if hand_over and hand_over.is_active(now) else None,
            events=tuple(each for each in self.events if each.is_active(now)),
            overrides=tuple(each for each in self.overrides if each.is_active(now)),
        )

    def of_event(self, event_id: str) -> EventControl | None:
        """Return what is decided about an event; None if nothing is."""
        found = (each for each in self.events if fold(each.event_id) == fold(event_id))
        return next(found, None)

    def with_pause(self, pause: Pause | None) -> "Controls":
        """Return these with another pause; None ends it."""
        return replace(self, pause=pause)

    def deciding(self, control: EventControl) -> "Controls":
        """Return these with a decision about an event, which replaces another one about it."""
        others = self.without_decision(control.event_id).events
        return replace(self, events=(*others, control)[-MAX_EVENTS:])

    def without_decision(self, event_id: str) -> "Controls":
        """Return these without a decision about an event."""
        kept = (each for each in self.events if fold(each.event_id) != fold(event_id))
        return replace(self, events=tuple(kept))

    def override_of(self, key: str, pool: str) -> Override | None:
        """Return the override of a setting; None if there is none."""
        found = (each for each in self.overrides if _is_of(each, key, pool))
        return next(found, None)

    def overriding(self, override: Override) -> "Controls":
        """Return these with an override, which replaces another one of the same setting."""
        others = self.without_override(override.key, override.pool).overrides
        return replace(self, overrides=(*others, override)[-MAX_OVERRIDES:])

    def without_override(self, key: str, pool: str) -> "Controls":
        """Return these without the override of a setting."""
        kept = (each for each in self.overrides if not _is_of(each, key, pool))
        return replace(self, overrides=tuple(kept))

    def with_hand_over(self, hand_over: HandOver | None) -> "Controls":
        """Return these with a request for another leader; None ends it."""
        return replace(self, hand_over=hand_over)


def _is_of(override: Override, key: str, pool: str) -> bool:
    return override.key == key and fold(override.pool) == fold(pool)


NO_CONTROLS = Controls()

Edit = Callable[[Controls], Controls]
"""A change of the controls. It may be applied again, to what another writer wrote meanwhile."""
