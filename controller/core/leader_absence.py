"""Whether an agent has seen no leader for too long. Logs and notifications share this rule.

Pure: standard library only, no I/O, no clock.
"""

from dataclasses import dataclass, replace
from typing import Self

LEASE_DURATIONS = 2
"""A leader is missing after this many lease durations; the alert rule LbDrainNoLeader agrees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderAbsence:
    """What one agent knows about the leader of its set."""

    lease_duration_s: float
    missing: bool = False

    def after(self, unseen_s: float) -> Self:
        """Return the state when a leader was last seen `unseen_s` seconds ago."""
        missing = unseen_s > LEASE_DURATIONS * self.lease_duration_s
        return self if missing is self.missing else replace(self, missing=missing)
