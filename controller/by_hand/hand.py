"""Asking the leader for something, and watching it happen."""

import asyncio
import getpass
import shlex
import socket
import uuid
from collections.abc import AsyncGenerator, Callable, MutableMapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from controller.azure.session import Azure, Identity, SessionFactory, open_azure, tcp_session
from controller.clock import Clock
from controller.core.actions import Reason
from controller.core.ledger import Entry, Ledger
from controller.core.model import Request, fold
from controller.core.requests import Edit, Requests
from controller.errors import (
    ConfigError,
    Conflict,
    ControllerError,
    NotDone,
    NotSent,
    OutcomeUnknown,
    ServiceFault,
    Throttled,
    told_s,
)
from controller.home import blob_name_of, find_home
from controller.ledger_store import LedgerStore
from controller.request_store import RequestStore, requests_name_of
from controller.settings import Settings

LOOK_S = 1.0
"""How often the ledger is read while somebody waits."""
AGAIN_S = 3.0
"""After so long what storage did not take is sent again."""

MOST_TEXT = 200
"""The longest reason that is kept, in characters."""

LEADERLESS_S = 10.0
"""A lease changes hands in less; what lasts longer is told."""

Say = Callable[[str], None]


class Hand:
    """What one person can ask of the set, and how it goes on.

    Args:
        who: named in everything that is asked for.
        vms: names of the VMs of the set; empty when they are not known here.
        here: name of this machine.
        options: with which a command finds the same set again.
        connection_drain_s: how long a VM that is out gets to empty.
    """

    def __init__(
        self,
        azure: Azure,
        *,
        ledger_name: str,
        availability_set_id: str,
        who: str,
        vms: tuple[str, ...],
        here: str,
        connection_drain_s: float,
        clock: Clock,
        say: Say,
        options: tuple[str, ...] = (),
    ) -> None:
        self.azure, self.availability_set_id = azure, availability_set_id
        self.who, self.vms, self.here, self.say = who, vms, here, say
        self._options = options
        self.requests = RequestStore(azure.ledger(requests_name_of(ledger_name)))
        self._ledger = LedgerStore(azure.ledger(ledger_name))
        self._clock, self._connection_drain_s = clock, connection_drain_s
        self._said: set[str] = set()
        self._led_at = clock.monotonic()

    def now(self) -> datetime:
        """Return the wall clock of this machine."""
        return self._clock.now()

    def command(self, *words: str) -> str:
        """Return how the same person types another command for the same set."""
        return shlex.join(("lb-drain", *words, *self._options))

    # --- asking ---

    async def drain(self, vm: str, *, for_s: float, reason: str) -> Request:
        """Ask for a VM to be taken out, and to be put back after `for_s` seconds at the latest.

        Raises:
            NotDone: the set is known and has no such VM.
            ControllerError: the request could not be written.
        """
        now = self.now()
        request = Request(
            request_id=str(uuid.uuid4()),
            vm=self.named(vm),
            reason=reason[:MOST_TEXT],
            by=self.who,
            at=now,
            until=now + timedelta(seconds=for_s),
        )
        await self.requests.change(lambda requests: requests.adding(request))
        return request

    async def restore(self, vm: str) -> bool:
        """Withdraw what was asked for a VM; tell whether anything was.

        Raises:
            NotDone: the set is known and has no such VM.
            ControllerError: the request could not be withdrawn.
        """
        name, now, stood = self.named(vm), self.now(), False

        def withdraw(requests: Requests) -> Requests:
            nonlocal stood
            stood = stood or requests.of(name, now) is not None
            return requests.withdrawing(name, at=now, by=self.who)

        await self.requests.change(withdraw)
        return stood

    async def insist(self, edit: Edit) -> Requests:
        """Change the requests, trying again for as long as storage does not answer.

        Raises:
            ControllerError: trying again would not help.
        """
        while True:
            try:
                return await self.requests.change(edit)
            except (Conflict, NotSent, OutcomeUnknown, ServiceFault, Throttled) as error:
                self._say_once(f"the requests cannot be written now: {error}")
                await asyncio.sleep(max(AGAIN_S, told_s(error) or 0.0))

    def named(self, vm: str) -> str:
        """Return the VM's name in Azure's spelling.

        Raises:
            NotDone: the set is known and has no such VM.
        """
        for name in self.vms:
            if fold(name) == fold(vm):
                return name
        if self.vms:
            raise NotDone(f"{vm} is not in this availability set, which has {', '.join(self.vms)}")
        return vm

    # --- watching ---

    async def until_out(self, request: Request) -> None:
        """Return when the VM is out of every pool and has had its time to empty.

        Raises:
            NotDone: that will not happen; says why.
        """
        out_since: float | None = None
        while True:
            ledger = await self._look(request.vm, since=request.at)
            await self._check_standing(request)
            entry = ledger.entry(request.vm) if ledger else None
            if ledger is not None and entry is None:
                self._check_managed(ledger, request.vm)
            if not _out(entry, request):
                out_since = None if ledger is not None else out_since
            elif out_since is None:
                # Counted here: the clock of the leader, which has noted the instant, is another.
                out_since = self._clock.monotonic()
            elif self._clock.monotonic() - out_since >= self._connection_drain_s:
                return
            await asyncio.sleep(LOOK_S)

    async def until_back(self, vm: str) -> bool:
        """Return when a VM is in service again and its pools' probes have had time to find it.

        Tells whether it was out at all.
        """
        since, was_out = self.now(), False
        while True:
            ledger = await self._look(vm, since=since)
            if ledger is not None and ledger.entry(vm) is None:
                return was_out
            was_out = was_out or ledger is not None
            await asyncio.sleep(LOOK_S)

    async def until_alone(self, vm: str) -> None:
        """Return when no other VM of the set is out, or on its way out or back."""
        while True:
            ledger = await self._look(vm, since=self.now())
            others = [] if ledger is None else _others(ledger, vm)
            if ledger is not None and not others:
                return
            if others:
                self._say_once(f"{vm} waits for {', '.join(others)} to be back in rotation")
            await asyncio.sleep(LOOK_S)

    async def _look(self, vm: str, *, since: datetime) -> Ledger | None:
        """Read the ledger and tell what is new; None if it cannot be read now."""
        try:
            await self._ledger.read()
        except ConfigError:
            raise
        except ControllerError as error:
            self._say_once(f"the ledger cannot be read now: {error}")
            return None
        ledger = self._ledger.ledger
        monotonic = self._clock.monotonic()
        if self._ledger.lease_state == "leased":
            self._led_at = monotonic
        elif monotonic - self._led_at > LEADERLESS_S:
            self._say_once("no agent leads the set: nothing happens until one does")
        # Clocks differ: what was noted a moment before the request may be its first line.
        for line in ledger.transitions:
            if fold(line.vm) == fold(vm) and line.at >= since - timedelta(seconds=LOOK_S):
                detail = f" ({line.detail})" if line.detail else ""
                at = f"{line.at:%H:%M:%S} UTC"
                self._say_once(f"{at}  {line.vm}: {line.what}{detail}")
        for hold in ledger.holds:
            if fold(hold.subject) == fold(vm):
                self._say_once(f"{hold.since:%H:%M:%S} UTC  held: {hold.message}")
        return ledger

    async def _check_standing(self, request: Request) -> None:
        try:
            await self.requests.refresh()
        except ControllerError as error:
            self._say_once(f"the requests cannot be read now: {error}")
            return
        found = self.requests.requests.called(request.request_id)
        if found is None:
            raise NotDone(f"the request for {request.vm} is gone: its blob was deleted")
        if found.ended_at is not None:
            raise NotDone(f"the request for {request.vm} was withdrawn by {found.ended_by}")
        if not found.stands(self.now()):
            raise NotDone(f"{request.vm} was not out of rotation within the time of the request")

    def _check_managed(self, ledger: Ledger, vm: str) -> None:
        for hold in ledger.holds:
            if fold(hold.subject) == fold(vm) and hold.reason == Reason.UNMANAGED_RESOURCE.value:
                raise NotDone(hold.message)

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.say(text)


