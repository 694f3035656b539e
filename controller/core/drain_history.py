"""The history of drains: the steps that the ledger notes, and the drain episodes they form.

| step                 | meaning                                     | noted                     |
|----------------------|---------------------------------------------|---------------------------|
| `requested`          | an operator requested a drain               | when it enters an entry   |
| `recorded`           | the memberships of the VM are in the ledger | before the first removal  |
| `closed`             | the VM reports that it takes no new work    | once, before it is out    |
| `out`                | the VM is in no managed pool                | when that is observed     |
| `put back`           | another client put it into a pool again     | before its next removal   |
| `acknowledged`       | IMDS accepted StartRequests for an event    | after the reply           |
| `restoring`          | the memberships are being written back      | before the first restore  |
| `partly restored`    | what is back is not ours while others wait  | when it has settled       |
| `restored`           | the VM is in every recorded pool again      | when that is observed     |
| `opened`             | the VM reports that it takes new work       | once, after `closed`      |
| `in service`         | the drain episode ended                     | with the end of the entry |
| `forgotten`          | the drain episode ended without a restore   | with the end of the entry |
| `gone`               | the VM was deleted during the episode       | when Compute reports that |
| `exists again`       | a VM that was gone is there again           | when its restore is due   |
| `membership dropped` | one of the memberships is not restored      | when it leaves the entry  |
| `membership lost`    | the place of a membership is absent         | when that is confirmed    |
| `place exists again` | the place of a lost membership is present   | when its restore is due   |
| `out again`          | a late removal took a restored VM out again | when that is observed     |
| `recovered`          | storage lost the ledger, an agent knew it   | when a leader opens it    |
| `leads`              | the agent on this VM became the leader      | with its first ledger     |
| `announced`          | an event is announced for these VMs         | when a document shows it  |
| `started`            | the event started                           | when a document shows it  |
| `completed`          | the event is gone; it began, or may have    | after two clean polls     |
| `cancelled`          | the event is gone and did not begin         | after two clean polls     |
| `end reported`       | Resource Graph states how the event ended   | when a query shows it     |

The detail of a transition: who requested the drain and why, the pools, the event, the connections
that are left or were cut, or why the VM or a membership is not restored. A line about an event
names all its VMs. `out` of a rehearsal has how long before the removal ended: `lb-drain test drain`
reads nothing but the ledger.

Rules:
- The values are stored in the ledger and part of its format: they never change.
- A ledger of a newer minor version may hold other steps. They are kept, and mean nothing here.
- A drain episode of a VM ends with `in service` or `forgotten`; its next step begins another one.
- `leads` is about the set and the last five steps are about an event: they belong to no episode.

Pure: standard library only, no I/O, no clock.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from controller.core.azure_names import fold
from controller.core.blob_limits import shorten
from controller.core.resources import NOTHING_EXTRA, Extra


class Step(StrEnum):
    """What can happen in a drain; the values are stored."""

    REQUESTED = "requested"
    RECORDED = "recorded"
    CLOSED = "closed"
    OUT = "out"
    PUT_BACK = "put back"
    ACKNOWLEDGED = "acknowledged"
    RESTORING = "restoring"
    PARTLY_RESTORED = "partly restored"
    RESTORED = "restored"
    OPENED = "opened"
    IN_SERVICE = "in service"
    FORGOTTEN = "forgotten"
    GONE = "gone"
    EXISTS_AGAIN = "exists again"
    MEMBERSHIP_DROPPED = "membership dropped"
    MEMBERSHIP_LOST = "membership lost"
    PLACE_EXISTS_AGAIN = "place exists again"
    OUT_AGAIN = "out again"
    RECOVERED = "recovered"
    LEADS = "leads"
    ANNOUNCED = "announced"
    STARTED = "started"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    END_REPORTED = "end reported"


ENDS = frozenset({Step.IN_SERVICE, Step.FORGOTTEN})
"""The steps that end a drain episode."""
EVENT_STEPS = (
    Step.ANNOUNCED,
    Step.STARTED,
    Step.COMPLETED,
    Step.CANCELLED,
    Step.END_REPORTED,
)
"""The steps of an event, which Azure takes."""
OUTSIDE = frozenset({Step.LEADS, *EVENT_STEPS})
"""The steps that belong to no drain episode."""

_TEXTS: Mapping[str, str] = MappingProxyType(
    {
        Step.REQUESTED: "drain requested",
        Step.RECORDED: "drain started",
        Step.CLOSED: "closed, takes no new work",
        Step.OUT: "out of rotation",
        Step.PUT_BACK: "put back into a pool by another client, drained again",
        Step.ACKNOWLEDGED: "event acknowledged",
        Step.RESTORING: "restore started",
        Step.PARTLY_RESTORED: "restored to a part of its pools",
        Step.RESTORED: "restored to its pools",
        Step.OPENED: "open, takes new work",
        Step.IN_SERVICE: "in service",
        Step.FORGOTTEN: "drain ended without a restore",
        Step.GONE: "the VM was deleted while drained",
        Step.EXISTS_AGAIN: "the VM exists again",
        Step.MEMBERSHIP_DROPPED: "a pool membership is not restored",
        Step.RECOVERED: "the record of its drain was recovered",
        Step.MEMBERSHIP_LOST: "a pool membership cannot be restored",
        Step.PLACE_EXISTS_AGAIN: "a lost pool membership can be restored",
        Step.OUT_AGAIN: "a delayed write removed it from a pool again",
        Step.LEADS: "is the leader",
        Step.ANNOUNCED: "event announced",
        Step.STARTED: "event started",
        Step.COMPLETED: "event completed",
        Step.CANCELLED: "event cancelled",
        Step.END_REPORTED: "end of the event reported by Resource Graph",
    }
)


def step_text(step: str) -> str:
    """Return the words that people read for a step; a step of a newer version is unchanged."""
    return _TEXTS.get(step, step)


_CUT = re.compile(r"(?:^|[,;] )connections cut: ([0-9]{1,9})$")


def cut_text(connections: int) -> str:
    """Return how a detail states that connections were cut; empty for none."""
    return f"connections cut: {connections}" if connections else ""


def connections_cut(detail: str) -> int:
    """Return how many connections were cut, by the end of a detail."""
    found = _CUT.search(detail)
    return int(found[1]) if found else 0


_REMOVED = re.compile(r"^removed ([0-9]{1,6}\.[0-9]) s earlier")


def removed_text(earlier: timedelta) -> str:
    """Return how a detail states how long before the VM was seen out its removal ended."""
    tenths = max(0, earlier // timedelta(milliseconds=100))
    return f"removed {tenths / 10:.1f} s earlier"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One line of recent history."""

    at: datetime
    vm: str
    step: str
    """A `Step`, or text that only a newer minor version knows."""
    detail: str = ""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    def __post_init__(self) -> None:
        """Keep the texts short and printable."""
        shorten(self, "vm", "step", "detail")

    @property
    def removed_at(self) -> datetime | None:
        """When the removal ended that led to this step; None if the detail does not state it."""
        found = _REMOVED.match(self.detail)
        return self.at - timedelta(seconds=float(found[1])) if found else None


