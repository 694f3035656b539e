"""Forwards events to the leader; as the leader, reads what is forwarded.

Only in a scale set (`core.forwarded_events`). An agent asks storage only while there is something
to forward, and once at its start. The leader lists the blobs of the set every 15 seconds: without a
forwarded event that is one request. Nothing here has a timer: the polls of the document drive it.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from controller.agent.context import AgentContext
from controller.agent.coverage_watch import CoverageWatch
from controller.agent.event_watcher import EventWatcher
from controller.agent.leader_election import LeaderElection
from controller.agent.present_set import PresentSet
from controller.agent.standby_ledger import StandbyLedgerCache
from controller.azure.blob import StateBlob
from controller.azure.container import ListedBlob, StateContainer
from controller.clock import Clock
from controller.core.azure_names import SetKind, fold
from controller.core.events import CLEAN_DOCUMENTS, ScheduledEvent
from controller.core.forwarded_events import (
    RENEWED_S,
    ForwardedEvent,
    ForwardedEvents,
    events_of,
    merged,
    to_forward,
)
from controller.core.ledger import Ledger
from controller.core.policy import Policy
from controller.core.rehearsals import is_test
from controller.core.resources import Vm
from controller.errors import (
    TRANSIENT,
    ContractViolation,
    ControllerError,
    NotFound,
    OutcomeUnknown,
    retry_wait_s,
)
from controller.observability.logs import log
from controller.storage.forwarded_events_store import (
    ENDING,
    bounded,
    decode_forwarded,
    encode_forwarded,
    forwarded_blob_name,
    forwarded_folder,
)
from controller.storage.own_blob import OwnBlob

logger = logging.getLogger("lbdrain.agent")

LIST_PERIOD_S = 15.0
"""How often the leader looks for forwarded events."""
LIST_WITHIN_S = 10.0
TRIES = 3
"""After so many failures in a row the leader goes on without them."""


class EventForwarder:
    """Forwards the events of this VM; `run` is a task.

    Args:
        coverage: finds what the leader does not know.
        blob: of this agent.
        vm: the VM of this agent.
        watcher: the event document and the clock.
        policy: returns the policy in force.
    """

    def __init__(
        self,
        coverage: CoverageWatch,
        blob: StateBlob,
        *,
        vm: str,
        watcher: EventWatcher,
        policy: Callable[[], Policy],
    ) -> None:
        self.coverage, self._blob, self._own = coverage, blob, OwnBlob(blob)
        self._vm, self._watcher, self._policy = vm, watcher, policy
        self._woken = asyncio.Event()
        self._sent: ForwardedEvents | None = None
        """None until it is known what an earlier run of this agent has forwarded."""
        self._is_current = False
        """Whether this run has read enough documents to know what of that is over."""
        self._wait_until = float("-inf")
        """When storage is asked again, as it requested; monotonic seconds."""
        self._refused = ""
        """The lasting refusal that was reported last."""

    def polled(self) -> None:
        """Look again; called after every poll."""
        self.coverage.polled()
        if self._watcher.clock.monotonic() < self._wait_until:
            return
        stands = self._sent is not None and bool(self._sent.events)
        forwards = stands or self.coverage.is_in_scale_set()
        if forwards and (self._sent is None or self._is_due()):
            self._woken.set()

    async def run(self) -> None:
        """Forward until cancelled. What fails is tried again after the next poll."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                await self.step()
                self._refused = ""
            except ControllerError as error:
                self._failed(error)

    def _failed(self, error: ControllerError) -> None:
        """Wait as long as storage requests; report a refusal that lasts, once."""
        wait_s = retry_wait_s(error, at_least_s=0.0)
        self._wait_until = self._watcher.clock.monotonic() + wait_s
        if isinstance(error, TRANSIENT) or self._refused == error.word():
            return
        self._refused = error.word()
        log(
            logger,
            logging.WARNING,
            f"the events of this VM cannot be forwarded to the leader: {error}",
            event="azure_request_failed",
            vm=self._vm,
            outcome=error.word(),
        )

    async def step(self) -> None:
        """Write what has to be forwarded, if that has changed or is old.

        Raises:
            ControllerError: storage did not answer, or refused the write.
        """
        if self._sent is None:
            self._sent = await self._read()
        if self._is_due():
            wanted = ForwardedEvents(vm=self._vm, at=self._watcher.now(), events=self._events())
            written = bounded(wanted)
            if written != wanted:
                message = (
                    f"not all of {len(wanted.events)} events are forwarded: they are more than a "
                    "leader reads"
                )
                log(logger, logging.WARNING, message, event="event_set_aside", vm=self._vm)
            await self._own.replace(encode_forwarded(written))
            self._sent = wanted

    async def _read(self) -> ForwardedEvents:
        nothing = ForwardedEvents(vm=self._vm, at=self._watcher.now())
        try:
            return decode_forwarded((await self._blob.read()).body, self._blob.name)
        except (NotFound, ContractViolation):
            return nothing

    def _is_due(self) -> bool:
        """Return whether to write.

        What an earlier run has forwarded is not renewed unseen: it would stand as if it were
        announced again.
        """
        sent, events = self._sent, self._events()
        if sent is None or events != sent.events:
            return sent is not None
        self._is_current = self._is_current or len(self._watcher.clean_documents) >= CLEAN_DOCUMENTS
        if not self._is_current:
            return False
        age_s = (self._watcher.now() - sent.at).total_seconds()
        return bool(events) and not 0 <= age_s < RENEWED_S

    def _events(self) -> tuple[ForwardedEvent, ...]:
        document, policy = self._watcher.document, self._policy()
        shown = [
            event
            for event in (document.events if document else ())
            if not event.forwarded and not is_test(event.event_id) and policy.impacting(event)
        ]
        return to_forward(
            self._sent.events if self._sent else (),
            shown,
            self._watcher.clean_documents,
            vm=self._vm,
            unrecorded=self.coverage.unknown,
        )


