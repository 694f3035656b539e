"""The leader dies at a share of its requests in two scenarios; `--crash-points` tries all."""

import math

import pytest

from tests.simulation import crash_points

pytestmark = pytest.mark.slow
EVERY = 5
"""An odd number: both moments of a request take their turn."""


@pytest.mark.parametrize("name", ["one VM", "leader is the victim"])
def test_a_leader_that_dies_at_any_request_is_not_missed(name: str) -> None:
    """Whichever request kills the leader, all laws are kept and the end is the undisturbed one."""
    tried = crash_points.explore(name, jobs=2, every=EVERY)
    assert tried.requests > 30, "the work of a leader has more requests"
    assert tried.points == math.ceil(2 * tried.requests / EVERY)
    assert not tried.broken, "\n".join(tried.broken)
