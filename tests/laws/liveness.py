"""The laws of time: what has to happen soon enough (S7, L1, L2), and what not at all (H1)."""

from collections.abc import Iterator

from controller.simulator.world.history import Change
from tests.laws.ledger_document import (
    CONVERSION_FOUND,
    END_REPORTED,
    is_presence,
    only_names_set,
    only_states_ends,
    parsed,
)
from tests.laws.replay import PLATFORM, Event, Replay

RECOVERED_S = 30.0
"""After the calm began: a lease that expires, an agent that boots, a back-off that ends."""
TAKE_OVER_S = 25.0
"""For a leader that is drained to release its lease, and for its successor to read the set."""
SEEN_OUT_EVERY_S = 30.0
"""How often an agent reads the pools of a VM that is out, while an event is announced."""
ACKNOWLEDGED_WITHIN_S = 60.0
"""Beyond what the writes take, for an event that nothing delays."""
READS_WHEN_IDLE = 20
WAITED_TOO_LITTLE_S = 0.5


def _left_by_its_probe(replay: Replay, vm: str, at: float) -> bool:
    """Return whether a VM that leaves rotation by closing alone has closed, as its pools know."""
    state = replay.closed.closed.get(vm)
    return _only_closes(replay) and state is not None and state.noticed_at <= at


def _only_closes(replay: Replay) -> bool:
    """Return whether a VM leaves rotation only by what its own agent does."""
    return replay.conditions.policy.get("mechanism") == "probe"


def _unable_itself(replay: Replay, vm: str) -> bool:
    """Return whether only its own agent can take a VM out, and is unable for good."""
    return _only_closes(replay) and vm in replay.conditions.unable


def s7_in_time(replay: Replay, change: Change) -> Iterator[str]:
    """With ordinary notice in ordinary times every VM is out before the event starts.

    With `mechanism = "probe"` out means closed, with probes that have failed.
    A history without requests has ordinary notice and no floor that delays an event, or its test
    does not apply this law.
    """
    if change.kind != "event_started":
        return
    event = replay.event_of(change)
    if event is None or event.started_first or event.published_at == change.at:
        return
    if not replay.conditions.requests_recorded:
        for vm in sorted(event.resources):
            for pool, _ in replay.inside(vm):
                yield f"{vm} still was in {pool.rsplit('/', 1)[-1]} at the start"
        return
    if not replay.impacting(event) or _none_able(replay, event):
        return
    if event.acknowledged_by == PLATFORM or not _undisturbed(replay, event):
        return
    needed_s, due_at = replay.needed_s(event) + TAKE_OVER_S, _due_at(replay, event)
    for vm in sorted(event.resources & replay.conditions.peers - replay.gone):
        if change.at - max(due_at, replay.released_at.get(vm, due_at)) < needed_s:
            continue  # the floor released it too late
        if _left_by_its_probe(replay, vm, change.at) or _unable_itself(replay, vm):
            continue
        for pool, member in replay.inside(vm):
            since = member.moved_at + SEEN_OUT_EVERY_S if member.in_by == "people" else due_at
            if change.at - since >= needed_s and not _held(replay, vm):
                yield f"{vm} still was in {pool.rsplit('/', 1)[-1]} at the start"


def _undisturbed(replay: Replay, event: Event) -> bool:
    return event.published_at > replay.calm_at + RECOVERED_S


def _none_able(replay: Replay, event: Event) -> bool:
    """Return whether every VM that sees an event is down, with its agent, or cut off from Azure."""
    awake = replay.closed.awake_since.keys() - replay.conditions.unable
    able = any(replay.conditions.shows(vm, event.resources) for vm in awake)
    return replay.conditions.requests_recorded and not able


def _due_at(replay: Replay, event: Event) -> float:
    lead_s = float(str(replay.conditions.policy.get("lead_time_s", 900)))
    waits = event.source != "User"
    return max(event.published_at, event.not_before - lead_s if waits else 0.0)


def _held(replay: Replay, vm: str) -> bool:
    """Return whether the ledger records that something keeps this VM in rotation."""
    return any(
        hold["subject"].casefold() == vm and hold["reason"] in ("floor", "write_failed")
        for hold in replay.last_ledger.get("holds", [])
    )


