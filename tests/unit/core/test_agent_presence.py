"""Whether an agent runs, as far as its presence shows."""

from dataclasses import replace
from datetime import timedelta

import pytest

from controller.core.agent_presence import AgentPresence, AgentState, SeenAgent, silent_after
from tests.support.planner_scenario import at

PRESENCE = AgentPresence(
    vm="web-1", release="1.2.3", configuration="abc", started_at=at(0), at=at(100)
)


def state_at(presence: AgentPresence | None, seconds: float) -> AgentState:
    return SeenAgent(vm="web-1", presence=presence).state(at(100) + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("seconds", "state"),
    [
        (0, AgentState.RUNNING),
        (300, AgentState.RUNNING),
        (300.1, AgentState.SILENT),
        (-300, AgentState.RUNNING),
        (-300.1, AgentState.SILENT),
    ],
)
def test_an_agent_runs_until_it_misses_its_period(seconds: float, state: AgentState) -> None:
    """Two and a half periods of two minutes, ahead or behind."""
    assert state_at(PRESENCE, seconds) is state


def test_an_agent_that_was_stopped_does_not_run() -> None:
    """However fresh the presence is."""
    assert state_at(replace(PRESENCE, stopped_at=at(100)), 0) is AgentState.STOPPED


def test_without_a_presence_nothing_is_known() -> None:
    """An agent of an older version publishes none."""
    assert state_at(None, 0) is AgentState.UNKNOWN


@pytest.mark.parametrize(
    ("period_s", "silent_s"), [(0, 75), (30, 75), (31, 77.5), (3600, 9000), (10**18, 9000)]
)
def test_a_period_is_bounded(period_s: int, silent_s: float) -> None:
    """A period of years would hide an agent that is gone."""
    assert silent_after(replace(PRESENCE, period_s=period_s)) == timedelta(seconds=silent_s)


def test_texts_are_short_and_printable() -> None:
    """Any identity that can write the container can write them."""
    long = replace(PRESENCE, release="\x1b[2J" + "x" * 5000, configuration="y" * 5000)
    assert (len(long.release), len(long.configuration)) == (64, 64)
    assert "\x1b" not in long.release
    assert len(replace(PRESENCE, problem="z" * 5000).problem) == 300
