"""Where a plan obeys the controls of the set: the gates before removal and acknowledgement.

The planner passes every removal and every acknowledgement through here, and nothing else in it
knows the controls.

A pause keeps VMs where they are. No VM is recorded, closed or removed, and a removal that has not
been sent is not sent. A VM that is closed already stays closed, and a VM that is out stays out:
it is restored as ever when nothing wants it out any more. With `mechanism = "probe"` closing is the
removal, so a VM that is closed is left to its drain.

A decision about an event takes the place of policy. To acknowledge it now means what policy could
allow: its type, without the lead time, the connection drain and the names outside the set. Law S1
holds as ever: every VM must be seen out, unless the operator has forced the decision.

Pure: standard library only, no I/O, no clock.
"""

from dataclasses import replace

from controller.core.azure_names import fold
from controller.core.controls import Decision, EventControl, Pause
from controller.core.events import EventStatus, ScheduledEvent
from controller.core.planning import acknowledgement, closing, removal
from controller.core.planning.actions import Acknowledge, HoldReason
from controller.core.planning.evidence import Evidence
from controller.core.planning.floors import Floors
from controller.core.planning.steps import HoldBack, Start, Steps, WakeAt, hold_vm
from controller.core.planning.vm_case import VmCase
from controller.core.policy import Policy

CONTROLS = "controls"
"""The subject of a hold about all controls."""


def removal_steps(case: VmCase, evidence: Evidence, floors: Floors) -> Steps:
    """Yield the next steps that take one VM out, or why the set is paused."""
    pause = evidence.controls.pause
    closed_by_drain = case.recorded and evidence.policy.close_only
    if pause is None or not case.inside or closed_by_drain:
        yield from removal.steps(case, evidence, floors)
    else:
        yield from hold_vm(
            case.vm.name, HoldReason.PAUSED, _paused(case, pause, closes=evidence.policy.close)
        )
        yield WakeAt(pause.ends_at)


def _paused(case: VmCase, pause: Pause, *, closes: bool) -> str:
    """Return what the pause keeps waiting, what follows from that, and the remedy."""
    name = case.vm.name
    recorded = f"{name} is closed and is not removed" if closes else f"{name} is not removed"
    state = recorded if case.recorded else f"{name} is not drained"
    event = min(case.due, key=lambda each: each.not_before or case.now, default=None)
    if event is None:
        follows = "its manual drain waits"
    elif event.status is EventStatus.STARTED or event.not_before is None:
        follows = f"its {event.event_type} hits it in rotation"
    else:
        at = f"{event.not_before:%Y-%m-%d %H:%M:%S} UTC"
        follows = (
            f"its {event.event_type} is not acknowledged, and hits it in rotation from {at} on"
        )
    return f"{state}: {pause}; {follows}. To drain it now: lb-drain resume"


def acknowledgement_steps(
    event: ScheduledEvent,
    evidence: Evidence,
    *,
    seen_within_s: float = acknowledgement.PLANNED_WITHIN_S,
) -> Steps:
    """Acknowledge an event as policy or an operator has decided, or report what it waits for."""
    control = evidence.controls.of_event(event.event_id)
    if control is None or control.decision not in set(Decision):
        yield from acknowledgement.steps(event, evidence, seen_within_s=seen_within_s)
    elif not acknowledgement.can_be_sent(event, evidence):
        return
    elif control.decision == Decision.HOLD:
        withdraw = f"To withdraw it: lb-drain hold {event.event_id} --withdraw"
        message = f"{_held(event, evidence, control)}. {withdraw}"
        reason = HoldReason.ACKNOWLEDGEMENT_HELD
        yield HoldBack(subject=event.event_id, reason=reason, message=message)
        yield WakeAt(control.ends_at)
    elif control.forced:
        yield Start(Acknowledge(event.event_id))
    else:
        yield from _decided(event, evidence, control, seen_within_s)


def _decided(
    event: ScheduledEvent, evidence: Evidence, control: EventControl, seen_within_s: float
) -> Steps:
    """Acknowledge an event as soon as law S1 allows it, and report which VMs are in rotation."""
    policy = _without_waiting(evidence.policy, event)
    sent = False
    for step in acknowledgement.steps(event, evidence, seen_within_s=seen_within_s, policy=policy):
        sent = sent or step == Start(Acknowledge(event.event_id))
        yield step
    vms = (evidence.views.vm(name) for name in event.resources)
    inside = [vm.name for vm in vms if vm is not None and evidence.inside(vm)]
    if inside and not sent:
        due = evidence.policy.is_due(event, evidence.now)
        remedy = "" if due else f". To take it out: lb-drain drain {inside[0]}"
        waits = f"now it waits until {', '.join(inside)} is out of rotation (law S1)"
        message = f"{control}; {waits}{remedy}"
        yield HoldBack(subject=event.event_id, reason=HoldReason.NOT_OUT, message=message)


def may_acknowledge(event_id: str, evidence: Evidence) -> bool:
    """Return whether an acknowledgement may leave now: the check right before it is sent."""
    document = evidence.observed.document
    return any(
        step == Start(Acknowledge(event.event_id))
        for event in (document.events if document else ())
        if fold(event.event_id) == fold(event_id)
        for step in acknowledgement_steps(event, evidence, seen_within_s=closing.SEEN_WITHIN_S)
    )


def _without_waiting(policy: Policy, event: ScheduledEvent) -> Policy:
    """Return the policy under which an event is acknowledged as soon as its VMs are out."""
    of_type = replace(policy.for_type(event.event_type), acknowledge=True)
    return replace(
        policy,
        events={event.event_type: of_type},
        lead_time_s=float("inf"),
        connection_drain_s=0.0,
        acknowledge=True,
        acknowledge_unmanaged=True,
        acknowledge_ignored=True,
    )


def _held(event: ScheduledEvent, evidence: Evidence, control: EventControl) -> str:
    """Return what a hold does, and when the event starts."""
    ledger = evidence.durable
    at = ledger.acknowledgement_of(event, ledger.acknowledged_at(evidence.observed.acknowledged))
    if at is None:
        return f"{control}; {_starts(event)}"
    return (
        f"event {event.event_id} was acknowledged at {at:%H:%M:%S} UTC: Azure can start it at any "
        f"moment, and the hold, decided {control.author}, cannot take that back"
    )


def _starts(event: ScheduledEvent) -> str:
    """Return when an event starts that is not acknowledged."""
    if event.not_before is None:
        return "it can start at any moment"
    return f"it starts at {event.not_before:%Y-%m-%d %H:%M:%S} UTC or later"


def report(evidence: Evidence) -> Steps:
    """Report that the controls cannot be read."""
    if problem := evidence.observed.controls_problem:
        message = f"the controls of the set cannot be read: {problem}"
        yield HoldBack(subject=CONTROLS, reason=HoldReason.CONTROLS_UNREAD, message=message)
