"""The client of the drain requests: requests a drain, ends it, and waits for the result.

It writes the requests blob and reads the ledger. The leader does the work.
"""

import asyncio
import getpass
import os
import socket
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from controller.agent.ledger_place import LedgerPlace, find_ledger
from controller.agent.startup import discover_identity
from controller.azure.blob import StateBlob
from controller.azure.http.identity import Identity
from controller.azure.http.session import Azure, SessionFactory, open_azure, tcp_session
from controller.clock import Clock, CorrectedClock
from controller.config.overrides import adjusted
from controller.config.schema import PolicySection, Settings
from controller.core.azure_names import fold, short
from controller.core.blob_limits import cut
from controller.core.drain_history import step_text
from controller.core.drain_requests import DrainRequest
from controller.core.lease import current_leader
from controller.core.ledger import Entry, Ledger
from controller.core.planning.actions import HoldReason
from controller.core.vm_report import VmReport
from controller.errors import ControllerError, Denied, NotDone
from controller.operator.request_client import Report, RequestClient
from controller.storage.vm_report_store import read_vm_report, vm_report_blob_name

LEDGER_INTERVAL_S = 1.0
"""How often the ledger is read while a command waits."""
CLOCK_SKEW_S = 1.0
"""Transitions this much older than a request can still belong to it, if they are new."""
CLOCK_OFF = timedelta(seconds=5)
"""A larger difference between this clock and that of storage is corrected, and reported."""
NO_LEADER_AFTER_S = 10.0
"""A change of the leader takes less time; a longer gap is reported."""


