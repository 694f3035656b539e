"""A simulated Azure Stack Hub: its updates, their runs, and times in which its API is gone.

The set and its network have no connection with it. A run ends by the clock alone, so its state is
computed from the time of a request.
"""

import random
from dataclasses import dataclass, field
from typing import Literal

from controller.simulator.world.bodies import guid

LOCATION = "east"
CLIENT_ID = "4f1f2c5e-0f1d-4a77-9d0e-7d2b3a9c6b11"
"""The service principal that may read the updates."""
AUDIENCE = "https://adminmanagement.simulated.example/7d2b3a9c"
"""The audience of the tokens for the administrator endpoint."""

RunResult = Literal["succeeds", "fails", "endless"]


@dataclass(slots=True, kw_only=True)
class HubRun:
    """One run of an update. Times in epoch seconds."""

    run_id: str
    started_at: float
    ends_at: float
    """Infinite for a run that does not end."""
    result: RunResult

    def state(self, now: float) -> str:
        """Return the state as the Hub spells it."""
        if now < self.ends_at:
            return "InProgress"
        return "Failed" if self.result == "fails" else "Succeeded"

    def duration_s(self, now: float) -> float:
        """Return how long it took, or has taken until now."""
        return max(0.0, min(now, self.ends_at) - self.started_at)


@dataclass(slots=True, kw_only=True)
class HubUpdate:
    """One update and its runs, in the order of their start."""

    name: str
    runs: list[HubRun] = field(default_factory=list[HubRun])

    def state(self, now: float) -> str:
        """Return the state as the Hub spells it."""
        newest = self.runs[-1].state(now) if self.runs else ""
        states = {"InProgress": "Installing", "Succeeded": "Installed"}
        return states.get(newest, "InstallationFailed" if newest else "Ready")


class Hub:
    """The updates of the Hub.

    Args:
        seed: for ids and the secret of the service principal.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"hub {seed}")  # noqa: S311 -- has to be repeatable
        self.secret = guid(self._random)
        self.updates: dict[str, HubUpdate] = {}
        self._gone_from = self._gone_until = 0.0

    def start(
        self, name: str, now: float, *, run_s: float, result: RunResult, resume: bool
    ) -> HubRun:
        """Start a run of an update, or resume its newest one, which must have failed.

        Raises:
            ValueError: there is nothing to resume, or the newest run is in progress.
        """
        update = self.updates.setdefault(name, HubUpdate(name=name))
        newest = update.runs[-1] if update.runs else None
        if newest is not None and newest.state(now) == "InProgress":
            raise ValueError(f"update {name} is in progress")
        if resume and (newest is None or newest.state(now) != "Failed"):
            raise ValueError(f"update {name} has no failed run to resume")
        if newest is None or not resume:
            newest = HubRun(run_id=guid(self._random), started_at=now, ends_at=now, result=result)
            update.runs.append(newest)
        newest.result = result
        newest.ends_at = float("inf") if result == "endless" else now + run_s
        return newest

    def take_down(self, *, at: float, for_s: float | None) -> None:
        """Take the API down at an instant, for some seconds or, with None, for good."""
        self._gone_from = at
        self._gone_until = float("inf") if for_s is None else at + for_s

    def bring_back(self) -> None:
        """End the time without the API, also one that has yet to begin."""
        self._gone_from = self._gone_until = 0.0

    def gone(self, now: float) -> bool:
        """Return whether the API does not answer."""
        return self._gone_from <= now < self._gone_until
