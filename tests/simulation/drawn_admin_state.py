"""Draws in which scenarios VMs leave by adminState Down, and how Azure and people take it."""

import random
from dataclasses import replace

from tests.simulation.later_seeds import is_later
from tests.simulation.scenario import Act, Scenario

SHARE = 0.6


def lay_over(scenario: Scenario) -> Scenario:
    """Return the scenario with the mechanism that its seed gives to the set.

    An agent of an older version does not know the mechanism, and refuses its ledger.
    """
    source = random.Random(f"admin state {scenario.seed}")
    if not is_later(scenario.seed) or scenario.older or source.random() >= SHARE:
        return scenario
    if scenario.policy.get("mechanism") == "probe":
        return scenario
    settings = {
        "nic_pool_admin_state": source.random() < 0.7,
        "admin_down": source.choice(("reset", "persist")),
    }
    policy = {"mechanism": "admin-state"} if source.random() < 0.85 else {}
    acts = _edits(source, scenario)
    return replace(
        scenario,
        settings={**scenario.settings, **settings},
        policy={**scenario.policy, **policy},
        acts=tuple(sorted((*scenario.acts, *acts), key=lambda act: act.at_s)),
    )


def _edits(source: random.Random, scenario: Scenario) -> list[Act]:
    """Return what people set: before a drain, and while a VM may be Down.

    Only in NIC-based pools: of an address the whole entry is compared in the end.
    """
    pools = scenario.pools
    acts: list[Act] = []
    for _ in range(source.choice((0, 0, 1, 2)) if pools else 0):
        vm = f"web-{source.randint(1, scenario.vms)}"
        given = {"vm": vm, "pool": source.choice(pools)}
        at_s = source.uniform(1, scenario.calm_at_s)
        acts.append(Act(at_s, "admin_state", {**given, "state": source.choice(("Up", "None"))}))
    return acts
