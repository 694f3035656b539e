"""What a pass reports, and that it does so once: logs, metrics, datagrams on a real socket."""

import logging
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.clock import SystemClock
from controller.config.schema import Settings
from controller.core.controls import NO_CONTROLS, Controls, Pause
from controller.core.drain_history import Step, cut_text
from controller.core.event_record import EventVerdict, Verdict, WatchedEvent
from controller.core.events import EventDocument, EventStatus, ScheduledEvent
from controller.core.leader_absence import LeaderAbsence
from controller.core.ledger import Entry, EventReference, Hold, Ledger
from controller.core.observation import Observation
from controller.core.planning.actions import HoldReason, Phase, Plan, VmPhase
from controller.core.planning.pool_membership import PoolMembership
from controller.core.policy import Floor
from controller.core.resources import NicMembership, Pool, PoolKind, PoolMember
from controller.core.vm_report import SeenReport, VmReport, VmState
from controller.observability.logs import Fields
from controller.observability.systemd_notify import SystemdNotifier
from controller.observability.transition_log import TransitionReporter
from tests.support.policies import make_policy

FIELDS = Fields.__annotations__
NOW = datetime(2030, 1, 1, tzinfo=UTC)
SUBSCRIPTION = "/subscriptions/11111111-2222-4333-8444-555555555555"
GROUP = f"{SUBSCRIPTION}/resourceGroups/g/providers/Microsoft.Network"
APP = f"{GROUP}/loadBalancers/web-lb/backendAddressPools/app"
ADMIN = f"{GROUP}/loadBalancers/web-lb/backendAddressPools/admin"


class Outputs:
    """A reporter, and everything that it writes to."""

    def __init__(self, sock: socket.socket, address: str, log: pytest.LogCaptureFixture) -> None:
        settings = Settings.model_validate(
            {
                "backend_pools": [{"id": APP}, {"id": ADMIN}],
                "election": {"container_url": "https://127.0.0.1/account/lb-drain"},
            }
        )
        notifier = SystemdNotifier({"NOTIFY_SOCKET": address})
        self.reporter = TransitionReporter(settings, notifier, SystemClock())
        self._sock, self._log = sock, log

    def datagrams(self) -> list[str]:
        found: list[str] = []
        while True:
            try:
                found.append(self._sock.recv(1000).decode())
            except BlockingIOError:
                return found

    def lines(self, level: int = logging.INFO) -> list[str]:
        return [each.getMessage() for each in self._log.records if each.levelno >= level]

    def fields(self) -> list[dict[str, object]]:
        found = [
            [(name, getattr(each, name, None)) for name in FIELDS] for each in self._log.records
        ]
        return [{name: value for name, value in line if value is not None} for line in found]

    def metric(self, name: str, **labels: str) -> float | None:
        text = self.reporter.metrics.render().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return None


@pytest.fixture
def outputs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Outputs]:
    caplog.set_level(logging.INFO)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(str(tmp_path / "notify"))
        yield Outputs(sock, str(tmp_path / "notify"), caplog)


def entry(not_before: datetime | None = None, **fields: datetime) -> Entry:
    return Entry(
        vm="web-1",
        vm_id="/vm/web-1",
        events=(EventReference(event_id="e", event_type="Reboot", not_before=not_before),),
        memberships=(membership("web-1"),),
        recorded_at=NOW,
        **fields,  # type: ignore[arg-type]
    )


def membership(vm: str) -> NicMembership:
    nic_id = f"{GROUP}/networkInterfaces/{vm}-nic"
    return NicMembership(pool_id=APP, nic_id=nic_id, ip_configuration="ipconfig1")


def pool(*vms: str) -> Pool:
    return Pool(
        pool_id=APP,
        kind=PoolKind.NIC,
        members=tuple(
            PoolMember(ip_configuration_id=f"{membership(vm).nic_id}/ipConfigurations/IPCONFIG1")
            for vm in vms
        ),
        observed_at=NOW,
    )


