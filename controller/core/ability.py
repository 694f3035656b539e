"""Ability: whether an agent can do the work that is due, by what became of its attempts.

The lease proves that its holder reaches storage, and nothing else. Resource Manager, the metadata
service and the ledger can fail for one VM alone: its network, its name resolution, its role, the
limits of its identity. So a leader that has due work of some kind, and to which nothing of that
kind has succeeded for a while, is unable, and another agent should lead.

One NIC or pool that fails while others of the same kind succeed is no inability. Nor is an answer
that every other agent would get: a conflict, or a resource that does not exist. Azure refuses a
write to a deleted pool as if a permission were missing.

Pure: standard library only, no I/O, no clock.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NewType, assert_never

from controller.core.action_keys import ActionKey
from controller.core.azure_names import fold
from controller.core.ledger import Hold, Ledger
from controller.core.observation import Observation
from controller.core.planning.actions import (
    Acknowledge,
    Action,
    ChangeMembership,
    HoldReason,
    Plan,
    PublishShare,
    ReadInventory,
    ReadLoadBalancer,
    ReadNic,
    ReadPower,
    ReadRuleHealth,
    ReadSharedPool,
    ReadView,
    ReadVmReport,
)
from controller.core.planning.closing import CURRENT_S
from controller.core.policy import Policy
from controller.core.vm_report import VmState
from controller.errors import (
    ConfigError,
    Conflict,
    ContractViolation,
    ControllerError,
    Denied,
    LeaseHeld,
    LeaseLost,
    NotFound,
    Outdated,
)

UNABLE_AFTER_S = 20.0
"""An agent is unable after this many seconds without a success of what is due. With the time that a
peer takes to find the released lease, leadership moves within 30 s."""
STALE_S = 60.0
"""A failure after which nothing was tried for this long, in seconds, proves nothing: what was due
then was done in another way, or was not needed any more. No back-off of due work is longer."""
REMEMBERED_S = 300.0
"""How long an agent that was unable lets others lead first, in seconds."""

Operation = NewType("Operation", str)
"""A kind of work, as it is named after "cannot"."""
READING_INVENTORY = Operation("read the VMs of the set")
ACKNOWLEDGING = Operation("acknowledge events")
READING_FORWARDED = Operation("read what other agents forward")
READING_HEALTH = Operation("read the health of rules")
READING_REPORTS = Operation("read the reports of VMs")
READING_REQUESTS = Operation("read the drain requests")
WRITING_LEDGER = Operation("write the ledger")


def operation_of(action: Action) -> Operation:
    """Return the kind of work of an action.

    Removals and restores need different permissions, and so do the resources that they change.
    """
    name: str
    match action:
        case ReadInventory():
            name = READING_INVENTORY
        case ReadLoadBalancer():
            name = "read load balancers"
        case ReadNic():
            name = "read NICs"
        case ReadPower():
            name = "read the power state of VMs"
        case ReadView():
            name = f"read what the mechanism {action.mechanism} needs"
        case ChangeMembership():
            what = "restore VMs" if action.restore else "take VMs out of rotation"
            name = f"{what} ({action.method.name} write)"
        case Acknowledge():
            name = ACKNOWLEDGING
        case ReadRuleHealth():
            name = READING_HEALTH
        case ReadVmReport():
            name = READING_REPORTS
        case ReadSharedPool():
            name = "read what other sets state about shared pools"
        case PublishShare():
            name = "state to other sets what leaves shared pools"
        case _:
            assert_never(action)
    return Operation(name)


# --- attempts ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """What became of the attempts of one agent at one kind of work. Monotonic seconds."""

    failing_since: float | None = None
    """When the first attempt began of those that have failed since the last success."""
    keys: frozenset[ActionKey] = frozenset()
    """What failed since then."""
    why: str = ""
    """The last failure."""
    tried_until: float = -math.inf
    """When it was met, or until when Azure then asked to wait."""
    unanswered: bool = False
    """Whether the last attempt got no answer."""
    succeeded_at: float = -math.inf

    def failed(
        self, *, key: ActionKey, began_at: float, until: float, why: str, unanswered: bool = False
    ) -> "Attempts":
        """Return the attempts after one that began at this time has failed.

        Args:
            key: what was tried.
            began_at: when.
            until: as `tried_until`.
            why: how it failed.
            unanswered: whether it got no answer.
        """
        known = self.without_stale(began_at)
        since = max(began_at, known.succeeded_at)
        if known.failing_since is not None:
            since = min(since, known.failing_since)
        return replace(
            known,
            failing_since=since,
            keys=known.keys | {key},
            why=why,
            tried_until=until,
            unanswered=unanswered,
        )

    def without_stale(self, now_s: float) -> "Attempts":
        """Return the attempts without failures after which nothing was tried for `STALE_S`."""
        if self.failing_since is None or now_s - self.tried_until < STALE_S:
            return self
        return Attempts(succeeded_at=self.succeeded_at)

    def excused(self, key: ActionKey) -> "Attempts":
        """Return the attempts without what failed with this key: it proves nothing."""
        if key not in self.keys:
            return self
        keys = self.keys - {key}
        return replace(self, keys=keys, failing_since=self.failing_since if keys else None)

    def in_new_term(self, at: float) -> "Attempts":
        """Return the attempts of an agent that becomes the leader again: it may try again."""
        known = self.without_stale(at)
        return known if known.failing_since is None else replace(known, failing_since=at)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an error proves about the ability of the agent that met it."""

    able: bool = False
    unable: bool = False
    excused: bool = False
    """Nothing, and neither do the failures before it."""


