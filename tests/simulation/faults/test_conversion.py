"""Azure converts the set while agents work: they continue in the scale set with one ledger."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from controller.core.azure_names import fold
from tests.simulation.faults.test_absence import OUT_FOR_AN_EVENT, POLICY, back_at, ended
from tests.simulation.runner import Played, Simulation
from tests.simulation.scenario import Act, Scenario

CONVERTED_AT_S = 60.0
"""The VM of the first event is out then."""
READ_AGAIN_S = 400.0
"""The inventory of a small set, which finds the conversion, is read every 300 s."""
EVENT = {"event_type": "Reboot", "vms": ("web-3",), "notice_s": 60.0, "duration_s": -1}
LATER: Scenario = replace(
    OUT_FOR_AN_EVENT,
    acts=(*OUT_FOR_AN_EVENT.acts, Act(READ_AGAIN_S, "event", EVENT)),
    calm_at_s=570.0,
    patience_s=60.0,
    look_s=5.0,
)
"""A second event is announced when the agents work in the scale set."""


def convert(simulation: Simulation, *, name: str = "", restart: tuple[str, ...] = ()) -> None:
    """Convert the set to a scale set of this name, and end the processes of agents."""
    [entry] = simulation.stage.ledger()["entries"]
    assert entry["out_at"]
    simulation.world.advance(simulation.epoch())
    simulation.world.convert_set(name)
    for vm in restart:
        simulation.hosts[vm].crash(5.0)


def revert(simulation: Simulation) -> None:
    """Turn the scale set into the availability set again."""
    simulation.world.advance(simulation.epoch())
    simulation.world.revert_set()


def play(*acts: tuple[float, Callable[[Simulation], None]], scenario: Scenario = LATER) -> Played:
    """Play the scenario with these acts, and check that no VM and no entry is lost."""
    simulation = Simulation(scenario)
    ready: list[tuple[bool, str]] = []

    def ask() -> None:
        answers = [host.live_status for host in simulation.hosts.values()]
        ready.extend(each.ready() for each in answers if each is not None)

    for at_s, act in acts:
        simulation.loop.call_at(at_s, partial(act, simulation))
    simulation.loop.call_at(scenario.calm_at_s - 1, ask)
    played = simulation.run()
    assert ended(played.history) == []
    assert len(back_at(played.history)) == sum(act.what == "event" for act in scenario.acts)
    ledger = simulation.stage.ledger()
    assert (ledger["entries"], ledger["holds"]) == ([], [])
    assert {done for done, _ in ready} == {True}
    assert fold(ledger["set_id"]) == fold(simulation.world.availability_set_id)
    other = simulation.stage.blob_path.replace("web.json", "web-flex.json")
    assert simulation.world.blobs.find(other) is None  # a second ledger is a second leader
    present = ledger.get("converted_to", "") or ledger["set_id"]
    wanted = simulation.world.scale_set_id or simulation.world.availability_set_id
    assert present == fold(wanted)
    return played


@pytest.mark.parametrize(
    ("name", "restart"),
    [
        ("", ()),
        ("web-flex", ("web-1",)),
        ("", ("web-1", "web-2", "web-3")),
        ("web-flex", ("web-1", "web-2", "web-3")),
    ],
    ids=["no agent restarts", "leader, another name", "all restart", "all, another name"],
)
def test_a_converted_set_continues_with_its_ledger(name: str, restart: tuple[str, ...]) -> None:
    """L1, S7: what was out returns, and events of the scale set are drained for as before."""
    play((CONVERTED_AT_S, lambda s: convert(s, name=name, restart=restart)))


def test_a_leader_that_dies_in_the_middle_leaves_the_rest_to_another() -> None:
    """L1: the leader has read the scale set, or has not; its successor finds that out itself."""

    def kill(simulation: Simulation) -> None:
        next(host for host in simulation.hosts.values() if host.leading).crash(300.0)

    for killed_at_s in (CONVERTED_AT_S + 1, READ_AGAIN_S + 5):
        play((CONVERTED_AT_S, convert), (killed_at_s, kill))


def test_a_set_that_changes_its_kind_twice_loses_nothing() -> None:
    """L1: availability set, scale set, availability set and scale set again: one ledger."""
    scenario = replace(
        LATER,
        acts=(*LATER.acts, Act(1100.0, "event", {**EVENT, "vms": ("web-1",)})),
        calm_at_s=1300.0,
    )
    play(
        (CONVERTED_AT_S, convert),
        (450.0, revert),
        (850.0, lambda s: s.world.convert_set("web-flex")),
        (860.0, lambda s: s.hosts["web-2"].crash(5.0)),
        scenario=scenario,
    )


def test_a_set_that_is_a_scale_set_from_the_start() -> None:
    """S7, L1: agents of a flexible scale set drain and restore its instances."""
    simulation = Simulation(replace(OUT_FOR_AN_EVENT, policy=POLICY))
    simulation.world.convert_set()
    history = simulation.run().history
    assert len(back_at(history)) == 1
    assert simulation.stage.ledger()["set_id"] == fold(simulation.world.scale_set_id)
