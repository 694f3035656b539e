"""The agent: one process per VM. It elects a leader, watches events and reconciles.

    watch ------ event document ----> reconcile ------ writes ------> ARM, IMDS
      |                                ^     |
      '-- why not to lead --> elect ---'     '--- ledger ---> blob (lease id, If-Match)

This module owns the life of the process: start, run, stop. `assembly` builds the parts, `startup`
finds the set, `reporting` reports, `live_status` answers.

Everything from outside is a parameter: settings, clock, environment, a source of randomness and the
factory of HTTP sessions. That is the only seam; a simulation supplies its own.
"""

import asyncio
import logging
import random
from collections.abc import Callable, MutableMapping
from contextlib import suppress

from controller.agent.assembly import Components, assemble, connect
from controller.agent.context import AgentContext
from controller.agent.leader_election import LeaderElection
from controller.agent.live_status import LiveStatus
from controller.agent.present_set import PresentSet
from controller.agent.reloading import ConfigurationReload
from controller.agent.reporting import Reporting
from controller.agent.startup import AgentIdentity, Startup
from controller.agent.tuning import DEFAULT_TUNING, Tuning
from controller.azure.http.session import Azure, SessionFactory, open_azure, tcp_session
from controller.clock import Clock, CorrectedClock, SystemClock
from controller.config.in_force import ConfigurationInForce
from controller.config.schema import Settings
from controller.core.azure_names import short
from controller.errors import ControllerError
from controller.observability.logs import log
from controller.vm_side.flag_expiry import FlagExpiry
from controller.vm_side.machine import LocalMachine, Machine

logger = logging.getLogger("lbdrain.agent")

STOP_WITHIN_S = 1.8
"""A leader that is stopped has released the lease by then."""


