"""The law of verdicts: each event and VM has one, and it agrees with what truly happened (V1)."""

import math
from collections import Counter
from collections.abc import Iterator

from controller.simulator.world.bodies import Json
from controller.simulator.world.history import Change
from tests.laws.ledger_document import is_ledger_write, parsed
from tests.laws.replay import Event, Replay

JUDGED_WITHIN_S = 15.0
"""Two clean polls and a pass after an event has left the document, its verdict is written."""


def v1_verdict(replay: Replay, change: Change) -> Iterator[str]:
    """In the end every event has one verdict for each VM, and none contradicts the history.

    At no time does a verdict state the end of an event that its agent reads as announced.
    """
    if is_ledger_write(change) and change.detail["body"]:
        yield from _early_ends(replay, change)
    if change.kind != "converged":
        return
    verdicts: list[Json] = replay.last_ledger.get("verdicts", [])
    given = Counter((each["event_id"].casefold(), each["vm"].casefold()) for each in verdicts)
    for (event_id, vm), count in given.items():
        if count > 1:
            yield f"event {event_id} has {count} verdicts for {vm}"
    for event in replay.events:
        if event.over_at is None or change.at < event.over_at + JUDGED_WITHIN_S:
            continue
        for vm in sorted(event.resources):
            mine = [
                each
                for each in verdicts
                if each["event_id"].casefold() in event.ids and each["vm"].casefold() == vm
            ]
            yield from _of_one(replay, event, vm, mine)


def _early_ends(replay: Replay, change: Change) -> Iterator[str]:
    write = replay.write_of(change)
    good = [poll for poll in (write.polls if write else ()) if poll.good]
    known = {(each["event_id"], each["vm"]) for each in _ended(replay.last_ledger)}
    for verdict in _ended(parsed(str(change.detail["body"]))):
        new = (verdict["event_id"], verdict["vm"]) not in known
        if new and good and verdict["event_id"].casefold() in good[-1].events:
            yield f"states the end of event {verdict['event_id']}, which goes on"


def _ended(ledger: Json) -> list[Json]:
    return [each for each in ledger.get("verdicts", []) if each.get("end")]


def _of_one(replay: Replay, event: Event, vm: str, verdicts: list[Json]) -> Iterator[str]:
    led = (
        replay.held_until > (event.over_at or 0.0) + JUDGED_WITHIN_S
        # The last able VM of the set can be deleted with its agent.
        and replay.closed.awake_since.keys() - replay.conditions.unable
    )
    ordinary = led and event.published_at > replay.calm_at + 30.0 and len(event.ids) == 1
    known = event.read or not replay.conditions.requests_recorded
    # Only agents of VMs that are out may see an event, and lack the access to forward it.
    known = known and not (replay.conditions.placement_groups and event.started_at is None)
    if ordinary and known and not verdicts:
        yield f"no verdict on event {min(event.ids)} for {vm}"
    if len(event.ids) > 1 or replay.conditions.stale_reads:
        return  # to an agent an event with another id is another event
    for verdict in verdicts:
        found = str(verdict["verdict"])
        if _contradicted(replay, event, vm, found):
            yield f"{vm} has the verdict {found} of {min(event.ids)}, but {_truth(event, vm)}"


def _contradicted(replay: Replay, event: Event, vm: str, verdict: str) -> bool:
    """Return whether the history contradicts a verdict."""
    begun, started_at = event.started_at is not None, event.started_at or -math.inf
    match verdict:
        case "cancelled":
            return event.read_started
        case "ignored":
            return replay.impacting(event)
        case "drained":
            # What begins before NotBefore shows only to an agent that reads its start.
            shown = event.read_started or started_at >= event.not_before
            return begun and shown and vm in event.inside_for_long
        case "hit_in_rotation":
            return begun and vm in event.proven_out - event.inside_at_start - event.inside_later
        case _:
            return False


def _truth(event: Event, vm: str) -> str:
    if event.started_at is None:
        return "it never began"
    return f"{vm} {'was' if vm in event.inside_at_start else 'was not'} in a pool when it began"
