"""Two availability sets whose agents share pools: each keeps the floor over the union (law S2)."""

from typing import Any
from unittest.mock import patch

import pytest

from controller.core.planning.shared_floor import SharedFloor
from tests.simulation.campaign import judge
from tests.simulation.runner import Played, Simulation
from tests.simulation.scenario import Act, Scenario, SecondSet

SECOND = (SecondSet(vms=1), SecondSet(vms=1, name="web", resource_group="shop-rg"))
"""With another name in the same resource group, and with the same name in another one."""


def play(second: SecondSet, ip_pools: tuple[str, ...] = ()) -> Played:
    """Play events for the only VM of each set, which have to share the floor."""
    options = {"event_type": "Reboot", "notice_s": 320.0, "duration_s": -1, "impact_s": 5.0}
    return Simulation(
        Scenario(
            seed=7,
            vms=1,
            ip_pools=ip_pools,
            second_set=second,
            policy={"lead_time_s": 900.0, "connection_drain_s": 2, "restore_settle_s": 3},
            settings={"ack_starts_event_after_s": 2.0},
            acts=tuple(
                Act(40.0, "event", {**options, "started_s": 15.0, "vms": (vm,)})
                for vm in ("web-1", "shop-1")
            ),
            calm_at_s=5.0,
            patience_s=400.0,
            idle_s=1.0,
        )
    ).run()


@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("ip_pools", [(), ("internal",)])
def test_two_sets_take_turns_at_the_floor(second: SecondSet, ip_pools: tuple[str, ...]) -> None:
    """Each set drains its VM for its own event, one after the other, and all laws hold."""
    played = play(second, ip_pools)
    assert [str(each) for each in judge(played)] == []
    outs = {each.detail["vm"] for each in played.history if each.kind == "member_out"}
    assert outs == {"web-1", "shop-1"}


def test_the_floor_is_judged_over_both_sets() -> None:
    """Without the statements of the other set a write breaks law S2."""
    real = SharedFloor.__init__

    def counts_all(self: SharedFloor, *arguments: Any) -> None:
        real(self, *arguments)
        self.uncounted = self.silent = frozenset()

    with (
        patch.object(SharedFloor, "__init__", counts_all),
        patch.object(SharedFloor, "must_wait", lambda *_: False),
    ):
        played = play(SECOND[0])
    assert "S2 floor" in {each.law for each in judge(played)}
