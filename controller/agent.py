"""The agent: one process per VM. Elect, watch, reconcile, in one task group; owns no decisions.

    watch ------ event document ----> reconcile ------ writes ------> ARM, IMDS
      |                                ^     |
      '-- why not to lead --> elect ---'     '--- ledger ---> blob (lease id, If-Match)

Everything it needs from outside is handed in: settings, clock, environment, a source of randomness
and the factory of HTTP sessions. That is the only seam; a simulation supplies its own.
"""

import asyncio
import logging
import random
from collections.abc import MutableMapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from typing import TypeVar, cast

from controller.announcer import Announcer
from controller.azure.blob import LedgerBlob
from controller.azure.failures import answers
from controller.azure.session import Azure, SessionFactory, open_azure, tcp_session
from controller.clock import Clock, CorrectedClock, SystemClock
from controller.core.actions import Plan
from controller.core.leadership import Handicap, check_timing, handicap
from controller.core.ledger import Ledger
from controller.core.model import fold, short
from controller.elector import Elector
from controller.errors import (
    ConfigError,
    ControllerError,
    InvariantViolation,
    NotFound,
    OutcomeUnknown,
    told_s,
)
from controller.glance import Glance
from controller.home import (
    Home,
    blob_name_of,
    check_pools,
    ensure_exists,
    find_home,
    look_at_lease,
    tell_missing,
)
from controller.ledger_store import LedgerStore
from controller.logs import log
from controller.look import LeaseLook, PlanLook, would_do
from controller.notify import Herald
from controller.overview import Facts, Overview, overview
from controller.policy import policy_from
from controller.reconciler import Reconciler
from controller.request_store import RequestStore, RequestWatch, requests_name_of
from controller.settings import Settings
from controller.status import at_home, brief, in_election
from controller.systemd import Notifier
from controller.timeline import Sightings
from controller.traces import Traces
from controller.views import CONFIRM_AFTER
from controller.watcher import Watcher

logger = logging.getLogger(__name__)

STOP_WITHIN_S = 1.8
"""A leader told to stop has handed over by then."""
START_AGAIN_S = 5.0
HEALTHY_PASS_S = 60.0
"""Without a completed pass for so long, the agent is not healthy."""
LOOK_BEFORE_ACQUIRING_S = 2.0
LOOK_TIMEOUT_S = 6.0


