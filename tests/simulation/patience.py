"""The laws of time: what has to happen soon enough (S7, L1, L2), and what not at all (H1)."""

from collections.abc import Iterator

from controller.simulator.history import Change

from .truth import PLATFORM, Event, Truth

RECOVERED_S = 30.0
"""After the calm began: a lease that expires, an agent that boots, a back-off that ends."""
TAKE_OVER_S = 25.0
"""For a leader that is a victim to hand over, and for its successor to look around."""
ACKNOWLEDGED_WITHIN_S = 60.0
"""Beyond what the writes take, for an event that nothing holds up."""
READS_WHEN_IDLE = 20
WAITED_TOO_LITTLE_S = 0.5


def s7_in_time(truth: Truth, change: Change) -> Iterator[str]:
    """With ordinary notice in ordinary times every VM is out before the event starts."""
    if change.kind != "event_started":
        return
    event = truth.event_of(change)
    if event is None or event.started_first or not truth.impacting(event):
        return
    if event.acknowledged_by == PLATFORM or not _undisturbed(truth, event):
        return
    needed_s, due_at = truth.needed_s(event) + TAKE_OVER_S, _due_at(truth, event)
    for vm in sorted(event.resources & truth.peers - truth.gone):
        if change.at - max(due_at, truth.released_at.get(vm, due_at)) < needed_s:
            continue  # the floor let it go too late
        for pool, member in truth.inside(vm):
            if member.in_by != "people" and not _held(truth, vm):
                yield f"{vm} still stands in {pool.rsplit('/', 1)[-1]} at the start"


def _undisturbed(truth: Truth, event: Event) -> bool:
    return event.published_at > truth.calm_at + RECOVERED_S


def _due_at(truth: Truth, event: Event) -> float:
    lead_s = float(str(truth.scenario.policy.get("lead_time_s", 900)))
    waits = event.source != "User"
    return max(event.published_at, event.not_before - lead_s if waits else 0.0)


def _held(truth: Truth, vm: str) -> bool:
    """Tell whether the ledger says aloud that the floor keeps this VM in."""
    return any(
        hold["subject"].casefold() == vm and hold["reason"] in ("floor", "write_failed")
        for hold in truth.ledger.get("holds", [])
    )


def l1_converge(truth: Truth, change: Change) -> Iterator[str]:
    """Once nothing goes wrong any more: one leader, everything restored, nothing left to do."""
    if change.kind != "not_converged":
        return
    entries = [entry["vm"] for entry in truth.ledger.get("entries", [])]
    yield f"leader {truth.holder or 'nobody'}, entries {entries}"


def l2_progress(truth: Truth, change: Change) -> Iterator[str]:
    """Every event that can be acknowledged is acknowledged."""
    if change.kind not in ("event_cancelled", "event_started"):
        return
    event = truth.event_of(change)
    policy = truth.scenario.policy
    if event is None or event.acknowledged_at is not None or event.started_first:
        return
    if not policy.get("acknowledge", True) or event.event_type in ("Preempt", "Terminate"):
        return
    if not truth.impacting(event) or not event.resources <= truth.peers - truth.gone:
        return
    since = max(_due_at(truth, event), truth.calm_at + RECOVERED_S)
    if change.at - since < truth.needed_s(event) + ACKNOWLEDGED_WITHIN_S:
        return
    if not any(_held(truth, vm) or truth.unmanaged(vm) for vm in event.resources):
        yield "nobody acknowledged it"


def h1_quiet(truth: Truth, change: Change) -> Iterator[str]:
    """An idle set writes nothing, reads little and says nothing; who is told to wait waits."""
    if change.kind == "sent" and change.detail["service"] == "arm":
        until = truth.told_to_wait.get(_request(change), 0.0)
        if change.at < until - WAITED_TOO_LITTLE_S:
            yield f"{change.detail['vm']} was told to wait {until - change.at:.1f} s longer"
    if change.at <= truth.converged_at or truth.ledger.get("entries") or truth.parting:
        return
    match change.kind:
        case "sent" if change.detail["service"] == "arm":
            if change.detail["method"] == "PUT":
                yield "an idle set writes"
        case "blob_written":
            yield "an idle set writes its ledger"
        case "log" if change.subject == truth.holder:
            # A former leader may still learn how its last request ended.
            yield f"an idle set says {change.detail['message']}"
        case "goodbye":
            if truth.idle_reads > READS_WHEN_IDLE:
                yield f"an idle set read {truth.idle_reads} times in {truth.scenario.idle_s:.0f} s"
        case _:
            pass


def _request(change: Change) -> tuple[str, str, str]:
    return str(change.detail["vm"]), str(change.detail["method"]), change.subject.casefold()
