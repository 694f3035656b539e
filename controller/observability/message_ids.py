"""The words of log events, and the kinds of log lines that have a permanent id.

The text of a message may change with any version; its id does not. The journal stores the id as
MESSAGE_ID, so that `journalctl MESSAGE_ID=...` and alert rules match a kind and nothing else.

Rules:
- The field `event` names what happened, as a past participle or a state, in lower case with
  underscores. The steps of a drain have the words of `core.drain_history`.
- A line belongs to a kind because of its fields `event` and `outcome` (`observability.logs`).
- The list is closed: a line that matches no entry of `KINDS` has no id. `deploy/README.md` lists
  the same kinds, and `deploy/lb-drain.catalog` explains each kind to `journalctl --catalog`. A
  test compares all three.
- The id of a kind is never reused, not even after the kind is removed.
"""

from dataclasses import dataclass
from typing import Literal, NewType

from controller.core.drain_history import Step

LogEvent = Literal[
    "acknowledgement_sent",
    "admin_state_refused",
    "agent_started",
    "agent_stopping",
    "agent_waiting",
    "azure_request_failed",
    "clock_corrected",
    "config_not_reloaded",
    "config_reloaded",
    "control_ended",
    "control_set",
    "controls_unreadable",
    "drain_requests_unreadable",
    "dry_run",
    "event_not_covered",
    "event_set_aside",
    "event_unpublished",
    "events_readable",
    "events_unreadable",
    "held",
    "hub_update_changed",
    "leader_elected",
    "leader_missing",
    "leader_restored",
    "lease_changed",
    "lease_reachable",
    "lease_unreachable",
    "lease_yielded",
    "ledger_failed",
    "notification_failed",
    "pool_not_found",
    "pool_without_members",
    "set_converted",
    "status_served",
    "traces_failed",
    "traces_restored",
    "verdict",
    "vm_closed",
    "vm_opened",
    "vm_side_failed",
    "write_started",
    "write_succeeded",
]
"""What happened, besides the steps of a drain."""
StepEvent = NewType("StepEvent", str)
"""A step of a drain as the word of a log event."""


