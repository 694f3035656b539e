"""Reconcile: observe, plan, apply. Owns no decisions; those are `core.planner.plan`.

One pass plans; what it plans runs in tasks of its own, at most one per target, so that neither the
poll nor another VM waits for a slow write. The ledger is written by the pass itself, one write at a
time, and the actions that need it are planned by the pass after.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import assert_never

from controller.azure.compute import Compute
from controller.azure.failures import refused
from controller.azure.imds import Imds
from controller.azure.network import Network
from controller.core.actions import (
    Acknowledge,
    Action,
    ChangeNic,
    ChangePool,
    Plan,
    ReadInventory,
    ReadLoadBalancer,
    ReadNic,
    ReadPower,
)
from controller.core.ledger import Ledger
from controller.core.model import (
    EventDocument,
    Key,
    LoadBalancer,
    Membership,
    Observation,
    Policy,
    PowerState,
    Vm,
    fold,
    load_balancer_of,
    short,
)
from controller.core.pacing import Pace, backoff_s
from controller.core.planner import FRESH_S, plan
from controller.core.sent import Sent
from controller.elector import Elector
from controller.errors import (
    Busy,
    ConfigError,
    Conflict,
    ContractViolation,
    ControllerError,
    InvariantViolation,
    LeaseLost,
    NotFound,
    OutcomeUnknown,
    Throttled,
    told_s,
)
from controller.home import refuse_basic
from controller.ledger_store import LedgerStore
from controller.logs import log
from controller.request_store import RequestWatch
from controller.views import Deferrals, Views
from controller.watcher import Watcher

logger = logging.getLogger(__name__)

PLANS_PER_PASS = 20
"""Each ledger write is followed by a new plan; more in a row than this can wait a moment."""
OPEN_LEDGER_TRIES = 5
"""A leader that cannot open the ledger so often in a row leaves the lease to others."""
PASS_AT_LEAST_EVERY_S = 10.0
"""Passes without a reason: they feed the watchdog."""
IDLE_READS_PER_HOUR = 48
"""Inventories of an idle set stay below this many ARM reads an hour, however large it is."""
INVENTORY_S = 300.0
HOLE_S = 15.0
"""After so long an inventory is read again of which a part could not be read."""
READ_AGAIN_AFTER = timedelta(seconds=0.5)
"""A read that did not satisfy the plan is not repeated at once."""
GATHER_S = 0.5
"""The longest that a pass waits for reads under way."""
LIST_PAGE = 50
"""The smallest page in which a list is assumed to come; every page is a read."""
ACKNOWLEDGE_AGAIN_S = 10.0
QUIET_S = 5.0
"""Without anything to do for so long, there is time to note what people were told."""
QUIESCE_S = 1.0
"""How long a leaving leader waits for replies to writes that were sent."""
LEDGER = "write:ledger"


class Reconciler:
    """The reconcile loop of one agent.

    Args:
        report: called after every pass with the plan, or None when a pass failed or the agent is
            a standby.
        mark: returns the ledger with what people were told; it must be quick and never fail.
    """

    def __init__(
        self,
        *,
        imds: Imds,
        compute: Compute,
        network: Network,
        store: LedgerStore,
        watcher: Watcher,
        requests: RequestWatch,
        policy: Policy,
        vm: str,
        availability_set_id: str,
        max_parallel_writes: int,
        dry_run: bool,
        entropy: random.Random,
        report: Callable[[Plan | None, Ledger, Ledger], None],
        mark: Callable[[Ledger], Ledger],
    ) -> None:
        self._imds, self._compute, self._network = imds, compute, network
        self._store, self._watcher, self._policy = store, watcher, policy
        self._requests = requests
        self._vm, self._availability_set_id = vm, availability_set_id
        self._dry_run, self._entropy, self._report = dry_run, entropy, report
        self._mark = mark
        self._woken = asyncio.Event()
        self._last_document: EventDocument | None = None
        self._wake_at: datetime | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._most_writes = max_parallel_writes
        self._elector: Elector | None = None
        self._tenure = 0
        self._leaving = False
        self._unopened = 0
        self.plan: Plan | None = None
        self._start_over()

    def _start_over(self) -> None:
        """Forget everything but the ledger: a new tenure starts from observation."""
        for task in self._tasks.values():
            task.cancel()
        self.views = Views(self._policy.pools)
        self.deferrals = Deferrals(self._watcher.clock)
        self.pace = Pace.starting_at(self._most_writes)
        self._quiet_until = 0.0
        """Until when no write may start; monotonic seconds."""
        self._read_at: dict[str, datetime] = {}
        self.inventory_period_s = INVENTORY_S
        self._holes = self._apart_failures = 0
        self._sent = Sent()
        self._acknowledged: dict[str, datetime] = {}

    def attach(self, elector: Elector) -> None:
        """Join the election that lets writes pass. Without one (dry run) nothing is written."""
        self._elector = elector

    def wake(self) -> None:
        """Run a pass now."""
        self._woken.set()

    def polled(self) -> None:
        """Run a pass if the poll can have changed anything."""
        document = self._watcher.document
        changed = document != self._last_document
        self._last_document = document
        if changed or self.ledger.entries or self._watcher.failures == 1:
            self._woken.set()

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            while True:
                self._woken.clear()
                await self._pass()
                try:
                    async with asyncio.timeout(self._pause_s()):
                        await self._woken.wait()
                except TimeoutError:
                    pass
                await self._gather_reads()

    async def _gather_reads(self) -> None:
        """Let reads that began together end together: one ledger write, and one PUT per pool.

        Planned from the first of them, a shared pool would be written twice, one after the other.
        """
        reading = [task for target, task in self._tasks.items() if target.startswith("read:")]
        if reading:
            await asyncio.wait(reading, timeout=GATHER_S)

    async def quiesce(self) -> None:
        """Start no more writes; give those that were sent a moment to get their replies."""
        self._leaving = True
        writing = [t for target, t in self._tasks.items() if not target.startswith("read:")]
        if writing:
            await asyncio.wait(writing, timeout=QUIESCE_S)
        for task in list(self._tasks.values()):
            task.cancel()

    def _pause_s(self) -> float:
        if self._wake_at is None:
            return PASS_AT_LEAST_EVERY_S
        wait_s = (self._wake_at - self._watcher.now()).total_seconds()
        return min(PASS_AT_LEAST_EVERY_S, max(0.01, wait_s))

    # --- one pass ---

    async def look_once(self) -> Plan:
        """Read whatever a plan needs, write nothing, and return the plan."""
        async with asyncio.TaskGroup() as self._group:
            while True:
                self.plan = plan(self._observe(), self.ledger, self._policy, self._watcher.now())
                reads = [action for action in self.plan.actions if _reads(action)]
                if not reads:
                    return self.plan
                for action in reads:
                    self._start(action)
                await asyncio.wait(self._tasks.values())

    async def _pass(self) -> None:
        before = self.ledger
        self._wake_at = None
        if self._dry_run:
            await self._refresh_ledger()
        elif not await self._in_office():
            self.plan = None
            self._report(None, before, before)
            return
        for _ in range(PLANS_PER_PASS):
            before = self.ledger
            self.plan = plan(self._observe(), self.ledger, self._policy, self._watcher.now())
            self._wake_at = self.plan.wake_at
            for action in self.plan.actions:
                if not self._just_read(action):
                    self._start(action)
            wanted = self._wanted_ledger(self.plan)
            if wanted is None or self._dry_run:
                break
            written = LEDGER not in self.deferrals.active and await self._write_ledger(wanted)
            self._report(self.plan, before, self.ledger)
            if not written:
                break
        self._report(self.plan, self.ledger, self.ledger)

    def _wanted_ledger(self, planned: Plan) -> Ledger | None:
        """Return the ledger to write, if any; what people were told rides along.

        By itself it is written only while nothing is under way or due: people can wait.
        """
        if planned.ledger is not None:
            return self._mark(planned.ledger)
        soon = self._watcher.now() + timedelta(seconds=QUIET_S)
        if planned.actions or self._tasks or (planned.wake_at and planned.wake_at < soon):
            return None
        marked = self._mark(self.ledger)
        return None if marked is self.ledger else marked

    def _just_read(self, action: Action) -> bool:
        """Tell whether a read would repeat one that did not satisfy the plan a moment ago."""
        if not _reads(action):
            return False
        now = self._watcher.now()
        last = self._read_at.get(action.target)
        if last is not None and now - READ_AGAIN_AFTER < last <= now:
            again_at = last + READ_AGAIN_AFTER
            self._wake_at = again_at if self._wake_at is None else min(self._wake_at, again_at)
            return True
        self._read_at[action.target] = now
        return False

    async def _in_office(self) -> bool:
        """Tell whether this agent leads, after doing what a new leader does first."""
        elector = self._elector
        if elector is None or not elector.leading:
            return False
        if elector.hands_over:
            # A leader that drained its own VM first could lose its way to storage, and the lease
            # with it: nobody could take over before it expires.
            elector.wake()
            return False
        if elector.tenures != self._tenure:
            self._start_over()
            if not await self._take_office(elector):
                return False
        return not self._leaving

    async def _take_office(self, elector: Elector) -> bool:
        """Open the ledger under the next epoch (law S4)."""
        tenure = elector.tenures
        try:
            await self._store.open(elector, vm=self._vm, now=self._watcher.now())
        except ContractViolation as error:
            self._unreadable(error, elector)
            return False
        except LeaseLost as error:
            elector.lost(str(error))
            return False
        except ControllerError as error:
            self._unopened += 1
            if self._unopened == 1:
                message = f"the ledger cannot be opened: {error}"
                log(logger, logging.WARNING, message, event="ledger", outcome=type(error).__name__)
            elif self._unopened == OPEN_LEDGER_TRIES:
                self._unopened = 0
                elector.resign()
            self._wake_at = self._watcher.now() + timedelta(seconds=1)
            return False
        self._unopened, self._tenure, self._leaving = 0, tenure, False
        epoch, entries = self.ledger.epoch, len(self.ledger.entries)
        message = f"leads with epoch {epoch}, {entries} entries in the ledger"
        log(logger, logging.INFO, message, event="leader", epoch=epoch)
        return True

    def _observe(self) -> Observation:
        self.views.watch(m.pool_id for entry in self.ledger.entries for m in entry.memberships)
        busy = sum(1 for target in self._tasks if target.startswith("write:"))
        quiet = self._quiet_until > self._watcher.clock.monotonic()
        return Observation(
            document=self._watcher.document,
            document_at=self._watcher.document_at,
            clean_documents=self._watcher.clean_documents,
            vms=self.views.vms,
            former=self.views.former,
            nics=self.views.nics,
            pools=self.views.pools,
            inventory_at=self.views.inventory_at,
            inventory_period_s=self.inventory_period_s,
            in_flight=frozenset(self._tasks),
            deferred=self.deferrals.active,
            unsent=self._sent.unsent,
            absent=self.views.absent,
            missing=frozenset(self.views.missing),
            acknowledged=dict(self._acknowledged),
            attempts=self.deferrals.failures,
            sent_at=dict(self._sent.at),
            ended_at=dict(self._sent.ended_at),
            requests=self._requests.requests,
            write_slots=0 if quiet else max(0, self.pace.limit - busy),
        )

    # --- the ledger ---

    @property
    def ledger(self) -> Ledger:
        """The newest durable ledger."""
        return self._store.ledger

    @property
    def lease_state(self) -> str:
        """The lease as storage named it when the ledger was last read."""
        return self._store.lease_state

    async def _refresh_ledger(self) -> None:
        """Read what the real leader, if there is one, has written; for a dry run."""
        try:
            await self._store.read()
        except ControllerError as error:
            self._back_off(LEDGER, error, what="the ledger could not be read")

    async def _write_ledger(self, wanted: Ledger) -> bool:
        """Make a ledger durable; tell whether to plan again at once."""
        elector, before = self._elector, self.ledger
        if elector is None or not elector.leading or elector.tenures != self._tenure:
            return False
        if self._leaving:
            return False
        try:
            if not await self._store.write(wanted, elector):
                log(logger, logging.WARNING, "the ledger holds something else", event="ledger")
        except ContractViolation as error:
            self._unreadable(error, elector)
            return False
        except LeaseLost as error:
            elector.lost(str(error))
            return False
        except ControllerError as error:
            self._back_off(LEDGER, error, what="the ledger could not be written")
            return False
        self.deferrals.clear(LEDGER)
        self._sent.recorded(before, self.ledger)
        return True

    def _unreadable(self, error: ContractViolation, elector: Elector) -> None:
        log(logger, logging.ERROR, str(error), event="ledger", outcome="held")
        elector.resign()

    # --- applying ---

    def _start(self, action: Action) -> None:
        if action.target in self._tasks or (self._dry_run and not _reads(action)):
            return
        # In a task group, so that an error nobody foresaw ends the agent instead of vanishing.
        task = self._group.create_task(self._run(action, self._tenure), name=action.target)
        self._tasks[action.target] = task
        task.add_done_callback(lambda done: self._ended(action.target, done))

    def _ended(self, target: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(target) is task:
            del self._tasks[target]
        self._woken.set()

    async def _run(self, action: Action, tenure: int) -> None:
        """Carry out one action; every failure becomes a deferral of its target."""
        try:
            await self._apply(action, tenure)
        except (InvariantViolation, ConfigError):
            raise
        except LeaseLost:
            self.wake()
        except ControllerError as error:
            self._failed(action, error)
        else:
            if not isinstance(action, Acknowledge):
                self.deferrals.clear(action.key)

    async def _apply(self, action: Action, tenure: int) -> None:
        now = self._watcher.now
        self._sent.begins(action.target)
        match action:
            case ReadLoadBalancer():
                self._saw(await self._network.load_balancer(action.load_balancer_id))
            case ReadNic():
                self.views.saw_nic(await self._network.nic(action.nic_id))
            case ReadPower():
                power = await self._compute.power(action.vm_id)
                self.views.saw_power(self._vm_called(action.vm_id), power, now())
            case ReadInventory():
                await self._read_inventory()
            case ChangeNic():
                await self._change_nic(action, tenure)
            case ChangePool():
                await self._change_pool(action, tenure)
            case Acknowledge():
                await self._acknowledge(action, tenure)
            case _:
                assert_never(action)

    def _saw(self, load_balancer: LoadBalancer) -> None:
        refuse_basic(load_balancer)
        self.views.saw_load_balancer(load_balancer)

    def _vm_called(self, vm_id: str) -> Vm:
        for vm in (*self.views.vms, *self.views.former):
            if fold(vm.vm_id) == fold(vm_id):
                return vm
        entry = next((e for e in self.ledger.entries if fold(e.vm_id) == fold(vm_id)), None)
        name = entry.vm if entry else vm_id.rsplit("/", 1)[-1]
        return Vm(name=name, vm_id=vm_id, nic_ids=(), power=PowerState.UNKNOWN)

    async def _read_inventory(self) -> None:
        """Read everything: the set, its VMs, their NICs by list, and the load balancers.

        Part by part: what cannot be read says so by its own deferral and hides nothing else.
        """
        at = self._watcher.now()
        vms = await self._compute.members(self._availability_set_id)
        groups: dict[str, list[str]] = {}
        for nic_id in sorted(nic_id for vm in vms for nic_id in vm.nic_ids):
            groups.setdefault(nic_id.casefold().split("/providers/")[0], []).append(nic_id)
        seen = 0
        failures = self._apart_failures
        for group, nic_ids in groups.items():
            if self._told_to_wait(f"read:{group}"):
                continue
            with self._apart(f"read:{group}", f"read the NICs of {short(group)}"):
                nics = await self._network.nics_in(nic_ids)
                self.views.saw_nics(nics)
                seen += len(nics)
        recorded = [m.pool_id for entry in self.ledger.entries for m in entry.memberships]
        pool_ids = (*self._policy.pools, *recorded)
        owners = {fold(load_balancer_of(p)): load_balancer_of(p) for p in pool_ids}
        for key in sorted(owners):
            read = ReadLoadBalancer(owners[key])
            if self._told_to_wait(read.key):
                continue
            with self._apart(read.key, str(read)):
                try:
                    self._saw(await self._network.load_balancer(owners[key]))
                except NotFound:
                    self.views.lost_load_balancer(owners[key], self._watcher.now())
        self.views.saw_vms(vms, at)
        pages = len(vms) // LIST_PAGE + len(groups) + seen // LIST_PAGE
        reads = 2 + pages + len(owners)
        self.inventory_period_s = max(INVENTORY_S, reads * 3600 / IDLE_READS_PER_HOUR)
        # What has holes is read again soon, and then less and less often.
        self._holes = self._holes + 1 if self._apart_failures > failures else 0
        if self._holes:
            soon_s = HOLE_S * 2.0 ** min(self._holes - 1, 10)
            self.inventory_period_s = min(self.inventory_period_s, soon_s)

    def _told_to_wait(self, key: str) -> bool:
        """Tell whether a part of the inventory has to be left out for now."""
        waits = key in self.deferrals.active
        self._apart_failures += waits
        return waits

    @contextmanager
    def _apart(self, key: str, what: str) -> Generator[None]:
        """Let one part fail on its own."""
        try:
            yield
        except (InvariantViolation, ConfigError):
            raise
        except ControllerError as error:
            self._apart_failures += 1
            self._back_off(key, error, what=what)
        else:
            self.deferrals.clear(key)

    def _fence(
        self,
        action: ChangeNic | ChangePool | Acknowledge,
        tenure: int,
        absent: tuple[Membership, ...] = (),
    ) -> None:
        """Checked immediately before the bytes of a write leave, which spare what is absent."""
        if self._elector is None or self._leaving or self._elector.tenures != tenure:
            raise LeaseLost("this agent does not lead any more")
        self._elector.fence()
        if isinstance(action, Acknowledge):
            return
        if action.restore:
            self._check_unthreatened({membership.key for membership in action.memberships})
        resource_id = action.nic_id if isinstance(action, ChangeNic) else action.pool_id
        changed = [membership for membership in action.memberships if membership not in absent]
        self._sent.leaves(action.target, resource_id, changed, self._watcher.now())

    def _check_unthreatened(self, keys: set[Key]) -> None:
        """Law S6: the VM may have been wanted out again since the restore was planned."""
        document, now = self._watcher.document, self._watcher.now()
        for entry in self.ledger.entries:
            if any(entry.holds(key) for key in keys):
                for request in self._requests.requests or ():
                    if request.wants(entry.vm, now):
                        raise Conflict(f"{entry.vm} was asked for meanwhile")
                for event in document.events if document else ():
                    if event.affects(entry.vm) and self._policy.impacting(event):
                        raise Conflict(f"an event for {entry.vm} was announced meanwhile")

    async def _change_nic(self, action: ChangeNic, tenure: int) -> None:
        known = self.views.nic(action.nic_id)
        age_s = (self._watcher.now() - known.observed_at).total_seconds() if known else FRESH_S
        usable = known if known is not None and known.body and 0 <= age_s < FRESH_S else None
        log(logger, logging.INFO, str(action), event="write", action=action.verb)

        def fence(absent: tuple[Membership, ...]) -> None:
            self._fence(action, tenure, absent)

        if action.restore:
            nic = await self._network.restore_to_nic(action.nic_id, action.memberships, fence)
        else:
            nic = await self._network.remove_from_nic(
                usable, action.nic_id, action.memberships, fence
            )
            if nic is usable:
                # Nothing to remove by this view; a newer one of the pool said otherwise.
                nic = await self._network.remove_from_nic(
                    None, action.nic_id, action.memberships, fence
                )
        self.views.saw_nic(nic)
        self._sent.ended(action.target, nic.nic_id, nic.observed_at)
        self.pace = self.pace.succeeded()

    async def _change_pool(self, action: ChangePool, tenure: int) -> None:
        log(logger, logging.INFO, str(action), event="write", action=action.verb)

        def fence(absent: tuple[Membership, ...]) -> None:
            self._fence(action, tenure, absent)

        write = self._network.restore_to_pool if action.restore else self._network.remove_from_pool
        pool = await write(action.pool_id, action.memberships, fence)
        self.views.saw_pool(pool)
        self._sent.ended(action.target, pool.pool_id, pool.observed_at)
        self.pace = self.pace.succeeded()

    async def _acknowledge(self, action: Acknowledge, tenure: int) -> None:
        await self._imds.acknowledge([action.event_id], lambda: self._fence(action, tenure))
        now = self._watcher.now()
        key = fold(action.event_id)
        if key not in self._acknowledged:
            event_id = action.event_id
            log(logger, logging.INFO, str(action), event="write", event_id=event_id)
            self._acknowledged[key] = now
        self.deferrals.clear(action.key)
        self.deferrals.defer(action.key, wait_s=ACKNOWLEDGE_AGAIN_S, reason="acknowledged")

    # --- failures ---

    def _failed(self, action: Action, error: ControllerError) -> None:
        now = self._watcher.now()
        if isinstance(error, NotFound):
            self._not_found(action, now)
        if isinstance(action, ChangeNic):
            self.views.forget_nic_body(action.nic_id)
            if isinstance(error, OutcomeUnknown) and (asked_s := told_s(error)) is not None:
                # It was the NIC's reader, at the end of the write, that was asked for patience.
                read = ReadNic(action.nic_id).key
                self.deferrals.defer(read, wait_s=asked_s, reason=type(error).__name__)
            if action.restore and refused(error) and not isinstance(error, Conflict | Throttled):
                # Azure refuses a reference to a deleted pool, and does not say so plainly.
                for owner in sorted({load_balancer_of(m.pool_id) for m in action.memberships}):
                    self._start(ReadLoadBalancer(owner))
        if isinstance(action, ChangeNic | ChangePool) and refused(error):
            self._sent.refused(action.target)  # what goes from here on an operator takes away
        if isinstance(error, Busy):
            self.pace = self.pace.conflicted()
        if isinstance(error, Throttled) and isinstance(action, ChangeNic | ChangePool):
            wait_s = error.retry_after_s or backoff_s(1, jitter=self._entropy.random())
            self._quiet_until = self._watcher.clock.monotonic() + wait_s
        self._back_off(action.key, error, what=str(action))

    def _not_found(self, action: Action, now: datetime) -> None:
        """Take note of a 404 of a read; one of a write may mean anything and asks for a read."""
        match action:
            case ReadNic():
                self.views.did_not_see(action.nic_id, now)
            case ReadLoadBalancer():
                self.views.lost_load_balancer(action.load_balancer_id, now)
            case ChangeNic():
                self._start(ReadNic(action.nic_id))
            case ChangePool():
                self._start(ReadLoadBalancer(load_balancer_of(action.pool_id)))
            case _:
                pass

    def _back_off(self, key: str, error: ControllerError, *, what: str) -> None:
        attempts = self.deferrals.attempts(key)
        wait_s = backoff_s(attempts, jitter=self._entropy.random())
        if (asked_s := told_s(error)) is not None:
            wait_s = asked_s + 0.2 * self._entropy.random()
        # Conflicts and throttling are the weather of a busy set; they are told when they last.
        weather = isinstance(error, Conflict | Throttled) and attempts < 5
        self.deferrals.defer(
            key,
            wait_s=wait_s,
            reason=type(error).__name__,
            message="" if weather else f"{what}: {error}",
        )
        if attempts == 1 or attempts % 10 == 0:
            level = logging.INFO if weather else logging.WARNING
            message = f"{what}: {error}"
            log(logger, level, message, event="failure", outcome=type(error).__name__)
        self._woken.set()


def _reads(action: Action) -> bool:
    return isinstance(action, ReadLoadBalancer | ReadNic | ReadPower | ReadInventory)
