"""The doctor's findings about Resource Graph as a second source of events."""

import shlex
from dataclasses import replace
from typing import Any

import pytest

from controller.azure.availability_set import parse_availability_set
from controller.azure.vm_set import VmSet
from controller.doctor.facts import Failed, Skipped
from controller.doctor.report import Result
from controller.doctor.roles import ACKNOWLEDGE
from controller.doctor.run import run_checks
from controller.errors import ControllerError, Denied, OutcomeUnknown, ServiceFault, Throttled
from tests.support.doctor_facts import COMPUTE, healthy, judged

SET_ID = f"{COMPUTE}/availabilitySets/set"
SET = VmSet(set_id=SET_ID, vm_ids=(), publishes=True)


def test_nothing_is_checked_while_it_is_off() -> None:
    """It is optional, and off by default."""
    checks = {each.check for each in run_checks(healthy()).findings}
    assert not checks & {"resource-graph", "event-publishing", "arm-acknowledgement"}


def test_a_set_that_publishes_passes() -> None:
    """The query is answered, and the policy of the set is on."""
    facts = {"resource_graph": 2, "availability_set": SET}
    assert judged("resource-graph", **facts).result is Result.PASS
    assert "not over: 2" in judged("resource-graph", **facts).message
    assert judged("event-publishing", **facts).result is Result.PASS


def test_a_set_that_does_not_publish_gets_the_commands() -> None:
    """The preview is registered once, the policy of the set changed."""
    found = judged(
        "event-publishing", resource_graph=0, availability_set=replace(SET, publishes=False)
    )
    assert found.result is Result.WARN
    register, patch = found.fix
    assert register.startswith(
        "az feature register --namespace Microsoft.Compute --name SendScheduledEventsPolicy"
    )
    words = shlex.split(patch)
    assert words[:4] == ["az", "rest", "--method", "patch"]
    assert words[5] == f"https://management.azure.com{SET_ID}?api-version=2024-07-01"
    assert '"eventGridAndResourceGraph": {"enable": true' in words[7]


@pytest.mark.parametrize(
    ("error", "result", "text"),
    [
        (Denied("no", action="Microsoft.Compute/virtualMachines/read", scope=SET_ID),
         Result.FAIL, "Scheduled Events Contributor"),
        (Denied("no"), Result.FAIL, "Resource Graph refuses the query: no"),
        (Throttled("429"), Result.WARN, "cannot be checked now: 429"),
        (ServiceFault("503"), Result.WARN, "cannot be checked now"),
        (OutcomeUnknown("lost"), Result.FAIL, "lost"),
    ],
)  # fmt: skip
def test_a_query_that_fails_is_a_finding(error: ControllerError, result: Result, text: str) -> None:
    """A refusal names what is needed; what passes by itself is a warning."""
    found = judged("resource-graph", resource_graph=Failed(error), availability_set=SET)
    assert found.result is result
    assert text in found.message
    assert found.fix


def test_without_the_set_nothing_can_be_asked() -> None:
    """The finding about the set has the cause."""
    needs = Skipped("availability-set")
    found = judged("resource-graph", resource_graph=needs, availability_set=needs)
    assert (found.result, found.message) == (Result.SKIP, "not checked: needs set")


@pytest.mark.parametrize(
    ("policy", "publishes"),
    [
        (None, False),
        ({}, False),
        ({"scheduledEventsAdditionalPublishingTargets": None}, False),
        ({"scheduledEventsAdditionalPublishingTargets": {"eventGridAndResourceGraph": {}}}, False),
        (
            {
                "scheduledEventsAdditionalPublishingTargets": {
                    "eventGridAndResourceGraph": {"enable": False}
                }
            },
            False,
        ),
        (
            {
                "scheduledEventsAdditionalPublishingTargets": {
                    "eventGridAndResourceGraph": {"enable": "true"}
                }
            },
            False,
        ),
        (
            {
                "scheduledEventsAdditionalPublishingTargets": {
                    "eventGridAndResourceGraph": {"enable": True}
                },
                "userInitiatedReboot": {"automaticallyApprove": True},
            },
            True,
        ),
    ],
)
def test_a_set_publishes_only_if_its_policy_states_it(policy: Any, publishes: bool) -> None:
    """Absent and null are off."""
    properties: dict[str, Any] = {"virtualMachines": []}
    if policy is not None:
        properties["scheduledEventsPolicy"] = policy
    found = parse_availability_set({"id": SET_ID, "properties": properties})
    assert found.publishes is publishes


@pytest.mark.parametrize(
    ("known", "result"),
    [
        (True, Result.PASS),
        (Failed(Denied("no", action=ACKNOWLEDGE, scope=SET_ID)), Result.FAIL),
        (Failed(Throttled("429")), Result.WARN),
        (Skipped("availability-set"), Result.SKIP),
    ],
)
def test_the_second_acknowledgement_needs_a_role_of_its_own(
    known: bool | Failed | Skipped, result: Result
) -> None:
    """A missing permission gets the command that assigns the role on the group of the set."""
    found = judged("arm-acknowledgement", arm_acknowledgement=known)
    assert found.result is result
    if result is Result.FAIL:
        (command,) = found.fix
        assert "lb-drain acknowledgement" in command
        assert "deploy/roles/acknowledgement.json" in command
