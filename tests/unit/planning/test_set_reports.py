"""Holds for what Azure or storage has lost: they explain, and keep nothing waiting."""

from dataclasses import replace

import pytest

from controller.core.planning.actions import Phase
from controller.core.presence import Existence, Presence, Source
from tests.support.planner_scenario import (
    PlannerScenario,
    at,
    event,
    phase,
    reasons,
    removal,
    restoral,
    writes,
)

MISSING = frozenset({"/set"})
FLEX = "/x/providers/Microsoft.Compute/virtualMachineScaleSets/flex"


@pytest.fixture
def scene() -> PlannerScenario:
    """Return a set whose ledger names it."""
    scene = PlannerScenario()
    scene.ledger = replace(scene.ledger, set_id="/set")
    return scene


@pytest.mark.parametrize(
    ("scale_set", "fate"),
    [("", "was deleted"), (FLEX, "was converted to the scale set flex, which cannot be read yet")],
)
def test_a_set_that_does_not_exist_is_reported(
    scene: PlannerScenario, scale_set: str, fate: str
) -> None:
    """The hold names the set and what became of it, once and for all VMs."""
    scene.vms = {"web-1": {"set_id": scale_set}, "web-2": {"set_id": scale_set}}
    planned = scene.through(missing=MISSING)
    assert reasons(planned) == {"set": "set_missing"}
    assert f"the availability set set {fate}:" in planned.holds[0].message
    assert reasons(scene.through()) == {}


@pytest.mark.parametrize(
    ("scale_set", "replies", "reported"),
    [(FLEX, 1, True), ("", 1, False), (FLEX, 0, False)],
    ids=["converted", "one reply without the set", "the set is migrated, and still there"],
)
def test_a_vm_in_a_scale_set_shows_the_conversion(
    scene: PlannerScenario, scale_set: str, replies: int, reported: bool
) -> None:
    """One reply without the set proves nothing, unless a VM is in a scale set."""
    scene.vms = {"web-1": {"set_id": scale_set}, "web-2": {}}
    presence = Presence()
    existence = Existence.ABSENT if replies else Existence.PRESENT
    presence = presence.after(existence, at=at(0), source=Source.READ)
    observed = replace(scene.observe(), presence={"/set": presence})
    assert observed.set_missing("/set") is reported
    assert not observed.set_missing("")


def test_an_older_ledger_names_no_set(scene: PlannerScenario) -> None:
    """Without the id of the set nothing is reported."""
    scene.ledger = replace(scene.ledger, set_id="")
    assert reasons(scene.through(missing=MISSING)) == {}


def test_vms_of_a_missing_set_are_drained_and_restored(scene: PlannerScenario) -> None:
    """L1, S7: the set is not needed to take a VM out and to put it back."""
    scene.events = [event()]
    scene.adopt(missing=MISSING)
    assert writes(scene.plan(missing=MISSING)) == [removal("web-1")]
    scene.inside["web-1"] = []
    scene.now = 5
    planned = scene.adopt(missing=MISSING)
    assert phase(planned) in {Phase.OUT, Phase.DRAINING}
    scene.now, scene.events = 300, []
    scene.adopt(missing=MISSING)
    assert writes(scene.plan(missing=MISSING)) == [restoral("web-1")]
