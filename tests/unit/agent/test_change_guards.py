"""What is checked right before a write leaves, although it was planned a moment before."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from controller.agent.change_guards import ChangeGuards
from controller.core.controls import NO_CONTROLS, Controls, Pause
from controller.core.ledger import Ledger
from controller.errors import Outdated
from tests.support.planner_scenario import at, removal, restoral

PAUSED = NO_CONTROLS.with_pause(Pause(by="ann", reason="migration", at=at(0), until=at(60)))


def guards(controls: Controls) -> ChangeGuards:
    """Return the guards of a leader whose lease is valid, and whose ledger is empty."""
    nothing: Any = SimpleNamespace()
    tenure: Any = SimpleNamespace(check=lambda _number: None, ledger=Ledger())
    operator: Any = SimpleNamespace(controls=SimpleNamespace(controls=controls))
    watcher: Any = SimpleNamespace(document=None, now=lambda: at(1))
    state: Any = SimpleNamespace(ability=SimpleNamespace(accepted=lambda _key: None))
    return ChangeGuards(
        tenure=tenure,
        state=state,
        watcher=watcher,
        operator=operator,
        configuration=SimpleNamespace(policy=nothing),  # type: ignore[arg-type]
        mechanisms=nothing,
    )


@pytest.mark.parametrize(
    ("restore", "controls", "stops"),
    [
        (False, NO_CONTROLS, False),
        (False, PAUSED, True),
        (True, PAUSED, False),
    ],
    ids=["removal", "removal while paused", "restore while paused"],
)
def test_a_pause_stops_a_removal_that_was_planned_before(
    controls: Controls, *, restore: bool, stops: bool
) -> None:
    """Restores continue during a pause."""
    action = restoral() if restore else removal()
    check = guards(controls).for_change(action, 1)(()).check
    with pytest.raises(Outdated, match="paused") if stops else nullcontext():
        check()
