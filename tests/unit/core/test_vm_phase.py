"""The phase of a VM, as far as the ledger shows it."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.core.event_record import WatchedEvent
from controller.core.ledger import Entry, EventReference, Hold, Ledger
from controller.core.planning.actions import HoldReason, Phase, Plan, VmPhase
from controller.core.resources import NicMembership
from controller.core.vm_phase import phase_by, rotation_of

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
REFERENCE = EventReference(event_id="E-1", event_type="Reboot")
NIC = NicMembership(pool_id="p", nic_id="n", ip_configuration="c")
ACKNOWLEDGED = EventReference(event_id="E-2", event_type="Reboot", acknowledged_at=T0)


def entry(**changes: Any) -> Entry:
    """Return an entry of web-2 with these changes."""
    found = Entry(
        vm="web-2", vm_id="/vm/web-2", events=(REFERENCE,), memberships=(NIC,), recorded_at=T0
    )
    return replace(found, **changes)


@pytest.mark.parametrize(
    ("changes", "phase"),
    [
        ({}, Phase.DRAINING),
        ({"out_at": T0}, Phase.OUT),
        ({"out_at": T0, "events": (REFERENCE, ACKNOWLEDGED)}, Phase.ACKNOWLEDGED),
        ({"restoring_at": T0}, Phase.RESTORING),
        ({"restored_at": T0}, Phase.RESTORING),
    ],
)
def test_the_phase_follows_from_the_entry(changes: Mapping[str, Any], phase: Phase) -> None:
    """The entry determines the phase, whatever the spelling of the VM's name."""
    ledger = Ledger().with_entry(entry(**changes))
    assert phase_by(ledger, "WEB-2") == VmPhase(vm="WEB-2", phase=phase)


@pytest.mark.parametrize(
    ("changes", "phase"),
    [
        ({"started_at": T0}, Phase.IN_MAINTENANCE),
        ({}, Phase.ACKNOWLEDGED),
        ({"started_at": T0, "gone_at": T0}, Phase.ACKNOWLEDGED),
        ({"started_at": T0, "event_id": "E-9"}, Phase.ACKNOWLEDGED),
    ],
)
def test_a_started_event_is_maintenance(changes: Mapping[str, Any], phase: Phase) -> None:
    """A standby shows the same word as the leader."""
    watched = WatchedEvent(event_id="e-2", event_type="Reboot", first_seen_at=T0)
    ledger = Ledger(events=(replace(watched, **changes),))
    out = entry(out_at=T0, events=(ACKNOWLEDGED,))
    found = phase_by(ledger.with_entry(out), "web-2")
    assert found is not None
    assert found.phase is phase


def test_a_vm_that_the_ledger_does_not_mention() -> None:
    """A VM without entry and hold may be in service or unmanaged; only the leader knows."""
    assert phase_by(Ledger().with_entry(entry()), "web-3") is None


def test_a_hold_determines_the_phase() -> None:
    """A VM with a hold is held, in rotation or out, with the reason."""
    hold = Hold(subject="web-2", reason="floor", message="one left", since=T0)
    other = replace(hold, subject="E-1", message="not acknowledged")
    held = VmPhase(vm="WEB-2", phase=Phase.HELD, why="one left")
    assert phase_by(Ledger(holds=(other, hold)), "WEB-2") == held
    assert phase_by(Ledger(holds=(other, replace(hold, subject="Web-2"))), "WEB-2") == held
    assert phase_by(Ledger(holds=(other, hold)).with_entry(entry()), "WEB-2") == held


def held(vm: str, reason: HoldReason, *vms: str) -> Hold:
    return Hold(subject=vm, reason=reason.value, message="m", since=T0, vms=vms)


@pytest.mark.parametrize(
    ("changes", "phase", "holds", "words"),
    [
        ({"out_at": T0}, Phase.OUT, (), "out of rotation: web-2"),
        ({"out_at": T0}, Phase.HELD, (), "out of rotation: web-2"),
        ({}, Phase.DRAINING, (), "draining: web-2"),
        ({"out_at": T0}, Phase.DRAINING, (), "draining: web-2"),
        ({"out_at": T0}, Phase.DRAIN_DUE, (), "draining: web-2"),
        (
            {"out_at": T0},
            Phase.DRAINING,
            (held("web-2-nic", HoldReason.WRITE_FAILED, "WEB-2"),),
            "in rotation, cannot be removed: web-2",
        ),
        ({"out_at": T0, "restored_at": T0}, Phase.DRAIN_DUE, (), "restoring: web-2"),
        (
            {},
            Phase.DRAINING,
            (held("web-2-nic", HoldReason.WRITE_FAILED, "WEB-2"),),
            "in rotation, cannot be removed: web-2",
        ),
        ({"restoring_at": T0}, Phase.RESTORING, (), "restoring: web-2"),
        ({"restoring_at": T0}, Phase.HELD, (), "restoring: web-2"),
        ({"restored_at": T0}, Phase.RESTORING, (), "restoring: web-2"),
        ({"gone": True}, Phase.HELD, (), "out of rotation: web-2"),
        ({"memberships": ()}, Phase.HELD, (), "cannot be restored: web-2"),
        (None, Phase.DRAIN_DUE, (), "draining: web-2"),
        (None, Phase.HELD, (), "in rotation, held: web-2"),
        (None, Phase.IN_SERVICE, (), "all in service"),
        (None, Phase.UNMANAGED, (), "all in service"),
    ],
)
def test_the_headline_states_what_was_observed(
    changes: Mapping[str, Any] | None, phase: Phase, holds: tuple[Hold, ...], words: str
) -> None:
    """A VM is out of rotation only if it was seen out; a recorded intention is not enough."""
    ledger = Ledger() if changes is None else Ledger().with_entry(entry(**changes))
    plan = Plan(
        ledger=None,
        actions=(),
        phases=(VmPhase(vm="web-2", phase=phase),),
        holds=holds,
        wake_at=None,
    )
    assert str(rotation_of(ledger, plan)) == words


def test_without_a_plan_the_ledger_tells() -> None:
    """An agent that does not plan knows the entries and the holds of the ledger."""
    ledger = Ledger().with_entry(entry(out_at=T0)).with_entry(entry(vm="web-3"))
    assert str(rotation_of(ledger, None)) == "out of rotation: web-2; draining: web-3"
