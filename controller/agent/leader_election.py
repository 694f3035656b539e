"""Leader election: acquire, renew and release the lease on the ledger's blob.

What each reply means is decided by `core.lease`; `election_state` keeps what this agent knows. No
write may leave the agent unless `fence` lets it pass (law S4).
"""

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress

from controller.agent.election_state import ElectionState
from controller.agent.tuning import DEFAULT_TUNING
from controller.azure.blob import StateBlob
from controller.clock import Clock
from controller.core.lease import (
    LEASED,
    LeaseInput,
    LeaseState,
    ReasonsNotToLead,
    may_acquire,
    wait_s,
)
from controller.errors import ControllerError, LeaseHeld, LeaseLost, NotFound, OutcomeUnknown

TICK_S = 1.0
"""How often a leader checks its term; a freeze is noticed after at most this long."""
LOST_REPLIES = 2
"""After so many requests without a reply, each of which may have extended the lease, an agent that
does not know whether it holds the lease lets others try."""
READS_PER_SECOND = 4.0
"""How often all standbys of a set of up to 20 VMs together read the state of the lease."""
LONGEST_READ_S = 5.0
"""A standby of a larger set reads it this often, in seconds, on average. Only a few of its agents
may run: a released lease is found within 7.5 s nevertheless. 200 agents read 40 times a second:
about 100 million reads a month, for which Azure charges some 45 USD."""
READ_SPREAD = (0.5, 1.5)
"""The shortest and the longest interval between two of these reads, as parts of the average."""
FOUND_AFTER_S = 1.0
"""What an agent needs beyond such an interval to find a free lease, and to acquire it. An agent on
an affected VM waits that long at least: the only able agent may have read the lease just before."""
MIN_PAUSE_S = 0.1
HURRY_S = 0.2
"""How often an agent that should lead next reads the state of the lease."""
TAKEN = frozenset({LEASED, "breaking"})


