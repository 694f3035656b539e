"""`mechanism = "probe"`: a VM leaves rotation by closing alone, and stays in its pools."""

from dataclasses import replace
from typing import Any

import pytest

from controller.core.azure_names import fold
from controller.core.drain_history import Step
from controller.core.event_record import WatchedEvent, WatchedVm
from controller.core.planning.actions import HoldReason, Phase, ReadVmReport
from controller.core.planning.closing import REPORT_WITHIN_S
from controller.core.resources import PoolHealth, PowerState
from controller.core.vm_report import VmState
from tests.support.planner_scenario import (
    APP,
    PlannerScenario,
    acknowledged,
    at,
    event,
    floor,
    membership,
    phase,
    reasons,
    started,
    writes,
)
from tests.unit.planning.test_closing import quiet, report, rule


@pytest.fixture
def closing(scene: PlannerScenario) -> PlannerScenario:
    """A set whose VMs only close; web-1 is recorded."""
    scene.policy = replace(scene.policy, close=True, close_only=True)
    scene.adopt()
    assert scene.entry().recorded_at == at(0)
    return scene


def proven(scene: PlannerScenario) -> dict[str, Any]:
    """Return the report of web-1 when it is proven closed."""
    return quiet(scene, refused_probes=2)


def take_out(scene: PlannerScenario) -> None:
    """Let web-1 be proven closed."""
    scene.now = 8
    scene.through(**proven(scene))
    assert scene.entry().out_at == at(8)


# --- out ---


def test_all_vms_are_recorded_at_once(scene: PlannerScenario) -> None:
    """S5: the entry is the wish. No write follows, so no VM waits for a write slot."""
    scene.policy = replace(scene.policy, close=True, close_only=True)
    scene.events, scene.slots = [event("web-1", "web-2")], 0
    scene.adopt()
    assert [entry.vm for entry in scene.ledger.entries] == ["web-1", "web-2"]


def test_a_vm_is_out_when_it_is_proven_closed(closing: PlannerScenario) -> None:
    """Record, closed and quiet with proof, out, acknowledged: and no write at all."""
    closing.now = 8
    assert phase(closing.through(**quiet(closing, refused_probes=1))) is Phase.DRAINING
    assert closing.entry().out_at is None
    planned = closing.through(**proven(closing))
    assert phase(planned) is Phase.OUT
    assert closing.entry().out_at == closing.entry().closed_at == at(8)
    assert acknowledged(planned) == ["E-1"]
    assert closing.ledger.transitions[-1].step == Step.OUT


def test_rule_health_takes_a_vm_out_too(closing: PlannerScenario) -> None:
    """The rules report the member as down: then any probe will do."""
    closing.now = 8
    down = frozenset({membership("web-1").key})
    health = {
        fold(APP): PoolHealth(pool_id=APP, down=down, down_by_every_rule=down, observed_at=at(5))
    }
    known = {**quiet(closing), "rules": (rule(port=80),), "health": health}
    assert phase(closing.through(**known)) is Phase.OUT


@pytest.mark.parametrize("now", [5, 100, 590, 700])
@pytest.mark.parametrize("announced", [event(), event(not_before=None), started()])
def test_nothing_is_ever_written(closing: PlannerScenario, now: float, announced: Any) -> None:
    """Whatever comes, no VM leaves its pools: neither without report nor with NotBefore near."""
    closing.events, closing.now = [announced], now
    assert writes(closing.through()) == []
    assert writes(closing.through(**report(closing))) == []
    assert writes(closing.through(**proven(closing))) == []


def test_a_closed_vm_counts_as_out_for_the_floor(closing: PlannerScenario) -> None:
    """S2: web-1 is closed, so web-2 has to stay in service."""
    floor(closing, 2)
    closing.events.append(event("web-2", event_id="E-2"))
    take_out(closing)
    planned = closing.plan(**proven(closing))
    assert reasons(planned) == {"web-2": HoldReason.FLOOR.value}
    assert phase(planned, "web-1") is Phase.OUT, "the floor does not hold what is out"


