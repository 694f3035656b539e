"""The metrics of a fleet for Prometheus: one series for each set.

The labels are names of the operator's resources, not of VMs or events, so the number of series
grows with the sets alone. A set that is listed no longer has no series.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.core.blob_limits import cut
from controller.core.fleet import SetSummary
from controller.fleet.reader import Fleet
from controller.observability.metrics import expose_release

SET_LABELS = ("set", "resource_group", "subscription")
LABEL_CHARACTERS = 200
"""Of a label; the names of Azure's resources are shorter."""

_SET_GAUGES = {
    "attention": "How urgent the set is. 0: nothing to do; 1: maintenance as planned; "
    "2: act today; 3: act now.",
    "readable": "1 if the ledger of the set can be read, else 0.",
    "leader": "1 if an agent holds the lease of the set, else 0.",
    "vms_out": "VMs recorded as drained and not yet back in service.",
    "vms_at_risk": "VMs that may be in rotation shortly before NotBefore or later.",
    "holds": "Held actions.",
    "next_not_before_timestamp_seconds": "NotBefore of the next announced event; 0 without one.",
    "last_missed_timestamp_seconds": "When an event was late or hit a VM in rotation last; 0 if "
    "never.",
    "last_written_timestamp_seconds": "When any blob of the set was written last.",
}


class FleetMetrics:
    """Exposes the newest reading."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._families = _Families()
        self._registry.register(self._families)
        expose_release(self._registry)

    def show(self, fleet: Fleet) -> None:
        """Expose this reading from now on."""
        self._families.fleet = fleet

    def render(self) -> bytes:
        """Return the exposition text, in `CONTENT_TYPE`."""
        return generate_latest(self._registry)


class _Families(Collector):
    def __init__(self) -> None:
        self.fleet: Fleet | None = None

    def collect(self) -> Iterable[Metric]:
        fleet = self.fleet
        return () if fleet is None else (*_reading(fleet), *_sets(fleet.sets))


def _reading(fleet: Fleet) -> Iterator[Metric]:
    listed = GaugeMetricFamily(
        "lbdrain_fleet_container_listed",
        "1 if the container could be listed at the last reading, else 0.",
        labels=("container",),
    )
    for each in fleet.containers:
        listed.add_metric((each.url,), float(not each.problem))
    yield listed
    yield GaugeMetricFamily(
        "lbdrain_fleet_last_read_timestamp_seconds",
        "When the containers were read last.",
        value=fleet.at.timestamp(),
    )
    yield GaugeMetricFamily(
        "lbdrain_fleet_read_duration_seconds",
        "How long the last reading took.",
        value=fleet.took_s,
    )


def _sets(rows: Iterable[SetSummary]) -> Iterator[Metric]:
    """Yield the series of the sets; of several rows with the same labels, the most urgent one."""
    distinct: dict[tuple[str, ...], SetSummary] = {}
    for row in rows:
        distinct.setdefault(_labels(row), row)
    families = {
        name: GaugeMetricFamily(f"lbdrain_fleet_set_{name}", text, labels=SET_LABELS)
        for name, text in _SET_GAUGES.items()
    }
    agents = GaugeMetricFamily(
        "lbdrain_fleet_set_agents",
        "Agents of the set by their presence. state: running, silent.",
        labels=(*SET_LABELS, "state"),
    )
    for labels, row in distinct.items():
        for name, value in _values(row).items():
            families[name].add_metric(labels, value)
        agents.add_metric((*labels, "running"), len(row.agents_seen))
        agents.add_metric((*labels, "silent"), len(row.agents_silent))
    yield from families.values()
    yield agents


def _labels(row: SetSummary) -> tuple[str, ...]:
    name = row.name
    parts = (name.name, name.resource_group, name.subscription)
    return tuple(cut(each, LABEL_CHARACTERS) for each in parts)


def _values(row: SetSummary) -> dict[str, float]:
    event, missed = row.next_event, row.last_missed
    return {
        "attention": float(row.attention),
        "readable": float(row.readable),
        "leader": float(bool(row.leader)),
        "vms_out": len(row.drained),
        "vms_at_risk": len(row.at_risk),
        "holds": len(row.ledger.holds),
        "next_not_before_timestamp_seconds": _seconds(event.not_before if event else None),
        "last_missed_timestamp_seconds": _seconds(missed.at if missed else None),
        "last_written_timestamp_seconds": _seconds(row.written_at),
    }


def _seconds(at: datetime | None) -> float:
    return 0.0 if at is None else at.timestamp()
