"""What needs attention now, worst first, from what the status page shows anyway.

A problem names the alert of the runbook whose chapter helps, and a command to begin with.

Pure: no I/O, no clock.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Literal

from controller.core.azure_names import fold
from controller.core.event_record import MISSED, Verdict
from controller.core.events import EventStatus
from controller.core.hold_severity import Severity, severity
from controller.core.planning.actions import HoldReason, Phase
from controller.core.rehearsals import is_test
from controller.status.hold_advice import STAYS_IN
from controller.status.outlook import IN_ROTATION
from controller.status.overview_schema import (
    EventView,
    HoldView,
    Overview,
    ProblemView,
    VerdictView,
)
from controller.system.service_manager import MANAGER

MISSED_SHOWN = timedelta(hours=24)
"""How long a missed event is a problem; after that it is history."""
MOST_MISSED = 5
"""How many missed events are named; the rest is counted."""
FAILURES = 3
"""So many consecutive failures of one kind of request are a problem."""
STARTING = timedelta(minutes=2)
"""How long an agent may take to get ready after its start."""
CRITICAL_KINDS = frozenset({"in_rotation", "write_failed", "no_leader", "storage"})
"""The kinds of problem that can cost requests at the next event. Holds have a severity of their
own; the others are warnings."""
AWAY = frozenset(
    each.value for each in (Phase.OUT, Phase.ACKNOWLEDGED, Phase.IN_MAINTENANCE, Phase.RESTORE_DUE)
)
"""The phases in which maintenance may end the agent of a VM."""
SERVICES = {
    "imds": ("Scheduled events cannot be read", "LbDrainImdsFailing"),
    "blob": ("Requests to storage fail", "LbDrainStorageFailing"),
    "resource_graph": ("Resource Graph does not answer: no end is confirmed", "LbDrainArmFailing"),
}
"""Title and alert where a service fails; for every other one, those of Resource Manager."""
RESOURCE_MANAGER = ("Requests to Resource Manager fail", "LbDrainArmFailing")
WORDS: dict[Severity, Literal["critical", "warning", "info"]] = {
    Severity.CRITICAL: "critical",
    Severity.WARNING: "warning",
    Severity.INFO: "info",
}
HOLDS = {
    HoldReason.FLOOR: ("is held in rotation: too few healthy members would remain", "LbDrainHold"),
    HoldReason.WRITE_FAILED: ("cannot be written: Azure refuses it", "LbDrainArmFailing"),
    HoldReason.VM_GONE: ("is deleted while it is drained", "LbDrainVmGone"),
    HoldReason.LOST: ("cannot be restored completely", "LbDrainMembershipLost"),
    HoldReason.EVENT_UNSEEN: ("is announced, and no agent reads it", "LbDrainHold"),
    HoldReason.NIC_UPDATING: ("waits for a NIC that stays Updating", "LbDrainHold"),
    HoldReason.NO_ABLE_AGENT: ("no agent can do what is due", "LbDrainNoAbleAgent"),
}
"""What a hold means for its subject, and its alert; any other hold is named by its reason."""


def problems(shown: Overview) -> list[ProblemView]:
    """Return what needs attention in an overview, worst first."""
    return [
        *_hit_now(shown),
        *_holds(shown),
        *_storage(shown),
        *_agent(shown),
        *_requests(shown),
        *_agents(shown),
        *_missed(shown),
    ]


def _hit_now(shown: Overview) -> Iterator[ProblemView]:
    """Yield each VM that is in rotation while an event is going on that required a drain."""
    phases = {fold(vm["vm"]): vm["phase"] for vm in shown["vms"]}
    inside = {each.value for each in IN_ROTATION}
    for event in shown["events"]:
        if event["status"] != EventStatus.STARTED.value:
            continue
        for timeline in event["timelines"]:
            if phases.get(fold(timeline["vm"])) in inside:
                yield _problem(
                    "in_rotation",
                    f"{timeline['vm']} is in rotation, and its {event['event_type']} has started",
                    "New connections still reach this VM. The verdict follows when the event ends.",
                    alert="LbDrainAtRisk",
                    vm=timeline["vm"],
                    command="lb-drain plan",
                )


def _holds(shown: Overview) -> list[ProblemView]:
    """Return the holds that need attention; those with the nearest NotBefore come first."""
    needed = [hold for hold in shown["holds"] if severity(hold["reason"])]
    found = [_hold(hold, shown) for hold in needed]
    return sorted(found, key=lambda each: (each["deadline"] is None, each["deadline"] or ""))


def _hold(hold: HoldView, shown: Overview) -> ProblemView:
    known = {each.value: words for each, words in HOLDS.items()}
    words = hold["reason"].replace("_", " ")
    meaning, alert = known.get(hold["reason"], (f"on hold: {words}", "LbDrainHold"))
    concerned = {fold(each) for each in (hold["subject"], *hold["vms"])}
    coming = [event for event in shown["events"] if _comes(event)]
    begins = [
        event["not_before"]
        for event in coming
        if event["not_before"] and concerned & {fold(vm) for vm in event["vms"]}
    ]
    failed = hold["reason"] == HoldReason.WRITE_FAILED.value
    return _problem(
        "write_failed" if failed else "held",
        f"{hold['subject']} {meaning}",
        f"{hold['message']}. What follows: {hold['consequence']}. Remedy: {hold['remedy']}.",
        alert=alert,
        vm=hold["subject"] if not hold["vms"] else hold["vms"][0],
        since=hold["since"],
        deadline=min(begins, default=None),
        command="lb-drain doctor" if failed else "lb-drain plan",
        urgency=_urgency(hold["reason"], concerned, coming, shown),
    )


def _comes(event: EventView) -> bool:
    """Return whether an event is announced: a drain request and what is gone are not."""
    announced = event["status"] in {EventStatus.SCHEDULED.value, EventStatus.UNKNOWN.value}
    return announced and event["impacting"]


def _urgency(
    reason: str, concerned: set[str], coming: list[EventView], shown: Overview
) -> Severity:
    """Return how urgent a hold is: more if an event will meet a VM in rotation because of it."""
    if reason not in {each.value for each in STAYS_IN}:
        return severity(reason)
    real = [event for event in coming if not is_test(event["event_id"])]
    named = {fold(vm) for event in real for vm in event["vms"]}
    vms = {fold(vm["vm"]) for vm in shown["vms"]}
    vms |= {fold(vm) for event in shown["events"] for vm in event["vms"]}
    of_set = not concerned & vms  # its subject is a pool, or the inventory
    return Severity.CRITICAL if named and (of_set or concerned & named) else severity(reason)


def _storage(shown: Overview) -> Iterator[ProblemView]:
    if shown["ledger"]["problem"]:
        title, alert = SERVICES["blob"]
        yield _problem(
            "storage", title, shown["ledger"]["problem"], alert=alert, command="lb-drain doctor"
        )


def _agent(shown: Overview) -> Iterator[ProblemView]:
    agent, lease = shown["agent"], shown["lease"]
    if not agent["healthy"]:
        yield _problem(
            "unhealthy",
            f"The agent on {agent['vm'] or 'this VM'} is not healthy",
            agent["why"],
            alert="LbDrainAgentStalled",
            command=MANAGER.log,
        )
    if agent["role"] in {"standby", "command"} and shown["ledger"]["as_of"] and not lease["leader"]:
        yield _problem(
            "no_leader",
            "No agent leads",
            "No VM is drained or restored until an agent has acquired the lease.",
            alert="LbDrainNoLeader",
            command="lb-drain status",
        )


def _requests(shown: Overview) -> Iterator[ProblemView]:
    """Yield each service whose requests fail, unless its failure is a problem already."""
    for service in shown["services"]:
        known = service["service"] == "blob" and shown["ledger"]["problem"]
        if service["failures_in_a_row"] < FAILURES or known:
            continue
        title, alert = SERVICES.get(service["service"], RESOURCE_MANAGER)
        yield _problem(
            "storage" if service["service"] == "blob" else "azure",
            title,
            f"{service['name']}: {service['failures_in_a_row']} consecutive failures.",
            alert=alert,
            command="lb-drain doctor",
        )


def _agents(shown: Overview) -> Iterator[ProblemView]:
    """Yield each agent of the set that does not take part, and agents that differ."""
    away = {fold(vm["vm"]) for vm in shown["vms"] if vm["phase"] in AWAY}
    missing = [
        each
        for each in shown["agents"]
        if each["role"] == "not running" and fold(each["vm"]) not in away
    ]
    if missing:
        many = len(missing) > 1
        yield _problem(
            "agent",
            f"{len(missing)} agents do not run" if many else "An agent does not run",
            "; ".join(f"{each['vm']}: {each['text']}" for each in missing),
            alert="LbDrainAgentDown",
            vm="" if many else missing[0]["vm"],
            command=MANAGER.status,
        )
    oldest = datetime.fromisoformat(shown["at"]) - STARTING
    unready = [
        each
        for each in shown["agents"]
        if each["problem"] and each not in missing and not _after(each["started_at"], oldest)
    ]
    if unready:
        many = len(unready) > 1
        yield _problem(
            "agent",
            f"{len(unready)} agents are not ready" if many else "An agent is not ready",
            "; ".join(f"{each['vm']}: {each['problem']}" for each in unready),
            alert="LbDrainAgentDown",
            vm="" if many else unready[0]["vm"],
            command=MANAGER.log,
        )
    digests = {each["configuration"] for each in shown["agents"] if each["configuration"]}
    if len(digests) > 1:
        yield _problem(
            "configuration",
            "The agents have different configurations",
            "Another leader would decide by other pools or another policy.",
            alert="LbDrainAgentDown",
            command="lb-drain check-config",
        )


def _after(at: str | None, other: datetime) -> bool:
    return at is not None and datetime.fromisoformat(at) > other


def _missed(shown: Overview) -> Iterator[ProblemView]:
    """Yield the newest missed events, then how many more there are."""
    oldest = datetime.fromisoformat(shown["at"]) - MISSED_SHOWN
    found = [
        each
        for each in shown["verdicts"]
        if each["verdict"] in MISSED and _after(each["at"], oldest)
    ]
    yield from map(_verdict, found[:MOST_MISSED])
    if (more := len(found) - MOST_MISSED) > 0:
        yield _problem(
            "missed",
            f"{more} more missed in the last 24 hours",
            "All are among the past events.",
            alert="LbDrainHitInRotation",
            command="lb-drain status",
        )


def _verdict(each: VerdictView) -> ProblemView:
    late = each["verdict"] == Verdict.LATE.value
    outcome = "was out of rotation late" if late else "was hit in rotation"
    return _problem(
        each["verdict"],
        f"{each['vm']} {outcome}: {each['event_type']}",
        each["text"],
        alert="LbDrainLate" if late else "LbDrainHitInRotation",
        vm=each["vm"],
        since=each["at"],
        command="lb-drain support-bundle",
    )


def _problem(
    kind: str,
    title: str,
    text: str,
    *,
    alert: str,
    command: str,
    vm: str = "",
    since: str | None = None,
    deadline: str | None = None,
    urgency: Severity | None = None,
) -> ProblemView:
    urgency = urgency or (Severity.CRITICAL if kind in CRITICAL_KINDS else Severity.WARNING)
    return ProblemView(
        kind=kind,
        severity=WORDS[urgency],
        vm=vm or None,
        title=title,
        text=text,
        since=since,
        deadline=deadline,
        command=command,
        alert=alert,
    )
