"""What needs attention: which facts are a problem, in which order, and where help is."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.core.agent_presence import AgentPresence, SeenAgent
from controller.core.event_progress import SeenEvent
from controller.core.event_record import EventVerdict, Verdict
from controller.core.events import EventDocument, EventSource, EventStatus, ScheduledEvent
from controller.core.ledger import Hold, Ledger
from controller.core.planning.actions import HoldReason, Phase, Plan, VmPhase
from controller.core.policy import Floor
from controller.status import problems as module
from controller.status.overview import overview
from controller.status.overview_schema import ProblemView
from controller.status.problems import FAILURES, MOST_MISSED, STARTING
from controller.status.snapshot import AgentHealth, AgentSnapshot
from tests.support.policies import make_policy

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
APP = "/lb/backendAddressPools/app"
LED = Ledger(epoch=1, leader="web-1", leader_since=NOW)


def found(**changes: Any) -> list[ProblemView]:
    """Return the problems of a leader; nothing is wrong but what `changes` say."""
    given: dict[str, Any] = {
        "now": NOW,
        "health": AgentHealth(role="leader", leading=True, document_read=True),
        "lease_duration_s": 30,
        "policy": make_policy(pools={APP: Floor(number=1)}),
        "pool_names": {APP.casefold(): "lb/app"},
        "consecutive_failures": {},
        "vm": "web-1",
        "lease_state": "leased",
        "ledger": LED,
        "ledger_at": NOW,
    }
    return overview(AgentSnapshot(**{**given, **changes}))["problems"]


def kinds(**changes: Any) -> list[str]:
    return [each["kind"] for each in found(**changes)]


def event(status: EventStatus, *vms: str, minutes: int | None = None) -> ScheduledEvent:
    return ScheduledEvent(
        event_id=f"E-{'-'.join(vms)}",
        event_type="Reboot",
        status=status,
        resources=vms,
        not_before=None if minutes is None else NOW + timedelta(minutes=minutes),
        source=EventSource.PLATFORM,
    )


def with_events(*events: ScheduledEvent) -> dict[str, Any]:
    document = EventDocument(incarnation=1, events=events)
    return {
        "document": document,
        "seen_events": tuple(SeenEvent(event=each, first_seen_at=NOW) for each in events),
    }


def planned(phase: Phase, vm: str = "web-2") -> Plan:
    phases = (VmPhase(vm=vm, phase=phase),)
    return Plan(ledger=None, actions=(), phases=phases, holds=(), wake_at=None)


def hold(reason: HoldReason, subject: str, *vms: str) -> Hold:
    return Hold(subject=subject, reason=reason.value, vms=vms, message="why", since=NOW)


def missed(verdict: Verdict, *, hours_ago: float = 1) -> EventVerdict:
    return EventVerdict(
        at=NOW - timedelta(hours=hours_ago),
        vm="web-2",
        event_id="E-1",
        event_type="Reboot",
        verdict=verdict,
        why="held: floor",
    )


def judged(*verdicts: EventVerdict) -> Ledger:
    """Return a ledger with these verdicts, oldest first."""
    return replace(LED, verdicts=verdicts)


def test_a_set_without_problems() -> None:
    """A leader that works, and a drain that goes well, are no problem."""
    started = with_events(event(EventStatus.STARTED, "web-2"))
    assert found() == []
    assert found(**started, plan=planned(Phase.IN_MAINTENANCE)) == []
    scheduled = with_events(event(EventStatus.SCHEDULED, "web-2", minutes=9))
    assert found(**scheduled, plan=planned(Phase.DRAINING)) == []
    assert found(ledger=judged(missed(Verdict.DRAINED))) == []


@pytest.mark.parametrize(
    "phase", [Phase.IN_SERVICE, Phase.DRAIN_DUE, Phase.DRAINING, Phase.HELD], ids=str
)
def test_a_vm_that_is_hit_now(phase: Phase) -> None:
    """A VM that is in rotation while its event is going on comes before everything else."""
    (problem,) = found(**with_events(event(EventStatus.STARTED, "WEB-2")), plan=planned(phase))
    assert (problem["kind"], problem["vm"]) == ("in_rotation", "WEB-2")
    assert problem["title"] == "WEB-2 is in rotation, and its Reboot has started"


def test_a_hold_states_when_the_event_begins() -> None:
    """Holds are sorted by the nearest NotBefore of the VMs that they concern."""
    events = (
        event(EventStatus.SCHEDULED, "web-2", minutes=9),
        event(EventStatus.SCHEDULED, "web-3", minutes=5),
        event(EventStatus.SCHEDULED, "web-3", "web-9", minutes=7),
        event(EventStatus.STARTED, "web-2", minutes=1),
    )
    ledger = Ledger(
        leader="web-1",
        holds=(
            hold(HoldReason.LOST, "web-4"),
            hold(HoldReason.FLOOR, "WEB-2"),
            hold(HoldReason.WRITE_FAILED, "web-3-nic", "web-3"),
        ),
    )
    first, second, last = found(**with_events(*events), ledger=ledger)
    assert (first["kind"], first["vm"], first["command"]) == (
        "write_failed",
        "web-3",
        "lb-drain doctor",
    )
    assert first["deadline"] == "2030-01-01T12:05:00.000+00:00"
    assert first["title"] == "web-3-nic cannot be written: Azure refuses it"
    assert (second["kind"], second["vm"], second["alert"]) == ("held", "WEB-2", "LbDrainHold")
    assert second["deadline"] == "2030-01-01T12:09:00.000+00:00"
    assert (last["deadline"], last["alert"]) == (None, "LbDrainMembershipLost")
    assert last["since"] == "2030-01-01T12:00:00.000+00:00"
    assert last["text"].startswith("why. What follows: ")
    assert "Remedy: create the pool or NIC again, or lb-drain forget web-4." in last["text"]


def test_a_hold_without_a_meaning_of_its_own() -> None:
    """Every other reason is named in words."""
    ledger = Ledger(leader="web-1", holds=(hold(HoldReason.VM_NOT_RUNNING, "web-2"),))
    assert found(ledger=ledger)[0]["title"] == "web-2 on hold: vm not running"


@pytest.mark.parametrize(
    ("reason", "severities"),
    [
        (HoldReason.EVENT_PENDING, []),
        (HoldReason.ACKNOWLEDGEMENT_HELD, []),
        (HoldReason.VM_GONE, ["info"]),
        (HoldReason.VM_NOT_RUNNING, ["warning"]),
        (HoldReason.FLOOR, ["warning"]),
        (HoldReason.NO_ABLE_AGENT, ["critical"]),
        (HoldReason.WRITE_FAILED, ["critical"]),
    ],
)
def test_a_hold_is_as_urgent_as_its_reason(reason: HoldReason, severities: list[str]) -> None:
    """What ends by itself or was decided by an operator is no problem."""
    ledger = Ledger(leader="web-1", holds=(hold(reason, "web-2"),))
    assert [each["severity"] for each in found(ledger=ledger)] == severities


@pytest.mark.parametrize("status", [EventStatus.SCHEDULED, EventStatus.UNKNOWN])
@pytest.mark.parametrize("minutes", [9, None])
@pytest.mark.parametrize(
    ("reason", "subject", "severity"),
    [
        (HoldReason.FLOOR, "WEB-2", "critical"),
        (HoldReason.PAUSED, "web-2", "critical"),
        (HoldReason.INVENTORY_UNREAD, "inventory", "critical"),
        (HoldReason.SHARED_POOL, "app", "critical"),
        (HoldReason.FLOOR, "web-3", "warning"),
        (HoldReason.VM_NOT_RUNNING, "web-2", "warning"),
        (HoldReason.NOT_ACKNOWLEDGED, "E-web-2", "warning"),
    ],
)
def test_a_hold_that_keeps_a_vm_in_rotation_for_its_event_is_critical(
    reason: HoldReason, subject: str, severity: str, status: EventStatus, minutes: int | None
) -> None:
    """Requests will be lost when the event begins; without an event there is time."""
    events = with_events(
        event(status, "web-2", minutes=minutes), event(EventStatus.STARTED, "web-3")
    )
    ledger = Ledger(leader="web-1", holds=(hold(reason, subject),))
    (problem,) = found(**events, ledger=ledger)
    assert problem["severity"] == severity


@pytest.mark.parametrize(
    "shown",
    [
        {"gone": True},
        {"gone": True, "gone_at": NOW - timedelta(seconds=9)},
        {"event_id": "test-1"},
        {"event_type": "Request", "first_seen_at": None},
    ],
    ids=["gone", "cancelled", "test", "manual"],
)
def test_what_interrupts_no_vm_makes_no_hold_critical(shown: dict[str, Any]) -> None:
    """An event that is over, a rehearsal and a drain request cost no request."""
    fields = {key: shown.pop(key) for key in ("event_id", "event_type") if key in shown}
    announced = replace(event(EventStatus.SCHEDULED, "web-2", minutes=9), **fields)
    seen = SeenEvent(event=announced, **{"first_seen_at": NOW, "last_seen_at": NOW, **shown})
    ledger = Ledger(leader="web-1", holds=(hold(HoldReason.FLOOR, "web-2"),))
    (problem,) = found(seen_events=(seen,), ledger=ledger)
    assert problem["severity"] == "warning"


def test_storage_that_does_not_answer() -> None:
    """It is one problem, also if the ledger cannot be read and requests fail."""
    failing = {("blob", "renew"): FAILURES, ("blob", "read"): FAILURES - 1}
    (problem,) = found(consecutive_failures=failing)
    assert (problem["kind"], problem["alert"]) == ("storage", "LbDrainStorageFailing")
    assert problem["text"] == f"lease renewal: {FAILURES} consecutive failures."
    (problem,) = found(consecutive_failures=failing, ledger_problem="no answer")
    assert (problem["kind"], problem["text"]) == ("storage", "no answer")
    assert kinds(consecutive_failures={("blob", "read"): FAILURES - 1}) == []


def test_other_services_that_do_not_answer() -> None:
    """Events that cannot be read, and Resource Manager, have alerts of their own."""
    failing = {("imds", "poll"): FAILURES, ("network", "nic_put"): FAILURES}
    shown = found(consecutive_failures=failing, ledger_problem="no answer")
    assert [(each["kind"], each["alert"]) for each in shown] == [
        ("storage", "LbDrainStorageFailing"),
        ("azure", "LbDrainImdsFailing"),
        ("azure", "LbDrainArmFailing"),
    ]


def test_an_agent_that_is_not_healthy() -> None:
    """An agent without passes is a problem; a standby without a leader is another one."""
    stalled = AgentHealth(role="leader", leading=True, document_read=True, pass_age_s=61)
    (problem,) = found(health=stalled)
    assert (problem["kind"], problem["title"]) == (
        "unhealthy",
        "The agent on web-1 is not healthy",
    )
    standby = AgentHealth(role="standby", document_read=True)
    assert kinds(health=standby) == []
    assert kinds(health=standby, lease_state="available") == ["no_leader"]
    command = AgentHealth(role="command", document_read=True)
    assert kinds(health=command, lease_state="available") == ["no_leader"]
    assert kinds(health=standby, lease_state="available", ledger_at=None) == []
    assert kinds(lease_state="available") == [], "a dry run, or a leader that knows better"


def seen(vm: str, *, minutes_ago: float = 0, **changes: Any) -> SeenAgent:
    """Return what an agent publishes."""
    at = NOW - timedelta(minutes=minutes_ago)
    given: dict[str, Any] = {
        "vm": vm,
        "release": "1.0",
        "configuration": "one",
        "started_at": at,
        "at": at,
    }
    return SeenAgent(vm=vm, presence=AgentPresence(**{**given, **changes}))


def test_agents_that_do_not_take_part() -> None:
    """Agents that do not run are one problem, one that is not ready another."""
    running = (seen("web-1"), seen("web-2"))
    assert found(agents=running) == []
    (problem,) = found(agents=(*running, SeenAgent(vm="web-3", presence=None)))
    assert (problem["kind"], problem["vm"]) == ("agent", "web-3")
    assert problem["title"] == "An agent does not run"
    assert problem["text"].startswith("web-3: never seen")
    lost = (seen("web-2", minutes_ago=60), SeenAgent(vm="web-3", presence=None))
    (problem,) = found(agents=(seen("web-1"), *lost))
    assert (problem["title"], problem["vm"]) == ("2 agents do not run", None)
    unready = seen("web-2", problem="waiting for Azure", started_at=NOW - STARTING)
    (problem,) = found(agents=(seen("web-1"), unready))
    assert (problem["title"], problem["text"]) == (
        "An agent is not ready",
        "web-2: waiting for Azure",
    )
    unknown = SeenAgent(vm="web-3", problem="no JSON")
    (problem,) = found(agents=(seen("web-1"), unready, unknown))
    assert (problem["title"], problem["vm"]) == ("2 agents are not ready", None)
    starting = seen("web-2", problem="x", started_at=NOW - STARTING + timedelta(seconds=1))
    assert found(agents=(seen("web-1"), starting)) == []


def test_an_agent_whose_vm_is_in_maintenance() -> None:
    """A VM that Azure reboots has no agent for a while; a VM in service should have one."""
    agents = (seen("web-1"), SeenAgent(vm="WEB-2", presence=None))
    assert kinds(agents=agents, plan=planned(Phase.IN_MAINTENANCE)) == []
    assert kinds(agents=agents, plan=planned(Phase.IN_SERVICE)) == ["agent"]


def test_agents_with_different_configurations() -> None:
    """A set whose agents would decide differently is a problem before one of them leads."""
    assert kinds(agents=(seen("web-1"), seen("web-2", configuration="two"))) == ["configuration"]


def test_missed_events_of_the_last_day() -> None:
    """Late and hit are problems for 24 hours; only the newest are named."""
    old = missed(Verdict.LATE, hours_ago=24)
    ledger = judged(old, missed(Verdict.LATE), missed(Verdict.HIT_IN_ROTATION))
    first, second = found(ledger=ledger)
    assert (first["kind"], first["alert"]) == ("hit_in_rotation", "LbDrainHitInRotation")
    assert first["title"] == "web-2 was hit in rotation: Reboot"
    assert "held: floor" in first["text"]
    assert (second["kind"], second["alert"]) == ("late", "LbDrainLate")
    assert second["title"] == "web-2 was out of rotation late: Reboot"
    late = [missed(Verdict.LATE)] * MOST_MISSED
    assert kinds(ledger=judged(*late)) == ["late"] * MOST_MISSED
    shown = found(ledger=judged(*late, missed(Verdict.LATE)))
    assert shown[MOST_MISSED]["title"] == "1 more missed in the last 24 hours"
    assert len(shown) == MOST_MISSED + 1


def test_the_worst_comes_first() -> None:
    """What can still be changed comes before what is over."""
    ledger = Ledger(
        leader="web-1", holds=(hold(HoldReason.FLOOR, "web-3"),), verdicts=(missed(Verdict.LATE),)
    )
    shown = kinds(
        **with_events(event(EventStatus.STARTED, "web-2")),
        ledger=ledger,
        plan=None,
        ledger_problem="no answer",
        consecutive_failures={("imds", "poll"): FAILURES},
    )
    assert shown == ["held", "storage", "azure", "late"]


def test_each_alert_is_a_chapter_of_the_runbook() -> None:
    """The page links to chapters that exist."""
    runbook = (Path(__file__).parents[3] / "deploy" / "README.md").read_text()
    chapters = set(re.findall(r"^### (LbDrain\w+)$", runbook, re.MULTILINE))
    named = set(re.findall(r'"(LbDrain\w+)"', Path(module.__file__).read_text()))
    assert named <= chapters
