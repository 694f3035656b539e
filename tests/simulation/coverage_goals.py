"""What has to have happened at least once in a campaign, or the campaign has shown little.

Faults, acts and events are read from the history. Phases, reasons to hold and classes of errors are
heard from the agents: here it matters only that these paths were walked.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from controller.azure.http.request_labels import OUTCOMES
from controller.core.ledger import Entry
from controller.core.planning import closing, planner
from controller.core.planning.actions import HoldReason, Phase, Plan
from controller.core.planning.evidence import Evidence
from controller.observability.metrics import Metrics
from controller.simulator.world.history import Change
from tests.simulation.drawn_closing import CALLS, SPOILT_REPORTS
from tests.simulation.harsh_acts import SPOILT
from tests.simulation.request_faults import ALL_KINDS, JOURNEYS, LATE_LEDGER, RIVAL
from tests.simulation.request_operations import EVERY, OF_COMMANDS, struck

ACTS = (
    "add_address",
    "admin_state",
    "ask",
    "back_up",
    "break_lease",
    "crash",
    "delete_blob",
    "delete_pool",
    "delete_vm",
    "edit_tags",
    "event",
    "fail_nic",
    "freeze",
    "join_pool",
    "leave_pool",
    "lose_role",
    "odd_event",
    "odd_vm",
    "put_back",
    "recreate_balancer",
    "recreate_nic",
    "recreate_pool",
    "recreate_vm",
    "regain_role",
    "repair_blob",
    "repeated_event",
    "restore_blob",
    "second_process",
    "spoil_blob",
    "spoil_report",
    "start_vm",
    "step_clock",
    "stop_vm",
    "withdraw",
)
ENOUGH_SEEDS = 1000
"""Of so many seeds no mark may be missing."""
DEADLY = frozenset(call.removeprefix("after ") for call in CALLS)
EVENT_TYPES = ("Freeze", "Reboot", "Redeploy", "Preempt", "Terminate")
UNHEARD = frozenset({"config_error", "lease_held"})
"""Outcomes that need a wrong configuration, or a race of two that seldom happens."""
UNDRAWN = {
    HoldReason.UNKNOWN_EVENT_STATUS,
    HoldReason.REQUESTS_UNREAD,
    HoldReason.NOT_IN_SET,
    HoldReason.SET_MISSING,
    HoldReason.PAUSED,
    HoldReason.ACKNOWLEDGEMENT_HELD,
    HoldReason.NOT_OUT,
    HoldReason.CONTROLS_UNREAD,
    HoldReason.EVENT_UNSEEN,
    HoldReason.NIC_UPDATING,
}
"""A status that Azure does not have; storage that only other agents reach; a set that is converted
or deleted; controls, which no scenario sets; a set that is blind, or an operation that hangs,
for longer than a history."""
OF_NEW_WORLDS = frozenset({"resource_graph query", "maintenance acknowledge"})
"""Operations that only later seeds need."""
EXPECTED = frozenset(
    {
        *ALL_KINDS,
        *JOURNEYS,
        LATE_LEDGER,
        RIVAL,
        *(f"cut {service}" for service in ("imds", "arm", "blob")),
        *(f"act: {act}" for act in ACTS),
        *(f"spoilt {blob}: {how}" for blob, how in SPOILT),
        *(f"event: {kind}" for kind in EVENT_TYPES),
        *(f"phase: {phase.value}" for phase in Phase),
        *(f"hold: {reason.value}" for reason in HoldReason if reason not in UNDRAWN),
        *(f"outcome: {outcome}" for outcome in OUTCOMES.values() if outcome not in UNHEARD),
        *(f"struck: {operation}" for operation in EVERY - OF_COMMANDS - OF_NEW_WORLDS),
        "event: started first",
        "event: cancelled",
        "event: changed its id",
        "event: acknowledged by the platform",
        *(f"dies: {call}" for call in DEADLY),
        *(f"hook: {outcome}" for outcome in ("done", "failed", "hanging")),
        *(f"spoilt report: {how}" for how in SPOILT_REPORTS),
        "closed: alone",
        "closed: by an entry",
        "closed: proven, and still in its pools",
        "machine: flag not writable",
        "vm: frozen",
        "vm: rebooting",
        "vm: deleted",
        "lease: changed hands",
        "ask: several for one VM",
        "ask: in force at the calm",
        "pool: stated by two sets",
        "pool: a set was refused its claim",
    }
)


@contextmanager
def watching() -> Iterator[set[str]]:
    """Listen to what agents plan and how their calls end, for as long as the block runs."""
    seen: set[str] = set()
    real_proven = closing.is_proven_closed
    real_requested = Metrics.request_ended

    def plan(*arguments: Any, **options: Any) -> Plan:
        made = planner.plan(*arguments, **options)
        seen.update(f"phase: {each.phase.value}" for each in made.phases)
        seen.update(f"hold: {hold.reason}" for hold in made.holds)
        return made

    def proven(evidence: Evidence, entry: Entry) -> bool:
        found = real_proven(evidence, entry)
        seen.update({"closed: proven, and still in its pools"} if found else ())
        return found

    def requested(
        self: Metrics, service: str, operation: str, outcome: str, duration_s: float
    ) -> None:
        seen.add(f"outcome: {outcome}")
        real_requested(self, service, operation, outcome, duration_s)

    with (
        patch("controller.agent.reconciler.plan", plan),
        patch.object(closing, "is_proven_closed", proven),
        patch.object(Metrics, "request_ended", requested),
    ):
        yield seen


def of_history(history: Iterable[Change]) -> set[str]:
    """Return the marks of what truly happened."""
    history = tuple(history)
    found = {f"struck: {operation}" for operation in struck(history)} | _asked(history)
    holders: dict[str, object] = {}
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
            case "roll":
                found.add(f"roll: {detail['what']}")
            case "roll_over" if not detail["error"]:
                found.add("roll: done")
            case "vm_down":
                found.add(f"vm: {detail['state']}")
            case "lease_acquire":
                if holders.get(change.subject, detail["by"]) != detail["by"]:
                    found.add("lease: changed hands")
                holders[change.subject] = detail["by"]
            case "blob_written" if "/pools/" in change.subject:
                if str(detail["body"]).count('"availability_set_id"') > 1:
                    found.add("pool: stated by two sets")
            case "request" if detail["status"] == 412 and "/pools/" in change.subject:
                found.add("pool: a set was refused its claim")
            case _:
                pass
    return found


def _asked(history: Iterable[Change]) -> set[str]:
    """Return the marks of drain requests, as if none was withdrawn."""
    found: set[str] = set()
    until: dict[str, float] = {}
    for change in history:
        if change.kind == "act" and change.subject == "ask":
            given = dict(each.split("=") for each in str(change.detail["text"]).split()[1:])
            vm, at = given["vm"], change.at
            if until.get(vm, 0.0) > at:
                found.add("ask: several for one VM")
            until[vm] = max(until.get(vm, 0.0), at + float(given["for_s"]))
        elif change.kind == "calm" and any(end > change.at for end in until.values()):
            found.add("ask: in force at the calm")
    return found
