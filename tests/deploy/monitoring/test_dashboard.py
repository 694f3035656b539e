"""The dashboard: a file that Grafana can load, whose queries ask for what agents expose."""

import json
import re
from typing import Any

import pytest

from tests.deploy.monitoring.exposed import (
    DASHBOARD,
    RULES,
    exposed,
    metric_names,
    not_found,
    queries,
)

COLUMNS = 24
UNWATCHED = {
    "lbdrain_azure_request_duration_seconds_count": "lbdrain_azure_requests_total counts the same",
    "lbdrain_azure_request_duration_seconds_sum": "a mean hides what quantiles show",
    "lbdrain_drain_lead_seconds_count": "lbdrain_drains_total counts the same",
    "lbdrain_drain_lead_seconds_sum": "a mean hides what quantiles show",
}
"""Series that no shipped query needs, and why."""


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def test_every_panel_says_what_it_shows(dashboard: dict[str, Any]) -> None:
    """A person on call has a title, a unit and a sentence for each panel."""
    for panel in dashboard["panels"]:
        assert panel["title"]
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
    titles = [panel["title"] for panel in dashboard["panels"]]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(titles)) == len(titles) == len(set(ids))


def test_panels_fill_the_grid_without_overlap(dashboard: dict[str, Any]) -> None:
    """No panel covers another, and no row has a hole."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        x, y, w, h = (panel["gridPos"][each] for each in "xywh")
        cells = {(x + right, y + down) for right in range(w) for down in range(h)}
        assert not cells & taken, panel["title"]
        taken |= cells
    rows = {y for _, y in taken}
    assert taken == {(x, y) for x in range(COLUMNS) for y in range(max(rows) + 1)}


def test_every_query_is_about_the_chosen_set(dashboard: dict[str, Any]) -> None:
    """Several sets may send to one Prometheus; a query that forgets the job would mix them."""
    for query in queries(dashboard):
        selectors = re.findall(r"\b(?:lbdrain_\w+|ALERTS)\b(\{[^}]*\})?", query)
        assert selectors, query
        assert all("job=" in selector for selector in selectors), query


def test_the_dashboard_asks_for_what_agents_expose(dashboard: dict[str, Any]) -> None:
    """A misspelt metric or label value would make a panel that is always empty."""
    assert not_found("\n".join(queries(dashboard))) == []
    assert not_found(DASHBOARD.read_text()) == []


def test_every_metric_is_watched() -> None:
    """Whatever is exposed is in an alert or on the dashboard, or left out for a reason."""
    watched = metric_names(RULES.read_text()) | metric_names(DASHBOARD.read_text())
    assert exposed().names - watched == set(UNWATCHED)
