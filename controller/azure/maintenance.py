"""Planned maintenance that the owner of a VM may start within a window of some weeks.

What Azure says, and where it says it:

- `maintenanceRedeployStatus` is in the instance view only while maintenance is planned for the VM;
  `isCustomerInitiatedMaintenanceAllowed` tells whether it may be started now; the pre-maintenance
  window is the self-service window (about 35 days), the maintenance window that in which Azure does
  it (Microsoft docs, Handling planned maintenance notifications, and the same using the Azure CLI).
- `lastOperationResultCode` is None, RetryLater, MaintenanceAborted or MaintenanceCompleted; every
  property may be absent (Microsoft OpenAPI, MaintenanceRedeployStatus). What follows a failed
  attempt is not documented beyond the name of the code.
- `POST .../virtualMachines/{name}/performMaintenance` answers 200 or 202 without a body (the same
  OpenAPI, since 2017-03-30). The 202 of Compute has `Azure-AsyncOperation` and, with
  `monitor=true`, `Location` (a trace in Azure/azure-xplat-cli#3389).
- Where it is not allowed it answers 409 OperationNotAllowed, "Operation 'performMaintenance' is not
  allowed on VM ... not eligible" (tests of Azure/azure-sdk-for-python and azure-sdk-for-net).
- It takes `Microsoft.Compute/virtualMachines/performMaintenance/action` on the VM (Microsoft docs,
  Azure permissions for Compute). Following the operation takes rights on the resource group
  (Microsoft docs, Track asynchronous Azure operations).
- A VM may be planned a second time after it was done, by another wave (the FAQ of the first page).
  So what may be started counts as open, whatever came of the last attempt.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import cast

from controller.azure import operations
from controller.azure.arm import Json, ResourceId, about, as_object, child, part, raw, text
from controller.azure.compute import READ_TIMEOUT_S, SINGLE_READS, Compute, power_in
from controller.azure.failures import Caller, Observer, cap, ignore
from controller.clock import Clock
from controller.core.model import PowerState
from controller.errors import Conflict, ContractViolation, NotDone

NOT_ALLOWED = "OperationNotAllowed"
PERFORM_DEADLINE_S = 3600.0
"""A reboot takes minutes, and a redeploy that Azure announces as an event a quarter of an hour."""


class MaintenanceState(Enum):
    """Where the planned maintenance of a VM stands; the values are for people."""

    NOT_SCHEDULED = "not scheduled"
    SELF_SERVICE = "may be started now"
    SCHEDULED = "announced, not to be started now"
    DONE = "done"
    ABORTED = "aborted"
    RETRY_LATER = "to be tried again later"


class LastResult(Enum):
    """What came of the last attempt."""

    NONE = "None"
    RETRY_LATER = "RetryLater"
    ABORTED = "MaintenanceAborted"
    COMPLETED = "MaintenanceCompleted"
    UNKNOWN = "unknown"
    """A code that is not documented."""


_STATES = {
    LastResult.COMPLETED: MaintenanceState.DONE,
    LastResult.ABORTED: MaintenanceState.ABORTED,
    LastResult.RETRY_LATER: MaintenanceState.RETRY_LATER,
    LastResult.UNKNOWN: MaintenanceState.SCHEDULED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A span of time; Azure may leave out either end."""

    opens_at: datetime | None
    closes_at: datetime | None

    def __bool__(self) -> bool:
        return self.opens_at is not None or self.closes_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceStatus:
    """What Compute says of the planned maintenance of one VM."""

    name: str
    vm_id: str
    update_domain: int | None
    power: PowerState
    state: MaintenanceState
    self_service: Window
    scheduled: Window
    last_result: LastResult
    last_message: str


