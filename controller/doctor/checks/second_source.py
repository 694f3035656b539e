"""Checks of the second source of scheduled events and of the second acknowledgement. Pure.

Both are previews: Azure Resource Graph, and the acknowledgement through Resource Manager.

Facts about Azure (Microsoft docs, Scheduled Events in Azure Resource Graph, 05/01/2026): a set
publishes its events there only if its policy states it, with the feature SendScheduledEventsPolicy.
Resource Graph leaves out rows that the caller may not read, so an answer without rows does not show
that the role suffices.
"""

import json

from controller.azure.imds import EVENTS_VERSION
from controller.azure.vm_set import VmSet
from controller.core.azure_names import short
from controller.doctor.checks.host import SET_VERSION
from controller.doctor.facts import DoctorFacts, Failed, Skipped
from controller.doctor.failed_reads import not_known
from controller.doctor.remedies import az
from controller.doctor.report import Finding, failed, passed, skipped, warned
from controller.errors import Denied, Obstacle

CHECK = "resource-graph"
PUBLISHING = "event-publishing"
ACKNOWLEDGEMENT = "arm-acknowledgement"
TARGETS = "scheduledEventsAdditionalPublishingTargets"
BUILT_IN_ROLE = "Scheduled Events Contributor"
"""It holds the acknowledgement and the reads of VMs and availability sets."""


def check_second_source(facts: DoctorFacts) -> list[Finding]:
    """Return the findings about both; none about what is off."""
    return [*_resource_graph(facts), *_acknowledgement(facts)]


def _acknowledgement(facts: DoctorFacts) -> list[Finding]:
    known = facts.arm_acknowledgement
    if known is None:
        return []
    if isinstance(known, bool):
        good = "the identity can acknowledge events through Resource Manager (tried, none changed)"
        return [passed(ACKNOWLEDGEMENT, good)]
    return [not_known(facts, ACKNOWLEDGEMENT, known)]


def _resource_graph(facts: DoctorFacts) -> list[Finding]:
    known = facts.resource_graph
    if known is None:
        return []
    if not isinstance(facts.availability_set, VmSet):
        return [skipped(CHECK, "set")]
    return [_answer(facts, known), _publishing(facts, facts.availability_set)]


def _answer(facts: DoctorFacts, known: int | Failed | Skipped) -> Finding:
    if isinstance(known, int):
        return passed(
            CHECK, f"Resource Graph answers; events of the set that are not over: {known}"
        )
    error = known.error if isinstance(known, Failed) else None
    if isinstance(error, Denied) and error.obstacle is Obstacle.ROLE:
        return failed(
            CHECK,
            f"Resource Graph refuses the query: {error}. It needs the reads of VMs and of the "
            f"availability set, as in deploy/roles or in the built-in role {BUILT_IN_ROLE!r}",
            not_known(facts, CHECK, known).fix,
        )
    return not_known(facts, CHECK, known)


def _publishing(facts: DoctorFacts, found: VmSet) -> Finding:
    name = short(found.set_id)
    if found.publishes:
        return passed(PUBLISHING, f"{name} publishes its scheduled events")
    target = {"enable": True, "scheduledEventsApiVersion": EVENTS_VERSION}
    policy = {TARGETS: {"eventGridAndResourceGraph": target}}
    body = json.dumps({"properties": {"scheduledEventsPolicy": policy}})
    endpoint = facts.settings.azure.resource_manager_endpoint
    url = f"{endpoint}{found.set_id}?api-version={SET_VERSION}"
    register = az(
        "feature register", namespace="Microsoft.Compute", name="SendScheduledEventsPolicy"
    )
    return warned(
        PUBLISHING,
        f"{name} does not publish its scheduled events, so "
        "resource_graph = true in [events] adds nothing",
        (
            f"{register}  # a preview, once per subscription",
            az("rest", method="patch", url=url, body=body),
        ),
    )