class ForwardedReader:
    """Reads what agents forward while this one leads; `run` is a task.

    Args:
        container: lists the blobs of the container.
        blob_of: returns the client of the blob with this name.
        folder: how the names of the blobs of this set begin.
        vm: the VM of this agent, whose own document shows its events.
        present_set: the set.
        clock: the monotonic clock.
        leading: returns whether this agent leads.
        vms: returns the VMs of the set; none while they are not known.
    """

    def __init__(
        self,
        container: Callable[[], StateContainer],
        blob_of: Callable[[str], StateBlob],
        *,
        folder: str,
        vm: str,
        present_set: PresentSet,
        clock: Clock,
        leading: Callable[[], bool],
        vms: Callable[[], tuple[Vm, ...]],
    ) -> None:
        self._container, self._blob_of, self._folder = container, blob_of, folder
        self._own = f"/{fold(vm)}{ENDING}"
        self._set, self._clock, self._leading, self._vms = present_set, clock, leading, vms
        self._woken = asyncio.Event()
        self._found: dict[str, tuple[ListedBlob, ForwardedEvents]] = {}
        """By the name of the blob."""
        self._listed_at: float | None = None
        self._failed = 0
        self._known = False
        self._unreadable: dict[str, str] = {}
        """The ETag of each blob that was reported, by its name."""
        self._listeners: list[Callable[[ControllerError | None], None]] = []

    def on_read(self, listener: Callable[[ControllerError | None], None]) -> None:
        """Call a listener after every read; with the error if not all could be read."""
        self._listeners.append(listener)

    def polled(self) -> None:
        """Look for forwarded events if that is due; called after every poll."""
        if not self._leading() or self._set.kind is SetKind.AVAILABILITY_SET:
            self._known, self._listed_at, self._failed = False, None, 0
            return
        now = self._clock.monotonic()
        if self._listed_at is None or now - self._listed_at >= LIST_PERIOD_S:
            self._listed_at = now
            self._woken.set()

    def events(self, now: datetime) -> tuple[ScheduledEvent, ...]:
        """Return the forwarded events that count. The agent of a deleted VM withdraws none."""
        if not self._leading() or self._set.kind is SetKind.AVAILABILITY_SET:
            return ()
        vms = {fold(vm.name) for vm in self._vms()}
        return merged(
            event
            for listed, each in self._found.values()
            if not vms or fold(each.vm) in vms
            for event in events_of(each, listed.written_at, now)
        )

    def is_known(self) -> bool:
        """Return whether the events of the document are all that there are (law S6)."""
        return not self._leading() or self._set.kind is SetKind.AVAILABILITY_SET or self._known

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            failed: ControllerError | None = None
            try:
                await self.step()
            except ControllerError as error:
                failed = error
                self._failed += 1
                if self._failed == TRIES:
                    self._known = True
                    message = f"events that other agents forward cannot be read: {error}"
                    log(
                        logger,
                        logging.WARNING,
                        message,
                        event="azure_request_failed",
                        outcome=error.word(),
                    )
            for listener in self._listeners:
                listener(failed)

    async def step(self) -> None:
        """Read what has changed.

        Raises:
            ControllerError: storage did not answer.
        """
        try:
            async with asyncio.timeout(LIST_WITHIN_S):
                listing = await self._container().list(prefix=self._folder)
        except TimeoutError:
            raise OutcomeUnknown(f"blob list: no answer within {LIST_WITHIN_S:.0f} s") from None
        blobs = {
            each.name: each
            for each in listing.blobs
            if each.name.endswith(ENDING) and not each.name.endswith(self._own)
        }
        for name in self._found.keys() - blobs.keys():
            del self._found[name]
        failed: ControllerError | None = None
        for name, listed in blobs.items():
            if name in self._found and self._found[name][0].etag == listed.etag:
                continue
            try:
                content = await self._blob_of(name).read()
                self._found[name] = listed, decode_forwarded(content.body, name)
            except NotFound:
                pass
            except ContractViolation as error:
                self._report(listed, error)
            except ControllerError as error:
                failed = error  # the others are read all the same
        if failed is not None:
            raise failed
        self._failed, self._known = 0, True

    def _report(self, listed: ListedBlob, error: ContractViolation) -> None:
        """Report content that cannot be read, once; what was read before counts on."""
        if self._unreadable.get(listed.name) != listed.etag:
            self._unreadable[listed.name] = listed.etag
            message = (
                f"the events in the blob {listed.name} cannot be read: {error}. Delete it: the "
                "agent of its VM writes it again within five minutes"
            )
            log(logger, logging.WARNING, message, event="event_set_aside")