@dataclass(frozen=True, slots=True)
class Episode:
    """One drain of one VM, from the first step that is remembered to the last one so far."""

    lines: tuple[Transition, ...]
    """At least one, oldest first. The history is bounded: the first steps may be missing."""

    @property
    def over(self) -> bool:
        """Return whether the episode has ended."""
        return self.lines[-1].step in ENDS

    def first(self, step: Step, *, since: datetime | None = None) -> datetime | None:
        """Return when a step was first noted, at `since` or later; None if it was not."""
        times = (each.at for each in self.lines if each.step == step)
        return next((at for at in times if since is None or at >= since), None)

    def last(self, *steps: Step, detail: str = "") -> datetime | None:
        """Return when one of the steps was last noted, with this detail if one is given."""
        times = (
            each.at
            for each in reversed(self.lines)
            if each.step in steps and (not detail or fold(each.detail) == fold(detail))
        )
        return next(times, None)


def episodes(transitions: Iterable[Transition], vm: str) -> tuple[Episode, ...]:
    """Return the drain episodes of a VM, oldest first."""
    found: list[list[Transition]] = []
    for line in transitions:
        if fold(line.vm) != fold(vm) or line.step in OUTSIDE:
            continue
        if not found or found[-1][-1].step in ENDS:
            found.append([])
        found[-1].append(line)
    return tuple(Episode(tuple(lines)) for lines in found)
