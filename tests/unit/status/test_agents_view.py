"""Which agents run, as people see it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.core.agent_presence import AgentPresence, SeenAgent
from controller.status.agents_view import NEVER, agents_view
from tests.support.planner_scenario import at

NOW = at(1000)


def seen(vm: str, *, age_s: float = 5, **changes: Any) -> SeenAgent:
    given: dict[str, Any] = {
        "vm": vm,
        "release": "1.2.3",
        "configuration": "abc",
        "started_at": at(0),
        "at": NOW - timedelta(seconds=age_s),
    }
    return SeenAgent(vm=vm, presence=AgentPresence(**{**given, **changes}))


@pytest.mark.parametrize(
    ("agent", "role", "text"),
    [
        (seen("web-1"), "standby", "seen 5 s ago"),
        (seen("web-1", age_s=-9), "standby", "seen 9 s from now"),
        (seen("web-1", age_s=400), "not running", "seen 6 min 40 s ago"),
        (seen("web-1", stopped_at=NOW), "not running", "stopped 0 s ago"),
        (SeenAgent(vm="web-1"), "not running", NEVER),
        (SeenAgent(vm="web-1", problem="no permission"), "unknown", "no permission"),
        (replace(seen("web-1"), problem="storage is away"), "unknown", "storage is away"),
    ],
)
def test_a_role_follows_from_what_was_published(agent: SeenAgent, role: str, text: str) -> None:
    """A dead agent is the first thing to see."""
    (view,) = agents_view([agent], leader="web-2", now=NOW)
    assert (view["role"], view["text"]) == (role, text)


@pytest.mark.parametrize("agent", [seen("web-1"), seen("web-1", age_s=900), SeenAgent(vm="web-1")])
def test_the_lease_proves_more(agent: SeenAgent) -> None:
    """An agent that renews its lease runs, whatever it published."""
    assert agents_view([agent], leader="WEB-1", now=NOW)[0]["role"] == "leader"


def test_agents_are_in_the_order_of_their_names() -> None:
    """However they were read."""
    found = agents_view([seen("web-3"), seen("WEB-2"), seen("web-1")], leader="", now=NOW)
    assert [each["vm"] for each in found] == ["web-1", "WEB-2", "web-3"]


def test_an_agent_that_is_not_ready_has_its_reason() -> None:
    """It runs, and cannot do its work."""
    (view,) = agents_view([seen("web-1", problem="no document")], leader="", now=NOW)
    assert (view["role"], view["problem"], view["release"]) == ("standby", "no document", "1.2.3")


def test_an_agent_in_a_dry_run_knows_that_it_runs() -> None:
    """It publishes nothing."""
    found = agents_view(
        [SeenAgent(vm="web-1"), SeenAgent(vm="web-2")], leader="", now=NOW, dry_run="web-1"
    )
    assert [each["role"] for each in found] == ["dry run", "not running"]
