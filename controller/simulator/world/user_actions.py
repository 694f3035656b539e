"""What users do to VMs through Microsoft.Compute: restart, redeploy, stop, deallocate and start.

If Scheduled Events is enabled for a VM, a restart or redeploy by a user becomes an event of source
User: it waits for an acknowledgement or for NotBefore (Microsoft docs, Scheduled Events). Without
it, it happens at once. A policy of the set may approve it, and then there is no notice.
"""

import random
from typing import Literal, Protocol

from controller.simulator.world import bodies
from controller.simulator.world.bodies import Json
from controller.simulator.world.events import EventBoard
from controller.simulator.world.operations import Operation
from controller.simulator.world.scheduler import Scheduler
from controller.simulator.world.settings import WorldSettings
from controller.simulator.world.vm import SimVm, VmState
from controller.simulator.world.writes import Writes

UserAction = Literal["restart", "redeploy", "powerOff", "deallocate", "start"]
DESCRIPTIONS = {
    "restart": "Virtual machine is going to be restarted as requested by authorized user.",
    "redeploy": "Virtual machine is going to be redeployed as requested by authorized user.",
}
TYPES = {"restart": "Reboot", "redeploy": "Redeploy"}
POLICIES = {"restart": "userInitiatedReboot", "redeploy": "userInitiatedRedeploy"}
STATES: dict[UserAction, VmState] = {
    "powerOff": "stopped",
    "deallocate": "deallocated",
    "start": "running",
}


class Host(Protocol):
    """What the actions need from their world."""

    scheduler: Scheduler
    settings: WorldSettings
    random: random.Random
    location: str
    writes: Writes
    events: EventBoard
    scheduled_events_policy: Json | None

    @property
    def now(self) -> float: ...
    def vm(self, name: str) -> SimVm: ...
    def peers(self) -> tuple[SimVm, ...]: ...
    def record(self, kind: str, subject: str, **detail: object) -> None: ...
    def set_vm_state(self, vm: str, state: VmState) -> None: ...


class UserActions:
    """Carries out the actions, each as an operation."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def begin(self, vm: str, action: UserAction, by: str) -> Operation:
        """Begin an action on a VM; KeyError if there is none."""
        host, found = self._host, self._host.vm(vm)
        operation = Operation(
            operation_id=bodies.guid(host.random),
            kind=f"{action}VirtualMachine",
            resource=found.resource_id,
            location=host.location,
            started_at=host.now,
            before={},
        )
        host.writes.operations[operation.operation_id] = operation
        host.record("user_action", found.name, action=action, by=by)
        match action:
            case "restart" | "redeploy":
                self._interrupt(found, action, operation)
            case "powerOff" | "deallocate" | "start":
                host.set_vm_state(found.name, STATES[action])
                host.scheduler.at(
                    host.now + host.settings.user_action_s, lambda: self._end(operation)
                )
        return operation

    def _interrupt(
        self, vm: SimVm, action: Literal["restart", "redeploy"], operation: Operation
    ) -> None:
        settings = self._host.settings
        # One VM that reads its events enables the service for the whole set.
        enabled = any(
            each.imds_last_call is not None
            and self._host.now - each.imds_last_call <= settings.imds_idle_disable_s
            for each in {vm.name: vm, **{peer.name: peer for peer in self._host.peers()}}.values()
        )
        policies: Json = self._host.scheduled_events_policy or {}
        policy: Json = policies.get(POLICIES[action]) or {}
        approved = bool(policy.get("automaticallyApprove"))
        event = self._host.events.schedule(
            TYPES[action],
            vm.name,
            source="User",
            notice_s=settings.user_event_notice_s,
            impact_s=settings.user_action_s,
            started_first=approved or not enabled,
            description=DESCRIPTIONS[action],
        )
        event.on_impact_end = lambda: self._end(operation)

    def _end(self, operation: Operation) -> None:
        if operation.status == "InProgress":
            operation.status, operation.ended_at = "Succeeded", self._host.now
