"""The alert rules: promtool accepts them, and they query what agents expose."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from controller.config.schema import Server
from controller.core.notices.agent_notices import OUTAGE_FAILURES
from controller.core.notices.set_notices import MAX_OUT_S
from tests.deploy.monitoring.exposed import AGENT, RULE_TESTS, RULES, not_found

ALERT = re.compile(r"^ {6}- alert: (\w+)$", re.MULTILINE)
RUNBOOK = RULES.parents[1] / "README.md"
RUNBOOK_URL = "https://runbook.example.com/lb-drain"
"""The placeholder in the rules."""
OF_NO_SET = {"LbDrainNoAgents", "LbDrainFleetUnread"}
EXPECTED = re.compile(r"alertname: (\w+)\n +eval_time: \S+\n +exp_alerts:(.*)")


def promtool(*arguments: object) -> None:
    """Run promtool, and fail with its output."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    command = [program, *(str(each) for each in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("rules", RULES), ("config", "--agent", AGENT)],
    ids=["rules", "configuration of a scraper"],
)
def test_promtool_accepts_the_files(arguments: tuple[object, ...]) -> None:
    """What is shipped can be loaded as it is."""
    promtool("check", *arguments)


@pytest.mark.slow
def test_promtool_runs_the_unit_tests_of_the_rules() -> None:
    """Each alert fires when it should, and none in an ordinary maintenance."""
    promtool("test", "rules", RULE_TESTS)


def test_the_scraper_finds_the_agent() -> None:
    """The scraper asks where an agent listens by default, and its job is one that alerts know."""
    text = AGENT.read_text()
    assert f'targets: ["{Server().listen}"]' in text
    assert "job_name: lb-drain-" in text


def test_every_alert_has_been_seen_to_fire_and_to_stay_silent() -> None:
    """The unit tests expect each alert at one instant, and at another one expect it not."""
    alerts = ALERT.findall(RULES.read_text())
    assert len(alerts) == len(set(alerts)) > 0
    expected = EXPECTED.findall(RULE_TESTS.read_text())
    assert {name for name, alerts in expected if alerts != " []"} == set(alerts)
    assert {name for name, alerts in expected if alerts == " []"} == set(alerts)


def test_every_alert_has_what_a_person_on_call_needs() -> None:
    """Severity, summary, description, and a chapter of the runbook that is named like the alert."""
    runbook = RUNBOOK.read_text()
    blocks = RULES.read_text().split("      - alert: ")[1:]
    for block in blocks:
        name = block.splitlines()[0]
        for field in ("summary", "description"):
            assert re.search(rf"^ {{10}}{field}: .{{10,}}", block, re.MULTILINE), (name, field)
        assert re.search(r"^ {10}severity: (critical|warning|info)$", block, re.MULTILINE), name
        assert f"runbook_url: {RUNBOOK_URL}#{name.lower()}\n" in block, name
        named = "availability_set: " in block or "$labels.set" in block
        assert named is (name not in OF_NO_SET), name
        assert f"\n### {name}\n" in runbook, name
    assert runbook.count("\n### LbDrain") == len(blocks), "a chapter without an alert"


def test_the_address_of_the_runbook_can_be_set(tmp_path: Path) -> None:
    """The command at the top of the rules, which the runbook repeats, replaces every address."""
    (command,) = re.findall(
        r"^#   (sed -i .*) lb-drain\.rules\.yml$", RULES.read_text(), re.MULTILINE
    )
    assert command in RUNBOOK.read_text()
    copy = tmp_path / "rules.yml"
    copy.write_text(RULES.read_text())
    subprocess.run(["bash", "-c", f"{command} {copy}"], check=True)
    urls = re.findall(r"runbook_url: (\S+)#", copy.read_text())
    assert set(urls) == {"https://wiki.example.com/lb-drain"}
    assert len(urls) == len(ALERT.findall(RULES.read_text()))


def test_alerts_and_notifications_agree_on_what_is_too_much() -> None:
    """Alerts and notifications use the same limits."""
    expressions = re.findall(r"^ {8}expr: (.*)$", RULES.read_text(), re.MULTILINE)
    limits = {
        "lbdrain_azure_consecutive_failures": f">= {OUTAGE_FAILURES}",
        "lbdrain_oldest_drain_start_timestamp_seconds": f"> {MAX_OUT_S:.0f}",
    }
    for metric, limit in limits.items():
        found = [each for each in expressions if metric in each]
        assert found
        assert all(each.endswith(limit) for each in found), metric


def test_the_rules_ask_for_what_agents_expose() -> None:
    """A misspelt metric or label value would make an alert that never fires."""
    assert not_found(RULES.read_text()) == []


def test_the_unit_tests_feed_what_agents_expose() -> None:
    """Series that no agent exposes would prove nothing."""
    assert not_found(RULE_TESTS.read_text()) == []
