"""An event of 40 of 200 VMs with short notice, while Azure carries out one write at a time.

Seconds of a simulated clock: the agents report what they would, and the planner decides.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from controller.core.azure_names import fold
from controller.core.planning.actions import Plan
from controller.core.vm_report import SeenReport, VmReport, VmState
from tests.support.planner_scenario import PlannerScenario, acknowledged, at, event, writes
from tests.unit.planning.test_closing import PORT, rule

if TYPE_CHECKING:
    from controller.core.action_keys import ActionKey

VMS, VICTIMS, NOTICE_S, WRITE_S = 200, 40, 300, 12
CLOSES_IN_S = 2
QUIET_IN_S = 5
"""Connections end after three seconds, and quiet_s is two."""
THRESHOLD, INTERVAL_S = 2, 5


def reports(scene: PlannerScenario) -> dict[str, SeenReport]:
    """Return what the agents of the recorded VMs report: closed, quiet, probes refused."""
    found: dict[str, SeenReport] = {}
    for entry in scene.ledger.entries:
        since = (entry.recorded_at - at(0)).total_seconds() + CLOSES_IN_S
        if scene.now < since:
            continue
        quiet = scene.now >= since + QUIET_IN_S
        report = VmReport(
            vm=entry.vm,
            boot_id="boot",
            state=VmState.CLOSED,
            since=at(since),
            at=at(scene.now),
            drain=entry.recorded_at,
            quiet_since=at(since + QUIET_IN_S) if quiet else None,
            connections=0 if quiet else 3,
            counted=True,
            refused_probes=int((scene.now - since) // INTERVAL_S),
            probe_port=PORT,
        )
        found[fold(entry.vm)] = SeenReport(report, at(scene.now))
    return found


class OneWriteAtATime:
    """An Azure that carries out one write in twelve seconds, and takes no other one meanwhile."""

    def __init__(self, scene: PlannerScenario) -> None:
        self._scene, self._ends_at = scene, 0.0
        self._target: ActionKey | None = None
        self._names: tuple[str, ...] = ()
        self.writes = 0

    def known(self) -> dict[str, Any]:
        """Return what the leader knows about writes now; end the one that is over."""
        if self._target is not None and self._scene.now >= self._ends_at:
            for name in self._names:
                self._scene.inside[name] = []
            self._target = None
        in_flight = frozenset({self._target} if self._target else ())
        self._scene.slots = 1 - len(in_flight)
        return {"write_limit": 1, "write_s": float(WRITE_S), "in_flight": in_flight}

    def take(self, planned: Plan) -> None:
        """Begin the first write of a plan."""
        for action in writes(planned)[: self._scene.slots]:
            self._target, self._ends_at = action.target, self._scene.now + WRITE_S
            self._names = tuple(
                name for name in self._scene.inside if f"/{name}-nic" in action.resource_id
            )
            self.writes += 1


@pytest.mark.parametrize("probed", [True, False], ids=["refused probes", "no proof"])
def test_forty_vms_close_and_are_acknowledged(scene: PlannerScenario, *, probed: bool) -> None:
    """All are closed at once, and acknowledged by proof: their writes would take eight minutes."""
    names = [f"web-{number}" for number in range(1, VMS + 1)]
    scene.policy = replace(scene.policy, close=True)
    scene.inside = {name: list(scene.inside["web-1"]) for name in names}
    scene.events = [event(*names[:VICTIMS], not_before=NOTICE_S)]
    azure, done_at = OneWriteAtATime(scene), None
    rules = (rule(threshold=THRESHOLD, interval_s=INTERVAL_S, port=PORT if probed else 80),)
    while scene.now < (NOTICE_S if probed else 60) and done_at is None:
        planned = scene.adopt(reports=reports(scene), rules=rules, **azure.known())
        azure.take(planned)
        if scene.now == 0:
            assert len(scene.ledger.entries) == VICTIMS
        if acknowledged(planned):
            done_at = scene.now
        scene.now += 1
    if probed:
        assert done_at is not None
        assert done_at <= CLOSES_IN_S + THRESHOLD * INTERVAL_S + 3
    else:
        assert done_at is None
        assert azure.writes > 1


def test_connections_that_end_are_waited_for_and_no_longer(scene: PlannerScenario) -> None:
    """Three seconds of connections, quiet_s, and one write; not connection_drain_s."""
    scene.policy = replace(scene.policy, close=True)
    azure, done_at = OneWriteAtATime(scene), None
    rules = (rule(threshold=1, interval_s=INTERVAL_S, port=80),)
    while scene.now < NOTICE_S and done_at is None:
        planned = scene.adopt(reports=reports(scene), rules=rules, **azure.known())
        azure.take(planned)
        if acknowledged(planned):
            done_at = scene.now
        scene.now += 1
    assert done_at is not None
    assert done_at <= CLOSES_IN_S + QUIET_IN_S + WRITE_S + 2
    assert done_at < CLOSES_IN_S + scene.policy.connection_drain_s
