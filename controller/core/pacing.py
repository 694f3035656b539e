"""How many writes at once, and how long to wait after a failure. Pure arithmetic.

Azure refuses parallel NIC writes within one availability set in some regions and times and allows
them in others, and does not say which. So the limit is found: start at the operator's maximum,
halve on every conflict, never below one, and add one after a run of undisturbed writes.
"""

from dataclasses import dataclass, replace

RECOVER_AFTER = 10
"""Undisturbed writes after which one more at a time is tried."""
FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 15.0
"""Short against the five minutes of notice that must be expected (seen: 5 min 19 s)."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The present limit on writes in flight."""

    limit: int
    most: int
    undisturbed: int = 0

    @classmethod
    def starting_at(cls, most: int) -> "Pace":
        """Return the pace of an agent that has met no conflict yet."""
        return cls(limit=most, most=most)

    def succeeded(self) -> "Pace":
        """Return the pace after a write that met no other."""
        if self.limit >= self.most:
            return self
        if self.undisturbed + 1 < RECOVER_AFTER:
            return replace(self, undisturbed=self.undisturbed + 1)
        return replace(self, limit=self.limit + 1, undisturbed=0)

    def conflicted(self) -> "Pace":
        """Return the pace after a write was refused because of another one."""
        return replace(self, limit=max(1, self.limit // 2), undisturbed=0)


def backoff_s(attempts: int, *, jitter: float) -> float:
    """Return how long to wait after so many failed attempts in a row.

    1, 2, 4, 8, 15, 15, … seconds, each multiplied by 0.5 to 1.0.

    Args:
        attempts: failures so far, at least one.
        jitter: a random number from 0 to 1.
    """
    full = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(attempts - 1, 10))
    return full * (0.5 + 0.5 * jitter)
