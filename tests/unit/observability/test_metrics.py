"""Metrics: names, closed labels, and the arithmetic of the setters."""

from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.observability.metrics import FAILURE_COUNTS_S, Metrics
from controller.observability.release import release

AT = datetime(2030, 1, 1, tzinfo=UTC)
MONOTONIC = [1000.0]
FAILURES = "lbdrain_azure_consecutive_failures"
POLL, GET, PUT, READ, RENEW = (
    f"{FAILURES}{{operation={operation},service={service}}}"
    for service, operation in (
        ("imds", "poll"),
        ("network", "nic_get"),
        ("network", "nic_put"),
        ("blob", "read"),
        ("blob", "renew"),
    )
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(
        pools=["web/app"],
        hold_reasons=["capacity_floor", "busy"],
        operations={
            "imds": ["poll"],
            "network": ["nic_get", "nic_put"],
            "blob": ["read", "renew"],
        },
        outcomes=["busy", "not_sent"],
        answers=lambda _, outcome: outcome in {"ok", "busy"},
        monotonic=lambda: MONOTONIC[0],
    )


def samples(metrics: Metrics) -> dict[str, float]:
    """Read the exposition text the way a scraper does: "name{label=value,…}" to value."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def test_the_version_and_the_set_are_exposed(metrics: Metrics) -> None:
    """Alerts name the set and its resource group; the last name counts."""
    assert samples(metrics)[f"lbdrain_build_info{{version={release()}}}"] == 1
    assert not [name for name in samples(metrics) if name.startswith("lbdrain_set_info")]
    metrics.identify("old", "rg")
    metrics.identify("web", "web-rg")
    found = {k: v for k, v in samples(metrics).items() if k.startswith("lbdrain_set_info")}
    assert found == {"lbdrain_set_info{resource_group=web-rg,set=web}": 1}


def test_every_documented_metric_is_exposed(metrics: Metrics) -> None:
    """The exposition has the documented metrics and no others."""
    families = {each.name for each in text_string_to_metric_families(metrics.render().decode())}
    assert families == {
        "lbdrain_build_info",
        "lbdrain_set_info",
        "lbdrain_drain_lead_seconds",
        "lbdrain_drains",
        "lbdrain_events",
        "lbdrain_leader",
        "lbdrain_leader_changes",
        "lbdrain_lease_valid_until_timestamp_seconds",
        "lbdrain_members_in_rotation",
        "lbdrain_members_expected",
        "lbdrain_last_successful_poll_timestamp_seconds",
        "lbdrain_ledger_entries",
        "lbdrain_azure_requests",
        "lbdrain_azure_request_duration_seconds",
        "lbdrain_holds",
        "lbdrain_reconciles",
        "lbdrain_write_concurrency_limit",
        "lbdrain_azure_consecutive_failures",
        "lbdrain_clock_correction_seconds",
        "lbdrain_leader_seen_timestamp_seconds",
        "lbdrain_lease_duration_seconds",
        "lbdrain_next_not_before_timestamp_seconds",
        "lbdrain_oldest_drain_start_timestamp_seconds",
        "lbdrain_vms_at_risk",
        "lbdrain_paused",
        "lbdrain_vms_closed",
        "lbdrain_connections_left",
        "lbdrain_connections_cut",
        "lbdrain_notifications",
    }


def test_help_lists_the_labels(metrics: Metrics) -> None:
    """The help text of a labelled metric lists its label values."""
    helps = {
        each.name: each.documentation
        for each in text_string_to_metric_families(metrics.render().decode())
    }
    types = "type: Freeze, Reboot, Redeploy, Preempt, Terminate, Request, Test, other."
    assert types in helps["lbdrain_drains"]
    assert "outcome: in_time, late, unannounced, requested." in helps["lbdrain_drains"]
    assert "reason: capacity_floor, busy, other." in helps["lbdrain_holds"]
    requests = helps["lbdrain_azure_requests"]
    assert "imds: poll; network: nic_get, nic_put; blob: read, renew" in requests
    assert "outcome: busy, not_sent, ok; or other." in helps["lbdrain_azure_requests"]
    assert "pool: " in helps["lbdrain_members_expected"]


def test_drains_and_lead_time(metrics: Metrics) -> None:
    """A drain is counted by type and outcome, and a late one has lead time 0."""
    metrics.vm_drained("Freeze", "in_time", 250.0)
    metrics.vm_drained("Freeze", "late", -20.0)
    metrics.vm_drained("Meteor", "unannounced")
    found = samples(metrics)
    assert found["lbdrain_drains_total{outcome=in_time,type=Freeze}"] == 1
    assert found["lbdrain_drains_total{outcome=unannounced,type=other}"] == 1
    assert found["lbdrain_drain_lead_seconds_count"] == 2
    assert found["lbdrain_drain_lead_seconds_sum"] == 250
    assert found["lbdrain_drain_lead_seconds_bucket{le=0.0}"] == 1
    assert found["lbdrain_drain_lead_seconds_bucket{le=240.0}"] == 1
    assert found["lbdrain_drain_lead_seconds_bucket{le=300.0}"] == 2


def test_leadership(metrics: Metrics) -> None:
    """Leading shows until when, renewing is no change, and ceasing clears the validity."""
    metrics.set_leader(False)
    metrics.set_leader(True, AT)
    metrics.set_leader(True, AT)
    found = samples(metrics)
    assert found["lbdrain_leader"] == 1
    assert found["lbdrain_lease_valid_until_timestamp_seconds"] == AT.timestamp()
    assert found["lbdrain_leader_changes_total"] == 1
    metrics.set_leader(False, AT)
    found = samples(metrics)
    assert found["lbdrain_leader"] == 0
    assert found["lbdrain_lease_valid_until_timestamp_seconds"] == 0
    assert found["lbdrain_leader_changes_total"] == 2


def test_holds_are_replaced(metrics: Metrics) -> None:
    """Holds show the present only: a reason left out is 0, unknown reasons add up as other."""
    metrics.set_holds({"capacity_floor": 2, "x": 1, "y": 1})
    found = samples(metrics)
    assert found["lbdrain_holds{reason=capacity_floor}"] == 2
    assert found["lbdrain_holds{reason=busy}"] == 0
    assert found["lbdrain_holds{reason=other}"] == 2
    metrics.set_holds({"busy": 1})
    found = samples(metrics)
    assert found["lbdrain_holds{reason=capacity_floor}"] == 0
    assert found["lbdrain_holds{reason=busy}"] == 1
    assert found["lbdrain_holds{reason=other}"] == 0


def test_members_of_configured_pools_only(metrics: Metrics) -> None:
    """Only configured pools make series."""
    metrics.set_members("web/app", in_rotation=3, expected=4)
    metrics.set_members("web/other", in_rotation=1, expected=1)
    found = samples(metrics)
    assert found["lbdrain_members_in_rotation{pool=web/app}"] == 3
    assert found["lbdrain_members_expected{pool=web/app}"] == 4
    assert not any("web/other" in name for name in found)


def test_plain_gauges_and_reconciles(metrics: Metrics) -> None:
    """The remaining setters show what they were given."""
    metrics.set(last_successful_poll_timestamp_seconds=AT)
    metrics.set(ledger_entries=5, oldest_drain_start_timestamp_seconds=AT)
    metrics.set(write_concurrency_limit=32)
    metrics.set(leader_seen_timestamp_seconds=AT)
    metrics.set(lease_duration_seconds=30)
    metrics.set(clock_correction_seconds=-3.5)
    metrics.set(vms_at_risk=2, next_not_before_timestamp_seconds=AT)
    metrics.reconciled("changed")
    found = samples(metrics)
    assert found["lbdrain_last_successful_poll_timestamp_seconds"] == AT.timestamp()
    assert found["lbdrain_ledger_entries"] == 5
    assert found["lbdrain_write_concurrency_limit"] == 32
    assert found["lbdrain_oldest_drain_start_timestamp_seconds"] == AT.timestamp()
    assert found["lbdrain_leader_seen_timestamp_seconds"] == AT.timestamp()
    assert found["lbdrain_lease_duration_seconds"] == 30
    assert found["lbdrain_clock_correction_seconds"] == -3.5
    assert found["lbdrain_vms_at_risk"] == 2
    assert found["lbdrain_next_not_before_timestamp_seconds"] == AT.timestamp()
    assert found["lbdrain_reconciles_total{result=changed}"] == 1


def test_requests(metrics: Metrics) -> None:
    """A request is counted by how it ended, and an unknown operation as other."""
    metrics.request_ended("network", "nic_put", "ok", 0.3)
    metrics.request_ended("network", "nic_put", "busy", 0.3)
    metrics.request_ended("imds", "vm web-1", "not a known outcome", 1)
    found = samples(metrics)
    name = "lbdrain_azure_requests_total"
    assert found[f"{name}{{operation=nic_put,outcome=ok,service=network}}"] == 1
    assert found[f"{name}{{operation=nic_put,outcome=busy,service=network}}"] == 1
    assert found[f"{name}{{operation=other,outcome=other,service=imds}}"] == 1
    duration = "lbdrain_azure_request_duration_seconds_sum{operation=nic_put,service=network}"
    assert found[duration] == pytest.approx(0.6)
    other, put = metrics.requests()
    assert (other.service, other.operation, other.outcomes) == ("imds", "other", {"other": 1})
    assert (put.service, put.operation) == ("network", "nic_put")
    assert put.outcomes == {"ok": 1, "busy": 1}
    assert put.seconds == pytest.approx(0.6)
    metrics.request_ended("blob", "renew", "not_sent", 1)
    failures = metrics.consecutive_failures()
    assert (failures["blob", "renew"], failures["network", "nic_put"]) == (1, 0)


def test_consecutive_failures(metrics: Metrics) -> None:
    """Failures of an operation add up until it is answered, if only with a refusal."""
    assert samples(metrics)[POLL] == 0
    for outcome in ("not_sent", "cancelled", "bug"):
        metrics.request_ended("imds", "poll", outcome, 1)
        metrics.request_ended("blob", "renew", "ok", 1)
    assert (samples(metrics)[POLL], samples(metrics)[RENEW]) == (2, 0)
    metrics.request_ended("imds", "poll", "busy", 1)
    assert samples(metrics)[POLL] == 0


def test_a_good_read_does_not_hide_that_writes_fail(metrics: Metrics) -> None:
    """Each operation has a count of its own; only its own answer ends it."""
    for _ in range(4):
        metrics.request_ended("network", "nic_put", "denied", 1)
        metrics.request_ended("network", "nic_get", "ok", 1)
    assert (samples(metrics)[PUT], samples(metrics)[GET]) == (4, 0)
    metrics.request_ended("network", "nic_put", "ok", 1)
    assert samples(metrics)[PUT] == 0


def test_writes_that_are_not_wanted_any_more_do_not_fail(metrics: Metrics) -> None:
    """Nothing calls them again, so that no success would ever end their count."""
    for operation in ("nic_put", "nic_get"):
        metrics.request_ended("network", operation, "not_sent", 1)
    metrics.no_writes()
    assert (samples(metrics)[PUT], samples(metrics)[GET]) == (0, 1)


def test_a_failure_of_long_ago_does_not_count(metrics: Metrics) -> None:
    """An operation that nothing has called for half an hour is not one that fails."""
    metrics.request_ended("network", "nic_get", "not_sent", 1)
    MONOTONIC[0] += FAILURE_COUNTS_S - 1
    assert samples(metrics)[GET] == 1
    MONOTONIC[0] += 1
    assert samples(metrics)[GET] == 0


def test_a_standby_shows_nothing_of_its_time_as_leader(metrics: Metrics) -> None:
    """What only a leader in office knows does not outlive the office; the rest stays."""
    metrics.set_holds({"busy": 1})
    metrics.set_members("web/app", in_rotation=3, expected=4)
    metrics.set(vms_at_risk=2, next_not_before_timestamp_seconds=AT)
    metrics.set(ledger_entries=5, oldest_drain_start_timestamp_seconds=AT)
    for service, operation in (
        ("imds", "poll"),
        ("network", "nic_get"),
        ("blob", "read"),
        ("blob", "renew"),
    ):
        metrics.request_ended(service, operation, "not_sent", 1)
    metrics.set(last_successful_poll_timestamp_seconds=AT)
    metrics.stand_by()
    found = samples(metrics)
    assert not any("_members_" in name for name in found)
    zeros: tuple[str, ...] = (
        "holds{reason=busy}",
        "vms_at_risk",
        "next_not_before_timestamp_seconds",
    )
    zeros += ("ledger_entries", "oldest_drain_start_timestamp_seconds")
    assert [found[f"lbdrain_{name}"] for name in zeros] == [0] * len(zeros)
    assert [found[name] for name in (GET, RENEW, POLL, READ)] == [0, 0, 1, 1]
    assert found["lbdrain_last_successful_poll_timestamp_seconds"] == AT.timestamp()


def test_drains_are_counted_from_nothing(metrics: Metrics) -> None:
    """Every kind of drain is exposed before the first one, which shows as an increase."""
    drains = {name: n for name, n in samples(metrics).items() if name.startswith("lbdrain_drains_")}
    assert len([name for name in drains if "_total" in name]) == 32
    assert drains["lbdrain_drains_total{outcome=late,type=Reboot}"] == 0


def test_agents_do_not_share_a_registry(metrics: Metrics) -> None:
    """Two agents in one process count apart."""
    other = Metrics(
        pools=[],
        hold_reasons=[],
        operations={},
        outcomes=[],
        answers=lambda *_: True,
        monotonic=lambda: 0.0,
    )
    metrics.set(ledger_entries=5)
    assert samples(other)["lbdrain_ledger_entries"] == 0
