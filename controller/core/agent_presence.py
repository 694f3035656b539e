"""What each agent publishes about itself, so that a missing agent can be seen; one blob per VM.

No decision of a leader depends on it. An agent that starts beside a ledger that is lost finds in it
for which set the blobs were begun. It does not contain the role, which the lease shows. It is not
part of the report of the VM (`vm_report`), by which the leader plans and which exists only where
VMs close.

Pure: standard library only, no I/O, no clock.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from controller.core.blob_limits import shorten
from controller.core.resources import NOTHING_EXTRA, Extra

MINOR = 1
"""The minor version of the format that this agent writes."""
PERIOD_S = 120
"""How often an agent publishes its presence, though nothing has changed."""
PERIODS_MISSED = 2.5
"""An agent that has been silent for this many of its periods does not run."""
PERIOD_BOUNDS_S = (30, 3600)
"""Between these a period is taken as it is stated."""


class AgentState(StrEnum):
    """Whether an agent runs, as far as its presence shows."""

    RUNNING = "running"
    STOPPED = "stopped"
    """It was ended in an orderly way, as at the shutdown of its VM."""
    SILENT = "silent"
    """It has published nothing for longer than it should."""
    UNKNOWN = "unknown"
    """There is no presence, or none that can be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPresence:
    """What one agent publishes about itself."""

    vm: str
    release: str
    """The version of the agent."""
    configuration: str
    """A digest of the pools and the policy in its configuration; alike on all VMs of a set."""
    started_at: datetime
    at: datetime
    """When this was made."""
    period_s: int = PERIOD_S
    """How often it is published at least."""
    stopped_at: datetime | None = None
    """When the agent was ended; None while it runs."""
    problem: str = ""
    """Why the agent is not ready; empty when it is."""
    set_id: str = ""
    """The id of the set that the blobs of the agent name, folded. Since minor 1."""
    extra: Extra = field(default_factory=lambda: NOTHING_EXTRA, hash=False)

    def __post_init__(self) -> None:
        """Keep the texts short and printable."""
        shorten(self, "release", "configuration", limit=64)
        shorten(self, "problem")


def silent_after(presence: AgentPresence) -> timedelta:
    """Return the age from which a presence no longer shows that its agent runs."""
    least_s, most_s = PERIOD_BOUNDS_S
    return timedelta(seconds=PERIODS_MISSED * min(max(presence.period_s, least_s), most_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenAgent:
    """The presence of the agent of one VM, as it was read."""

    vm: str
    presence: AgentPresence | None = None
    """None without one, and when it cannot be used. With a problem, it is an older one."""
    problem: str = ""
    """Why it could not be read, or not be used; empty when there simply is none."""

    def state(self, now: datetime) -> AgentState:
        """Return whether the agent runs."""
        known = self.presence
        if known is None or self.problem:
            return AgentState.UNKNOWN
        if known.stopped_at is not None:
            return AgentState.STOPPED
        # A clock that is ahead by as much proves as little as one that stands still.
        late = abs(now - known.at) > silent_after(known)
        return AgentState.SILENT if late else AgentState.RUNNING
