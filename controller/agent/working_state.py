"""What one tenure has observed, sent and met: shared by the parts of the reconcile loop.

It lives in memory only. A new tenure starts from observation and the ledger, so it starts with a
fresh state: `reset`. Two things last: what Azure asked to wait for, and what the agent has shown
that it can do.
"""

import random
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from controller.agent.ability_watch import AbilityWatch
from controller.agent.event_watcher import EventWatcher
from controller.agent.inventory_schedule import InventorySchedule
from controller.agent.operator_blobs import OperatorBlobs
from controller.agent.resource_cache import ResourceCache, all_rules
from controller.agent.retry_schedule import BackoffTable
from controller.agent.set_read import SetRead
from controller.clock import Clock
from controller.core.action_keys import ActionKey
from controller.core.backoff import ConcurrencyLimit
from controller.core.ledger import CLOCK_SKEW
from controller.core.observation import Observation
from controller.core.planning.write_log import WriteLog


class WorkingState:
    """The parts share this object and read its attributes at each use: `reset` replaces them.

    Args:
        clock: wall and monotonic clock.
        entropy: source of jitter.
        pool_ids: the managed pools.
        max_parallel_writes: the operator's limit on writes in flight.
        ability: what this agent has shown that it can do.
        wake: asks for a pass; called when a back-off was recorded.
    """

    cache: ResourceCache
    retries: BackoffTable
    limit: ConcurrencyLimit
    writes: WriteLog
    inventory: InventorySchedule
    unread: dict[ActionKey, str]
    """What the newest inventory could not read, and why, as operators have to know it."""
    set_read: SetRead
    acknowledged: dict[str, datetime]
    """When the acknowledgement of an event (folded id) was accepted."""
    read_at: dict[ActionKey, datetime]
    """When a read of a target was last started by a pass."""
    throttled: int
    """How many writes Azure throttled in a row."""
    paused_until: float
    """Until when no write may start; monotonic seconds."""

    def __init__(
        self,
        *,
        clock: Clock,
        entropy: random.Random,
        pool_ids: Iterable[str],
        max_parallel_writes: int,
        ability: AbilityWatch,
        wake: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._pool_ids, self._max_parallel_writes = tuple(pool_ids), max_parallel_writes
        self.ability = ability
        self.throttled = 0
        self.paused_until = 0.0
        self.retries = BackoffTable(clock, entropy=entropy, on_failure=wake)
        self.reset()

    def reset(self) -> None:
        """Forget everything but the waits that Azure has asked for."""
        self._began_at = self._clock.monotonic()
        self.cache = ResourceCache(self._pool_ids)
        self.retries = self.retries.only_asked()
        self.limit = ConcurrencyLimit.starting_at(self._max_parallel_writes)
        self.writes = WriteLog()
        self.inventory = InventorySchedule()
        self.unread = {}
        self.set_read = SetRead()
        self.acknowledged = {}
        self.read_at = {}

    def still_unread(self) -> dict[ActionKey, str]:
        """Return what the newest inventory could not read, and no pass has read since."""
        failing = self.retries.failures
        return {key: why for key, why in self.unread.items() if key in failing}

    def observation(
        self,
        *,
        watcher: EventWatcher,
        operator: OperatorBlobs,
        in_flight: frozenset[ActionKey],
        pool_ids: Iterable[str],
    ) -> Observation:
        """Return everything that a pass plans from.

        Args:
            watcher: the event document.
            operator: drain requests and controls.
            in_flight: targets of the actions under way.
            pool_ids: pools to know in addition to the managed ones.
        """
        self.cache.watch(pool_ids)
        self._forget_future(watcher.now())
        cache, retries, writes = self.cache, self.retries, self.writes
        return Observation(
            document=watcher.document,
            document_at=watcher.document_at,
            is_complete=watcher.is_complete,
            clean_documents=watcher.clean_documents,
            vms=cache.vms,
            former=cache.former,
            nics=cache.nics,
            pools=cache.pools,
            views=cache.views,
            health=dict(cache.health),
            shared_pools=dict(cache.shared_pools),
            inventory_at=cache.inventory_at,
            inventory_period_s=self.inventory.period_s,
            set_id=cache.set_id,
            set_problem=self.set_read.problem,
            in_flight=in_flight,
            deferred=retries.active,
            unread=self.still_unread(),
            unsent=writes.unsent,
            presence=dict(cache.presence),
            acknowledged=dict(self.acknowledged),
            attempts=retries.failures,
            read_at=dict(self.read_at),
            excused=retries.excused,
            sent_at=dict(writes.sent_at),
            ended_at=dict(writes.ended_at),
            tenure_at=watcher.now() - timedelta(seconds=self._clock.monotonic() - self._began_at),
            requests=operator.requests.requests,
            forgets=operator.requests.forgets,
            controls=operator.controls.controls,
            controls_problem=operator.problem,
            write_slots=self._write_slots(in_flight),
            write_limit=self.limit.limit,
            write_s=self.writes.slowest_s,
            rules=all_rules(cache),
            reports=dict(cache.reports),
        )

    def _forget_future(self, now: datetime) -> None:
        """Correct every instant that a wrong clock has recorded, as `Ledger.clamped` does.

        An instant that is yet to come would be waited for: an hour, if the clock was an hour ahead.
        """
        latest = now + CLOCK_SKEW
        self.cache.forget_future(latest)
        self.writes.forget_future(latest, now)

    def _write_slots(self, in_flight: frozenset[ActionKey]) -> int:
        """Return how many more writes may start now."""
        if self.paused_until > self._clock.monotonic():
            return 0
        writing = sum(1 for target in in_flight if target.kind == "write")
        return max(0, self.limit.limit - writing)
