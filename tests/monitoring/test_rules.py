"""The alert rules: what promtool says of them, and that they ask for what agents expose."""

import re
import shutil
import subprocess

import pytest

from .exposed import RULE_TESTS, RULES, not_found

ALERT = re.compile(r"^ {6}- alert: (\w+)$", re.MULTILINE)
EXPECTED = re.compile(r"alertname: (\w+)\n +eval_time: \S+\n +exp_alerts:(.*)")


@pytest.mark.parametrize(
    ("command", "file"), [("check", RULES), ("test", RULE_TESTS)], ids=["syntax", "unit tests"]
)
def test_promtool_accepts_the_rules(command: str, file: object) -> None:
    """The rules are valid, and each alert fires when it should and in no ordinary maintenance."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    done = subprocess.run(
        [promtool, command, "rules", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_been_seen_to_fire_and_to_keep_silent() -> None:
    """The unit tests expect each alert at one instant, and at another one expect it not."""
    alerts = ALERT.findall(RULES.read_text())
    assert len(alerts) == len(set(alerts)) > 0
    expected = EXPECTED.findall(RULE_TESTS.read_text())
    assert {name for name, alerts in expected if alerts != " []"} == set(alerts)
    assert {name for name, alerts in expected if alerts == " []"} == set(alerts)


def test_every_alert_tells_what_a_person_needs() -> None:
    """Severity, summary, description, and the place in the runbook that is named like the alert."""
    blocks = RULES.read_text().split("      - alert: ")[1:]
    for block in blocks:
        name = block.splitlines()[0]
        for field in ("summary", "description"):
            assert re.search(rf"^ {{10}}{field}: .{{10,}}", block, re.MULTILINE), (name, field)
        assert re.search(r"^ {10}severity: (critical|warning|info)$", block, re.MULTILINE), name
        assert f"runbook_url: deploy/README.md#{name.lower()}\n" in block, name


def test_the_rules_ask_for_what_agents_expose() -> None:
    """A misspelt metric or label value would make an alert that never fires."""
    assert not_found(RULES.read_text()) == []


def test_the_unit_tests_feed_what_agents_expose() -> None:
    """Series that no agent exposes would prove nothing."""
    assert not_found(RULE_TESTS.read_text()) == []
