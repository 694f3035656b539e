"""`lb-drain test drain`: one VM of the real set is drained and restored, and each step is timed.

The leader does what it does before maintenance, under the same laws. Nothing is restarted and no
event is acknowledged. However the command ends, its request ends too, and the leader restores the
VM; if the command is killed, the request ends by itself.
"""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.core.azure_names import fold
from controller.core.drain_history import Episode, Step, episodes
from controller.core.drain_requests import DrainRequest
from controller.core.event_record import length_text
from controller.core.ledger import Ledger
from controller.core.vm_report import VmReport, VmState
from controller.errors import ControllerError, NotDone
from controller.operator.drain_client import DrainClient

NOTICE_S = 900.0
"""The notice that Azure gives before most events."""
WITHDRAW_WITHIN_S = 15.0
"""How long an interrupted test tries to withdraw its request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedStep:
    """One step of a drain that has ended."""

    name: str
    at: datetime
    took_s: float
    """Since the step before it."""
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainTimes:
    """When a test drain took its steps, by the clock of the leader."""

    steps: tuple[TimedStep, ...]
    margin: timedelta
    """How long before NotBefore its event could have been acknowledged."""

    def lines(self, vm: str) -> Iterator[str]:
        """Yield the report, for people to read."""
        yield f"{'step':<10} {'at (UTC)':<9} {'took':>8}"
        for step in self.steps:
            yield f"{step.name:<10} {step.at:%H:%M:%S}  {step.took_s:>6.1f} s  {step.meaning}"
        notice, late = length_text(timedelta(seconds=NOTICE_S)), self.margin < timedelta()
        side = "after" if late else "before"
        yield (
            f"With {notice} of notice, {vm} would have been ready for its event "
            f"{length_text(self.margin)} {side} NotBefore."
        )
        if late:
            yield "That is too late: requests would have been lost. The slow steps are above."


class DrainRehearsal:
    """One test drain.

    Args:
        client: requests the drain and reads how it goes.
        for_s: the request ends by itself after this time.
    """

    def __init__(self, client: DrainClient, *, for_s: float) -> None:
        self._client, self._for_s = client, for_s

    async def run(self, vm: str) -> DrainTimes:
        """Drain and restore a VM; return when it took its steps.

        Raises:
            NotDone: it is drained already, an event for it is announced, or it was not drained.
            ControllerError: the request could not be written.
        """
        request = self._client.new_request(
            vm, for_s=self._for_s, reason="test of a drain", test=True
        )
        ledger = await self._client.read_ledger(request.vm, since=request.at)
        if ledger is None:
            raise NotDone("the ledger cannot be read now: nothing was requested")
        refuse_busy(ledger, request.vm)
        try:
            await self._client.requests.change(lambda requests: requests.adding(request))
            ends = f"{request.until:%Y-%m-%d %H:%M:%S} UTC"
            self._client.report(
                f"Test drain of {request.vm} requested; it ends automatically at {ends}. "
                "^C ends it now."
            )
            pools = await self._client.wait_until_drained(request)
        except asyncio.CancelledError:
            await asyncio.shield(give_up(self._client, (request,)))
            raise
        except ControllerError:
            await give_up(self._client, (request,))
            raise
        return await self._restore(request, pools)

    async def _restore(self, request: DrainRequest, pools: str) -> DrainTimes:
        vm = request.vm
        try:
            report = await self._report(vm)
            withdrawn_at = await withdraw(self._client, (request,))
            self._client.report(f"{vm} is out of {pools}, and its connections had time to end.")
            self._client.report(f"The test drain is withdrawn; the leader restores {vm}.")
        except asyncio.CancelledError:
            await asyncio.shield(give_up(self._client, (request,)))
            raise
        await self._client.wait_until_in_service(vm)
        found = episodes(self._client.ledger_store.ledger.transitions, vm)
        if not found:
            raise NotDone(f"{vm} is in service again; the history does not have its steps any more")
        return drain_times(
            found[-1],
            request,
            report=report,
            withdrawn_at=withdrawn_at,
            connection_drain_s=self._client.connection_drain_s,
            lead_time_s=self._client.policy.lead_time_s,
        )

    async def _report(self, vm: str) -> VmReport | None:
        """Return what the agent of a closed VM reports; None without a report."""
        entry = self._client.ledger_store.ledger.entry(vm)
        report = await self._client.read_report(entry) if entry is not None else None
        return report if report is not None and report.state is VmState.CLOSED else None


async def withdraw(client: DrainClient, requests: tuple[DrainRequest, ...]) -> datetime:
    """End the requests of a rehearsal, however often storage has to be asked; return when."""
    now, ids = client.now(), [each.request_id for each in requests]
    await client.change_with_retry(lambda known: known.ending(ids, at=now, by=client.requester))
    return now


async def give_up(client: DrainClient, requests: tuple[DrainRequest, ...]) -> None:
    """End the requests of a rehearsal that was interrupted or has failed."""
    names = ", ".join(each.vm for each in requests)
    with suppress(ControllerError, TimeoutError):
        async with asyncio.timeout(WITHDRAW_WITHIN_S):
            await withdraw(client, requests)
            client.report(f"The test is withdrawn; what is out is restored: {names}.")
            return
    client.report(
        f"The test could not be withdrawn: it ends automatically at "
        f"{requests[0].until:%Y-%m-%d %H:%M:%S} UTC. To end it now: "
        + "; ".join(client.command("restore", each.vm) for each in requests)
    )


def refuse_busy(ledger: Ledger, vm: str) -> None:
    """Refuse to test a VM that is drained, or that an announced event names.

    Raises:
        NotDone: it is.
    """
    entry = ledger.entry(vm)
    if entry is not None:
        raise NotDone(f"{vm} is being drained or restored already: nothing was requested")
    for event in ledger.events:
        if event.gone_at is None and any(fold(each.vm) == fold(vm) for each in event.vms):
            raise NotDone(
                f"{event.event_type} {event.event_id} is announced for {vm}: nothing was requested"
            )


def drain_times(
    episode: Episode,
    request: DrainRequest,
    *,
    report: VmReport | None,
    withdrawn_at: datetime,
    connection_drain_s: float,
    lead_time_s: float,
) -> DrainTimes:
    """Return when a drain took its steps, and the margin that it would have had.

    Args:
        episode: the history of the drain.
        request: what requested it.
        report: what the agent of the VM reported while it was out and closed; None without one.
        withdrawn_at: when the request ended.
        connection_drain_s: time that connections get to end, if the VM was not quiet.
        lead_time_s: how long before NotBefore a drain begins at the earliest.
    """
    closed_at = report.since if report else episode.first(Step.CLOSED)
    quiet_since = report.quiet_since if report and report.quiet else None
    quiet_at = max(report.since, quiet_since) if report and quiet_since else None
    known = (
        ("recorded", episode.first(Step.RECORDED), "the leader wrote it down"),
        ("closed", closed_at, "the VM takes no new work"),
        ("quiet", quiet_at, "its connections have ended"),
        ("removed", _removed_at(episode), "Azure has removed it from its pools"),
        ("out", episode.first(Step.OUT), "seen out of every pool"),
        ("withdrawn", withdrawn_at, "the test ends, and the restore begins"),
        ("restored", episode.last(Step.RESTORED), "seen in every pool again"),
        ("opened", episode.last(Step.OPENED), "the VM takes new work"),
        ("ready", episode.last(Step.IN_SERVICE), "in service"),
    )
    dated = sorted(((at, name, meaning) for name, at, meaning in known if at), key=lambda e: e[0])
    before, steps = request.at, list[TimedStep]()
    for at, name, meaning in dated:
        took_s = max(0.0, (at - before).total_seconds())  # the clocks of two machines differ
        steps.append(TimedStep(name=name, at=at, took_s=took_s, meaning=meaning))
        before = at
    out_at = episode.first(Step.OUT) or withdrawn_at
    empty_at = out_at if quiet_at else out_at + timedelta(seconds=connection_drain_s)
    begins_before_s = min(NOTICE_S, lead_time_s)
    margin = timedelta(seconds=begins_before_s) - max(timedelta(), empty_at - request.at)
    return DrainTimes(steps=tuple(steps), margin=margin)


def _removed_at(episode: Episode) -> datetime | None:
    """Return when the removal ended; None without one, or if the history does not have it."""
    lines = (line for line in episode.lines if line.step == Step.OUT)
    return next((line.removed_at for line in lines), None)
