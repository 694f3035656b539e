"""`deploy/azure-monitor/`: unfolded offline, and its queries held against lines of the agent.

No KQL runs here. Two mistakes would stay unnoticed: an expression that no line matches, and a word
that no line contains.
"""

import json
import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controller.core.drain_history import Step
from controller.core.event_record import Verdict
from controller.core.hold_severity import Severity, severity
from controller.core.planning.actions import HoldReason
from controller.observability.logs import DAEMON, IDENTIFIER, log
from controller.observability.message_ids import KINDS, step_event
from tests.deploy.arm_template import SUBSCRIPTION, unfold
from tests.support.journal_socket import Receiver

DEPLOY = Path(__file__).parents[2] / "deploy"
GROUP = f"{SUBSCRIPTION}/resourceGroups/web-rg"
WORKSPACE = f"{GROUP}/providers/Microsoft.OperationalInsights/workspaces/logs"
COLLECTION = json.loads((DEPLOY / "azure-monitor/collection.json").read_text())
ALERTS = json.loads((DEPLOY / "azure-monitor/alerts.json").read_text())
LINES: str = ALERTS["variables"]["lines"]
WINDOWS = {"PT5M", "PT10M", "PT15M", "PT30M", "PT45M", *(f"PT{n}H" for n in range(1, 7)), "P1D"}


def rules() -> dict[str, Any]:
    """Return the alert rules by name."""
    given = {"location": "westeurope", "workspaceId": WORKSPACE, "actionGroupIds": ["/action"]}
    whole = unfold(ALERTS, given, to=GROUP)
    return {at.rsplit("/", 1)[1]: each["properties"] for at, each in whole.resources.items()}


def queries() -> list[str]:
    """Return every query of the alerts and of the runbook."""
    runbook = (DEPLOY / "README.md").read_text()
    return [
        *(rule["criteria"]["allOf"][0]["query"] for rule in rules().values()),
        *re.findall(r"^```kusto\n(.*?)^```$", runbook, re.MULTILINE | re.DOTALL),
    ]


def taken_apart(message: str) -> dict[str, str]:
    """Do what the queries begin with; RE2 reads these expressions as Python does."""
    found = re.findall(r'(\w+) = (?:todatetime\()?extract\(@"([^"]+)", 1, SyslogMessage\)', LINES)
    hits = {name: re.search(pattern, message) for name, pattern in found}
    return {name: hit[1] for name, hit in hits.items() if hit}


def test_the_collection_takes_what_the_agent_writes() -> None:
    """Its facility from Info on, of every VM, into the workspace, and no more than has to be."""
    given = {"location": "westeurope", "workspaceId": WORKSPACE, "vmNames": ["web-1", "web-2"]}
    whole = unfold(COLLECTION, given, to=GROUP)
    rule_id = f"{GROUP}/providers/Microsoft.Insights/dataCollectionRules/lb-drain-syslog"
    properties = whole.resources.pop(rule_id)["properties"]
    (source,) = properties["dataSources"]["syslog"]
    facilities = ("kern", "user", "mail", "daemon")
    assert source["facilityNames"] == [facilities[int(DAEMON)]]
    assert {"Info", "Warning", "Error", "Critical"} <= set(source["logLevels"])
    (flow,) = properties["dataFlows"]
    assert f"ProcessName == '{IDENTIFIER}'" in flow["transformKql"]
    assert flow["streams"] == source["streams"] == [flow["outputStream"]]
    (destination,) = properties["destinations"]["logAnalytics"]
    assert flow["destinations"] == [destination["name"]]
    assert destination["workspaceResourceId"] == WORKSPACE
    vms = [f"{GROUP}/providers/Microsoft.Compute/virtualMachines/{vm}" for vm in given["vmNames"]]
    assert [at.split("/providers/Microsoft.Insights")[0] for at in whole.resources] == vms
    for each in whole.resources.values():
        assert each["properties"] == {"dataCollectionRuleId": rule_id}


def test_each_alert_is_a_rule() -> None:
    """Every rule has its own query, a window that Azure accepts, and an action group."""
    found = rules()
    assert len(found) == len(ALERTS["variables"]["alerts"]) == 9
    assert len({rule["criteria"]["allOf"][0]["query"] for rule in found.values()}) == 9
    for rule in found.values():
        assert rule["windowSize"] in WINDOWS
        assert rule["evaluationFrequency"] == "PT5M"
        assert 0 <= rule["severity"] <= 4
        assert rule["scopes"] == [WORKSPACE]
        assert rule["actions"] == {"actionGroups": ["/action"]}


def test_the_runbook_and_the_alerts_take_lines_apart_alike() -> None:
    """The query that is to be saved as a function is the one that the alerts begin with."""
    assert f"```kusto\n{LINES}\n```" in (DEPLOY / "README.md").read_text()
    assert sum(query.startswith(LINES) for query in queries()) == 9


