"""A rolling run: drain the VMs of a set one at a time, work on each, restore it, go on.

The progress is in the requests blob, so that a run can continue after an interruption. The process
that carries it out updates a heartbeat there. Each heartbeat also extends the drain of the current
VM, so that the VM is restored automatically if the process dies. A run that cannot extend the drain
stops its work before the drain ends.

The run has drain requests of its own: it waits while another operator has a request for the next
VM, and ends only what it has requested itself.
"""

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType

from controller.core.azure_names import fold
from controller.core.blob_limits import cut
from controller.core.drain_requests import (
    ROLL_REASON,
    DrainRequest,
    DrainRequests,
    Edit,
    RollingRun,
)
from controller.errors import ControllerError, NotDone
from controller.operator.drain_client import DrainClient
from controller.operator.own_run import OwnRun
from controller.operator.request_client import LONGEST_TEXT
from controller.operator.rolling_task import NothingStarted, Task

HEARTBEAT_S = 15.0
HEARTBEAT_TIMEOUT_S = 45.0
"""A run without a new heartbeat in this time is no longer carried out."""
SUMMARY_LENGTH = 60
"""Longer commands are cut to this number of characters in messages."""
NO_DOMAINS: Mapping[str, int] = MappingProxyType({})
FAILED_DRAIN_S = 24 * 3600.0
"""How long a VM stays drained after the run fails at it."""
GUARD_INTERVAL_S = 1.0
"""How often a run checks whether the drain of its VM can have ended."""
CLOCK_MARGIN_S = 10.0
"""The work stops this long before the drain ends: the clock of the leader can be ahead."""


