"""The reference of the metrics, from what an agent exposes."""

from pathlib import Path

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from controller.clock import SystemClock
from controller.config.loader import parse
from controller.observability.systemd_notify import SystemdNotifier
from controller.observability.transition_log import TransitionReporter
from tests.docs.markdown import code, table

FILE = """
[[backend_pools]]
id = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/web/providers/\
Microsoft.Network/loadBalancers/web-lb/backendAddressPools/app"
[election]
container_url = "https://account.blob.core.windows.net/lb-drain"
"""
CHANNELS = """
[[notifications]]
kind = "webhook"
url = "https://example.com/1"
[[notifications]]
kind = "slack"
url = "https://example.com/2"
[[notifications]]
kind = "teams"
url = "https://example.com/3"
[[notifications]]
kind = "email"
host = "mail.example.com"
sender = "lb-drain@example.com"
to = ["oncall@example.com"]
"""


def metrics() -> str:
    """Return every metric with its help text, which lists the labels, and its type."""
    settings = parse(FILE + CHANNELS, {}, Path("config.toml")).settings
    reporter = TransitionReporter(settings, SystemdNotifier({}), SystemClock())
    families = text_string_to_metric_families(reporter.metrics.render().decode())
    rows = sorted(
        (code(_exposed(each)), each.documentation, each.type)
        for each in families
        if not each.name.endswith("_created")
    )
    return table(("metric", "meaning", "type"), rows)


def _exposed(family: Metric) -> str:
    return family.name + ("_total" if family.type == "counter" else "")