def verdict_of(operation: Operation, error: ControllerError, *, absent: bool = False) -> Verdict:
    """Return what an error proves: the agent is able, or perhaps unable, or nothing.

    Azure checks identity and limits before it finds a conflict. For an acknowledgement even a
    conflict may concern this VM alone: every VM has a metadata service of its own. What a guard
    stopped was not sent, and nothing depends on the health of rules. The content of a report or of
    the drain requests is the same for every agent.

    Args:
        operation: the kind of work that failed.
        error: how it failed.
        absent: whether it names what the newest reply about it does not show.
    """
    if isinstance(error, ConfigError | LeaseHeld | LeaseLost | Outdated):
        return Verdict()
    of_all = operation in {READING_FORWARDED, READING_REPORTS, READING_REQUESTS}
    content = of_all and isinstance(error, ContractViolation)
    if content or (absent and isinstance(error, ContractViolation | Denied | NotFound)):
        return Verdict(excused=True)
    if operation == READING_HEALTH:
        return Verdict()
    if isinstance(error, Conflict) and operation != ACKNOWLEDGING:
        return Verdict(able=True)
    if isinstance(error, NotFound) and operation != READING_INVENTORY:
        return Verdict()
    return Verdict(unable=True)


# --- due work ---


def due_operations(
    plan: Plan, observed: Observation, ledger: Ledger, policy: Policy, now: datetime
) -> frozenset[Operation] | None:
    """Return the kinds of work that the set needs now; None while nothing is due.

    Removals, restores and acknowledgements are needed whenever they are planned, the drain requests
    while a restore waits for them, and the inventory while a verdict does. All else only while
    something is due: an idle set reads its inventory too. What Azure lets wait counts as planned.

    Args:
        plan: what is planned at `now`.
        observed, ledger, policy, now: what it was planned from.
    """
    actions = (*plan.actions, *plan.waiting)
    changes = {
        operation_of(action)
        for action in actions
        if isinstance(action, ChangeMembership | Acknowledge)
    }
    known = (observed, ledger, policy, now)
    idle = not _anything_due(*known) or _all_close(*known)
    if idle and not (changes or ledger.waits_for_reads):
        return None
    reads = {
        operation_of(action)
        for action in actions
        if not isinstance(action, ReadInventory) or _needs_inventory(*known)
    }
    written = {WRITING_LEDGER} if plan.ledger is not None else set[Operation]()
    held = {hold.reason for hold in plan.holds}
    needed = {READING_REQUESTS} if HoldReason.REQUESTS_UNREAD.value in held else set[Operation]()
    if ledger.waits_for_reads:  # what one agent reads in part another may read in full
        needed.add(READING_INVENTORY)
    return frozenset(changes | reads | written | needed)


def _anything_due(observed: Observation, ledger: Ledger, policy: Policy, now: datetime) -> bool:
    events = observed.document.events if observed.document else ()
    return (
        any(policy.is_due(event, now) for event in events)
        or any(request.is_active(now) for request in observed.requests or ())
        or any(not entry.waits_for_place for entry in ledger.entries)
    )


