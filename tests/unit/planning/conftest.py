"""The set that planner tests start from."""

import pytest

from tests.support.planner_scenario import PlannerScenario, event


@pytest.fixture
def scene() -> PlannerScenario:
    """Three VMs in service, and an event for the first one."""
    return PlannerScenario(events=[event()])
