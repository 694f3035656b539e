"""State as JSON: how events, holds, entries, phases and the history are spelled, everywhere.

`/status` and the overview are built from these. Instants are ISO
8601 in UTC, to the millisecond.

Pure: no I/O, no clock.
"""

from datetime import UTC, datetime

from controller.core.controls import Control
from controller.core.drain_history import Transition, step_text
from controller.core.drain_requests import DRAIN_REQUEST, DrainRequest, RollingRun
from controller.core.event_record import EventVerdict, WatchedEvent, verdict_text
from controller.core.events import ScheduledEvent
from controller.core.ledger import Entry, Hold
from controller.core.planning.actions import VmPhase
from controller.core.rehearsals import is_test
from controller.status.hold_advice import Advice
from controller.status.overview_schema import (
    ControlView,
    DrainRequestView,
    HoldView,
    RollingRunView,
    TransitionView,
    VerdictView,
)


def instant(at: datetime) -> str:
    """Return an instant as text."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


def instant_or_none(at: datetime | None) -> str | None:
    """Return an instant as text, or null."""
    return None if at is None else instant(at)


def seconds_or_none(seconds: float | None) -> float | None:
    """Return a duration to a tenth of a second, or null."""
    return None if seconds is None else round(seconds, 1)


def event_json(event: ScheduledEvent) -> dict[str, object]:
    """Return an event of the document."""
    return {
        "event_id": event.event_id,
        "event_type": event.event_type,
        "status": event.status.value,
        "resources": list(event.resources),
        "not_before": instant_or_none(event.not_before),
        "duration_s": event.duration_s,
        "source": event.source.value,
    }


def hold_json(hold: Hold, advice: Advice) -> HoldView:
    """Return a hold, with what follows from it."""
    return HoldView(
        subject=hold.subject,
        reason=hold.reason,
        vms=list(hold.vms),
        message=hold.message,
        consequence=advice.consequence,
        remedy=advice.remedy,
        since=instant(hold.since),
    )


def control_json(control: Control) -> ControlView:
    """Return a control of the set."""
    return ControlView(
        kind=control.kind,
        subject=control.subject,
        by=control.by,
        reason=control.reason,
        at=instant(control.at),
        until=instant(control.ends_at),
        text=str(control),
    )


def transition_json(line: Transition) -> TransitionView:
    """Return a line of the history."""
    return TransitionView(
        at=instant(line.at),
        vm=line.vm,
        what=line.step,
        text=step_text(line.step),
        detail=line.detail,
    )


def verdict_json(found: EventVerdict) -> VerdictView:
    """Return a verdict."""
    margin = found.margin
    return VerdictView(
        at=instant(found.at),
        vm=found.vm,
        event_id=found.event_id,
        event_type=found.event_type,
        verdict=found.verdict,
        margin_s=seconds_or_none(margin.total_seconds() if margin is not None else None),
        why=found.why,
        end=found.end,
        text=verdict_text(found),
    )


def watched_json(event: WatchedEvent) -> dict[str, object]:
    """Return an event that the ledger watches."""
    return {
        "event_id": event.event_id,
        "event_type": event.event_type,
        "vms": [vm.vm for vm in event.vms],
        "first_seen_at": instant(event.first_seen_at),
        "not_before": instant_or_none(event.not_before),
        "started_at": instant_or_none(event.started_at),
        "ignored": event.ignored,
    }


def phase_json(phase: VmPhase) -> dict[str, object]:
    """Return the phase of a VM."""
    return {"vm": phase.vm, "phase": phase.phase.value, "why": phase.why}


def reasons(entry: Entry) -> str:
    """Return because of what a VM is drained, for people to read."""
    types = (
        ("TEST: " if is_test(each.event_id) else "")
        + ("a manual drain" if each.event_type == DRAIN_REQUEST else each.event_type)
        for each in entry.events
    )
    return ", ".join(dict.fromkeys(types))


def drain_request_json(request: DrainRequest) -> DrainRequestView:
    """Return a drain request."""
    return DrainRequestView(
        vm=request.vm,
        by=request.by,
        reason=request.reason,
        test=request.is_test,
        forced=request.forced,
        at=instant(request.at),
        until=instant(request.until),
    )


def rolling_run_json(run: RollingRun | None) -> RollingRunView | None:
    """Return a rolling run that has not ended."""
    if run is None or run.ended_at is not None:
        return None
    return RollingRunView(
        what=run.what, by=run.by, failed=run.failed, remaining=list(run.remaining)
    )
