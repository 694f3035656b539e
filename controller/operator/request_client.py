"""Drain requests in the name of one user: write them, withdraw them, and find out how they end."""

import asyncio
import difflib
import shlex
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from controller.agent.ledger_place import LedgerPlace
from controller.azure.http.session import Azure
from controller.clock import Clock
from controller.config.schema import Settings
from controller.core.azure_names import SetKind, fold
from controller.core.blob_owner import BlobOwner
from controller.core.drain_requests import DrainRequest, DrainRequests, Edit
from controller.core.ledger import Ledger
from controller.core.rehearsals import TEST_PREFIX
from controller.errors import (
    TRANSIENT,
    ControllerError,
    Denied,
    NotDone,
    SetupError,
    retry_wait_s,
)
from controller.operator.withdrawal import (
    Withdrawal,
    choose,
    describe,
    recorded_events,
    recorded_requests,
)
from controller.storage.controls_store import ControlsStore, controls_blob_name
from controller.storage.drain_request_store import DrainRequestStore, drain_requests_blob_name
from controller.storage.ledger_store import LedgerStore

if TYPE_CHECKING:
    from controller.core.drain_history import Transition

WRITE_RETRY_S = 3.0
"""The least time between two tries to write the requests."""
READ_INTERVAL_S = 1.0
"""How often the requests are read while a command waits for the end of one."""
LONGEST_TEXT = 200
"""Longer reasons and failures are cut to this number of characters."""

Report = Callable[[str], None]
"""Shows one line to the user."""