def test_a_vm_stays_out_while_it_reboots(closing: PlannerScenario) -> None:
    """Its agent is down with it: no report is no proof that it opened."""
    take_out(closing)
    closing.events, closing.now = [started()], 100
    planned = closing.through()
    assert phase(planned) is Phase.IN_MAINTENANCE
    assert ReadVmReport("web-1") in planned.actions
    assert closing.entry().out_at == at(8)


@pytest.mark.parametrize("event_type", ["Reboot", "Redeploy", "Quake"])
def test_a_report_from_before_a_restart_acknowledges_no_other_event(
    closing: PlannerScenario, event_type: str
) -> None:
    """S1: the application opens when the VM starts again, before its agent can close it."""
    take_out(closing)
    restart, other = started(event_type=event_type), event(event_id="E-2")
    closing.events, closing.now = [restart, other], 12
    assert acknowledged(closing.through(**proven(closing))) == []
    assert closing.entry().closed_at == at(8), "whatever the first event restarts was closed"


def test_a_vm_that_closes_again_after_a_restart_is_closed_since_then(
    closing: PlannerScenario,
) -> None:
    """V1: what was proven before the restart is not proven without a gap."""
    take_out(closing)
    watched = WatchedEvent(
        event_id="E-0",
        event_type="Reboot",
        first_seen_at=at(0),
        started_at=at(20),
        gone_at=at(30),
        vms=(WatchedVm(vm="web-1"),),
    )
    closing.ledger, closing.now = replace(closing.ledger, events=(watched,)), 40
    closing.through(**proven(closing))
    assert closing.entry().closed_at == at(40)


def test_a_freeze_leaves_a_vm_closed(closing: PlannerScenario) -> None:
    """It keeps its memory, and with it the flag of the application."""
    take_out(closing)
    frozen, other = started(event_type="Freeze"), event(event_id="E-2")
    closing.events, closing.now = [frozen, other], 12
    assert acknowledged(closing.through(**proven(closing))) == ["E-2"]


def test_a_vm_that_opens_is_not_out_any_more(closing: PlannerScenario) -> None:
    """S1: its agent reports that it is open; nothing is acknowledged until it is closed again."""
    take_out(closing)
    closing.now = 12
    planned = closing.through(**report(closing, state=VmState.OPEN, problem="no flag file"))
    assert closing.entry().out_at is None
    assert acknowledged(planned) == []
    assert reasons(planned) == {"web-1": HoldReason.VM_NOT_CLOSED.value}
    assert phase(closing.through(**proven(closing))) is Phase.OUT


def test_a_pool_that_the_vm_joins_is_recorded_too(closing: PlannerScenario) -> None:
    """What the entry does not name is not proven: it is recorded, and closed again."""
    take_out(closing)
    api = APP.replace("/app", "/api")
    closing.policy = replace(
        closing.policy, pools={**closing.policy.pools, api: closing.policy.pools[APP]}
    )
    closing.inside["web-1"] = [APP, api]
    closing.now = 12
    closing.through(**proven(closing))
    assert {each.pool_id for each in closing.entry().memberships} == {APP, api}
    assert (closing.entry().recorded_at, closing.entry().out_at) == (at(12), None)


# --- held ---


@pytest.mark.parametrize(
    ("changes", "now", "stated"),
    [
        (None, REPORT_WITHIN_S, "start lb-drain on web-1"),
        ({"state": VmState.OPEN, "problem": "no flag file"}, 3, "no flag file"),
        ({"counted": False, "problem": "/proc cannot be read"}, 40, "/proc cannot be read"),
        ({}, 40, "1 connection left"),
        ({"connections": 0, "quiet_since": at(2)}, 40, "lb-drain rule health"),
    ],
    ids=["no report", "open", "not counted", "connections", "no proof"],
)
def test_a_vm_that_is_not_proven_closed_is_held(
    closing: PlannerScenario, changes: dict[str, Any] | None, now: float, stated: str
) -> None:
    """Nothing else can take it out: the hold states why, and what to do."""
    closing.now = now
    planned = closing.through(**(report(closing, **changes) if changes is not None else {}))
    assert reasons(planned) == {"web-1": HoldReason.VM_NOT_CLOSED.value}
    assert stated in planned.holds[0].message
    assert acknowledged(planned) == []


