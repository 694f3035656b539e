"""Planned maintenance with a self-service window, as Microsoft.Compute shows it.

If maintenance needs a reboot, each affected VM shows two windows: one in which its owner can start
the maintenance (`performMaintenance`), and then one in which Azure starts it
(Microsoft docs, Handling planned maintenance notifications). The names and values on the wire are
those of Microsoft's OpenAPI, MaintenanceRedeployStatus.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from controller.simulator.world.bodies import Json

MaintenanceResult = Literal["None", "RetryLater", "MaintenanceAborted", "MaintenanceCompleted"]
MESSAGES: dict[MaintenanceResult, str] = {
    "RetryLater": "The maintenance cannot be started now. Try again later.",
    "MaintenanceAborted": "The maintenance was aborted.",
}
"""Values of `lastOperationMessage`; the real texts are not documented."""


@dataclass(slots=True, kw_only=True)
class PlannedMaintenance:
    """The maintenance planned for one VM. Instants in epoch seconds."""

    opens_at: float
    closes_at: float
    """End of the self-service window; the scheduled window begins then."""
    ends_at: float
    down_s: float
    """Seconds that the VM is down during the maintenance."""
    outcome: MaintenanceResult
    """The result of the next attempt. `RetryLater` does not affect the VM."""
    result: MaintenanceResult = "None"
    under_way: bool = False

    def allowed(self, now: float) -> bool:
        """Return whether the owner can start it now."""
        done = self.result == "MaintenanceCompleted"
        return not done and not self.under_way and self.opens_at <= now < self.closes_at

    def body(self, now: float) -> Json:
        """Return it as the instance view shows it."""
        status: Json = {
            "isCustomerInitiatedMaintenanceAllowed": self.allowed(now),
            "preMaintenanceWindowStartTime": _spell(self.opens_at),
            "preMaintenanceWindowEndTime": _spell(self.closes_at),
            "maintenanceWindowStartTime": _spell(self.closes_at),
            "maintenanceWindowEndTime": _spell(self.ends_at),
            "lastOperationResultCode": self.result,
        }
        if self.result in MESSAGES:
            status["lastOperationMessage"] = MESSAGES[self.result]
        return status


def _spell(instant: float) -> str:
    return datetime.fromtimestamp(int(instant), UTC).isoformat()
