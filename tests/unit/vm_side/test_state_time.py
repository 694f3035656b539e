"""Since when a VM is in its state, whatever its clock was in between."""

import pytest

from controller.vm_side.state_time import StateTime
from tests.support.planner_scenario import at
from tests.unit.vm_side.test_closing_side import TestClock


@pytest.mark.parametrize("ahead_s", [3600.0, -3600.0])
def test_a_state_of_an_earlier_run_began_when_that_noted_it(ahead_s: float) -> None:
    """The clock of an agent that has just started may not be corrected yet."""
    clock = TestClock()
    clock.seconds, clock.ahead_s = 100.0, ahead_s
    state_time = StateTime(clock, at(40))
    assert state_time.since() == min(at(40), clock.now())
    clock.ahead_s = 0.0
    assert (state_time.since(), state_time.age_s) == (at(40), 60.0)


def test_a_small_difference_of_the_clocks_changes_nothing() -> None:
    """Each change of a report is written."""
    clock = TestClock()
    state_time = StateTime(clock, at(-9))
    state_time.begin()
    clock.seconds, clock.ahead_s = 1000.0, 1.5
    assert (state_time.since(), state_time.age_s) == (at(0), 1000.0)
    clock.ahead_s = 2.5
    assert state_time.since() == at(2.5)
