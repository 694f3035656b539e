"""Prometheus metrics of one agent, in a registry of their own.

Every metric is declared in one place: a gauge without labels in `Gauges`, all others in
`Metrics.__init__`. Label values are closed enumerations or names of the set and its pools, never a
VM name or an event id, so the number of series does not grow with what happens. A value outside its
enumeration counts as "other". The help text of a metric lists its label values.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import product
from typing import Annotated, Literal, TypedDict, TypeVar, Unpack, get_args, get_type_hints

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from controller.core.drain_requests import DRAIN_REQUEST
from controller.core.event_record import Verdict
from controller.core.events import EVENT_TYPES
from controller.core.rehearsals import TEST
from controller.observability.release import release

# One more series for each counter, which no query needs.
disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
OTHER = "other"

DrainOutcome = Literal["in_time", "late", "unannounced", "requested"]
"""Out of rotation before NotBefore; after it; for an event that had none; for a drain request."""
ReconcileResult = Literal["unchanged", "changed"]
"""Whether a pass changed the ledger."""
NotifyOutcome = Literal["delivered", "failed", "dropped"]

DRAIN_TYPES = (*EVENT_TYPES, DRAIN_REQUEST, TEST, OTHER)
VERDICTS = tuple(each.value for each in Verdict)
JUDGED_TYPES = (*EVENT_TYPES, TEST, OTHER)
EVENT_LABELS = {"type": JUDGED_TYPES, "verdict": VERDICTS}
DRAIN_OUTCOMES: tuple[DrainOutcome, ...] = get_args(DrainOutcome)
RECONCILE_RESULTS: tuple[ReconcileResult, ...] = get_args(ReconcileResult)
NOTIFY_OUTCOMES: tuple[NotifyOutcome, ...] = get_args(NotifyOutcome)
STANDBY_SERVICES = frozenset({"imds", "blob"})
"""The services that every agent calls; only the leader calls the others."""
CHANGING_OPERATIONS = frozenset(
    {"acknowledge", "nic_put", "nic_put_wait", "pool_put", "pool_put_wait", "vm_maintain"}
)
"""Operations that change something, and are only called as long as that is wanted."""
LEADER_OPERATIONS = frozenset({"acknowledge", "renew", "write"})
"""Operations that only a leader calls, of the services that every agent calls."""
FAILURE_COUNTS_S = 1800.0
"""An operation that failed so long ago, and was not called since, does not count as failing. The
longest wait that Azure was seen to ask for is 1200 s."""
LEAD_BUCKETS = (0, 10, 30, 60, 120, 180, 240, 300, 420, 600, 720, 780, 840, 870, 900)
DURATION_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 130)

CHANGES = "Times this agent became the leader or ceased to be."
CUT = "Connections that closed VMs still had when they were removed or their event started."
POOL = "pool: load balancer/pool, as configured."

M = TypeVar("M", Counter, Gauge)
Timestamp = datetime | None
"""Exposed in Unix seconds; None as 0."""


class Gauges(TypedDict, total=False):
    """The gauges without labels, each with its help text: `leader` is exposed as lbdrain_leader."""

    leader: Annotated[bool, "1 while this agent is the leader, else 0."]
    lease_valid_until_timestamp_seconds: Annotated[
        Timestamp, "Until when this agent may write, by its own clock; 0 if it is not the leader."
    ]
    leader_seen_timestamp_seconds: Annotated[
        Timestamp,
        "When this agent last saw a leader: another agent held the lease, or it was the leader "
        "itself. The start of the agent if it has seen none.",
    ]
    lease_duration_seconds: Annotated[float, "Configured lease duration; 0 in a dry run."]
    last_successful_poll_timestamp_seconds: Annotated[
        Timestamp, "When this agent last read scheduled events; 0 if never."
    ]
    clock_correction_seconds: Annotated[
        float, "Correction that the agent adds to the clock of its VM; 0 within 2 s of Azure's."
    ]
    ledger_entries: Annotated[int, "VMs recorded as drained and not yet back in service."]
    oldest_drain_start_timestamp_seconds: Annotated[
        Timestamp,
        "When the drain began of the VM that has been drained longest; 0 if no VM is drained. "
        "Deleted VMs do not count.",
    ]
    vms_at_risk: Annotated[
        int, "VMs in rotation whose NotBefore is near or whose event has started."
    ]
    next_not_before_timestamp_seconds: Annotated[
        Timestamp, "Earliest NotBefore of the VMs that have yet to be drained; 0 if there are none."
    ]
    paused: Annotated[bool, "1 while this agent is the leader and removals are paused, else 0."]
    vms_closed: Annotated[int, "Recorded VMs that report that they take no new work."]
    connections_left: Annotated[int, "Connections that are left on the closed VMs."]
    write_concurrency_limit: Annotated[
        int, "Number of concurrent writes allowed; falls after conflicts."
    ]


_HELP = {
    name: str(hint.__metadata__[0])
    for name, hint in get_type_hints(Gauges, include_extras=True).items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureRequestCounts:
    """Requests of one kind since the agent started."""

    service: str
    operation: str
    outcomes: Mapping[str, int]
    """Number of requests per outcome."""
    seconds: float
    """Total duration of the requests."""


def expose_release(registry: CollectorRegistry) -> None:
    """Expose the version of this package as `lbdrain_build_info`."""
    info = Gauge(
        "lbdrain_build_info", "Always 1. version: of lb-drain.", ("version",), registry=registry
    )
    info.labels(release()).set(1)


class Metrics:
    """Every metric, written through methods that keep the labels closed.

    `pools` are the short names of the configured pools, `hold_reasons` the planner's reasons,
    `operations` the operations of each Azure service, and `outcomes` the outcomes a request can
    have besides `ok`. `answers` returns whether a service with this outcome works. `channels` are
    the kinds of the configured notification channels, `monotonic` a clock in seconds.
    """

    def __init__(
        self,
        *,
        pools: Iterable[str],
        hold_reasons: Iterable[str],
        operations: Mapping[str, Iterable[str]],
        outcomes: Iterable[str],
        answers: Callable[[str, str], bool],
        monotonic: Callable[[], float],
        channels: Iterable[str] = (),
    ) -> None:
        self._registry = registry = CollectorRegistry()
        self._pools, self._answers = frozenset(pools), answers
        self._operations = {service: frozenset(names) for service, names in operations.items()}
        self._hold_reasons = tuple(dict.fromkeys((*hold_reasons, OTHER)))
        self._outcomes = frozenset(("ok", *outcomes))
        self._calls = [(key, each) for key, names in self._operations.items() for each in names]
        self._failed_at: dict[tuple[str, str], float] = {}
        self._monotonic, self._leading = monotonic, False
        self._gauges = {
            name: Gauge(f"lbdrain_{name}", text, registry=registry) for name, text in _HELP.items()
        }
        self._set_info = _set_info(registry)
        counter, gauge = partial(_labelled, registry, Counter), partial(_labelled, registry, Gauge)
        results, types = {"result": RECONCILE_RESULTS}, {"type": DRAIN_TYPES}
        self._leader_changes = Counter("lbdrain_leader_changes", CHANGES, registry=registry)
        self._cut = Counter("lbdrain_connections_cut", CUT, registry=registry)
        self._reconciles = counter("reconciles", "Completed reconcile passes.", results)
        self._drains = counter("drains", "Drained VMs.", types | {"outcome": DRAIN_OUTCOMES})
        self._events = counter("events", "Scheduled events, once for each VM.", EVENT_LABELS)
        self._drain_lead = Histogram(
            "lbdrain_drain_lead_seconds",
            "NotBefore minus the time the VM was observed out of every pool; 0 if it was late.",
            buckets=LEAD_BUCKETS,
            registry=registry,
        )
        self._holds = gauge("holds", "VMs that are held now.", {"reason": self._hold_reasons})
        by_pool = partial(Gauge, labelnames=("pool",), registry=registry)
        self._in_rotation = by_pool("lbdrain_members_in_rotation", f"Members of the pool. {POOL}")
        self._expected = by_pool(
            "lbdrain_members_expected", f"Members of the pool when no VM is drained. {POOL}"
        )
        self._failures = Gauge(
            "lbdrain_azure_consecutive_failures",
            "Requests that failed since this operation was last answered; 0 after half an hour "
            f"without one. {_listed(self._operations)}",
            ("service", "operation"),
            registry=registry,
        )
        for service, operation in self._calls:
            self._failures.labels(service, operation)
        self._requests, self._request_duration = self._request_metrics()
        self._notifications = counter(
            "notifications",
            "Notifications. failed: after every attempt; dropped: the queue was full.",
            {"channel": tuple(dict.fromkeys(channels)), "outcome": NOTIFY_OUTCOMES},
        )

    def _request_metrics(self) -> tuple[Counter, Histogram]:
        calls = _listed(self._operations)
        outcomes = f"outcome: {', '.join(sorted(self._outcomes))}; or {OTHER}."
        labels = ("service", "operation")
        requests = Counter(
            "lbdrain_azure_requests",
            f"Requests to Azure. {calls} {outcomes}",
            (*labels, "outcome"),
            registry=self._registry,
        )
        duration = Histogram(
            "lbdrain_azure_request_duration_seconds",
            f"Duration of requests to Azure. {calls}",
            labels,
            buckets=DURATION_BUCKETS,
            registry=self._registry,
        )
        return requests, duration

    def identify(self, name: str, resource_group: str) -> None:
        """Expose the availability set of this agent."""
        self._set_info.clear()
        self._set_info.labels(name, resource_group).set(1)

    def set(self, **values: Unpack[Gauges]) -> None:
        """Set gauges without labels."""
        for name, value in values.items():
            if isinstance(value, datetime):
                self._gauges[name].set(value.timestamp())
            else:
                self._gauges[name].set(float(value) if isinstance(value, int | float) else 0)

    def set_leader(self, leading: bool, valid_until: datetime | None = None) -> None:
        """Set whether this agent is the leader and until when its lease is valid."""
        if leading is not self._leading:
            self._leader_changes.inc()
        self._leading = leading
        valid = valid_until if leading else None
        self.set(leader=leading, lease_valid_until_timestamp_seconds=valid)

    def set_holds(self, vms_by_reason: Mapping[str, int]) -> None:
        """Set the number of held VMs per reason; a reason that is left out is 0."""
        counts = dict.fromkeys(self._hold_reasons, 0)
        for reason, vms in vms_by_reason.items():
            counts[reason if reason in counts else OTHER] += vms
        for reason, vms in counts.items():
            self._holds.labels(reason).set(vms)

    def set_members(self, pool: str, *, in_rotation: int, expected: int) -> None:
        """Set the members of a configured pool; other pools are ignored."""
        if pool in self._pools:
            self._in_rotation.labels(pool).set(in_rotation)
            self._expected.labels(pool).set(expected)

    def forget_members(self) -> None:
        """Expose no members until they are set again: a pool may have been deleted."""
        self._in_rotation.clear()
        self._expected.clear()

    def stand_by(self) -> None:
        """Clear what only a leader knows, so that a standby does not expose outdated values.

        That includes the failures of the services that a standby does not call.
        """
        self.set_holds({})
        self.set(vms_at_risk=0, next_not_before_timestamp_seconds=None)
        self.set(ledger_entries=0, oldest_drain_start_timestamp_seconds=None)
        self.set(vms_closed=0, connections_left=0, paused=False)
        self.forget_members()
        for service, operation in self._calls:
            if service not in STANDBY_SERVICES or operation in LEADER_OPERATIONS:
                self._failures.labels(service, operation).set(0)

    def no_writes(self) -> None:
        """Clear the failures of writes: none is wanted any more, so none will succeed either."""
        for service, operation in self._calls:
            if operation in CHANGING_OPERATIONS:
                self._failures.labels(service, operation).set(0)

    def reconciled(self, result: ReconcileResult) -> None:
        """Count a completed pass."""
        self._reconciles.labels(result).inc()

    def vm_drained(
        self, event_type: str, outcome: DrainOutcome, lead_s: float | None = None
    ) -> None:
        """Count a drained VM; `lead_s` is its lead time in seconds, None without a NotBefore."""
        self._drains.labels(event_type if event_type in DRAIN_TYPES else OTHER, outcome).inc()
        if lead_s is not None:
            self._drain_lead.observe(max(lead_s, 0.0))  # a negative one would spoil the sum

    def connections_cut(self, number: int) -> None:
        """Count connections that were cut."""
        self._cut.inc(number)

    def event_judged(self, event_type: str, verdict: str) -> None:
        """Count the verdict of one event for one VM."""
        if verdict in VERDICTS:
            self._events.labels(event_type if event_type in JUDGED_TYPES else OTHER, verdict).inc()

    def notification_ended(self, channel: str, outcome: NotifyOutcome) -> None:
        """Count a notification by the kind of its channel and its outcome."""
        self._notifications.labels(channel, outcome).inc()

    def request_ended(self, service: str, operation: str, outcome: str, duration_s: float) -> None:
        """Count a request to Azure by its outcome."""
        if operation not in self._operations.get(service, ()):
            operation = OTHER
        elif self._answers(service, outcome):
            self._failures.labels(service, operation).set(0)
        elif outcome != "cancelled":
            self._failures.labels(service, operation).inc()
            self._failed_at[service, operation] = self._monotonic()
        if outcome not in self._outcomes:
            outcome = OTHER
        self._requests.labels(service, operation, outcome).inc()
        self._request_duration.labels(service, operation).observe(duration_s)

    def requests(self) -> tuple[AzureRequestCounts, ...]:
        """Return the requests to Azure since the agent started."""
        outcomes: dict[tuple[str, str], dict[str, int]] = {}
        for labels, value in _samples(self._requests, "_total"):
            ended = outcomes.setdefault((labels["service"], labels["operation"]), {})
            ended[labels["outcome"]] = int(value)
        seconds = {
            (labels["service"], labels["operation"]): value
            for labels, value in _samples(self._request_duration, "_sum")
        }
        return tuple(
            AzureRequestCounts(
                service=key[0], operation=key[1], outcomes=ended, seconds=seconds[key]
            )
            for key, ended in sorted(outcomes.items())
        )

    def consecutive_failures(self) -> dict[tuple[str, str], int]:
        """Return by service and operation how many requests failed since the last answer."""
        now = self._monotonic()
        for (service, operation), failed_at in self._failed_at.items():
            if now - failed_at >= FAILURE_COUNTS_S:
                self._failures.labels(service, operation).set(0)
        return {
            (labels["service"], labels["operation"]): int(value)
            for labels, value in _samples(self._failures, "")
        }

    def render(self) -> bytes:
        """Return the exposition text, in `CONTENT_TYPE`."""
        self.consecutive_failures()
        return generate_latest(self._registry)


def _set_info(registry: CollectorRegistry) -> Gauge:
    """Expose what does not change: the version, and later the set."""
    expose_release(registry)
    text = "Always 1. set and resource_group: of the set of this agent."
    return Gauge("lbdrain_set_info", text, ("set", "resource_group"), registry=registry)


def _listed(operations: Mapping[str, Iterable[str]]) -> str:
    listed = "; ".join(f"{key}: {', '.join(sorted(names))}" for key, names in operations.items())
    return f"service and operation: {listed}; or {OTHER}."


def _labelled(
    registry: CollectorRegistry,
    kind: type[M],
    name: str,
    text: str,
    labels: Mapping[str, tuple[str, ...]],
) -> M:
    """Return a metric that exposes every series at once, so that each increase is visible."""
    listed = (f" {label}: {', '.join(values)}." for label, values in labels.items() if values)
    metric = kind(f"lbdrain_{name}", text + "".join(listed), tuple(labels), registry=registry)
    for values in product(*labels.values()):
        metric.labels(*values)
    return metric


def _samples(
    metric: Counter | Gauge | Histogram, suffix: str
) -> Iterable[tuple[Mapping[str, str], float]]:
    for family in metric.collect():
        for sample in family.samples:
            if sample.name == f"{family.name}{suffix}":
                yield sample.labels, sample.value
