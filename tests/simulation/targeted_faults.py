"""Troubles made to measure, each for a safeguard on which ordinary weather hardly ever calls.

At most one is laid over a drawn scenario, and it is drawn from a source of its own: a new trial
changes the seeds that it is laid over, and no others.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.simulation.request_faults import LATE_LEDGER, RIVAL
from tests.simulation.scenario import Act, ClockError, Scenario, Storm
from tests.simulation.world_events import LEADER, STANDBY

SHARE = 0.4
"""So many scenarios have a trial."""
SHORT_LEAD_S = 60.0
AT_ONCE_S = 120.0
"""With this notice an event is due at once in every drawn scenario."""
LONGEST_INTERREGNUM_S = 105.0
"""A lease of 30 s that runs out, 60 s in which storage refuses it to others, a look or two."""


def rivals(source: random.Random, scenario: Scenario) -> Scenario:
    """People change what an agent has just read and is about to write back (law S3)."""
    by_address = scenario.ip_pools or ("internal",)
    contested = replace(
        scenario, ip_pools=by_address, floors={**dict.fromkeys(by_address, 1), **scenario.floors}
    )
    return _under(source, contested, RIVAL, (0.6, 1.0))


def late_ledgers(source: random.Random, scenario: Scenario) -> Scenario:
    """Ledgers arrive when their sender, still the leader, has written a newer one (law S5)."""
    return _under(source, scenario, LATE_LEDGER, (0.2, 0.4))


def hollow_writes(source: random.Random, scenario: Scenario) -> Scenario:
    """Azure reports success for writes that have changed nothing (law S1)."""
    return _under(source, scenario, "operation without effect", (0.3, 0.6, 1.0))


def _under(
    source: random.Random, scenario: Scenario, kind: str, chances: tuple[float, ...]
) -> Scenario:
    """Put a storm that lasts in the place of most others, and one VM to be maintained into it."""
    storm = Storm(kind, 0.0, scenario.calm_at_s, chance=source.choice(chances))
    vms = max(2, scenario.vms)  # the only one would never be let go
    given = {
        **_ordinary(source),
        "vms": (f"web-{source.randint(1, vms)}",),
        "notice_s": AT_ONCE_S,
    }
    event = Act(source.uniform(8, scenario.calm_at_s * 0.6), "event", given)
    return replace(
        scenario,
        vms=vms,
        acts=(*scenario.acts, event),
        storms=(*scenario.storms[:2], storm),
    )


def _ordinary(source: random.Random) -> dict[str, Any]:
    return {
        "event_type": source.choice(("Reboot", "Redeploy")),
        "duration_s": -1,
        "impact_s": source.uniform(4, 15),
        "started_s": source.uniform(16, 25),
    }


def short_notice(source: random.Random, scenario: Scenario) -> Scenario:
    """In calm times the leader's VM goes down just when the next VM is due (law S7).

    Whoever has not handed over by then leaves a lease that runs out too late for that one, and
    whose clock is uncorrected is too late for both.
    """
    vms = max(3, scenario.vms)
    ahead_s = source.choice((0.0, 0.0, -90.0, -240.0, 150.0))
    names = [f"web-{order}" for order in range(1, vms + 1)] if ahead_s else []
    at_s = scenario.calm_at_s + LONGEST_INTERREGNUM_S
    event = _ordinary(source)
    acts = [act for act in scenario.acts if act.what != "event"]
    acts += [
        Act(at_s, "event", {**event, "vms": (LEADER,), "notice_s": SHORT_LEAD_S + 2}),
        Act(at_s, "event", {**event, "vms": (STANDBY,), "notice_s": 2 * SHORT_LEAD_S + 4}),
    ]
    return replace(
        scenario,
        vms=vms,
        floors=dict.fromkeys(scenario.floors, 1),
        settings={
            **scenario.settings,
            "operation_latency_s": 1.0,
            "pool_operation_latency_s": 1.0,
            "operation_jitter_s": 0.0,
            "ack_starts_event_after_s": None,
        },
        policy={
            **scenario.policy,
            "lead_time_s": SHORT_LEAD_S,
            "connection_drain_s": source.choice((0, 2)),
        },
        wait_after_expiry_s=60,
        look_s=1.0,  # whoever looks rarely misses the seconds in which a lease is offered
        clocks={name: ClockError(ahead_s, source.uniform(-2e-4, 2e-4)) for name in names},
        acts=tuple(acts),
        patience_s=50.0,
    )


Trial = Callable[[random.Random, Scenario], Scenario]
TRIALS: tuple[Trial, ...] = (rivals, late_ledgers, hollow_writes, short_notice)


def lay_over(scenario: Scenario) -> Scenario:
    """Return the scenario with its trial, if it has one."""
    source = random.Random(f"made to measure {scenario.seed}")
    trial = _chosen(source)
    return trial(source, scenario) if trial is not None else scenario


def trial_of(seed: int) -> Trial | None:
    """Return the trial that a seed has, if any."""
    return _chosen(random.Random(f"made to measure {seed}"))


def _chosen(source: random.Random) -> Trial | None:
    return source.choice(TRIALS) if source.random() < SHARE else None
