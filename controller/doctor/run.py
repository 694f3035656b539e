"""The whole examination: collect the facts, run the checks, return the report."""

from collections.abc import MutableMapping

from controller.azure.http.session import SessionFactory, tcp_session
from controller.azure.imds_document import Instance
from controller.azure.vm_set import VmSet
from controller.clock import Clock
from controller.config.schema import Settings
from controller.doctor.checks.access import check_access
from controller.doctor.checks.closing import check_closing
from controller.doctor.checks.host import check_host
from controller.doctor.checks.outbound import check_outbound
from controller.doctor.checks.pools import check_pools
from controller.doctor.checks.second_source import check_second_source
from controller.doctor.collect import collect
from controller.doctor.facts import DoctorFacts
from controller.doctor.report import Report


async def examine(
    settings: Settings,
    *,
    environ: MutableMapping[str, str],
    clock: Clock,
    session_factory: SessionFactory = tcp_session,
) -> Report:
    """Check everything that the agent needs here, and change nothing.

    Raises:
        ConfigError: with this configuration nothing can be read.
    """
    facts = await collect(settings, environ=environ, clock=clock, session_factory=session_factory)
    return run_checks(facts)


def run_checks(facts: DoctorFacts) -> Report:
    """Return all findings, in the order in which to read them."""
    found, instance = facts.availability_set, facts.instance
    return Report(
        vm=instance.name if isinstance(instance, Instance) else "",
        availability_set_id=found.set_id if isinstance(found, VmSet) else "",
        findings=(
            *check_host(facts),
            *check_pools(facts),
            *check_closing(facts),
            *check_second_source(facts),
            *check_access(facts),
            *check_outbound(facts),
        ),
    )
