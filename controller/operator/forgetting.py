"""Giving up what the leader cannot restore: finds it in the ledger, requests it, waits for it.

A request names the entry that the operator saw. What the leader has restored meanwhile, and any
later drain of the VM, are not affected.
"""

import asyncio
from collections.abc import Iterable

from controller.core.azure_names import fold
from controller.core.drain_history import Step, Transition
from controller.core.drain_requests import ForgetRequest
from controller.core.ledger import Entry
from controller.core.planning.actions import HoldReason
from controller.errors import NotDone
from controller.operator.drain_client import LEDGER_INTERVAL_S, DrainClient

_KEPT = frozenset({Step.IN_SERVICE, Step.EXISTS_AGAIN, Step.PLACE_EXISTS_AGAIN})
_GIVEN_UP = frozenset({Step.FORGOTTEN, Step.MEMBERSHIP_DROPPED})


async def absent(client: DrainClient, vm: str) -> Entry:
    """Return the entry of a VM of which something is lost.

    Raises:
        NotDone: nothing is, or the ledger cannot be read.
    """
    ledger = await client.read_ledger(vm, since=client.now())
    if ledger is None:
        raise NotDone("the ledger cannot be read now: nothing was changed")
    entry = ledger.entry(vm)
    held = any(
        fold(hold.subject) == fold(vm) and hold.reason == HoldReason.NOT_IN_SET.value
        for hold in ledger.holds
    )
    if entry is None or not (entry.gone or entry.lost or held):
        raise NotDone(f"nothing of {vm} is lost: nothing was changed")
    return entry


async def forget(client: DrainClient, entry: Entry) -> None:
    """Request that the leader gives up what is absent of this very entry.

    Raises:
        ControllerError: the request could not be written.
    """
    request = ForgetRequest(
        vm=entry.vm, recorded_at=entry.recorded_at, by=client.requester, at=client.now()
    )
    await client.requests.change(lambda requests: requests.forgetting(request))


async def wait_until_forgotten(client: DrainClient, entry: Entry) -> None:
    """Return when the ledger does not contain what is absent of this entry any more.

    Raises:
        NotDone: it exists again, and the leader has restored it, or restores it now.
    """
    since, before = client.now(), frozenset(client.ledger_store.ledger.transitions)
    while True:
        ledger = await client.read_ledger(entry.vm, since=since)
        found = ledger.entry(entry.vm) if ledger is not None else entry
        gone = found is None or found.recorded_at != entry.recorded_at
        if gone or (found is not None and entry.lost and not found.lost):
            lines = client.ledger_store.ledger.transitions
            _refuse_restored(entry.vm, (each for each in lines if each not in before))
            return
        await asyncio.sleep(LEDGER_INTERVAL_S)


def _refuse_restored(vm: str, new: Iterable[Transition]) -> None:
    """Raise NotDone if the new lines of history show a restore, and that nothing is given up."""
    steps = {line.step for line in new if fold(line.vm) == fold(vm)}
    if steps & _KEPT and not steps & _GIVEN_UP:
        raise NotDone(f"{vm} is not forgotten: what was lost exists again, and is restored")