def test_nothing_is_held_before_it_had_its_time(closing: PlannerScenario) -> None:
    """The first seconds without a report, and the connection drain."""
    closing.now = REPORT_WITHIN_S - 1
    assert reasons(closing.through()) == {}
    closing.now = 30
    planned = closing.through(**report(closing))
    assert reasons(planned) == {}
    assert "1 connection left" in planned.phases[0].why


def test_the_floor_still_decides_who_closes(scene: PlannerScenario) -> None:
    """S2: a VM that the pool cannot spare is not recorded, so its agent does not close it."""
    scene.policy = replace(scene.policy, close=True, close_only=True)
    floor(scene, 3)
    assert reasons(scene.through()) == {"web-1": HoldReason.FLOOR.value}
    assert scene.ledger.entries == ()


# --- restore ---


def test_a_vm_is_restored_by_opening(closing: PlannerScenario) -> None:
    """Two clean polls, the VM runs: recorded as restored; forgotten when it reports open."""
    take_out(closing)
    closing.events, closing.now = [], 400
    planned = closing.through()
    assert (closing.entry().restored_at, writes(planned)) == (at(400), [])
    assert phase(planned) is Phase.RESTORING
    closing.now = 420
    assert phase(closing.through(**report(closing, state=VmState.OPENING))) is Phase.RESTORING
    assert phase(closing.through(**report(closing, state=VmState.OPEN))) is Phase.IN_SERVICE
    assert closing.ledger.entries == ()
    assert writes(closing.plan()) == []


@pytest.mark.parametrize("cause", ["one clean poll", "stopped", "another event"])
def test_a_vm_opens_no_earlier_than_it_would_be_restored(
    closing: PlannerScenario, cause: str
) -> None:
    """S6 holds for opening as it does for a restore."""
    take_out(closing)
    closing.events, closing.now = [], 400
    if cause == "one clean poll":
        closing.clean = False
    elif cause == "stopped":
        closing.vms["web-1"] = {"power": PowerState.NOT_RUNNING}
    else:
        closing.events = [event(not_before=4_500, event_id="E-2")]
    closing.through()
    assert closing.entry().restored_at is None


def test_a_nic_that_failed_is_not_written_to_restore(closing: PlannerScenario) -> None:
    """Its last write was another client's: this VM was never removed."""
    take_out(closing)
    closing.nics["web-1"] = {"failed": True}
    closing.events, closing.now = [], 400
    assert writes(closing.through()) == []
    assert closing.entry().restored_at == at(400)


def test_what_an_operator_removes_is_left_alone(closing: PlannerScenario) -> None:
    """S3: nothing of ours took the VM out of its pool, so nothing puts it back."""
    take_out(closing)
    closing.inside["web-1"] = []
    closing.now = 12
    planned = closing.through(unsent=frozenset({membership("web-1").key}))
    assert writes(planned) == []
    assert closing.ledger.entries == ()


def test_what_was_removed_before_the_setting_changed_is_put_back(scene: PlannerScenario) -> None:
    """L1: a VM that `mechanism = "pool"` has removed is restored, which needs its permission."""
    scene.take_out()
    scene.policy = replace(scene.policy, close=True, close_only=True)
    scene.events, scene.now = [], 400
    planned = scene.through()
    assert [str(each) for each in writes(planned)] == ["restore web-1-nic (app)"]
    scene.inside["web-1"] = [APP]
    scene.now = 410
    scene.through()
    assert scene.entry().restored_at == at(410)