def plan(*holds: Hold) -> Plan:
    subjects = [each.subject for each in holds if each.subject.startswith("web-")]
    phases = tuple(VmPhase(vm=vm, phase=Phase.HELD) for vm in subjects)
    return Plan(ledger=None, actions=(), phases=phases, holds=holds, wake_at=None)


def hold(subject: str, reason: HoldReason = HoldReason.FLOOR) -> Hold:
    return Hold(subject=subject, reason=reason.value, message=f"{subject} is held", since=NOW)


def test_a_pass_feeds_the_watchdog_and_nothing_else(outputs: Outputs) -> None:
    """A pass that changed nothing is heard by systemd and the metrics, and logs nothing (H1)."""
    ledger = Ledger()
    outputs.reporter.passed("standby", ledger, ledger)
    assert outputs.datagrams() == ["WATCHDOG=1", "STATUS=standby"]
    assert outputs.lines() == []
    assert outputs.metric("lbdrain_reconciles_total", result="unchanged") == 1


def test_new_transitions_are_logged_once_and_in_order(outputs: Outputs) -> None:
    """Each transition is logged when it is written, and not again."""
    before = Ledger().noting(at=NOW, vm="web-9", step=Step.LEADS)
    after = before.noting(at=NOW, vm="web-1", step=Step.RECORDED, detail="app").with_entry(entry())
    after = after.noting(at=NOW, vm="web-2", step=Step.RECORDED)
    outputs.reporter.passed("leader", before, after)
    outputs.reporter.passed("leader", after, after)
    assert outputs.lines() == ["web-1: drain started (app)", "web-2: drain started"]
    assert outputs.metric("lbdrain_ledger_entries") == 1
    assert outputs.metric("lbdrain_reconciles_total", result="changed") == 1


@pytest.mark.parametrize(
    ("event_types", "counted", "outcome"),
    [
        (("Request",), "Request", "requested"),
        (("Request", "Reboot"), "Reboot", "unannounced"),
        (("Reboot", "Request"), "Reboot", "unannounced"),
        (("test-Request",), "Test", "requested"),
        (("test-Request", "Request"), "Request", "requested"),
        (("test-Reboot", "Reboot"), "Reboot", "unannounced"),
    ],
)
def test_a_manual_drain_is_counted_as_one_unless_there_is_an_event(
    outputs: Outputs, event_types: tuple[str, ...], counted: str, outcome: str
) -> None:
    """What Azure announced is what the lead time is measured for, and a test counts as one."""
    references = tuple(
        EventReference(event_id=each, event_type=each.removeprefix("test-")) for each in event_types
    )
    before = Ledger().with_entry(replace(entry(), events=references))
    after = before.with_entry(replace(entry(out_at=NOW), events=references))
    outputs.reporter.passed("leader", before, after.noting(at=NOW, vm="web-1", step=Step.OUT))
    assert outputs.metric("lbdrain_drains_total", type=counted, outcome=outcome) == 1


@pytest.mark.parametrize(
    ("notice_s", "outcome", "lead_s"),
    [(600, "in_time", 600.0), (0, "in_time", 0.0), (-5, "late", 0.0), (None, "unannounced", None)],
)
def test_a_drain_is_counted_with_its_lead_time(
    outputs: Outputs, notice_s: float | None, outcome: str, lead_s: float | None
) -> None:
    """Lead time is NotBefore minus the instant the VM was observed out."""
    not_before = None if notice_s is None else NOW + timedelta(seconds=notice_s)
    before = Ledger().with_entry(entry(not_before))
    after = before.with_entry(entry(not_before, out_at=NOW)).noting(
        at=NOW, vm="web-1", step=Step.OUT
    )
    outputs.reporter.passed("leader", before, after)
    assert outputs.metric("lbdrain_drains_total", type="Reboot", outcome=outcome) == 1
    count = outputs.metric("lbdrain_drain_lead_seconds_count")
    assert count == (0 if lead_s is None else 1)
    assert outputs.metric("lbdrain_drain_lead_seconds_sum") == (lead_s or 0)


