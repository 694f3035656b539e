"""Elect: acquire, renew and release the lease on the ledger's blob.

What each answer means is decided by `core.leadership`; this module sends the requests and keeps the
time at which they were sent. No write may leave the agent unless `fence` lets it (law S4).
"""

import asyncio
import logging
import random
import uuid
from collections.abc import Awaitable, Callable

from controller.azure.blob import LedgerBlob
from controller.clock import Clock
from controller.core.leadership import (
    Handicap,
    Input,
    State,
    Term,
    may_acquire,
    must_yield,
    step,
)
from controller.errors import ControllerError, LeaseHeld, LeaseLost, NotFound
from controller.logs import log

logger = logging.getLogger(__name__)

TICK_S = 1.0
"""How often a leader checks its term; a freeze is noticed after at most so long."""
LOOKS_PER_SECOND = 4.0
"""How often the whole set together looks whether the lease is free, however large the set."""
SHORTEST_LOOK_S = 1.0
QUARANTINE_S = 30.0
"""How long an agent that cannot read the ledger stays out of the election."""
TAKEN = frozenset({"leased", "breaking"})


class Elector:
    """One agent's part in the election.

    Args:
        blob: the blob whose lease is leadership.
        clock: wall and monotonic clock.
        entropy: source of lease ids and jitter.
        lease_duration_s, renew_period_s, yield_s: see the configuration.
        peers: how many agents look at the lease, this one included.
        handicap: why this agent should not lead now.
        look: makes sure that the event document was polled just now.
        quiesce: lets writes that were sent get their replies, and starts no more.
    """

    def __init__(
        self,
        *,
        blob: LedgerBlob,
        clock: Clock,
        entropy: random.Random,
        lease_duration_s: int,
        renew_period_s: float,
        yield_s: float,
        peers: int,
        handicap: Callable[[], Handicap],
        look: Callable[[], Awaitable[None]],
        quiesce: Callable[[], Awaitable[None]],
    ) -> None:
        self._blob, self._clock, self._entropy = blob, clock, entropy
        self._lease_duration_s, self._renew_period_s = lease_duration_s, renew_period_s
        self._yield_s = yield_s
        self._look_s = max(SHORTEST_LOOK_S, peers / LOOKS_PER_SECOND)
        self._handicap, self._look, self._quiesce = handicap, look, quiesce
        self._listeners: list[Callable[[], None]] = []
        self._woken = asyncio.Event()
        self._free_since: float | None = None
        self._yielded, self._yielded_at = Handicap(), float("-inf")
        self._quarantined_until = float("-inf")
        self._unanswered = False
        self._failing = False
        self.state = State.STANDBY
        self.term: Term | None = None
        self.lease_id = ""
        self.tenures = 0
        """How often this agent has become leader."""
        self.renewed_at = float("-inf")
        self.leader_seen_at = clock.monotonic()
        """When the lease was last known to be taken; before that, when this agent began to look."""

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change of state."""
        self._listeners.append(listener)

    @property
    def leading(self) -> bool:
        """Whether a write may leave now."""
        return self.state is State.LEADER and self._valid()

    @property
    def left_s(self) -> float | None:
        """For how long a write may leave without another renewal; None without a lease."""
        return None if self.term is None else self.term.ends_at - self._clock.monotonic()

    @property
    def hands_over(self) -> bool:
        """Whether the lease is about to be released for others to take: nothing new may begin."""
        return must_yield(
            self._handicap(),
            yielded=self._yielded,
            yielded_ago_s=self._clock.monotonic() - self._yielded_at,
        )

    def fence(self) -> None:
        """Let a write pass.

        Raises:
            LeaseLost: the lease could have expired.
        """
        if not self.leading:
            raise LeaseLost("the lease could have expired: nothing is sent until it is renewed")

    def wake(self) -> None:
        """Look again now: what speaks for or against leadership may have changed."""
        self._woken.set()

    async def run(self) -> None:
        """Take part until cancelled."""
        while True:
            self._woken.clear()
            pause_s = await (
                self._stand_by() if self.state is State.STANDBY else self._stay_leader()
            )
            try:
                async with asyncio.timeout(pause_s):
                    await self._woken.wait()
            except TimeoutError:
                pass

    def resign(self) -> None:
        """Give the lease back soon, and let others try before competing for it again."""
        self._quarantined_until = self._clock.monotonic() + QUARANTINE_S
        self._woken.set()

    async def stop(self) -> None:
        """Give the lease back now, if it is ours. `run` must not be running any more."""
        if self.state is not State.STANDBY:
            await self._release()

    def lost(self, why: str) -> None:
        """Take note that storage says the lease is not ours any more."""
        if self.state is not State.STANDBY:
            self._happened(Input.LOST, why)

    # --- as a standby ---

    async def _stand_by(self) -> float:
        pause_s = self._look_s * self._entropy.uniform(0.5, 1.5)
        if self._clock.monotonic() < self._quarantined_until:
            return pause_s
        try:
            taken = await self._taken()
            if taken:
                self.leader_seen_at = self._clock.monotonic()
            if taken and not self._unanswered:
                self._free_since = None
            elif await self._should_acquire():
                await self._acquire()
                return 0 if self.state is State.LEADER else pause_s
        except ControllerError as error:
            self._report(error)
        else:
            self._recovered()
        return pause_s

    async def _taken(self) -> bool:
        try:
            return (await self._blob.peek()).lease_state in TAKEN
        except NotFound:
            await self._blob.create()
            return False

    async def _should_acquire(self) -> bool:
        now = self._clock.monotonic()
        if self._free_since is None:
            self._free_since = now
        await self._look()
        free_for_s = self._clock.monotonic() - self._free_since
        return may_acquire(self._handicap(), free_for_s=free_for_s, yield_s=self._yield_s)

    async def _acquire(self) -> None:
        if not self._unanswered:
            # The same id again makes a repeated acquire idempotent when the first reply was lost.
            self.lease_id = str(uuid.UUID(int=self._entropy.getrandbits(128), version=4))
        term = self._new_term()
        self._unanswered = True
        try:
            await self._blob.acquire(self.lease_id, self._lease_duration_s)
        except LeaseHeld:
            self._unanswered = False
            self._free_since = None
            self.leader_seen_at = self._clock.monotonic()
            self._happened(Input.HELD)
            return
        self._unanswered = False
        self._recovered()
        self._free_since = None
        self.term = term
        self.renewed_at = self.leader_seen_at = term.sent_at
        self.tenures += 1
        self._happened(Input.ACQUIRED, "leads")

    # --- as the leader ---

    async def _stay_leader(self) -> float:
        if self.state is State.LEADER and not self._valid():
            self._happened(Input.LAPSED, "the lease could have expired: no writes until renewed")
        if self._clock.monotonic() < self._quarantined_until:
            await self._release()
            return TICK_S
        if self.hands_over:
            present = self._handicap()
            self._yielded, self._yielded_at = present, self._clock.monotonic()
            why = "its own VM is next" if present.events else "it cannot read the event document"
            log(logger, logging.INFO, f"yields the lease: {why}", event="yield")
            await self._release()
            return TICK_S
        due_s = self.renewed_at + self._renew_period_s - self._clock.monotonic()
        if due_s > 0 and self.state is State.LEADER:
            return min(due_s, TICK_S)
        return await self._renew()

    async def _renew(self) -> float:
        term = self._new_term()
        try:
            await self._blob.renew(self.lease_id)
        except LeaseLost as error:
            self.lost(str(error))
        except ControllerError as error:
            self._report(error)
        else:
            self._recovered()
            self.term = term
            self.renewed_at = self.leader_seen_at = term.sent_at
            self._unless_lost(Input.RENEWED)
        return TICK_S

    async def _release(self) -> None:
        await self._quiesce()
        if self.state is State.STANDBY:
            return
        # From the instant the release leaves, nothing else may: it can be done long before we know.
        self.term = None
        why = "released the lease"
        try:
            await self._blob.release(self.lease_id)
        except ControllerError as error:
            # It expires by itself; what matters is that we stop.
            self._report(error)
            why = "the lease could not be released and will run out"
        self._free_since = self._clock.monotonic()
        self._unless_lost(Input.RELEASED, why)

    # --- common ---

    def _new_term(self) -> Term:
        monotonic = self._clock.monotonic()
        return Term(
            sent_at=monotonic,
            wall_ahead=self._clock.now().timestamp() - monotonic,
            duration_s=self._lease_duration_s,
        )

    def _valid(self) -> bool:
        monotonic = self._clock.monotonic()
        wall_ahead = self._clock.now().timestamp() - monotonic
        return self.term is not None and self.term.valid(monotonic=monotonic, wall_ahead=wall_ahead)

    def _unless_lost(self, happened: Input, why: str = "") -> None:
        """Take note of a reply, unless storage has refused a write while it was on its way."""
        if self.state is not State.STANDBY:
            self._happened(happened, why)

    def _happened(self, happened: Input, why: str = "") -> None:
        before, self.state = self.state, step(self.state, happened)
        if self.state is not before:
            message = f"{self.state.value}: {why}" if why else self.state.value
            level = logging.WARNING if self.state is State.SUSPECT else logging.INFO
            log(logger, level, message, event="lease", outcome=happened.value)
            for listener in self._listeners:
                listener()

    def _recovered(self) -> None:
        if self._failing:
            self._failing = False
            log(logger, logging.INFO, "the lease can be reached again", event="lease")

    def _report(self, error: ControllerError) -> None:
        if not self._failing:
            self._failing = True
            message = f"the lease cannot be reached: {error}"
            log(logger, logging.WARNING, message, event="lease", outcome=type(error).__name__)
