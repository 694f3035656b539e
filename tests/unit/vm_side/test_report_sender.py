"""What the agent of a VM writes of its reports."""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from controller.core.vm_report import VmReport, VmState
from controller.errors import ControllerError, Denied, Throttled
from controller.vm_side.report_sender import SEND_AGAIN_S, ReportSender
from tests.support.planner_scenario import at

if TYPE_CHECKING:
    from controller.storage.vm_report_store import VmReportWriter

OPEN = VmReport(vm="web-1", boot_id="boot", state=VmState.OPEN, since=at(0), at=at(0), drain=at(0))


class MemoryWriter:
    """Keeps what was written."""

    def __init__(self) -> None:
        self.written: list[VmReport] = []

    async def write(self, report: VmReport) -> None:
        self.written.append(report)


@pytest.mark.parametrize(
    ("report", "again"),
    [
        (OPEN, False),
        (replace(OPEN, state=VmState.CLOSED), True),
        (replace(OPEN, state=VmState.OPENING), True),
        (replace(OPEN, problem="the flag file /run/x cannot be written"), True),
    ],
    ids=["open", "closed", "opening", "could not close"],
)
async def test_a_report_that_the_leader_waits_for_stays_current(
    report: VmReport, *, again: bool
) -> None:
    """It is written again after a while, though nothing has changed; never at each step."""
    writer = MemoryWriter()
    sender = ReportSender(cast("VmReportWriter", writer))
    running = asyncio.create_task(sender.run())
    steps = int(SEND_AGAIN_S)
    for second in range(steps + 1):
        sender.send(replace(report, at=at(second)))
        for _ in range(3):
            await asyncio.sleep(0)
    running.cancel()
    assert [each.at for each in writer.written] == [at(0), at(steps)][: 2 if again else 1]


async def test_a_report_of_a_clock_that_was_ahead_is_written_again() -> None:
    """The leader uses no report from the future, and would wait for as long as it was ahead."""
    writer = MemoryWriter()
    sender = ReportSender(cast("VmReportWriter", writer))
    running = asyncio.create_task(sender.run())
    closed = replace(OPEN, state=VmState.CLOSED, since=at(0))
    for seconds in (3600, 2):
        sender.send(replace(closed, at=at(seconds)))
        for _ in range(3):
            await asyncio.sleep(0)
    running.cancel()
    assert [each.at for each in writer.written] == [at(3600), at(2)]


@pytest.mark.parametrize(
    ("failure", "waits"),
    [
        (Denied("403"), [1, 2, 4, 8, 15, 15]),
        (Throttled("503", retry_after_s=10), [10, 10, 10, 10, 15, 15]),
    ],
    ids=["denied", "throttled"],
)
async def test_a_report_that_cannot_be_written_waits_ever_longer(
    failure: ControllerError, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every VM of the set writes one, also while none is drained."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == len(waits):
            raise asyncio.CancelledError

    class Refused:
        async def write(self, _report: VmReport) -> None:
            raise failure

    monkeypatch.setattr("controller.vm_side.report_sender.asyncio.sleep", sleep)
    sender = ReportSender(cast("VmReportWriter", Refused()))
    sender.send(OPEN)
    with pytest.raises(asyncio.CancelledError):
        await sender.run()
    assert slept == waits
