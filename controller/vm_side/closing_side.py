"""Closes this agent's VM when a drain begins, reports, and opens it when the drain is over.

Runs on every VM, leader or standby. `core.closing` decides what the VM should be; this module does
it on the machine (`machine`), in this order:

- closing: flag file first, hook after; a hook that fails or hangs delays nothing;
- opening: hook first, then the application's own check, and the flag file goes last.

A failing `opening` hook and an application that is not ready keep the VM closed, and the report
states it; `restore_ready_timeout_s` and `restore_when_not_ready` decide for how long.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus

from controller.clock import Clock
from controller.config.in_force import ConfigurationInForce
from controller.core.closing import Known, Wish, waits_for_record, wish
from controller.core.event_progress import SeenEvent
from controller.core.events import EventDocument
from controller.core.vm_report import HookOutcome, VmReport, VmState
from controller.observability.logs import log
from controller.probe.application_check import Readiness
from controller.vm_side.connections import ConnectionCount
from controller.vm_side.flag import Flag
from controller.vm_side.hook_runs import HookRuns
from controller.vm_side.ledger_follower import LedgerFollower
from controller.vm_side.machine import Machine
from controller.vm_side.report_sender import ReportSender
from controller.vm_side.service_ports import ServicePorts
from controller.vm_side.state_time import StateTime

logger = logging.getLogger("lbdrain.closing")

TICK_CLOSED_S = 1.0
"""How often a VM that is not open, or should close, reads the ledger and counts its connections."""
TICK_WAITING_S = 0.5
"""How often the ledger is read while an event for this VM is due and nothing is recorded yet."""
TICK_OPEN_S = 10.0
NEWS_S = 30.0
"""The flag file is renewed while the ledger was read within this many seconds, and while an event
of this VM is announced: a flag that is not renewed stops to count."""
READY_TIMES = 2
"""How often in a row the application's check has to succeed before the VM opens."""
OPENING_HOOK_AGAIN_S = 30.0


