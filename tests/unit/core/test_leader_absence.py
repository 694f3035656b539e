"""The rule that a leader is missing after two lease durations."""

from pathlib import Path

import pytest

from controller.core.leader_absence import LEASE_DURATIONS, LeaderAbsence

RULES = Path(__file__).parents[3] / "deploy" / "prometheus" / "lb-drain.rules.yml"


@pytest.mark.parametrize(("unseen_s", "missing"), [(0.0, False), (60.0, False), (60.1, True)])
def test_a_leader_is_missing_after_two_lease_durations(unseen_s: float, missing: bool) -> None:
    """Exactly two lease durations are not too long yet."""
    assert LeaderAbsence(lease_duration_s=30).after(unseen_s).missing is missing


def test_only_a_change_makes_another_state() -> None:
    """A caller recognises a change, in either direction, by the identity of the state."""
    absence = LeaderAbsence(lease_duration_s=30)
    assert absence.after(59) is absence
    missing = absence.after(61)
    assert missing.after(600) is missing
    assert missing.after(1) == absence


def test_the_alert_rule_waits_as_long() -> None:
    """LbDrainNoLeader fires after the same number of lease durations."""
    limit = f"> {LEASE_DURATIONS} * max by (job) (lbdrain_lease_duration_seconds > 0)"
    assert limit in RULES.read_text()
