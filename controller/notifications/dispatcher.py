"""Notifications: derived from what the leader sees, delivered without delaying a drain.

The reconcile loop and the observer of Azure requests call `NotificationDispatcher`. It derives the
notices (`core.notices`), queues them for the channels and returns at once; a worker per channel
delivers. Nothing that goes wrong here leaves this package: the guards (`except Exception`) are here
so that a bug in a notification cannot end a drain.

The leader sends the notices of the set. A notice counts as delivered when every channel has
delivered it or given up; then its id goes into the ledger with the next write. An agent that stops
being the leader drops its queued notices, and the next leader sends them. If a leader dies between
the delivery and that write, the next leader sends its last notices again, with the same ids.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

from controller.azure.http.session import tls_context
from controller.clock import Clock
from controller.config.in_force import ConfigurationInForce
from controller.config.notifications import Notification
from controller.config.schema import Settings
from controller.core.azure_names import SetName
from controller.core.drain_requests import DrainRequest
from controller.core.events import EventDocument
from controller.core.ledger import Ledger
from controller.core.notices.agent_notices import ServiceOutage, leadership_notice, service_notice
from controller.core.notices.digest import PollCounts, Schedule, digests
from controller.core.notices.event_notices import follow_events
from controller.core.notices.notice import DeliveredNotices, Notice
from controller.core.notices.set_notices import current_notices, ledger_notices
from controller.core.planning.actions import Plan
from controller.notifications.channel import (
    Channel,
    QueuedNotice,
    channel_of,
    channel_session,
    left_in,
)
from controller.notifications.formats import Origin
from controller.observability.logs import log
from controller.observability.metrics import STANDBY_SERVICES, NotifyOutcome
from controller.storage.notices_json import (
    load_delivered,
    load_polls,
    polls_field,
    with_delivered,
)

logger = logging.getLogger("lbdrain.notifications")

END_WITHIN_S = 0.5
"""How long a stop waits for the current messages."""
KEEP_S = 3600.0
"""How often counted polls are written to the ledger, in seconds."""
SERVICES = {
    "imds": "the instance metadata service",
    "compute": "Azure Resource Manager (compute)",
    "network": "Azure Resource Manager (network)",
    "blob": "the storage account",
}


class NotificationDispatcher:
    """Derives notices and queues them for the channels; never waits, never raises."""

    def __init__(
        self,
        configuration: ConfigurationInForce,
        environ: Mapping[str, str],
        clock: Clock,
        *,
        count: Callable[[str, NotifyOutcome], None],
        answers: Callable[[str, str], bool],
        annotate: Callable[[int, Mapping[str, Any]], None],
        wake: Callable[[], None],
    ) -> None:
        """Use the result as a context manager; without it, there are no channels.

        Args:
            configuration: settings, with the channels, and policy in force.
            environ: where the secrets of channels may be.
            clock: the corrected clock.
            count: called with the kind of a channel and the outcome of a notification.
            answers: returns whether a service with this outcome works.
            annotate: queues fields for the ledger of an epoch.
            wake: called after a delivery, so that the ledger gets written.
        """
        self._annotate = annotate
        self._clock, self._answers, self._wake = clock, answers, wake
        self._configuration, self._environ, self._count = configuration, environ, count
        self._vm = socket.gethostname()
        self._set = SetName(name="")
        self._channels: list[Channel] = []
        self._open = AsyncExitStack()
        self._epoch: int | None = None
        # The epoch in which this leader has no channels: what it does not send is not sent later.
        self._silent_epoch: int | None = None
        self._delivered = DeliveredNotices()
        self._queued: set[str] = set()
        self._current: tuple[Notice, ...] = ()
        self._outages: dict[str, ServiceOutage] = {}
        self._broken = self._leads = False
        self._schedules = schedules_of(configuration.settings.notifications)
        self._polls, self._polls_kept_at = PollCounts(), 0.0

    def identify(self, vm: str, availability_set: SetName) -> None:
        """Set the VM of this agent and its availability set."""
        self._vm, self._set = vm, availability_set
        for channel in self._channels:
            channel.origin = self._origin()

    def _origin(self) -> Origin:
        return Origin(
            agent=self._vm,
            availability_set=self._set.name,
            resource_group=self._set.resource_group,
            runbook_url=self._configuration.settings.links.runbook_url,
        )

    async def __aenter__(self) -> Self:
        """Open the channels.

        Raises:
            ConfigError: the secret of a channel or the CA file cannot be read.
        """
        await self._start(self._configuration.settings.notifications)
        return self

    async def reopen(self, settings: Settings) -> None:
        """Open other channels; the old ones end after their message, the rest is sent by the new.

        A channel that stays as it is gets nothing twice.

        Raises:
            ConfigError: the secret of a channel or the CA file cannot be read; nothing has changed.
        """
        if settings.notifications == self._configuration.settings.notifications:
            return
        old, channels, epoch = self._open, self._channels, self._epoch
        await self._start(settings.notifications)
        self._schedules = schedules_of(settings.notifications)
        await old.aclose()
        for each in left_in(channels):
            notice, of_set = each.queued.notice, each.queued.of_set
            if not of_set or (self._leads and epoch == self._epoch):
                self._put(notice, of_set=of_set, ended=each.ended)
            elif not self._leads:
                self._queued.discard(notice.id)  # the next leader sends it

    async def _start(self, settings: tuple[Notification, ...]) -> None:
        """Start the channels in place of those that are open."""
        if not settings:
            self._open, self._channels = AsyncExitStack(), []
            return
        tls = tls_context(self._configuration.settings.azure.ca_file)
        channel = partial(
            channel_of, environ=self._environ, tls=tls, count=self._count, origin=self._origin()
        )
        channels = [channel(f"notifications[{n}]", each) for n, each in enumerate(settings)]
        self._open, self._channels = AsyncExitStack(), channels
        session = await self._open.enter_async_context(channel_session(tls))
        workers = [asyncio.create_task(each.work(session), name=each.name) for each in channels]
        self._open.push_async_callback(_end, channels, workers)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the current messages a moment; the next leader sends the rest."""
        await self._open.aclose()

    # --- about the set, as its leader ---

    def passed(
        self,
        plan: Plan,
        ledger: Ledger,
        document: EventDocument | None,
        clean_documents: tuple[EventDocument, ...],
        requests: Iterable[DrainRequest],
    ) -> None:
        """Queue what is new after a leader's pass."""
        if not self._channels:
            self._epoch, self._silent_epoch = None, ledger.epoch
            return
        try:
            now = self._clock.now()
            if ledger.epoch != self._epoch:
                self._epoch = ledger.epoch
                self._queued.clear()
                silent, self._silent_epoch = self._silent_epoch == ledger.epoch, None
                known = None if silent else load_delivered(ledger)
                self._polls, self._polls_kept_at = load_polls(ledger), self._clock.monotonic()
                past = () if known else (*ledger_notices(ledger), *self._digests(ledger, now))
                ids = (each.id for each in past)
                self._delivered = known or DeliveredNotices().adding(ids, past)
            events = follow_events(
                self._delivered.events,
                ledger=ledger,
                clean_documents=clean_documents,
                policy=self._configuration.policy,
                delivered=frozenset(self._delivered.ids),
                now=now,
            )
            self._delivered = replace(self._delivered, events=events)
            current = current_notices(
                events,
                plan=plan,
                ledger=ledger,
                document=document,
                clean_documents=clean_documents,
                policy=self._configuration.policy,
                now=now,
                requests=requests,
            )
            self._current = (*current, *self._digests(ledger, now))
            self._remember()
            self._keep_polls()
            sent = self._queued.union(self._delivered.ids)
            for notice in (each for each in self._current if each.id not in sent):
                self._queued.add(notice.id)
                self._put(notice, of_set=True)
        except Exception as error:  # a notification must not end a drain
            self._report_bug(error)

    def _digests(self, ledger: Ledger, now: datetime) -> tuple[Notice, ...]:
        return digests(self._schedules, ledger, self._polls, now)

    def polled(self, *, succeeded: bool) -> None:
        """Count a poll of scheduled events for the digest, if this agent is the leader."""
        if self._leads and self._schedules:
            self._polls = self._polls.adding(self._clock.now(), succeeded=succeeded)

    def _keep_polls(self) -> None:
        """Queue the counts for the ledger now and then: each time costs a write of an idle set."""
        self._leads = True
        now_s = self._clock.monotonic()
        if self._schedules and self._epoch is not None and now_s - self._polls_kept_at >= KEEP_S:
            self._polls_kept_at = now_s
            self._annotate(self._epoch, polls_field(self._polls))

    def _remember(self) -> None:
        """Queue the delivered notices for the ledger, which is written when the set is idle."""
        if self._epoch is None:
            return
        try:
            self._annotate(self._epoch, with_delivered(Ledger(), self._delivered).extra)
        except Exception as error:  # a worker must go on with the next notice
            self._report_bug(error)

    def stand_by(self) -> None:
        """Leave the queued notices of the set to the next leader.

        If this agent becomes the leader again with the same epoch, no other agent was the leader.
        """
        self._leads = False
        for channel in self._channels:
            self._queued.difference_update(channel.discard_of_set())
        for service in self._outages.keys() - STANDBY_SERVICES:
            if not self._outages[service].unreachable:  # the end of what was reported follows
                del self._outages[service]

    # --- about this agent ---

    def request_ended(self, service: str, outcome: str) -> None:
        """Note how a request to Azure ended; queue the outage of a service, and its end."""
        if not self._channels or service not in SERVICES or outcome == "cancelled":
            return
        before = self._outages.get(service, ServiceOutage())
        after = before.after(self._answers(service, outcome), self._clock.monotonic())
        self._outages[service] = after
        if after.unreachable is not before.unreachable:
            now, name = self._clock.now(), SERVICES[service]
            notice = service_notice(self._vm, name, unreachable=after.unreachable, at=now)
            self._put(notice, of_set=False)

    def leader_missing(self, missing: bool) -> None:
        """Queue that there is no leader, or that there is one again."""
        self._put(leadership_notice(self._vm, missing=missing, at=self._clock.now()), of_set=False)

    # --- queues ---

    def _put(self, notice: Notice, *, of_set: bool, ended: Collection[Notification] = ()) -> None:
        """Queue a notice for every channel that wants it, but not for those in `ended`."""
        epoch = self._epoch

        def done(notice_id: str) -> None:
            if of_set and epoch == self._epoch:
                self._delivered = self._delivered.adding([notice_id], self._current)
                self._remember()
                self._wake()

        wanted = [
            each
            for each in self._channels
            if each.settings.wants(notice) and each.settings not in ended
        ]
        if not wanted:
            done(notice.id)
        queued = QueuedNotice(notice, of_set, len(wanted), done)
        for channel in wanted:
            channel.put(queued)

    def _report_bug(self, error: Exception) -> None:
        if not self._broken:
            self._broken = True
            message = f"no notification can be sent, which is a bug: {type(error).__name__}"
            log(logger, logging.ERROR, message, event="notification_failed")


def schedules_of(settings: Iterable[Notification]) -> list[Schedule]:
    """Return when the channels get a digest."""
    return [each.schedule for each in settings if each.schedule]


async def _end(channels: list[Channel], workers: list[asyncio.Task[None]]) -> None:
    for channel in channels:
        channel.close()
    try:
        await asyncio.wait(workers, timeout=END_WITHIN_S)
    finally:
        for worker in workers:
            worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
