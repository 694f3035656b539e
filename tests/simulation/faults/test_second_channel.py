"""Resource Graph as a second source, and Resource Manager as a second way to acknowledge.

Each history is played twice: its law is kept, and breaks without the safeguard that it is for.
"""

import gc
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest

from controller.simulator.services.faults import Effect, Fault
from controller.simulator.services.http_values import Request
from tests.simulation import ablations
from tests.simulation.campaign import judge
from tests.simulation.faults.refusals import asked, at, first, refusing, reply
from tests.simulation.faults.test_ablations import ANNOUNCED_S, H2, event, is_kept, scenario
from tests.simulation.runner import Played, Simulation
from tests.simulation.scenario import Act, Storm

GRAPH: dict[str, Any] = {"events": {"resource_graph": True}, "publishes": True}
CHANNEL: dict[str, Any] = {
    "events": {"acknowledge_through": "imds-then-arm"},
    "may_acknowledge": True,
}
REFUSED = Storm("imds refuses acks", 0.0, 900.0)
SET_REPLIES_AFTER_S = 12.0
PUT_BACK_S = ANNOUNCED_S + 8.0
"""While the set has not answered yet."""
BUSY = '{"error": {"code": "RetryableError", "message": "x", "details": []}}'


def play_lie(status: str = "Completed", **fields: Any) -> Played:
    """Every row of Resource Graph has this status, from the announcement on."""
    settings = {"resource_graph_delay_s": 0.0, "resource_graph_lie": status}
    act = event(notice_s=200.0, started_s=100.0)
    given = {"policy": {"acknowledge": False, "connection_drain_s": 2}, **GRAPH, **fields}
    return Simulation(scenario(act, settings=settings, **given)).run()


def play_refused_acknowledgements() -> Played:
    """The metadata service of every VM refuses each acknowledgement."""
    return Simulation(scenario(event(), storms=(REFUSED,), **CHANNEL)).run()


def play_put_back_meanwhile() -> Played:
    """The set answers late that it does not know the event; web-2 is put back before that.

    Azure refuses to take it out again for a while.
    """
    act = Act(PUT_BACK_S, "put_back", {})
    settings = {"arm_acknowledges_under": "vms", "operation_latency_s": 1.0}
    fields: dict[str, Any] = {**CHANNEL, "settings": settings}
    simulation = Simulation(scenario(event(), act, storms=(REFUSED,), **fields))
    late = Fault(effect=Effect.DELAY, delay_s=SET_REPLIES_AFTER_S)

    def of_set(request: Request) -> bool:
        path = request.path.casefold()
        return "/availabilitysets/" in path and path.endswith("/acknowledge")

    def of_nic(request: Request) -> bool:
        return request.method == "PUT" and "/networkinterfaces/" in request.path.casefold()

    busy = reply(429, BUSY)
    with (
        refusing(simulation, of_set, late),
        refusing(simulation, of_nic, busy, from_s=PUT_BACK_S, until_s=PUT_BACK_S + 20.0),
    ):
        return simulation.run()


PLAYED: Mapping[str, Callable[[], Played]] = {
    "ends-of-the-absent": play_lie,
    "guarded-channel": play_put_back_meanwhile,
    "imds-decides": play_lie,
    "second-channel": play_refused_acknowledgements,
}
"""A history in which a safeguard is needed, by its name."""


@pytest.mark.parametrize("name", PLAYED)
def test_the_law_is_kept_by_the_safeguard(name: str) -> None:
    """The history keeps the law, and breaks it when this one safeguard is switched off."""
    assert is_kept(name, PLAYED[name]())
    with ablations.without(name):
        played = PLAYED[name]()
    assert not is_kept(name, played)
    assert H2 not in {each.law for each in judge(played)}, "the switch itself ends no agent"


@pytest.mark.parametrize("status", ["Completed", "Canceled", "Started", "Postponed"])
def test_a_row_moves_nothing(status: str) -> None:
    """Whatever it states, the VM leaves and returns when it does without Resource Graph."""
    told, alone = play_lie(status), play_lie(status, publishes=False, events={})
    for kind in ("member_out", "member_in", "event_acknowledged"):
        assert len(at(told.history, kind)) == len(at(alone.history, kind)), kind
        moved = abs(first(told.history, kind) - first(alone.history, kind))
        assert moved < 2.0 or first(alone.history, kind) == float("inf"), kind
    assert judge(told) == []


def test_queries_are_few() -> None:
    """One a minute while an event is announced or its end awaited, and only by the leader."""
    history = play_lie("").history
    times = asked(history, "/providers/Microsoft.ResourceGraph/resources", "POST")
    assert 4 <= len(times) <= 12
    assert all(later - earlier >= 59.0 for earlier, later in pairwise(times))


def test_the_second_channel_acknowledges_within_seconds() -> None:
    """After two failures, and only when the VM is out."""
    history = play_refused_acknowledgements().history
    assert first(history, "member_out") < first(history, "event_acknowledged") < ANNOUNCED_S + 45
    assert asked(history, "/acknowledge", "POST")


def test_an_oversized_reply_leaves_nothing_open() -> None:
    """The rest of it is not read, and what read it is closed at once."""
    storm = Storm("graph oversized", 0.0, 900.0)
    played = play_lie("", storms=(storm,), calm_at_s=60.0, idle_s=1.0)
    assert "graph oversized" in played.marks
    gc.collect()  # pytest fails a test that leaves an exception to the garbage collector
    assert judge(played) == []
