"""Prometheus metrics of one agent, on a registry of their own.

Label values are closed enumerations or names of configured pools, never a VM name or an event id:
the number of series must not grow with what happens. A value outside its enumeration counts as
"other".
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from controller.core.model import REQUEST

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
OTHER = "other"

DrainOutcome = Literal["in_time", "late", "unannounced"]
"""Out before NotBefore; out after it; the event came already started; over before we were out."""
PassOutcome = Literal["unchanged", "changed"]
NotifyOutcome = Literal["delivered", "failed", "dropped"]

EVENT_TYPES = ("Freeze", "Reboot", "Redeploy", "Preempt", "Terminate", REQUEST, OTHER)
DRAIN_OUTCOMES: tuple[DrainOutcome, ...] = ("in_time", "late", "unannounced")
PASS_OUTCOMES: tuple[PassOutcome, ...] = ("unchanged", "changed")
NOTIFY_OUTCOMES: tuple[NotifyOutcome, ...] = ("delivered", "failed", "dropped")
STANDBY_SERVICES = frozenset({"imds", "blob"})
"""What every agent asks all the time; the rest is for the leader."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """How requests of one kind ended since this agent was started."""

    service: str
    operation: str
    outcomes: Mapping[str, int]
    seconds: float
    """All of them together."""


def _list(values: Iterable[str]) -> str:
    return ", ".join(values)


def _timestamp(instant: datetime | None) -> float:
    return 0 if instant is None else instant.timestamp()


class Metrics:
    """Every metric, written through methods that keep the labels closed.

    `pools` are the short names of the configured pools, `hold_reasons` the planner's reasons,
    `operations` the names of the requests the adapters make, per service, and `outcomes` the ways
    in which one can end besides `ok`; `answers` tells for a service and an outcome whether the
    service has shown that it works. `channels` are the kinds of channels that are told things.
    """

    def __init__(
        self,
        *,
        pools: Iterable[str],
        hold_reasons: Iterable[str],
        operations: Mapping[str, Iterable[str]],
        outcomes: Iterable[str],
        answers: Callable[[str, str], bool],
        channels: Iterable[str] = (),
    ) -> None:
        self._registry = CollectorRegistry()
        self._pools = frozenset(pools)
        self._hold_reasons = tuple(dict.fromkeys((*hold_reasons, OTHER)))
        self._operations = {service: frozenset(names) for service, names in operations.items()}
        self._outcomes = frozenset(("ok", *outcomes))
        self._answers = answers
        self._leading = False
        self._make_work_metrics()
        self._make_state_metrics()
        self._make_azure_metrics()
        self._make_notify_metrics(tuple(channels))

    def _make_work_metrics(self) -> None:
        self._drain_lead = Histogram(
            "lbdrain_drain_lead_seconds",
            "NotBefore minus the moment the VM was observed out of every pool; 0 when it was late.",
            buckets=(0, 10, 30, 60, 120, 180, 240, 300, 420, 600, 720, 780, 840, 870, 900),
            registry=self._registry,
        )
        self._drains = Counter(
            "lbdrain_drains",
            f"VMs drained. type: {_list(EVENT_TYPES)}. outcome: {_list(DRAIN_OUTCOMES)}.",
            ("type", "outcome"),
            registry=self._registry,
        )
        for event_type in EVENT_TYPES:
            for drained in DRAIN_OUTCOMES:
                # From the first scrape on: an increase from nothing to 1 would not be seen as one.
                self._drains.labels(event_type, drained)
        self._passes = Counter(
            "lbdrain_passes",
            f"Passes of the reconcile loop. outcome: {_list(PASS_OUTCOMES)}.",
            ("outcome",),
            registry=self._registry,
        )
        for outcome in PASS_OUTCOMES:
            self._passes.labels(outcome)
        self._holds = Gauge(
            "lbdrain_holds",
            f"VMs deliberately not acted on now. reason: {_list(self._hold_reasons)}.",
            ("reason",),
            registry=self._registry,
        )
        self.set_holds({})
        self._at_risk = Gauge(
            "lbdrain_vms_at_risk",
            "VMs in rotation whose NotBefore is near or whose event has started.",
            registry=self._registry,
        )
        self._next_not_before = Gauge(
            "lbdrain_next_not_before_timestamp_seconds",
            "Earliest NotBefore of the VMs that are due and not out yet; 0 if there are none.",
            registry=self._registry,
        )

    def _make_state_metrics(self) -> None:
        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"lbdrain_{name}", text, labels, registry=self._registry)

        self._leader = gauge("leader", "1 while this agent leads, else 0.")
        self._leader_changes = Counter(
            "lbdrain_leader_changes",
            "Times this agent began or ceased to lead.",
            registry=self._registry,
        )
        self._lease_valid_until = gauge(
            "lease_valid_until_timestamp_seconds",
            "Until when this agent may write, by its own count; 0 while it does not lead.",
        )
        self._leader_seen = gauge(
            "leader_seen_timestamp_seconds",
            "When a leader was last known to this agent: the lease was taken, or its own; "
            "before that, when the agent was started.",
        )
        self._lease_duration = gauge(
            "lease_duration_seconds", "As configured; 0 in a dry run, which elects nobody."
        )
        pools = "pool: load balancer/pool, as configured."
        self._in_rotation = gauge(
            "members_in_rotation", f"Members in the pool that take traffic. {pools}", ("pool",)
        )
        self._expected = gauge(
            "members_expected", f"Members of the pool when nothing is drained. {pools}", ("pool",)
        )
        self._last_poll = gauge(
            "last_successful_poll_timestamp_seconds",
            "When scheduled events were last read successfully; 0 if never.",
        )
        self._ledger_entries = gauge(
            "ledger_entries", "VMs that are recorded as taken out and not yet back in service."
        )
        self._oldest_entry = gauge(
            "oldest_entry_timestamp_seconds",
            "When the VM that has been out for longest was recorded; 0 if none is out. "
            "Deleted VMs do not count.",
        )
        self._clock_correction = gauge(
            "clock_correction_seconds",
            "What this agent adds to its clock to follow Azure's; 0 while they agree within 2 s.",
        )
        self._writes_limit = gauge(
            "writes_parallel_limit", "Writes allowed at once; falls after conflicts."
        )

    def _make_azure_metrics(self) -> None:
        names = "; ".join(
            f"{service}: {_list(sorted(known))}" for service, known in self._operations.items()
        )
        self._requests = Counter(
            "lbdrain_azure_requests",
            f"Requests to Azure. service and operation: {names}; or {OTHER}. "
            f"outcome: {_list(sorted(self._outcomes))}; or {OTHER}.",
            ("service", "operation", "outcome"),
            registry=self._registry,
        )
        self._request_duration = Histogram(
            "lbdrain_azure_request_duration_seconds",
            f"Time a request to Azure took. service and operation: {names}; or {OTHER}.",
            ("service", "operation"),
            buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 130),
            registry=self._registry,
        )
        self._failures = Gauge(
            "lbdrain_azure_failures_in_a_row",
            "Requests that failed since the service last answered. "
            f"service: {_list(self._operations)}.",
            ("service",),
            registry=self._registry,
        )
        for service in self._operations:
            self._failures.labels(service)

    def _make_notify_metrics(self, channels: tuple[str, ...]) -> None:
        self._notifications = Counter(
            "lbdrain_notifications",
            "Notifications by how they ended: failed after every attempt, dropped because the "
            "queue was full. channel: webhook, slack, teams, email. "
            f"outcome: {_list(NOTIFY_OUTCOMES)}.",
            ("channel", "outcome"),
            registry=self._registry,
        )
        for channel in channels:
            for outcome in NOTIFY_OUTCOMES:
                self._notifications.labels(channel, outcome)

    def notified(self, channel: str, outcome: NotifyOutcome) -> None:
        """Count a notification by the kind of its channel and by how it ended."""
        self._notifications.labels(channel, outcome).inc()

    def drained(self, event_type: str, outcome: DrainOutcome, lead_s: float | None = None) -> None:
        """Count a drained VM; `lead_s` is its lead time, None when there was no NotBefore."""
        self._drains.labels(event_type if event_type in EVENT_TYPES else OTHER, outcome).inc()
        if lead_s is not None:
            self._drain_lead.observe(max(lead_s, 0.0))  # a negative one would spoil the sum

    def passed(self, outcome: PassOutcome) -> None:
        """Count a completed pass."""
        self._passes.labels(outcome).inc()

    def set_holds(self, vms_by_reason: Mapping[str, int]) -> None:
        """Set how many VMs are held per reason; reasons left out are 0."""
        counts = dict.fromkeys(self._hold_reasons, 0)
        for reason, vms in vms_by_reason.items():
            counts[reason if reason in counts else OTHER] += vms
        for reason, vms in counts.items():
            self._holds.labels(reason).set(vms)

    def set_risk(self, *, vms: int, next_not_before: datetime | None) -> None:
        """Set how many VMs may be hit while in rotation, and the next deadline of all."""
        self._at_risk.set(vms)
        self._next_not_before.set(_timestamp(next_not_before))

    def set_leader(self, leading: bool, valid_until: datetime | None = None) -> None:
        """Set whether this agent leads and until when its lease is valid; counts changes."""
        if leading is not self._leading:
            self._leader_changes.inc()
        self._leading = leading
        self._leader.set(leading)
        self._lease_valid_until.set(_timestamp(valid_until if leading else None))

    def stand_by(self) -> None:
        """Show nothing that only a leader in office knows: what it last knew gets older and older.

        That includes the failures of services that a standby never asks.
        """
        self.set_holds({})
        self.set_risk(vms=0, next_not_before=None)
        self.set_ledger_entries(0, oldest=None)
        self._in_rotation.clear()
        self._expected.clear()
        for service in self._operations.keys() - STANDBY_SERVICES:
            self._failures.labels(service).set(0)

    def set_leader_seen(self, at: datetime) -> None:
        """Set when a leader was last known."""
        self._leader_seen.set(at.timestamp())

    def set_lease_duration(self, seconds: float) -> None:
        """Set the duration of a lease; 0 when this agent takes no part in the election."""
        self._lease_duration.set(seconds)

    def set_clock_correction(self, seconds: float) -> None:
        """Set what is added to this VM's clock."""
        self._clock_correction.set(seconds)

    def set_members(self, pool: str, *, in_rotation: int, expected: int) -> None:
        """Set the members of one configured pool; other pools are not ours to report."""
        if pool in self._pools:
            self._in_rotation.labels(pool).set(in_rotation)
            self._expected.labels(pool).set(expected)

    def polled(self, at: datetime) -> None:
        """Set when scheduled events were last read."""
        self._last_poll.set(at.timestamp())

    def set_ledger_entries(self, count: int, *, oldest: datetime | None) -> None:
        """Set how many entries the ledger has, and when the oldest VM that is out was recorded."""
        self._ledger_entries.set(count)
        self._oldest_entry.set(_timestamp(oldest))

    def set_writes_limit(self, limit: int) -> None:
        """Set how many writes may be under way at once."""
        self._writes_limit.set(limit)

    def requested(self, service: str, operation: str, outcome: str, duration_s: float) -> None:
        """Count one request to Azure by how it ended."""
        if self._answers(service, outcome):
            self._failures.labels(service).set(0)
        elif outcome != "cancelled":
            self._failures.labels(service).inc()
        if operation not in self._operations.get(service, ()):
            operation = OTHER
        if outcome not in self._outcomes:
            outcome = OTHER
        self._requests.labels(service, operation, outcome).inc()
        self._request_duration.labels(service, operation).observe(duration_s)

    def requests(self) -> tuple[Requests, ...]:
        """Return what was asked of Azure so far, and how it ended."""
        outcomes: dict[tuple[str, str], dict[str, int]] = {}
        for metric in self._requests.collect():
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    labels = sample.labels
                    ended = outcomes.setdefault((labels["service"], labels["operation"]), {})
                    ended[labels["outcome"]] = int(sample.value)
        seconds = {
            (sample.labels["service"], sample.labels["operation"]): sample.value
            for metric in self._request_duration.collect()
            for sample in metric.samples
            if sample.name.endswith("_sum")
        }
        return tuple(
            Requests(service=key[0], operation=key[1], outcomes=ended, seconds=seconds[key])
            for key, ended in sorted(outcomes.items())
        )

    def failures_in_a_row(self) -> dict[str, int]:
        """Return per service how many requests failed since it last answered."""
        return {
            sample.labels["service"]: int(sample.value)
            for metric in self._failures.collect()
            for sample in metric.samples
        }

    def render(self) -> bytes:
        """Return the exposition text, in `CONTENT_TYPE`."""
        return generate_latest(self._registry)