def step_event(step: str) -> StepEvent:
    """Return the word of a step, which is the step without blanks: `in_service`."""
    return StepEvent("_".join(step.split()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of log line."""

    name: str
    message_id: str
    """128 random bits as lower case hexadecimal digits, which is the format of systemd."""
    events: frozenset[str]
    outcomes: frozenset[str] = frozenset()
    """The outcomes that belong to the kind; empty for all, and for lines without an outcome."""


def _kind(
    name: str, message_id: str, *events: LogEvent | StepEvent, outcomes: tuple[str, ...] = ()
) -> Kind:
    return Kind(
        name=name,
        message_id=message_id,
        events=frozenset(events),
        outcomes=frozenset(outcomes),
    )


def _step(step: Step, message_id: str) -> Kind:
    return _kind(step_event(step), message_id, step_event(step))


KINDS = (
    # The agent.
    _kind("agent_started", "c66119875a3e4788830fe1664f2405fe", "agent_started"),
    _kind("agent_waiting", "e8b333b3f8584fdd89961fc0dd137e51", "agent_waiting"),
    _kind("agent_stopping", "8eb607702e2842b7bbd73bee728df91b", "agent_stopping"),
    _kind("set_converted", "c24725d5a877405fa4aa8d1a2384298f", "set_converted"),
    _kind(
        "events_unreadable",
        "7d52fdf966c74e608e040ac74da07391",
        "events_unreadable",
        "events_readable",
        "event_set_aside",
    ),
    _kind("event_not_covered", "83569b2e12e74bbc832039174a9b4707", "event_not_covered"),
    # The leader.
    _kind("leader_elected", "344a24817c7548e78cb0f349f966db4e", "leader_elected"),
    _kind("lease_yielded", "71ba708830a24e56bce567db58372662", "lease_yielded"),
    _kind(
        "lease_lost",
        "ace2dcab60074e358bcdff467ec99e6a",
        "lease_changed",
        outcomes=("lost", "lapsed"),
    ),
    _kind("leader_missing", "27bd8a3af6aa42fc9e44f5c82832db9c", "leader_missing"),
    _kind("leader_restored", "7844bb62908d4d78b1d1714a5d7d5dae", "leader_restored"),
    # An event, step by step, and what became of it.
    _step(Step.ANNOUNCED, "382b7c64b413b348106de90bedf455d8"),
    _step(Step.STARTED, "d191d4e6f4cd91b83c88a9b260f80122"),
    _step(Step.COMPLETED, "f748dfb66d6930329344c4c8b3afad89"),
    _step(Step.CANCELLED, "250edd0f41bad331b88c7b6c2e646a50"),
    _kind("verdict", "760c6deff7403a980e33df675b1fc35b", "verdict"),
    # A drain, step by step.
    _step(Step.REQUESTED, "ec930cb7f88f472d9fa63558138d7a1a"),
    _step(Step.RECORDED, "d8a32fb1dd43448e828e9e916c42fee7"),
    _kind("vm_closed", "b33346b5183345898c0c401296b2557a", "vm_closed"),
    _step(Step.CLOSED, "39431eb3a8da47cfa103579524176bdd"),
    _step(Step.OUT, "facccd2dc6a24f6ebc104e4e807eb453"),
    _step(Step.PUT_BACK, "3921f46635f94b4cbd5f4175332e6beb"),
    _step(Step.ACKNOWLEDGED, "788f29c568b247f397a37b0a5e822d7f"),
    _step(Step.RESTORING, "6f1bb10f3b2e418dad844eee8a12f24b"),
    _step(Step.RESTORED, "cc463ff77ab64f47803af34991a5d92a"),
    _kind("vm_opened", "da2368523a2e4adab4fb2f42c93f5640", "vm_opened"),
    _step(Step.OPENED, "501ad679df364aca94e3d69770fa1068"),
    _step(Step.IN_SERVICE, "60ce8b1bd56344f0b449bc4b3a8d2193"),
    _kind(
        "not_restored",
        "767e006e1e264fce8e394efb37088554",
        step_event(Step.GONE),
        step_event(Step.FORGOTTEN),
        step_event(Step.MEMBERSHIP_DROPPED),
        step_event(Step.MEMBERSHIP_LOST),
    ),
    _step(Step.RECOVERED, "af9e0bd5da9e4a3b84f223d50350e719"),
    # What an operator has to look into.
    _kind("held", "9d8d4ae69474446db0d75f72a9688aa5", "held"),
    _kind("control_changed", "599aed9c7f024b22b9545d743947c623", "control_set", "control_ended"),
    _kind("vm_side_failed", "7ee3ebe476e0417caa5eec21a59555d8", "vm_side_failed"),
    _kind("config_not_reloaded", "685d6eba52f344dfb93aa1b22be72066", "config_not_reloaded"),
    _kind("azure_request_failed", "63bce808f7fb495ea88857c247b4f67c", "azure_request_failed"),
    _kind(
        "ledger_failed",
        "419db38548d0493ab5628b3fef1934ac",
        "ledger_failed",
        "drain_requests_unreadable",
        "controls_unreadable",
    ),
    _kind("notification_failed", "4f3fd9146ac146bd9385b349e4d8af97", "notification_failed"),
    # lb-drain update-watch.
    _kind("hub_update_changed", "90e4cd93b58649df9a93ed7961125907", "hub_update_changed"),
)


def kind_of(event: str, outcome: str) -> Kind | None:
    """Return the kind of a line with these fields, an empty text for a missing one, or None."""
    for kind in KINDS:
        if event in kind.events and (not kind.outcomes or outcome in kind.outcomes):
            return kind
    return None