def test_a_transition_is_logged_with_its_event(outputs: Outputs) -> None:
    """What a log is searched for: the VM, the most urgent of its events, and out in time or not."""
    late, later = NOW - timedelta(seconds=5), NOW + timedelta(seconds=600)
    events = (
        EventReference(event_id="later", event_type="Freeze", not_before=later),
        EventReference(event_id="first", event_type="Reboot", not_before=late),
    )
    before = Ledger(epoch=3).with_entry(replace(entry(), events=events))
    after = before.noting(at=NOW, vm="web-1", step=Step.OUT).noting(
        at=NOW, vm="web-1", step=Step.GONE
    )
    outputs.reporter.passed("leader", before, after)
    assert outputs.lines(logging.INFO)[0] == "web-1: out of rotation, 5 s after NotBefore"
    out, gone = outputs.fields()
    first = {"vm": "web-1", "event_id": "first", "event_type": "Reboot", "not_before": late}
    assert out == first | {"event": "out", "epoch": 3, "outcome": "late"}
    assert gone == first | {"event": "gone", "epoch": 3}


def test_a_missing_leader_is_logged_once(outputs: Outputs) -> None:
    """A warning when there has been no leader for too long, a line when there is one again."""
    absence = LeaderAbsence(lease_duration_s=30)
    for unseen_s in (1, 61, 600, 1, 1):
        before, absence = absence, absence.after(unseen_s)
        if absence is not before:
            outputs.reporter.leader_missing(absence.missing)
    assert [each["event"] for each in outputs.fields()] == ["leader_missing", "leader_restored"]
    assert len(outputs.lines(logging.WARNING)) == 1


def test_a_hold_is_logged_when_it_begins(outputs: Outputs) -> None:
    """A hold is a warning once, and a gauge while it lasts."""
    before, after = Ledger(), Ledger(holds=(hold("web-1"),))
    outputs.reporter.planned(plan(hold("web-1")), before, after)
    outputs.reporter.planned(plan(hold("web-1")), after, after)
    both = Ledger(holds=(hold("web-1"), hold("web-2")))
    outputs.reporter.planned(plan(hold("web-1"), hold("web-2")), after, both)
    assert outputs.lines(logging.WARNING) == ["web-1 is held", "web-2 is held"]
    assert [each["vm"] for each in outputs.fields()] == ["web-1", "web-2"]
    assert outputs.metric("lbdrain_holds", reason="floor") == 2
    outputs.reporter.planned(plan(), both, Ledger())
    assert outputs.metric("lbdrain_holds", reason="floor") == 0


def test_deadlines_at_risk_are_a_metric(outputs: Outputs) -> None:
    """How many VMs may be hit before they are out, and until when the next one has to be."""
    not_before = NOW + timedelta(seconds=60)
    event = ScheduledEvent(
        event_id="e",
        event_type="Reboot",
        status=EventStatus.SCHEDULED,
        resources=("web-1",),
        not_before=not_before,
    )
    document = EventDocument(incarnation=1, events=(event,))
    policy = make_policy(pools={APP: Floor(number=1)})
    outputs.reporter.deadlines(plan(), Ledger(), document, policy, NOW)
    assert outputs.metric("lbdrain_vms_at_risk") == 1
    next_deadline = "lbdrain_next_not_before_timestamp_seconds"
    assert outputs.metric(next_deadline) == not_before.timestamp()
    out = Ledger().with_entry(entry(out_at=NOW))
    outputs.reporter.deadlines(plan(), out, document, policy, NOW)
    assert outputs.metric("lbdrain_vms_at_risk") == outputs.metric(next_deadline) == 0


@pytest.mark.parametrize(("step", "detail"), [(Step.OUT, "{}"), (Step.STARTED, "Reboot e, {}")])
def test_connections_that_were_cut_are_counted(outputs: Outputs, step: Step, detail: str) -> None:
    """A removal and the start of an event count them once; what is left is no cut."""
    before = Ledger().noting(at=NOW, vm="web-1", step=Step.CLOSED, detail="9 connections left")
    after = before.noting(at=NOW, vm="web-1", step=step, detail=detail.format(cut_text(4)))
    outputs.reporter.passed("leader", before, after)
    outputs.reporter.passed("leader", after, after)
    assert outputs.metric("lbdrain_connections_cut_total") == 4


