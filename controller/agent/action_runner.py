"""Carry out the actions of a plan: one task per target, so that no slow write delays another VM.

A failure leads to a back-off of the action's key, and to the `core.backoff.reaction`. Writes leave
past a guard (`change_guards`).
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, assert_never

from controller.agent.acknowledger import Acknowledger
from controller.agent.change_guards import ChangeGuards
from controller.agent.inventory_reader import InventoryReader
from controller.agent.mechanism_adapter import Adapters
from controller.agent.read_ways import request_key
from controller.agent.retry_schedule import is_logged
from controller.agent.tenure import Tenure
from controller.agent.working_state import WorkingState
from controller.azure.http.error_mapping import refused
from controller.clock import Clock
from controller.core.ability import operation_of
from controller.core.acknowledge_channel import Channel
from controller.core.action_keys import ActionKey
from controller.core.azure_names import fold
from controller.core.backoff import pause_s, reaction
from controller.core.ledger import Ledger
from controller.core.planning.actions import (
    Acknowledge,
    Action,
    ChangeMembership,
    PublishShare,
    ReadInventory,
    ReadLoadBalancer,
    ReadNic,
    ReadPower,
    ReadRuleHealth,
    ReadSharedPool,
    ReadView,
    ReadVmReport,
    is_read,
)
from controller.core.presence import ONE_REPLY, UNKNOWN
from controller.core.resources import NicMembership, PowerState, Vm
from controller.core.vm_report import SeenReport, VmReport
from controller.errors import (
    ControllerError,
    InvariantViolation,
    LeaseLost,
)
from controller.observability.logs import log
from controller.storage.shared_pool_store import SharedPoolStore

logger = logging.getLogger("lbdrain.reconcile")

ACKNOWLEDGE_AGAIN_S = 10.0
"""An acknowledgement is repeated after this many seconds, until its event starts."""


ReadReport = Callable[[str], Awaitable[VmReport | None]]
"""Reads what the agent of the VM with this name reports; None without a report."""


class ActionRunner:
    """Runs actions as tasks; use as a context manager, which owns the tasks.

    Args:
        acknowledger: sends acknowledgements.
        inventory: reads the set and its parts.
        state: where results and failures go.
        tenure: the ledger, and the number of the present tenure.
        guards: make the guards of writes.
        adapters: carry out the writes of each mechanism.
        shared_pools: what other availability sets state about pools that they share with this one.
        reports: reads what the agent of a VM reports.
        clock: wall clock, corrected, and monotonic clock.
        entropy: source of jitter.
        writes: False for a dry run, which only reads.
        wake: asks for a pass; called when an action has ended.
    """

    def __init__(
        self,
        *,
        acknowledger: Acknowledger,
        inventory: InventoryReader,
        state: WorkingState,
        tenure: Tenure,
        guards: ChangeGuards,
        adapters: Adapters,
        shared_pools: SharedPoolStore,
        reports: ReadReport,
        clock: Clock,
        entropy: random.Random,
        writes: bool,
        wake: Callable[[], None],
    ) -> None:
        self._acknowledger, self._inventory = acknowledger, inventory
        self._state, self._tenure = state, tenure
        self._guards, self._adapters = guards, adapters
        self._shared_pools, self._reports = shared_pools, reports
        self._clock, self._entropy = clock, entropy
        self._writes, self._wake = writes, wake
        self._tasks: dict[ActionKey, asyncio.Task[None]] = {}

    # --- tasks ---

    async def __aenter__(self) -> Self:
        # In a task group, so that an unforeseen error ends the agent instead of vanishing.
        self._group = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._group.__aexit__(kind, error, trace)

    @property
    def in_flight(self) -> frozenset[ActionKey]:
        """The targets of the actions under way."""
        return frozenset(self._tasks)

    def start(self, action: Action) -> None:
        """Start an action, unless one on the same target is under way."""
        if action.target in self._tasks or not (self._writes or is_read(action)):
            return
        task = self._group.create_task(
            self._run(action, self._tenure.number), name=str(action.target)
        )
        self._tasks[action.target] = task
        task.add_done_callback(lambda done: self._ended(action.target, done))

    async def wait_until_ended(
        self, *, reads: bool = True, writes: bool = True, timeout_s: float | None = None
    ) -> None:
        """Wait until the actions under way have ended, at most for `timeout_s` seconds."""
        optional = reads and writes
        wanted = {"read": reads, "health": optional, "report": optional}
        tasks = [task for target, task in self._tasks.items() if wanted.get(target.kind, writes)]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)

    def cancel(self) -> None:
        """Cancel every action under way."""
        for task in list(self._tasks.values()):
            task.cancel()

    def _ended(self, target: ActionKey, task: asyncio.Task[None]) -> None:
        if self._tasks.get(target) is task:
            del self._tasks[target]
        self._wake()

    async def _run(self, action: Action, tenure: int) -> None:
        self._state.writes.starting(action.target)
        ability = self._state.ability
        ability.began(operation_of(action), action.key)
        try:
            unread = await self._apply(action, tenure)
        except InvariantViolation:
            raise
        except LeaseLost:
            self._wake()
        except ControllerError as error:
            ability.failed(action.key, error, absent=self._names_absent(action))
            self._react(action, error)
        else:
            if unread is None:
                ability.succeeded(action.key)
            else:
                ability.failed(action.key, unread)  # another agent may be able to read it
            self._succeeded(action)
        finally:
            ability.dropped(action.key)

    def _names_absent(self, action: Action) -> bool:
        """Return whether a write names a pool that the newest reply about it does not show."""
        presence = self._state.cache.presence
        return isinstance(action, ChangeMembership) and any(
            ONE_REPLY.holds(presence.get(fold(membership.pool_id), UNKNOWN))
            for membership in action.memberships
        )

    def _succeeded(self, action: Action) -> None:
        """Forget the failures that a success ends."""
        if isinstance(action, ChangeMembership):
            for key in action.proven_keys:
                self._state.retries.clear(key)
        elif not isinstance(action, Acknowledge):
            self._state.retries.clear(action.key)

    # --- actions ---

    async def _apply(self, action: Action, tenure: int) -> ControllerError | None:
        match action:
            case ReadLoadBalancer():
                await self._inventory.load_balancer(action.load_balancer_id)
            case ReadNic():
                await self._inventory.nic(action)
            case ReadPower():
                await self._read_power(action)
            case ReadInventory():
                return await self._inventory.read()
            case ReadView():
                await self._adapters[action.mechanism].read(action.resource_id)
            case ChangeMembership():
                await self._change(action, tenure)
            case Acknowledge():
                await self._acknowledge(action, tenure)
            case ReadRuleHealth():
                await self._inventory.rule_health(action.load_balancer_id)
            case ReadSharedPool():
                self._state.cache.put_shared_pool(await self._shared_pools.read(action.pool_id))
            case ReadVmReport():
                seen = SeenReport(await self._reports(action.vm), self._clock.now())
                self._state.cache.reports[fold(action.vm)] = seen
            case PublishShare():
                await self._publish(action, tenure)
            case _:
                assert_never(action)
        return None

    async def _read_power(self, action: ReadPower) -> None:
        power = await self._inventory.power(action)
        self._state.cache.put_power(self._vm(action.vm_id), power, self._clock.now())

    def _vm(self, vm_id: str) -> Vm:
        """Return what is known of a VM, in the set, outside it, or only in the ledger."""
        cache = self._state.cache
        for vm in (*cache.vms, *cache.former):
            if fold(vm.vm_id) == fold(vm_id):
                return vm
        entries = self._tenure.ledger.entries
        entry = next((each for each in entries if fold(each.vm_id) == fold(vm_id)), None)
        name = entry.vm if entry else vm_id.rsplit("/", 1)[-1]
        return Vm(name=name, vm_id=vm_id, nic_ids=(), power=PowerState.UNKNOWN)

    async def _change(self, action: ChangeMembership, tenure: int) -> None:
        failed = self._state.retries.failures.get(action.key, 0)
        if is_logged(failed + 1):
            again = f", attempt {failed + 1}" if failed else ""
            message, outcome = f"{action}{again}", "retry" if failed else None
            log(
                logger,
                logging.INFO,
                message,
                event="write_started",
                action=action.verb,
                outcome=outcome,
            )
        guard, begun = self._guards.for_change(action, tenure), self._clock.monotonic()
        seen_at = await self._adapters[action.method.name].apply(action, guard)
        self._state.writes.ended(action.target, action.resource_id, seen_at)
        self._state.writes.took(self._clock.monotonic() - begun)
        self._state.limit = self._state.limit.succeeded()
        self._state.throttled = 0
        if failed:
            message = f"{action}: done at attempt {failed + 1}"
            log(logger, logging.INFO, message, event="write_succeeded", action=action.verb)

    async def _publish(self, action: PublishShare, tenure: int) -> None:
        guard = self._guards.of_tenure(tenure)
        self._state.cache.put_shared_pool(await self._shared_pools.publish(action, guard))

    async def _acknowledge(self, action: Acknowledge, tenure: int) -> None:
        guard = self._guards.for_acknowledgement(action, tenure, lambda: self.in_flight)
        channel = await self._acknowledger.send(action.event_id, guard)
        now, event_id = self._clock.now(), action.event_id
        if fold(event_id) not in self._state.acknowledged:
            message = str(action) if channel is Channel.IMDS else f"{action} through {channel}"
            log(logger, logging.INFO, message, event="acknowledgement_sent", event_id=event_id)
        self._state.acknowledged[fold(event_id)] = now
        self._state.retries.clear(action.key)
        self._state.retries.defer(action.key, wait_s=ACKNOWLEDGE_AGAIN_S, reason="acknowledged")

    # --- failures ---

    def _react(self, action: Action, error: ControllerError) -> None:
        """Apply `core.backoff.reaction`, then back off."""
        state, now = self._state, self._clock.now()
        todo = reaction(action, error, refused=refused(error))
        if todo.later_s is not None:
            state.retries.defer(action.key, wait_s=todo.later_s, reason=type(error).__name__)
            return
        if todo.mark_absent and isinstance(action, ReadNic):
            state.cache.mark_absent(action.nic_id, now)
            if _is_lost(self._tenure.ledger, action.nic_id):
                return  # a check of what is held already: the planner decides when to repeat it
        if todo.mark_absent and isinstance(action, ReadLoadBalancer):
            state.cache.mark_load_balancer_absent(action.load_balancer_id, now)
        if todo.forget_body and isinstance(action, ChangeMembership):
            self._adapters[action.method.name].forget_body(action.resource_id)
        if todo.forget_body and isinstance(action, PublishShare):
            state.cache.outdate_shared_pool(action.pool_id)
        if todo.defer_read_s is not None and isinstance(action, ChangeMembership):
            key, reason = request_key(action.shown_by.key.resource, "get"), type(error).__name__
            state.retries.defer(key, wait_s=todo.defer_read_s, reason=reason, asked=True)
        for read in todo.reread:
            self.start(read)
        if todo.unsent:  # from here on, what leaves the pool was removed by an operator
            state.writes.refused(action.target)
        if todo.fewer_writes:
            state.limit = state.limit.conflicted()
        if todo.pause_writes:
            state.throttled += 1
            wait_s = pause_s(error, throttled=state.throttled, jitter=self._entropy.random())
            state.paused_until = self._clock.monotonic() + wait_s
        hold = not self._acknowledger.has_another_way(action)
        state.retries.failed(action.key, error, what=str(action), hold=hold)


def _is_lost(ledger: Ledger, nic_id: str) -> bool:
    lost = (m for entry in ledger.entries for m in entry.lost)
    return any(isinstance(m, NicMembership) and fold(m.nic_id) == fold(nic_id) for m in lost)