def _lost(replay: Replay, vm: str) -> bool:
    """Return whether the ledger records that a VM lost its place in every pool: an alarm."""
    return any(
        entry["vm"].casefold() == vm and entry.get("lost") and not entry["memberships"]
        for entry in replay.last_ledger.get("entries", [])
    )


def l1_converge(replay: Replay, change: Change) -> Iterator[str]:
    """Once nothing goes wrong any more: one leader, everything restored, nothing left to do."""
    if change.kind != "not_converged":
        return
    entries = [entry["vm"] for entry in replay.last_ledger.get("entries", [])]
    yield f"leader {replay.holder or 'none'}, entries {entries}"


def l2_progress(replay: Replay, change: Change) -> Iterator[str]:
    """Every event that can be acknowledged is acknowledged.

    A leader that sees an event only because an agent forwards it can acknowledge nothing.
    """
    if change.kind not in ("event_cancelled", "event_started"):
        return
    event = replay.event_of(change)
    policy = replay.conditions.policy
    if event is None or event.acknowledged_at is not None or event.started_first:
        return
    if _none_able(replay, event):
        return
    if not policy.get("acknowledge", True) or event.event_type in ("Preempt", "Terminate"):
        return
    if not replay.impacting(event) or not event.resources <= replay.conditions.peers - replay.gone:
        return
    since = max(_due_at(replay, event), replay.calm_at + RECOVERED_S)
    since = max(since, _uncovered_until(replay, event))
    if change.at - since < replay.needed_s(event) + ACKNOWLEDGED_WITHIN_S:
        return
    excused = (
        _held(replay, vm)
        or _lost(replay, vm)
        or _unable_itself(replay, vm)
        or (_only_closes(replay) and vm in replay.conditions.never_quiet)
        for vm in event.resources
    )
    if not any(excused) and not any(map(replay.unmanaged, event.resources)):
        yield "no agent acknowledged it"


def _uncovered_until(replay: Replay, event: Event) -> float:
    """Return when the last leader ended whose document does not show an event."""
    shows = replay.conditions.shows
    return max(
        (each.until for each in replay.tenures if not shows(each.holder, event.resources)),
        default=0.0,
    )


def h1_quiet(replay: Replay, change: Change) -> Iterator[str]:
    """An idle set writes nothing, reads little and logs nothing; agents wait when Azure asks.

    Nothing announces that Azure converts the set: the inventory that finds it can be due only when
    the set is idle, and its leader then says so once.
    """
    if change.kind == "sent" and change.detail["service"] == "arm":
        until = replay.wait_until.get(_request(change), 0.0)
        doubled = change.detail["vm"] in replay.doubled
        if change.at < until - WAITED_TOO_LITTLE_S and not doubled:
            yield f"{change.detail['vm']} was asked to wait {until - change.at:.1f} s longer"
    if change.at <= replay.converged_at or replay.last_ledger.get("entries") or replay.parting:
        return
    awake = replay.closed.awake_since.keys()
    if awake and awake <= replay.conditions.unable:
        return  # what an unable agent cannot finish, it goes on with
    match change.kind:
        case "sent" if change.detail["service"] == "arm":
            if change.detail["method"] == "PUT":
                yield "an idle set writes"
        case "blob_written" if not is_presence(change.subject):
            before, body = replay.last_ledger, str(change.detail["body"])
            named = replay.conversion_unread and only_names_set(before, body)
            # An agent that could not reach storage withdraws late what does not count any more.
            withdrawn = change.subject.endswith(".events.json") and not parsed(body).get("events")
            if not named and not withdrawn and not only_states_ends(before, body):
                yield "an idle set writes a blob"
        case "log" if change.subject == replay.holder and not _may_be_logged(replay, change):
            # A former leader may still learn how its last request ended.
            yield f"an idle set logs {change.detail['message']}"
        case "goodbye":
            if replay.idle_reads > READS_WHEN_IDLE:
                within = f"{replay.conditions.idle_s:.0f} s"
                yield f"an idle set read {replay.idle_reads} times in {within}"
        case _:
            pass


def _may_be_logged(replay: Replay, change: Change) -> bool:
    message = str(change.detail["message"])
    found = replay.conversion_unread and CONVERSION_FOUND in message
    return found or END_REPORTED in message


def _request(change: Change) -> tuple[str, str, str]:
    return str(change.detail["vm"]), str(change.detail["method"]), change.subject.casefold()
