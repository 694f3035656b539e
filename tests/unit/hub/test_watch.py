"""The loop: a poll, a failure, a receiver that refuses, and a file that is lost."""

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from controller.core.hub_updates import HubUpdates, UpdateRun
from controller.core.hub_watch import Outcome
from controller.core.notices.notice import Notice, NoticeKind
from controller.errors import Denied, InvariantViolation, ServiceFault
from controller.hub.watch import Watch
from tests.support.clocks import StoppedClock
from tests.support.patience import PATIENCE_S
from tests.unit.hub.test_privileged_endpoint import settings

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_900_000_000.0


class Rig:
    """A watch whose polls and receivers are scripted."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "state.json"
        self.clock = StoppedClock(NOW)
        self.states: list[str | Exception] = []
        """What each poll sees of the only run; the last one stays."""
        self.delivered: list[str] = []
        self.accepts: Callable[[Notice], bool] = lambda _: True
        self.command: tuple[str, ...] = ("/bin/echo", "<A Status='Completed'/>")

    def watch(self, **more: object) -> Watch:
        base = settings(self.command, "ercs01")
        changes = {"state_file": str(self.file), "failed_polls": 2, "poll_s": 1, **more}
        return Watch(
            base.model_copy(update=changes),
            read=self._read,
            deliver=self._deliver,
            clock=self.clock,
        )

    async def _read(self) -> HubUpdates:
        state = self.states[0] if len(self.states) == 1 else self.states.pop(0)
        if isinstance(state, Exception):
            raise state
        if state == "hang":
            await asyncio.Event().wait()
        self.clock.move(1)
        return HubUpdates(updates=(), runs=(UpdateRun(update="M1", name="r1", state=state),))

    async def _deliver(self, notice: Notice) -> bool:
        accepted = self.accepts(notice)
        if accepted:
            self.delivered.append(notice.kind.value)
        return accepted


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def test_state_between_runs_reports_each_change_once(rig: Rig) -> None:
    """Every poll is a new process, as with a timer."""
    outcomes = []
    for state in ("InProgress", "InProgress", "Succeeded", "Succeeded"):
        rig.states = [state]
        watch = rig.watch()
        await watch.poll()
        outcomes.append(watch.outcome)
    assert rig.delivered == ["update_started", "update_succeeded"]
    assert outcomes == [Outcome.IN_PROGRESS] * 2 + [Outcome.SUCCEEDED] * 2


async def test_failed_polls_of_several_processes_count(rig: Rig) -> None:
    """The alarm, then what the privileged endpoint reports; both once."""
    rig.states = ["InProgress"]
    await rig.watch().poll()
    rig.states = [ServiceFault("503")]
    outcomes = []
    for _ in range(6):
        watch = rig.watch()
        await watch.poll()
        outcomes.append(watch.outcome)
    assert rig.delivered == ["update_started", "update_unknown", "update_succeeded"]
    assert outcomes == [Outcome.POLL_FAILED] + [Outcome.UNKNOWN] * 5


@pytest.mark.parametrize("error", [ServiceFault("503"), Denied("403"), "hang"])
async def test_a_poll_fails_in_many_ways(rig: Rig, error: Exception | str) -> None:
    """A refusal or a hanging request is no news of success, whatever was known."""
    rig.states = ["Succeeded"]
    await rig.watch().poll()
    rig.states = [error]
    watch = rig.watch(timeout_s=0.05)
    await watch.poll()
    assert watch.outcome is Outcome.POLL_FAILED
    assert rig.delivered == ["update_succeeded"]


async def test_without_a_second_path_the_alarm_is_all(rig: Rig) -> None:
    """No command, no question."""
    rig.states = [ServiceFault("503")]
    watch = rig.watch(command=(), failed_polls=1)
    await watch.poll()
    assert rig.delivered == ["update_unknown"]


async def test_a_bug_is_not_a_failed_poll(rig: Rig) -> None:
    """It ends the watch."""
    rig.states = [InvariantViolation("bug")]
    with pytest.raises(InvariantViolation):
        await rig.watch().poll()


async def test_a_notice_that_no_channel_accepts_is_sent_later(rig: Rig) -> None:
    """The mail server can run on the Hub; the next process tries again, in order."""
    rig.accepts = lambda _: False
    for state in ("InProgress", "Succeeded"):
        rig.states = [state]
        await rig.watch().poll()
    assert rig.delivered == []
    rig.accepts = lambda _: True
    await rig.watch().poll()
    await rig.watch().poll()
    assert rig.delivered == ["update_started", "update_succeeded"]


async def test_receivers_that_hang_do_not_hold_up_the_polls(rig: Rig) -> None:
    """All that waits for them would take a quarter of an hour at each poll."""
    rig.accepts = lambda _: False
    states = ["InProgress", "Failed"] * 25
    for state in states:
        rig.states = [state]
        await rig.watch().poll()
    began_s = rig.clock.monotonic()

    def hangs(_: Notice) -> bool:
        rig.clock.move(21)
        return False

    rig.accepts = hangs
    watch = rig.watch()
    await watch.poll()
    assert rig.clock.monotonic() - began_s < 90
    rig.accepts = lambda _: True
    await watch.poll()
    assert len(rig.delivered) == len(states)


async def test_what_was_accepted_is_not_repeated_after_a_stop(rig: Rig) -> None:
    """The command ends while it sends the second notice, at every poll."""
    rig.accepts = lambda _: False
    for state in ("InProgress", "Failed"):
        rig.states = [state]
        await rig.watch().poll()

    def ends_at_the_second(notice: Notice) -> bool:
        if notice.kind is NoticeKind.UPDATE_FAILED:
            raise asyncio.CancelledError
        return True

    rig.accepts = ends_at_the_second
    for _ in range(2):
        with pytest.raises(asyncio.CancelledError):
            await rig.watch().poll()
    assert rig.delivered == ["update_started"]


async def test_a_crash_during_the_delivery_loses_nothing(rig: Rig) -> None:
    """The memory is written before a notice is sent."""

    def crash(_: Notice) -> bool:
        raise KeyboardInterrupt

    rig.states, rig.accepts = ["Succeeded"], crash
    with pytest.raises(KeyboardInterrupt):
        await rig.watch().poll()
    rig.accepts = lambda _: True
    await rig.watch().poll()
    assert rig.delivered == ["update_succeeded"]


async def test_a_corrupted_file_repeats_the_newest_run(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """A success that fell into the gap is not lost."""
    rig.states = ["InProgress"]
    await rig.watch().poll()
    rig.file.write_text("{")
    rig.states = ["Succeeded"]
    await rig.watch().poll()
    assert rig.delivered == ["update_started", "update_succeeded"]
    assert "cannot be used" in caplog.text


async def test_a_file_that_cannot_be_written_is_reported(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """The notices are sent all the same; a process that goes on knows what it has reported."""
    rig.file = rig.file.parent / "none" / "state.json"
    rig.states = ["InProgress", "Succeeded", "Succeeded"]
    watch = rig.watch()
    for _ in range(3):
        await watch.poll()
    assert rig.delivered == ["update_started", "update_succeeded"]
    assert "cannot be written" in watch.unsaved
    assert caplog.text.count("cannot be written") == 1


async def test_an_unchanged_poll_writes_nothing(rig: Rig) -> None:
    """A disk is not worn out by a Hub that rests."""
    rig.states = ["Succeeded"]
    watch = rig.watch()
    await watch.poll()
    rig.file.unlink()
    await watch.poll()
    assert not rig.file.exists()


async def test_a_watch_ends_with_the_run(rig: Rig) -> None:
    """It goes on through an outage, and does not end with a run that had ended before."""
    rig.states = ["Failed", "InProgress", ServiceFault("503"), "Succeeded"]
    watch = rig.watch(poll_s=0.0)
    async with asyncio.timeout(30):
        await watch.run()
    assert watch.outcome is Outcome.SUCCEEDED
    assert rig.delivered == ["update_failed", "update_started", "update_succeeded"]


async def test_a_watch_does_not_end_before_the_end_of_the_run_is_reported(rig: Rig) -> None:
    """The mail server was on a VM of the Hub. A receiver that is gone does not keep it for ever."""
    for refused in (3, 1000):
        attempts: list[Notice] = []

        def accepts(notice: Notice, refused: int = refused, seen: list[Notice] = attempts) -> bool:
            seen.append(notice)
            return len(seen) > refused

        rig.file.unlink(missing_ok=True)
        rig.states, rig.accepts, rig.delivered = ["InProgress", "Succeeded"], accepts, []
        watch = rig.watch(poll_s=0)
        async with asyncio.timeout(PATIENCE_S):
            await watch.run()
        accepted = refused < len(attempts)
        assert rig.delivered == (["update_started", "update_succeeded"] if accepted else [])
        assert accepted is (refused == 3)


async def test_a_long_outage_is_logged_until_the_alarm(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """After it, only changes are logged."""
    caplog.set_level(logging.INFO, logger="lbdrain.hub")
    rig.states = [ServiceFault("503")]
    watch = rig.watch()
    for _ in range(9):
        await watch.poll()
    assert caplog.text.count("the poll has failed") == 2
    assert caplog.text.count("the state of the update is unknown") == 1
