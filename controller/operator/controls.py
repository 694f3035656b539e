"""Controls of the whole set in the name of one user: set them, and withdraw them."""

import asyncio
import uuid
from contextlib import suppress
from datetime import datetime, timedelta

from controller.core.azure_names import fold
from controller.core.controls import Control, Controls, Decision, EventControl, HandOver, Pause
from controller.core.event_record import WatchedEvent
from controller.core.lease import current_leader
from controller.core.ledger import Ledger
from controller.core.rehearsals import is_test
from controller.errors import ControllerError, NotDone
from controller.operator.drain_client import LEDGER_INTERVAL_S, DrainClient
from controller.operator.request_client import LONGEST_TEXT

SHORTEST_ID = 4
"""How many characters of the id of an event are enough, if no other event begins with them."""
HAND_OVER_S = 60.0
"""How long a request for another leader is in force, in seconds."""


async def pause(client: DrainClient, *, for_s: float, reason: str) -> Pause:
    """Pause removals of the set; replaces the pause that is in force.

    Raises:
        ControllerError: the controls could not be written.
    """
    now = client.now()
    wanted = Pause(
        by=client.requester,
        reason=reason[:LONGEST_TEXT],
        at=now,
        until=now + timedelta(seconds=for_s),
    )
    before: Control | None = None

    def with_it(controls: Controls) -> Controls:
        nonlocal before
        before = other_than(wanted, controls.in_force(now).pause) or before
        return controls.in_force(now).with_pause(wanted)

    await client.controls.change(with_it)
    report_replaced(client, before)
    return wanted


def other_than(wanted: Control, found: Control | None) -> Control | None:
    """Return the control that another operator has set; None if there is none."""
    return found if found is not None and found.by != wanted.by else None


def report_replaced(client: DrainClient, before: Control | None) -> None:
    """Report the control of another operator that was replaced."""
    if before is not None:
        client.report(f"This replaces: {before}.")


async def resume(client: DrainClient) -> Pause:
    """End the pause of the set, and return it.

    Raises:
        NotDone: the set is not paused.
        ControllerError: the controls could not be written.
    """
    now, ended = client.now(), None

    def without(controls: Controls) -> Controls:
        nonlocal ended
        ended = controls.in_force(now).pause or ended
        return controls.in_force(now).with_pause(None)

    await client.controls.change(without)
    if ended is None:
        raise NotDone("the set is not paused: nothing was changed")
    return ended


# --- decisions about an event ---


async def announced(client: DrainClient, event_id: str, decision: Decision) -> WatchedEvent:
    """Return the announced event that an id, or its first characters, names.

    Args:
        client: the client of the set.
        event_id: its id, or the first characters of it.
        decision: what shall be decided about it.

    Raises:
        NotDone: the leader knows no such event that has not started, or several, or it is a test,
            or the decision would change nothing.
        ControllerError: the ledger could not be read.
    """
    await client.ledger_store.read()
    ledger = client.ledger_store.ledger
    events = [each for each in ledger.events if each.gone_at is None and each.started_at is None]
    exact = [each for each in events if fold(each.event_id) == fold(event_id)]
    begun = [each for each in events if fold(each.event_id).startswith(fold(event_id))]
    found = exact or (begun if len(event_id) >= SHORTEST_ID else [])
    if len(found) == 1 and is_test(found[0].event_id):
        raise NotDone(
            f"{found[0].event_id} is a test, which Azure does not know: it is never acknowledged; "
            "nothing was changed"
        )
    if len(found) == 1:
        if problem := _without_effect(ledger, found[0], decision):
            raise NotDone(f"{problem}; nothing was changed")
        return found[0]
    known = ", ".join(map(event_text, events)) or "none"
    problem = "several announced events begin with" if found else "no announced event has the id"
    raise NotDone(f"{problem} {event_id}: nothing was changed. Announced: {known}")


def _without_effect(ledger: Ledger, event: WatchedEvent, decision: Decision) -> str:
    """Return why a decision about an event would change nothing; empty if it would."""
    if decision is Decision.ACKNOWLEDGE:
        if not event.not_acknowledgeable:
            return ""
        return (
            f"no agent can acknowledge {event_text(event)}, because {event.not_acknowledgeable}: "
            "Azure starts it at its NotBefore"
        )
    at = ledger.acknowledgement_of(event, ledger.acknowledged_at())
    if at is None:
        return ""
    return (
        f"{event_text(event)} was acknowledged at {at:%H:%M:%S} UTC: Azure can start it at any "
        "moment, and a hold cannot take that back"
    )


def event_text(event: WatchedEvent) -> str:
    """Return an event with its type and its VMs."""
    return f"{event.event_id} ({event.event_type} of {', '.join(each.vm for each in event.vms)})"


def acknowledged_after(event: WatchedEvent, until: datetime) -> str:
    """Return that an event begins after the end of its hold; empty if it does not."""
    if event.not_before is None or event.not_before <= until:
        return ""
    return (
        f"Its NotBefore is later, {event.not_before:%Y-%m-%d %H:%M} UTC: after the hold the leader "
        "acknowledges it as policy requires."
    )