class Maintenance:
    """Client of Compute's planned maintenance."""

    def __init__(self, compute: Compute, *, clock: Clock, observer: Observer = ignore) -> None:
        self._compute = compute
        self._clock = clock
        self._caller = Caller(service="compute", clock=clock, observer=observer)

    async def statuses(self, vm_ids: tuple[str, ...]) -> tuple[MaintenanceStatus, ...]:
        """Return what Compute says of these VMs, in their order.

        Raises:
            ControllerError: one of them could not be read.
        """
        gate = asyncio.Semaphore(SINGLE_READS)

        async def one(vm_id: str) -> MaintenanceStatus:
            async with gate:
                return await self.status(vm_id)

        return tuple(await asyncio.gather(*(one(vm_id) for vm_id in vm_ids)))

    async def status(self, vm_id: str) -> MaintenanceStatus:
        """Return what Compute says of one VM, from one GET."""
        target = ResourceId.parse(vm_id)
        machines = (await self._compute.client(target.subscription)).virtual_machines
        async with self._caller.call("vm_get", READ_TIMEOUT_S):
            body = await machines.get(
                target.group, target.names[-1], expand="instanceView", cls=raw
            )
            return parse_status(about(vm_id, as_object(body, "a VM")))

    async def perform(self, vm_id: str) -> None:
        """Start the maintenance of a VM, once, and return when Azure says that it has ended.

        Raises:
            Denied: whoever asks may not do that; names what is missing.
            NotDone: Azure does not allow it for this VM now.
            Conflict: another operation holds the VM; it may be this very maintenance.
            OutcomeUnknown: it may have begun: look at `status` before anything else.
            ServiceFault: the same; or it has begun and ended badly.
            ControllerError: it has not begun.
        """
        target = ResourceId.parse(vm_id)
        machines = (await self._compute.client(target.subscription)).virtual_machines

        def begin() -> Awaitable[operations.Poller]:
            return machines.begin_perform_maintenance(target.group, target.names[-1])

        try:
            await operations.act(
                self._caller, self._clock, "vm_maintain", begin, deadline_s=PERFORM_DEADLINE_S
            )
        except Conflict as error:
            if NOT_ALLOWED in str(error):
                raise NotDone(str(error)) from error
            raise


def parse_status(body: Json) -> MaintenanceStatus:
    """Read a VM with its instance view.

    Raises:
        ContractViolation: the body is of another shape than documented.
    """
    vm_id = text(body, "id")
    name = ResourceId.parse(vm_id).names[-1]
    view = part(part(body, "properties", vm_id), "instanceView", vm_id)
    status = child(view, "maintenanceRedeployStatus", vm_id)
    allowed = cast("object", status.get("isCustomerInitiatedMaintenanceAllowed"))
    if not isinstance(allowed, bool | None):
        raise ContractViolation(f"isCustomerInitiatedMaintenanceAllowed of {name} is no boolean")
    code = text(status, "lastOperationResultCode") or LastResult.NONE.value
    known = {result.value.casefold(): result for result in LastResult}
    last_result = known.get(code.casefold(), LastResult.UNKNOWN)
    self_service = _window(status, "preMaintenanceWindow", name)
    scheduled = _window(status, "maintenanceWindow", name)
    nothing = MaintenanceState.NOT_SCHEDULED
    if self_service or scheduled:
        nothing = MaintenanceState.SCHEDULED
    state = MaintenanceState.SELF_SERVICE if allowed else _STATES.get(last_result, nothing)
    message = text(status, "lastOperationMessage")
    if last_result is LastResult.UNKNOWN:
        message = f"{code}: {message}" if message else code
    return MaintenanceStatus(
        name=name,
        vm_id=vm_id,
        update_domain=_domain(view, name),
        power=power_in(view, vm_id),
        state=state,
        self_service=self_service,
        scheduled=scheduled,
        last_result=last_result,
        last_message=cap(message),
    )


def _window(status: Json, name: str, vm: str) -> Window:
    return Window(
        opens_at=_instant(status, f"{name}StartTime", vm),
        closes_at=_instant(status, f"{name}EndTime", vm),
    )


def _instant(status: Json, name: str, vm: str) -> datetime | None:
    written = text(status, name)
    if not written:
        return None
    try:
        instant = datetime.fromisoformat(written)
        # Azure's times are UTC also where they do not say so.
        instant = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant
        return instant.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ContractViolation(f"{name} of {vm} is {cap(written)!r}, which is no time") from error


def _domain(view: Json, vm: str) -> int | None:
    found = cast("object", view.get("platformUpdateDomain"))
    if found is None:
        return None
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise ContractViolation(f"platformUpdateDomain of {vm} is {cap(str(found))!r}")
    return found
