"""Decisions about an event: whether a hold lasts until it begins, and which have no effect."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from controller.core.controls import Decision
from controller.core.drain_history import Step
from controller.core.event_record import WatchedEvent, WatchedVm
from controller.core.ledger import Entry, EventReference, Ledger
from controller.errors import NotDone
from controller.operator.controls import acknowledged_after, announced
from controller.operator.drain_client import DrainClient

UNTIL = datetime(2030, 1, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("after_s", "text"),
    [
        (-60, ""),
        (0, ""),
        (None, ""),
        (
            3600,
            "Its NotBefore is later, 2030-01-08 01:00 UTC: after the hold the leader "
            "acknowledges it as policy requires.",
        ),
    ],
)
def test_an_event_that_begins_after_its_hold(after_s: float | None, text: str) -> None:
    """A hold lasts 7 days at most, and an event of degraded hardware can be announced longer."""
    event = WatchedEvent(
        event_id="E-1",
        event_type="Redeploy",
        first_seen_at=UNTIL - timedelta(days=7),
        not_before=None if after_s is None else UNTIL + timedelta(seconds=after_s),
    )
    assert acknowledged_after(event, UNTIL) == text


ANNOUNCED = WatchedEvent(
    event_id="E-1",
    event_type="Reboot",
    first_seen_at=UNTIL,
    not_before=UNTIL + timedelta(minutes=15),
    vms=(WatchedVm(vm="web-1"),),
)
ACKNOWLEDGED_AT = UNTIL + timedelta(minutes=2)


def client(ledger: Ledger) -> DrainClient:
    """Return a client that reads this ledger."""

    async def read() -> None:
        pass

    return cast("Any", SimpleNamespace(ledger_store=SimpleNamespace(ledger=ledger, read=read)))


def with_entry() -> Ledger:
    reference = EventReference(event_id="e-1", event_type="Reboot", acknowledged_at=ACKNOWLEDGED_AT)
    entry = Entry(
        vm="web-1", vm_id="/vm/web-1", events=(reference,), memberships=(), recorded_at=UNTIL
    )
    return Ledger(events=(ANNOUNCED,), entries=(entry,))


def with_line() -> Ledger:
    ledger = Ledger(events=(ANNOUNCED,))
    return ledger.noting(at=ACKNOWLEDGED_AT, vm="web-1", step=Step.ACKNOWLEDGED, detail="E-1")


@pytest.mark.parametrize("ledger", [with_entry(), with_line()], ids=["entry", "history"])
async def test_what_is_acknowledged_is_not_held(ledger: Ledger) -> None:
    """The command fails: the acknowledgement cannot be taken back. Another event can be held."""
    other = replace(ANNOUNCED, event_id="E-20")
    ledger = replace(ledger, events=(ANNOUNCED, other))
    with pytest.raises(NotDone) as refused:
        await announced(client(ledger), "E-1", Decision.HOLD)
    assert str(refused.value) == (
        "E-1 (Reboot of web-1) was acknowledged at 00:02:00 UTC: Azure can start it at any moment, "
        "and a hold cannot take that back; nothing was changed"
    )
    assert await announced(client(ledger), "E-20", Decision.HOLD) == other
    assert await announced(client(ledger), "E-1", Decision.ACKNOWLEDGE) == ANNOUNCED


async def test_what_no_agent_can_acknowledge_is_refused() -> None:
    """The command fails with the reason; such an event can be held."""
    forwarded = replace(ANNOUNCED, not_acknowledgeable="no document of the leader shows it")
    ledger = Ledger(events=(forwarded,))
    with pytest.raises(NotDone) as refused:
        await announced(client(ledger), "E-1", Decision.ACKNOWLEDGE)
    assert str(refused.value) == (
        "no agent can acknowledge E-1 (Reboot of web-1), because no document of the leader shows "
        "it: Azure starts it at its NotBefore; nothing was changed"
    )
    assert await announced(client(ledger), "E-1", Decision.HOLD) == forwarded
