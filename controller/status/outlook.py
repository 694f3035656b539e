"""What happens to a VM when an announced event begins, if nothing changes until then.

Pure: no I/O, no clock.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from controller.core.events import EventStatus, ScheduledEvent
from controller.core.planning.actions import Phase, VmPhase
from controller.core.policy import Policy

_OUT = "out of rotation"
_OUTSIDE = {
    Phase.OUT: _OUT,
    Phase.ACKNOWLEDGED: _OUT,
    Phase.IN_MAINTENANCE: _OUT,
    Phase.RESTORE_DUE: _OUT,
    Phase.UNMANAGED: "in no managed pool",
}
IN_ROTATION = frozenset((Phase.IN_SERVICE, Phase.DRAIN_DUE, Phase.DRAINING, Phase.HELD))
"""The phases in which a VM takes new connections."""


def outlook(
    event: ScheduledEvent,
    phase: VmPhase,
    *,
    policy: Policy,
    now: datetime,
    ignored: str = "",
    stuck: str = "",
) -> str:
    """Return one sentence about one VM of an event.

    Args:
        event: an event that has not begun, or that is going on.
        phase: the phase of the VM, as observed.
        policy: the operator's choices.
        now: wall clock.
        ignored: why policy requires no drain; empty for an impacting event.
        stuck: why the VM cannot be removed; empty if nothing is known to fail.
    """
    vm, what = phase.vm, f"the {event.event_type}"
    if phase.phase in _OUTSIDE:
        return f"{vm} is {_OUTSIDE[phase.phase]}: {what} finds no client on it"
    started = event.status is EventStatus.STARTED
    inside = f"{vm} is in rotation {'now' if started else 'when it begins'}"
    if ignored:
        return f"{inside}: {what} is ignored ({ignored})"
    if stuck or phase.phase is Phase.HELD:
        return f"{inside}, and clients can lose requests: {stuck or phase.why}"
    drain_at = policy.drain_at(event, now)
    if drain_at is not None and drain_at > now:
        lead = timedelta(seconds=policy.lead_time_s)
        when = f"{policy.lead_time_s:.0f} s before NotBefore (lead_time_s in [policy])"
        if event.not_before is None or drain_at != event.not_before - lead:
            when = "when the daily window opens (far_ahead_window in [policy])"
        return f"{vm} is drained from {drain_at:%Y-%m-%d %H:%M:%S} UTC on, {when}"
    if started:
        return f"{inside}, and {what} has started: it is being removed"
    return f"{vm} is being removed, and should be out of rotation before {what} begins"


def waits_for(phase: VmPhase, inside: Sequence[str]) -> str:
    """Return why a VM that is out stays at that; empty if no VM of its event is in rotation."""
    if phase.phase is not Phase.OUT or not inside:
        return ""
    verb = "is" if len(inside) == 1 else "are"
    return f"; not acknowledged while {', '.join(inside)} {verb} in rotation"