class RollingRunner:
    """Carries out one rolling run. It stops at the first failure and leaves that VM drained."""

    def __init__(self, client: DrainClient, task: Task, *, for_s: float) -> None:
        self._client, self._task, self._for_s = client, task, for_s
        self._process_id = str(uuid.uuid4())
        self._own = OwnRun(client, self._process_id, for_s=for_s)
        self._requested: DrainRequest | None = None
        """The request for the VM of now. A write without a reply can have made it durable."""
        self._drained: DrainRequest | None = None
        """The same, once storage has confirmed it."""
        self._drained_until = 0.0
        """Until when the drain lasts at least, as storage has confirmed; monotonic seconds."""
        self._interruption = "interrupted"
        self._work_started = self._inherited = False
        """The work on the drained VM may have begun: in this process, or before a resume."""
        self._ending = False
        """All VMs are done: a heartbeat that meets the end in the blob must not report it."""

    async def begin(self, vms: tuple[str, ...]) -> None:
        """Begin a new run and carry it out.

        Raises:
            NotDone: another run is unfinished, or this one failed; the message contains the
                VM and how to continue.
        """
        client = self._client

        def start(requests: DrainRequests) -> DrainRequests:
            unfinished = requests.unfinished_run
            if unfinished is not None and unfinished.process_id != self._process_id:
                raise NotDone(
                    f"the rolling run of {unfinished.by} ({unfinished.what}) has not ended; "
                    f"remaining VMs: {', '.join(unfinished.remaining)}. If it is no longer in "
                    "progress, continue it with the same command line and --resume, or give it up "
                    "with --abandon"
                )
            run = RollingRun(
                run_id=self._process_id,
                what=self._task.what,
                vms=vms,
                done=(),
                by=client.requester,
                at=client.now(),
                process_id=self._process_id,
            )
            return replace(requests, roll=run)

        await client.requests.change(start)
        await self._carry_out()

    async def resume(self, vms: tuple[str, ...] = ()) -> None:
        """Continue an unfinished run.

        Args:
            vms: those of the run; empty for whatever it has.

        Raises:
            NotDone: there is none, it has another task or other VMs, it is still in progress, or it
                failed.
        """
        client = self._client
        await client.requests.refresh_if_exists()
        found = client.requests.requests.unfinished_run
        if found is None:
            raise NotDone("there is no unfinished rolling run to continue")
        if found.what != cut(self._task.what):  # the blob has long texts cut
            raise NotDone(
                f"the unfinished rolling run has another command: {found.what}. Repeat that "
                "command, or give the run up with --abandon"
            )
        if vms and set(map(fold, vms)) != set(map(fold, found.vms)):
            raise NotDone(
                f"the unfinished rolling run is for other VMs: {', '.join(found.vms)}; remaining: "
                f"{', '.join(found.remaining)}. Name the same ones or none, or give the run up "
                "with --abandon"
            )
        await _wait_until_stopped(client, found)

        def take_over(requests: DrainRequests) -> DrainRequests:
            run = requests.unfinished_run
            if run is None or run.process_id not in {found.process_id, self._process_id}:
                raise NotDone("another process has continued the rolling run")
            return replace(requests, roll=replace(run, process_id=self._process_id, failed=""))

        await client.requests.change(take_over)
        await self._carry_out()

    async def _carry_out(self) -> None:
        """Process all VMs and send heartbeats.

        Stop at once if another process takes over, or if the drain of the VM may end.
        """
        parts = (self._process_all(), self._heartbeat(), self._guard())
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _process_all(self) -> None:
        try:
            while (vm := self._next_vm()) is not None:
                await self._process(vm)
            self._ending = True
            await self._client.change_with_retry(self._own.with_end)
        except ControllerError as error:
            await self._record_stop(str(error))
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self._record_stop(self._interruption))
            raise

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            try:
                await self._extend(self._beating)
            except ControllerError as error:
                self._interruption = str(error)
                raise

    def _beating(self, requests: DrainRequests) -> DrainRequests:
        return requests if self._ending else self._own.beating(requests, self._drained)

    async def _extend(self, edit: Edit) -> None:
        """Make an edit that sets the end of the drain durable, and remember that end."""
        edited_at = 0.0

        def timed(requests: DrainRequests) -> DrainRequests:
            nonlocal edited_at
            edited_at = self._client.monotonic()
            return edit(requests)

        await self._client.change_with_retry(timed)
        self._drained_until = edited_at + self._for_s

    async def _guard(self) -> None:
        """Raise NotDone shortly before the drain can end, if storage confirms no later end."""
        margin_s = min(CLOCK_MARGIN_S, self._for_s / 4)
        while True:
            await asyncio.sleep(GUARD_INTERVAL_S)
            drained = self._drained
            if drained and self._client.monotonic() >= self._drained_until - margin_s:
                self._interruption = (
                    f"the drain ends, and it could not be extended for {self._for_s:.0f} s because "
                    "storage did not answer"
                )
                raise NotDone(f"{drained.vm}: {self._interruption}; the work on it was stopped")

    def _next_vm(self) -> str | None:
        remaining = self._own.of(self._client.requests.requests).remaining
        return remaining[0] if remaining else None

    async def _process(self, vm: str) -> None:
        client, self._work_started, self._inherited = self._client, False, False
        summary = _summary(self._task.what)
        await client.wait_until_others_in_service(vm)
        await client.wait_until_not_requested(vm)
        client.report(f"{vm}: drain requested")
        request = client.new_request(vm, for_s=self._for_s, reason=f"{ROLL_REASON}{summary}")
        self._requested = request
        await self._extend(lambda requests: self._with_request(requests, request))
        self._drained = request
        pools = await client.wait_until_drained(request)
        client.report(
            f"{vm}: removed from {pools}; waited {client.connection_drain_s:.0f} s for connections "
            f"to close. Running: {summary}"
        )
        self._work_started = True
        try:
            await self._task.work(vm)
        except NothingStarted:
            self._work_started = self._inherited
            raise
        await self._task.wait_until_healthy(vm)
        client.report(f"{vm}: {self._task.health}, restore requested")
        self._drained = self._requested = None
        self._work_started = False
        await client.change_with_retry(self._own.restoring(request))
        await client.wait_until_in_service(vm)
        await client.change_with_retry(lambda requests: self._own.with_done(requests, vm))
        client.report(f"{vm}: in service")

    async def _record_stop(self, reason: str) -> None:
        try:
            await self._stop(reason)
        except ControllerError as error:
            self._client.report(f"The end of the rolling run could not be recorded: {error}")

    async def _stop(self, reason: str) -> None:
        """Record why the run stops.

        A VM on which no work has begun is restored. Any other stays drained, because its work may
        be incomplete.
        """
        drained, client = self._requested, self._client
        drained_until = client.now() + timedelta(seconds=FAILED_DRAIN_S)

        def stop(requests: DrainRequests) -> DrainRequests:
            at = f"{drained.vm}: " if drained is not None else ""
            failed = f"{at}{reason.removeprefix(at)}"[:LONGEST_TEXT]
            stopped = replace(requests, roll=replace(self._own.of(requests), failed=failed))
            if drained is None:
                return stopped
            if not self._work_started:
                return stopped.ending([drained.request_id], at=client.now(), by=client.requester)
            if not stopped.stands(drained.request_id, client.now()):
                return stopped  # the VM is back, and it is not taken out again without an operator
            return stopped.extending(drained.request_id, drained_until)

        written = await client.requests.change(stop)
        if drained is None or written.by_id(drained.request_id) is None:
            return
        if not written.stands(drained.request_id, client.now()):
            client.report(f"{drained.vm}: restore requested")
        else:
            client.report(
                f"{drained.vm} stays out of rotation until {drained_until:%Y-%m-%d %H:%M} UTC at "
                f"the latest. To restore it: `{client.command('restore', drained.vm)}`. To "
                "continue the run: the same command line with --resume"
            )

    def _with_request(self, requests: DrainRequests, request: DrainRequest) -> DrainRequests:
        """Add the request for the next VM; it replaces that of an earlier attempt of this run.

        An earlier request that stands shows that this attempt may have begun its work.
        """
        run = self._own.of(requests)
        if requests.by_id(request.request_id) is not None:
            return requests
        earlier = requests.ids_of_run(run)
        now = self._client.now()
        self._work_started = self._inherited = any(requests.stands(e, now) for e in earlier)
        ended = requests.ending(earlier, at=request.at, by=request.by)
        started = replace(ended, roll=replace(run, request_id=request.request_id))
        until = now + timedelta(seconds=self._for_s)
        return started.adding(replace(request, until=until))


