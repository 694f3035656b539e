"""The whole examination: gather, judge, report."""

from collections.abc import MutableMapping

from controller.azure.compute import AvailabilitySet
from controller.azure.imds import Instance
from controller.azure.session import SessionFactory, tcp_session
from controller.clock import Clock
from controller.doctor.facts import Facts
from controller.doctor.findings import Report
from controller.doctor.gather import gather
from controller.doctor.judge_access import judge_access
from controller.doctor.judge_host import judge_host
from controller.doctor.judge_outbound import judge_outbound
from controller.doctor.judge_pools import judge_pools
from controller.settings import Settings


async def examine(
    settings: Settings,
    *,
    environ: MutableMapping[str, str],
    clock: Clock,
    session_factory: SessionFactory = tcp_session,
) -> Report:
    """Look at everything the agent needs here, and change nothing.

    Raises:
        ConfigError: the configuration is such that nothing can be asked.
    """
    facts = await gather(settings, environ=environ, clock=clock, session_factory=session_factory)
    return judge(facts)


def judge(facts: Facts) -> Report:
    """Return all findings, in the order in which to read them."""
    home, instance = facts.home, facts.instance
    return Report(
        vm=instance.name if isinstance(instance, Instance) else "",
        availability_set_id=home.availability_set_id if isinstance(home, AvailabilitySet) else "",
        findings=(
            *judge_host(facts),
            *judge_pools(facts),
            *judge_access(facts),
            *judge_outbound(facts),
        ),
    )
