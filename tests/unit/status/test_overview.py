"""The JSON behind the status page."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.core.drain_history import Step
from controller.core.drain_requests import DRAIN_REQUEST
from controller.core.event_progress import READ_GAP, SeenEvent
from controller.core.event_record import EventVerdict, Verdict, WatchedEvent
from controller.core.events import EventDocument, EventSource, EventStatus, ScheduledEvent
from controller.core.ledger import Entry, EventReference, Hold, Ledger
from controller.core.planning.actions import Phase, Plan, VmPhase
from controller.core.policy import Floor
from controller.core.resources import (
    AddressMembership,
    IpConfiguration,
    Nic,
    NicMembership,
    Pool,
    PoolKind,
    PoolMember,
    PowerState,
    Vm,
)
from controller.core.second_source import GraphEvent, GraphReply, GraphStatus, SecondSource
from controller.core.vm_report import VmReport, VmState
from controller.observability.metrics import AzureRequestCounts
from controller.observability.release import release
from controller.status.overview import overview
from controller.status.snapshot import AgentHealth, AgentSnapshot
from tests.support.policies import make_policy

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
APP, DB = "/lb/backendAddressPools/app", "/lb/backendAddressPools/db"
POOL_NAMES = {APP.casefold(): "lb/app", DB.casefold(): "lb/db"}


def facts(**changes: Any) -> AgentSnapshot:
    """Return what an agent knows that has just been started."""
    given: dict[str, Any] = {
        "now": NOW,
        "health": AgentHealth(role="starting", waiting_for="starting"),
        "lease_duration_s": 30,
        "policy": make_policy(pools={APP: Floor(number=1), DB: Floor(number=1)}),
        "pool_names": POOL_NAMES,
        "consecutive_failures": {
            ("imds", "poll"): 0,
            ("blob", "read"): 1,
            ("blob", "renew"): 2,
        },
    }
    return AgentSnapshot(**{**given, **changes})


def entry(**changes: Any) -> Entry:
    given: dict[str, Any] = {
        "vm": "web-2",
        "vm_id": "/vm/web-2",
        "events": (EventReference(event_id="E-1", event_type="Reboot"),),
        "memberships": (
            NicMembership(pool_id=APP.upper(), nic_id="/nic/2", ip_configuration="ipconfig1"),
        ),
        "recorded_at": NOW,
    }
    return Entry(**{**given, **changes})


LEDGER = Ledger(
    epoch=7,
    leader="web-1",
    leader_since=NOW - timedelta(seconds=90),
    holds=(Hold(subject="web-3", reason="floor", message="<script>", since=NOW),),
).noting(at=NOW, vm="web-2", step=Step.RECORDED, detail="app")
EVENT = ScheduledEvent(
    event_id="E-1",
    event_type="Reboot",
    status=EventStatus.SCHEDULED,
    resources=("web-2",),
    not_before=NOW + timedelta(minutes=20),
    source=EventSource.PLATFORM,
)


def test_an_ignored_event_does_not_follow_from_a_hold() -> None:
    """A freeze of two seconds comes first. No VM is drained for it, and none is held."""
    freeze = replace(EVENT, event_id="E-2", event_type="Freeze", resources=("web-3",))
    freeze = replace(freeze, not_before=NOW + timedelta(seconds=60), duration_s=2)
    redeploy = replace(freeze, event_id="E-3", event_type="Redeploy", duration_s=-1)
    redeploy = replace(redeploy, not_before=NOW + timedelta(seconds=600))
    of_ledger = WatchedEvent(
        event_id="e-2", event_type="Freeze", first_seen_at=NOW, ignored="too short"
    )
    for ledger, ignored in (
        (LEDGER, freeze),
        (replace(LEDGER, events=(of_ledger,)), replace(freeze, duration_s=-1)),
    ):
        seen = tuple(SeenEvent(event=each, first_seen_at=NOW) for each in (ignored, redeploy))
        [hold] = overview(facts(ledger=ledger, seen_events=seen))["holds"]
        assert "the Redeploy can begin at 12:10:00 UTC" in hold["consequence"]


def test_an_agent_that_has_just_been_started() -> None:
    """Whatever is not known is null or empty, never a guess."""
    shown = overview(facts())
    assert shown == {
        "version": 1,
        "at": "2030-01-01T12:00:00.000+00:00",
        "agent": {
            "vm": None,
            "availability_set": None,
            "resource_group": None,
            "release": release(),
            "role": "starting",
            "headline": "starting",
            "healthy": True,
            "why": "starting",
            "listen": "",
            "runbook": "",
        },
        "agents": [],
        "lease": {
            "state": None,
            "leader": None,
            "epoch": None,
            "since": None,
            "valid_for_s": None,
            "duration_s": 30,
        },
        "ledger": {"as_of": None, "problem": ""},
        "document": {"age_s": None, "failed_polls": 0},
        "resource_graph": None,
        "vms": [],
        "events": [],
        "drain_requests": [],
        "rolling_run": None,
        "holds": [],
        "controls": [],
        "controls_problem": "",
        "problems": [],
        "verdicts": [],
        "history": [],
        "services": [
            {"service": "imds", "failures_in_a_row": 0, "name": ""},
            {"service": "blob", "failures_in_a_row": 2, "name": "lease renewal"},
        ],
        "requests": [],
    }
    assert json.loads(json.dumps(shown)) == shown


def leader(**changes: Any) -> AgentSnapshot:
    """Return what a leader of three VMs knows; web-2 is out."""
    given: dict[str, Any] = {
        "health": AgentHealth(role="leader", leading=True),
        "vm": "web-1",
        "availability_set_id": "/set/web",
        "peers": ("WEB-1", "WEB-2", "WEB-3"),
        "lease_state": "leased",
        "valid_for_s": 12.34,
        "ledger": LEDGER.with_entry(entry(out_at=NOW)),
        "ledger_at": NOW,
        "document": EventDocument(incarnation=1, events=(EVENT,)),
        "document_age_s": 0.52,
        "seen_events": (SeenEvent(event=EVENT, first_seen_at=NOW),),
        "plan": Plan(
            ledger=None,
            actions=(),
            phases=(
                VmPhase(vm="web-1", phase=Phase.IN_SERVICE),
                VmPhase(vm="web-2", phase=Phase.OUT, why="connections end"),
                VmPhase(vm="web-3", phase=Phase.HELD, why="floor"),
            ),
            holds=LEDGER.holds,
            wake_at=None,
        ),
        "vms": (
            Vm(name="web-1", vm_id="/vm/1", nic_ids=("/NIC/1",), power=PowerState.RUNNING),
            Vm(name="web-2", vm_id="/vm/2", nic_ids=("/nic/2",), power=PowerState.NOT_RUNNING),
        ),
        "nics": (nic("/nic/1", "10.0.0.4", APP), nic("/nic/2", "10.0.0.5")),
        "pools": (
            Pool(pool_id=APP, kind=PoolKind.NIC, members=(), observed_at=NOW),
            Pool(pool_id=DB, kind=PoolKind.ADDRESS, members=(ADDRESS,), observed_at=NOW),
        ),
    }
    return facts(**{**given, **changes})


def nic(nic_id: str, private_ip: str, *pool_ids: str) -> Nic:
    configuration = IpConfiguration(name="ipconfig1", pool_ids=pool_ids, private_ip=private_ip)
    return Nic(
        nic_id=nic_id, vm_id="", etag="", ip_configurations=(configuration,), observed_at=NOW
    )


ADDRESS = PoolMember(
    address=AddressMembership(pool_id=DB, name="a", ip_address="10.0.0.4", body="{}")
)


def test_the_vms_of_a_leader() -> None:
    """Each VM once, in its best spelling, with its phase, and the pools it is in and out of."""
    vms = overview(leader())["vms"]
    assert [(vm["vm"], vm["phase"], vm["why"], vm["power"]) for vm in vms] == [
        ("web-1", "in_service", "", "running"),
        ("web-2", "out", "connections end", "not running"),
        ("web-3", "held", "floor", None),
    ]
    assert [vm["pools"] for vm in vms] == [
        [{"pool": "lb/app", "inside": True}, {"pool": "lb/db", "inside": True}],
        [{"pool": "lb/app", "inside": False}],
        [],
    ]


def test_the_lease_of_a_leader() -> None:
    """Who leads, since when, and for how long without renewing."""
    shown = overview(leader())
    assert shown["lease"] == {
        "state": "leased",
        "leader": "web-1",
        "epoch": 7,
        "since": "2030-01-01T11:58:30.000+00:00",
        "valid_for_s": 12.3,
        "duration_s": 30,
    }
    assert shown["document"] == {"age_s": 0.5, "failed_polls": 0}
    assert shown["ledger"]["as_of"] == "2030-01-01T12:00:00.000+00:00"


def test_a_lease_that_nobody_holds() -> None:
    """Whom the ledger names leads only while the lease is taken."""
    lease = overview(leader(lease_state="expired"))["lease"]
    assert (lease["leader"], lease["since"], lease["epoch"]) == (None, None, 7)


def test_a_standby() -> None:
    """A standby shows what the ledger tells: who is out, of what; of the others nothing."""
    at = NOW - timedelta(seconds=9)
    standby = replace(
        leader(),
        health=AgentHealth(role="standby"),
        plan=None,
        vms=(),
        nics=(),
        pools=(),
        ledger_at=at,
        vm="web-3",
    )
    shown = overview(replace(standby, valid_for_s=None))
    assert shown["ledger"]["as_of"] == "2030-01-01T11:59:51.000+00:00"
    assert [(vm["vm"], vm["phase"]) for vm in shown["vms"]] == [
        ("WEB-1", None),
        ("web-2", "out"),
        ("web-3", "held"),
    ]
    assert shown["vms"][2]["why"] == "<script>"
    assert shown["vms"][1]["pools"] == [{"pool": "lb/app", "inside": False}]
    assert [hold["message"] for hold in shown["holds"]] == ["<script>"]


def test_a_vm_that_was_put_back_is_out_of_nothing() -> None:
    """The memberships of an entry are history once they were restored."""
    shown = overview(facts(ledger=Ledger().with_entry(entry(restored_at=NOW, gone=True))))
    assert (shown["vms"][0]["pools"], shown["vms"][0]["gone"]) == ([], True)


def test_events() -> None:
    """An event comes with its deadline, when draining begins, and a timeline for each VM."""
    (event,) = overview(leader())["events"]
    shown: dict[str, Any] = dict(event)
    timelines = shown.pop("timelines")
    assert shown == {
        "event_id": "E-1",
        "event_type": "Reboot",
        "status": "Scheduled",
        "source": "Platform",
        "vms": ["web-2"],
        "not_before": "2030-01-01T12:20:00.000+00:00",
        "duration_s": None,
        "impacting": True,
        "ignored": "",
        "outlook": ["web-2 is out of rotation: the Reboot finds no client on it"],
        "drain_at": "2030-01-01T12:05:00.000+00:00",
        "detail": "",
    }
    assert [each["vm"] for each in timelines] == ["web-2"]
    assert timelines[0]["steps"][:2] == [
        {"step": "announced", "state": "done", "at": "2030-01-01T12:00:00.000+00:00"},
        {"step": "draining", "state": "done", "at": "2030-01-01T12:00:00.000+00:00"},
    ]


def test_events_that_policy_ignores() -> None:
    """What is not acted on has neither a timeline nor an instant to drain."""
    short = replace(EVENT, event_type="Freeze", duration_s=2)
    (shown,) = overview(
        leader(seen_events=(SeenEvent(event=short, first_seen_at=NOW),), ledger=LEDGER)
    )["events"]
    assert (shown["impacting"], shown["timelines"], shown["drain_at"]) == (False, [], None)
    assert shown["duration_s"] == 2


def test_events_that_are_gone() -> None:
    """A gone event is shown for a while, or while the ledger tells that it keeps a VM out."""
    old = NOW - timedelta(hours=1)
    begun = replace(EVENT, status=EventStatus.STARTED)
    gone = SeenEvent(event=begun, first_seen_at=old, started_at=old, gone=True, gone_at=old)
    (shown,) = overview(leader(seen_events=(gone,)))["events"]
    assert shown["status"] == "Gone"
    assert overview(leader(seen_events=(gone,), ledger=LEDGER))["events"] == []
    (unread,) = overview(leader(seen_events=()))["events"]
    assert (unread["status"], unread["impacting"], unread["vms"]) == ("Gone", True, ["web-2"])
    (unknown,) = overview(leader(seen_events=(), document=None, document_age_s=None))["events"]
    assert unknown["status"] == "Unknown"


def test_events_that_were_cancelled() -> None:
    """Cancelled is said only of what policy acts on, and where the ledger is known."""
    gone = SeenEvent(event=EVENT, first_seen_at=NOW, last_seen_at=NOW, gone=True, gone_at=NOW)
    freeze = replace(gone, event=replace(EVENT, event_type="Freeze", duration_s=2))

    def status(**changes: Any) -> str:
        (shown,) = overview(leader(**{"seen_events": (gone,), "ledger": LEDGER, **changes}))[
            "events"
        ]
        return shown["status"]

    assert status() == "Cancelled"
    assert status(ledger=None) == "Gone"
    assert status(seen_events=(replace(gone, last_seen_at=NOW - 2 * READ_GAP),)) == "Gone"
    assert status(
        ledger=LEDGER.noting(at=NOW, vm="web-2", step=Step.ACKNOWLEDGED, detail="E-1")
    ) == ("Gone")
    assert status(seen_events=(freeze,)) == "Gone"


def test_a_request_made_by_hand() -> None:
    """A request is not an event of unknown status: who asked and why, and what is done for it."""
    reference = EventReference(event_id="R-1", event_type=DRAIN_REQUEST)
    ledger = LEDGER.with_entry(entry(events=(reference,), out_at=NOW)).noting(
        at=NOW, vm="web-2", step=Step.REQUESTED, detail="by ann until 13:00: a new disk"
    )
    (event,) = overview(leader(seen_events=(), ledger=ledger))["events"]
    shown: dict[str, Any] = dict(event)
    timelines = shown.pop("timelines")
    assert shown == {
        "event_id": "R-1",
        "event_type": "Request",
        "status": "Manual",
        "source": "Unknown",
        "vms": ["web-2"],
        "not_before": None,
        "duration_s": None,
        "impacting": True,
        "ignored": "",
        "outlook": [],
        "drain_at": None,
        "detail": "by ann until 13:00: a new disk",
    }
    (steps,) = [each["steps"] for each in timelines]
    assert [(step["step"], step["state"]) for step in steps] == [
        ("draining", "done"),
        ("out", "done"),
        ("restored", "pending"),
    ]


def test_an_event_type_that_azure_calls_request() -> None:
    """What was read from Azure is an event, whatever its type; it may name nobody."""
    event = replace(EVENT, event_type=DRAIN_REQUEST, resources=())
    (shown,) = overview(leader(seen_events=(SeenEvent(event=event, first_seen_at=NOW),)))["events"]
    assert (shown["status"], shown["detail"], shown["timelines"]) == ("Scheduled", "", [])


def test_history_is_newest_first() -> None:
    """The history of the ledger is shown, the newest line on top, each step also in words."""
    ledger = LEDGER.noting(at=NOW + timedelta(seconds=3), vm="web-2", step=Step.OUT)
    assert overview(facts(ledger=ledger))["history"] == [
        {
            "at": "2030-01-01T12:00:03.000+00:00",
            "vm": "web-2",
            "what": "out",
            "text": "out of rotation",
            "detail": "",
        },
        {
            "at": "2030-01-01T12:00:00.000+00:00",
            "vm": "web-2",
            "what": "recorded",
            "text": "drain started",
            "detail": "app",
        },
    ]


def test_requests() -> None:
    """Requests are counted by how they ended, with their mean duration."""
    outcomes = {"ok": 3, "conflict": 1}
    given = AzureRequestCounts(service="network", operation="nic_put", outcomes=outcomes, seconds=2)
    assert overview(facts(azure_requests=(given,)))["requests"] == [
        {
            "service": "network",
            "operation": "nic_put",
            "name": "NIC write",
            "ok": 3,
            "other": {"conflict": 1},
            "mean_s": 0.5,
        }
    ]


def test_verdicts_are_shown_with_their_event_and_by_themselves() -> None:
    """The newest verdict comes first; one of an earlier event with the same id does not count."""
    old = EventVerdict(
        at=NOW - timedelta(days=1),
        vm="WEB-2",
        event_id=EVENT.event_id,
        event_type="Reboot",
        verdict=Verdict.CANCELLED,
    )
    late = replace(
        old,
        at=NOW,
        verdict=Verdict.LATE,
        not_before=NOW,
        out_at=NOW + timedelta(seconds=9),
        why="w",
    )
    ledger = replace(LEDGER, verdicts=(old,))
    shown = overview(leader(ledger=ledger))
    assert shown["events"][0]["timelines"][0]["verdict"] is None
    shown = overview(leader(ledger=replace(ledger, verdicts=(old, late))))
    timeline = shown["events"][0]["timelines"][0]
    assert (timeline["verdict"], timeline["text"]) == (
        "late",
        "late, out of rotation 9 s after NotBefore: w",
    )
    assert [each["verdict"] for each in shown["verdicts"]] == ["late", "cancelled"]
    assert [each["margin_s"] for each in shown["verdicts"]] == [-9.0, None]


def test_a_vm_that_closes_is_shown_with_its_report() -> None:
    """A leader shows what it read; without a drain there is nothing to show."""
    report = VmReport(
        vm="web-2", boot_id="b", state=VmState.CLOSED, since=NOW, at=NOW, drain=NOW, counted=True,
        connections=2,
    )  # fmt: skip
    shown = overview(
        facts(
            ledger=LEDGER.with_entry(entry()), peers=("web-1", "web-2"), reports={"web-2": report}
        )
    )
    views = {each["vm"]: each["closing"] for each in shown["vms"]}
    assert views["web-1"] is None
    assert views["web-2"] is not None
    assert views["web-2"]["text"] == "closed since 12:00:00 UTC, 2 connections left"


def test_an_event_that_policy_ignores_names_the_setting() -> None:
    """An administrator who asks why nothing happens finds it here."""
    short = replace(EVENT, event_type="Freeze", duration_s=2)
    (shown,) = overview(leader(seen_events=(SeenEvent(event=short, first_seen_at=NOW),)))["events"]
    why = "it lasts 2 s, min_duration_s = 5 in [policy.events.Freeze]"
    assert (shown["impacting"], shown["ignored"], shown["timelines"]) == (False, why, [])


def test_what_the_leader_ignored_is_ignored_by_a_reader_without_the_document() -> None:
    """The ledger does not record how long an event lasts."""
    watched = WatchedEvent(
        event_id="e-1", event_type="Freeze", first_seen_at=NOW, ignored="it lasts 2 s"
    )
    freeze = replace(EVENT, event_type="Freeze")
    shown = overview(
        leader(
            ledger=replace(LEDGER, events=(watched,)),
            seen_events=(SeenEvent(event=freeze, first_seen_at=NOW),),
        )
    )
    assert [each["ignored"] for each in shown["events"]] == ["it lasts 2 s"]
    assert [vm["why"] for vm in shown["vms"]][1] == "connections end"


def test_every_vm_has_its_reason() -> None:
    """A VM that is out names the event; one whose event changes nothing yet the setting."""
    plan = Plan(
        ledger=None,
        actions=(),
        phases=tuple(VmPhase(vm=f"web-{n}", phase=Phase.IN_SERVICE) for n in (1, 2, 3)),
        holds=(),
        wake_at=None,
    )
    events = (
        replace(EVENT, event_id="E-2", resources=("WEB-1",), event_type="Freeze", duration_s=2),
        replace(EVENT, event_id="E-3", resources=("web-1",)),
        replace(EVENT, event_id="E-4", resources=("web-3",), not_before=NOW),
    )
    seen = tuple(SeenEvent(event=each, first_seen_at=NOW) for each in events)
    shown = overview(leader(plan=plan, seen_events=seen))
    assert [vm["why"] for vm in shown["vms"]] == [
        "Freeze is ignored: it lasts 2 s, min_duration_s = 5 in [policy.events.Freeze]; "
        "Reboot: the drain starts at 2030-01-01 12:05:00 UTC",
        "because of Reboot",
        "",
    ]
    assert [vm["recorded"] for vm in shown["vms"]] == [False, True, False]


def test_a_vm_whose_events_only_its_own_agent_sees_is_not_covered() -> None:
    """It stays marked while the event is remembered; a VM that the leader covers is not marked."""
    own = SeenEvent(event=replace(EVENT, resources=("web-2",)), first_seen_at=NOW)
    other = replace(EVENT, event_id="E-2", resources=("web-3",), forwarded=True)
    seen = (own, SeenEvent(event=other, first_seen_at=NOW, gone=True, gone_at=NOW))
    shown = overview(leader(seen_events=seen))
    views = {each["vm"].lower(): each["not_covered"] for each in shown["vms"]}
    assert views["web-3"].startswith("the event document of web-1 does not show its events")
    assert {vm for vm, text in views.items() if text} == {"web-3"}


def test_what_resource_graph_has_shown() -> None:
    """Where it differs from the event document, and why its last query failed."""
    row = GraphEvent(event_id="e-1", status=GraphStatus.COMPLETED)
    early = SecondSource().answered(GraphReply(rows=(row,), set_aside=("odd",)), NOW)
    read = EventDocument(incarnation=1, events=(EVENT,))
    found = overview(facts(second_source=early, document=read))["resource_graph"]
    assert found == {
        "as_of": "2030-01-01T12:00:00.000+00:00",
        "problem": "",
        "unpublished": [],
        "early_ends": ["E-1"],
        "set_aside": ["odd"],
    }
    seen = (SeenEvent(event=EVENT, first_seen_at=NOW - timedelta(hours=1)),)
    empty = SecondSource().answered(GraphReply(), NOW)
    shown = overview(facts(second_source=empty, document=read, seen_events=seen))["resource_graph"]
    assert shown is not None
    assert shown["unpublished"] == ["E-1"]
    failed = overview(facts(second_source=SecondSource().failed("no answer")))["resource_graph"]
    assert failed is not None
    assert (failed["as_of"], failed["problem"]) == (None, "no answer")
