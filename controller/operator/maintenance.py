"""Self-service maintenance: which VMs it can be started for, in which order, and how it is done.

performMaintenance is sent once per VM. If its outcome is unknown, the instance view of the VM
decides. If that does not show it either, the run stops and a person decides: nothing is sent again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from controller.azure.maintenance import LastResult, MaintenanceState, MaintenanceStatus
from controller.core.azure_names import fold
from controller.core.resources import PowerState
from controller.errors import (
    TRANSIENT,
    Conflict,
    ControllerError,
    Denied,
    NotDone,
    NotSent,
    Obstacle,
    OutcomeUnknown,
    ServiceFault,
    Throttled,
    retry_wait_s,
)
from controller.operator.drain_client import DrainClient
from controller.operator.rolling import order
from controller.operator.rolling_task import NothingStarted, Task

STATUS_INTERVAL_S = 5.0
"""How often the instance view of a VM is read."""
RETRY_S = 5.0
SEND_ATTEMPTS = 5
"""How often a request that has certainly not started anything is sent."""
READ_WITHIN_S = 60.0
UNCHANGED_S = 300.0
"""An instance view can be some minutes old. If it is unchanged for longer, nothing was started."""
COMPLETE_WITHIN_S = 3600.0
TASK_NAME = "performMaintenance"
"""Stored in the requests blob as the task of the rolling run."""

_COMPLETE = frozenset({MaintenanceState.DONE, MaintenanceState.NOT_SCHEDULED})
_FAILED = frozenset({LastResult.ABORTED, LastResult.RETRY_LATER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The VMs to maintain, in order, and the reason for each VM that is skipped."""

    vms: tuple[str, ...]
    skipped: Mapping[str, str]


async def read_statuses(client: DrainClient) -> tuple[MaintenanceStatus, ...]:
    """Return the maintenance status of every VM of the set, in the order they are maintained.

    Raises:
        ControllerError: it could not be read.
    """
    vms = await client.azure.compute.members(client.availability_set_id)
    statuses = await client.azure.maintenance.statuses(tuple(vm.vm_id for vm in vms))
    return _ordered(statuses, client.this_machine)


def choose(
    statuses: tuple[MaintenanceStatus, ...], named: tuple[str, ...], this_machine: str
) -> Choice:
    """Return which VMs to maintain: the named VMs, or all VMs whose maintenance can start now.

    Raises:
        NotDone: the maintenance of a named VM cannot start now; the message gives the reason.
    """
    wanted = {fold(vm) for vm in named}
    candidates = [each for each in statuses if not named or fold(each.name) in wanted]
    skipped = {each.name: reason for each in candidates if (reason := why_not(each))}
    if named and skipped:
        raise NotDone("; ".join(f"{vm}: {reason}" for vm, reason in skipped.items()))
    chosen = tuple(each for each in candidates if each.name not in skipped)
    vms = tuple(each.name for each in _ordered(chosen, this_machine))
    return Choice(vms=vms, skipped=skipped)


def why_not(status: MaintenanceStatus) -> str:
    """Return why the maintenance of a VM cannot start now; empty if it can."""
    if status.state is MaintenanceState.NOT_SCHEDULED:
        return "no maintenance is planned"
    if status.state is not MaintenanceState.SELF_SERVICE:
        message = f" ({status.last_message})" if status.last_message else ""
        return f"its maintenance is {status.state.value}{message}"
    if status.power is not PowerState.RUNNING:
        return "the VM is not running"
    return ""


def _ordered(
    statuses: tuple[MaintenanceStatus, ...], this_machine: str
) -> tuple[MaintenanceStatus, ...]:
    found = {each.name: each for each in statuses}
    domains = {fold(each.name): each.update_domain or 0 for each in statuses}
    return tuple(found[vm] for vm in order(tuple(found), this_machine, domains))


