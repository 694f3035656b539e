"""Reading the health of load balancing rules, while the floors depend on it (law S2).

A member that fails its probe serves nothing, although it is in the pool. Where the role allows it,
the load balancer reports that. The report takes seconds to make, so no step waits for it: while it
is missing or older than a minute, a member in the pool counts. It is read only while a VM has to
leave, or is out for an event.

Pure: standard library only, no I/O, no clock.
"""

from collections.abc import Iterable

from controller.core.azure_names import fold, load_balancer_of
from controller.core.planning.actions import ReadRuleHealth
from controller.core.planning.evidence import Evidence
from controller.core.planning.steps import Start, Steps, WakeAt
from controller.core.planning.vm_case import VmCase

READ_EVERY_S = 40.0
"""Seconds between two reads; a report is used for a minute (`views.HEALTH_FRESH_S`)."""


def steps(cases: Iterable[VmCase], evidence: Evidence) -> Steps:
    """Plan the reads that are due."""
    if not any(case.due or (case.must_leave and case.inside) for case in cases):
        return
    views = evidence.views
    ages_s: dict[str, float] = {}
    for pool_id in evidence.policy.pools:
        health = evidence.observed.health.get(fold(pool_id))
        age_s = views.age_s(health.observed_at if health else None)
        owner = load_balancer_of(pool_id)
        ages_s[owner] = max(age_s, ages_s.get(owner, 0.0))
    for owner, age_s in ages_s.items():
        if age_s >= READ_EVERY_S:
            yield Start(ReadRuleHealth(owner))
        else:
            yield WakeAt(views.in_s(READ_EVERY_S - age_s))
