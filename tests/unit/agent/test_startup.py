"""Between attempts to start an agent waits ever longer, and about as long as Azure asks."""

import pytest

from controller.agent.startup import wait_s
from controller.errors import Denied, Throttled

FIRST_S = 5.0


def test_an_agent_that_cannot_start_reads_ever_less() -> None:
    """H1: a role that is missing for hours costs two attempts a minute, not twelve."""
    denied = Denied("no role", action="", scope="")
    waits = [wait_s(denied, attempts=n, first_s=FIRST_S) for n in (1, 2, 3, 4, 5, 100, 10_000)]
    assert waits == [5, 10, 20, 30, 30, 30, 30]


@pytest.mark.parametrize(("asked_s", "expected"), [(9.0, 9.0), (2.0, 5.0), (1200.0, 60.0)])
def test_what_azure_asks_for_counts_up_to_a_minute(asked_s: float, expected: float) -> None:
    """Something else can work before: the refused request itself is held back."""
    throttled = Throttled("busy", retry_after_s=asked_s)
    assert wait_s(throttled, attempts=1, first_s=FIRST_S) == expected