def test_what_closed_vms_have_left_is_a_metric(outputs: Outputs) -> None:
    """Only reports about a drain of the ledger count; a standby exposes none."""
    report = VmReport(
        vm="web-1", boot_id="b", state=VmState.CLOSED, since=NOW, at=NOW, counted=True,
        connections=5, drain=NOW,
    )  # fmt: skip
    other = replace(report, vm="web-2")  # no entry
    opening = replace(report, state=VmState.OPENING)
    ledger = Ledger().with_entry(entry())

    def gauges(*reports: VmReport) -> tuple[float | None, float | None]:
        seen = {each.vm: SeenReport(each, NOW) for each in reports}
        outputs.reporter.closed(Observation(document=None, reports=seen), ledger)
        names = ("lbdrain_vms_closed", "lbdrain_connections_left")
        return outputs.metric(names[0]), outputs.metric(names[1])

    assert gauges(opening, other) == (0, 0)
    assert gauges(report, other) == (1, 5)
    outputs.reporter.metrics.stand_by()
    assert outputs.metric("lbdrain_vms_closed") == outputs.metric("lbdrain_connections_left") == 0


def test_how_long_the_oldest_has_been_out_is_a_metric(outputs: Outputs) -> None:
    """Since when the VM that has been out for longest is recorded."""
    outputs.reporter.passed("leader", Ledger(), Ledger().with_entry(entry()))
    assert outputs.metric("lbdrain_oldest_drain_start_timestamp_seconds") == NOW.timestamp()
    outputs.reporter.passed("leader", Ledger(), Ledger())
    assert outputs.metric("lbdrain_oldest_drain_start_timestamp_seconds") == 0


def test_silence_counts_from_the_start(outputs: Outputs) -> None:
    """An agent that has seen no leader exposes its start; later the last time that it saw one."""
    name = "lbdrain_leader_seen_timestamp_seconds"
    started = outputs.metric(name)
    assert started == pytest.approx(SystemClock().now().timestamp(), abs=60)
    outputs.reporter.seen(leader_seen_s=None, clock_ahead=timedelta(seconds=-3))
    assert outputs.metric(name) == started
    assert outputs.metric("lbdrain_clock_correction_seconds") == -3
    outputs.reporter.seen(leader_seen_s=1000, clock_ahead=timedelta())
    expected = SystemClock().now().timestamp() - 1000
    assert outputs.metric(name) == pytest.approx(expected, abs=60)


@pytest.mark.parametrize(("dry_run", "duration_s"), [(False, 30), (True, 0)])
def test_a_dry_run_elects_nobody(dry_run: bool, duration_s: int) -> None:
    """The duration of a lease is exposed, unless there is none to wait for."""
    settings = Settings.model_validate(
        {
            "backend_pools": [{"id": APP}],
            "election": {"container_url": "https://127.0.0.1/account/lb-drain"},
            "policy": {"dry_run": dry_run},
        }
    )
    reporter = TransitionReporter(settings, SystemdNotifier({}), SystemClock())
    text = reporter.metrics.render().decode()
    assert f"\nlbdrain_lease_duration_seconds {duration_s}.0\n" in text


def test_a_hold_of_an_event_names_no_vm(outputs: Outputs) -> None:
    """The field vm of a hold is there only if the hold is about a VM."""
    held = Ledger(holds=(hold("E-1"),))
    outputs.reporter.planned(plan(hold("E-1")), Ledger(), held)
    assert outputs.fields() == [{"event": "held", "outcome": "floor"}]


def test_a_dry_run_does_not_repeat_a_step(outputs: Outputs) -> None:
    """A step that stays planned while others come and go is logged once."""
    for lines in (("record web-1",), ("record web-1", "record web-2"), ("record web-1",)):
        outputs.reporter.would_do(lines)
    assert outputs.lines() == ["dry run: would record web-1", "dry run: would record web-2"]


def test_a_dry_run_logs_a_step_once(outputs: Outputs) -> None:
    """What would be done is logged once, also when it was not planned in between."""
    for _ in range(2):
        outputs.reporter.would_do(("record web-1",))
    outputs.reporter.would_do(())
    outputs.reporter.would_do(("record web-1",))
    assert outputs.lines() == ["dry run: would record web-1"]


