"""A leader's tenure: open the ledger under the next epoch, commit to it, leave.

Every acquisition of the lease begins a tenure. Only the tenure that opened the ledger writes to it,
and no write leaves under the lease of another one (law S4). If the ledger cannot be read, and this
agent does not remember it, the leader resigns: another agent can try.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from controller.agent.leader_election import LeaderElection
from controller.agent.working_state import WorkingState
from controller.core.ability import WRITING_LEDGER, Inability
from controller.core.action_keys import LEDGER
from controller.core.ledger import Ledger
from controller.errors import ContractViolation, ControllerError, LeaseLost, Outdated
from controller.observability.logs import log
from controller.storage.annotations import LedgerAnnotations
from controller.storage.ledger_store import LedgerStore, Written

logger = logging.getLogger("lbdrain.reconcile")

OPEN_TRIES = 5
"""A leader that cannot open the ledger this often in a row resigns."""
REOPEN_AFTER = timedelta(seconds=1)
"""What back-off of the ledger is kept by."""


class Tenure:
    """This agent's tenures, one after the other.

    Args:
        store: the ledger in its blob.
        state: what the present tenure has met; `Reconciler` resets it when a new one begins.
        annotations: merged into every ledger that is committed.
        vm: this agent's VM.
        now: wall clock, corrected.
        election: the election; None for a dry run, which writes nothing.
    """

    def __init__(
        self,
        *,
        store: LedgerStore,
        state: WorkingState,
        annotations: LedgerAnnotations,
        vm: str,
        now: Callable[[], datetime],
        election: LeaderElection | None,
    ) -> None:
        self._store, self._state, self._annotations = store, state, annotations
        self._vm, self._now, self._election = vm, now, election
        self._failed_to_open = 0
        self.read_at: datetime | None = None
        """When a dry run last read the ledger; None before that."""
        self.number = 0
        """Which tenure has opened the ledger, as the election counts; 0 before the first."""
        self.leaving = False
        """No write may start any more."""
        self.reopen_at: datetime | None = None
        """When to try again to open the ledger; None unless the last attempt asks for it."""

    @property
    def ledger(self) -> Ledger:
        """The newest durable ledger."""
        return self._store.ledger

    @property
    def lease_state(self) -> str:
        """The lease as storage named it when the ledger was last read."""
        return self._store.lease_state

    @property
    def leads(self) -> bool:
        """Whether the agent leads and is not about to release the lease."""
        election = self._election
        if election is None or not election.leading:
            return False
        if election.yields:
            # A leader that drained its own VM first could lose its way to storage, and the lease
            # with it: no other agent could take over before it expires.
            election.wake()
            return False
        return True

    @property
    def no_able_agent(self) -> Inability | None:
        """What this leader cannot do after it has yielded in vain; None if there is nothing."""
        election = self._election
        if election is None or not election.yielded_in_vain:
            return None
        return self._state.ability.inability(election.tenures)

    @property
    def begins(self) -> bool:
        """Whether the lease was acquired again: the ledger has to be opened first."""
        return self._election is not None and self._election.tenures != self.number

    @property
    def overwritten(self) -> bool:
        """Whether another writer has changed the ledger, by the last renewal of the lease.

        A leader with nothing to record would repeat for hours what is recorded nowhere (law S5).
        """
        election = self._election
        if election is None or self.begins:
            return False
        return self._store.shows_another_writer(election.renewed_etag)

    def check(self, number: int) -> None:
        """Let a write of this tenure pass; changes nothing.

        Raises:
            LeaseLost: another tenure has begun, this one ends, or the lease could have expired.
        """
        if self._election is None or self.leaving or self._election.tenures != number:
            raise LeaseLost("this agent does not lead any more")
        self._election.fence()
        if self.overwritten:
            raise Outdated("another writer changed the ledger: it is written again first")

    async def open(self) -> bool:
        """Open the ledger under the next epoch (law S4); return whether the tenure has begun."""
        election = self._election
        self.reopen_at = None
        if election is None:
            return False
        number, ability = election.tenures, self._state.ability
        ability.begin(number)
        ability.planned({WRITING_LEDGER}, self._state.retries.active)
        ability.began(WRITING_LEDGER, LEDGER)
        try:
            wrong = await self._store.open(election, vm=self._vm, now=self._now())
        except ContractViolation as error:
            self._unreadable(error, election)
            return False
        except LeaseLost as error:
            election.lost(str(error))
            return False
        except ControllerError as error:
            ability.failed(LEDGER, error)
            self._not_opened(error, election)
            return False
        ability.succeeded(LEDGER)
        self._state.retries.clear(LEDGER)  # storage has just accepted a write of it
        self._failed_to_open, self.number, self.leaving = 0, number, False
        election.renewed_etag = ""  # an earlier tenure saw it
        epoch, entries = self.ledger.epoch, len(self.ledger.entries)
        message = f"{self._vm} is the leader, epoch {epoch}, {entries} VMs drained"
        log(logger, logging.INFO, message, event="leader_elected", epoch=epoch)
        if wrong:
            message = (
                f"the blob of the ledger was found damaged: {wrong}. Continued from what the agent "
                f"on {self._vm} has read before"
            )
            log(logger, logging.ERROR, message, event="ledger_failed", outcome="recovered")
        return True

    def _not_opened(self, error: ControllerError, election: LeaderElection) -> None:
        self._failed_to_open += 1
        if self._failed_to_open == 1:
            message = f"the ledger cannot be opened: {error}"
            log(logger, logging.WARNING, message, event="ledger_failed", outcome=error.word())
        elif self._failed_to_open == OPEN_TRIES:
            self._failed_to_open = 0
            election.resign()
        self.reopen_at = self._now() + REOPEN_AFTER

    def annotated(self) -> Ledger | None:
        """Return the ledger with what is queued for it; None when it has that already."""
        ledger = self._annotations.merged_into(self.ledger)
        return None if ledger is self.ledger else ledger

    async def commit(self, wanted: Ledger) -> bool:
        """Make a ledger durable, with what is queued for it.

        Returns whether to plan again at once: the ledger is durable, or was not written yet.
        """
        election, before = self._election, self.ledger
        if election is None or LEDGER in self._state.retries.active:
            return False
        if self.leaving or not election.leading or election.tenures != self.number:
            return False
        ability = self._state.ability
        ability.began(WRITING_LEDGER, LEDGER)
        try:
            written = await self._store.write(self._annotations.merged_into(wanted), election)
            if written in {Written.REPLACED, Written.SET_ASIDE}:
                self._overwritten(written)
        except ContractViolation as error:
            self._unreadable(error, election)
            return False
        except LeaseLost as error:
            election.lost(str(error))
            return False
        except ControllerError as error:
            ability.failed(LEDGER, error)
            self._state.retries.failed(LEDGER, error, what="the ledger could not be written")
            return False
        if written is Written.UNKNOWN:
            ability.dropped(LEDGER)
        else:
            ability.succeeded(LEDGER)
            self._state.retries.clear(LEDGER)
        self._state.writes.recorded(before, self.ledger)
        return True

    async def write_again(self) -> bool:
        """Write the ledger that another writer has changed; return whether it is durable.

        Nothing is planned before that. So the write is due, and an agent that cannot write yields.
        """
        self._state.ability.planned({WRITING_LEDGER}, self._state.retries.active)
        return await self.commit(self.ledger)

    def _overwritten(self, written: Written) -> None:
        message = "another writer changed the ledger: its change was replaced and changes nothing"
        if written is Written.SET_ASIDE:
            message += f"; {self._store.set_aside}"
        log(logger, logging.WARNING, message, event="ledger_failed", outcome="conflict")

    async def refresh(self) -> None:
        """Read what the real leader, if there is one, has written; for a dry run."""
        try:
            await self._store.read()
            self.read_at = self._now()
        except ControllerError as error:
            self._state.retries.failed(LEDGER, error, what="the ledger could not be read")

    def leave(self) -> None:
        """Start no more writes: the lease is about to be released."""
        self.leaving = True

    def _unreadable(self, error: ContractViolation, election: LeaderElection) -> None:
        if not election.leading:
            return  # the lease was released for this reason while the read was under way
        log(logger, logging.ERROR, str(error), event="ledger_failed", outcome=error.word())
        election.resign()