class Agent:
    """One agent. `run` returns after `stop`, or raises what ended it."""

    def __init__(
        self,
        settings: Settings,
        *,
        environ: MutableMapping[str, str],
        clock: Clock | None = None,
        entropy: random.Random | None = None,
        session_factory: SessionFactory = tcp_session,
    ) -> None:
        election = settings.election
        check_timing(
            lease_duration_s=election.lease_duration_s,
            renew_period_s=election.renew_period_s,
            timeout_s=election.request_timeout_s,
        )
        self._settings, self._environ = settings, environ
        self._clock = CorrectedClock(clock or SystemClock())
        self._entropy = entropy or random.SystemRandom()
        self._session_factory = session_factory
        self._policy = policy_from(settings)
        self._notifier = Notifier(environ)
        self._stopping = asyncio.Event()
        self._announcer = Announcer(settings, self._notifier, self._clock)
        self._herald = Herald(
            settings,
            environ,
            self._clock,
            policy=self._policy,
            count=self._announcer.metrics.notified,
            answers=answers,
            wake=self._wake,
        )
        self._traces = Traces(environ)
        self._home: Home | None = None
        self._watcher: Watcher | None = None
        self._elector: Elector | None = None
        self._reconciler: Reconciler | None = None
        self._requests: RequestWatch | None = None
        self._glance: Glance | None = None
        self._sightings = Sightings()
        self._passed_at = self._clock.monotonic()
        self._lost_since: float | None = None
        """Since when no configured pool can be found; monotonic seconds."""
        self._waiting_for = "starting"

    def stop(self) -> None:
        """Ask the agent to hand over and end. Safe to call from a signal handler."""
        self._stopping.set()

    async def run(self) -> None:
        """Run until `stop`.

        Raises:
            ConfigError: the operator has to change something.
            ExceptionGroup: a bug; the service manager should start the agent again.
        """
        async with self._open() as azure, self._herald, self._traces:
            starting = asyncio.create_task(self._start(azure))
            await self._until_stopped(starting)
            if starting.done() and not starting.cancelled():
                await self._work(azure, starting.result())
            self._notifier.stopping()

    async def look(self) -> PlanLook:
        """Look once, without writing anything.

        Raises:
            ControllerError: something could not be read.
        """
        async with self._open() as azure:
            home = await find_home(azure)
            tell_missing(await check_pools(azure, self._settings))
            store = self._assemble(azure, home)
            watcher, reconciler = self._watcher_(), self._reconciler_()
            await watcher.poll()
            await watcher.poll()
            await self._requests_().look(no_older_than_s=0)
            if watcher.document is None:
                raise OutcomeUnknown("the event document could not be read; see the log above")
            lease = await look_at_lease(store, watcher.now())
            plan = await reconciler.look_once()
            names = {fold(key): name for key, name in self._settings.pool_names().items()}
            return PlanLook(
                vm=home.instance.name,
                lease=lease,
                document=watcher.document,
                vms=reconciler.views.vms,
                pools=reconciler.views.pools,
                pools_without_peers=reconciler.views.pools_without_peers(lease.ledger),
                plan=plan,
                pool_names=names,
            )

    async def look_at_lease(self) -> LeaseLook:
        """Read lease and ledger, as `lb-drain status` does from any VM of the set."""
        async with self._open() as azure:
            name = self._settings.election.blob_name
            if not name:
                name = blob_name_of((await find_home(azure)).availability_set_id)
            look = await look_at_lease(LedgerStore(azure.ledger(name)), self._clock.now())
            asked = RequestStore(azure.ledger(requests_name_of(name)))
            await asked.refresh()
            return replace(look, requests=asked.requests)

    def _open(self) -> AbstractAsyncContextManager[Azure]:
        return open_azure(
            self._settings,
            self._clock,
            self._environ,
            observer=self._requested,
            session_factory=self._session_factory,
        )

    def _requested(self, service: str, operation: str, outcome: str, duration_s: float) -> None:
        self._announcer.metrics.requested(service, operation, outcome, duration_s)
        self._herald.requested(service, outcome)

    async def _until_stopped(self, task: "asyncio.Task[Home]") -> None:
        """Wait for the task or for `stop`, whichever is first; a stop cancels the task."""
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _start(self, azure: Azure) -> Home:
        """Find home, trying again for as long as Azure does not answer.

        What was answered is not asked again: who asked for patience meanwhile gets it.
        """
        failed: type[ControllerError] | None = None
        home: Home | None = None
        missing: tuple[str, ...] | None = None
        while True:
            try:
                if home is None:
                    home = await find_home(azure)
                if missing is None:
                    missing = await self._missing_pools(azure)
                    tell_missing(missing)
                if not self._settings.policy.dry_run:
                    ledger = self._blob(azure, home)
                    await ensure_exists(ledger)
                    await ensure_exists(azure.ledger(requests_name_of(ledger.name)))
            except ConfigError:
                raise
            except ControllerError as error:
                self._waiting_for = f"waiting for Azure: {error}"
                if type(error) is not failed:  # its text differs every time, by a request id
                    failed = type(error)
                    why = self._waiting_for
                    log(logger, logging.WARNING, why, event="start", outcome="waiting")
                self._notifier.status(self._waiting_for)
                await asyncio.sleep(max(START_AGAIN_S, told_s(error) or 0.0))
            else:
                return home

    async def _missing_pools(self, azure: Azure) -> tuple[str, ...]:
        """Check the pools; what cannot be found for long enough the operator has to correct."""
        try:
            missing = await check_pools(azure, self._settings)
        except NotFound as error:
            now = self._clock.monotonic()
            self._lost_since = now if self._lost_since is None else self._lost_since
            if now - self._lost_since >= CONFIRM_AFTER.total_seconds():
                raise ConfigError(str(error)) from error
            raise
        self._lost_since = None
        return missing

    async def _work(self, azure: Azure, home: Home) -> None:
        self._assemble(azure, home)
        self._notifier.ready()
        stopped = False
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._watcher_().run(), name="watch"),
                    group.create_task(self._reconciler_().run(), name="reconcile"),
                    group.create_task(self._requests_().run(), name="requests"),
                ]
                if self._glance is not None:
                    tasks.append(group.create_task(self._glance.run(), name="glance"))
                if self._elector is not None:
                    tasks.append(group.create_task(self._elector.run(), name="elect"))
                await self._stopping.wait()
                stopped = True
                await self._hand_over(tasks)
        except BaseExceptionGroup as failures:
            # A wrong configuration is the operator's to mend; anything else is a bug.
            wrong = failures.subgroup(ConfigError)
            if wrong is not None:
                raise ConfigError(str(_first(wrong))) from failures
            raise
        finally:
            if not stopped and self._elector is not None:
                with suppress(ControllerError, TimeoutError):
                    async with asyncio.timeout(STOP_WITHIN_S):
                        await self._elector.stop()

    async def _hand_over(self, tasks: "list[asyncio.Task[None]]") -> None:
        """Let the write in flight get its reply, release the lease, end."""
        self._notifier.stopping()
        log(logger, logging.INFO, "stopping", event="stop")
        if self._elector is not None:
            tasks[-1].cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_WITHIN_S):
                    await self._elector.stop()
        for task in tasks:
            task.cancel()

    def _assemble(self, azure: Azure, home: Home) -> LedgerStore:
        settings, name = self._settings, home.instance.name
        blob = self._blob(azure, home)
        store = LedgerStore(blob)
        self._home = home
        self._herald.at_home(name, short(home.availability_set_id))
        self._watcher = Watcher(
            imds=azure.imds,
            clock=self._clock,
            leader_poll_s=settings.watch.leader_poll_s,
            standby_poll_s=settings.watch.standby_poll_s,
        )
        self._requests = RequestWatch(
            RequestStore(azure.ledger(requests_name_of(blob.name))),
            clock=self._clock,
            leading=self._reads_requests,
            changed=self._wake,
        )
        self._reconciler = Reconciler(
            imds=azure.imds,
            compute=azure.compute,
            network=azure.network,
            store=store,
            watcher=self._watcher,
            requests=self._requests,
            policy=self._policy,
            vm=name,
            availability_set_id=home.availability_set_id,
            max_parallel_writes=settings.policy.max_parallel_writes,
            dry_run=settings.policy.dry_run,
            entropy=self._entropy,
            report=self._passed,
            mark=self._herald.mark,
        )
        self._watcher.on_poll(self._polled)
        if settings.policy.dry_run:
            self._watcher.lead(True)
        else:
            self._elector = self._elect(blob, home)
            self._reconciler.attach(self._elector)
            self._glance = Glance(LedgerStore(blob), self._watcher.now)
        message = f"agent of {name} in {short(home.availability_set_id)}, {home.peers} VMs"
        log(logger, logging.INFO, message, event="start", outcome="started", vm=name)
        return store

    def _blob(self, azure: Azure, home: Home) -> LedgerBlob:
        name = self._settings.election.blob_name or blob_name_of(home.availability_set_id)
        return azure.ledger(name)

    def _elect(self, blob: LedgerBlob, home: Home) -> Elector:
        elector = Elector(
            blob=blob,
            # The lease is counted on the raw clocks: a correction must not look like a freeze.
            clock=self._clock.clock,
            entropy=self._entropy,
            lease_duration_s=self._settings.election.lease_duration_s,
            renew_period_s=self._settings.election.renew_period_s,
            yield_s=self._settings.election.yield_s,
            peers=home.peers,
            handicap=self._handicap,
            look=self._look,
            quiesce=self._reconciler_().quiesce,
        )
        elector.on_change(self._lease_changed)
        return elector

    # --- what the tasks tell each other ---

    def _handicap(self) -> Handicap:
        watcher = self._watcher_()
        return handicap(
            vm=self._home_().instance.name,
            document=watcher.document,
            document_age_s=watcher.age_s(),
            policy=self._policy,
            now=watcher.now(),
            requests=self._requests_().requests or (),
        )

    async def _look(self) -> None:
        """Poll before competing: a standby's document may be a quarter of a minute old.

        And it has not read at all whether somebody asked for its own VM.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                await self._watcher_().look(no_older_than_s=LOOK_BEFORE_ACQUIRING_S)
                await self._requests_().look(no_older_than_s=LOOK_BEFORE_ACQUIRING_S)

    def _reads_requests(self) -> bool:
        """A leader carries out what was asked for; a dry run says what it would do."""
        return self._elector is None or self._elector.leading

    def _polled(self) -> None:
        watcher = self._watcher_()
        if not watcher.failures:
            self._announcer.metrics.polled(watcher.now())
            if watcher.document is not None:
                self._sightings.saw(watcher.document, watcher.now())
        self._reconciler_().polled()
        if self._elector is not None and self._elector.leading and self._handicap():
            self._elector.wake()

    def _lease_changed(self) -> None:
        elector = self._elector
        if elector is not None:
            self._watcher_().lead(elector.leading)
            if not elector.leading:
                self._announcer.lease(left_s=None)
            self._reconciler_().wake()

    def _wake(self) -> None:
        if self._reconciler is not None:
            self._reconciler.wake()

    def _passed(self, plan: Plan | None, before: Ledger, after: Ledger) -> None:
        self._passed_at = self._clock.monotonic()
        self._announcer.passed(self._headline(), before, after)
        self._traces.passed(before, after, self._sightings.started)
        reconciler, elector = self._reconciler_(), self._elector
        self._announcer.metrics.set_writes_limit(reconciler.pace.limit)
        if elector is not None and elector.leading:
            self._announcer.lease(left_s=elector.left_s)
        if elector is not None:
            seen_s = self._clock.monotonic() - elector.leader_seen_at
            self._announcer.leader_missing(self._herald.leader_seen(seen_s))
        if plan is None:
            self._announcer.metrics.stand_by()
            self._herald.stand_by()
        else:
            watcher = self._watcher_()
            self._announcer.planned(plan, before, after)
            self._announcer.deadlines(plan, after, watcher.document, self._policy, watcher.now())
            if elector is None:
                self._announcer.would_do(would_do(plan, after))
            else:
                self._herald.passed(plan, after, watcher.document, watcher.clean_documents)
            self._announcer.members(reconciler.views.pools, after)
            self._announcer.without_peers(reconciler.views.pools_without_peers(after))

    # --- what `controller.server` shows ---

    def health(self) -> tuple[bool, str]:
        """Passes complete, and a leader has renewed."""
        if self._home is None:
            return True, self._waiting_for
        idle_s = self._clock.monotonic() - self._passed_at
        if idle_s > HEALTHY_PASS_S:
            return False, f"no pass completed for {idle_s:.0f} s"
        elector = self._elector
        if elector is not None and elector.state.value == "suspect":
            return False, "the lease could have expired and is not renewed"
        return True, self._headline()

    def ready(self) -> tuple[bool, str]:
        """Configured, at home, the event document has been read, and healthy."""
        if self._home is None:
            return False, self._waiting_for
        if self._watcher_().document is None:
            return False, "the event document has not been read yet"
        return self.health()

    def status(self) -> dict[str, object]:
        """Return what this agent knows, as JSON."""
        if self._home is None or self._reconciler is None or self._watcher is None:
            return {"state": self._waiting_for}
        return brief(self._home, self._watcher, self._reconciler, self._elector)

    async def look_around(self) -> None:
        """Let a standby look at the ledger before it answers; a leader knows."""
        if self._glance is not None and self._elector is not None and not self._elector.leading:
            await self._glance.fresh()

    def overview(self) -> Overview:
        """Return what the status page shows; a standby looks at the ledger because it was asked."""
        metrics, (healthy, why) = self._announcer.metrics, self.health()
        facts = Facts(
            now=self._clock.now(),
            role="starting",
            headline=self._headline(),
            healthy=healthy,
            why=why,
            lease_duration_s=self._settings.election.lease_duration_s,
            policy=self._policy,
            pool_names={fold(key): name for key, name in self._settings.pool_names().items()},
            sightings=self._sightings.known(),
            requests=metrics.requests(),
            failures_in_a_row=metrics.failures_in_a_row(),
        )
        if self._home is not None and self._watcher is not None and self._reconciler is not None:
            facts = at_home(facts, self._home, self._watcher, self._reconciler)
            facts = replace(facts, asked_for=self._requests_().requests or ())
            facts = in_election(facts, self._reconciler, self._elector, self._glance)
        return overview(facts)

    def metrics(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        elector = self._elector
        seen_s = self._clock.monotonic() - elector.leader_seen_at if elector else None
        self._announcer.seen(leader_seen_s=seen_s, clock_ahead=self._clock.ahead)
        return self._announcer.metrics.render()

    def _headline(self) -> str:
        if self._home is None:
            return self._waiting_for
        if self._elector is None:
            return "dry run: nothing is written"
        if not self._elector.leading:
            return self._elector.state.value
        out = [entry.vm for entry in self._reconciler_().ledger.entries]
        return f"leader; out of rotation: {', '.join(out)}" if out else "leader; all in service"

    def _home_(self) -> Home:
        return _present(self._home)

    def _watcher_(self) -> Watcher:
        return _present(self._watcher)

    def _requests_(self) -> RequestWatch:
        return _present(self._requests)

    def _reconciler_(self) -> Reconciler:
        return _present(self._reconciler)


T = TypeVar("T")


def _present(part: T | None) -> T:
    if part is None:
        raise InvariantViolation("the agent is used before it was assembled")
    return part


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        error = group.exceptions[0]
    return error
