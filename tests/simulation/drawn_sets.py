"""Draws sets that are flexible scale sets from the start, or that Azure makes one of."""

import random
from dataclasses import replace

from tests.simulation.later_seeds import is_later
from tests.simulation.scenario import Act, Scenario

FORMS = ("", "", "", "flexible", "flexible", "converted", "converted", "renamed", "twice")
"""What becomes of the set; of a third of the scenarios it is an availability set throughout."""
GROUPS = (1, 1, 2, 3)
"""How many event documents a flexible scale set has."""
NEW_NAME = "web-flex"


def lay_over(scenario: Scenario) -> Scenario:
    """Return the scenario with the kind of set that its seed draws."""
    if not is_later(scenario.seed):
        return scenario
    source = random.Random(f"sets {scenario.seed}")
    form = source.choice(FORMS)
    if form == "":
        return scenario
    if form == "flexible":
        groups = random.Random(f"placement groups {scenario.seed}").choice(GROUPS)
        return replace(scenario, flexible=True, placement_groups=groups)
    times = sorted(source.uniform(8, scenario.calm_at_s) for _ in range(3))
    name = NEW_NAME if form == "renamed" else ""
    acts = [Act(times[0], "convert_set", {"scale_set": name})]
    if form == "twice":
        acts.append(Act(times[1], "revert_set"))
        if source.random() < 0.5:
            acts.append(Act(times[2], "convert_set", {"scale_set": NEW_NAME}))
    if source.random() < 0.5:
        vm = f"web-{source.randint(1, scenario.vms)}"
        given = {"vm": vm, "restart_s": source.choice((1.0, 20.0))}
        acts.append(Act(times[0] + source.uniform(0, 10), "crash", given))
    ordered = sorted((*scenario.acts, *acts), key=lambda act: act.at_s)
    return replace(scenario, acts=tuple(ordered))
