"""Many seeds: play each, judge it, and say what came of all of them.

Seeds run in worker processes that are forked once everything is imported. What a worker sends back
is small: the verdict, not the history; who wants the history plays the seed again.
"""

import gc
import hashlib
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from controller.simulator.history import Change

from . import ablations, marks
from .draw import draw
from .laws import Violation, violations
from .play import Played, Simulation
from .scenario import Scenario
from .truth import Truth

TWICE_EVERY = 20
"""Every so manyeth seed is played twice and has to give the same history."""


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What came of one seed."""

    seed: int
    broken: tuple[str, ...] = ()
    """One line per broken law."""
    laws: tuple[str, ...] = ()
    """The names of the broken laws, once each."""
    digest: str = ""
    marks: frozenset[str] = frozenset()
    lasted_s: float = 0.0
    """Of simulated time."""
    requests: int = 0
    took_s: float = 0.0
    """Of processor time."""


@dataclass(slots=True)
class Report:
    """What came of many seeds."""

    verdicts: int = 0
    failed: list[Verdict] = field(default_factory=list[Verdict])
    laws: Counter[str] = field(default_factory=Counter[str])
    marks: Counter[str] = field(default_factory=Counter[str])
    lasted_s: float = 0.0
    requests: int = 0
    twice: int = 0
    digests: dict[int, str] = field(default_factory=dict[int, str])
    """By seed, since the workers finish in any order."""

    def add(self, verdict: Verdict) -> None:
        """Take one verdict in."""
        self.verdicts += 1
        self.digests[verdict.seed] = verdict.digest
        if verdict.broken:
            self.failed.append(verdict)
        self.laws.update(verdict.laws)
        self.marks.update(verdict.marks)
        self.lasted_s += verdict.lasted_s
        self.requests += verdict.requests
        self.twice += verdict.seed % TWICE_EVERY == 0

    @property
    def digest(self) -> str:
        """The fingerprint of all histories: the same on every Python."""
        return hashlib.sha256(repr(sorted(self.digests.items())).encode()).hexdigest()[:16]

    @property
    def unmarked(self) -> list[str]:
        """What never happened in the whole campaign, though it should have."""
        return sorted(marks.EXPECTED - self.marks.keys())


def digest_of(history: Iterable[Change]) -> str:
    """Return the fingerprint of a history.

    To the millisecond, and whatever happens within one in order of its name: below that lies how
    often the loop turned and which of two tasks went first, which differs between Pythons. For
    that to stay below, whatever could tell the difference has to come apart in time: see
    `wires.APART_S`.
    """
    digest = hashlib.sha256()
    for line in sorted(_line(change) for change in history):
        digest.update(line.encode())
    return digest.hexdigest()[:16]


def _line(change: Change) -> str:
    detail = sorted(
        (name, str(value))
        for name, value in change.detail.items()
        if name not in ("sent_at", "serial")
    )
    return repr((round(change.at, 3), change.kind, change.subject, detail))


def judge(played: Played) -> list[Violation]:
    """Return every broken law of a history."""
    return violations(Truth(played.scenario, played.start, played.world), played.history)


def play(scenario: Scenario, ablated: str = "") -> Played:
    """Play a scenario, with one safeguard switched off if one is named."""
    with ablations.without(ablated), marks.watching() as seen:
        played = Simulation(scenario).run()
    played.marks |= seen
    return played


def verdict_on(scenario: Scenario, ablated: str = "") -> Verdict:
    """Play a scenario and judge it."""
    begun = time.process_time()
    played = play(scenario, ablated)
    broken = judge(played)
    first, last = played.history[0].at, played.history[-1].at
    verdict = Verdict(
        seed=scenario.seed,
        broken=tuple(str(each) for each in broken),
        laws=tuple(sorted({each.law for each in broken})),
        digest=digest_of(played.history),
        marks=frozenset(played.marks | marks.of_history(played.history)),
        lasted_s=last - first,
        requests=sum(1 for change in played.history if change.kind == "sent"),
        took_s=time.process_time() - begun,
    )
    if scenario.seed % TWICE_EVERY == 0 and not ablated:
        again = digest_of(play(scenario).history)
        if again != verdict.digest:
            verdict.broken += (f"determinism: {verdict.digest}, and then {again}",)
            verdict.laws += ("determinism",)
    return verdict


def _work(task: tuple[int, str]) -> Verdict:
    seed, ablated = task
    return verdict_on(draw(seed), ablated)


def run(
    seeds: Iterable[int], *, jobs: int, ablated: str = "", heard: Callable[[Verdict], bool]
) -> Report:
    """Play seeds until they end, or until `heard` has heard enough."""
    report = Report()
    for verdict in _verdicts([(seed, ablated) for seed in seeds], jobs):
        report.add(verdict)
        if heard(verdict):
            break
    return report


def _verdicts(tasks: list[tuple[int, str]], jobs: int) -> Iterator[Verdict]:
    # What is imported is never garbage; histories are, by the megabyte.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    if jobs == 1:
        yield from map(_work, tasks)
        return
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=200) as pool:
        yield from pool.imap_unordered(_work, tasks)