class ClosingSide:
    """The VM's own side of a drain; `run` is a task of the agent.

    Args:
        vm: the name of this VM.
        peers: the names of the VMs of the set.
        configuration: settings and policy in force.
        machine: flag file, connections, hooks and responder.
        follower: the ledger.
        sender: writes the report.
        document, document_age_s: return the newest event document, and its age.
        clock: wall clock, corrected, and monotonic clock.
        service_ports: the ports whose connections have to end.
    """

    def __init__(
        self,
        *,
        vm: str,
        peers: tuple[str, ...],
        configuration: ConfigurationInForce,
        machine: Machine,
        follower: LedgerFollower,
        sender: ReportSender,
        document: Callable[[], EventDocument | None],
        document_age_s: Callable[[], float],
        seen: Callable[[], tuple[SeenEvent, ...]],
        clock: Clock,
        service_ports: ServicePorts,
    ) -> None:
        self._vm, self._peers, self._configuration = vm, peers, configuration
        self._machine, self._follower, self._sender = machine, follower, sender
        self._document, self._document_age_s = document, document_age_s
        self._seen, self._clock = seen, clock
        self._service_ports, self._hooks = service_ports, HookRuns(vm, configuration, machine)
        self._woken, self._read_next = asyncio.Event(), False
        self._wish, self._found = Wish(state=VmState.OPEN), found_flag(machine, vm)
        self._found_at = clock.monotonic()
        self._report = _first_report(machine, vm, self._found, clock.now())
        self._state_time = StateTime(clock, self._report.since)
        self._no_connection_since: float | None = None
        self._ready_times, self._logged, self._uncounted = 0, "", ""

    @property
    def report(self) -> VmReport:
        """The newest report, sent or not."""
        return self._report

    # --- when to run ---

    def polled(self) -> None:
        """Run now if the event document names this VM."""
        if self._waits_for_record():
            self._woken.set()

    def ledger_changed(self, etag: str) -> None:
        """Read the ledger now if it is not the one that was read."""
        if not self._follower.is_newest(etag):
            self._read_next = True
            self._woken.set()

    async def run(self) -> None:
        """Follow the ledger until cancelled."""
        async with self._hooks, asyncio.TaskGroup() as group:
            group.create_task(self._sender.run(), name="report")
            group.create_task(self._service_ports.run(), name="service ports")
            while True:
                self._woken.clear()
                await self.step()
                try:
                    async with asyncio.timeout(self._pause_s()):
                        await self._woken.wait()
                except TimeoutError:
                    pass

    def _pause_s(self) -> float:
        if not self._is_at_rest:
            return TICK_CLOSED_S
        return TICK_WAITING_S if self._waits_for_record() else TICK_OPEN_S

    @property
    def _is_at_rest(self) -> bool:
        """Whether the VM is open, and nothing asks it to close."""
        return self._report.state is VmState.OPEN and self._wish.state is not VmState.CLOSED

    def _waits_for_record(self) -> bool:
        """Return whether an event for this VM is due, so that its record will come."""
        policy, now = self._configuration.policy, self._clock.now()
        return waits_for_record(self._document(), self._vm, policy, now)

    # --- one step ---

    async def step(self) -> None:
        """Read what there is to read, close or open, and report."""
        due = self._read_next or not self._is_at_rest or self._found is not None
        due = due or self._waits_for_record()
        for _ in range(2):  # again if another request met a change: this read may have failed
            if due:
                self._read_next = False
                await self._follower.refresh()
                due = self._read_next
        now = self._clock.now()
        self._wish = self._wish_by_now(now)
        if self._wish.state is VmState.CLOSED:
            self._close(now)
        elif self._report.state is VmState.CLOSED:
            self._begin_to_open()
        elif self._report.state is VmState.OPEN and self._report.problem:
            self._logged = ""
            self._update(problem="")  # it could not close, and need not any more
        if self._follower.ledger is not None:
            self._found = None
            self._machine.note_known()
        if self._report.state is VmState.OPENING:
            await self._open_when_ready(now)
        if self._report.state is not VmState.OPEN:
            await self._observe(now)
        elif self._report.hook is HookOutcome.RUNNING:
            self._update(hook=self._hooks.outcome)
        self._sender.send(self._report)

    def _wish_by_now(self, now: datetime) -> Wish:
        waited_s = self._clock.monotonic() - self._found_at
        known = Known(
            vm=self._vm,
            peers=self._peers,
            ledger=self._follower.ledger,
            ledger_age_s=self._follower.age_s,
            silent_s=self._follower.silent_s,
            document=self._document(),
            document_age_s=self._document_age_s(),
            seen=self._seen(),
            closed_alone=self._report.state is VmState.CLOSED and self._report.drain is None,
            found=_wish_of(self._found) if self._found else None,
            found_age_s=self._found.age_s + waited_s if self._found else 0.0,
            now=now,
        )
        open_after_s = self._configuration.settings.drain.open_after_s
        return wish(known, self._configuration.policy, open_after_s=open_after_s)

    # --- close ---

    def _close(self, now: datetime) -> None:
        """Set the flag, and start the hook; a VM that was closed for another drain stays closed."""
        wanted, report = self._wish, self._report
        if report.state is VmState.CLOSED and report.drain == wanted.drain:
            return
        closed = report.state is VmState.CLOSED
        since, event = self._state_time.since() if closed else now, wanted.event
        problem = self._machine.set_flag(_flag_of(wanted, since, self._machine.boot_id, now))
        if problem and (report.state is VmState.OPEN or self._machine.flag() is None):
            # Without its flag nothing asks clients to leave: the drain goes on as without this VM.
            # Trying again is no news.
            self._update(state=VmState.OPEN, drain=wanted.drain, failed=problem)
            return
        # A flag that cannot be replaced still closes the VM, and has to go when the drain is over.
        self._no_connection_since = None
        self._service_ports.read_again()
        self._update(
            state=VmState.CLOSED, drain=wanted.drain, quiet_since=None, problem="",
            refused_probes=0, failed=problem,
        )  # fmt: skip
        if not closed:
            message = f"closed: asks for no new work, {wanted.reason or 'drain'}"
            log(logger, logging.INFO, message, event="vm_closed", vm=self._vm)
            self._hooks.start("closing", event)

    async def _observe(self, now: datetime) -> None:
        """Renew the flag, count connections and refused probes."""
        waits_for_event = self._wish.state is VmState.CLOSED and self._wish.announced
        counts = waits_for_event or self._follower.age_s < NEWS_S
        if counts and (problem := self._machine.renew_flag()):
            self._update(failed=problem)
        count, now_s = await _count(self._machine, self._service_ports), self._clock.monotonic()
        if count.connections or not count.counted:
            self._no_connection_since = None
        elif self._no_connection_since is None:
            self._no_connection_since = now_s
        since, quiet_s = self._no_connection_since, self._configuration.settings.drain.quiet_s
        quiet = since is not None and now_s - since >= quiet_s
        quiet_since = (self._report.quiet_since or now) if quiet else None
        refused = await self._machine.refused_probes()
        stated = "" if self._report.problem == self._uncounted else self._report.problem
        self._update(
            connections=count.connections,
            counted=count.counted,
            quiet_since=quiet_since,
            refused_probes=refused or 0,
            hook=self._hooks.outcome,
            problem=stated or count.problem or self._hooks.problem,
        )
        self._uncounted = count.problem
        drain_s = self._configuration.settings.policy.connection_drain_s
        waited = self._state_time.age_s >= drain_s
        if self._report.state is VmState.CLOSED and (quiet or waited):
            self._hooks.start("closed", self._wish.event)

    # --- open ---

    def _begin_to_open(self) -> None:
        self._ready_times, self._logged = 0, ""
        self._update(state=VmState.OPENING, drain=self._wish.drain, quiet_since=None, problem="")
        self._hooks.start("opening", self._wish.event)

    async def _open_when_ready(self, now: datetime) -> None:
        """Open when the hook has ended and the application is ready, or when the time is over."""
        if self._wish.drain != self._report.drain:
            self._update(drain=self._wish.drain)
        policy = self._configuration.settings.policy
        waited = self._state_time.age_s >= policy.restore_ready_timeout_s
        # Without an entry no leader waits for this VM, and none could report that it holds.
        may_open_anyway = self._wish.drain is None or policy.restore_when_not_ready == "open"
        ready = await self._is_ready() or (waited and may_open_anyway)
        if not ready or self._wish_by_now(now).state is VmState.CLOSED:
            return  # an entry can be recorded while the application is asked
        if problem := self._machine.clear_flag():
            self._update(failed=problem)
            return
        self._update(state=VmState.OPEN, problem="", refused_probes=0)
        log(logger, logging.INFO, "open: takes new work", event="vm_opened", vm=self._vm)
        self._hooks.start("opened", self._wish.event)

    async def _is_ready(self) -> bool:
        """Return whether the opening hook succeeded and the application is ready."""
        outcome = self._hooks.outcome_of("opening")
        if outcome in {HookOutcome.FAILED, HookOutcome.TIMED_OUT}:
            self._ready_times = 0
            self._update(problem=self._hooks.problem)
            now_s, event = self._clock.monotonic(), self._wish.event
            self._hooks.start_again("opening", event, now_s, every_s=OPENING_HOOK_AGAIN_S)
            return False
        if outcome is HookOutcome.RUNNING:
            return False
        readiness = await self._machine.readiness()
        self._ready_times = self._ready_times + 1 if readiness.ready else 0
        self._update(problem="" if readiness.ready else _not_ready(readiness))
        return self._ready_times >= READY_TIMES

    # --- report ---

    def _update(self, *, failed: str = "", **changes: object) -> None:
        if failed:
            if failed != self._logged:
                log(logger, logging.WARNING, failed, event="vm_side_failed", vm=self._vm)
            self._logged = changes["problem"] = failed
        if changes.get("state", self._report.state) is not self._report.state:
            self._state_time.begin()
        at, since = self._clock.now(), self._state_time.since()
        self._report = replace(self._report, at=at, since=since, **changes)  # type: ignore[arg-type]


