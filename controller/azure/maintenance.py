"""Self-service maintenance: planned maintenance that the owner of a VM can start.

Facts about Azure, with their sources:

- `maintenanceRedeployStatus` is in the instance view only while maintenance is planned for the VM;
  `isCustomerInitiatedMaintenanceAllowed` is true if it can be started now. The pre-maintenance
  window is the self-service window (about 35 days); in the maintenance window Azure starts it
  (Microsoft docs, Handling planned maintenance notifications, and the same using the Azure CLI).
- `lastOperationResultCode` is None, RetryLater, MaintenanceAborted or MaintenanceCompleted; every
  property can be absent (Microsoft OpenAPI, MaintenanceRedeployStatus). Beyond the name of the
  code, nothing is documented about what follows a failed attempt.
- `POST .../virtualMachines/{name}/performMaintenance` answers 200 or 202 without a body (the same
  OpenAPI, since 2017-03-30). The 202 of Compute has `Azure-AsyncOperation` and, with
  `monitor=true`, `Location` (a trace in Azure/azure-xplat-cli#3389).
- If maintenance is not allowed, the reply is 409 OperationNotAllowed, "Operation
  'performMaintenance' is not allowed on VM ... not eligible" (tests of
  Azure/azure-sdk-for-python and azure-sdk-for-net).
- It needs `Microsoft.Compute/virtualMachines/performMaintenance/action` on the VM (Microsoft docs,
  Azure permissions for Compute). Reading the operation needs a permission on the resource group
  (Microsoft docs, Track asynchronous Azure operations).
- Azure can plan maintenance for a VM again after it is done (the FAQ of the first page). So a VM
  whose maintenance can be started counts as not done, whatever the last result is.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import cast

from controller.azure.compute import PARALLEL_READS, Compute, power_in
from controller.azure.http import long_running
from controller.azure.http.call import Caller, Observer, ignore_outcome
from controller.azure.http.json_reader import (
    Json,
    child,
    required_child,
    text,
)
from controller.azure.http.resource_id import ResourceId
from controller.clock import Clock
from controller.core.printable import excerpt
from controller.core.resources import PowerState
from controller.errors import Conflict, ContractViolation, NotDone

NOT_ALLOWED = "OperationNotAllowed"
PERFORM_DEADLINE_S = 3600.0
"""A reboot takes minutes. A redeploy is announced as an event 15 minutes before it starts."""


class MaintenanceState(Enum):
    """The state of the planned maintenance of a VM; the values are for people."""

    NOT_SCHEDULED = "not scheduled"
    SELF_SERVICE = "can be started now"
    SCHEDULED = "scheduled, but cannot be started now"
    DONE = "done"
    ABORTED = "aborted"
    RETRY_LATER = "to be retried later"


class LastResult(Enum):
    """The result of the last attempt."""

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
    """A period of time; Azure can leave out either end."""

    opens_at: datetime | None
    closes_at: datetime | None

    def __bool__(self) -> bool:
        return self.opens_at is not None or self.closes_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceStatus:
    """The planned maintenance of one VM, as Compute reports it."""

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

    def __init__(
        self, compute: Compute, *, clock: Clock, observer: Observer = ignore_outcome
    ) -> None:
        self._compute = compute
        self._clock = clock
        self._caller = Caller(
            service="compute", clock=clock, observer=observer, version=compute.version
        )

    async def statuses(self, vm_ids: tuple[str, ...]) -> tuple[MaintenanceStatus, ...]:
        """Return the planned maintenance of these VMs, in their order.

        Raises:
            ControllerError: a VM could not be read.
        """
        gate = asyncio.Semaphore(PARALLEL_READS)

        async def one(vm_id: str) -> MaintenanceStatus:
            async with gate:
                return await self.status(vm_id)

        return tuple(await asyncio.gather(*(one(vm_id) for vm_id in vm_ids)))

    async def status(self, vm_id: str) -> MaintenanceStatus:
        """Return the planned maintenance of one VM, from one GET."""
        return parse_status(await self._compute.vm_body(vm_id))

    async def perform(self, vm_id: str) -> None:
        """Start the maintenance of a VM, once, and return when Azure reports its end.

        Raises:
            Denied: the caller may not do that; names what is missing.
            NotDone: Azure does not allow it for this VM now.
            Conflict: another operation is in progress, perhaps this maintenance itself.
            OutcomeUnknown: it may have started: read `status` before anything else.
            ServiceFault: the same; or it has started and failed.
            ControllerError: it has not started.
        """
        target = ResourceId.parse(vm_id)
        machines = (await self._compute.client(target.subscription)).virtual_machines

        def begin() -> Awaitable[long_running.Poller]:
            return machines.begin_perform_maintenance(
                target.group, target.names[-1], api_version=self._compute.version.value
            )

        try:
            await long_running.post(
                self._caller, self._clock, "vm_maintain", begin, deadline_s=PERFORM_DEADLINE_S
            )
        except Conflict as error:
            if NOT_ALLOWED in str(error):
                raise NotDone(str(error)) from error
            raise


def parse_status(body: Json) -> MaintenanceStatus:
    """Return the planned maintenance in the body of a VM with its instance view.

    Raises:
        ContractViolation: the body does not have the documented shape.
    """
    vm_id = text(body, "id")
    name = ResourceId.parse(vm_id).names[-1]
    view = required_child(required_child(body, "properties", vm_id), "instanceView", vm_id)
    status = child(view, "maintenanceRedeployStatus", vm_id)
    allowed = cast("object", status.get("isCustomerInitiatedMaintenanceAllowed"))
    if not isinstance(allowed, bool | None):
        raise ContractViolation(f"isCustomerInitiatedMaintenanceAllowed of {name} is not a boolean")
    code = text(status, "lastOperationResultCode") or LastResult.NONE.value
    known = {result.value.casefold(): result for result in LastResult}
    last_result = known.get(code.casefold(), LastResult.UNKNOWN)
    self_service = _window(status, "preMaintenanceWindow", name)
    scheduled = _window(status, "maintenanceWindow", name)
    default = MaintenanceState.NOT_SCHEDULED
    if self_service or scheduled:
        default = MaintenanceState.SCHEDULED
    state = MaintenanceState.SELF_SERVICE if allowed else _STATES.get(last_result, default)
    message = text(status, "lastOperationMessage")
    if last_result is LastResult.UNKNOWN:
        message = f"{code}: {message}" if message else code
    return MaintenanceStatus(
        name=name,
        vm_id=vm_id,
        update_domain=_domain(view, name),
        power=power_in(view),
        state=state,
        self_service=self_service,
        scheduled=scheduled,
        last_result=last_result,
        last_message=excerpt(message),
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
        # Azure's times are in UTC, also without an offset.
        instant = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant
        return instant.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ContractViolation(
            f"{name} of {vm} is {excerpt(written)!r}, which is not a time"
        ) from error


def _domain(view: Json, vm: str) -> int | None:
    found = cast("object", view.get("platformUpdateDomain"))
    if found is None:
        return None
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise ContractViolation(f"platformUpdateDomain of {vm} is {excerpt(str(found))!r}")
    return found