class RequestClient:
    """Requests drains in the name of one user.

    Args:
        requester: recorded in every request.
        vms: names of the VMs of the set; empty if they were not read.
        this_machine: name of the VM or machine that the client runs on.
        options: with which another command selects the same set.
        settings: the file of this machine.
    """

    def __init__(
        self,
        azure: Azure,
        *,
        ledger: LedgerPlace,
        availability_set_id: str,
        requester: str,
        vms: tuple[str, ...],
        this_machine: str,
        settings: Settings,
        clock: Clock,
        report: Report,
        options: tuple[str, ...] = (),
    ) -> None:
        self.azure, self.availability_set_id = azure, availability_set_id
        self._ledger_name = ledger_name = ledger.name
        self.requester, self.vms, self.this_machine = requester, vms, this_machine
        self.settings, self.report = settings, report
        owner = BlobOwner(set_id=ledger.owner_id, vms=vms)
        requests_blob = azure.state_blob(drain_requests_blob_name(ledger_name))
        self.requests = DrainRequestStore(requests_blob, owner=owner)
        self.controls = ControlsStore(
            azure.state_blob(controls_blob_name(ledger_name)), owner=owner
        )
        self._kind = SetKind.of(availability_set_id).value
        self._options = options
        self.ledger_store = LedgerStore(azure.state_blob(ledger_name), owner=owner)
        self._clock = clock
        self._pool_names = settings.pool_names()
        self._reported: set[str] = set()
        self._past: frozenset[Transition] | None = None
        """What the ledger contained at the first read about earlier drains; None before it."""
        self._leader_seen_at = clock.monotonic()

    def monotonic(self) -> float:
        """Return the monotonic clock of this machine, in seconds."""
        return self._clock.monotonic()

    def now(self) -> datetime:
        """Return the wall clock of this machine."""
        return self._clock.now()

    def command(self, *words: str) -> str:
        """Return the command line with which the user runs another command for the same set."""
        return shlex.join(("lb-drain", *words, *self._options))

    async def drain(self, vm: str, *, for_s: float, reason: str) -> DrainRequest:
        """Request the drain of one VM, as `drain_all` does."""
        return (await self.drain_all((vm,), for_s=for_s, reason=reason))[0]

    async def drain_all(
        self, vms: Iterable[str], *, for_s: float, reason: str, forced: bool = False
    ) -> tuple[DrainRequest, ...]:
        """Request the drain of VMs, of all or of none. It ends automatically after `for_s` seconds.

        Args:
            vms: their names.
            for_s: when the drain ends.
            reason: shown to people.
            forced: whether the VMs leave even if too few members stay in service.

        Raises:
            NotDone: a VM is not in the set, or named twice.
            ControllerError: the requests could not be written.
        """
        new = tuple(
            self.new_request(vm, for_s=for_s, reason=reason, forced=forced)
            for vm in self.canonical_names(vms)
        )

        def add(requests: DrainRequests) -> DrainRequests:
            for each in new:
                requests = requests.adding(each)
            return requests

        await self.requests.change(add)
        return new

    def new_request(
        self, vm: str, *, for_s: float, reason: str, forced: bool = False, test: bool = False
    ) -> DrainRequest:
        """Return a request that is not written yet; the id of a rehearsal shows what it is.

        Raises:
            NotDone: the VM is not in the set.
        """
        now = self.now()
        return DrainRequest(
            request_id=f"{TEST_PREFIX if test else ''}{uuid.uuid4()}",
            vm=self.canonical_name(vm),
            reason=reason[:LONGEST_TEXT],
            by=self.requester,
            at=now,
            until=now + timedelta(seconds=for_s),
            forced=forced,
        )

    async def restore(
        self, vm: str, *, request_id: str = "", of_everyone: bool = False
    ) -> Withdrawal:
        """Withdraw the requests for one VM, as `restore_all` does."""
        found = await self.restore_all((vm,), request_id=request_id, of_everyone=of_everyone)
        return next(iter(found.values()))

    async def restore_all(
        self, vms: Iterable[str], *, request_id: str = "", of_everyone: bool = False
    ) -> dict[str, Withdrawal]:
        """Withdraw the requests for VMs, for all or for none; return what became of each VM's.

        Of several requests for a VM, those of this requester are withdrawn, the one with
        `request_id`, or all. Requests that the ledger records and the blob has lost count too.

        Raises:
            NotDone: a VM is not in the set or named twice, or it is not clear which request is
                meant.
            ControllerError: the requests could not be withdrawn.
        """
        now, ledger = self.now(), await self._recorded()
        await self.requests.refresh_if_exists()
        # A request that names no VM of the set can be withdrawn too.
        requested = (each.vm for each in self.requests.requests.active(now))
        names = _spelled(vms, (*self.vms, *requested) if self.vms else (), self._kind)
        lost = [each for name in names for each in recorded_requests(ledger, name)]
        found: dict[str, Withdrawal] = {}

        def withdraw(requests: DrainRequests) -> DrainRequests:
            unknown = (each for each in lost if requests.by_id(each.request_id) is None)
            requests = replace(requests, requests=(*requests.requests, *unknown))
            for name in names:
                found[name] = choose(
                    name,
                    requests.active_for(name, now),
                    events=recorded_events(ledger, name),
                    requester=self.requester,
                    request_id=request_id,
                    of_everyone=of_everyone,
                    command=self.command,
                )
            ids = (each.request_id for every in found.values() for each in every.withdrawn)
            return requests.ending(ids, at=now, by=self.requester)

        await self.requests.change(withdraw)
        return found

    async def _recorded(self) -> Ledger:
        """Return the ledger; an empty one if it cannot be read."""
        try:
            await self.ledger_store.read()
        except ControllerError as error:
            self.report_once(f"The ledger cannot be read now: {error}")
            return Ledger()
        return self.ledger_store.ledger

    async def change_with_retry(self, edit: Edit) -> DrainRequests:
        """Change the requests. Retry without a limit while storage does not allow it.

        Storage answered before, so a missing container or a refusal can be temporary too.

        Raises:
            ControllerError: a retry would not help.
        """
        while True:
            try:
                return await self.requests.change(edit)
            except (*TRANSIENT, Denied, SetupError) as error:
                self.report_once(f"The drain requests cannot be written now, retrying: {error}")
                await asyncio.sleep(retry_wait_s(error, at_least_s=WRITE_RETRY_S))

    def canonical_name(self, vm: str) -> str:
        """Return the name of the VM as Azure spells it.

        Raises:
            NotDone: the VM is not in the set.
        """
        return self.canonical_names((vm,))[0]

    def canonical_names(self, vms: Iterable[str]) -> tuple[str, ...]:
        """Return the names of VMs as Azure spells them, in the order in which they were given.

        Raises:
            NotDone: one is not in the set, or named twice; the message lists every problem.
        """
        return _spelled(vms, self.vms, self._kind)

    async def wait_until_not_requested(self, vm: str) -> None:
        """Return when no drain request for a VM stands, apart from those of the rolling run."""
        while True:
            try:
                await self.requests.refresh_if_exists()
            except ControllerError as error:
                self.report_once(f"The drain requests cannot be read now, retrying: {error}")
            else:
                found = self.requests.requests
                run = found.unfinished_run
                own = found.ids_of_run(run) if run is not None else ()
                active = found.active_for(vm, self.now())
                others = [each for each in active if each.request_id not in own]
                if not others:
                    return
                for each in others:
                    self.report_once(
                        f"{vm} waits until its drain by another operator ends: {describe(each)}"
                    )
            await asyncio.sleep(READ_INTERVAL_S)

    async def requests_are_read(self) -> bool:
        """Read the requests; return whether that was possible."""
        try:
            await self.requests.refresh()
        except ControllerError as error:
            self.report_once(f"The drain requests cannot be read now, retrying: {error}")
            return False
        return True

    def check_stands(self, request: DrainRequest) -> None:
        """Return if a request stands by the last read.

        Raises:
            NotDone: it has ended, or it is gone.
        """
        found = self.requests.requests.by_id(request.request_id)
        if found is None:
            raise NotDone(
                f"the drain request for {request.vm} is gone: its blob was deleted or restored"
            )
        if found.ended_at is not None:
            raise NotDone(f"the drain request for {request.vm} was withdrawn by {found.ended_by}")
        if not found.is_active(self.now()):
            raise NotDone(
                f"the drain request for {request.vm} expired before the VM was out of rotation"
            )

    def report_once(self, text: str) -> None:
        """Show a line, unless it was shown before."""
        if text not in self._reported:
            self._reported.add(text)
            self.report(text)


def _spelled(vms: Iterable[str], of_set: tuple[str, ...], kind: str) -> tuple[str, ...]:
    """Return names of VMs as the set has them; an empty set is not known, and refuses nothing."""
    known = {fold(name): name for name in of_set}
    found: dict[str, str] = {}
    problems: list[str] = []
    for vm in vms:
        if fold(vm) in found:
            problems.append(f"{vm} is named twice: name each VM once")
        elif known and fold(vm) not in known:
            near = difflib.get_close_matches(fold(vm), known, n=1)
            hint = f"did you mean {known[near[0]]}? Its" if near else "its"
            listed = f"{hint} VMs are {', '.join(known.values())}"
            problems.append(f"{vm} is not in this {kind}; {listed}")
        found.setdefault(fold(vm), known.get(fold(vm), vm))
    if problems:
        raise NotDone("\n".join(problems))
    return tuple(found.values())
