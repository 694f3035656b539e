"""What this agent has shown that it can and cannot do, over all its tenures.

`core.ability` decides. The record is in memory only: another agent finds out for itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from controller.clock import Clock
from controller.core.ability import (
    READING_FORWARDED,
    REMEMBERED_S,
    STALE_S,
    WRITING_LEDGER,
    Attempts,
    Inability,
    Operation,
    Unanswered,
    due_operations,
    inability,
    operation_of,
    verdict_of,
    with_inability,
)
from controller.core.action_keys import ActionKey
from controller.core.ledger import Ledger
from controller.core.observation import Deferral, Observation
from controller.core.planning.actions import Action, Plan
from controller.core.policy import Policy
from controller.errors import ControllerError, NotSent, OutcomeUnknown, retry_after_of


@dataclass(slots=True)
class _UnderWay:
    operation: Operation
    began_at: float
    accepted: bool = False


class AbilityWatch:
    """Watches the attempts of one agent.

    Args:
        clock: the monotonic clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._attempts: dict[Operation, Attempts] = {}
        self._under_way: dict[ActionKey, _UnderWay] = {}
        self._due: frozenset[Operation] = frozenset()
        self._tenure, self._tenure_began_at = 0, clock.monotonic()
        self._shown: tuple[Inability, float] | None = None
        """The last inability, and until when it is remembered."""

    # --- attempts ---

    def began(self, operation: Operation, key: ActionKey) -> None:
        """An attempt begins."""
        self._under_way[key] = _UnderWay(operation, self._clock.monotonic())

    def tried(self, operation: Operation, key: ActionKey, error: ControllerError | None) -> None:
        """Another part of the agent has tried something, as it does all the time."""
        self.began(operation, key)
        if error is None:
            self.succeeded(key)
        else:
            self.failed(key, error)

    def shown(self, action: Action) -> None:
        """Another part of the agent has done what this action does."""
        self._succeeded(operation_of(action))

    def accepted(self, key: ActionKey) -> None:
        """Azure has accepted a write; its operation may take long, which is no failure."""
        if attempt := self._under_way.get(key):
            attempt.accepted = True
            self._succeeded(attempt.operation)

    def dropped(self, key: ActionKey) -> None:
        """The attempt ended without a result: it was cancelled, or never sent."""
        self._under_way.pop(key, None)

    def succeeded(self, key: ActionKey) -> None:
        """The attempt has succeeded."""
        if attempt := self._under_way.pop(key, None):
            self._succeeded(attempt.operation)

    def failed(self, key: ActionKey, error: ControllerError, *, absent: bool = False) -> None:
        """The attempt has failed; `absent` as for `verdict_of`."""
        attempt = self._under_way.pop(key, None)
        if attempt is None:
            return
        verdict = verdict_of(attempt.operation, error, absent=absent)
        known = self._attempts.get(attempt.operation, Attempts())
        if verdict.able:
            self._succeeded(attempt.operation)
        elif verdict.excused:
            self._attempts[attempt.operation] = known.excused(key)
        elif verdict.unable:
            began_at = self._clock.monotonic() if attempt.accepted else attempt.began_at
            until = self._clock.monotonic() + (retry_after_of(error) or 0.0)
            failed = known.failed(
                key=key,
                began_at=began_at,
                until=until,
                why=str(error),
                unanswered=isinstance(error, NotSent | OutcomeUnknown),
            )
            self._attempts[attempt.operation] = failed

    def _succeeded(self, operation: Operation) -> None:
        self._attempts[operation] = Attempts(succeeded_at=self._clock.monotonic())
        if self._shown is not None and self._shown[0].operation == operation:
            self._shown = None

    # --- due work ---

    def begin(self, tenure: int) -> None:
        """A tenure begins: the agent may try again what it could not do before."""
        if tenure != self._tenure:
            self._tenure, now = tenure, self._clock.monotonic()
            self._tenure_began_at = now
            self._under_way.clear()
            self._attempts = {key: each.in_new_term(now) for key, each in self._attempts.items()}

    def planned(self, due: Iterable[Operation] | None, deferred: Iterable[ActionKey] = ()) -> None:
        """Note the kinds of work that are due.

        What was due and is under way still is due, although no pass plans it. So is what failed
        and waits for its next attempt, while anything is due.

        Args:
            due: what the last pass planned; None when nothing is due.
            deferred: the keys of what waits.
        """
        under_way = {each.operation for each in self._under_way.values()}
        if due is None:
            self._due &= under_way
            return
        waiting = frozenset(deferred)
        kept = {
            operation
            for operation in self._due
            if operation in self._attempts and self._attempts[operation].keys & waiting
        }
        self._due = frozenset(due) | kept | (self._due & under_way)

    def passed(
        self,
        planned: Plan,
        observed: Observation,
        durable: Ledger,
        policy: Policy,
        now: datetime,
        *,
        found: Inability | None,
    ) -> Plan:
        """Note what a pass needs; return its plan with what no agent of the set can do.

        Args:
            planned: what the planner decided.
            observed, durable, policy, now: what it was planned from.
            found: what this leader cannot do, nor any peer.
        """
        due = due_operations(planned, observed, durable, policy, now)
        for action in planned.waiting:
            operation = operation_of(action)
            if due and operation in due:
                self._waits(operation, action.key, observed.deferred[action.key], now)
        self.planned(due, observed.deferred)
        able = frozenset(
            operation
            for operation, attempts in self._attempts.items()
            if attempts.succeeded_at >= self._tenure_began_at
        )
        return with_inability(planned, durable, now, found=found, due=due is not None, able=able)

    def _waits(
        self, operation: Operation, key: ActionKey, deferral: Deferral, now: datetime
    ) -> None:
        """Note that due work waits because Azure asked for it: as if it failed from now on.

        Azure can have asked for it while nothing was due, or in an earlier tenure.
        """
        now_s = self._clock.monotonic()
        known = self._attempts.get(operation, Attempts()).without_stale(now_s)
        if key not in known.keys:
            until = now_s + (deferral.until - now).total_seconds()
            failed = known.failed(key=key, began_at=now_s, until=until, why=deferral.what)
            self._attempts[operation] = failed

    # --- the decision ---

    def inability(self, tenure: int | None) -> Inability | None:
        """Return what this agent cannot do; None while it is able.

        Of a leader only what is due counts; it is remembered, so that others lead first for a
        while.

        Args:
            tenure: the number of the present tenure; None for a standby.
        """
        now = self._clock.monotonic()
        if tenure is None:
            return self._shown[0] if self._shown and now < self._shown[1] else None
        if tenure != self._tenure or any(each.accepted for each in self._under_way.values()):
            return None  # it has not tried yet, or a write is about to succeed
        unanswered = (
            Unanswered(operation=each.operation, began_at=each.began_at)
            for each in self._under_way.values()
        )
        # What other agents forward shows whether anything is due.
        due = self._due | {READING_FORWARDED}
        found = inability(due, self._attempts, unanswered, now)
        if found is not None:
            self._shown = found, now + self._remembered_s(found.operation)
        return found

    def _remembered_s(self, operation: Operation) -> float:
        """Return for how long an inability keeps this agent from the lease.

        Storage that does not answer refuses the lease as well: that it can be taken is better
        proof.
        """
        known = self._attempts.get(operation, Attempts())
        silent = known.failing_since is None or known.unanswered
        return STALE_S if silent and operation == WRITING_LEDGER else REMEMBERED_S
