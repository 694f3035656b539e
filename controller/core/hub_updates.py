"""Updates of an Azure Stack Hub and their runs, as its administrator endpoint reports them. Pure.

States: Microsoft's OpenAPI of Microsoft.Update.Admin, 2016-05-01 and 2021-07-01. Both enumerations
are open, so a state stays the text that the Hub sends.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from controller.core.azure_names import fold

_DURATION = re.compile(
    r"P(?:(\d{1,9})D)?(?:T(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9}(?:\.\d{1,20})?)S)?)?"
)
_UNITS_S = (86_400, 3600, 60, 1)


class RunState(Enum):
    """The states of a run that mean something here."""

    IN_PROGRESS = "inprogress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """The Hub reports `Unknown`, nothing, or a state that is not documented."""


def run_state(text: str) -> RunState:
    """Return what the state of a run means; the case does not matter."""
    try:
        return RunState(fold(text))
    except ValueError:
        return RunState.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One update that the Hub knows."""

    name: str
    state: str
    """As the Hub spells it: `Ready`, `Installing`, `Installed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRun:
    """One run of an update."""

    update: str
    name: str
    state: str
    """As the Hub spells it: `InProgress`, `Succeeded`, `Failed`."""
    started_at: datetime | None = None
    duration_s: float | None = None
    step: str = ""
    """The innermost step that has failed, or that is in progress."""
    problem: str = ""
    """The error message of that step."""

    @property
    def key(self) -> tuple[str, str]:
        """What identifies the run among all runs."""
        return fold(self.update), fold(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubUpdates:
    """Everything that one poll has read."""

    updates: tuple[Update, ...]
    runs: tuple[UpdateRun, ...]


def duration_s(text: str) -> float | None:
    """Return the seconds of an ISO 8601 duration such as `PT2H12M5.4579456S`.

    None for any other text, also for years and months, whose length is not fixed.
    """
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        return None
    return sum(float(n) * unit for n, unit in zip(match.groups("0"), _UNITS_S, strict=True))


def duration_text(seconds: float) -> str:
    """Return a duration with its two largest units: `14 h 43 min`."""
    left, parts = max(0, round(seconds)), list[str]()
    for unit_s, name in zip(_UNITS_S, ("d", "h", "min", "s"), strict=True):
        count, left = divmod(left, unit_s)
        if count or parts or unit_s == 1:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])
