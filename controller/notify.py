"""Tell people: webhooks, chats and mail, without anybody ever waiting for them.

`Herald` is called by the reconcile loop and by the adapters' observer; it derives what there is to
tell (`core.happenings`), puts it into the queues and returns. One worker per channel delivers, with
a deadline per attempt, few attempts, and the oldest dropped when the queue is full. What goes wrong
here is counted and logged, and never leaves this module: the guards (`except Exception`) stand here
so that no bug in telling can end a drain.

A happening of the set is told by the leader, and counts as told once every channel has delivered
it or given up. Then its id goes into the ledger with the next write; an agent that ceases to lead
drops what it has not delivered, for its successor will tell it. A leader that dies between delivery
and that write has its last happenings told once more, under the same id.

URLs and passwords are secrets, and libraries put them into their errors: logs name the channel, the
kind of error and a status only.
"""

import asyncio
import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

import aiohttp

from controller.clock import Clock
from controller.core.actions import Plan
from controller.core.happenings import (
    Happening,
    Silence,
    Told,
    follow,
    history,
    look,
    of_leadership,
    of_silence,
    told_in,
    with_told,
)
from controller.core.ledger import Ledger
from controller.core.model import EventDocument, Policy
from controller.errors import ConfigError
from controller.logs import log
from controller.messages import Sender, Undelivered, render, sender_of
from controller.metrics import STANDBY_SERVICES, NotifyOutcome
from controller.notify_settings import Notification
from controller.settings import Settings

logger = logging.getLogger(__name__)

QUEUE_MOST = 100
ATTEMPTS = 3
BACKOFF_S = (1.0, 5.0)
LONGEST_WAIT_S = 30.0
"""The longest that a receiver may ask us to wait; what it asks beyond that is not waited for."""
END_WITHIN_S = 0.5
"""How long a stop waits for messages under way."""
LEASES_WITHOUT_LEADER = 2
SERVICES = {
    "imds": "the instance metadata service",
    "compute": "Azure Resource Manager (compute)",
    "network": "Azure Resource Manager (network)",
    "blob": "the storage account",
}


@dataclass(slots=True)
class Notice:
    """A happening on its way to its channels."""

    happening: Happening
    of_set: bool
    """The leader's to tell; an agent's own alarms are not."""
    waiting: int
    settled: Callable[[str], None]

    def ended(self) -> None:
        """One channel has delivered it or given up."""
        self.waiting -= 1
        if not self.waiting:
            self.settled(self.happening.id)


@dataclass(slots=True, kw_only=True)
class Channel:
    """One channel, its queue and its worker."""

    name: str
    """For logs: never anything that was configured."""
    settings: Notification
    sender: Sender
    count: Callable[[str, NotifyOutcome], None]
    agent: str = ""
    availability_set: str = ""
    _queue: deque[Notice] = field(default_factory=deque[Notice])
    _filled: asyncio.Event = field(default_factory=asyncio.Event)
    _closed: bool = False

    def put(self, notice: Notice) -> None:
        """Take a notice; the oldest makes room."""
        if len(self._queue) >= QUEUE_MOST:
            dropped = self._queue.popleft()
            self.count(self.settings.kind, "dropped")
            dropped.ended()
        self._queue.append(notice)
        self._filled.set()

    def discard_of_set(self) -> Iterator[str]:
        """Forget what a successor will tell; yield the ids."""
        yield from (notice.happening.id for notice in self._queue if notice.of_set)
        self._queue = deque(notice for notice in self._queue if not notice.of_set)

    def close(self) -> None:
        """End the worker after the message that is under way."""
        self._closed = True
        self._queue.clear()
        self._filled.set()

    async def work(self, session: aiohttp.ClientSession) -> None:
        """Deliver until closed."""
        while not self._closed:
            if not self._queue:
                self._filled.clear()
                await self._filled.wait()
                continue
            notice = self._queue.popleft()
            outcome = await self._deliver(session, notice.happening)
            self.count(self.settings.kind, outcome)
            notice.ended()

    async def _deliver(self, session: aiohttp.ClientSession, happening: Happening) -> NotifyOutcome:
        said = ""
        for attempt in range(ATTEMPTS):
            wait_s: float | None = None
            try:
                message = render(
                    happening,
                    template=self.settings.template,
                    agent=self.agent,
                    availability_set=self.availability_set,
                )
                async with asyncio.timeout(self.sender.attempt_s):
                    await self.sender.send(session, message)
            except Undelivered as error:
                said, wait_s = str(error), error.retry_after_s
                if error.final:
                    break
            except TimeoutError:
                said = f"no reply within {self.sender.attempt_s:g} s"
            except Exception as error:  # whatever it is: the next has its turn
                said = type(error).__name__  # its text may repeat the URL
            else:
                return "delivered"
            if attempt < ATTEMPTS - 1:
                await asyncio.sleep(min(LONGEST_WAIT_S, max(BACKOFF_S[attempt], wait_s or 0.0)))
        message_ = f"{self.name} was not told that {happening.kind.value} happened: {said}"
        log(logger, logging.WARNING, message_, event="notify", outcome="failed")
        return "failed"


