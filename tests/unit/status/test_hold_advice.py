"""What follows from a hold, and what to do about it."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest

from controller.core.events import EventStatus, ScheduledEvent
from controller.core.ledger import Hold
from controller.core.planning.actions import HoldReason
from controller.status.hold_advice import advice
from tests.support.planner_scenario import at

EVENT = ScheduledEvent(
    event_id="E-1",
    event_type="Redeploy",
    status=EventStatus.SCHEDULED,
    resources=("WEB-3", "web-2"),
    not_before=at(0) + timedelta(seconds=600),
)


def hold(reason: HoldReason, *vms: str) -> Hold:
    return Hold(subject="web-3", reason=reason.value, message="m", since=at(0), vms=vms)


@pytest.mark.parametrize("reason", HoldReason)
def test_every_hold_has_a_result_and_a_remedy(reason: HoldReason) -> None:
    """None is left without the next step."""
    found = advice(hold(reason), [EVENT], [])
    assert found.consequence
    assert found.remedy
    assert "VM VM" not in found.remedy


def test_a_hold_of_a_newer_version_says_so() -> None:
    """An agent of a newer version may lead."""
    unknown = Hold(subject="web-3", reason="new", message="m", since=at(0))
    assert "update this command" in advice(unknown, [], []).remedy


def test_the_floor_names_the_event_and_its_time() -> None:
    """The consequence is what the operator has to weigh."""
    begins = EVENT.not_before
    assert advice(hold(HoldReason.FLOOR), [EVENT]).consequence == (
        f"the Redeploy can begin at {begins:%H:%M:%S} UTC while the VM is in rotation; "
        "it is not acknowledged"
    )


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (replace(EVENT, not_before=None), "can begin at any moment"),
        (replace(EVENT, status=EventStatus.STARTED), "has started while the VM is in rotation"),
        (replace(EVENT, resources=("web-9",)), "the drain waits"),
    ],
)
def test_the_event_decides_the_result(event: ScheduledEvent, text: str) -> None:
    """Without an event for the VM nothing happens to it."""
    assert text in advice(hold(HoldReason.FLOOR), [event]).consequence


def test_the_event_that_comes_first_counts() -> None:
    """A second one is later."""
    later = replace(EVENT, event_type="Freeze", not_before=at(9000))
    assert "the Redeploy" in advice(hold(HoldReason.FLOOR), [later, EVENT]).consequence


def test_an_event_that_has_started_counts_before_one_that_is_announced() -> None:
    """It has no NotBefore any more; another event of the VM has one."""
    begun = replace(EVENT, event_id="E-2", status=EventStatus.STARTED, not_before=None)
    for events in ([EVENT, begun], [begun, EVENT]):
        found = advice(hold(HoldReason.FLOOR), events).consequence
        assert found == "the Redeploy has started while the VM is in rotation"


def test_a_write_that_fails_is_judged_by_where_its_vms_are() -> None:
    """F2: a removal that fails leaves the VM in rotation, a restore that fails leaves it out."""
    failed = hold(HoldReason.WRITE_FAILED, "web-2")
    assert "while the VM is in rotation" in advice(failed, [EVENT], []).consequence
    assert "stays out of rotation" in advice(failed, [EVENT], ["WEB-2"]).consequence


def test_a_remedy_names_the_vm() -> None:
    """A command can be copied."""
    assert "lb-drain forget web-3" in advice(hold(HoldReason.VM_GONE), []).remedy
    assert "lb-drain restore web-3" in advice(hold(HoldReason.REQUEST_LOST), []).remedy


@pytest.mark.parametrize(
    "reason",
    [
        HoldReason.ACKNOWLEDGEMENT_HELD,
        HoldReason.EVENT_UNSEEN,
        HoldReason.NOT_ACKNOWLEDGED,
        HoldReason.NOT_OUT,
        HoldReason.UNMANAGED_RESOURCE,
    ],
)
def test_a_remedy_takes_no_event_for_a_vm(reason: HoldReason) -> None:
    """These holds are about an event: only `lb-drain hold` and `acknowledge` take its id."""
    remedy = advice(replace(hold(reason), subject="E-1"), [EVENT]).remedy
    assert re.findall(r"lb-drain (?!hold|acknowledge)\w+ (E-1|VM|EVENT)", remedy) == []
    assert re.findall(r"lb-drain (?:hold|acknowledge) (?!E-1)\S+", remedy) == []


def test_an_inventory_that_cannot_be_read_concerns_the_vms_that_are_in_rotation() -> None:
    """It names no VM: an event whose VMs are all out is no danger to any."""
    unread = replace(hold(HoldReason.INVENTORY_UNREAD), subject="inventory")
    assert "while the VM is in rotation" in advice(unread, [EVENT], ["web-3"]).consequence
    assert advice(unread, [EVENT], ["web-3", "WEB-2"]).consequence == "the drain waits"