def test_members_expected_are_the_same_all_through_a_drain(outputs: Outputs) -> None:
    """Before the record, before the removal is seen and after it: three are expected."""
    recorded = Ledger().with_entry(entry())
    for ledger, inside in (
        (Ledger(), ("web-1", "web-2", "web-3")),
        (recorded, ("web-1", "web-2", "web-3")),
        (recorded, ("web-2", "web-3")),
        (Ledger().with_entry(entry(restored_at=NOW)), ("web-1", "web-2", "web-3")),
    ):
        observed = Observation(document=None, pools=(pool(*inside),))
        outputs.reporter.members(PoolMembership.of(observed, ledger, [APP]), ledger)
        assert outputs.metric("lbdrain_members_expected", pool="web-lb/app") == 3
        assert outputs.metric("lbdrain_members_in_rotation", pool="web-lb/app") == len(inside)


def test_a_deleted_pool_has_no_members(outputs: Outputs) -> None:
    """Its last number of members would be exposed until the leader changes."""
    for pools in ((pool("web-1"),), ()):
        observed = Observation(document=None, pools=pools)
        outputs.reporter.members(PoolMembership.of(observed, Ledger(), [APP]), Ledger())
        for name in ("lbdrain_members_in_rotation", "lbdrain_members_expected"):
            assert outputs.metric(name, pool="web-lb/app") == (1 if pools else None)


def test_a_pool_without_vms_of_the_set_is_logged_once(outputs: Outputs) -> None:
    """One warning while it lasts, another one when it happens again."""
    for pool_ids in ((APP,), (APP.upper(),), (APP, ADMIN), (ADMIN,), (APP, ADMIN)):
        outputs.reporter.without_peers(pool_ids)
    logged = [line.split(" has ")[0] for line in outputs.lines(logging.WARNING)]
    assert logged == ["pool app", "pool admin", "pool app"]


def test_the_lease_is_shown_while_it_is_ours(outputs: Outputs) -> None:
    """Leadership, its end and its changes are metrics; a standby has none."""
    outputs.reporter.lease(left_s=13)
    assert outputs.metric("lbdrain_leader") == 1
    until = outputs.metric("lbdrain_lease_valid_until_timestamp_seconds")
    assert until is not None
    assert 0 < until - datetime.now(UTC).timestamp() <= 13
    outputs.reporter.lease(left_s=12)
    outputs.reporter.lease(left_s=None)
    assert outputs.metric("lbdrain_leader") == 0
    assert outputs.metric("lbdrain_lease_valid_until_timestamp_seconds") == 0
    assert outputs.metric("lbdrain_leader_changes_total") == 2


@pytest.mark.parametrize(
    ("verdict", "level"),
    [
        (Verdict.DRAINED, logging.INFO),
        (Verdict.LATE, logging.WARNING),
        (Verdict.HIT_IN_ROTATION, logging.ERROR),
        (Verdict.IGNORED, logging.INFO),
        (Verdict.CANCELLED, logging.INFO),
        (Verdict.UNMANAGED, logging.INFO),
    ],
)
def test_a_verdict_is_logged_and_counted_once(
    verdict: Verdict, level: int, outputs: Outputs
) -> None:
    """Success is logged as failure is, at its level, with the VM, the event and the verdict."""
    found = EventVerdict(
        at=NOW, vm="web-1", event_id="e", event_type="Reboot", verdict=verdict, not_before=NOW
    )
    before = Ledger(epoch=3)
    after = replace(before, verdicts=(found,))
    outputs.reporter.passed("leader", before, after)
    outputs.reporter.passed("leader", after, after)
    assert outputs.fields() == [
        {
            "event": "verdict",
            "vm": "web-1",
            "epoch": 3,
            "outcome": verdict.value,
            "event_id": "e",
            "event_type": "Reboot",
            "not_before": NOW,
        }
    ]
    assert len(outputs.lines(level)) == 1
    assert outputs.lines(level + 1) == []
    assert outputs.metric("lbdrain_events_total", type="Reboot", verdict=verdict.value) == 1


