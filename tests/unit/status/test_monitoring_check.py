"""`status --check`: one line and one exit code, as monitoring plugins give them."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from controller.core.planning.actions import Phase
from controller.status.monitoring_check import Check, State, check
from controller.status.overview_schema import Overview

SEVERITIES: dict[str, str] = dict.fromkeys(
    ("held", "in_rotation", "no_leader", "storage"), "critical"
)
SEVERITIES["to clean up"] = "info"
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def shown(
    *kinds: str,
    phases: tuple[Phase, ...] = (Phase.IN_SERVICE, Phase.OUT),
    ledger_s: float | None = 5,
    document_s: float | None = 5,
) -> Overview:
    """Return what is read of an overview, with problems of these kinds and reads of these ages."""
    as_of = None if ledger_s is None else (NOW - timedelta(seconds=ledger_s)).isoformat()
    found: dict[str, Any] = {
        "at": NOW.isoformat(),
        "agent": {"availability_set": "web", "resource_group": "web-rg"},
        "ledger": {"as_of": as_of, "problem": ""},
        "document": {"age_s": document_s, "failed_polls": 0},
        "lease": {"leader": "web-2"},
        "problems": [
            {
                "kind": kind,
                "title": f"a problem: {kind}",
                "severity": SEVERITIES.get(kind, "warning"),
            }
            for kind in kinds
        ],
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


def test_the_line_names_a_critical_problem_first() -> None:
    """The problems of an overview are not in the order of their severities."""
    found = check(shown("missed", "in_rotation", "to clean up"))
    assert found.line == (
        "LB-DRAIN CRITICAL - web (web-rg): a problem: in_rotation; 1 more | vms=2 out=1 problems=2"
    )


def test_what_has_no_effect_now_raises_no_alarm() -> None:
    """Monitoring plugins have no state for information."""
    found = check(shown("to clean up"))
    assert found.state is State.OK
    assert found.line.endswith("web-2 leads, 1 of 2 VMs out of rotation | vms=2 out=1 problems=0")


def test_what_one_agent_knows_alone_is_a_warning() -> None:
    """Azure or storage did not answer the command."""
    found = check(shown(), incomplete="storage does not answer")
    assert (found.state, found.text) == (State.WARNING, "web (web-rg): storage does not answer")


@pytest.mark.parametrize(
    ("ages", "why"),
    [
        ({"ledger_s": 754}, "what this VM knows of the set is 12 min 34 s old"),
        ({"document_s": 7500}, "what this VM knows of the set is 2 h 5 min old"),
        ({"ledger_s": None}, "the agent on this VM has not read the ledger yet"),
        ({"document_s": None}, "the agent on this VM has not read the scheduled events yet"),
    ],
)
@pytest.mark.parametrize("kinds", [(), ("held",), ("missed", "no_leader"), ("agent",)])
def test_an_old_view_is_unknown(kinds: tuple[str, ...], ages: dict[str, Any], why: str) -> None:
    """A VM in maintenance that is cut off, or was just started again, cannot judge the set."""
    found = check(shown(*kinds, **ages), incomplete="storage does not answer")
    assert found.state is State.UNKNOWN
    assert found.line == f"LB-DRAIN UNKNOWN - web (web-rg): {why}: storage does not answer"


@pytest.mark.parametrize("kinds", [("storage",), ("held", "storage")])
def test_storage_that_fails_is_critical_however_old_the_view_is(kinds: tuple[str, ...]) -> None:
    """No agent can lead without storage, and what this agent finds is not old."""
    found = check(shown(*kinds, ledger_s=754), incomplete="storage does not answer")
    assert found.state is State.CRITICAL
    assert found.line == (
        "LB-DRAIN CRITICAL - web (web-rg): a problem: storage: "
        "what this VM knows of the set is 12 min 34 s old"
    )


@pytest.mark.parametrize(("age_s", "state"), [(60, State.CRITICAL), (61, State.UNKNOWN)])
def test_a_view_counts_for_one_minute(age_s: float, state: State) -> None:
    """What an agent has read a moment ago is good enough for an alarm."""
    assert check(shown("held", ledger_s=age_s), incomplete="no answer").state is state


def test_a_complete_reading_is_never_too_old() -> None:
    """A command outside the set has no event document, and has read the ledger itself."""
    assert check(shown("held", document_s=None)).state is State.CRITICAL


def test_an_agent_that_does_not_know_its_set() -> None:
    """An agent that starts knows no name yet."""
    overview = shown(ledger_s=None)
    overview["agent"]["availability_set"] = overview["agent"]["resource_group"] = None
    line = check(overview, incomplete="no answer").line
    assert line.startswith("LB-DRAIN UNKNOWN - the set of this VM: the agent on this VM has not")


def test_a_line_stays_one_line() -> None:
    """Line ends and the separator of the performance data would end the text."""
    line = Check(state=State.UNKNOWN, text="no answer\nfrom | Azure").line
    assert line == "LB-DRAIN UNKNOWN - no answer from / Azure"


def test_the_states_are_the_exit_codes_of_plugins() -> None:
    """Nagios and Icinga read nothing else."""
    assert [state.value for state in State] == [0, 1, 2, 3]
