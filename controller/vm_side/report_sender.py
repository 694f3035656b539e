"""Sends the report of this VM: when it has changed in what the leader plans by, else rarely."""

import asyncio
import logging
from dataclasses import replace

from controller.core.backoff import backoff_s
from controller.core.vm_report import VmReport, VmState
from controller.errors import ControllerError, retry_wait_s
from controller.observability.logs import log
from controller.storage.vm_report_store import VmReportWriter

logger = logging.getLogger("lbdrain.closing")

SEND_AGAIN_S = 10.0
"""How often the report of a VM that is not open, or could not close, is sent, though nothing has
changed: the leader uses no old report."""
CONNECTIONS_EVERY_S = 2.0
"""How often a change of the number of connections alone is sent."""


class ReportSender:
    """Keeps the newest report and writes it to its blob; `run` is a task."""

    def __init__(self, writer: VmReportWriter) -> None:
        self._writer = writer
        self._newest: VmReport | None = None
        self._sent: VmReport | None = None
        self._changed = asyncio.Event()
        self._failures = 0
        """In a row."""

    def send(self, report: VmReport) -> None:
        """Send this report if it is worth a write; returns at once."""
        self._newest = report
        if self._is_due(report):
            self._changed.set()

    def _is_due(self, report: VmReport) -> bool:
        sent = self._sent
        if sent is None:
            return True
        if _planned_by(sent) != _planned_by(report):
            return True
        # The clock can have been ahead when it was sent: the leader does not use it then.
        age_s = abs((report.at - sent.at).total_seconds())
        if sent.connections != report.connections:
            return age_s >= CONNECTIONS_EVERY_S
        waited_for = report.state is not VmState.OPEN or bool(report.problem)
        return waited_for and age_s >= SEND_AGAIN_S

    async def run(self) -> None:
        """Write reports until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            report = self._newest
            if report is None:
                continue
            try:
                await self._writer.write(report)
            except ControllerError as error:
                self._failures += 1
                if self._failures == 1:
                    message = f"the report of this VM cannot be written: {error}"
                    log(
                        logger,
                        logging.WARNING,
                        message,
                        event="vm_side_failed",
                        vm=report.vm,
                        outcome=error.word(),
                    )
                wait_s = backoff_s(self._failures, jitter=1.0)
                await asyncio.sleep(retry_wait_s(error, at_least_s=wait_s))
                self._changed.set()
            else:
                self._sent, self._failures = report, 0


def _planned_by(report: VmReport) -> VmReport:
    """Return the report without what changes all the time: when, and how many of what."""
    refused = min(report.refused_probes, 1000)
    plain = replace(report, at=report.since, connections=0, refused_probes=refused)
    return plain if report.counted else replace(plain, quiet_since=None)
