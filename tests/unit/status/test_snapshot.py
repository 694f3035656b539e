"""Whether an agent is healthy and ready, and what it says of itself in one line."""

from datetime import UTC, datetime
from typing import Any

import pytest

from controller.core.controls import Controls, Pause
from controller.core.vm_phase import Rotation
from controller.status.snapshot import HEALTHY_PASS_S, AgentHealth

LEADER: dict[str, Any] = {"role": "leader", "leading": True, "document_read": True}


@pytest.mark.parametrize(
    ("given", "headline"),
    [
        ({"role": "starting", "waiting_for": "waiting for Azure"}, "waiting for Azure"),
        ({"role": "standby"}, "standby"),
        ({"role": "standby", "unread": "the set is gone"}, "standby; the set is gone"),
        ({"role": "suspect"}, "suspect"),
        ({"role": "leader", "leading": False}, "leader"),
        (LEADER, "leader; all in service"),
        (
            {**LEADER, "rotation": Rotation(out=("web-2", "web-3"))},
            "leader; out of rotation: web-2, web-3",
        ),
        (
            {**LEADER, "rotation": Rotation(out=("web-1",), stuck=("web-2",))},
            "leader; out of rotation: web-1; in rotation, cannot be removed: web-2",
        ),
        ({**LEADER, "unread": "no inventory"}, "leader; no inventory"),
        (
            {**LEADER, "unread": "no inventory", "rotation": Rotation(out=("web-2",))},
            "leader; no inventory; recorded as out of rotation: web-2",
        ),
        ({"role": "dry run"}, "dry run: nothing is written"),
        (
            {"role": "dry run", "unread": "no inventory"},
            "dry run: nothing is written; no inventory",
        ),
    ],
)
def test_the_headline(given: dict[str, Any], headline: str) -> None:
    """One line names the role, what is drained, and what is not known."""
    assert AgentHealth(**given).headline == headline


def test_the_headline_of_a_paused_set() -> None:
    """Readiness, the title of the page and systemd show the end of the pause."""
    pause = Pause(
        by="ann",
        reason="",
        at=datetime(2026, 1, 5, 12, tzinfo=UTC),
        until=datetime(2026, 1, 5, 14, tzinfo=UTC),
    )
    paused = AgentHealth(**LEADER, controls=Controls(pause=pause))
    assert paused.ready == (
        True,
        "leader; removals are paused until 2026-01-05 14:00 UTC; all in service",
    )


def test_an_agent_that_starts_is_healthy_and_not_ready() -> None:
    """A restart would not help while Azure does not answer."""
    health = AgentHealth(role="starting", waiting_for="waiting for Azure", pass_age_s=999)
    assert health.healthy == (True, "waiting for Azure")
    assert health.ready == (False, "waiting for Azure")


def test_an_agent_without_passes_is_not_healthy() -> None:
    """Passes have to complete, in any role."""
    late = AgentHealth(**LEADER, pass_age_s=HEALTHY_PASS_S + 1)
    assert late.healthy == late.ready == (False, "no pass completed for 61 s")
    assert AgentHealth(**LEADER, pass_age_s=HEALTHY_PASS_S).healthy[0]


def test_a_suspect_is_not_healthy() -> None:
    """A leader has to renew its lease."""
    suspect = AgentHealth(role="suspect", document_read=True)
    assert suspect.healthy == (False, "the lease could have expired and is not renewed")


def test_an_agent_is_ready_once_it_has_read_what_it_plans_from() -> None:
    """First the event document, then the VMs of the set."""
    assert AgentHealth(role="standby").ready == (
        False,
        "the event document has not been read yet",
    )
    assert AgentHealth(**LEADER, unread="no inventory").ready == (False, "no inventory")
    assert AgentHealth(**LEADER).ready == (True, "leader; all in service")
