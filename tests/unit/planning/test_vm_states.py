"""The table of VM states: the planner behaves as it says, and the documentation shows it."""

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from xml.etree import ElementTree

import pytest

from controller.core.planning import planner, vm_states
from controller.core.planning.actions import (
    Acknowledge,
    ChangeMembership,
    Phase,
    Plan,
    ReadLoadBalancer,
    ReadNic,
    ReadPower,
)
from controller.core.planning.vm_states import STATES, State
from controller.core.resources import PowerState
from tests.support.planner_scenario import (
    APP,
    LB,
    PlannerScenario,
    at,
    event,
    floor,
    nic_id,
    phase,
    started,
    vm_id,
)

DOCS = Path(__file__).parents[3] / "docs"
SVG = "{http://www.w3.org/2000/svg}"
ACKNOWLEDGED = MappingProxyType({"e-1": at(60)})


def in_service() -> PlannerScenario:
    return PlannerScenario()


def recorded() -> PlannerScenario:
    scene = PlannerScenario(events=[event()])
    scene.adopt()
    return scene


def draining() -> PlannerScenario:
    scene = recorded()
    scene.adopt()
    return scene


def out() -> PlannerScenario:
    scene = PlannerScenario(events=[event()])
    scene.take_out()
    return scene


def in_maintenance() -> PlannerScenario:
    scene = out()
    scene.now, scene.events = 300, [started()]
    scene.adopt()
    return scene


def acknowledged() -> PlannerScenario:
    scene = out()
    scene.now = 60
    scene.through(acknowledged=ACKNOWLEDGED)
    return scene


def restore_due() -> PlannerScenario:
    scene = in_maintenance()
    scene.now, scene.events, scene.clean = 310, [], False
    scene.adopt()
    return scene


def stopped() -> PlannerScenario:
    scene = restore_due()
    scene.clean, scene.vms = True, {"web-1": {"power": PowerState.NOT_RUNNING}}
    return scene


def pending() -> PlannerScenario:
    scene = restore_due()
    scene.clean, scene.events = True, [event(event_id="E-2", not_before=4500)]
    return scene


def restoring() -> PlannerScenario:
    scene = restore_due()
    scene.clean = True
    scene.adopt()
    return scene


def restored() -> PlannerScenario:
    scene = restoring()
    scene.inside["web-1"] = [APP]
    scene.now += 5
    scene.adopt()
    return scene


def idle() -> Plan:
    return in_service().plan()


def taken_out_by_an_operator() -> Plan:
    scene = in_service()
    scene.inside["web-1"] = []
    return scene.plan()


def due_with_an_old_view() -> Plan:
    scene = PlannerScenario(events=[event()], nics={"web-1": {"observed_at": at(-60)}})
    planned = scene.plan()
    assert planned.actions == (ReadNic(nic_id("web-1")),)
    return planned


def due_at_the_floor() -> Plan:
    scene = PlannerScenario(events=[event()])
    floor(scene, 3)
    return scene.plan()


def floor_allows_it_again() -> Plan:
    scene = PlannerScenario(events=[event()])
    floor(scene, 3)
    assert phase(scene.adopt()) is Phase.HELD
    scene.inside["web-4"] = [APP]
    return has_recorded(scene, "recorded")


def due_with_fresh_views() -> Plan:
    return has_recorded(PlannerScenario(events=[event()]), "recorded")


def has_recorded(scene: PlannerScenario, step: str) -> Plan:
    """Return the plan, which has to note this step."""
    planned = scene.plan()
    assert planned.ledger is not None
    assert planned.ledger.transitions[-1].step == step
    return planned


def writes(scene: PlannerScenario, *, restore: bool) -> Plan:
    """Return the plan, which has to hold this write."""
    planned = scene.plan()
    assert [a.restore for a in planned.actions if isinstance(a, ChangeMembership)] == [restore]
    return planned


