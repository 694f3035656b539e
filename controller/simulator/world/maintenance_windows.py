"""Self-service maintenance of the VMs of a world: plans it, and carries it out on demand."""

import random
from typing import Protocol

from controller.simulator.world import bodies
from controller.simulator.world.maintenance import MESSAGES, MaintenanceResult, PlannedMaintenance
from controller.simulator.world.operations import Operation
from controller.simulator.world.scheduler import Scheduler
from controller.simulator.world.vm import SimVm
from controller.simulator.world.writes import Writes


class Host(Protocol):
    """What maintenance needs from its world."""

    scheduler: Scheduler
    random: random.Random
    location: str
    writes: Writes

    @property
    def now(self) -> float: ...
    def vm(self, name: str) -> SimVm: ...
    def record(self, kind: str, subject: str, **detail: object) -> None: ...
    def begin_impact(self, vm: str, cause: str, state: str) -> None: ...
    def end_impact(self, vm: str, cause: str) -> None: ...


class MaintenanceWindows:
    """Planned maintenance of VMs that their owner can start."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def plan(
        self,
        *vms: str,
        window_s: float = 3600.0,
        opens_in_s: float = 0.0,
        down_s: float = 20.0,
        outcome: MaintenanceResult = "MaintenanceCompleted",
    ) -> None:
        """Plan maintenance of `vms` that their owner can start within a window.

        The window opens `opens_in_s` from now (or has opened, if negative) and stays open for
        `window_s`; a second window of that length, in which Azure would start it, is only shown.
        """
        opens_at = self._host.now + opens_in_s
        for vm in vms:
            found = self._host.vm(vm)
            found.maintenance = PlannedMaintenance(
                opens_at=opens_at,
                closes_at=opens_at + window_s,
                ends_at=opens_at + 2 * window_s,
                down_s=down_s,
                outcome=outcome,
            )
            self._host.record("maintenance_planned", found.name)

    def perform(self, vm: str, by: str) -> Operation:
        """Start the maintenance of a VM, which must be allowed; the VM goes down and comes back."""
        found = self._host.vm(vm)
        planned = found.maintenance
        if planned is None:
            raise ValueError(f"no maintenance is planned for {vm}")
        planned.under_way = True
        operation = Operation(
            operation_id=bodies.guid(self._host.random),
            kind="PerformMaintenanceOperation",
            resource=found.resource_id,
            location=self._host.location,
            started_at=self._host.now,
            before={},
        )
        self._host.writes.operations[operation.operation_id] = operation
        self._host.record("maintenance_begun", found.name, by=by)
        if planned.outcome != "RetryLater":
            self._host.begin_impact(found.name, operation.operation_id, "rebooting")
        self._host.scheduler.at(
            self._host.now + planned.down_s, lambda: self._maintained(found, operation)
        )
        return operation

    def _maintained(self, vm: SimVm, operation: Operation) -> None:
        planned = vm.maintenance
        if planned is None:
            return
        self._host.end_impact(vm.name, operation.operation_id)
        planned.under_way, planned.result = False, planned.outcome
        completed = planned.result == "MaintenanceCompleted"
        operation.status = "Succeeded" if completed else "Failed"
        operation.ended_at = self._host.now
        if not completed:
            operation.error = {"code": planned.result, "message": MESSAGES[planned.result]}
        self._host.record("maintenance_ended", vm.name, result=planned.result)