async def _count(machine: Machine, ports: ServicePorts) -> ConnectionCount:
    """Count the connections; without all the service ports that is no full count."""
    count = await machine.connections(ports())
    if count.problem or not (problem := ports.problem):
        return count
    return replace(count, problem=f"connections cannot be counted: {problem}")


def _not_ready(readiness: Readiness) -> str:
    """Return why the VM stays closed. A page that reads the flag file waits for itself."""
    problem = f"not ready: {readiness.reason}"
    if readiness.status == HTTPStatus.SERVICE_UNAVAILABLE:
        problem += (
            "; a page that answers 503 because of the flag file never becomes ready: [probe] check "
            "has to name another page then"
        )
    return problem


def found_flag(machine: Machine, vm: str) -> Flag | None:
    """Return the flag of an earlier run in this boot; remove the flag of another boot."""
    flag = machine.flag()
    if flag is not None and flag.boot_id == machine.boot_id:
        return flag
    if problem := machine.clear_flag():
        log(logger, logging.WARNING, problem, event="vm_side_failed", vm=vm)
    return None


def _first_report(machine: Machine, vm: str, found: Flag | None, now: datetime) -> VmReport:
    """Return that the VM is open, or closed by an earlier run of this agent."""
    return VmReport(
        vm=vm,
        boot_id=machine.boot_id,
        state=VmState.CLOSED if found else VmState.OPEN,
        since=found.since if found else now,
        drain=found.drain if found else None,
        at=now,
        probe_port=machine.probe_port,
    )


def _flag_of(wanted: Wish, since: datetime, boot_id: str, now: datetime) -> Flag:
    """Return the flag of a VM that is closed since then, as it is wanted."""
    return Flag(
        since=since,
        event_type=wanted.reason,
        not_before=wanted.event.not_before if wanted.event else None,
        drain=wanted.drain,
        boot_id=boot_id,
        renewed_at=now,
    )


def _wish_of(flag: Flag) -> Wish:
    return Wish(state=VmState.CLOSED, drain=flag.drain, reason=flag.event_type)
