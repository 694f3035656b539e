"""`lb-drain test event`: an event that only agents see, through the whole chain of a real one.

It is a set of drain requests, one for each VM, that name the event. The leader adds it to the event
document, with an id that begins with `test-`. From there on it is treated as any event: announced,
drained for at lead time, started at its NotBefore, gone, judged. It cannot be acknowledged, so
nothing about it is sent to Azure, and no VM is restarted.
"""

import asyncio
import uuid
from dataclasses import replace
from datetime import timedelta
from functools import reduce

from controller.core.drain_requests import DrainRequest, DrainRequests, RehearsedEvent
from controller.core.event_record import EventVerdict, Verdict, verdict_text
from controller.core.rehearsals import TEST_PREFIX
from controller.errors import ControllerError, NotDone
from controller.operator.drain_client import LEDGER_INTERVAL_S, DrainClient
from controller.operator.drain_rehearsal import give_up, refuse_busy

JUDGED_WITHIN_S = 120.0
"""How long after the end of the event its verdicts are waited for."""
PASSED = frozenset({Verdict.DRAINED.value, Verdict.IGNORED.value})
"""The verdicts by which a rehearsal has succeeded: policy may ignore the event."""


class EventRehearsal:
    """One test event.

    Args:
        client: requests it and reads how it goes.
        event_type: its type.
        notice_s: how long before its NotBefore it is announced.
        lasts_s: how long after its NotBefore it is gone.
    """

    def __init__(
        self, client: DrainClient, *, event_type: str, notice_s: float, lasts_s: float
    ) -> None:
        self._client, self._event_type = client, event_type
        self._notice_s, self._lasts_s = notice_s, lasts_s

    async def run(self, vms: tuple[str, ...]) -> tuple[EventVerdict, ...]:
        """Announce the event for the VMs; return what became of it when all are in service again.

        Raises:
            NotDone: a VM is drained already or another event names it, or there is no verdict.
            ControllerError: the event could not be announced.
        """
        requests = self._requests(vms)
        ledger = await self._client.read_ledger(requests[0].vm, since=requests[0].at)
        if ledger is None:
            raise NotDone("the ledger cannot be read now: no event was announced")
        for each in requests:
            refuse_busy(ledger, each.vm)
        try:
            await self._client.requests.change(lambda known: reduce(_adding, requests, known))
            verdicts = await self._judged(requests)
        except asyncio.CancelledError:
            await asyncio.shield(give_up(self._client, requests))
            raise
        except ControllerError:
            await give_up(self._client, requests)
            raise
        for each in requests:
            await self._client.wait_until_in_service(each.vm)
        return verdicts

    def _requests(self, vms: tuple[str, ...]) -> tuple[DrainRequest, ...]:
        event: RehearsedEvent | None = None
        made: dict[str, DrainRequest] = {}
        for vm in vms:
            request = self._client.new_request(
                vm,
                for_s=self._notice_s + self._lasts_s,
                reason=f"test of a {self._event_type}",
                test=True,
            )
            event = event or RehearsedEvent(
                event_id=f"{TEST_PREFIX}{uuid.uuid4()}",
                event_type=self._event_type,
                not_before=request.at + timedelta(seconds=self._notice_s),
            )
            made[request.vm] = replace(request, event=event)
        return tuple(made.values())

    async def _judged(self, requests: tuple[DrainRequest, ...]) -> tuple[EventVerdict, ...]:
        """Report how it goes, and return a verdict for each VM."""
        first, event = requests[0], requests[0].event
        if event is None:
            raise AssertionError("a test event without an event")
        self._client.report(
            f"{event.event_type} {event.event_id} is announced to the agents, not before "
            f"{event.not_before:%Y-%m-%d %H:%M:%S} UTC; ^C cancels it."
        )
        vms = [each.vm for each in requests]
        deadline = first.until + timedelta(seconds=JUDGED_WITHIN_S)
        while self._client.now() < deadline:
            ledger = await self._client.read_ledger(*vms, since=first.at, event_id=event.event_id)
            if ledger is not None:
                found = (ledger.verdict(event.event_id, each.vm) for each in requests)
                judged = tuple(each for each in found if each is not None)
                if len(judged) == len(requests):
                    return judged
            await asyncio.sleep(LEDGER_INTERVAL_S)
        raise NotDone(
            f"the leader has not judged {event.event_id}: there is none, or its version is older "
            "and drains the VMs without an event"
        )


def _adding(known: DrainRequests, request: DrainRequest) -> DrainRequests:
    return known.adding(request)


def report_lines(verdicts: tuple[EventVerdict, ...]) -> tuple[str, ...]:
    """Return the verdicts for people to read."""
    return tuple(f"{each.vm}: {each.event_type}: {verdict_text(each)}" for each in verdicts)
