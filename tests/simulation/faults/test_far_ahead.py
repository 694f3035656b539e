"""Events that are announced a week ahead, played with whole agents."""

from typing import Any

import pytest

from tests.simulation.campaign import judge
from tests.simulation.faults.test_reports import Observed, event

WEEK_S = 7 * 86_400.0


def verdicts(observed: Observed) -> list[str]:
    """Play to the end, which breaks no law, and return the verdicts."""
    assert judge(observed.sim.run()) == []
    return [each["verdict"] for each in observed.sim.stage.ledger().get("verdicts", [])]


def moves(observed: Observed) -> list[tuple[str, str]]:
    """Return which VM left or entered a pool, in order, as the agents did it."""
    kinds = {"member_out": "out", "member_in": "in"}
    found = [each for each in observed.sim.history if each.kind in kinds]
    return [(str(each.detail["vm"]), kinds[each.kind]) for each in found]


def test_a_vm_returns_between_two_maintenances() -> None:
    """The event of next week is announced all the time, and keeps no VM out until it is due."""
    observed = Observed(event(), event(21.0, notice_s=WEEK_S, cancel_after_s=200.0))
    assert verdicts(observed) == ["drained", "cancelled"]
    assert moves(observed) == [("web-2", "out"), ("web-2", "in")]
    [back] = [each.at for each in observed.sim.history if each.kind == "member_in"]
    [taken_back, *_] = [each.at for each in observed.sim.history if each.kind == "event_cancelled"]
    assert back < taken_back


@pytest.mark.parametrize(
    "policy",
    [
        {"far_ahead": "drain"},
        {"far_ahead": "window", "far_ahead_window": "00:00-23:59"},
    ],
    ids=["drain", "window"],
)
def test_an_event_of_next_week_is_handled_now(policy: dict[str, Any]) -> None:
    """The VM leaves, the event is acknowledged and begins, and the VM returns, all at once."""
    times = {"connection_drain_s": 2, "restore_settle_s": 3}
    observed = Observed(event(notice_s=WEEK_S), policy={**times, **policy})
    assert verdicts(observed) == ["drained"]
    assert moves(observed) == [("web-2", "out"), ("web-2", "in")]
