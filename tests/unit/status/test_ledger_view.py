"""A look at the set: who leads, and what a leader would do."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from controller.core.ledger import Entry, EventReference, Ledger
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
from controller.status.ledger_view import LeaseStatus, planned_steps

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
    """What drops out of the ledger is reported."""
    ledger = Ledger().with_entry(entry("web-1")).with_entry(entry("web-2"))
    assert planned_steps(plan(ledger.without_entry("web-1")), ledger) == ("forget web-1",)


def test_writes_and_acknowledgements_are_told_in_order() -> None:
    """Every write of the plan has its line, after what the ledger says."""
    wanted = Ledger().with_entry(entry("web-2"))
    write = ChangeMembership(method=NicPool(), memberships=(membership(),), restore=True)
    lines = planned_steps(plan(wanted, write, ReadInventory(), Acknowledge("E-1")), Ledger())
    assert [line.split()[0] for line in lines] == ["record", "restore", "acknowledge"]
    assert lines[1] == "restore web-1-nic (app)"


@pytest.mark.parametrize("state", ["available", "expired", "breaking", "broken"])
def test_who_wrote_last_does_not_lead_without_the_lease(state: str) -> None:
    """A leader is who holds the lease, not who the ledger remembers."""
    look = LeaseStatus(lease_state=state, ledger=Ledger(leader="web-1", leader_since=NOW), at=NOW)
    assert (look.leader, look.lease_age_s) == ("", None)