class Herald:
    """Derives what there is to tell, and hands it to the channels; never waits, never raises."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        clock: Clock,
        *,
        policy: Policy,
        count: Callable[[str, NotifyOutcome], None],
        answers: Callable[[str, str], bool],
        wake: Callable[[], None],
    ) -> None:
        """`wake` is called when something was told, so that the ledger learns of it."""
        self._clock, self._policy, self._answers, self._wake = clock, policy, answers, wake
        self._settings, self._environ, self._count = settings, environ, count
        self._vm = socket.gethostname()
        self._channels: list[Channel] = []
        self._session: aiohttp.ClientSession | None = None
        self._workers: list[asyncio.Task[None]] = []
        self._epoch: int | None = None
        self._told = Told()
        self._queued: set[str] = set()
        self._current: tuple[Happening, ...] = ()
        self._silences: dict[str, Silence] = {}
        self._leaderless = False
        self._broken = False

    @property
    def silent(self) -> bool:
        """Nobody is told anything: nobody wants to be, or the agent does not run."""
        return not self._channels

    def at_home(self, vm: str, availability_set: str) -> None:
        """Learn whose agent this is."""
        self._vm = vm
        for channel in self._channels:
            channel.agent, channel.availability_set = vm, availability_set

    async def __aenter__(self) -> Self:
        """Open the channels.

        Raises:
            ConfigError: the secret of one cannot be had.
        """
        if self._settings.notifications:
            tls = ssl.create_default_context()
            if ca_file := self._settings.azure.ca_file:
                tls.load_verify_locations(ca_file)
            self._channels = [
                self._channel(index, each, tls)
                for index, each in enumerate(self._settings.notifications)
            ]
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=tls),
                trust_env=True,  # chats are on the internet, where a proxy may lead
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            self._session = session
            self._workers = [
                asyncio.create_task(each.work(session), name=f"notify:{index}")
                for index, each in enumerate(self._channels)
            ]
        return self

    def _channel(self, index: int, settings: Notification, tls: ssl.SSLContext) -> Channel:
        try:
            sender = sender_of(settings, self._environ, tls)
        except ValueError as error:
            raise ConfigError(f"notifications[{index}]: {error}") from None
        name = f"notifications[{index}] ({settings.kind})"
        return Channel(name=name, settings=settings, sender=sender, count=self._count)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let messages under way arrive, for a moment; the successor tells the rest."""
        for channel in self._channels:
            channel.close()
        if self._workers:
            _, late = await asyncio.wait(self._workers, timeout=END_WITHIN_S)
            for worker in late:
                worker.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    # --- of the set, as its leader ---

    def passed(
        self,
        plan: Plan,
        ledger: Ledger,
        document: EventDocument | None,
        clean_documents: tuple[EventDocument, ...],
    ) -> None:
        """A leader's pass completed: tell what is new."""
        if self.silent:
            return
        try:
            self._passed(plan, ledger, document, clean_documents)
        except Exception as error:  # telling must not end a drain
            self._fail(error)

    def _passed(
        self,
        plan: Plan,
        ledger: Ledger,
        document: EventDocument | None,
        clean_documents: tuple[EventDocument, ...],
    ) -> None:
        now = self._clock.now()
        if ledger.epoch != self._epoch:
            self._take_office(ledger)
        events = follow(
            self._told.events,
            ledger=ledger,
            clean_documents=clean_documents,
            policy=self._policy,
            told=frozenset(self._told.ids),
            now=now,
        )
        self._told = replace(self._told, events=events)
        self._current = look(
            events,
            plan=plan,
            ledger=ledger,
            document=document,
            clean_documents=clean_documents,
            policy=self._policy,
            now=now,
        )
        known = self._queued.union(self._told.ids)
        for happening in self._current:
            if happening.id not in known:
                self._queued.add(happening.id)
                self._tell(happening, of_set=True)

    def _take_office(self, ledger: Ledger) -> None:
        self._epoch = ledger.epoch
        self._queued.clear()
        told = told_in(ledger)
        past = () if told else history(ledger)
        self._told = told or Told().adding((each.id for each in past), past)

    def mark(self, ledger: Ledger) -> Ledger:
        """Return the ledger with what was told; the same one if it says so already."""
        if self.silent or ledger.epoch != self._epoch:
            return ledger
        try:
            return with_told(ledger, self._told)
        except Exception as error:  # telling must not end a drain
            self._fail(error)
            return ledger

    def stand_by(self) -> None:
        """This agent does not lead (any more): what is not told yet another will tell.

        Unless it is this one again, under the same epoch: then nobody led meanwhile.
        """
        for channel in self._channels:
            self._queued.difference_update(channel.discard_of_set())
        for service in self._silences.keys() - STANDBY_SERVICES:
            del self._silences[service]

    # --- of this agent ---

    def requested(self, service: str, outcome: str) -> None:
        """A request to Azure ended: a service that goes silent is told, and its return too."""
        if self.silent or service not in SERVICES or outcome == "cancelled":
            return
        before = self._silences.get(service, Silence())
        after = before.after(self._answers(service, outcome), self._clock.monotonic())
        self._silences[service] = after
        if after.told is not before.told:
            happening = of_silence(
                self._vm, SERVICES[service], silent=after.told, at=self._clock.now()
            )
            self._tell(happening, of_set=False)

    def leader_seen(self, seconds_ago: float) -> bool:
        """A leader was last seen so long ago; return whether that is too long."""
        missing = seconds_ago > LEASES_WITHOUT_LEADER * self._settings.election.lease_duration_s
        if missing is not self._leaderless and not self.silent:
            self._leaderless = missing
            happening = of_leadership(self._vm, missing=missing, at=self._clock.now())
            self._tell(happening, of_set=False)
        return missing

    # --- telling ---

    def _tell(self, happening: Happening, *, of_set: bool) -> None:
        wanted = [each for each in self._channels if each.settings.wants(happening.kind)]
        settled = self._settled_in(self._epoch) if of_set else _nothing
        notice = Notice(happening, of_set, len(wanted) or 1, settled)
        for channel in wanted:
            channel.put(notice)
        if not wanted:
            notice.ended()

    def _settled_in(self, epoch: int | None) -> Callable[[str], None]:
        def settled(ident: str) -> None:
            if epoch == self._epoch:
                self._told = self._told.adding([ident], self._current)
                self._wake()

        return settled

    def _fail(self, error: Exception) -> None:
        if not self._broken:
            self._broken = True
            message = f"nobody can be told what happens, which is a bug: {type(error).__name__}"
            log(logger, logging.ERROR, message, event="notify", outcome="failed")


def _nothing(_ident: str) -> None:
    """An agent's own alarms are not remembered."""
