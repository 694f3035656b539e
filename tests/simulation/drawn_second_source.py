"""Draws which sets ask Resource Graph, and which acknowledge through two channels.

Only for later seeds, and from a source of its own: the other draws of a seed do not
move. What Resource Graph says may be late, wrong or missing, and it may stay wrong for good: no law
depends on it.
"""

import random
from dataclasses import replace

from tests.simulation.later_seeds import is_later
from tests.simulation.request_faults import SECOND_KINDS
from tests.simulation.scenario import Scenario, Storm

GRAPH_SHARE = 0.6
CHANNEL_SHARE = 0.5
LIES = ("", "", "", "Completed", "Completed", "Canceled", "Started", "Postponed")
"""What every row states, whatever is true. Never `Scheduled`: an event that ends while no agent
leads would be announced for ever, which is an alarm."""
LASTS_S = 900.0
"""How long the metadata service may refuse acknowledgements while the other channel works."""


def lay_over(scenario: Scenario) -> Scenario:
    """Return the scenario with the second source and the second channel that its seed draws."""
    if not is_later(scenario.seed):
        return scenario
    source = random.Random(f"second source {scenario.seed}")
    if source.random() < GRAPH_SHARE:
        scenario = _with_graph(source, scenario)
    if source.random() < CHANNEL_SHARE:
        scenario = _with_channel(source, scenario)
    return scenario


def _with_graph(source: random.Random, scenario: Scenario) -> Scenario:
    knobs = {
        "resource_graph_delay_s": source.choice((0.0, 5.0, 30.0, 120.0)),
        "resource_graph_target": source.choice(("vms", "set")),
        "resource_graph_lie": source.choice(LIES),
    }
    return replace(
        scenario,
        publishes=source.random() < 0.85,
        settings={**scenario.settings, **knobs},
        events={**scenario.events, "resource_graph": True},
        storms=(*scenario.storms, *_storms(source, scenario, "graph")),
    )


def _with_channel(source: random.Random, scenario: Scenario) -> Scenario:
    under = source.choice(("both", "vms", "set"))
    permitted = source.random() < 0.85
    storms = list(_storms(source, scenario, "imds"))
    if source.random() < 0.5:
        storms += _storms(source, scenario, "arm")
    if permitted and source.random() < 0.3:
        kind = source.choice(("imds refuses acks", "imds acks hang"))
        storms.append(Storm(kind, source.uniform(0, scenario.calm_at_s), LASTS_S))
    return replace(
        scenario,
        may_acknowledge=permitted,
        settings={**scenario.settings, "arm_acknowledges_under": under},
        events={**scenario.events, "acknowledge_through": "imds-then-arm"},
        storms=(*scenario.storms, *storms),
    )


def _storms(source: random.Random, scenario: Scenario, service: str) -> list[Storm]:
    kinds = sorted(each for each in SECOND_KINDS if each.startswith(service))
    storms: list[Storm] = []
    for kind in source.sample(kinds, source.choice((0, 1, 2))):
        from_s = source.uniform(0, scenario.calm_at_s * 0.7)
        until_s = source.uniform(from_s, scenario.calm_at_s)
        storms.append(Storm(kind, from_s, until_s, chance=source.choice((0.3, 0.6, 1.0))))
    return storms