def assemble_forwarder(
    context: AgentContext,
    watcher: EventWatcher,
    election: LeaderElection | None,
    standby_ledger: StandbyLedgerCache | None,
) -> EventForwarder | None:
    """Return what forwards events; None for a dry run, which writes nothing."""
    if election is None or standby_ledger is None:
        return None

    def read_as_standby() -> Ledger | None:
        latest = standby_ledger.latest
        return None if election.leading or latest is None else latest.ledger

    vm = context.identity.vm
    coverage = CoverageWatch(
        vm=vm,
        present_set=context.present_set,
        clock=watcher.clock,
        policy=lambda: context.configuration.policy,
        ledger=read_as_standby,
        document=lambda: watcher.document,
    )
    return EventForwarder(
        coverage,
        context.azure.state_blob(forwarded_blob_name(context.identity.ledger_name, vm)),
        vm=vm,
        watcher=watcher,
        policy=lambda: context.configuration.policy,
    )


def assemble_forwarded(
    context: AgentContext, *, leading: Callable[[], bool], vms: Callable[[], tuple[Vm, ...]]
) -> ForwardedReader:
    """Return what reads forwarded events."""
    return ForwardedReader(
        context.azure.container,
        context.azure.state_blob,
        folder=forwarded_folder(context.identity.ledger_name),
        vm=context.identity.vm,
        present_set=context.present_set,
        clock=context.clock,
        leading=leading,
        vms=vms,
    )
