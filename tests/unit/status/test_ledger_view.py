"""A look at the set: who leads, and what a leader would do."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.core.drain_history import Step
from controller.core.events import EventDocument, EventStatus, ScheduledEvent
from controller.core.ledger import Entry, EventReference, Hold, Ledger
from controller.core.planning.actions import (
    Acknowledge,
    Action,
    ChangeMembership,
    Plan,
    ReadInventory,
    ReadNic,
)
from controller.core.planning.nic_pool import NicPool
from controller.core.resources import NicMembership
from controller.status.ledger_view import (
    LeaseStatus,
    PlanPreview,
    out_at,
    planned_steps,
    reasons,
    why_phase,
)
from tests.support.policies import make_event_policy, make_policy

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def membership(pool: str = "app") -> NicMembership:
    return NicMembership(
        pool_id=f"/lb/backendAddressPools/{pool}",
        nic_id="/nics/web-1-nic",
        ip_configuration="ipconfig1",
    )


def entry(vm: str = "web-1", *pools: str) -> Entry:
    return Entry(
        vm=vm,
        vm_id=f"/vm/{vm}",
        events=(EventReference(event_id="E-1", event_type="Reboot"),),
        memberships=tuple(membership(pool) for pool in pools or ("app",)),
        recorded_at=NOW,
    )


def plan(ledger: Ledger | None = None, *actions: Action) -> Plan:
    return Plan(ledger=ledger, actions=actions, phases=(), holds=(), wake_at=None)


@pytest.mark.parametrize(
    ("event_id", "event_type", "text"),
    [
        ("E-1", "Reboot", "Reboot"),
        ("R-1", "Request", "manual"),
        ("test-1", "Request", "TEST manual"),
        ("test-1", "Reboot", "TEST Reboot"),
    ],
)
def test_the_reason_of_a_drain(event_id: str, event_type: str, text: str) -> None:
    """An event by its type, a request as manual, and a rehearsal of either as one."""
    reference = EventReference(event_id=event_id, event_type=event_type)
    assert reasons(replace(entry(), events=(reference,))) == text


def test_nothing_to_do() -> None:
    """A plan without a new ledger and without writes does nothing; reads are not worth a word."""
    assert planned_steps(plan(), Ledger()) == ()
    assert planned_steps(plan(None, ReadInventory(), ReadNic("/nics/web-1-nic")), Ledger()) == ()


def test_a_new_entry_is_a_removal_to_come() -> None:
    """A record tells what will be removed from where, and because of what."""
    wanted = Ledger().with_entry(entry("web-1", "b", "a"))
    assert planned_steps(plan(wanted), Ledger()) == (
        "record web-1 and remove it from a, b, because of Reboot E-1",
    )


def test_an_entry_that_changes_is_no_new_one() -> None:
    """What is recorded already is not announced again; names differ in case only."""
    ledger = Ledger().with_entry(entry("WEB-1"))
    wanted = Ledger().with_entry(replace(entry("web-1"), out_at=NOW))
    assert planned_steps(plan(wanted), ledger) == ()


def test_an_entry_used_again_is_a_new_one() -> None:
    """A VM that was restored and is recorded once more leaves again."""
    ledger = Ledger().with_entry(replace(entry(), restored_at=NOW))
    (line,) = planned_steps(plan(Ledger().with_entry(entry())), ledger)
    assert line.startswith("record web-1")


def test_an_entry_that_goes_is_forgotten() -> None:
    """What drops out of the ledger is told."""
    ledger = Ledger().with_entry(entry("web-1")).with_entry(entry("web-2"))
    assert planned_steps(plan(ledger.without_entry("web-1")), ledger) == ("forget web-1",)


def test_writes_and_acknowledgements_are_told_in_order() -> None:
    """Every write of the plan has its line, after what the ledger says."""
    wanted = Ledger().with_entry(entry("web-2"))
    write = ChangeMembership(method=NicPool(), memberships=(membership(),), restore=True)
    lines = planned_steps(plan(wanted, write, ReadInventory(), Acknowledge("E-1")), Ledger())
    assert [line.split()[0] for line in lines] == ["record", "restore", "acknowledge"]
    assert lines[1] == "restore web-1-nic (app)"


def test_when_a_vm_was_out_is_told_as_long_as_it_is_on_its_way() -> None:
    """Once a restore begins the journal tells it; an earlier outing of the VM does not count."""
    at = [NOW + timedelta(seconds=seconds) for seconds in range(5)]
    recorded = replace(entry(), recorded_at=at[2])
    ledger = Ledger().noting(at=at[1], vm="web-1", step=Step.OUT).with_entry(recorded)
    assert out_at(ledger, recorded) is None
    ledger = ledger.noting(at=at[3], vm="WEB-1", step=Step.OUT).noting(
        at=at[4], vm="web-2", step=Step.OUT
    )
    assert out_at(ledger, recorded) == at[3]
    assert out_at(Ledger(), replace(recorded, out_at=at[4])) == at[4]


@pytest.mark.parametrize("state", ["available", "expired", "breaking", "broken"])
def test_who_wrote_last_does_not_lead_without_the_lease(state: str) -> None:
    """A leader is who holds the lease, not who the ledger remembers."""
    look = LeaseStatus(lease_state=state, ledger=Ledger(leader="web-1", leader_since=NOW), at=NOW)
    assert (look.leader, look.lease_age_s, look.as_json()["leader"]) == ("", None, None)


def test_status_is_one_json_object() -> None:
    """Everything of the ledger is there, as values JSON knows."""
    ledger = Ledger(
        epoch=4,
        leader="web-3",
        leader_since=NOW - timedelta(seconds=90),
        holds=(Hold(subject="web-2", reason="floor", message="one left", since=NOW),),
    )
    ledger = ledger.with_entry(replace(entry(), out_at=NOW)).noting(
        at=NOW, vm="web-1", step=Step.OUT
    )
    found = json.loads(
        json.dumps(LeaseStatus(lease_state="leased", ledger=ledger, at=NOW).as_json())
    )
    assert (found["leader"], found["epoch"], found["lease_age_s"]) == ("web-3", 4, 90.0)
    assert found["entries"] == [
        {
            "vm": "web-1",
            "phase": "out",
            "events": ["E-1"],
            "memberships": ["/lb/backendAddressPools/app"],
            "recorded_at": NOW.isoformat(timespec="milliseconds"),
            "out_at": NOW.isoformat(timespec="milliseconds"),
            "restored_at": None,
            "lost": [],
            "gone": False,
        }
    ]
    assert found["holds"][0]["message"] == "one left"
    assert found["transitions"] == [
        {
            "at": NOW.isoformat(timespec="milliseconds"),
            "vm": "web-1",
            "what": "out",
            "text": "out of rotation",
            "detail": "",
        }
    ]


def preview(ledger: Ledger, *events: ScheduledEvent) -> PlanPreview:
    policy = make_policy(
        pools={}, events={"Freeze": make_event_policy(min_duration_s=5)}, lead_time_s=900
    )
    return PlanPreview(
        vm="web-1",
        lease=LeaseStatus(lease_state="leased", ledger=ledger, at=NOW),
        document=EventDocument(incarnation=1, events=events),
        vms=(),
        pools=(),
        pools_without_peers=(),
        plan=plan(),
        unread="",
        pool_names={},
        policy=policy,
    )


def announced(event_type: str, *, in_s: float, duration_s: int = -1) -> ScheduledEvent:
    return ScheduledEvent(
        event_id="E-2",
        event_type=event_type,
        status=EventStatus.SCHEDULED,
        resources=("WEB-1",),
        not_before=NOW + timedelta(seconds=in_s),
        duration_s=duration_s,
    )


def test_a_plan_gives_a_reason_for_every_vm() -> None:
    """A VM that is out names the event; one whose event changes nothing yet says why."""
    assert why_phase(preview(Ledger().with_entry(entry())), "web-1") == "because of Reboot"
    short = announced("Freeze", in_s=60, duration_s=2)
    assert why_phase(preview(Ledger(), short), "web-1") == (
        "Freeze is ignored: it lasts 2 s, min_duration_s = 5 in [policy.events.Freeze]"
    )
    later = announced("Reboot", in_s=1000)
    assert why_phase(preview(Ledger(), short, later), "web-1").endswith(
        "; Reboot: the drain starts at 2030-01-01 00:01:40 UTC"
    )
    assert why_phase(preview(Ledger(), announced("Reboot", in_s=100)), "web-1") == ""
    assert why_phase(preview(Ledger(), later), "web-2") == ""
