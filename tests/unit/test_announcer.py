"""What is told, and that nothing is told twice: logs, metrics, and datagrams on a real socket."""

import logging
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.announcer import Announcer
from controller.clock import SystemClock
from controller.core.actions import Plan, Reason
from controller.core.ledger import Entry, EventReference, Hold, Ledger
from controller.core.model import (
    EventDocument,
    EventStatus,
    Floor,
    NicMembership,
    Policy,
    Pool,
    PoolKind,
    PoolMember,
    ScheduledEvent,
)
from controller.logs import Fields
from controller.settings import Settings
from controller.systemd import Notifier

FIELDS = Fields.__annotations__
NOW = datetime(2030, 1, 1, tzinfo=UTC)
SUBSCRIPTION = "/subscriptions/11111111-2222-4333-8444-555555555555"
GROUP = f"{SUBSCRIPTION}/resourceGroups/g/providers/Microsoft.Network"
APP = f"{GROUP}/loadBalancers/web-lb/backendAddressPools/app"
ADMIN = f"{GROUP}/loadBalancers/web-lb/backendAddressPools/admin"


class Audience:
    """An announcer, and everybody who listens to it."""

    def __init__(self, sock: socket.socket, address: str, log: pytest.LogCaptureFixture) -> None:
        settings = Settings.model_validate(
            {
                "backend_pools": [{"id": APP}, {"id": ADMIN}],
                "election": {"container_url": "https://127.0.0.1/account/lb-drain"},
            }
        )
        notifier = Notifier({"NOTIFY_SOCKET": address})
        self.announcer = Announcer(settings, notifier, SystemClock())
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
        text = self.announcer.metrics.render().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return None


@pytest.fixture
def audience(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Audience]:
    caplog.set_level(logging.INFO)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(str(tmp_path / "notify"))
        yield Audience(sock, str(tmp_path / "notify"), caplog)


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
    return Plan(ledger=None, actions=(), phases=(), holds=holds, wake_at=None)


def hold(subject: str, reason: Reason = Reason.FLOOR) -> Hold:
    return Hold(subject=subject, reason=reason.value, message=f"{subject} is held", since=NOW)


def test_a_pass_feeds_the_watchdog_and_nothing_else(audience: Audience) -> None:
    """A pass that changed nothing is heard by systemd and the metrics, and logs nothing (H1)."""
    ledger = Ledger()
    audience.announcer.passed("standby", ledger, ledger)
    assert audience.datagrams() == ["WATCHDOG=1", "STATUS=standby"]
    assert audience.lines() == []
    assert audience.metric("lbdrain_passes_total", outcome="unchanged") == 1


def test_new_transitions_are_logged_once_and_in_order(audience: Audience) -> None:
    """Each line of history is told when it is written, old ones are not told again."""
    before = Ledger().noting(at=NOW, vm="web-9", what="leads")
    after = before.noting(at=NOW, vm="web-1", what="recorded", detail="app").with_entry(entry())
    after = after.noting(at=NOW, vm="web-2", what="recorded")
    audience.announcer.passed("leader", before, after)
    audience.announcer.passed("leader", after, after)
    assert audience.lines() == ["web-1: recorded (app)", "web-2: recorded"]
    assert audience.metric("lbdrain_ledger_entries") == 1
    assert audience.metric("lbdrain_passes_total", outcome="changed") == 1


@pytest.mark.parametrize(
    ("event_types", "counted"),
    [
        (("Request",), "Request"),
        (("Request", "Reboot"), "Reboot"),
        (("Reboot", "Request"), "Reboot"),
    ],
)
def test_a_drain_by_hand_is_counted_as_one_unless_an_event_wanted_it(
    audience: Audience, event_types: tuple[str, ...], counted: str
) -> None:
    """What Azure announced is what the lead time is measured for."""
    references = tuple(EventReference(event_id=each, event_type=each) for each in event_types)
    before = Ledger().with_entry(replace(entry(), events=references))
    after = before.with_entry(replace(entry(out_at=NOW), events=references))
    audience.announcer.passed("leader", before, after.noting(at=NOW, vm="web-1", what="out"))
    assert audience.metric("lbdrain_drains_total", type=counted, outcome="unannounced") == 1