class DrainClient(RequestClient):
    """Requests drains in the name of one user, and waits until they take effect.

    Args:
        requester: recorded in every request.
        vms: names of the VMs of the set; empty if they were not read.
        this_machine: name of the VM or machine that the client runs on.
        options: with which another command selects the same set.
        settings: the file of this machine.
    """

    @property
    def policy(self) -> PolicySection:
        """`[policy]` of this file, with the settings of the whole set that were read last."""
        overrides = self.controls.content.in_force(self.now()).overrides
        return adjusted(self.settings, overrides)[0].policy

    @property
    def connection_drain_s(self) -> float:
        """The time that connections of a drained VM get to close."""
        return self.policy.connection_drain_s

    async def wait_until_drained(self, request: DrainRequest) -> str:
        """Wait for one drain, as `wait_until_all_drained` does; return the names of its pools."""
        found: list[str] = []
        await self.wait_until_all_drained((request,), lambda _, pools: found.append(pools))
        return found[0]

    async def wait_until_all_drained(
        self,
        requests: Iterable[DrainRequest],
        drained: Callable[[DrainRequest, str], None],
        refused: Callable[[DrainRequest, str], None] = lambda _request, _problem: None,
    ) -> None:
        """Wait until each VM is out of every pool and its connections had time to close.

        A VM that cannot be drained does not end the wait for the others.

        Args:
            requests: all made at the same time.
            drained: called for each VM, with the names of the pools that it was removed from.
            refused: called at once for each VM that will not be drained, with the reason.

        Raises:
            NotDone: a VM will not be drained; the message gives the reason for each.
        """
        waiting: dict[DrainRequest, float | None] = dict.fromkeys(requests)
        problems: list[str] = []
        while waiting:
            if any(out_since is not None for out_since in waiting.values()):
                await self._read_controls()  # they state how long connections get to close
            since = min(request.at for request in waiting)
            ledger = await self.read_ledger(*(request.vm for request in waiting), since=since)
            are_read = await self.requests_are_read()
            for request, out_since in list(waiting.items()):
                try:
                    if are_read:
                        self.check_stands(request)
                    waiting[request] = self._out_since(ledger, request, out_since)
                except NotDone as error:
                    problems.append(str(error))
                    refused(request, str(error))
                    del waiting[request]
                    continue
                entry = ledger.entry(request.vm) if ledger else None
                if out_since is not None and entry is not None and self._is_quiet(out_since):
                    drained(request, self._pools_of(entry))
                    del waiting[request]
            if waiting:
                await asyncio.sleep(LEDGER_INTERVAL_S)
        if problems:
            raise NotDone("\n".join(problems))

    def _out_since(
        self, ledger: Ledger | None, request: DrainRequest, before: float | None
    ) -> float | None:
        """Return since when the VM is out, counted on this machine: clocks differ.

        Raises:
            NotDone: the VM is in no managed pool.
        """
        if ledger is None:
            return before
        entry = ledger.entry(request.vm)
        if entry is None:
            self._check_managed(ledger, request.vm)
        if entry is None or not _is_out(entry, request):
            return None
        return self._clock.monotonic() if before is None else before

    def _is_quiet(self, out_since: float) -> bool:
        return self._clock.monotonic() - out_since >= self.connection_drain_s

    async def _read_controls(self) -> None:
        try:
            await self.controls.refresh_if_exists()
        except ControllerError as error:
            self.report_once(
                "The settings of the whole set cannot be read, so connection_drain_s is that of "
                f"this file: {error}"
            )

    async def wait_until_in_service(self, vm: str) -> bool:
        """Return when nothing of the VM is left to restore; the result is whether there was.

        The leader forgets an entry only after the health probes had time to find the VM.

        Raises:
            NotDone: the VM is missing in a pool, because the place in it does not exist any more.
        """
        since, was_out = self.now(), False
        while True:
            ledger = await self.read_ledger(vm, since=since)
            entry = ledger.entry(vm) if ledger is not None else None
            if ledger is not None and entry is None:
                return was_out
            if entry is not None and entry.parked:
                pools = ", ".join(sorted({short(lost.pool_id) for lost in entry.lost}))
                raise NotDone(
                    f"{vm} is not restored to {pools}: the pool, the NIC or the VM was deleted or "
                    "created again. It is restored when the place exists again. If that never "
                    f"happens, put the VM into the pool yourself and run "
                    f"{self.command('forget', vm)}"
                )
            was_out = was_out or ledger is not None
            await asyncio.sleep(LEDGER_INTERVAL_S)

    async def wait_until_others_in_service(self, vm: str) -> None:
        """Return when no other VM of the set is draining, drained or being restored."""
        while True:
            ledger = await self.read_ledger(vm, since=self.now())
            others = [] if ledger is None else _other_vms(ledger, vm)
            if ledger is not None and not others:
                return
            if others:
                self.report_once(f"{vm} waits until {', '.join(others)} is back in rotation.")
            await asyncio.sleep(LEDGER_INTERVAL_S)

    async def read_ledger(self, *vms: str, since: datetime, event_id: str = "") -> Ledger | None:
        """Read the ledger and report its news about VMs and an event; None if it cannot be read."""
        try:
            await self.ledger_store.read()
        except ControllerError as error:
            self.report_once(f"The ledger cannot be read now, retrying: {error}")
            return None
        ledger = self.ledger_store.ledger
        monotonic = self._clock.monotonic()
        if current_leader(ledger, lease_state=self.ledger_store.lease_state):
            self._leader_seen_at = monotonic
        elif monotonic - self._leader_seen_at > NO_LEADER_AFTER_S:
            self.report_once("The set has no leader: nothing happens until an agent leads.")
        self._report_news(ledger, {fold(vm) for vm in vms}, since, event_id)
        return ledger

    def _report_news(self, ledger: Ledger, vms: set[str], since: datetime, event_id: str) -> None:
        # Clocks differ: the first transition can be a moment older than the request.
        if self._past is None:  # the end of an earlier drain is not the beginning of this one
            self._past = frozenset(line for line in ledger.transitions if line.at < since)
        since -= timedelta(seconds=CLOCK_SKEW_S)
        for line in ledger.transitions:
            of_event = bool(event_id) and event_id in line.detail
            of_vm = fold(line.vm) in vms and line.at >= since and line not in self._past
            if of_event or of_vm:
                detail = f" ({line.detail})" if line.detail else ""
                at = f"{line.at:%H:%M:%S} UTC"
                self.report_once(f"{at}  {line.vm}: {step_text(line.step)}{detail}")
        for hold in ledger.holds:
            if fold(hold.subject) in vms:
                self.report_once(f"{hold.since:%H:%M:%S} UTC  on hold: {hold.message}")

    async def read_report(self, entry: Entry) -> VmReport | None:
        """Return what the agent of a VM reports about this drain; None if that is not known."""
        name = vm_report_blob_name(self._ledger_name, entry.vm)
        try:
            report = await read_vm_report(self.azure.state_blob(name), entry.vm)
        except ControllerError:
            return None
        return report if report is not None and report.drain == entry.recorded_at else None

    def _check_managed(self, ledger: Ledger, vm: str) -> None:
        for hold in ledger.holds:
            if (
                fold(hold.subject) == fold(vm)
                and hold.reason == HoldReason.UNMANAGED_RESOURCE.value
            ):
                raise NotDone(hold.message)

    def _pools_of(self, entry: Entry) -> str:
        ids = {membership.pool_id for membership in entry.memberships}
        return ", ".join(sorted(self._pool_names.get(fold(each), short(each)) for each in ids))


