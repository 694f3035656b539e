"""Reconcile: observe, plan, start, commit, report. Decides nothing: `core.planning` does.

A pass starts what it plans as tasks of its own (`action_runner`), so that neither the poll nor
another VM waits for a slow write. The ledger is written by the pass itself (`tenure`), one write at
a time, and the actions that need it are planned by the pass after.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from controller.agent.action_runner import ActionRunner
from controller.agent.event_watcher import EventWatcher
from controller.agent.operator_blobs import OperatorBlobs
from controller.agent.resource_cache import ResourceCache
from controller.agent.tenure import Tenure
from controller.agent.working_state import WorkingState
from controller.config.in_force import ConfigurationInForce
from controller.core.action_keys import ActionKey
from controller.core.ledger import Ledger
from controller.core.observation import Observation
from controller.core.planning.actions import Action, HoldReason, Plan, ReadInventory, is_read
from controller.core.planning.mechanism import Mechanisms
from controller.core.planning.planner import plan
from controller.core.second_source import SecondSource, with_second_source
from controller.core.verdicts import ends_soon, with_events

PLANS_PER_PASS = 20
"""Each ledger write is followed by a new plan; more in a row than this can wait a moment."""
PASS_AT_LEAST_EVERY_S = 10.0
"""Passes without a reason: they feed the watchdog."""
READ_AGAIN_AFTER = timedelta(seconds=0.5)
"""A read that did not satisfy the plan is not repeated at once."""
GATHER_S = 0.5
"""The longest that a pass waits for reads under way."""
IDLE_FOR = timedelta(seconds=5)
"""With nothing to do for this long, annotations alone are worth a write of the ledger."""
QUIESCE_S = 1.0
"""How long an agent that releases the lease waits for replies to writes that were sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """What one pass, or one ledger write within it, came to."""

    plan: Plan | None
    """None when this agent does not plan: it is a standby, or could not open the ledger."""
    before: Ledger
    after: Ledger


PassListener = Callable[[PassReport], None]


