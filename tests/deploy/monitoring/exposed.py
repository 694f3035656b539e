"""What an agent exposes, from the code that exposes it, and what shipped queries ask for.

Nothing here repeats the name of a metric or a label value.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from controller.azure.http.request_labels import OPERATIONS, OUTCOMES
from controller.clock import SystemClock
from controller.config.schema import Settings
from controller.core.fleet import summarise
from controller.core.planning.actions import HoldReason
from controller.fleet.fleet_metrics import FleetMetrics
from controller.fleet.reader import ContainerResult, Fleet
from controller.observability.metrics import NOTIFY_OUTCOMES
from controller.observability.systemd_notify import SystemdNotifier
from controller.observability.transition_log import TransitionReporter
from tests.support.simulated_fleet import STATES

DEPLOY = Path(__file__).parents[3] / "deploy"
AGENT = DEPLOY / "prometheus" / "agent.yml"
RULES = DEPLOY / "prometheus" / "lb-drain.rules.yml"
RULE_TESTS = DEPLOY / "prometheus" / "lb-drain.test.yml"
DASHBOARD = DEPLOY / "grafana" / "lb-drain.json"

POOL = (
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/g/providers"
    "/Microsoft.Network/loadBalancers/web/backendAddressPools/app"
)
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
NAME = re.compile(r"\blbdrain_[a-z_]+")
SELECTOR = re.compile(r"\b(lbdrain_[a-z_]+)\{([^}]*)\}")
MATCHER = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*\"([^\"]*)\"")
BY_SCRAPE = frozenset({"job", "instance"})
"""Labels that Prometheus adds."""
BY_OPERATOR = frozenset({"set", "resource_group", "subscription", "container"})
"""Labels whose values are names of the operator's resources."""


class BusyLeader:
    """What a busy leader exposes: every possible series, with higher counts at every scrape."""

    def __init__(self) -> None:
        settings = Settings.model_validate(
            {
                "backend_pools": [{"id": POOL}],
                "election": {"container_url": "https://127.0.0.1/account/lb-drain"},
            }
        )
        self._metrics = TransitionReporter(settings, SystemdNotifier({}), SystemClock()).metrics
        self._pools = settings.pool_names().values()

    def metrics(self) -> bytes:
        """Work, and return the metrics."""
        metrics, now = self._metrics, datetime.now(UTC)
        soon = now + timedelta(seconds=60)
        for pool in self._pools:
            metrics.set_members(pool, in_rotation=2, expected=3)
        for service, operations in OPERATIONS.items():
            for operation in operations:
                for outcome in ("ok", *OUTCOMES.values()):
                    metrics.request_ended(service, operation, outcome, 0.1)
        metrics.set_leader(False)
        metrics.set_leader(True, soon)
        metrics.set(last_successful_poll_timestamp_seconds=now)
        metrics.reconciled("changed")
        metrics.set_holds({HoldReason.FLOOR.value: 1})
        metrics.set(ledger_entries=1, oldest_drain_start_timestamp_seconds=now)
        metrics.set(vms_at_risk=1, next_not_before_timestamp_seconds=soon)
        metrics.vm_drained("Reboot", "in_time", 840)
        metrics.event_judged("Reboot", "drained")
        for outcome in NOTIFY_OUTCOMES:
            metrics.notification_ended("slack", outcome)
        metrics.identify("web", "web-rg")
        return metrics.render() + fleet_metrics()


def fleet_metrics() -> bytes:
    """Return what the exporter of a fleet exposes of a set in every state, without its version."""
    now = datetime.now(UTC)
    rows = [
        summarise(
            made.ledger,
            lease_state="leased" if made.led else "available",
            container_url="https://127.0.0.1/account/lb-drain",
            blob=made.blob,
            written_at=now,
            now=now,
        )
        for made in (state(state.__name__, "web-rg", now) for state in STATES)
    ]
    metrics = FleetMetrics()
    container = ContainerResult(url="https://127.0.0.1/account/lb-drain")
    metrics.show(Fleet(at=now, sets=tuple(rows), containers=(container,), took_s=0.2))
    lines = metrics.render().splitlines(keepends=True)
    return b"".join(line for line in lines if b"lbdrain_build_info" not in line)


@dataclass(frozen=True, slots=True)
class Exposed:
    """The series of an exposition."""

    names: frozenset[str]
    labels: dict[str, list[dict[str, str]]]
    """Per name the labels of every series."""

    def finds(self, name: str, label: str, operator: str, value: str) -> bool:
        """Return whether a matcher of a query can match a series."""
        for labels in self.labels.get(name, []):
            if label in labels and (
                operator.startswith("!")
                or (operator == "=" and labels[label] == value)
                or (operator == "=~" and re.fullmatch(value, labels[label]))
            ):
                return True
        return False


def exposed() -> Exposed:
    """Return what there is to ask for."""
    names: set[str] = set()
    labels: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(BusyLeader().metrics().decode()):
        names.update(family.name + suffix for suffix in SUFFIXES[family.type])
        for sample in family.samples:
            labels.setdefault(sample.name, []).append(sample.labels)
    return Exposed(frozenset(names), labels)


def metric_names(text: str) -> set[str]:
    """Return the names of our metrics in a text."""
    return set(NAME.findall(text))


def not_found(text: str) -> list[str]:
    """Return whatever a text with queries asks for that no agent exposes."""
    known = exposed()
    wrong = sorted(metric_names(text) - known.names)
    for name, matchers in SELECTOR.findall(text):
        for label, operator, value in MATCHER.findall(matchers):
            is_product = label not in BY_SCRAPE | BY_OPERATOR and not value.startswith("$")
            if is_product and not known.finds(name, label, operator, value):
                wrong.append(f"{name}{{{label}{operator}{value}}}")
    return wrong


def queries(dashboard: dict[str, Any]) -> list[str]:
    """Return the query of every target of every panel."""
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