def test_a_test_event_raises_no_alarm(outputs: Outputs) -> None:
    """The verdict of a rehearsal is logged as one, without a warning, and counted as one."""
    found = EventVerdict(
        at=NOW, vm="web-1", event_id="test-1", event_type="Reboot", verdict=Verdict.HIT_IN_ROTATION
    )
    outputs.reporter.passed("leader", Ledger(), Ledger(verdicts=(found,)))
    assert outputs.lines(logging.WARNING) == []
    assert outputs.lines(logging.INFO) == ["web-1: Reboot: TEST, hit in rotation"]
    assert outputs.metric("lbdrain_events_total", type="Test", verdict="hit_in_rotation") == 1


def test_what_azure_does_is_logged_with_its_event(outputs: Outputs) -> None:
    """A line about an event has its id and type; the VM too, if the event is about one."""
    one = WatchedEvent(event_id="e-1", event_type="Reboot", first_seen_at=NOW, not_before=NOW)
    two = WatchedEvent(event_id="e-2", event_type="Freeze", first_seen_at=NOW)
    before = Ledger(events=(one, two))
    after = before.noting(at=NOW, vm="web-1", step=Step.STARTED, detail="Reboot e-1")
    after = after.noting(at=NOW, vm="web-1, web-2", step=Step.ANNOUNCED, detail="Freeze e-2, w")
    outputs.reporter.passed("leader", before, replace(after, events=()))
    first, second = outputs.fields()
    assert (first["event"], first["vm"], first["event_id"]) == ("started", "web-1", "e-1")
    assert (first["event_type"], first["not_before"]) == ("Reboot", NOW)
    assert (second["event"], second["event_id"]) == ("announced", "e-2")
    assert "vm" not in second
    assert outputs.lines() == [
        "web-1: event started (Reboot e-1)",
        "web-1, web-2: event announced (Freeze e-2, w)",
    ]


def test_a_hold_of_several_vms_is_found_by_each(outputs: Outputs) -> None:
    """A hold that is no VM's own has one line for each VM that it concerns."""
    hold = Hold(subject="web-nic", reason="write_failed", message="no", since=NOW, vms=("a", "b"))
    planned = Plan(ledger=None, actions=(), phases=(), holds=(hold,), wake_at=None)
    outputs.reporter.planned(planned, Ledger(), Ledger(holds=(hold,)))
    assert [each.get("vm") for each in outputs.fields()] == ["a", "b"]
    assert outputs.lines(logging.WARNING) == ["no", "no"]


def test_failing_writes_that_are_not_wanted_any_more_do_not_count(outputs: Outputs) -> None:
    """With no entry, no hold and no write planned, nothing is left that could fail."""
    name = "lbdrain_azure_consecutive_failures"
    outputs.reporter.metrics.request_ended("network", "nic_put", "denied", 1)
    idle = Plan(ledger=None, actions=(), phases=(), holds=(), wake_at=None)
    ledger = Ledger().with_entry(entry())
    outputs.reporter.planned(idle, ledger, ledger)
    assert outputs.metric(name, operation="nic_put") == 1
    outputs.reporter.planned(idle, ledger, Ledger())
    assert outputs.metric(name, operation="nic_put") == 0


def test_a_control_is_reported_when_it_begins_and_when_it_ends(
    outputs: Outputs, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning and one line of information, however many passes see it."""
    pause = Pause(by="ann", reason="", at=NOW, until=NOW + timedelta(hours=1))
    caplog.set_level(logging.INFO)
    for controls in (NO_CONTROLS, Controls(pause=pause), Controls(pause=pause)):
        outputs.reporter.controls(controls)
    assert outputs.metric("lbdrain_paused") == 1
    outputs.reporter.controls(NO_CONTROLS)
    assert outputs.metric("lbdrain_paused") == 0
    found = [(each.levelname, each.getMessage()) for each in caplog.records]
    assert found == [("WARNING", str(pause)), ("INFO", f"control ended: {pause}")]