class LeaderElection:
    """One agent's part in the election.

    Args:
        blob: the blob whose lease is leadership.
        clock: wall and monotonic clock.
        entropy: source of lease ids and jitter.
        lease_duration_s, renew_period_s, yield_s: see the configuration.
        peers: how many agents take part, this one included.
        reasons: why this agent should not lead now.
        refresh: reads the event document and the drain requests, unless they were read just now.
        blob_read: gets the ETag that a standby read; returns whether it knows more than the leader.
        shortest_read_s: a standby reads the lease no more often than this.
    """

    def __init__(
        self,
        *,
        blob: StateBlob,
        clock: Clock,
        entropy: random.Random,
        lease_duration_s: int,
        renew_period_s: float,
        yield_s: float,
        peers: int,
        reasons: Callable[[], ReasonsNotToLead],
        refresh: Callable[[], Awaitable[None]],
        blob_read: Callable[[str], bool] = lambda _: False,
        shortest_read_s: float = DEFAULT_TUNING.shortest_lease_read_s,
    ) -> None:
        self._blob, self._clock, self._entropy = blob, clock, entropy
        self._lease_duration_s, self._renew_period_s = lease_duration_s, renew_period_s
        self._read_period_s = _read_period_s(peers, shortest_read_s)
        self._yield_s = max(yield_s, READ_SPREAD[1] * self._read_period_s + FOUND_AFTER_S)
        self._before_release: list[Callable[[], Awaitable[None]]] = []
        self._woken = asyncio.Event()
        self._hurries = False
        self._unanswered = 0  # acquires, and renewals of a lapsed lease, in a row
        state = self._state = ElectionState(clock, lease_duration_s=lease_duration_s)
        self._reasons: Callable[[], ReasonsNotToLead] = lambda: state.with_clock(reasons())
        self._refresh, self._blob_read = refresh, blob_read
        self.lease_id = self.renewed_etag = ""  # of the blob, by the last renewal

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change of state."""
        self._state.on_change(listener)

    def before_release(self, hook: Callable[[], Awaitable[None]]) -> None:
        """Await `hook` before every release of the lease, so that writes under way can end."""
        self._before_release.append(hook)

    # --- what others may know ---

    @property
    def state(self) -> LeaseState:
        """What this agent is with regard to the lease."""
        return self._state.value

    @property
    def leading(self) -> bool:
        """Whether a write may leave now."""
        return self._state.leading

    @property
    def left_s(self) -> float | None:
        """How many seconds a write may leave without another renewal; None without a lease."""
        return self._state.left_s

    @property
    def tenures(self) -> int:
        """How often this agent has become leader."""
        return self._state.tenures

    @property
    def leader_seen_at(self) -> float:
        """When the lease was last known to be held by any agent; monotonic seconds."""
        return self._state.leader_seen_at

    @property
    def yields(self) -> bool:
        """Whether the lease is about to be released for another agent: nothing new may begin."""
        return self._state.must_yield(self._reasons())

    @property
    def yielded_in_vain(self) -> bool:
        """Whether this agent leads although it yielded lately because it was unable."""
        return self._state.yielded_in_vain

    def fence(self) -> None:
        """Let a write pass; changes nothing.

        Raises:
            LeaseLost: the lease could have expired.
        """
        if not self.leading:
            raise LeaseLost("the lease could have expired: nothing is sent until it is renewed")

    # --- what others may ask for ---

    def wake(self) -> None:
        """Take the next turn now: the reasons for or against leadership may have changed."""
        self._woken.set()

    def polled(self) -> None:
        """Take the next turn now if this agent leads and should not."""
        if self.leading and self._reasons():
            self.wake()

    def resign(self) -> None:
        """Release the lease soon, and let others try before competing for it again."""
        self._state.quarantine()
        self._woken.set()

    def lost(self, why: str) -> None:
        """According to storage, this agent does not hold the lease any more."""
        self._state.apply_unless_lost(LeaseInput.LOST, why)

    async def stop(self) -> None:
        """Release the lease now, if it is held. `run` must not be running any more."""
        if self.state is not LeaseState.STANDBY:
            await self._release()

    async def run(self) -> None:
        """Take part until cancelled."""
        while True:
            self._woken.clear()
            pause_s = await self.turn()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._woken.wait()

    async def turn(self) -> float:
        """Take one turn; return after how many seconds the next one is due."""
        if self.state is LeaseState.STANDBY:
            return await self._stand_by()
        return await self._stay_leader()

    # --- as a standby ---

    async def _stand_by(self) -> float:
        pause_s = self._read_period_s * self._entropy.uniform(*READ_SPREAD)
        if self._state.quarantined:
            return pause_s
        try:
            taken = await self._taken()
            if taken:
                self._state.leader_seen()
            if taken and self._unanswered >= LOST_REPLIES:
                self._unanswered = 0
                self._state.quarantine(self._lease_duration_s + self._yield_s)
            elif taken and not self._unanswered:
                self._state.not_free()
            elif await self._should_acquire():
                await self._acquire(self._reasons())
                return 0 if self.state is LeaseState.LEADER else pause_s
            else:
                waits_s = wait_s(
                    self._reasons(), yield_s=self._yield_s, released=self._state.released_last
                )
                pause_s = min(pause_s, max(MIN_PAUSE_S, waits_s - self._state.free_for_s()))
        except ControllerError as error:
            self._state.failed(error)
        else:
            self._state.recovered()
        return min(pause_s, HURRY_S) if self._hurries else pause_s

    async def _taken(self) -> bool:
        try:
            found = await self._blob.read_properties()
        except NotFound:
            await self._blob.create()
            return False
        self._hurries = self._blob_read(found.etag)
        return found.lease_state in TAKEN

    async def _should_acquire(self) -> bool:
        self._state.free_for_s()
        await self._refresh()
        return may_acquire(
            self._reasons(),
            free_for_s=self._state.free_for_s(),
            yield_s=self._yield_s,
            released=self._state.released_last,
        )

    async def _acquire(self, reasons: ReasonsNotToLead) -> None:
        if not self._unanswered:
            # The same id again makes a repeated acquire idempotent when the first reply was lost.
            self.lease_id = str(uuid.UUID(int=self._entropy.getrandbits(128), version=4))
        term = self._state.new_term()
        self._unanswered += 1
        try:
            await self._blob.acquire(self.lease_id, self._lease_duration_s)
        except LeaseHeld:
            self._unanswered = 0
            self._state.not_free(refused=True)
            return
        self._unanswered = 0
        self._state.acquired(term, reasons)

    # --- as the leader ---

    async def _stay_leader(self) -> float:
        if self.state is LeaseState.LEADER and not self._state.is_valid():
            self._state.lapsed()
        if self._state.quarantined:
            await self._release()
            return TICK_S
        if self.state is LeaseState.SUSPECT and self._unanswered >= LOST_REPLIES:
            self._unanswered = 0
            self._state.quarantine(self._lease_duration_s + self._yield_s)
            self.lost("renewals get no reply: the lease expires for another agent")
            return TICK_S
        if self.yields:
            self._state.yielded(self._reasons())
            await self._release()
            return TICK_S
        due_s = self._state.renewed_at + self._renew_period_s - self._clock.monotonic()
        if due_s > 0 and self.state is LeaseState.LEADER:
            return min(due_s, TICK_S)
        await self._renew()
        return TICK_S

    async def _renew(self) -> None:
        term = self._state.new_term()
        try:
            self.renewed_etag = await self._blob.renew(self.lease_id)
        except LeaseLost as error:
            self.lost(str(error))
        except ControllerError as error:
            self._unanswered += not self.leading and isinstance(error, OutcomeUnknown)
            self._state.failed(error)
        else:
            self._unanswered = 0
            self._state.renewed(term)

    async def _release(self) -> None:
        for hook in self._before_release:
            await hook()
        if self.state is LeaseState.STANDBY:
            return
        # From the moment the release leaves, no write may: it can take effect before its reply.
        self._state.term = None
        why = "released the lease"
        try:
            await self._blob.release(self.lease_id)
        except ControllerError as error:
            self._state.failed(error)
            why = "the lease could not be released, it will expire"
        self._state.released(why)


def _read_period_s(peers: int, shortest_s: float) -> float:
    """Return how often one standby reads the state of the lease, in seconds."""
    return max(shortest_s, min(LONGEST_READ_S, peers / READS_PER_SECOND))