class Reconciler:
    """The reconcile loop of one agent; use as a context manager, which owns its tasks.

    Args:
        watcher: the event document and the clock.
        operator: drain requests and controls.
        configuration: the policy in force.
        tenure: the ledger.
        runner: carries out actions.
        state: what the present tenure has observed; shared with `tenure` and `runner`.
        mechanisms: the ways to take a VM out of rotation.
        dry_run: plan and read, write nothing.
        woken: set when a pass is due; shared with `runner`.
    """

    def __init__(
        self,
        *,
        watcher: EventWatcher,
        operator: OperatorBlobs,
        configuration: ConfigurationInForce,
        tenure: Tenure,
        runner: ActionRunner,
        state: WorkingState,
        mechanisms: Mechanisms,
        dry_run: bool,
        woken: asyncio.Event,
    ) -> None:
        self._watcher, self._operator, self._configuration = watcher, operator, configuration
        self.tenure, self._runner, self._state = tenure, runner, state
        self._mechanisms, self._dry_run, self._woken = mechanisms, dry_run, woken
        self._listeners: list[PassListener] = []
        self._last_document = watcher.document
        self._wake_at: datetime | None = None
        self.plan: Plan | None = None
        self.second_source: Callable[[], SecondSource | None] = lambda: None
        """Returns what Resource Graph has answered; None if it is not asked."""

    def on_pass(self, listener: PassListener) -> None:
        """Call `listener` with every report. It must return at once."""
        self._listeners.append(listener)

    # --- when to run ---

    def wake(self) -> None:
        """Run a pass now."""
        self._woken.set()

    def polled(self) -> None:
        """Run a pass if the poll can have changed anything."""
        document = self._watcher.document
        changed = document != self._last_document
        self._last_document = document
        pending = not all(entry.waits_for_place for entry in self.ledger.entries)
        waiting = pending or ends_soon(self.ledger, document)
        if changed or waiting or self._watcher.failures == 1:
            self._woken.set()

    async def __aenter__(self) -> Self:
        await self._runner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.__aexit__(kind, error, trace)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with self:
            while True:
                self._woken.clear()
                await self.step()
                try:
                    async with asyncio.timeout(self._pause_s()):
                        await self._woken.wait()
                except TimeoutError:
                    pass
                # Reads that began together end together: one ledger write, and one PUT per pool.
                # A plan made after the first read alone would write a shared pool twice.
                await self._runner.wait_until_ended(writes=False, timeout_s=GATHER_S)

    def _pause_s(self) -> float:
        if self._wake_at is None:
            return PASS_AT_LEAST_EVERY_S
        wait_s = (self._wake_at - self._watcher.now()).total_seconds()
        return min(PASS_AT_LEAST_EVERY_S, max(0.01, wait_s))

    @property
    def in_flight(self) -> frozenset[ActionKey]:
        """The targets of the actions under way."""
        return self._runner.in_flight

    async def wait_until_idle(self) -> None:
        """Wait until no action is under way."""
        await self._runner.wait_until_ended()

    async def quiesce(self) -> None:
        """Start no more writes; give those that were sent a moment to get their replies."""
        self.tenure.leave()
        await self._runner.wait_until_ended(reads=False, timeout_s=QUIESCE_S)
        self._runner.cancel()

    # --- one pass ---

    async def step(self) -> PassReport:
        """Run one pass: plan, start actions, write the ledger, and plan again after each write.

        Returns the last report; actions may be under way when it returns.
        """
        before, self._wake_at = self.ledger, None
        if self._dry_run:
            await self.tenure.refresh()
        elif not await self._leads():
            self.plan = None
            return self._report(None, before, before)
        for _ in range(PLANS_PER_PASS):
            before = self.ledger
            planned = self._plan()
            self._wake_at = planned.wake_at
            for action in planned.actions:
                if not self._repeats_read(action):
                    self._runner.start(action)
            wanted = self._idle_ledger(planned) if planned.ledger is None else planned.ledger
            if wanted is None or self._dry_run:
                break
            committed = await self.tenure.commit(wanted)
            self._report(planned, before, self.ledger)
            if not committed:
                break
        return self._report(self.plan, self.ledger, self.ledger)

    async def preview(self, *, rounds: int | None = None) -> Plan:
        """Read what a plan needs, in so many rounds at most, write nothing; return the plan."""
        async with self:
            while True:
                planned = self._plan()
                reads = [action for action in planned.actions if is_read(action)]
                if not reads or rounds == 0:
                    return planned
                rounds = None if rounds is None else rounds - 1
                for action in reads:
                    self._runner.start(action)
                await self._runner.wait_until_ended()

    async def _leads(self) -> bool:
        """Return whether this agent leads, after what a new leader does first."""
        if not self.tenure.leads:
            return False
        if self.tenure.begins:
            self._runner.cancel()
            self._state.reset()
            opened = await self.tenure.open()
            self._wake_at = self.tenure.reopen_at
            return opened
        if self.tenure.overwritten and not await self.tenure.write_again():
            return False
        return not self.tenure.leaving

    def _plan(self) -> Plan:
        policy = self._configuration.policy
        known = (self.observe(), self.ledger, policy, self._watcher.now())
        planned = plan(*known, mechanisms=self._mechanisms)
        planned = self._state.ability.passed(planned, *known, found=self.tenure.no_able_agent)
        if not self._dry_run:
            seen = self._watcher.seen_events.known()
            planned = with_events(planned, *known, seen=seen, mechanisms=self._mechanisms)
            document, now = self._watcher.document, self._watcher.now()
            source = self.second_source()
            planned = with_second_source(planned, self.ledger, source, document, now, seen=seen)
        self.plan = planned
        return planned

    def _idle_ledger(self, planned: Plan) -> Ledger | None:
        """Return a ledger to write for its annotations alone: while nothing is under way or due."""
        soon = self._watcher.now() + IDLE_FOR
        busy = planned.actions or self._runner.in_flight
        if busy or (planned.wake_at and planned.wake_at < soon):
            return None
        return self.tenure.annotated()

    def _repeats_read(self, action: Action) -> bool:
        """Return whether a read would repeat one that did not satisfy the plan a moment ago."""
        if not is_read(action):
            return False
        now, read_at = self._watcher.now(), self._state.read_at
        last = read_at.get(action.target)
        if last is not None and now - READ_AGAIN_AFTER < last <= now:
            again_at = last + READ_AGAIN_AFTER
            self._wake_at = again_at if self._wake_at is None else min(self._wake_at, again_at)
            return True
        read_at[action.target] = now
        return False

    def _report(self, planned: Plan | None, before: Ledger, after: Ledger) -> PassReport:
        report = PassReport(plan=planned, before=before, after=after)
        for listener in self._listeners:
            listener(report)
        return report

    def observe(self) -> Observation:
        """Return what a pass plans from."""
        return self._state.observation(
            watcher=self._watcher,
            operator=self._operator,
            in_flight=self._runner.in_flight,
            pool_ids=self.ledger.pool_ids,
        )

    # --- what others may read ---

    @property
    def ledger(self) -> Ledger:
        """The newest durable ledger."""
        return self.tenure.ledger

    @property
    def cache(self) -> ResourceCache:
        """The VMs, NICs and pools as last read."""
        return self._state.cache

    @property
    def write_limit(self) -> int:
        """How many writes may be in flight at present."""
        return self._state.limit.limit

    @property
    def inventory_period_s(self) -> float:
        """Seconds between two inventories at present."""
        return self._state.inventory.period_s

    @property
    def unread(self) -> str:
        """Why the VMs of the set are not known, or the set does not exist; empty otherwise."""
        reasons = {hold.reason: hold.message for hold in (self.plan.holds if self.plan else ())}
        if HoldReason.SET_MISSING.value in reasons:
            return reasons[HoldReason.SET_MISSING.value]
        if self._state.cache.inventory_at is not None:
            return ""
        if HoldReason.INVENTORY_UNREAD.value in reasons:
            return reasons[HoldReason.INVENTORY_UNREAD.value]
        if self._state.retries.failures.get(ReadInventory().key):
            return "the VMs of the set cannot be read yet: Azure is busy, the agent tries again"
        return "the VMs of the set have not been read yet"
