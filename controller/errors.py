"""The error tree, ordered by what the caller may do next. Imports nothing.

ControllerError
├── ConfigError           the operator must change something; exit code 78, no restart loop
├── NotSent               the request never left: any verb may be retried
├── OutcomeUnknown        it may have taken effect: observe again before anything else
├── Throttled             wait `retry_after_s`, then the same request may be sent again
├── ServiceFault          5xx: back off, then observe again
├── Conflict              409, 412, superseded operation: drop the plan, observe again
│   └── Busy              an operation holds the resource: the same, and write fewer at once
├── LeaseHeld             someone else leads
├── LeaseLost             we led and no longer do: stop writing
├── NotFound              404; one alone is no proof of deletion (replication lag)
├── Denied                401, 403: names the missing permission and its scope
├── ContractViolation     a reply that breaks the documented shape: never write because of it
├── NotDone               what a person asked for will not happen
└── InvariantViolation    a bug of ours: crash and be restarted
"""


class ControllerError(Exception):
    """Base of every error this package raises on purpose. `str()` is one clear paragraph."""

    service: str = ""
    """Which of Azure's services was asked, as the metrics name it; empty when none was."""


class ConfigError(ControllerError):
    """The configuration, or what it points at, cannot work. Says what, where and what to do."""


class NotSent(ControllerError):
    """The request never reached the service (name, connect or TLS failure)."""


class OutcomeUnknown(ControllerError):
    """The request was sent and no usable reply came back (timeout, reset, lost reply).

    `retry_after_s` is what the service asked for when it refused to tell.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Throttled(ControllerError):
    """The service asks for patience. `retry_after_s` is what it said, None when it did not say."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServiceFault(ControllerError):
    """The service failed on its side (5xx, or an operation that ended Failed)."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Conflict(ControllerError):
    """Somebody else changed the resource first (409, 412, or an operation that was superseded)."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Busy(Conflict):
    """Another operation holds the resource; `retry_after_s` is what the reply says, if it does."""


class LeaseHeld(ControllerError):
    """The lease belongs to another agent."""


class LeaseLost(ControllerError):
    """The lease is no longer ours."""


class NotFound(ControllerError):
    """The resource does not exist, or not yet, or not in this replica."""


class Denied(ControllerError):
    """The identity may not do this. `action` and `scope` are what it lacks, if Azure says so."""

    def __init__(self, message: str, *, action: str = "", scope: str = "") -> None:
        super().__init__(message)
        self.action, self.scope = action, scope


class ContractViolation(ControllerError):
    """A reply breaks the documented shape."""


class InvariantViolation(ControllerError):
    """Our own reasoning is broken; continuing could do harm."""


def told_s(error: ControllerError) -> float | None:
    """Return for how long the service asked to be left alone, in seconds, if it did."""
    seconds: float | None = getattr(error, "retry_after_s", None)
    return seconds


class NotDone(ControllerError):
    """What a person asked for will not happen; the message says why."""
