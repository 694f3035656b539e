"""How many writes at once, and how long to wait after a failure."""

import pytest

from controller.core.pacing import LONGEST_BACKOFF_S, RECOVER_AFTER, Pace, backoff_s


def test_an_undisturbed_agent_writes_at_its_maximum() -> None:
    """Success never raises the limit above what the operator allows."""
    pace = Pace.starting_at(8)
    for _ in range(100):
        pace = pace.succeeded()
    assert pace.limit == 8


@pytest.mark.parametrize(("most", "limits"), [(8, [4, 2, 1, 1]), (5, [2, 1, 1]), (1, [1, 1])])
def test_every_conflict_halves_the_limit(most: int, limits: list[int]) -> None:
    """Conflicts halve the number of writes, never below one."""
    pace = Pace.starting_at(most)
    for limit in limits:
        pace = pace.conflicted()
        assert pace.limit == limit


def test_the_limit_recovers_slowly() -> None:
    """Each run of undisturbed writes adds one; a conflict in between starts the run again."""
    pace = Pace.starting_at(4).conflicted()
    for _ in range(RECOVER_AFTER - 1):
        pace = pace.succeeded()
    assert pace.limit == 2
    assert pace.succeeded().limit == 3
    again = pace.conflicted()
    for _ in range(RECOVER_AFTER - 1):
        again = again.succeeded()
    assert again.limit == 1
    assert again.succeeded().limit == 2


def test_every_step_up_takes_a_whole_run() -> None:
    """Ten undisturbed writes for each one more, also for the second and the third."""
    pace, limits = Pace(limit=1, most=4), []
    for _ in range(35):
        pace = pace.succeeded()
        limits.append(pace.limit)
    assert limits == [1] * 9 + [2] * 10 + [3] * 10 + [4] * 6


@pytest.mark.parametrize(
    ("attempts", "full"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 15), (6, 15), (10**6, 15)]
)
def test_back_off_doubles_up_to_a_limit(attempts: int, full: float) -> None:
    """1, 2, 4, 8, then 15 s, spread over the upper half by the jitter."""
    assert backoff_s(attempts, jitter=1) == full
    assert backoff_s(attempts, jitter=0) == full / 2
    assert 0 < backoff_s(attempts, jitter=0.3) <= LONGEST_BACKOFF_S
