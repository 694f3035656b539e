"""`status --check`: one line and one exit code, as monitoring plugins give them."""

from typing import Any, cast

import pytest

from controller.core.planning.actions import Phase
from controller.status.monitoring_check import Check, State, check
from controller.status.overview_schema import Overview


def shown(*kinds: str, phases: tuple[Phase, ...] = (Phase.IN_SERVICE, Phase.OUT)) -> Overview:
    """Return what is read of an overview, with problems of these kinds."""
    found: dict[str, Any] = {
        "agent": {"availability_set": "web", "resource_group": "web-rg"},
        "lease": {"leader": "web-2"},
        "problems": [{"kind": kind, "title": f"a problem: {kind}"} for kind in kinds],
        "vms": [{"phase": phase.value} for phase in phases],
    }
    return cast("Overview", found)


def test_a_set_without_problems_is_ok() -> None:
    """Leader, VMs that are out, and the counts as performance data."""
    found = check(shown())
    assert found.state is State.OK
    assert found.line == (
        "LB-DRAIN OK - web (web-rg): web-2 leads, 1 of 2 VMs out of rotation "
        "| vms=2 out=1 problems=0"
    )


def test_the_set_has_its_short_name() -> None:
    """An agent can be configured with the id of its set."""
    overview = shown()
    overview["agent"]["availability_set"] = "/subscriptions/s/resourceGroups/rg/providers/x/web"
    assert check(overview).line.startswith("LB-DRAIN OK - web (web-rg): ")


@pytest.mark.parametrize(
    ("kinds", "state"),
    [
        (("held", "missed"), State.CRITICAL),
        (("missed", "in_rotation"), State.CRITICAL),
        (("no_leader",), State.CRITICAL),
        (("storage",), State.CRITICAL),
        (("agent",), State.WARNING),
        (("a kind of a newer version",), State.WARNING),
    ],
)
def test_the_worst_problem_decides(kinds: tuple[str, ...], state: State) -> None:
    """The line names the first problem and counts the rest."""
    found = check(shown(*kinds))
    first, *rest = kinds
    more = f"; {len(rest)} more" if rest else ""
    assert found.state is state
    assert f"- web (web-rg): a problem: {first}{more} |" in found.line


def test_what_one_agent_knows_alone_is_a_warning() -> None:
    """Azure or storage did not answer the command."""
    found = check(shown(), incomplete="storage does not answer")
    assert (found.state, found.text) == (State.WARNING, "web (web-rg): storage does not answer")


def test_a_line_stays_one_line() -> None:
    """Line ends and the separator of the performance data would end the text."""
    line = Check(state=State.UNKNOWN, text="no answer\nfrom | Azure").line
    assert line == "LB-DRAIN UNKNOWN - no answer from / Azure"


def test_the_states_are_the_exit_codes_of_plugins() -> None:
    """Nagios and Icinga read nothing else."""
    assert [state.value for state in State] == [0, 1, 2, 3]