@pytest.mark.parametrize(
    ("notice_s", "outcome", "lead_s"),
    [(600, "in_time", 600.0), (0, "in_time", 0.0), (-5, "late", 0.0), (None, "unannounced", None)],
)
def test_a_drain_is_counted_with_its_lead_time(
    audience: Audience, notice_s: float | None, outcome: str, lead_s: float | None
) -> None:
    """Lead time is NotBefore minus the instant the VM was observed out."""
    not_before = None if notice_s is None else NOW + timedelta(seconds=notice_s)
    before = Ledger().with_entry(entry(not_before))
    after = before.with_entry(entry(not_before, out_at=NOW)).noting(at=NOW, vm="web-1", what="out")
    audience.announcer.passed("leader", before, after)
    assert audience.metric("lbdrain_drains_total", type="Reboot", outcome=outcome) == 1
    count = audience.metric("lbdrain_drain_lead_seconds_count")
    assert count == (0 if lead_s is None else 1)
    assert audience.metric("lbdrain_drain_lead_seconds_sum") == (lead_s or 0)


def test_a_transition_is_logged_with_its_event(audience: Audience) -> None:
    """What a log is searched for: the VM, the most urgent of its events, and out in time or not."""
    late, later = NOW - timedelta(seconds=5), NOW + timedelta(seconds=600)
    events = (
        EventReference(event_id="later", event_type="Freeze", not_before=later),
        EventReference(event_id="first", event_type="Reboot", not_before=late),
    )
    before = Ledger(epoch=3).with_entry(replace(entry(), events=events))
    after = before.noting(at=NOW, vm="web-1", what="out").noting(at=NOW, vm="web-1", what="gone")
    audience.announcer.passed("leader", before, after)
    out, gone = audience.fields()
    first = {"vm": "web-1", "event_id": "first", "event_type": "Reboot", "not_before": late}
    assert out == first | {"event": "out", "epoch": 3, "outcome": "late"}
    assert gone == first | {"event": "gone", "epoch": 3}


def test_a_missing_leader_is_told_once(audience: Audience) -> None:
    """A warning when nobody has led for too long, a line when somebody does again."""
    for missing in (False, True, True, False, False):
        audience.announcer.leader_missing(missing)
    assert [each["event"] for each in audience.fields()] == ["no_leader", "leader_again"]
    assert len(audience.lines(logging.WARNING)) == 1


def test_a_hold_is_told_when_it_begins(audience: Audience) -> None:
    """A hold is a warning once, and a gauge for as long as it lasts."""
    before, after = Ledger(), Ledger(holds=(hold("web-1"),))
    audience.announcer.planned(plan(hold("web-1")), before, after)
    audience.announcer.planned(plan(hold("web-1")), after, after)
    both = Ledger(holds=(hold("web-1"), hold("web-2")))
    audience.announcer.planned(plan(hold("web-1"), hold("web-2")), after, both)
    assert audience.lines(logging.WARNING) == ["web-1 is held", "web-2 is held"]
    assert audience.metric("lbdrain_holds", reason="floor") == 2
    audience.announcer.planned(plan(), both, Ledger())
    assert audience.metric("lbdrain_holds", reason="floor") == 0


def test_deadlines_in_danger_are_a_metric(audience: Audience) -> None:
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
    policy = Policy(pools={APP: Floor()})
    audience.announcer.deadlines(plan(), Ledger(), document, policy, NOW)
    assert audience.metric("lbdrain_vms_at_risk") == 1
    next_deadline = "lbdrain_next_not_before_timestamp_seconds"
    assert audience.metric(next_deadline) == not_before.timestamp()
    out = Ledger().with_entry(entry(out_at=NOW))
    audience.announcer.deadlines(plan(), out, document, policy, NOW)
    assert audience.metric("lbdrain_vms_at_risk") == audience.metric(next_deadline) == 0


