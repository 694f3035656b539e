"""What has to have happened at least once in a campaign, or the campaign has shown little.

Faults, acts and events are read from the history. Phases, reasons to hold and classes of errors are
heard from the agents: here it matters only that these paths were walked.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from controller import reconciler
from controller.azure.failures import OUTCOMES
from controller.core.actions import Phase, Plan, Reason
from controller.metrics import Metrics
from controller.simulator.history import Change

from .weather import JOURNEYS, KINDS, LATE_LEDGER, RIVAL

ACTS = (
    "add_address",
    "ask",
    "break_lease",
    "crash",
    "delete_pool",
    "delete_vm",
    "edit_tags",
    "event",
    "fail_nic",
    "freeze",
    "join_pool",
    "leave_pool",
    "start_vm",
    "stop_vm",
    "withdraw",
)
ENOUGH_SEEDS = 1000
"""Of so many seeds no mark may be missing."""
EVENT_TYPES = ("Freeze", "Reboot", "Redeploy", "Preempt", "Terminate")
UNHEARD = frozenset({"config_error", "lease_held"})
"""Outcomes that need a wrong configuration, or a race of two that seldom happens."""
UNDRAWN = {Reason.UNKNOWN_EVENT_STATUS, Reason.REQUESTS_UNREAD}
"""A status that Azure has not; and storage that is away for minutes, but not for the leader."""
EXPECTED = frozenset(
    {
        *KINDS,
        *JOURNEYS,
        LATE_LEDGER,
        RIVAL,
        *(f"cut {service}" for service in ("imds", "arm", "blob")),
        *(f"act: {act}" for act in ACTS),
        *(f"event: {kind}" for kind in EVENT_TYPES),
        *(f"phase: {phase.value}" for phase in Phase),
        *(f"hold: {reason.value}" for reason in Reason if reason not in UNDRAWN),
        *(f"outcome: {outcome}" for outcome in OUTCOMES.values() if outcome not in UNHEARD),
        "event: started first",
        "event: cancelled",
        "event: changed its id",
        "event: acknowledged by the platform",
        "vm: frozen",
        "vm: rebooting",
        "vm: deleted",
        "lease: changed hands",
    }
)


@contextmanager
def watching() -> Iterator[set[str]]:
    """Listen to what agents plan and how their calls end, for as long as the block runs."""
    seen: set[str] = set()
    real_plan, real_requested = reconciler.plan, Metrics.requested

    def plan(*arguments: Any) -> Plan:
        made = real_plan(*arguments)
        seen.update(f"phase: {each.phase.value}" for each in made.phases)
        seen.update(f"hold: {hold.reason}" for hold in made.holds)
        return made

    def requested(
        self: Metrics, service: str, operation: str, outcome: str, duration_s: float
    ) -> None:
        seen.add(f"outcome: {outcome}")
        real_requested(self, service, operation, outcome, duration_s)

    with patch.object(reconciler, "plan", plan), patch.object(Metrics, "requested", requested):
        yield seen


def of_history(history: Iterable[Change]) -> set[str]:
    """Return the marks of what truly happened."""
    found: set[str] = set()
    holder = ""
    published: set[str] = set()
    for change in history:
        detail = change.detail
        match change.kind:
            case "event_published":
                published.add(change.subject)
                found.add(f"event: {detail['event_type']}")
                if detail["started_first"]:
                    found.add("event: started first")
            case "event_started" if change.subject not in published:
                found.add("event: changed its id")
            case "event_cancelled":
                found.add("event: cancelled")
            case "event_acknowledged" if detail["by"] == "platform policy":
                found.add("event: acknowledged by the platform")
            case "vm_down":
                found.add(f"vm: {detail['state']}")
            case "lease_acquire":
                if holder not in ("", detail["by"]):
                    found.add("lease: changed hands")
                holder = str(detail["by"])
            case _:
                pass
    return found