def _all_close(observed: Observation, ledger: Ledger, policy: Policy, now: datetime) -> bool:
    """Return whether every VM that is due is closed, and only its connections are waited for.

    That needs nothing from Resource Manager. The leader knows the rules whose probes are the
    evidence, and a successor that cannot read them could not acknowledge the event.
    """
    events = observed.document.events if observed.document else ()
    names = {
        fold(name) for event in events if policy.is_due(event, now) for name in event.resources
    }
    names |= {fold(each.vm) for each in observed.requests or () if each.is_active(now)}
    names |= {fold(entry.vm) for entry in ledger.entries if not entry.waits_for_place}
    latest_s = policy.connection_drain_s + UNABLE_AFTER_S
    for name in names:
        entry = ledger.entry(name)
        report = observed.report_about(entry) if entry is not None and not entry.over else None
        if (
            report is None
            or report.state is not VmState.CLOSED
            or abs((now - report.at).total_seconds()) > CURRENT_S
            or abs((now - report.since).total_seconds()) > latest_s
        ):
            return False
    return policy.close


def _needs_inventory(observed: Observation, ledger: Ledger, policy: Policy, now: datetime) -> bool:
    """Return whether there is no inventory, or a due event needs more than it shows.

    That is a VM that it does not contain, or one that is out and that it does not describe: its
    event cannot be acknowledged. Such a VM can be taken out by what its NICs show.
    """
    if observed.inventory_at is None:
        return True
    out = {fold(entry.vm) for entry in ledger.entries if entry.out_at is not None}
    vms = (*observed.vms, *observed.former)
    known = {fold(vm.name) for vm in vms if not vm.problem or fold(vm.name) not in out}
    events = observed.document.events if observed.document else ()
    return any(
        fold(name) not in known
        for event in events
        if policy.is_due(event, now)
        for name in event.resources
    )


# --- the decision ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Inability:
    """What an agent cannot do although it is due."""

    operation: Operation
    why: str

    def __str__(self) -> str:
        return f"cannot {self.operation}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """An attempt under way to which nothing was replied yet."""

    operation: Operation
    began_at: float
    """Monotonic seconds."""


def inability(
    due: Iterable[Operation],
    attempts: dict[Operation, Attempts],
    unanswered: Iterable[Unanswered],
    now_s: float,
) -> Inability | None:
    """Return what the leader cannot do although it is due; None while it is able.

    Args:
        due: the kinds of work that the set needs.
        attempts: what became of the attempts that have ended.
        unanswered: attempts under way without a reply.
        now_s: monotonic seconds.
    """
    waiting = tuple(unanswered)
    for operation in sorted(due):
        known = attempts.get(operation, Attempts()).without_stale(now_s)
        since = [
            max(each.began_at, known.succeeded_at)
            for each in waiting
            if each.operation == operation
        ]
        if known.failing_since is not None:
            since.append(known.failing_since)
        if since and now_s - min(since) >= UNABLE_AFTER_S:
            why = known.why or "Azure does not reply"
            return Inability(operation=operation, why=why)
    return None


# --- no agent is able ---


def with_inability(
    planned: Plan,
    durable: Ledger,
    now: datetime,
    *,
    found: Inability | None,
    due: bool,
    able: frozenset[Operation],
) -> Plan:
    """Return a plan that holds what no agent of the set can do.

    The hold passes from leader to leader, while they try in turn, until an agent succeeds.

    Args:
        planned: what the planner decided.
        durable: the ledger it was planned from.
        now: wall clock, corrected.
        found: what this leader cannot do after it has yielded in vain; None if it can.
        due: whether anything is due.
        able: what this leader has done in its present tenure.
    """
    reason = HoldReason.NO_ABLE_AGENT.value
    known = [hold for hold in durable.holds if hold.reason == reason]
    kept = [hold for hold in known if due and Operation(hold.subject) not in able]
    if found is not None and not any(hold.subject == found.operation for hold in kept):
        message = (
            f"no agent of the set can {found.operation}: {found.why}. "
            "They try in turn, and VMs can be late for their maintenance: "
            "correct the cause for at least one agent"
        )
        kept.append(Hold(subject=found.operation, reason=reason, message=message, since=now))
    if not known and not kept:
        return planned
    others = (hold for hold in planned.holds if hold.reason != reason)
    holds = tuple(sorted((*others, *kept), key=lambda hold: (hold.subject, hold.reason)))
    ledger = durable if planned.ledger is None else planned.ledger
    wanted = replace(ledger, holds=holds)
    return replace(planned, ledger=None if wanted == durable else wanted, holds=holds)
