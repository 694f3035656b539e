"""What a notice is: its kinds, its id, and which notices were delivered.

Pure: standard library only, no I/O, no clock.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum

from controller.core.azure_names import fold

MAX_DELIVERED_IDS = 128
"""How many ids of delivered notices are kept, in addition to those of the current notices."""


class NoticeKind(Enum):
    """What a notice is about. The values are a contract: configurations and metrics use them."""

    EVENT_ANNOUNCED = "received"
    VM_DRAINED = "drained"
    HELD = "held"
    AT_RISK = "at_risk"
    EVENT_ACKNOWLEDGED = "acknowledged"
    EVENT_STARTED = "started"
    VM_RESTORED = "restored"
    EVENT_CANCELLED = "cancelled"
    EVENT_HANDLED = "handled"
    EVENT_LATE = "late"
    EVENT_HIT = "hit_in_rotation"
    EVENT_ENDED = "ended"
    FAILED = "failed"
    OUT_TOO_LONG = "out_too_long"
    SERVICE_UNREACHABLE = "silent"
    SERVICE_RECOVERED = "answers_again"
    NO_LEADER = "no_leader"
    LEADER_RESTORED = "leader_again"
    UPDATE_STARTED = "update_started"
    UPDATE_SUCCEEDED = "update_succeeded"
    UPDATE_FAILED = "update_failed"
    UPDATE_CHANGED = "update_changed"
    UPDATE_UNKNOWN = "update_unknown"
    UPDATE_KNOWN = "update_known"
    DIGEST = "digest"
    TEST = "test"


PROBLEMS = frozenset(
    {
        NoticeKind.HELD,
        NoticeKind.AT_RISK,
        NoticeKind.EVENT_LATE,
        NoticeKind.EVENT_HIT,
        NoticeKind.FAILED,
        NoticeKind.OUT_TOO_LONG,
        NoticeKind.SERVICE_UNREACHABLE,
        NoticeKind.NO_LEADER,
        NoticeKind.UPDATE_FAILED,
        NoticeKind.UPDATE_UNKNOWN,
    }
)
"""The kinds that may need an action of an operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One thing to notify people of."""

    kind: NoticeKind
    id: str
    """The same for every agent that derives it, so that receivers can drop a repetition."""
    at: datetime
    text: str
    vm: str = ""
    event_id: str = ""
    event_type: str = ""
    not_before: datetime | None = None
    schedule: str = ""
    """Of a digest: the schedule by which it is due; it is for channels with that schedule."""
    problem: bool = False
    """Whether this one may need an action although its kind does not."""
    test: bool = False
    """Whether it is about a rehearsal, or is a test of a channel itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownEvent:
    """An impacting event that is or was in the document, kept to detect that it is cancelled."""

    event_id: str
    event_type: str
    vms: tuple[str, ...]
    not_before: datetime | None
    begun: bool
    """It was acknowledged, has started, was in the document at its NotBefore, or its verdict
    states that it has begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredNotices:
    """Which notices of the set were delivered. The ledger keeps it for the next leader."""

    ids: tuple[str, ...] = ()
    """Ids of notices, oldest first."""
    events: tuple[KnownEvent, ...] = ()

    def adding(self, ids: Iterable[str], current: Iterable[Notice]) -> "DeliveredNotices":
        """Return this with more ids. The id of a current notice is never dropped."""
        every = tuple(dict.fromkeys((*self.ids, *ids)))
        derivable = {notice.id for notice in current}
        others = [each for each in every if each not in derivable]
        dropped = set(others[:-MAX_DELIVERED_IDS])
        return replace(self, ids=tuple(each for each in every if each not in dropped))


def notice_id(kind: NoticeKind, *parts: str) -> str:
    """Return the id of a notice about these things. It is the same in every version."""
    # The case of names and ids differs between polls.
    whole = "\n".join((kind.value, *(fold(part) for part in parts)))
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def event_parts(event_id: str, earlier_ended_at: Iterable[datetime]) -> tuple[str, ...]:
    """Return what identifies an event in the id of a notice: Azure can use its `EventId` again."""
    last = max(earlier_ended_at, default=None)
    return (event_id,) if last is None else (event_id, last.astimezone(UTC).isoformat())


def vm_names(vms: Iterable[str]) -> str:
    """Return the names of the VMs of an event as text."""
    return ", ".join(vms) or "no VM"


def utc_text(instant: datetime) -> str:
    """Return an instant as text."""
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