async def _wait_until_stopped(client: DrainClient, found: RollingRun) -> None:
    """Return when it is certain that no process carries out this run.

    Raises:
        NotDone: a process does.
    """
    if found.failed:
        return
    client.report(
        f"Checking for {HEARTBEAT_TIMEOUT_S:.0f} s whether the rolling run of {found.by} is still "
        "in progress"
    )
    loop = asyncio.get_running_loop()
    until = loop.time() + HEARTBEAT_TIMEOUT_S
    while loop.time() < until:
        await asyncio.sleep(HEARTBEAT_S / 3)
        await client.requests.refresh()
        run = client.requests.requests.unfinished_run
        if run is None:
            raise NotDone(f"the rolling run of {found.by} has ended meanwhile: nothing was changed")
        if (run.process_id, run.heartbeat) != (found.process_id, found.heartbeat):
            raise NotDone(
                f"the rolling run of {found.by} is in progress: end it there with ^C first"
            )
        if run.failed:
            return


async def abandon(client: DrainClient) -> RollingRun:
    """Give up the unfinished run; the VM that is drained for it is restored.

    Raises:
        NotDone: there is none, or it is still in progress.
    """
    await client.requests.refresh_if_exists()
    found = client.requests.requests.unfinished_run
    if found is not None:
        await _wait_until_stopped(client, found)

    def end(requests: DrainRequests) -> DrainRequests:
        run = requests.unfinished_run
        if run is None:
            raise NotDone("there is no unfinished rolling run to abandon")
        if found is None or run.process_id != found.process_id:
            raise NotDone("another process has continued the rolling run: nothing was changed")
        ended = replace(requests, roll=replace(run, ended_at=client.now()))
        return ended.ending(requests.ids_of_run(run), at=client.now(), by=client.requester)

    requests = await client.requests.change(end)
    if requests.roll is None:
        raise NotDone("the rolling run is gone: its blob was deleted")
    return requests.roll


def order(
    vms: tuple[str, ...], last: str, domains: Mapping[str, int] = NO_DOMAINS
) -> tuple[str, ...]:
    """Return the VMs in the order of the run: by name, the machine of the command last.

    With update domains, by folded name, the VMs of one domain are adjacent.
    """
    return tuple(
        sorted(vms, key=lambda vm: (fold(vm) == fold(last), domains.get(fold(vm), 0), fold(vm)))
    )


def _summary(what: str) -> str:
    return what if len(what) <= SUMMARY_LENGTH else f"{what[: SUMMARY_LENGTH - 3]}..."