def _is_out(entry: Entry, request: DrainRequest) -> bool:
    """Return whether the VM is out of rotation because of this request."""
    if entry.out_at is None or entry.restoring_at is not None:
        return False
    return any(fold(each.event_id) == fold(request.request_id) for each in entry.events)


def _other_vms(ledger: Ledger, vm: str) -> list[str]:
    return [
        entry.vm
        for entry in ledger.entries
        if fold(entry.vm) != fold(vm) and not entry.waits_for_place
    ]


# --- connecting ---


@asynccontextmanager
async def connect(
    settings: Settings,
    *,
    environ: MutableMapping[str, str],
    clock: Clock,
    report: Report,
    availability_set_id: str = "",
    read_vm_names: bool = True,
    options: tuple[str, ...] = (),
    session_factory: SessionFactory = tcp_session,
) -> AsyncGenerator[DrainClient]:
    """Connect to the set of this VM, or to a named set with the account of `az login`.

    Args:
        read_vm_names: the names of the VMs of a named set are needed. Reading them takes rights on
            Compute; without these, names are not checked otherwise.
        options: with which another command selects the same set.

    Raises:
        SetupError: this VM is not in an availability set.
        ControllerError: Azure did not give an answer.
    """
    identity = Identity.AZURE_CLI if availability_set_id else Identity.VM
    async with open_azure(
        settings, clock, environ, identity=identity, session_factory=session_factory
    ) as azure:
        if not availability_set_id:
            found = await discover_identity(azure, settings)
            set_id, vms, machine = found.set_id, found.vms, found.instance.name
            place = LedgerPlace(name=found.ledger_name, owner_id=found.owner_id)
        else:
            set_id, machine = availability_set_id, socket.gethostname()
            vms = await _vm_names(azure, set_id, required=read_vm_names)
            place = await find_ledger(azure, settings, set_id, vms)
        caller = await azure.topology.caller_name()
        account = f", as {caller}" if caller not in {"", machine} else ""
        yield DrainClient(
            azure,
            ledger=place,
            availability_set_id=set_id,
            requester=cut(f"{_user(environ)} on {machine}{account}"),  # as the blobs have it
            vms=vms,
            this_machine=machine,
            settings=settings,
            clock=await _set_right(clock, azure.state_blob(place.name), report),
            report=report,
            options=options,
        )


async def _set_right(clock: Clock, blob: StateBlob, report: Report) -> Clock:
    """Return the clock as storage has it: a request that ends too early would do nothing.

    A clock that is ahead would end the controls of other operators.
    """
    try:
        date = (await blob.read_properties()).date
    except ControllerError:
        return clock
    ahead = date - clock.now() if date is not None else timedelta()
    if abs(ahead) <= CLOCK_OFF:
        return clock
    report(f"This clock is {-ahead.total_seconds():+.0f} s off; times are by the clock of Azure.")
    return CorrectedClock(clock, ahead)


def _user(environ: Mapping[str, str]) -> str:
    """Return the name of the user; a container can have an id without a name."""
    try:
        return environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, ImportError, OSError):
        number = getattr(os, "getuid", None)
        return f"user {number()}" if number is not None else "a user without a name"


async def _vm_names(azure: Azure, set_id: str, *, required: bool) -> tuple[str, ...]:
    """Return the names of the VMs of a set; none if they are not required and may not be read."""
    try:
        return tuple(vm.name for vm in await azure.compute.members(set_id))
    except Denied:
        if required:
            raise
        return ()