def is_quiet(scene: PlannerScenario) -> Plan:
    """Return the plan, which changes nothing."""
    planned = scene.plan()
    assert (planned.ledger, planned.actions) == (None, ())
    return planned


def gone_from_an_old_view() -> Plan:
    scene = draining()
    scene.inside["web-1"] = []
    scene.nics = {"web-1": {"observed_at": at(-1)}}
    scene.now = 1
    planned = scene.plan()
    assert ReadNic(nic_id("web-1")) in planned.actions
    return planned


def proven_out() -> Plan:
    scene = draining()
    scene.inside["web-1"], scene.now = [], 5
    return has_recorded(scene, "out")


def cancelled_before_the_removal() -> Plan:
    scene = draining()
    scene.events, scene.now = [], 5
    return is_quiet(scene)


def empty() -> Plan:
    scene = out()
    scene.now = 40
    planned = scene.plan()
    assert planned.actions == (Acknowledge("E-1"),)
    return planned


def was_acknowledged() -> Plan:
    scene = out()
    scene.now = 60
    planned = scene.plan(acknowledged=ACKNOWLEDGED)
    assert planned.ledger is not None
    assert planned.ledger.transitions[-1].step == "acknowledged"
    return planned


def has_started() -> Plan:
    scene = out()
    scene.now = 60
    scene.adopt(acknowledged=ACKNOWLEDGED)
    scene.events = [started()]
    return is_quiet(scene)


def one_clean_poll() -> Plan:
    return is_quiet(restore_due())


def does_not_run() -> Plan:
    scene = stopped()
    assert ReadPower(vm_id("web-1")) not in scene.plan().actions
    scene.now = 325
    planned = scene.plan(
        vms=tuple(
            type(vm)(name=vm.name, vm_id=vm.vm_id, nic_ids=vm.nic_ids, power=vm.power)
            for vm in scene.observe().vms
        )
    )
    assert ReadPower(vm_id("web-1")) in planned.actions
    return scene.plan()


def waits_for_the_next_event() -> Plan:
    scene = pending()
    assert not any(isinstance(a, ChangeMembership) for a in scene.plan().actions)
    return scene.plan()


def the_next_event_is_due() -> Plan:
    scene = pending()
    assert phase(scene.adopt()) is Phase.HELD
    scene.events = [event(event_id="E-2", not_before=400)]
    return scene.plan()


def runs_again() -> Plan:
    scene = stopped()
    assert phase(scene.adopt()) is Phase.HELD
    scene.vms = {}
    return has_recorded(scene, "restoring")


def runs() -> Plan:
    scene = restore_due()
    scene.clean = True
    return has_recorded(scene, "restoring")


def the_probes_found_it() -> Plan:
    scene = restored()
    scene.now += 60
    return has_recorded(scene, "in service")


def is_back() -> Plan:
    scene = restoring()
    scene.inside["web-1"] = [APP]
    scene.now += 5
    return has_recorded(scene, "restored")


def is_due_again() -> Plan:
    scene = restored()
    scene.events = [event(event_id="E-2", not_before=700)]
    return has_recorded(scene, "recorded")


def empty_by_an_old_view() -> Plan:
    scene = out()
    scene.now, scene.pools = 60, {APP: {"observed_at": at(50)}}
    planned = scene.plan()
    assert planned.actions == (ReadLoadBalancer(LB),)
    return planned


def put_back(scene: PlannerScenario) -> Plan:
    scene.inside["web-1"] = [APP]
    return has_recorded(scene, "put back")


