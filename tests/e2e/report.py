"""The page that a chaos run ends with."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from controller.simulator.traffic.load import Counts, Lost

OCCASIONS: Mapping[str, tuple[str, ...]] = {
    "S1 ack": ("event_acknowledged",),
    "S2 floor": ("member_out",),
    "S3 exact": ("member_in",),
    "S4 fence": ("write", "blob_written", "event_acknowledged"),
    "S5 write-ahead": ("member_out",),
    "S6 no early return": ("member_in",),
    "S7 in time": ("event_started",),
}
"""What each law judges."""
ONCE = ("S3 exact", "L1 converge", "H2 clean")
"""Laws that are judged at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to."""

    seed: int
    minutes: float
    done: Mapping[str, Counter[str]]
    """Disturbances by lane and kind."""
    requests: Counts
    lost: Sequence[tuple[Lost, str]]
    """Lost requests, each with the reason why it could not be saved, "" when it could."""
    leaders: int
    """How many tenures there were, one after the other."""
    occasions: Counter[str]
    """Changes of the world by kind."""
    converged_s: float
    longest_pause_s: float
    broken: Sequence[str]
    """Broken laws."""

    @property
    def unexplained(self) -> int:
        """How many requests were lost that could have been saved."""
        return sum(1 for _, why in self.lost if not why)

    @property
    def good(self) -> bool:
        """No law broken, no request lost without need."""
        return not self.broken and not self.unexplained

    def page(self) -> str:
        """Return the report."""
        explained = len(self.lost) - self.unexplained
        lines = [
            f"seed {self.seed}, {self.minutes:g} min: {'good' if self.good else 'NOT GOOD'}",
            *(f"{lane:12}{_counts(kinds)}" for lane, kinds in self.done.items()),
            f"requests    {self.requests.sent} sent, {len(self.lost)} lost: {explained} explained, "
            f"{self.unexplained} unexplained",
            *(
                f"  {kind.value:20}{counts.sent} sent, {counts.lost} lost"
                for kind, counts in self.requests.by_kind.items()
            ),
            f"leaders     {max(0, self.leaders - 1)} changes",
            f"converged   {self.converged_s:.0f} s after the last disturbance",
            f"this process waited for the processor for at most {self.longest_pause_s:.1f} s",
            "laws checked",
        ]
        for law, kinds in OCCASIONS.items():
            occasions = sum(self.occasions[kind] for kind in kinds)
            lines.append(f"  {law:20}{occasions} times")
        lines += [f"  {law:20}at the end" for law in ONCE]
        lines += [f"lost {_lost(lost)}: {why or 'UNEXPLAINED'}" for lost, why in self.lost]
        lines += [f"BROKEN {line}" for line in self.broken]
        return "\n".join(lines)


def _counts(kinds: Counter[str]) -> str:
    total = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return f"{sum(kinds.values())}: {total}"


def _lost(lost: Lost) -> str:
    at = datetime.fromtimestamp(lost.at, UTC).strftime("%H:%M:%S.%f")[:-4]
    return f"{at} {lost.kind.value} {lost.backend or 'no VM'} {lost.reason.value}"
