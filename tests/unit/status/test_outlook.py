"""What happens to a VM when an event begins, if nothing changes."""

from dataclasses import replace
from datetime import timedelta

import pytest

from controller.core.events import EventStatus, ScheduledEvent
from controller.core.far_ahead import DailyWindow, FarAhead
from controller.core.planning.actions import Phase, VmPhase
from controller.status.outlook import outlook, waits_for
from tests.support.planner_scenario import at
from tests.support.policies import make_policy

POLICY = make_policy(pools={}, lead_time_s=900)
NOW = at(0)
EVENT = ScheduledEvent(
    event_id="E-1",
    event_type="Reboot",
    status=EventStatus.SCHEDULED,
    resources=("web-1",),
    not_before=NOW + timedelta(seconds=600),
)
LATER = replace(EVENT, not_before=NOW + timedelta(seconds=1000))
STARTED = replace(EVENT, status=EventStatus.STARTED, not_before=None)


def of(phase: Phase, event: ScheduledEvent = EVENT, *, why: str = "", **given: str) -> str:
    seen = VmPhase(vm="web-1", phase=phase, why=why)
    return outlook(event, seen, policy=POLICY, now=NOW, **given)


@pytest.mark.parametrize(
    "phase", [Phase.OUT, Phase.ACKNOWLEDGED, Phase.IN_MAINTENANCE, Phase.RESTORE_DUE]
)
def test_a_vm_that_is_out_loses_nothing(phase: Phase) -> None:
    """By its phase, which is observed."""
    assert of(phase) == "web-1 is out of rotation: the Reboot finds no client on it"


@pytest.mark.parametrize(
    ("phase", "others", "text"),
    [
        (Phase.OUT, ["web-2"], "; not acknowledged while web-2 is in rotation"),
        (Phase.OUT, ["web-2", "web-3"], "; not acknowledged while web-2, web-3 are in rotation"),
        (Phase.OUT, [], ""),
        (Phase.ACKNOWLEDGED, ["web-2"], ""),
    ],
)
def test_a_vm_that_is_out_names_those_that_its_event_waits_for(
    phase: Phase, others: list[str], text: str
) -> None:
    """An event is acknowledged for all its VMs or for none."""
    assert waits_for(VmPhase(vm="web-1", phase=phase), others) == text


def test_a_vm_in_no_pool_is_not_out_because_of_us() -> None:
    """Nothing is claimed about it."""
    assert of(Phase.UNMANAGED).startswith("web-1 is in no managed pool")


def test_an_ignored_event_names_its_setting() -> None:
    """The administrator who comes because a Freeze broke requests looks for this line."""
    assert of(Phase.IN_SERVICE, ignored="it lasts 2 s, min_duration_s = 5") == (
        "web-1 is in rotation when it begins: the Reboot is ignored "
        "(it lasts 2 s, min_duration_s = 5)"
    )


@pytest.mark.parametrize("phase", [Phase.DRAINING, Phase.DRAIN_DUE, Phase.HELD])
def test_a_vm_that_cannot_be_removed_is_never_out(phase: Phase) -> None:
    """F2: what fails is named."""
    assert of(phase, stuck="403") == (
        "web-1 is in rotation when it begins, and clients can lose requests: 403"
    )


def test_a_held_vm_has_the_reason() -> None:
    """The floor, for example."""
    assert of(Phase.HELD, why="the floor").endswith("clients can lose requests: the floor")


def test_a_wait_for_the_lead_time_names_its_end_and_its_setting() -> None:
    """Nothing is wrong: it is not time yet."""
    begins = LATER.not_before
    assert begins is not None
    drain_at = f"{begins - timedelta(seconds=900):%Y-%m-%d %H:%M:%S} UTC"
    assert of(Phase.IN_SERVICE, LATER) == (
        f"web-1 is drained from {drain_at} on, 900 s before NotBefore (lead_time_s in [policy])"
    )


def test_a_wait_for_the_daily_window_names_its_opening() -> None:
    """An event of next week, and a window that opens tonight."""
    window = DailyWindow(start_min=22 * 60, end_min=23 * 60)
    policy = replace(POLICY, far_ahead=FarAhead.WINDOW, far_ahead_window=window)
    far = replace(EVENT, not_before=NOW + timedelta(days=7))
    seen = VmPhase(vm="web-1", phase=Phase.IN_SERVICE, why="")
    assert outlook(far, seen, policy=policy, now=NOW) == (
        f"web-1 is drained from {NOW:%Y-%m-%d} 22:00:00 UTC on, "
        "when the daily window opens (far_ahead_window in [policy])"
    )


def test_a_vm_on_its_way_out() -> None:
    """Before the event, and after it has started."""
    assert of(Phase.DRAINING) == (
        "web-1 is being removed, and should be out of rotation before the Reboot begins"
    )
    assert of(Phase.DRAINING, STARTED) == (
        "web-1 is in rotation now, and the Reboot has started: it is being removed"
    )