SITUATIONS: list[tuple[str, Callable[[], Plan]]] = [
    ("in a managed pool", idle),
    ("in no managed pool", taken_out_by_an_operator),
    ("in a pool, by an old view", due_with_an_old_view),
    ("in a pool with no member to spare", due_at_the_floor),
    ("in a pool, which can spare it now", floor_allows_it_again),
    ("in a pool, by fresh views", due_with_fresh_views),
    ("in a pool", lambda: writes(recorded(), restore=False)),
    ("in no pool, by a view from before the record", gone_from_an_old_view),
    ("in no pool, proven", proven_out),
    ("in every recorded pool", cancelled_before_the_removal),
    ("its connections had time to end, by an old view", empty_by_an_old_view),
    ("its connections had time to end", empty),
    ("the event was acknowledged", was_acknowledged),
    ("in a pool again", lambda: put_back(out())),
    ("the event has started", has_started),
    ("in a pool again", lambda: put_back(acknowledged())),
    ("in a pool again", lambda: put_back(in_maintenance())),
    ("one clean poll without the event", one_clean_poll),
    ("two clean polls, but it does not run", does_not_run),
    ("another event is announced for later", waits_for_the_next_event),
    ("that event is due", the_next_event_is_due),
    ("two clean polls, and it runs", runs_again),
    ("two clean polls, and it runs", runs),
    ("in no pool", lambda: writes(restoring(), restore=True)),
    ("in every recorded pool, proven", is_back),
    ("in a pool", is_due_again),
    ("the probes had time to find it", the_probes_found_it),
]


@pytest.mark.parametrize(
    ("state", "observed", "planned"),
    [(state, *situation) for state, situation in zip(STATES, SITUATIONS, strict=True)],
    ids=[f"{each.phase.value}: {each.observed}" for each in STATES],
)
def test_the_planner_does_what_the_table_says(
    state: State, observed: str, planned: Callable[[], Plan]
) -> None:
    """Each situation leads to the step of its row, and to the phase that the row names."""
    assert state.observed == observed
    assert phase(planned()) is state.then


def test_every_phase_is_in_the_table() -> None:
    """No phase is left out, and each can be reached."""
    assert {each.then for each in STATES} == set(Phase)


def test_the_table_has_a_row_for_every_state() -> None:
    """Below the header and a rule each state has one row, with all cells of a column aligned."""
    header, rule, *rows = vm_states.table().splitlines()
    assert header.startswith("| Phase ")
    assert set(rule) == set("|- ")
    assert len({len(line) for line in (header, rule, *rows)}) == 1
    for state, row in zip(STATES, rows, strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells == [
            f"`{state.phase.value}`",
            "yes" if state.wanted_out else "no",
            state.recorded,
            state.observed,
            state.step,
            f"`{state.then.value}`",
        ]


def test_the_docstring_shows_every_change_of_phase() -> None:
    """The top of the planner shows the arrows of the table."""
    assert vm_states.arrows() in (planner.__doc__ or "")


def test_the_documentation_shows_the_table() -> None:
    """docs/vm-phases.md holds what the table generates."""
    assert vm_states.table() in (DOCS / "vm-phases.md").read_text()


def test_the_diagram_has_an_arrow_for_every_change_of_phase() -> None:
    """docs/vm-phases.svg, drawn by hand, has each change once, and shows what is observed then."""
    assert "](vm-phases.svg)" in (DOCS / "vm-phases.md").read_text()
    drawn = [
        (str(group.findtext(f"{SVG}title")), [text.text for text in group.iter(f"{SVG}text")])
        for group in ElementTree.parse(DOCS / "vm-phases.svg").iter(f"{SVG}g")
        if group.get("class") == "change"
    ]
    expected = {f"to {Phase.IN_SERVICE.value}"} | {
        f"{source.value} to {then.value}: {' / '.join(situations)}"
        for (source, then), situations in vm_states.changes().items()
    }
    assert sorted(title for title, _ in drawn) == sorted(expected)
    # Arrows that run together have one label, and the start has none.
    labels = {title: " ".join(map(str, texts)) for title, texts in drawn if texts}
    assert labels == {title: title.partition(": ")[2] for title in labels}
    assert {title.partition(": ")[2] for title in expected} == {"", *labels.values()}