class SelfServiceMaintenance:
    """The task of a rolling run that has Azure maintain each VM.

    Args:
        vm_ids: resource ids by folded name.
        complete_within_s: fail if the VM does not run, with its maintenance complete, within this
            time.
        wait_until_healthy: returns when the check of the operator succeeds.
        checked: whether there is such a check.
    """

    def __init__(
        self,
        client: DrainClient,
        vm_ids: Mapping[str, str],
        *,
        complete_within_s: float,
        wait_until_healthy: Callable[[str], Awaitable[None]],
        checked: bool = True,
    ) -> None:
        self._client, self._vm_ids = client, vm_ids
        self._complete_within_s = complete_within_s
        self._wait_for_check, self._checked = wait_until_healthy, checked
        self._before: dict[str, MaintenanceStatus] = {}
        self._reported: set[str] = set()

    def task(self) -> Task:
        """Return the task for a rolling run."""
        return Task(
            what=TASK_NAME,
            work=self._maintain,
            wait_until_healthy=self._wait_until_healthy,
            checked=self._checked,
        )

    async def _maintain(self, vm: str) -> None:
        try:
            before = self._before[fold(vm)] = await self._status_when_running(vm)
        except NotDone as error:
            raise NothingStarted(str(error)) from error
        if before.state in _COMPLETE:
            self._client.report(f"{vm}: there is nothing to start, {why_not(before)}")
            return
        if reason := why_not(before):
            # It could be started when the run began: it can be in progress, so the VM stays out.
            raise NotDone(reason)
        try:
            await self._start(vm)
        except Denied as error:
            raise NothingStarted(self._explain_denied(vm, error)) from error
        except NotDone as error:
            raise NothingStarted(str(error)) from error
        except (Conflict, OutcomeUnknown, ServiceFault) as error:
            self._client.report(f"{vm}: {error}. Reading the status of the VM to find the outcome")
            await self._wait_for_outcome(vm, before, error)

    async def _start(self, vm: str) -> None:
        """Send performMaintenance; retry only what has certainly not started anything."""
        attempts = 0
        while True:
            try:
                await self._client.azure.maintenance.perform(self._vm_ids[fold(vm)])
            except (NotSent, Throttled) as error:
                attempts += 1
                if attempts == SEND_ATTEMPTS:
                    raise NothingStarted(
                        f"the maintenance could not be started: {error}"
                    ) from error
                self._report_once(f"{vm}: the maintenance is not started yet, retrying: {error}")
                await asyncio.sleep(retry_wait_s(error, at_least_s=RETRY_S))
            else:
                return

    def _explain_denied(self, vm: str, error: Denied) -> str:
        if error.obstacle is not Obstacle.ROLE:
            return str(error)
        action = error.action or "Microsoft.Compute/virtualMachines/performMaintenance/action"
        scope = error.scope or self._vm_ids[fold(vm)]
        return (
            f"the permission {action} on {scope} is missing. The roles of the agents do not "
            "include it: sign in with `az login` as a user who has it, and run the command with "
            "--availability-set"
        )

    async def _status_when_running(self, vm: str) -> MaintenanceStatus:
        """Return the status of a VM once it runs: until then it can be in its maintenance."""
        try:
            async with asyncio.timeout(COMPLETE_WITHIN_S):
                while True:
                    status = await self._read_with_retry(vm)
                    if status.power is PowerState.RUNNING or status.state in _COMPLETE:
                        return status
                    self._report_once(f"{vm}: the VM is not running; waiting until it is")
                    await asyncio.sleep(STATUS_INTERVAL_S)
        except TimeoutError:
            raise NotDone(f"the VM was not running within {COMPLETE_WITHIN_S:.0f} s") from None

    async def _read_with_retry(self, vm: str) -> MaintenanceStatus:
        last: ControllerError | None = None
        try:
            async with asyncio.timeout(READ_WITHIN_S):
                while True:
                    try:
                        return await self._client.azure.maintenance.status(self._vm_ids[fold(vm)])
                    except TRANSIENT as error:
                        last = error
                    await asyncio.sleep(retry_wait_s(last, at_least_s=RETRY_S))
        except TimeoutError:
            raise NotDone(f"the maintenance status cannot be read: {last}") from last

    async def _read(self, vm: str) -> MaintenanceStatus | None:
        """Read the status; None if it cannot be read now, for example during the maintenance."""
        try:
            return await self._client.azure.maintenance.status(self._vm_ids[fold(vm)])
        except TRANSIENT as error:
            self._report_once(f"{vm}: the status cannot be read now, retrying: {error}")
            return None

    async def _wait_for_outcome(
        self, vm: str, before: MaintenanceStatus, error: ControllerError
    ) -> None:
        """Return when the instance view shows that the maintenance is complete."""
        loop = asyncio.get_running_loop()
        unchanged_since: float | None = None
        try:
            async with asyncio.timeout(COMPLETE_WITHIN_S):
                while True:
                    status = await self._read(vm)
                    if status is not None:
                        if _is_complete(status, before):
                            return
                        _raise_if_failed(status, before)
                        running = status.power is PowerState.RUNNING
                        if not (running and status.state is before.state):
                            unchanged_since = None
                        elif unchanged_since is None:
                            unchanged_since = loop.time()
                        elif loop.time() - unchanged_since >= UNCHANGED_S:
                            break
                    await asyncio.sleep(STATUS_INTERVAL_S)
        except TimeoutError:
            pass
        raise NotDone(
            f"the outcome of the maintenance is unknown ({error}): check `lb-drain maintenance`, "
            "then continue with --resume"
        ) from error

    async def _wait_until_healthy(self, vm: str) -> None:
        before, seen = self._before[fold(vm)], "no status"
        try:
            async with asyncio.timeout(self._complete_within_s):
                while True:
                    status = await self._read(vm)
                    if status is not None:
                        _raise_if_failed(status, before)
                        seen = f"{status.power.value}, {status.state.value}"
                        if status.power is PowerState.RUNNING and _is_complete(status, before):
                            break
                    await asyncio.sleep(STATUS_INTERVAL_S)
        except TimeoutError:
            raise NotDone(
                f"the VM is not running with its maintenance complete within "
                f"{self._complete_within_s:.0f} s; Azure reports: {seen}"
            ) from None
        await self._wait_for_check(vm)

    def _report_once(self, text: str) -> None:
        if text not in self._reported:
            self._reported.add(text)
            self._client.report(text)


def _is_complete(status: MaintenanceStatus, before: MaintenanceStatus) -> bool:
    """Return whether nothing is left to do; Azure can also have cancelled the maintenance."""
    completed = LastResult.COMPLETED
    return status.state in _COMPLETE or (
        status.last_result is completed and before.last_result is not completed
    )


def _raise_if_failed(status: MaintenanceStatus, before: MaintenanceStatus) -> None:
    """Raise NotDone if an attempt has failed since `before`."""
    now, then = (status.last_result, status.last_message), (before.last_result, before.last_message)
    if status.last_result in _FAILED and now != then:
        raise NotDone(f"Azure reports {status.last_result.value}: {status.last_message}")
