"""People who ask for VMs by hand, laid over a fifth of the seeds, from a source of their own.

What they ask for ends with the troubles, so that law L1 has nobody to wait for afterwards.
"""

import random
from dataclasses import replace

from .scenario import Act, Scenario

SHARE = 0.2
"""So many scenarios have somebody who asks."""
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
        acts.append(Act(at_s, "ask", {"vm": vm, "for_s": for_s, "request_id": f"R-{order}"}))
        if source.random() < 0.5:
            back_s = at_s + source.uniform(1, for_s)
            acts.append(Act(back_s, "withdraw", {"vm": vm}))
    ordered = sorted((*scenario.acts, *acts), key=lambda act: act.at_s)
    return replace(scenario, acts=tuple(ordered))
