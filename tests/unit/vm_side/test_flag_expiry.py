"""A VM opens although its agent cannot start: law S9 without a closing side."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import pytest

from controller.vm_side.flag import Flag
from controller.vm_side.flag_expiry import CHECK_S, FlagExpiry

if TYPE_CHECKING:
    from controller.clock import Clock
    from controller.vm_side.machine import Machine

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
OPEN_AFTER_S = 60.0


class FlaggedMachine:
    """A machine with a flag file."""

    boot_id = "this"

    def __init__(self, *, age_s: float, boot_id: str = "this", problem: str = "") -> None:
        self._problem = problem
        self.found: Flag | None = Flag(
            since=NOW,
            event_type="Reboot",
            not_before=None,
            drain=NOW,
            boot_id=boot_id,
            renewed_at=NOW - timedelta(seconds=age_s),
            age_s=max(0.0, age_s),
            ahead_s=max(0.0, -age_s),
        )

    def flag(self) -> Flag | None:
        return self.found

    def renew_flag(self) -> str:
        if self.found is not None:
            self.found = replace(self.found, renewed_at=NOW, age_s=0.0, ahead_s=0.0)
        return ""

    def clear_flag(self) -> str:
        if not self._problem:
            self.found = None
        return self._problem


@dataclass
class FakeClock:
    """A monotonic clock that the test moves."""

    seconds: float = 1000.0

    def monotonic(self) -> float:
        return self.seconds


def expiry(
    machine: FlaggedMachine,
    *,
    announced: bool = False,
    event: Callable[[], Awaitable[bool]] | None = None,
    clock: FakeClock | None = None,
) -> FlagExpiry:
    async def always() -> bool:
        return announced

    return FlagExpiry(
        cast("Machine", machine),
        open_after_s=OPEN_AFTER_S,
        clock=cast("Clock", clock or FakeClock()),
        announced=event or always,
    )


async def looked(expiring: FlagExpiry) -> bool:
    """Return whether it ends at its first look."""
    task = asyncio.create_task(expiring.run())
    for _ in range(10):
        await asyncio.sleep(0)
    done = task.done()
    task.cancel()
    return done


@pytest.mark.parametrize(
    ("age_s", "opened"), [(59, False), (61, True), (-30, False), (-60, False), (-61, True)]
)
async def test_a_flag_that_nothing_renews_is_removed_after_its_time(
    age_s: float, *, opened: bool
) -> None:
    """S9: after `open_after_s`, by the time of the file. One that lies ahead, because the clock was
    set back, would count from zero at each restart of the agent; the responder ignores it too."""
    machine = FlaggedMachine(age_s=age_s)
    assert await looked(expiry(machine)) is opened
    assert (machine.found is None) is opened


async def test_a_clock_that_is_set_back_keeps_no_vm_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S9: the file then has a time that is still to come; what counts is the time that passes."""
    machine, clock = FlaggedMachine(age_s=10), FakeClock()

    async def wait(seconds: float) -> None:
        clock.seconds += seconds
        assert machine.found is not None
        assert clock.seconds < 1000 + 2 * OPEN_AFTER_S, "the VM stays closed"
        machine.found = replace(machine.found, age_s=0.0)  # by the clock that was set back

    monkeypatch.setattr(asyncio, "sleep", wait)
    await expiry(machine, clock=clock).run()
    assert machine.found is None
    assert clock.seconds == 1000 + OPEN_AFTER_S - 10 + CHECK_S


@pytest.mark.parametrize("age_s", [600, -600])
async def test_a_vm_stays_closed_for_its_own_event(age_s: float) -> None:
    """S9: the event may start at any moment."""
    machine = FlaggedMachine(age_s=age_s)
    assert not await looked(expiry(machine, announced=True))
    assert machine.found is not None


@pytest.mark.parametrize("age_s", [OPEN_AFTER_S - CHECK_S, 600, -600])
async def test_the_flag_is_renewed_until_the_event_is_over(
    age_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S9: the responder compares the time of the file only. The VM opens with the end of the event,
    however lately the flag was renewed for it."""
    machine, clock, announced = FlaggedMachine(age_s=age_s), FakeClock(), True

    async def event() -> bool:
        return announced

    async def wait(seconds: float) -> None:
        nonlocal announced
        clock.seconds += seconds
        assert machine.found is not None
        if announced:
            assert machine.found.renewed_at == NOW
        announced = clock.seconds < 1000 + 4 * CHECK_S

    monkeypatch.setattr(asyncio, "sleep", wait)
    await expiry(machine, clock=clock, event=event).run()
    assert machine.found is None
    assert clock.seconds == 1000 + 4 * CHECK_S


async def test_a_flag_of_an_earlier_boot_is_removed_at_once() -> None:
    """The application of this boot never closed."""
    machine = FlaggedMachine(age_s=1, boot_id="earlier")
    assert await looked(expiry(machine))
    assert machine.found is None


async def test_a_flag_that_cannot_be_removed_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log has the reason."""
    machine = FlaggedMachine(age_s=600, problem="the flag file cannot be removed: denied")
    assert not await looked(expiry(machine))
    assert "cannot be removed" in caplog.text
