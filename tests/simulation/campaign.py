"""Many seeds: play each, judge it, and say what came of all of them.

Seeds run in worker processes that are forked once everything is imported. What a worker sends back
is small: the verdict, not the history; who wants the history plays the seed again.
"""

import gc
import hashlib
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from controller.simulator.traffic.load import Counts, Kind
from controller.simulator.world.bodies import key
from controller.simulator.world.history import Change
from controller.simulator.world.world import World
from tests.laws.bodies import final_differences
from tests.laws.conditions import Conditions
from tests.laws.judge import Violation, violations
from tests.laws.replay import Replay
from tests.simulation import ablations, coverage_goals
from tests.simulation.clients import losses_of
from tests.simulation.runner import Played, Simulation
from tests.simulation.scenario import Scenario
from tests.simulation.scenario_generator import draw
from tests.simulation.worlds import sets_of

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
    behaviour: str = ""
    """The fingerprint without texts."""
    marks: frozenset[str] = frozenset()
    lasted_s: float = 0.0
    """Of simulated time."""
    requests: int = 0
    clients: Counts | None = None
    """What clients of the first pool would have seen."""
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
    sent: Counter[Kind] = field(default_factory=Counter[Kind])
    """Requests of clients, by kind; none is a request of an agent."""
    lost: Counter[Kind] = field(default_factory=Counter[Kind])
    twice: int = 0
    digests: dict[int, str] = field(default_factory=dict[int, str])
    """By seed, since the workers finish in any order."""
    behaviours: dict[int, str] = field(default_factory=dict[int, str])

    def add(self, verdict: Verdict) -> None:
        """Take one verdict in."""
        self.verdicts += 1
        self.digests[verdict.seed] = verdict.digest
        self.behaviours[verdict.seed] = verdict.behaviour
        if verdict.broken:
            self.failed.append(verdict)
        self.laws.update(verdict.laws)
        self.marks.update(verdict.marks)
        self.lasted_s += verdict.lasted_s
        self.requests += verdict.requests
        for kind, counts in verdict.clients.by_kind.items() if verdict.clients else ():
            self.sent[kind] += counts.sent
            self.lost[kind] += counts.lost
        self.twice += verdict.seed % TWICE_EVERY == 0

    @property
    def digest(self) -> str:
        """The fingerprint of all histories: the same on every Python."""
        return _fingerprint(self.digests)

    @property
    def behaviour(self) -> str:
        """The fingerprint of all histories without the texts that people read."""
        return _fingerprint(self.behaviours)

    @property
    def unmarked(self) -> list[str]:
        """What never happened in the whole campaign, though it should have."""
        return sorted(coverage_goals.EXPECTED - self.marks.keys())


def _fingerprint(digests: dict[int, str]) -> str:
    return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()[:16]


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


def behaviour_of(history: Iterable[Change]) -> str:
    """Return the fingerprint of a history without the texts that people read.

    It stays the same when log lines, holds or drain histories are reworded, and only then.
    """
    digest = hashlib.sha256()
    for line in sorted(_line(_without_texts(each)) for each in history if each.kind != "log"):
        digest.update(line.encode())
    return digest.hexdigest()[:16]


def _without_texts(change: Change) -> Change:
    if change.kind != "blob_written":
        return change
    try:
        document = json.loads(str(change.detail["body"]))
    except ValueError:
        return change
    body = json.dumps(_without_messages(document), sort_keys=True)
    return replace(change, detail={**change.detail, "body": body, "etag": ""})


def _without_messages(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: part for name, part in value.items() if name not in ("message", "detail")}
        return {name: _without_messages(part) for name, part in kept.items()}
    return [_without_messages(part) for part in value] if isinstance(value, list) else value


def _line(change: Change) -> str:
    detail = sorted(
        (name, str(value))
        for name, value in change.detail.items()
        if name not in ("sent_at", "serial")
    )
    return repr((round(change.at, 3), change.kind, change.subject, detail))


def judge(played: Played) -> list[Violation]:
    """Return every broken law of a history, for each availability set in turn."""
    exact = partial(final_differences, start=played.start, end=played.world)
    found: list[Violation] = []
    for ledger in sets_of(played.start):
        replay = Replay(conditions_of(played.scenario, played.start, ledger), played.start)
        found += violations(replay, played.history, at_the_end=exact)
    return found


def clients_of(played: Played) -> Counts:
    """Return what clients of the first pool would have seen during a history."""
    settings = played.world.settings
    return losses_of(
        played.start,
        played.history,
        pool_id=played.start.pool_ids()[0],
        flows=settings.flows_on_remove,
        seed=played.scenario.seed,
    )


def conditions_of(scenario: Scenario, start: World, ledger: str) -> Conditions:
    """Return what the laws need to know about the set that has this ledger."""
    sets = sets_of(start)
    election, watch, knobs = scenario.election, scenario.watch, scenario.settings
    latencies_s = [
        float(str(knobs.get(name, default)))
        for name, default in (("operation_latency_s", 10), ("pool_operation_latency_s", 5))
    ]
    return Conditions(
        peers=frozenset(sets[ledger]),
        others=frozenset(vm for path, vms in sets.items() if path != ledger for vm in vms),
        strangers=ledger == next(iter(sets)),
        ledger=ledger,
        floors={
            key(pool_id): scenario.floors.get(pool_id.rsplit("/", 1)[-1], 1)
            for pool_id in start.pool_ids()
        },
        policy=scenario.policy,
        lease_s=float(str(election.get("lease_duration_s", 30))),
        request_timeout_s=float(str(election.get("request_timeout_s", 4))),
        poll_timeout_s=float(str(watch.get("timeout_s", 5))),
        first_poll_timeout_s=float(str(watch.get("first_timeout_s", 130))),
        slowest_write_s=max(latencies_s) + float(str(knobs.get("operation_jitter_s", 0))),
        nics_per_vm=scenario.nics_per_vm,
        ip_pools=len(scenario.ip_pools),
        open_after_s=float(str(scenario.drain.get("open_after_s", 3600))),
        idle_s=scenario.idle_s,
        placement_groups={name: vm.placement_group for name, vm in start.vms.items()},
        unable=frozenset(map(str.casefold, scenario.unable)),
        never_quiet=frozenset(
            vm.casefold()
            for vm, habits in scenario.habits.items()
            if habits.never_quiet or habits.uncounted
        ),
        stale_reads=any(storm.kind == "arm stale" for storm in scenario.storms),
    )


def play(scenario: Scenario, ablated: str = "") -> Played:
    """Play a scenario, with one safeguard switched off if one is named."""
    with ablations.without(ablated), coverage_goals.watching() as seen:
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
        behaviour=behaviour_of(played.history),
        marks=frozenset(played.marks | coverage_goals.of_history(played.history)),
        lasted_s=last - first,
        requests=sum(1 for change in played.history if change.kind == "sent"),
        clients=clients_of(played),
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
