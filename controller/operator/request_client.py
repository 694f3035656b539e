"""Drain requests in the name of one user: write them, withdraw them, and find out how they end."""

import asyncio
import shlex
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from controller.azure.http.session import Azure
from controller.clock import Clock
from controller.core.azure_names import fold
from controller.core.blob_owner import BlobOwner
from controller.core.drain_requests import DrainRequest, DrainRequests, Edit
from controller.core.rehearsals import TEST_PREFIX
from controller.errors import (
    TRANSIENT,
    ControllerError,
    Denied,
    NotDone,
    SetupError,
    retry_wait_s,
)
from controller.operator.withdrawal import Withdrawal, choose, describe, recorded_requests
from controller.storage.controls_store import ControlsStore, controls_blob_name
from controller.storage.drain_request_store import DrainRequestStore, drain_requests_blob_name
from controller.storage.ledger_store import LedgerStore

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
        connection_drain_s: time that connections of a drained VM get to close.
        pool_names: short name of each managed pool, by folded id.
    """

    def __init__(
        self,
        azure: Azure,
        *,
        ledger_name: str,
        availability_set_id: str,
        requester: str,
        vms: tuple[str, ...],
        this_machine: str,
        connection_drain_s: float,
        pool_names: Mapping[str, str],
        clock: Clock,
        report: Report,
        options: tuple[str, ...] = (),
    ) -> None:
        self.azure, self.availability_set_id = azure, availability_set_id
        self._ledger_name = ledger_name
        self.requester, self.vms, self.this_machine = requester, vms, this_machine
        self.connection_drain_s, self.report = connection_drain_s, report
        owner = BlobOwner(set_id=availability_set_id, vms=vms)
        requests_blob = azure.state_blob(drain_requests_blob_name(ledger_name))
        self.requests = DrainRequestStore(requests_blob, owner=owner)
        self.controls = ControlsStore(
            azure.state_blob(controls_blob_name(ledger_name)), owner=owner
        )
        self._options = options
        self.ledger_store = LedgerStore(azure.state_blob(ledger_name), owner=owner)
        self._clock = clock
        self._pool_names = pool_names
        self._reported: set[str] = set()
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
        """Request the drain of a VM. It ends automatically after `for_s` seconds.

        Raises:
            NotDone: the VM is not in the set.
            ControllerError: the request could not be written.
        """
        request = self.new_request(vm, for_s=for_s, reason=reason)
        await self.requests.change(lambda requests: requests.adding(request))
        return request

    def new_request(
        self, vm: str, *, for_s: float, reason: str, test: bool = False
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
        )

    async def restore(
        self, vm: str, *, request_id: str = "", of_everyone: bool = False
    ) -> Withdrawal:
        """Withdraw the request for a VM.

        Of several, those of this requester are withdrawn, the one with `request_id`, or all.
        Requests that the ledger records and the blob has lost count too.

        Raises:
            NotDone: the VM is not in the set, or it is not clear which request is meant.
            ControllerError: the request could not be withdrawn.
        """
        name, now = self.canonical_name(vm), self.now()
        lost = await self._lost_requests(name)
        found = Withdrawal()

        def withdraw(requests: DrainRequests) -> DrainRequests:
            nonlocal found
            unknown = (each for each in lost if requests.by_id(each.request_id) is None)
            requests = replace(requests, requests=(*requests.requests, *unknown))
            active = requests.active_for(name, now)
            found = choose(
                name,
                active,
                requester=self.requester,
                request_id=request_id,
                of_everyone=of_everyone,
                command=self.command,
            )
            ids = (each.request_id for each in found.withdrawn)
            return requests.ending(ids, at=now, by=self.requester)

        await self.requests.change(withdraw)
        return found

    async def _lost_requests(self, vm: str) -> tuple[DrainRequest, ...]:
        """Return the requests for a VM as the ledger records them; none if it cannot be read."""
        try:
            await self.ledger_store.read()
        except ControllerError as error:
            self.report_once(f"The ledger cannot be read now: {error}")
            return ()
        return recorded_requests(self.ledger_store.ledger, vm)

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
        for name in self.vms:
            if fold(name) == fold(vm):
                return name
        if self.vms:
            raise NotDone(
                f"{vm} is not in this availability set; its VMs are {', '.join(self.vms)}"
            )
        return vm

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

    async def check_in_effect(self, request: DrainRequest) -> None:
        """Return if a request stands, or cannot be read now.

        Raises:
            NotDone: it has ended, or it is gone.
        """
        try:
            await self.requests.refresh()
        except ControllerError as error:
            self.report_once(f"The drain requests cannot be read now, retrying: {error}")
            return
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
