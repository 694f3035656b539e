"""When to try again what failed."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from controller.agent.retry_schedule import LOG_EVERY, SPREAD_S, BackoffTable
from controller.core.action_keys import ActionKey
from controller.core.backoff import ROUTINE_FAILURES
from controller.errors import Conflict, ControllerError, ServiceFault, Throttled
from tests.support.clocks import StoppedClock

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
WRITE_A, WRITE_B = ActionKey("write", "a"), ActionKey("write", "b")


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


class Bench:
    """A table, its clock, and how often it has asked for a pass."""

    def __init__(self) -> None:
        self.clock, self.woken = StoppedClock(NOW.timestamp()), 0
        self.table = BackoffTable(self.clock, entropy=random.Random(1), on_failure=self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def fail(self, key: ActionKey = WRITE_A, error: ControllerError | None = None) -> None:
        self.table.failed(key, error or ServiceFault("503"), what="write a")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_corrected_wall_clock_shortens_no_wait(bench: Bench) -> None:
    """What Azure asked for is counted in seconds that passed; the instant moves with the clock."""
    bench.table.defer(WRITE_A, wait_s=9, reason="Throttled")
    bench.clock.passed_s, bench.clock.wall_error_s = 3, 6
    assert bench.table.active[WRITE_A].until == later(15)


def test_failures_are_counted_in_a_row(bench: Bench) -> None:
    """Each key has its own count, which a success resets."""
    for _ in range(3):
        bench.fail()
    bench.fail(WRITE_B)
    assert bench.table.failures == {WRITE_A: 3, WRITE_B: 1}
    bench.table.clear(WRITE_A)
    assert bench.table.failures == {WRITE_B: 1}
    bench.fail()
    assert bench.table.failures == {WRITE_A: 1, WRITE_B: 1}


def test_a_deferral_ends_when_it_is_due(bench: Bench) -> None:
    """A key that is due again is not deferred; how often it failed stays known."""
    bench.fail(error=Throttled("busy", retry_after_s=5))
    bench.clock.passed_s = 4.9
    assert WRITE_A in bench.table.active
    bench.clock.passed_s = 5 + SPREAD_S
    assert bench.table.active == {}
    assert bench.table.failures == {WRITE_A: 1}


def test_a_failure_waits_as_asked_or_ever_longer(bench: Bench) -> None:
    """Retry-After decides where there is one; otherwise the wait doubles."""
    waits: list[float] = []
    for _ in range(3):
        bench.fail()
        waits.append((bench.table.active[WRITE_A].until - NOW).total_seconds())
    assert all(full / 2 <= wait <= full for full, wait in zip((1, 2, 4), waits, strict=True))
    bench.fail(error=ServiceFault("503", retry_after_s=60))
    assert later(60) <= bench.table.active[WRITE_A].until <= later(60 + SPREAD_S)


def test_a_retry_after_of_zero_asks_for_no_wait(bench: Bench) -> None:
    """The back-off applies: otherwise a service that throttles gets several requests a second."""
    for full in (1, 2, 4):
        bench.fail(error=Throttled("429", retry_after_s=0))
        wait = (bench.table.active[WRITE_A].until - NOW).total_seconds()
        assert full / 2 <= wait <= full


def test_every_failure_asks_for_a_pass(bench: Bench) -> None:
    """The planner learns of a failure at once."""
    bench.fail()
    bench.fail()
    assert bench.woken == 2


def test_conflicts_are_routine_until_they_last(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A conflict carries no message and no warning before it has occurred often in a row."""
    caplog.set_level("INFO")
    for _ in range(ROUTINE_FAILURES - 1):
        bench.fail(error=Conflict("412"))
        assert bench.table.active[WRITE_A].message == ""
    assert [record.levelname for record in caplog.records] == ["INFO"]
    bench.fail(error=Conflict("412"))
    assert bench.table.active[WRITE_A].message == "write a: 412"
    for _ in range(LOG_EVERY - ROUTINE_FAILURES):
        bench.fail(error=Conflict("412"))
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
