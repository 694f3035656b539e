"""Long-running operations: what an accepted write has begun, and how it ends."""

from dataclasses import dataclass, field
from typing import Literal

from controller.simulator.bodies import Json
from controller.simulator.timeline import Timer

OperationStatus = Literal["InProgress", "Succeeded", "Failed", "Canceled"]
Outcome = Literal["succeeded", "failed", "canceled", "no_effect"]
"""How a planned operation is to end. `no_effect` reports success and changes nothing."""


@dataclass(slots=True, kw_only=True)
class Operation:
    """One write in flight, or ended."""

    operation_id: str
    kind: str
    """Azure's name of it, as it appears in messages: PutNicOperation and the like."""
    resource: str
    location: str
    started_at: float
    before: Json
    """The body as it was, for GETs that lag and for writes that come to nothing."""
    outcome: Outcome = "succeeded"
    status: OperationStatus = "InProgress"
    ended_at: float | None = None
    error: Json | None = None
    applied: bool = False
    """Whether the data plane has followed it."""
    carried: list["Operation"] = field(default_factory=list["Operation"])
    """Superseded operations whose change this one carries out, or undoes, with its own."""
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