def test_queries_ask_for_words_that_there_are() -> None:
    """Each event and outcome that a query compares with is one that lines can have."""
    compared: dict[str, set[str]] = {"Event": set(), "Outcome": set()}
    for query in queries():
        for column, words in re.findall(r'(Event|Outcome) (?:==|!?in) ("\w+"|\([^)]+\))', query):
            compared[column].update(re.findall(r'"(\w+)"', words))
    assert compared["Event"] >= {
        "out",
        "held",
        "azure_request_failed",
        "leader_missing",
        "recorded",
    }
    assert compared["Event"] <= {event for kind in KINDS for event in kind.events}
    assert compared["Outcome"] >= {"late", "vm_not_running"}
    assert compared["Outcome"] <= {*Verdict, *(reason.value for reason in HoldReason)}


def test_both_monitors_report_the_same_holds() -> None:
    """A hold that needs an operator is reported by both; one that ends by itself by neither."""
    azure = {each["name"]: each["then"] for each in ALERTS["variables"]["alerts"]}
    (left_out,) = re.findall(r"Outcome !in \(([^)]+)\)", azure["held"])
    own = {found for each in azure.values() for found in re.findall(r'Outcome == "(\w+)"', each)}
    prometheus = (DEPLOY / "prometheus/lb-drain.rules.yml").read_text()
    (excluded,) = re.findall(r'lbdrain_holds\{reason!~"([^"]+)"\}', prometheus)
    own_alert = set(re.findall(r'lbdrain_holds\{reason="(\w+)"\}', prometheus))
    unreported = {each.value for each in HoldReason if not severity(each.value)}
    assert set(re.findall(r'"(\w+)"', left_out)) - own == unreported
    assert set(excluded.split("|")) - own_alert == unreported


def test_both_monitors_report_a_hold_as_urgently_as_the_agent_does() -> None:
    """What has no effect now is information, and an alert for one reason has its severity."""
    words = {Severity.CRITICAL: "critical", Severity.WARNING: "warning", Severity.INFO: "info"}
    prometheus = (DEPLOY / "prometheus/lb-drain.rules.yml").read_text()
    labelled = dict(
        re.findall(r'lbdrain_holds\{reason="(\w+)"\}(?:.*\n)+?\s+severity: (\w+)', prometheus)
    )
    assert labelled == {reason: words[severity(reason)] for reason in labelled}
    azure = {
        reason: each["severity"]
        for each in ALERTS["variables"]["alerts"]
        for reason in re.findall(r'"held" and Outcome == "(\w+)"', each["then"])
    }
    assert azure == {reason: 4 - severity(reason) for reason in azure}
    noted = {each.value for each in HoldReason if severity(each.value) is Severity.INFO}
    assert noted <= set(labelled) & set(azure)


def test_a_vm_that_does_not_run_is_reported_until_it_is_restored() -> None:
    """The last of these lines of a VM counts; the one that begins its restore ends the alert."""
    (query,) = (each for each in queries() if 'Outcome == "vm_not_running"' in each)
    assert f'Event in ("held", "{step_event(Step.RESTORING)}", ' in query
    assert "arg_max(TimeGenerated, Event, Outcome) by Vm" in query
    assert "ago(10m)" in query


def test_a_missing_leader_is_reported_until_the_agent_sees_one_or_starts_again() -> None:
    """A process that was started again knows of no missing leader, so it never logs its return."""
    (query,) = (each for each in queries() if '| where Event == "leader_missing"' in each)
    assert 'Event in ("leader_missing", "leader_restored", "agent_started")' in query
    assert "arg_max(TimeGenerated, Event) by Computer" in query


def test_a_line_is_taken_apart(journal: Receiver) -> None:
    """Columns come from the fields, not from the text before them; no field, no column."""
    logger = logging.getLogger("lbdrain.test")
    log(
        logger,
        logging.INFO,
        "web-2: in service  event=out  vm=other  outcome=late",
        event=step_event(Step.IN_SERVICE),
        vm="web-2",
        event_id="602d9444",
        not_before=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
        outcome="in_time",
    )
    log(logger, logging.INFO, "no fields")
    first, second = (entry["MESSAGE"] for entry in journal.entries())
    assert taken_apart(first) == {
        "Event": "in_service",
        "Vm": "web-2",
        "EventId": "602d9444",
        "NotBefore": "2030-01-02T03:04:05Z",
        "Outcome": "in_time",
    }
    assert taken_apart(second) == {}


@pytest.mark.parametrize("template", [COLLECTION, ALERTS], ids=["collection", "alerts"])
def test_templates_are_for_a_resource_group(template: Any) -> None:
    """Azure reads the scope from the schema."""
    assert template["$schema"].endswith("/deploymentTemplate.json#")
    assert all(each["metadata"]["description"] for each in template["parameters"].values())


@pytest.mark.parametrize("unit", sorted(DEPLOY.glob("*.service")), ids=lambda unit: unit.stem)
def test_a_unit_that_fails_is_collected_and_reported(unit: Path) -> None:
    """Collection and alert look for words that systemd's line about each unit contains."""
    line = f"{unit.name}: Failed with result 'exit-code'."
    (service,) = (each for each in ALERTS["variables"]["alerts"] if each["name"] == "service")
    for text in (service["from"], json.dumps(COLLECTION)):
        words = re.findall(
            r"""ProcessName == .systemd.* SyslogMessage contains ['"]([^'"]+)""", text
        )
        assert words
        assert all(word in line for word in words)
    assert "Failed with result" in service["then"]
