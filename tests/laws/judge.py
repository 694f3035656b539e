"""A whole history against the laws."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from controller.simulator.world.history import Change
from tests.laws import closing, liveness, safety, verdicts
from tests.laws.replay import Replay

Law = Callable[[Replay, Change], Iterator[str]]
S3 = "S3 exact"
LAWS: Mapping[str, Law] = {
    "S1 ack": safety.s1_ack,
    "S2 floor": safety.s2_floor,
    S3: safety.s3_exact,
    "S4 fence": safety.s4_fence,
    "S5 write-ahead": safety.s5_write_ahead,
    "S6 no early return": safety.s6_no_early_return,
    "S7 in time": liveness.s7_in_time,
    "S8 close": closing.s8_close,
    "S9 open": closing.s9_open,
    "L1 converge": liveness.l1_converge,
    "L2 progress": liveness.l2_progress,
    "H1 quiet": liveness.h1_quiet,
    "H2 clean": safety.h2_clean,
    "V1 verdict": verdicts.v1_verdict,
}
WITHOUT_REQUESTS: Mapping[str, Law] = {
    name: law
    for name, law in LAWS.items()
    if name not in {"S7 in time", "S8 close", "S9 open", "L2 progress", "H1 quiet"}
}
"""What a history without requests can be held against; S7 too, if notice was ordinary."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One law, broken by one change."""

    law: str
    at: float
    number: int
    """Of the change in the history."""
    entry: Change
    what: str

    def __str__(self) -> str:
        subject = self.entry.subject.rsplit("/", 1)[-1]
        at = f"{self.at % 100_000:.2f}"
        return f"{self.law}: at {at}, {self.entry.kind} {subject}: {self.what}"


def violations(
    replay: Replay,
    history: Sequence[Change],
    laws: Mapping[str, Law] = LAWS,
    *,
    at_the_end: Callable[[Replay], Iterable[str]] = lambda _: (),
) -> list[Violation]:
    """Return every broken law of a history.

    Args:
        replay: the beginning of the history; it is used up.
        history: all changes, in order.
        laws: by name.
        at_the_end: yields what is not exact (law S3) when the set has converged.
    """
    replay.deletions = {
        (change.at, change.subject)
        for change in history
        if change.kind == "vm_down" and change.detail.get("state") == "deleted"
    }
    found: list[Violation] = []
    for number, recorded in enumerate(history):
        change = replay.as_move(recorded)
        for name, law in () if replay.theirs(change) else laws.items():
            found += [
                Violation(name, change.at, number, change, what) for what in law(replay, change)
            ]
        if change.kind == "converged":
            found += [Violation(S3, change.at, number, change, each) for each in at_the_end(replay)]
        replay.follow(change)
    return found