def test_how_long_the_oldest_has_been_out_is_a_metric(audience: Audience) -> None:
    """Since when the VM that has been out for longest is recorded."""
    audience.announcer.passed("leader", Ledger(), Ledger().with_entry(entry()))
    assert audience.metric("lbdrain_oldest_entry_timestamp_seconds") == NOW.timestamp()
    audience.announcer.passed("leader", Ledger(), Ledger())
    assert audience.metric("lbdrain_oldest_entry_timestamp_seconds") == 0


def test_silence_counts_from_the_start(audience: Audience) -> None:
    """An agent that never knew a leader says since when it looks; later what it knows counts."""
    name = "lbdrain_leader_seen_timestamp_seconds"
    started = audience.metric(name)
    assert started == pytest.approx(SystemClock().now().timestamp(), abs=60)
    audience.announcer.seen(leader_seen_s=None, clock_ahead=timedelta(seconds=-3))
    assert audience.metric(name) == started
    assert audience.metric("lbdrain_clock_correction_seconds") == -3
    audience.announcer.seen(leader_seen_s=1000, clock_ahead=timedelta())
    expected = SystemClock().now().timestamp() - 1000
    assert audience.metric(name) == pytest.approx(expected, abs=60)


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
    announcer = Announcer(settings, Notifier({}), SystemClock())
    text = announcer.metrics.render().decode()
    assert f"\nlbdrain_lease_duration_seconds {duration_s}.0\n" in text


def test_a_dry_run_tells_its_steps_when_they_change(audience: Audience) -> None:
    """What would be done is logged once, and again when it is something else."""
    for _ in range(2):
        audience.announcer.would_do(("record web-1",))
    audience.announcer.would_do(())
    audience.announcer.would_do(("record web-1",))
    assert audience.lines() == ["dry run: would record web-1"] * 2


def test_members_expected_are_the_same_all_through_a_drain(audience: Audience) -> None:
    """Before the record, before the removal is seen and after it: three are expected."""
    recorded = Ledger().with_entry(entry())
    for ledger, inside in (
        (Ledger(), ("web-1", "web-2", "web-3")),
        (recorded, ("web-1", "web-2", "web-3")),
        (recorded, ("web-2", "web-3")),
        (Ledger().with_entry(entry(restored_at=NOW)), ("web-1", "web-2", "web-3")),
    ):
        audience.announcer.members((pool(*inside),), ledger)
        assert audience.metric("lbdrain_members_expected", pool="web-lb/app") == 3
        assert audience.metric("lbdrain_members_in_rotation", pool="web-lb/app") == len(inside)


def test_a_pool_without_our_vms_is_told_once_until_it_has_some(audience: Audience) -> None:
    """One warning while it lasts, another one when it happens again."""
    for pool_ids in ((APP,), (APP.upper(),), (APP, ADMIN), (ADMIN,), (APP, ADMIN)):
        audience.announcer.without_peers(pool_ids)
    told = [line.split(" has ")[0] for line in audience.lines(logging.WARNING)]
    assert told == ["pool app", "pool admin", "pool app"]


def test_the_lease_is_shown_while_it_is_ours(audience: Audience) -> None:
    """Leadership, its end and its changes are metrics; a standby has none."""
    audience.announcer.lease(left_s=13)
    assert audience.metric("lbdrain_leader") == 1
    until = audience.metric("lbdrain_lease_valid_until_timestamp_seconds")
    assert until is not None
    assert 0 < until - datetime.now(UTC).timestamp() <= 13
    audience.announcer.lease(left_s=12)
    audience.announcer.lease(left_s=None)
    assert audience.metric("lbdrain_leader") == 0
    assert audience.metric("lbdrain_lease_valid_until_timestamp_seconds") == 0
    assert audience.metric("lbdrain_leader_changes_total") == 2
