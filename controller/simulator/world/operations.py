"""Long-running operations: the work of an accepted write, and how it ends."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from controller.simulator.world.bodies import Json
from controller.simulator.world.scheduler import Timer

OperationStatus = Literal["InProgress", "Succeeded", "Failed", "Canceled"]
Outcome = Literal["succeeded", "failed", "canceled", "no_effect"]
"""How a planned operation is to end. `no_effect` reports success and changes nothing."""


@dataclass(slots=True, kw_only=True)
class Operation:
    """One write in flight, or ended."""

    operation_id: str
    kind: str
    """Azure's name of the operation in messages, such as PutNicOperation."""
    resource: str
    location: str
    started_at: float
    before: Json
    """The body before the write, for GETs that lag and for writes that fail."""
    outcome: Outcome = "succeeded"
    status: OperationStatus = "InProgress"
    ended_at: float | None = None
    error: Json | None = None
    applied: bool = False
    """Whether the data plane has followed the write."""
    carried: list["Operation"] = field(default_factory=list["Operation"])
    """Superseded operations whose changes this operation applies or reverts with its own."""
    on_apply: Callable[[], None] | None = None
    """What the data plane does when it follows the write, besides what the bodies ask for."""
    timers: list[Timer] = field(default_factory=list[Timer])


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedOutcome:
    """What the next operation on a resource will do, instead of succeeding in the usual time."""

    outcome: Outcome
    latency_s: float | None = None


def failure(operation: Operation) -> Json:
    """Return the error object of an operation that the platform failed."""
    return {
        "code": "RetryableError",
        "message": "A retryable error occured.",
        "details": [
            {
                "code": "InternalServerError",
                "message": f"Operation {operation.kind} ({operation.operation_id}) failed.",
            }
        ],
    }


def superseded(operation: Operation, by: Operation) -> Json:
    """Return the error object of an operation that a later write replaced."""
    return {
        "code": "Canceled",
        "message": "Operation was canceled.",
        "details": [
            {
                "code": "CanceledAndSupersededDueToAnotherOperation",
                "message": (
                    f"Operation {operation.kind} ({operation.operation_id}) was canceled and "
                    f"superseded by operation {by.kind} ({by.operation_id})."
                ),
            }
        ],
    }