class Agent:
    """One agent. `run` returns after `stop`, or raises what ended it.

    Args:
        settings: the configuration.
        environ: the environment; `os.environ` in production.
        clock: wall and monotonic clock.
        entropy: source of lease ids and jitter.
        session_factory: opens HTTP sessions.
        tuning: timing constants.
        machine: the machine of the VM's own side; None for the one that this process runs on.
        read_settings: reads the configuration again for `reload`; None if that is not possible.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        environ: MutableMapping[str, str],
        clock: Clock | None = None,
        entropy: random.Random | None = None,
        session_factory: SessionFactory = tcp_session,
        tuning: Tuning = DEFAULT_TUNING,
        machine: Machine | None = None,
        read_settings: Callable[[], Settings] | None = None,
    ) -> None:
        self._machine = machine
        self._settings, self._environ = settings, environ
        self._clock = CorrectedClock(clock or SystemClock())
        self._entropy = entropy or random.SystemRandom()
        self._session_factory, self._tuning = session_factory, tuning
        self._configuration = ConfigurationInForce(settings)
        self._stopping, self._woken = asyncio.Event(), asyncio.Event()
        self._configuration.on_change(self._woken.set)
        self._reporting = Reporting(
            self._configuration,
            environ,
            self._clock,
            headline=self._headline,
            wake=self._woken.set,
        )
        self._reload = ConfigurationReload(
            self._configuration,
            read=read_settings or (lambda: settings),
            open_channels=self._reporting.open_channels,
        )
        self.live_status = LiveStatus(
            self._configuration, clock=self._clock, reporting=self._reporting
        )
        """The answers of the status server."""

    def reload(self) -> None:
        """Read the configuration again, and apply what can change at run time.

        Safe to call from a signal handler. During the start it takes effect after the start.
        """
        self._reload.request()

    def stop(self) -> None:
        """Ask the agent to release the lease and end. Safe to call from a signal handler."""
        self._stopping.set()

    async def run(self) -> None:
        """Run until `stop`.

        Raises:
            ConfigError: the operator has to change the configuration. No answer of Azure leads to
                that.
            ExceptionGroup: a bug; the service manager should start the agent again.
        """
        azure_session = open_azure(
            self._settings,
            self._clock,
            self._environ,
            observer=self._reporting.request_ended,
            session_factory=self._session_factory,
        )
        async with azure_session as azure, self._reporting:
            startup = Startup(
                azure,
                self._settings,
                clock=self._clock,
                entropy=self._entropy,
                tuning=self._tuning,
                waiting=self._waiting,
            )
            identity = await self._start(startup, azure)
            if identity is not None:
                components = self._assemble(azure, identity)
                self._reporting.systemd.ready()
                await self._run(components)
            self._reporting.systemd.stopping()

    async def _start(self, startup: Startup, azure: Azure) -> AgentIdentity | None:
        """Return the identity, or None when `stop` comes first."""
        starting = asyncio.create_task(startup.run())
        stopped = asyncio.create_task(self._stopping.wait())
        expiring = asyncio.create_task(self._expire_flag(azure))
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        expiring.cancel()
        with suppress(asyncio.CancelledError):
            await expiring
        if starting.done():
            return starting.result()
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
        return None

    async def _expire_flag(self, azure: Azure) -> None:
        policy = self._configuration.policy

        async def announced() -> bool:
            try:
                vm, poll = (await azure.imds.instance()).name, await azure.imds.poll()
            except ControllerError:
                return False
            now = self._clock.now()
            return any(
                event.affects(vm) and policy.keeps_out(event, now) for event in poll.document.events
            )

        if policy.close and not self._settings.policy.dry_run:
            await FlagExpiry(
                self._machine or LocalMachine(self._settings),
                open_after_s=self._settings.drain.open_after_s,
                clock=self._clock,
                announced=announced,
            ).run()

    def _headline(self) -> str:
        return self.live_status.headline()

    def _problem(self) -> str:
        ready, why = self.live_status.ready()
        return "" if ready else why

    def _waiting(self, reason: str) -> None:
        self.live_status.waiting(reason)
        self._reporting.systemd.status(reason)

    def _assemble(self, azure: Azure, identity: AgentIdentity) -> Components:
        context = AgentContext(
            azure=azure,
            identity=identity,
            present_set=PresentSet(identity.set_id),
            configuration=self._configuration,
            clock=self._clock,
            entropy=self._entropy,
            annotations=self._reporting.annotations,
            woken=self._woken,
            tuning=self._tuning,
            machine=self._machine,
            problem=self._problem,
        )
        components = assemble(context)
        self.live_status.attach(components)
        self._reporting.subscribe(
            vm=identity.vm,
            present_set=context.present_set,
            watcher=components.watcher,
            reconciler=components.reconciler,
            election=components.election,
        )
        connect(components)
        set_name = short(identity.set_id)
        message = f"agent of {identity.vm} in {set_name}, {identity.peers} VMs"
        log(logger, logging.INFO, message, event="agent_started", vm=identity.vm)
        return components

    async def _run(self, components: Components) -> None:
        election, stopped = components.election, False
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(run(), name=name) for name, run in components.tasks().items()
                ]
                tasks.append(group.create_task(self._reload.run(), name="reload"))
                elect = group.create_task(election.run(), name="elect") if election else None
                await self._stopping.wait()
                stopped = True
                self._reporting.systemd.stopping()
                log(logger, logging.INFO, "the agent is stopping", event="agent_stopping")
                if election is not None and elect is not None:
                    elect.cancel()
                    await _release(election)
                for task in tasks:
                    task.cancel()
                if components.presence is not None:
                    await components.presence.stopped()
        finally:
            if not stopped and election is not None:
                with suppress(ControllerError):
                    await _release(election)


async def _release(election: LeaderElection) -> None:
    """Release the lease, after the write in flight has its reply; give up after a while."""
    with suppress(TimeoutError):
        async with asyncio.timeout(STOP_WITHIN_S):
            await election.stop()
