"""Planned maintenance with a self-service window: what Compute says of it, and what it does.

In a wave of maintenance that needs a reboot, each VM concerned shows two windows: one in which its
owner may start the maintenance (`performMaintenance`), and after it one in which Azure does
(Microsoft docs, Handling planned maintenance notifications). The names and values on the wire are
those of Microsoft's OpenAPI, MaintenanceRedeployStatus.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from controller.simulator.bodies import Json

MaintenanceResult = Literal["None", "RetryLater", "MaintenanceAborted", "MaintenanceCompleted"]
MESSAGES: dict[MaintenanceResult, str] = {
    "RetryLater": "The maintenance cannot be started now. Try again later.",
    "MaintenanceAborted": "The maintenance was aborted.",
}
"""What `lastOperationMessage` says; the real texts are not documented."""


@dataclass(slots=True, kw_only=True)
class PlannedMaintenance:
    """The maintenance planned for one VM. Instants in epoch seconds."""

    opens_at: float
    closes_at: float
    """End of the self-service window; the scheduled window begins then."""
    ends_at: float
    down_s: float
    """How long the VM is away when the maintenance is performed."""
    outcome: MaintenanceResult
    """What the next attempt comes to. `RetryLater` leaves the VM alone."""
    result: MaintenanceResult = "None"
    under_way: bool = False

    def allowed(self, now: float) -> bool:
        """Tell whether the owner may start it now."""
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
