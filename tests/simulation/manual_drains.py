"""People who ask for VMs by hand, laid over a fifth of the seeds, from a source of their own.

What they ask for ends with the troubles, but for `several_askers`, a hardship.
"""

import random
from dataclasses import replace

from tests.simulation.scenario import Act, Scenario

SHARE = 0.2
"""So many scenarios have somebody who asks."""
OPERATORS = ("ann", "ben", "carl")
LAST_S = 2.0
"""So long before calm everything has ended."""


def lay_over(scenario: Scenario) -> Scenario:
    """Return the scenario with what people ask for, if anybody does."""
    source = random.Random(f"by hand {scenario.seed}")
    if source.random() >= SHARE:
        return scenario
    end_s = scenario.calm_at_s - LAST_S
    acts: list[Act] = []
    for order in range(source.choice((1, 1, 2, 3))):
        vm = f"web-{source.randint(1, scenario.vms)}"
        at_s = source.uniform(4, end_s * 0.8)
        for_s = min(source.choice((8.0, 25.0, 60.0)), end_s - at_s)
        acts.append(_ask(at_s, vm, for_s, f"R-{order}"))
        if source.random() < 0.5:
            back_s = at_s + source.uniform(1, for_s)
            acts.append(Act(back_s, "withdraw", {"vm": vm}))
    return _with(scenario, acts)


def several_askers(source: random.Random, scenario: Scenario) -> Scenario:
    """Several operators ask for one VM, and withdraw some; some requests outlast the troubles."""
    vm, calm_s = f"web-{source.randint(1, scenario.vms)}", scenario.calm_at_s
    acts: list[Act] = []
    for order, by in enumerate(source.sample(OPERATORS, source.choice((2, 2, 3)))):
        at_s = source.uniform(4, calm_s * 0.8)
        until_s = source.choice((calm_s * 0.9, calm_s + source.choice((20.0, 60.0, 150.0))))
        acts.append(_ask(at_s, vm, max(3.0, until_s - at_s), f"S-{order}", by))
        if source.random() < 0.4:
            back_s = source.uniform(at_s, max(at_s, until_s))
            acts.append(Act(back_s, "withdraw", {"vm": vm, "by": source.choice((by, "dora"))}))
    return _with(scenario, acts)


def rolling_run(source: random.Random, scenario: Scenario) -> Scenario:
    """An operator runs a command for each VM, one drained VM at a time, and may be interrupted."""
    at_s = source.uniform(8, scenario.calm_at_s)
    given = {
        "vm": f"web-{source.randint(1, scenario.vms)}",
        "work_s": source.choice((1.0, 8.0, 30.0)),
        "for_s": source.choice((60.0, 90.0, 300.0)),
    }
    acts = [Act(at_s, "roll", given)]
    if source.random() < 0.4:
        acts.append(Act(at_s + source.uniform(3, 60), "kill_roll"))
    return _with(scenario, acts)


def _ask(at_s: float, vm: str, for_s: float, request_id: str, by: str = "ann") -> Act:
    given = {"vm": vm, "for_s": for_s, "request_id": request_id, "by": by}
    return Act(at_s, "ask", given)


def _with(scenario: Scenario, acts: list[Act]) -> Scenario:
    ordered = sorted((*scenario.acts, *acts), key=lambda act: act.at_s)
    return replace(scenario, acts=tuple(ordered))