def in_rotation(ledger: Ledger, event: WatchedEvent) -> tuple[str, ...]:
    """Return the VMs of an event that the ledger does not record as out of rotation."""
    entries = {each.vm: ledger.entry(each.vm) for each in event.vms}
    return tuple(vm for vm, entry in entries.items() if entry is None or entry.out_at is None)


async def decide(
    client: DrainClient,
    event: WatchedEvent,
    decision: Decision,
    *,
    for_s: float,
    reason: str,
    forced: bool = False,
) -> EventControl:
    """Decide about the acknowledgement of an event; replaces a decision that is in force.

    Raises:
        ControllerError: the controls could not be written.
    """
    now = client.now()
    control = EventControl(
        event_id=event.event_id,
        decision=decision,
        forced=forced,
        by=client.requester,
        reason=reason[:LONGEST_TEXT],
        at=now,
        until=now + timedelta(seconds=for_s),
    )
    before: Control | None = None

    def deciding(controls: Controls) -> Controls:
        nonlocal before
        known = controls.in_force(now)
        before = other_than(control, known.of_event(event.event_id)) or before
        return known.deciding(control)

    await client.controls.change(deciding)
    report_replaced(client, before)
    return control


async def withdraw(client: DrainClient, event_id: str, decision: Decision) -> EventControl:
    """Withdraw a decision about an event, and return it; the event need not be announced.

    Raises:
        NotDone: there is no such decision, or there are several.
        ControllerError: the controls could not be written.
    """
    now, ended, several = client.now(), None, ""

    def without(controls: Controls) -> Controls:
        nonlocal ended, several
        known = controls.in_force(now)
        same = [each for each in known.events if each.decision == decision]
        exact = [each for each in same if fold(each.event_id) == fold(event_id)]
        begun = [each for each in same if fold(each.event_id).startswith(fold(event_id))]
        found = exact or (begun if len(event_id) >= SHORTEST_ID else [])
        several = ", ".join(each.event_id for each in found) if len(found) > 1 else ""
        if len(found) != 1:
            return known
        ended = found[0]
        return known.without_decision(ended.event_id)

    await client.controls.change(without)
    if several:
        raise NotDone(
            f"several decisions to {decision} begin with {event_id}: {several}; nothing was changed"
        )
    if ended is None:
        raise NotDone(f"no {decision} of event {event_id} is in force: nothing was changed")
    return ended


# --- hand-over ---


async def hand_over(client: DrainClient, vm: str, *, reason: str) -> str:
    """Request that another VM leads, wait until one does, and return its name.

    Args:
        client: the client of the set.
        vm: the VM that should lead; empty for any other than the leader.
        reason: why.

    Raises:
        NotDone: the set has no leader, the VM leads already, or no other agent took the lease.
        ControllerError: the controls could not be written.
    """
    await client.ledger_store.read()
    before = client.ledger_store.ledger
    leader = current_leader(before, lease_state=client.ledger_store.lease_state)
    wanted = client.canonical_name(vm) if vm else ""
    if not leader:
        raise NotDone("the set has no leader that could hand over: nothing was changed")
    if fold(wanted) == fold(leader):
        raise NotDone(f"{leader} leads already: nothing was changed")
    now = client.now()
    request = HandOver(
        request_id=str(uuid.uuid4()),
        leader=leader,
        vm=wanted,
        by=client.requester,
        reason=reason[:LONGEST_TEXT],
        at=now,
        until=now + timedelta(seconds=HAND_OVER_S),
    )
    try:
        await client.controls.change(lambda known: known.in_force(now).with_hand_over(request))
        return await _new_leader(client, before)
    finally:
        # It would end by itself; until then it would keep the VM from leading again.
        with suppress(ControllerError):
            await client.controls.change(lambda controls: _without(controls, request))


def _without(controls: Controls, request: HandOver) -> Controls:
    same = controls.hand_over and controls.hand_over.request_id == request.request_id
    return controls.with_hand_over(None) if same else controls


async def _new_leader(client: DrainClient, before: Ledger) -> str:
    """Return the VM that leads in a later epoch."""
    deadline = client.monotonic() + HAND_OVER_S
    while client.monotonic() < deadline:
        try:
            await client.ledger_store.read()
        except ControllerError as error:
            client.report_once(f"The ledger cannot be read now, retrying: {error}")
        ledger, state = client.ledger_store.ledger, client.ledger_store.lease_state
        leader = current_leader(ledger, lease_state=state)
        if leader and ledger.epoch > before.epoch:
            if fold(leader) != fold(before.leader):
                return leader
            raise NotDone(f"no other agent took the lease: {leader} leads again")
        await asyncio.sleep(LEDGER_INTERVAL_S)
    raise NotDone(
        f"{before.leader} has not handed over within {HAND_OVER_S:.0f} s: its agent has an older "
        "version, or cannot read the controls of the set"
    )