def _out(entry: Entry | None, request: Request) -> bool:
    if entry is None or entry.out_at is None or entry.restoring_at is not None:
        return False
    return any(fold(each.event_id) == fold(request.request_id) for each in entry.events)


def _others(ledger: Ledger, vm: str) -> list[str]:
    return [entry.vm for entry in ledger.entries if fold(entry.vm) != fold(vm) and not entry.gone]


# --- who asks, and where ---


@asynccontextmanager
async def open_hand(
    settings: Settings,
    *,
    environ: MutableMapping[str, str],
    clock: Clock,
    say: Say,
    availability_set_id: str = "",
    names: bool = True,
    options: tuple[str, ...] = (),
    session_factory: SessionFactory = tcp_session,
) -> AsyncGenerator[Hand]:
    """Find the set: that of this VM, or a named one as whoever is logged in with `az login`.

    Args:
        options: with which a command finds the same set again.
        names: read the names of the VMs of a named set, which takes rights on Compute.

    Raises:
        ConfigError: this VM is in no set.
        ControllerError: an answer could not be had.
    """
    identity = Identity.AZURE_CLI if availability_set_id else Identity.VM
    async with open_azure(
        settings, clock, environ, identity=identity, session_factory=session_factory
    ) as azure:
        if not availability_set_id:
            home = await find_home(azure)
            set_id, vms = home.availability_set_id, home.vms
            where = home.instance.name
        else:
            set_id, where = availability_set_id, socket.gethostname()
            vms = tuple(vm.name for vm in await azure.compute.members(set_id)) if names else ()
        caller = await azure.survey.caller()
        user = environ.get("SUDO_USER") or getpass.getuser()
        yield Hand(
            azure,
            ledger_name=settings.election.blob_name or blob_name_of(set_id),
            availability_set_id=set_id,
            who=f"{user} on {where}" + (f", as {caller}" if caller not in {"", where} else ""),
            vms=vms,
            here=where,
            connection_drain_s=settings.policy.connection_drain_s,
            clock=clock,
            say=say,
            options=options,
        )
